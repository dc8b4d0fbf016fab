//! A process that is killed, or whose disk fails, at one chosen system call: Debian's strace does it.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
};

/// What befalls the chosen call.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// SIGKILL before the call is done.
    Kill,
    /// The call does nothing and fails with this error, such as `EIO`.
    Error(&'static str),
}

/// One call of a process.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    pub call: &'a str,
    /// Counted from 1, for each thread by itself.
    pub nth: u32,
    /// Only calls that touch this very path count, where one is given.
    pub path: Option<&'a Path>,
    pub fault: Fault,
}

/// `program` below strace; arguments and the rest of the scene are added by the caller.
pub fn strace(program: impl AsRef<OsStr>, point: &Point<'_>) -> Command {
    let Point { call, nth, .. } = point;
    let what = match point.fault {
        Fault::Kill => "signal=SIGKILL".to_owned(),
        Fault::Error(error) => format!("error={error}"),
    };
    let mut command = Command::new("strace");
    // The process stays the caller's own child, to be waited for and ended as ever.
    command.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    if let Some(path) = point.path {
        command.arg("-P").arg(path);
    }
    command
        .args(["-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:{what}:when={nth}")])
        .arg(program);
    command
}

/// Whether strace is here; a test without it is skipped visibly.
pub fn has_strace() -> bool {
    let found = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}
