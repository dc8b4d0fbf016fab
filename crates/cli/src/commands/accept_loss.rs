//! `realm history accept-loss`: goes on without intents that no node has any more.

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
    let is_gone = match realm.seen_head()? {
        Some(seen) => newest == mark && heads.all(|head| head != seen),
        None => false,
    };
    let done = Done {
        changed: newest < mark || contradicted.is_some() || is_gone,
        seen: mark,
        newest,
        next: newest.saturating_add(1),
        asked,
    };
    if !done.changed {
        let said = format!("✓ nothing is lost: revision {newest} is here, you have seen {mark}");
        return done.report(&said, session);
    }
    let (seen, lost) = match contradicted {
        Some(revision) => (
            format!(
                "You signed revision {revision}, and one node took it. The node {} has another one.",
                connection.node().short()
            ),
            format!("revision {revision} as you signed it"),
        ),
        None if is_gone => (
            format!(
                "Of {asked} nodes that answer none has revision {mark} as you have seen it; {} has another one.",
                connection.node().short()
            ),
            format!("revision {mark} as you have seen it"),
        ),
        None => (
            format!(
                "You have seen revision {mark}. Of {asked} nodes that answer none is further than {newest}."
            ),
            match mark - newest {
                1 => format!("revision {mark}"),
                _ => format!("revisions {} to {mark}", newest + 1),
            },
        ),
    };
    session.output.say(seen);
    session.output.say(format!(
        "Given up: {lost}. A node that comes back with it shows a fork: realm history merge"
    ));
    confirm(args.yes, &format!("go on from revision {newest}")).await?;
    realm.lower_mark(newest)?;
    realm.outbox().forget_kept()?;
    let said = format!("✓ the next intent is revision {}", done.next);
    done.report(&said, session)
}

/// What was given up, for programs.
#[derive(Debug, Serialize)]
struct Done {
    /// Whether anything was.
    changed: bool,
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
