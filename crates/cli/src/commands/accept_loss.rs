//! `realm history accept-loss`: goes on without intents that no node has any more.

use std::fmt;

use realm_identity::Hash;
use serde::Serialize;

use crate::{
    commands::Session,
    connection::Connection,
    delivery,
    error::{ExitCode, Result},
    head,
    output::confirm,
    realms::Realm,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "For when the only nodes that had the newest intents are gone for good. A node that comes back with\nthem shows a fork, which realm history merge ends."
)]
pub struct Args {
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

pub async fn run(
    args: &Args,
    connection: &Connection,
    realm: &Realm,
    session: &Session,
) -> Result<ExitCode> {
    let lock = realm.lock().await?;
    // What is still here is sent before anything is given up.
    let contradicted = delivery::offer(connection, realm, &lock, &session.output).await?;
    let base = head::agreed(connection, realm).await?;
    let here = base.state.revision;
    let others = head::elsewhere(connection, realm).await?;
    let elsewhere = others.iter().map(|other| other.base.state.revision).max();
    let newest = here.max(elsewhere.unwrap_or_default());
    let mark = realm.mark()?;
    let asked = others.len() + 1;
    // Another entry than the one that was seen, which none of them has.
    let mut heads = others
        .iter()
        .map(|other| other.base.head)
        .chain([base.head]);
    let seen_head = realm.seen_head()?;
    let is_gone = newest == mark && seen_head.is_some_and(|seen| heads.all(|head| head != seen));
    let given_up = if newest < mark || is_gone {
        let first = contradicted.unwrap_or(newest.saturating_add(1));
        Some(GivenUp {
            from: first.min(mark),
            to: mark,
            hash: seen_head,
        })
    } else if let Some(from) = contradicted {
        // What was signed after it goes with it.
        let last = realm.outbox().kept()?.pop();
        let hash = last.as_ref().map(|(_, intent)| intent.hash());
        Some(GivenUp {
            from,
            to: last.map_or(from, |(revision, _)| revision),
            hash: hash.transpose()?,
        })
    } else {
        None
    };
    let done = Done {
        changed: given_up.is_some(),
        given_up,
        seen: mark,
        newest,
        next: newest.saturating_add(1),
        asked,
    };
    let Some(given_up) = given_up else {
        let said = format!("✓ nothing is lost: revision {newest} is here, you have seen {mark}");
        return done.report(&said, session);
    };
    let node = connection.node().short();
    let (seen, whose) = match contradicted {
        Some(revision) => (
            format!(
                "You signed revision {revision}, and one node took it. The node {node} has another one."
            ),
            "your ",
        ),
        None if is_gone => (
            format!(
                "Of {asked} nodes that answer none has revision {mark} as you have seen it; {node} has another one."
            ),
            "your ",
        ),
        None => (
            format!(
                "You have seen revision {mark}. Of {asked} nodes that answer none is further than {newest}."
            ),
            "",
        ),
    };
    session.output.say(seen);
    session.output.say(format!(
        "Given up: {whose}{given_up}. A node that comes back with it shows a fork: realm history merge"
    ));
    confirm(args.yes, &format!("go on from revision {newest}")).await?;
    realm.lower_mark(newest)?;
    realm.outbox().forget_kept()?;
    let said = format!("✓ the next intent is revision {}", done.next);
    done.report(&said, session)
}

/// Revisions as this person knows them, which no node that answers has.
#[derive(Debug, Clone, Copy, Serialize)]
struct GivenUp {
    from: u64,
    to: u64,
    /// Which entry the last one is, where that is known.
    hash: Option<Hash>,
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from == self.to {
            true => write!(f, "revision {}", self.to),
            false => write!(f, "revisions {} to {}", self.from, self.to),
        }
    }
}

/// What came of it, for programs.
#[derive(Debug, Serialize)]
struct Done {
    /// Whether anything was given up.
    changed: bool,
    given_up: Option<GivenUp>,
    /// The newest revision that this person had seen.
    seen: u64,
    /// The newest one that a node has.
    newest: u64,
    /// The revision of the next intent.
    next: u64,
    /// Nodes that told what they have.
    asked: usize,
}

impl Done {
    fn report(&self, said: &str, session: &Session) -> Result<ExitCode> {
        if session.output.json() {
            session.output.object(self)?;
        } else {
            session.output.say(said);
        }
        Ok(ExitCode::Ok)
    }
}
