//! Follows the realm until nothing is left to wait for.

use std::{ops::ControlFlow, time::Duration};

use realm_agent::status::Picture;

use crate::{
    commands::{Session, wait},
    connection::Connection,
    error::{CliError, ExitCode, Result},
    realms::Realm,
    survey::Follower,
};

/// How long another node is looked for when the one that is asked is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is waited for, and the words for it.
#[derive(Debug)]
pub struct Until {
    pub timeout: Duration,
    pub done: &'static str,
    /// Comes before what is left when the time is over.
    pub late: &'static str,
    pub help: &'static str,
}

impl Until {
    /// Waits until nothing is `left`; afterwards says what is, with exit code 6.
    pub async fn nothing_is(
        self,
        left: impl Fn(&Picture) -> Vec<String>,
        (connection, realm): (&Connection, &Realm),
        session: &Session,
    ) -> Result<ExitCode> {
        let mut found = Vec::new();
        let mut follower = Follower::new(session, realm, connection, self.timeout.min(PATIENCE));
        let nothing = follower.follow(|now| {
            found = left(&now);
            Ok(if found.is_empty() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        });
        match tokio::time::timeout(self.timeout, nothing).await {
            Ok(done) => {
                done?;
                session.output.say(format!("✓ {}", self.done));
                Ok(ExitCode::Ok)
            }
            Err(_) => {
                if let Some(gone) = follower.gone() {
                    return Err(wait::no_node(gone));
                }
                let timeout = humantime::format_duration(self.timeout);
                let message = format!("{} after {timeout}: {}", self.late, found.join(", "));
                Err(CliError::new(ExitCode::Partial, message).help(self.help))
            }
        }
    }
}
