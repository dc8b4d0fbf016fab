//! `realm history accept-loss`: goes on without intents that no node has any more.

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
    let here = head::agreed(connection, realm).await?.state.revision;
    let others = head::elsewhere(connection, realm).await?;
    let elsewhere = others.iter().map(|other| other.base.state.revision).max();
    let newest = here.max(elsewhere.unwrap_or_default());
    let mark = realm.mark()?;
    let asked = others.len() + 1;
    if newest >= mark && contradicted.is_none() {
        session.output.say(format!(
            "✓ nothing is lost: revision {newest} is here, you have seen {mark}"
        ));
        return Ok(ExitCode::Ok);
    }
    let (seen, lost) = match contradicted {
        Some(revision) => (
            format!(
                "You signed revision {revision}, and one node took it. The node {} has another one.",
                connection.node().short()
            ),
            format!("revision {revision} as you signed it"),
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
    session
        .output
        .say(format!("✓ the next intent is revision {}", newest + 1));
    Ok(ExitCode::Ok)
}
