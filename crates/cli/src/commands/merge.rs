//! `realm history merge`: ends a fork with an entry that names every branch.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::{Hash, Kind, Target};
use realm_manifest::payload::{Merge, Payload};
use realm_planner::{State, next_entry};
use serde_json::json;

use crate::{
    chain::{self, Branch, Forked, Link},
    clock,
    commands::{Session, history, lifecycle},
    connection::{Connection, rpc_failed},
    error::{CliError, ExitCode, Result},
    head,
    intent::{self, Durable, Outcome},
    output::confirm,
    realms::Realm,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm history merge                     show the branches, choose, confirm\n  realm history merge --keep 3f2c1ab --yes\n\nThe kept branch stays as it is. With --reapply clean, intents of the other branches are applied\nagain on top where the kept branch says nothing about the same component or node."
)]
pub struct Args {
    /// The branch to keep: the first digits of its newest entry. The longest by default.
    #[arg(long, value_name = "HASH")]
    pub keep: Option<String>,
    /// What of the other branches is applied again on top.
    #[arg(long, value_enum, default_value_t)]
    pub reapply: Reapply,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Why; recorded in the history.
    #[arg(short = 'm', long = "message", value_name = "TEXT")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Reapply {
    /// What the kept branch says nothing about.
    #[default]
    Clean,
    /// Everything: where both speak, the other branch has the last word.
    All,
    /// Nothing.
    None,
}

pub async fn run(
    args: &Args,
    connection: &Connection,
    realm: &Realm,
    session: &Session,
) -> Result<ExitCode> {
    let base = head::agreed(connection, realm).await?;
    let forks = connection.operator.forks().await;
    let forks = forks.map_err(|error| rpc_failed("the node does not tell its forks", &error))?;
    let Some(fork) = forks.first() else {
        realm.remember_branches(&[]);
        let revision = base.state.revision;
        return report(Outcome::Unchanged { revision }, &Again::default(), session);
    };
    let forked = Forked::read(fork, realm, base.head, base.state.owner)?;
    let tips = forked.branches.iter().map(|branch| branch.tip.short());
    realm.remember_branches(&tips.collect::<Vec<_>>());
    let kept = choose(&forked, args.keep.as_deref())?;
    let state = forked.fold(&base.state, kept)?;
    // The number after every branch, so that no revision exists twice again.
    let seq = newest(&forked).saturating_add(1);
    let again = Again::sorted(&state, seq, reapplied(&forked, kept, args.reapply))?;
    tell(&forked, kept, &again, session);
    confirm(args.yes, "end the fork like this").await?;
    let lock = realm.lock().await?;

    let mut heads: Vec<Hash> = forked.branches.iter().map(|branch| branch.tip).collect();
    heads.sort();
    let payload = Payload::Merge(Merge {
        heads,
        keep: kept.tip,
        reapply: again.applied.iter().map(|link| link.entry.hash()).collect(),
        note: args.note.clone(),
    });
    let author = connection.owner_key();
    if state.owner != author {
        return Err(CliError::new(
            ExitCode::NotAuthorised,
            format!(
                "on the branch you keep the realm belongs to {}",
                state.owner
            ),
        )
        .help("use that key: --key FILE; or keep another branch: --keep HASH"));
    }
    let mut entry = next_entry(
        &state,
        kept.tip,
        author,
        Target::Realm,
        &payload,
        clock::now()?,
    );
    entry.seq = seq;
    let sent = intent::send(connection, realm, &lock, entry, &payload).await?;
    let Some(sent) = sent else {
        return Err(
            CliError::failed("the log changed meanwhile").help("look again: realm history merge")
        );
    };
    drop(lock);
    let outcome = sent.outcome(connection, realm, Durable::OnOne).await?;
    realm.remember_branches(&[]);
    report(outcome, &again, session)
}

/// Intents of the branches that are not kept.
#[derive(Debug, Default)]
struct Again<'f> {
    /// Those that are applied again, oldest first.
    applied: Vec<&'f Link>,
    /// Those that were to be and cannot, with why.
    left_out: Vec<(&'f Link, String)>,
}

impl<'f> Again<'f> {
    /// `state` is that of the kept branch, `seq` the number of the merge.
    fn sorted(state: &State, seq: u64, wanted: Vec<&'f Link>) -> Result<Self> {
        let mut left_out = BTreeMap::from_iter(chain::left_out(state, seq, &wanted)?);
        let mut again = Self::default();
        for (index, link) in wanted.into_iter().enumerate() {
            match left_out.remove(&index) {
                Some(why) => again.left_out.push((link, why)),
                None => again.applied.push(link),
            }
        }
        Ok(again)
    }

    /// What is said of an intent beside its row.
    fn mark(&self, link: &Link) -> String {
        let hash = link.entry.hash();
        if self.applied.iter().any(|one| one.entry.hash() == hash) {
            return "  applied again".to_owned();
        }
        let mut left_out = self.left_out.iter();
        match left_out.find(|(one, _)| one.entry.hash() == hash) {
            Some((_, why)) => format!("  cannot be applied again: {why}"),
            None => String::new(),
        }
    }
}

fn report(outcome: Outcome, again: &Again<'_>, session: &Session) -> Result<ExitCode> {
    if session.output.json() {
        let mut object = lifecycle::as_json(outcome, "realm");
        let left_out = again.left_out.iter().map(|(link, why)| {
            json!({
                "revision": link.entry.seq, "kind": link.kind_name(),
                "target": link.subject(), "why": why,
            })
        });
        let applied = again.applied.iter();
        object["applied_again"] = applied.map(|link| link.entry.hash().to_string()).collect();
        object["left_out"] = left_out.collect();
        session.output.json_line(&object)?;
        return Ok(ExitCode::Ok);
    }
    session.output.say(match outcome {
        Outcome::Done { revision, durable } => {
            format!("✓ the fork is ended: revision {revision}, {durable}")
        }
        Outcome::Unchanged { .. } => "✓ the log has no fork: there is nothing to merge".to_owned(),
    });
    let left_out = match again.left_out.len() {
        0 => return Ok(ExitCode::Ok),
        1 => "1 intent".to_owned(),
        count => format!("{count} intents"),
    };
    session.output.say(format!(
        "{left_out} could not be applied again, see above: sign anew what is still wanted"
    ));
    Ok(ExitCode::Ok)
}

/// The branch that was asked for, else the longest; of equally long ones the first to be signed.
fn choose<'f>(forked: &'f Forked, wanted: Option<&str>) -> Result<&'f Branch> {
    let Some(wanted) = wanted else {
        let longest = forked.branches.iter().max_by_key(|branch| {
            let first = branch.links.first();
            let signed = first
                .and_then(|link| link.entry.body.as_ref())
                .map(|body| body.issued_at);
            (branch.links.len(), std::cmp::Reverse((signed, branch.tip)))
        });
        return longest.ok_or_else(|| CliError::failed("the node tells no branches of its fork"));
    };
    let mut found = forked
        .branches
        .iter()
        .filter(|branch| branch.tip.to_string().starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(branch), None) => Ok(branch),
        (Some(_), Some(_)) => Err(CliError::new(
            ExitCode::Usage,
            format!("{wanted:?} begins more than one branch's hash"),
        )
        .help("give more digits")),
        (None, _) => Err(CliError::new(
            ExitCode::NotFound,
            format!("no branch ends with {wanted:?}"),
        )
        .help("see the branches: realm history merge")),
    }
}

/// What is applied again, oldest first. Owner changes and merges never are.
fn reapplied<'f>(forked: &'f Forked, kept: &Branch, which: Reapply) -> Vec<&'f Link> {
    let there: BTreeSet<Hash> = kept
        .links
        .iter()
        .flat_map(|link| {
            let before = link.merge().map(|merge| merge.reapply.clone());
            std::iter::once(link.entry.hash()).chain(before.unwrap_or_default())
        })
        .collect();
    let subjects: BTreeSet<String> = kept.links.iter().map(Link::subject).collect();
    let mut taken = BTreeSet::new();
    let mut links: Vec<&Link> = forked
        .branches
        .iter()
        .flat_map(|branch| &branch.links)
        .filter(|link| {
            !matches!(
                link.entry.kind(),
                None | Some(Kind::Merge | Kind::OwnerRotate)
            )
        })
        .filter(|link| !there.contains(&link.entry.hash()))
        .filter(|link| match which {
            Reapply::Clean => !subjects.contains(&link.subject()),
            Reapply::All => true,
            Reapply::None => false,
        })
        .filter(|link| taken.insert(link.entry.hash()))
        .collect();
    links.sort_by_key(|link| (link.entry.seq, link.entry.hash()));
    links
}

fn tell(forked: &Forked, kept: &Branch, again: &Again<'_>, session: &Session) {
    session.output.say(format!(
        "The log forked at revision {}: {} branches",
        forked.seq,
        forked.branches.len()
    ));
    for branch in &forked.branches {
        let what = if branch.tip == kept.tip {
            "kept"
        } else {
            "not kept"
        };
        session
            .output
            .say(format!("branch {}  {what}", branch.tip.short()));
        for link in &branch.links {
            let row = history::row(link).join("  ");
            let mark = again.mark(link);
            session.output.say(format!("  {}{mark}", row.trim_end()));
        }
    }
}

fn newest(forked: &Forked) -> u64 {
    let links = forked.branches.iter().flat_map(|branch| &branch.links);
    links.map(|link| link.entry.seq).max().unwrap_or_default()
}
