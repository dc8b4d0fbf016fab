//! `realm history`: the realm's log of intents, verified from its first entry.

use realm_identity::{Hash, Kind};
use realm_manifest::payload::Payload;
use serde_json::{Map, Value, json};

use crate::{
    chain::{self, End, Link},
    clock,
    commands::{Session, accept_loss, merge},
    connection::{self, Connection, rpc_failed},
    error::{CliError, ExitCode, Result},
    head,
    realms::Realm,
};

/// What helps where a node has gone on from another entry than the one that was seen.
const FURTHER: &str = "two sides went on alone: bring back the node that has yours, and end the fork with realm history merge; where it is gone for good, sign anew what is still wanted";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the intents, oldest first; with a revision, show that one in full.
    Show {
        /// The revision to show in full.
        revision: Option<u64>,
        /// List from this revision on.
        #[arg(
            long,
            default_value_t = 1,
            allow_negative_numbers = true,
            conflicts_with = "revision"
        )]
        from: u64,
    },
    /// Check every signature and link from the first entry, and look for forks.
    Verify,
    /// Go on without intents that no node has any more.
    AcceptLoss(accept_loss::Args),
    /// End a fork: keep one branch, and apply again what the others say.
    Merge(merge::Args),
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        let connection = connection::open(session, &realm).await?;
        match &args.command {
            None => list(1, &connection, &realm, session).await,
            Some(Command::Show {
                revision: None,
                from,
            }) => list(*from, &connection, &realm, session).await,
            Some(Command::Show {
                revision: Some(revision),
                ..
            }) => show(*revision, &connection, &realm, session).await,
            Some(Command::Verify) => verify(&connection, &realm, session).await,
            Some(Command::AcceptLoss(args)) => {
                accept_loss::run(args, &connection, &realm, session).await
            }
            Some(Command::Merge(args)) => merge::run(args, &connection, &realm, session).await,
        }
    })
}

/// The agreed log, then what each branch of a fork says instead of what would come next.
async fn list(
    from: u64,
    connection: &Connection,
    realm: &Realm,
    session: &Session,
) -> Result<ExitCode> {
    let mut links = Vec::new();
    let visit = |link: &Link| links.push(link.clone());
    let end = chain::walk(connection, realm, head_seq(connection).await?, visit).await?;
    let fork = chain::fork(connection, realm, &end).await?;
    links.retain(|link| link.entry.seq >= from);
    if session.output.json() {
        list_json(&links, None, session)?;
        for branch in fork.iter().flat_map(|fork| &fork.branches) {
            list_json(&branch.links, Some(branch.tip), session)?;
        }
        return Ok(ExitCode::Ok);
    }
    table(&links, session)?;
    let Some(fork) = fork else {
        return Ok(ExitCode::Ok);
    };
    session.output.line("")?;
    session.output.line(&format!(
        "FORKED at revision {}: {} branches; nothing new is taken until one is kept: realm history merge",
        fork.seq,
        fork.branches.len()
    ))?;
    for branch in &fork.branches {
        session.output.line("")?;
        let tip = branch.tip.short();
        session.output.line(&format!("branch {tip}"))?;
        table(&branch.links, session)?;
    }
    Ok(ExitCode::Ok)
}

/// Lines of one form; only those of an entry that is not agreed name a branch.
fn list_json(links: &[Link], branch: Option<Hash>, session: &Session) -> Result<()> {
    for link in links {
        session.output.json_line(&json!({
            "revision": link.entry.seq, "time": time(link), "kind": link.kind_name(),
            "target": link.subject(), "gist": link.gist(), "hash": link.entry.hash(),
            "message": link.note(), "branch": branch,
        }))?;
    }
    Ok(())
}

fn table(links: &[Link], session: &Session) -> Result<()> {
    session.output.table(
        &["REVISION", "TIME", "KIND", "TARGET", "HASH", "MESSAGE"],
        links.iter().map(row).collect(),
    )
}

async fn show(
    revision: u64,
    connection: &Connection,
    realm: &Realm,
    session: &Session,
) -> Result<ExitCode> {
    let to = revision.min(head_seq(connection).await?);
    let mut found = None;
    let end = chain::walk(connection, realm, to, |link| {
        if link.entry.seq == revision {
            found = Some(link.clone());
        }
    })
    .await?;
    let Some(link) = found else {
        return Err(missing(revision, &end, connection, realm).await?);
    };
    let facts = facts(&link);
    if session.output.json() {
        session.output.object(&facts)?;
        return Ok(ExitCode::Ok);
    }
    for (name, value) in facts {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        // A message may have several lines: the others are indented.
        let names = std::iter::once(name.as_str()).chain(std::iter::repeat(""));
        for (name, line) in names.zip(text.split('\n')) {
            session.output.line(&format!("{name:<18}{line}"))?;
        }
    }
    Ok(ExitCode::Ok)
}

/// Why the agreed log, which was walked up to `end`, has no such revision.
async fn missing(
    revision: u64,
    end: &End,
    connection: &Connection,
    realm: &Realm,
) -> Result<CliError> {
    let not_found = |message| CliError::new(ExitCode::NotFound, message);
    if let Some(merge) = end.passed_by {
        return Ok(not_found(format!(
            "no revision {revision}: the merge, revision {merge}, passed over it"
        ))
        .help(format!("see what it kept: realm history show {merge}")));
    }
    // Before the first one there is nothing to fork.
    let fork = match revision {
        0 => None,
        _ => chain::fork(connection, realm, end).await?,
    };
    Ok(match fork {
        Some(fork) => not_found(format!(
            "no revision {revision} is agreed: the log has forked at revision {}",
            fork.seq
        ))
        .help("see the branches: realm history; end the fork: realm history merge"),
        None => not_found(format!("no revision {revision}")).help("list them: realm history"),
    })
}

async fn verify(connection: &Connection, realm: &Realm, session: &Session) -> Result<ExitCode> {
    let last = head_seq(connection).await?;
    // Not the number of the last one: a merge passes over some.
    let mut verified: usize = 0;
    let mark = realm.mark()?;
    // The entry of the revision that was seen, but where a later merge may have chosen between it and another one.
    let mut at_mark = None;
    let end = chain::walk(connection, realm, last, |link| {
        verified += 1;
        if link.entry.seq == mark {
            at_mark = Some(link.entry.hash());
        } else if link.entry.kind() == Some(Kind::Merge) {
            at_mark = None;
        }
    })
    .await?;
    let fork = chain::fork(connection, realm, &end).await?;
    if last < mark && fork.is_none() {
        return Err(CliError::failed(format!(
            "the node's log ends at revision {last}, you have seen {mark}"
        ))
        .help("ask another node: --via ADDR"));
    }
    if let Some(head) = at_mark
        && realm.contradicts(mark, head)?
    {
        let another = head::another(connection, mark, "you have seen");
        return Err(match last == mark {
            true => another,
            false => another.help(FURTHER),
        });
    }
    if session.output.json() {
        let forks: Vec<_> = fork.iter().map(|fork| fork.seq).collect();
        session.output.object(&json!({
            "revision": last, "verified": verified, "forks": forks,
        }))?;
    } else {
        session.output.say(format!(
            "✓ revision {last}: {} from the first on, every one verified",
            intents(verified)
        ));
        if let Some(fork) = &fork {
            let links = fork.branches.iter().map(|branch| branch.links.len());
            session.output.say(format!(
                "✗ fork at revision {}: {} branches, {}  Next: realm history merge",
                fork.seq,
                fork.branches.len(),
                intents(links.sum())
            ));
        }
    }
    Ok(if fork.is_none() {
        ExitCode::Ok
    } else {
        ExitCode::Differs
    })
}

fn intents(count: usize) -> String {
    match count {
        1 => "1 intent".to_owned(),
        count => format!("{count} intents"),
    }
}

async fn head_seq(connection: &Connection) -> Result<u64> {
    let head = connection.operator.head().await;
    let head = head.map_err(|error| rpc_failed("the node does not tell its head", &error))?;
    Ok(head.seq)
}

pub fn row(link: &Link) -> Vec<String> {
    vec![
        link.entry.seq.to_string(),
        time(link).unwrap_or_default(),
        link.verb().to_owned(),
        link.gist(),
        link.entry.hash().short(),
        link.note().unwrap_or_default().to_owned(),
    ]
}

fn time(link: &Link) -> Option<String> {
    let body = link.entry.body.as_ref()?;
    Some(clock::rfc3339(body.issued_at))
}

/// Everything of one entry, but no value of env or vars: those may be private.
fn facts(link: &Link) -> Map<String, Value> {
    let mut facts = Map::new();
    let mut put = |name: &str, value: Value| facts.insert(name.to_owned(), value);
    put("revision", link.entry.seq.into());
    put("kind", link.kind_name().into());
    put("target", link.subject().into());
    put("time", time(link).into());
    put("author", link.entry.author.to_string().into());
    put("hash", link.entry.hash().to_string().into());
    put("parent", link.entry.prev.to_string().into());
    put("message", link.note().into());
    match &link.payload {
        None => {
            put("payload", Value::Null);
        }
        Some(Payload::Push(push)) => {
            let spec = &push.spec;
            let names = |pairs: &[(String, String)]| -> Value {
                pairs.iter().map(|(key, _)| key.as_str()).collect()
            };
            let shown = |list: &[String]| -> Value { list.to_vec().into() };
            let replicas = spec.replicas.map_or_else(|| "each".into(), Value::from);
            put("digest", spec.artifact.sha256.to_string().into());
            put("size", spec.artifact.size.into());
            put("source", spec.source.clone().into());
            put("replicas", replicas);
            put("nodes", strings(&spec.placement.nodes));
            put("tags", strings(&spec.placement.tags));
            put("restart", spec.restart.as_str().into());
            put("limits", json!(spec.limits));
            put("args", shown(&spec.grants.args));
            put("env_names", names(&spec.grants.env));
            put("var_names", names(&spec.grants.vars));
            put("allowed_outbound", strings(&spec.grants.allowed_outbound));
            put("volumes", strings(&spec.grants.volumes));
            put("run", push.run.into());
        }
        Some(Payload::Restart(restart)) => {
            put("generation", restart.generation.into());
            put("nodes", strings(&restart.nodes));
        }
        Some(Payload::Scale(scale)) => {
            put(
                "replicas",
                scale.replicas.map_or_else(|| "each".into(), Value::from),
            );
        }
        Some(Payload::Run(run)) => {
            put("run", run.run.into());
        }
        Some(Payload::NodeApprove(node) | Payload::NodeSet(node)) => {
            put("name", node.name.to_string().into());
            put("tags", strings(&node.tags));
            put("drain", node.drain.into());
        }
        Some(Payload::Merge(merge)) => {
            put("heads", strings(&merge.heads));
            put("kept", merge.keep.to_string().into());
            put("applied_again", strings(&merge.reapply));
        }
        Some(
            Payload::Remove(_)
            | Payload::NodeRevoke(_)
            | Payload::NodeRemove(_)
            | Payload::OwnerRotate(_),
        ) => {}
    }
    facts
}

fn strings<T: ToString>(list: &[T]) -> Value {
    list.iter().map(ToString::to_string).collect()
}
