//! The one place that speaks to people about what went wrong: words, hints, exit codes.

use std::fmt;

use crate::output::{self, plain};

/// What `realm` exits with. `run` passes the guest's own code through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Differs = 3,
    NotAuthorised = 4,
    NotFound = 5,
    Partial = 6,
    NoAgent = 7,
    /// `run`: our own failure, before or beside the guest's.
    RunFailed = 125,
    /// `run`: the file is not a program that can run here.
    NotRunnable = 126,
    /// `run`: no such file.
    NoSuchProgram = 127,
    Interrupted = 130,
}

impl ExitCode {
    pub const TABLE: [(Self, &'static str); 12] = [
        (Self::Ok, "success"),
        (Self::Failed, "the command failed"),
        (
            Self::Usage,
            "the command line is wrong, or the file is not what the command takes",
        ),
        (Self::Differs, "differences exist"),
        (Self::NotAuthorised, "not authorised, or not trusted"),
        (Self::NotFound, "no such component, node, realm or file"),
        (
            Self::Partial,
            "timed out, done only in part, or what was asked for keeps failing",
        ),
        (Self::NoAgent, "no agent could be reached"),
        (Self::RunFailed, "run: realm itself failed"),
        (Self::NotRunnable, "run: the file cannot run here"),
        (Self::NoSuchProgram, "run: no such file"),
        (Self::Interrupted, "interrupted"),
    ];

    /// The code by which `realm explain` knows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Differs => "differs",
            Self::NotAuthorised => "not-authorised",
            Self::NotFound => "not-found",
            Self::Partial => "partial",
            Self::NoAgent => "no-agent",
            Self::RunFailed => "run-failed",
            Self::NotRunnable => "not-runnable",
            Self::NoSuchProgram => "no-such-program",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An error for a person: what, why, and the next command to run.
#[derive(Debug)]
pub struct CliError {
    pub code: ExitCode,
    pub message: String,
    /// The chain of causes, outermost first.
    pub causes: Vec<String>,
    pub help: Option<String>,
    /// What a node called it, where that says more than the exit code.
    pub name: Option<String>,
}

pub type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            causes: Vec::new(),
            help: None,
            name: None,
        }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Failed, message)
    }

    /// Ends a command quietly: nobody reads its output any more.
    pub fn reader_left() -> Self {
        Self::new(ExitCode::Ok, "")
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Gives it a code of its own, for `realm explain`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.code.name())
    }

    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// Everything in one line, for the log.
    pub fn in_one_line(&self) -> String {
        let causes = self.causes.iter().map(String::as_str);
        let help = self.help.as_deref().into_iter();
        std::iter::once(self.message.as_str())
            .chain(causes)
            .chain(help)
            .collect::<Vec<_>>()
            .join(": ")
    }

    /// Prints to standard error: `error[CODE]:`, the causes, then the help.
    pub fn print(&self, json: bool) {
        if self.code == ExitCode::Ok {
            return;
        }
        if json {
            let object = serde_json::json!({
                "error": { "code": self.name(), "message": self.message, "causes": self.causes, "help": self.help, "exit_code": self.code as u8 }
            });
            output::tell(&format!("{}\n", output::harmless(&object.to_string())));
        } else {
            output::tell(&self.to_string());
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What follows the first line is indented, so that nobody's words pass for a line of ours.
        let shown = |text: &str| plain(text).replace('\n', "\n    ");
        writeln!(f, "error[{}]: {}", shown(self.name()), shown(&self.message))?;
        for cause in &self.causes {
            writeln!(f, "  cause: {}", shown(cause))?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "  help: {}", shown(help))?;
        }
        Ok(())
    }
}

/// Turns a library's error into words, keeping its chain.
pub trait Context<T> {
    fn context(self, message: impl Into<String>) -> Result<T>;

    fn context_code(self, code: ExitCode, message: impl Into<String>) -> Result<T>;
}

impl<T, E: std::error::Error + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.context_code(ExitCode::Failed, message)
    }

    fn context_code(self, code: ExitCode, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| CliError::new(code, message).because(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_why_and_what_next() {
        let cause = std::io::Error::other("disk on fire");
        let error = CliError::failed("cannot write the key")
            .because(&cause)
            .help("buy a disk");
        assert_eq!(
            error.to_string(),
            "error[failed]: cannot write the key\n  cause: disk on fire\n  help: buy a disk\n"
        );
    }
}
