//! Looks at the realm again and again until nothing is left to wait for.

use std::time::Duration;

use realm_agent::status::Picture;

use crate::{
    commands::Session,
    connection::{self, Connection},
    error::{CliError, ExitCode, Result},
    realms::Realm,
    survey,
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
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
        let nothing = async {
            let mut other = None;
            loop {
                let asked = other.as_ref().unwrap_or(connection);
                match survey::picture(asked, realm).await {
                    Ok(picture) => found = left(&picture),
                    // It is gone, or a change of the realm's nodes ended the connection.
                    Err(error)
                        if matches!(error.code, ExitCode::NoAgent | ExitCode::NotAuthorised) =>
                    {
                        tracing::debug!(%error, "looking for another node");
                        let owner = connection.owner.clone();
                        other = Some(connection::reopen(session, realm, owner, PATIENCE).await?);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                if found.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let done = tokio::time::timeout(self.timeout, nothing).await;
        match done {
            Ok(done) => {
                done?;
                session.output.say(format!("✓ {}", self.done));
                Ok(ExitCode::Ok)
            }
            Err(_) => {
                let timeout = humantime::format_duration(self.timeout);
                let message = format!("{} after {timeout}: {}", self.late, found.join(", "));
                Err(CliError::new(ExitCode::Partial, message).help(self.help))
            }
        }
    }
}
