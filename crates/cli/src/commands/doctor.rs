//! `realm doctor`: looks for what would keep a realm from working here, and says what to do.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    commands::Session,
    connection,
    error::{CliError, ExitCode, Result},
};

mod cache;
mod machine;
mod places;
mod reach;
mod realm;

pub use places::not_kept;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "No intent is signed: a few files are read, a tiny program is compiled (its result stays in the cache) and run, and nodes are asked as by any command.\nThe exit code is 0 unless something is a problem; a warning is none."
)]
pub struct Args {
    /// The data directory of the agent here.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It works, and will not always.
    Warning,
    /// Something does not work.
    Problem,
    /// There was nothing to look at.
    Skipped,
}

/// What was looked at, and what came of it.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    found: String,
    help: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, found: impl Into<String>) -> Self {
        Self {
            check,
            state,
            found: found.into(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A problem in the words of an error, with its own help; where it has none, `otherwise`.
    fn failed(check: &'static str, error: &CliError, otherwise: &str) -> Self {
        let causes = error.causes.iter().map(String::as_str);
        let words: Vec<&str> = std::iter::once(error.message.as_str())
            .chain(causes)
            .collect();
        let help = error.help.as_deref().unwrap_or(otherwise);
        Self::new(check, State::Problem, words.join(": ")).help(help)
    }
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    let data = args
        .data
        .clone()
        .unwrap_or_else(|| session.settings.data_dir());
    let mut findings = machine::look(session);
    findings.push(places::state(&session.settings.state_dir()));
    findings.extend(places::data(&data));
    findings.extend(connection::block_on(async {
        let mut findings = machine::programs(session).await;
        findings.extend(realm::look(session).await);
        Ok(findings)
    })?);
    let problems = findings
        .iter()
        .filter(|finding| finding.state == State::Problem)
        .count();
    if session.output.json() {
        session
            .output
            .object(&serde_json::json!({ "problems": problems, "checks": findings }))?;
    } else {
        print(&findings, session)?;
    }
    Ok(if problems == 0 {
        ExitCode::Ok
    } else {
        ExitCode::Failed
    })
}

fn print(findings: &[Finding], session: &Session) -> Result<()> {
    for finding in findings {
        let mark = match finding.state {
            State::Ok => '✓',
            State::Warning => '!',
            State::Problem => '✗',
            State::Skipped => '-',
        };
        session
            .output
            .line(&format!("{mark} {:<9} {}", finding.check, finding.found))?;
        if let Some(help) = &finding.help {
            session.output.line(&format!("            help: {help}"))?;
        }
    }
    Ok(())
}
