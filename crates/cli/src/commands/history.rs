//! `realm history`: the realm's log of intents, verified from its first entry.

use realm_identity::{Entry, Hash, Kind, PublicKey, Signed, Target};
use realm_manifest::payload::Payload;
use realm_rpc::Intent;

use crate::{
    clock,
    commands::Session,
    connection::{self, Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    realms::Realm,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the intents, oldest first.
    Show {
        /// From this revision on.
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
    /// Check every signature and link from the first entry, and look for forks.
    Verify,
}

/// One verified link.
struct Link {
    entry: Signed<Entry>,
    payload: Option<Payload>,
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        let connection = connection::open(session, &realm).await?;
        match &args.command {
            None => show(1, &connection, &realm, session).await,
            Some(Command::Show { from }) => show(*from, &connection, &realm, session).await,
            Some(Command::Verify) => verify(&connection, &realm, session).await,
        }
    })
}

async fn show(
    from: u64,
    connection: &Connection,
    realm: &Realm,
    session: &Session,
) -> Result<ExitCode> {
    let mut rows = Vec::new();
    for_each(connection, realm, |link| {
        if link.entry.seq >= from {
            rows.push(row(link));
        }
    })
    .await?;
    if session.output.json() {
        for row in &rows {
            session.output.json_line(&serde_json::json!({
                "revision": row[0].parse::<u64>().ok(), "time": row[1], "kind": row[2],
                "target": row[3], "hash": row[4], "message": row[5],
            }))?;
        }
        return Ok(ExitCode::Ok);
    }
    session.output.table(
        &["REVISION", "TIME", "KIND", "TARGET", "HASH", "MESSAGE"],
        rows,
    )?;
    Ok(ExitCode::Ok)
}

async fn verify(connection: &Connection, realm: &Realm, session: &Session) -> Result<ExitCode> {
    let mut last = 0;
    for_each(connection, realm, |link| last = link.entry.seq).await?;
    let mark = realm.mark()?;
    if last < mark {
        return Err(CliError::failed(format!(
            "the node's log ends at revision {last}, you have seen {mark}"
        ))
        .help("ask another node: --via ADDR"));
    }
    let forks = connection.operator.forks().await;
    let forks = forks.map_err(|error| rpc_failed("the node does not tell its forks", &error))?;
    if session.output.json() {
        let forks: Vec<_> = forks.iter().map(|fork| fork.seq).collect();
        session
            .output
            .object(&serde_json::json!({ "revision": last, "forks": forks }))?;
    } else {
        session.output.say(format!(
            "✓ {last} intents from the first on, every one verified"
        ));
        for fork in &forks {
            let branches = fork.branches.len();
            session.output.say(format!(
                "✗ fork at revision {}: {branches} branches",
                fork.seq
            ));
        }
    }
    Ok(if forks.is_empty() {
        ExitCode::Ok
    } else {
        ExitCode::Differs
    })
}

/// Walks the log, each entry checked against the one before it and the owner of its time.
async fn for_each(
    connection: &Connection,
    realm: &Realm,
    mut visit: impl FnMut(&Link),
) -> Result<()> {
    let head = connection.operator.head().await;
    let head = head.map_err(|error| rpc_failed("the node does not tell its head", &error))?;
    let (mut prev, mut owner, mut next): (Hash, PublicKey, u64) =
        (realm.id, realm.genesis.owner(), 1);
    while next <= head.seq {
        let part = connection.operator.history(next, head.seq).await;
        let part = part.map_err(|error| rpc_failed("the node does not give its log", &error))?;
        if part.is_empty() {
            return Err(
                CliError::failed(format!("the node's log ends before revision {next}"))
                    .help("it keeps a checkpoint only: ask another node with --via ADDR"),
            );
        }
        for intent in part {
            let link = check(&intent, realm, next, prev, owner)?;
            visit(&link);
            if link.entry.kind() == Some(Kind::OwnerRotate)
                && let Some(Target::Owner(new)) = link.entry.body.as_ref().map(|body| &body.target)
            {
                owner = *new;
            }
            prev = link.entry.hash();
            next = next.saturating_add(1);
        }
    }
    Ok(())
}

fn check(intent: &Intent, realm: &Realm, seq: u64, prev: Hash, owner: PublicKey) -> Result<Link> {
    let described = || format!("revision {seq} of the node's log does not verify");
    let refused = |why: &str| Err(CliError::new(ExitCode::NotAuthorised, described()).help(why));
    let entry = Signed::<Entry>::from_wire(&intent.entry)
        .context_code(ExitCode::NotAuthorised, described())?;
    if entry.realm != realm.id {
        return refused("it is of another realm");
    }
    if entry.author != owner {
        return refused("it was not signed by the owner of its time");
    }
    // A merge may follow a longer branch, so its number may jump; nothing else may.
    if entry.prev != prev || (entry.seq != seq && entry.kind() != Some(Kind::Merge)) {
        return refused("it does not follow the one before it");
    }
    let payload = match (&intent.payload, entry.kind(), &entry.body) {
        (Some(bytes), Some(kind), Some(body)) => {
            if Hash::of(bytes) != body.payload.sha256 {
                return refused("its payload is not the one that was signed");
            }
            let payload = Payload::decode(kind, bytes);
            Some(payload.context_code(ExitCode::NotAuthorised, described())?)
        }
        _ => None,
    };
    Ok(Link { entry, payload })
}

fn row(link: &Link) -> Vec<String> {
    let body = link.entry.body.as_ref();
    let kind = link.entry.kind().map_or("unknown", Kind::name);
    let target = match body.map(|body| &body.target) {
        None => "?".to_owned(),
        Some(Target::Realm) => "realm".to_owned(),
        Some(Target::Component(name)) => name.clone(),
        Some(Target::Node(key) | Target::Owner(key)) => key.to_string(),
    };
    vec![
        link.entry.seq.to_string(),
        body.map(|body| clock::rfc3339(body.issued_at))
            .unwrap_or_default(),
        kind.to_owned(),
        target,
        link.entry.hash().short(),
        note(link.payload.as_ref()).unwrap_or_default(),
    ]
}

fn note(payload: Option<&Payload>) -> Option<String> {
    match payload? {
        Payload::Push(push) => push.note.clone(),
        Payload::Remove(note)
        | Payload::NodeRevoke(note)
        | Payload::NodeRemove(note)
        | Payload::OwnerRotate(note) => note.note.clone(),
        Payload::Restart(restart) => restart.note.clone(),
        Payload::Scale(scale) => scale.note.clone(),
        Payload::Run(run) => run.note.clone(),
        Payload::NodeApprove(facts) | Payload::NodeSet(facts) => facts.note.clone(),
        Payload::Merge(merge) => merge.note.clone(),
    }
}
