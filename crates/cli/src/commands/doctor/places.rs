//! The directories that commands and an agent write to: that they can be written, that what lies in them
//! is what it should be, and that nobody else reads the secrets in them.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use realm_agent::agent_file;
use realm_manifest::units::size_text;
use realm_store::{StateFile, StateFileError};
use rustix::{
    fs::{Access, access},
    io::Errno,
    process::geteuid,
};

use super::{Finding, State, cache};
use crate::error::CliError;

/// Less is too little for one large program and its compiled code.
const ROOM_BYTES: u64 = 1 << 30;
/// What group and others may do.
const OTHERS: u32 = 0o077;

/// What an agent keeps in directories of their own.
const DIRECTORIES: [&str; 4] = ["blobs", "compiled", "partial", "volumes"];
/// What it keeps in files.
const FILES: [&str; 16] = [
    agent_file::FILE_NAME,
    "boot",
    "cache.key",
    "claim",
    "ended",
    "floor",
    "http.token",
    "ledger.mark",
    "ledger.redb",
    "lock",
    "node.key",
    "owner.pin",
    "peers",
    "sealing.cert",
    "sealing.key",
    "trial",
];
/// An agent does not start where others can read one of these.
const KEYS: [&str; 3] = ["cache.key", "node.key", "sealing.key"];
/// An agent does not start where one of these is damaged.
const WHOLE: [&str; 5] = [
    "claim",
    "node.key",
    "owner.pin",
    "sealing.cert",
    "sealing.key",
];
/// Whoever reads it can read `/logs` and `/v1`.
const TOKEN: &str = "http.token";

/// A directory, and how another one is chosen.
struct Place<'a> {
    check: &'static str,
    path: &'a Path,
    choose: &'static str,
    /// An agent may run as a user of its own, whose directory is closed to the people of its machine.
    may_be_closed: bool,
}

/// What keeps a path from being used.
struct Obstacle {
    found: String,
    /// What removes it.
    remedy: String,
    /// It is another person's, who may be the one that runs the agent.
    of_another: bool,
}

/// Another place for what commands keep.
pub(super) const CHOOSE_STATE: &str = "--state-dir DIR, or REALM_STATE_DIR";

/// Where commands remember their realms.
pub(super) fn state(path: &Path) -> Finding {
    directory(&Place {
        check: "state",
        path,
        choose: CHOOSE_STATE,
        may_be_closed: false,
    })
}

/// An error of a command that could not keep something in this directory, or below it, with what helps.
pub fn not_kept(path: &Path, mut error: CliError) -> CliError {
    let remedy = obstacle(path).map(|obstacle| {
        error.causes.insert(0, obstacle.found);
        format!("{}; or ", obstacle.remedy)
    });
    let remedy = remedy.unwrap_or_default();
    error.help(format!("{remedy}choose another place: {CHOOSE_STATE}"))
}

/// Where an agent of this person keeps all that it has.
pub(super) fn data(path: &Path) -> Vec<Finding> {
    let place = Place {
        check: "disk",
        path,
        choose: "realm agent --data DIR, or REALM_DATA_DIR",
        may_be_closed: true,
    };
    let can_be_looked_into = path.is_dir() && obstacle(path).is_none();
    let inside = can_be_looked_into.then(|| contents(path));
    std::iter::once(directory(&place))
        .chain(inside.into_iter().flatten())
        .collect()
}

fn directory(place: &Place<'_>) -> Finding {
    let Some(obstacle) = obstacle(place.path) else {
        return room(place);
    };
    let state = match obstacle.of_another && place.may_be_closed {
        true => State::Warning,
        false => State::Problem,
    };
    let remedy = obstacle.remedy;
    let help = format!("{remedy}; or choose another place: {}", place.choose);
    Finding::new(place.check, state, obstacle.found).help(help)
}

/// The room where the directory lies, or is going to lie.
fn room(place: &Place<'_>) -> Finding {
    let there = place.path.ancestors().find(|path| path.exists());
    let (check, shown) = (place.check, place.path.display());
    let bytes = match there.map(rustix::fs::statvfs) {
        Some(Ok(room)) => room.f_bavail.saturating_mul(room.f_frsize),
        Some(Err(error)) => {
            return Finding::new(check, State::Problem, format!("{shown}: {error}"))
                .help(format!("choose another place: {}", place.choose));
        }
        None => return Finding::new(check, State::Skipped, format!("{shown} does not exist")),
    };
    let found = format!("{} free at {shown}", size_text(bytes));
    if bytes >= ROOM_BYTES {
        return Finding::new(check, State::Ok, found);
    }
    Finding::new(check, State::Warning, found)
        .help("a node whose disk is full takes no intents and no programs: free room")
}

/// What keeps a directory from being written, or from being made.
fn obstacle(path: &Path) -> Option<Obstacle> {
    for place in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        let metadata = match fs::metadata(place) {
            Ok(metadata) => metadata,
            // What is above says whether it can be made, or why it cannot be seen.
            Err(error) if is_hidden(&error) => continue,
            Err(error) => return Some(odd(place, error.to_string())),
        };
        if !metadata.is_dir() {
            return Some(not_a("directory", place));
        }
        let needed = match place == path {
            true => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
            false => Access::WRITE_OK | Access::EXEC_OK,
        };
        return denied(place, &metadata, needed);
    }
    None
}

fn is_hidden(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn denied(path: &Path, metadata: &Metadata, needed: Access) -> Option<Obstacle> {
    let (shown, mine) = (path.display(), geteuid().as_raw());
    match access(path, needed) {
        Ok(()) => None,
        Err(Errno::ROFS) => Some(Obstacle {
            found: format!("{shown} cannot be written: its file system is read-only"),
            remedy: format!(
                "see which one it is, and mount it for writing: findmnt --target {shown}"
            ),
            of_another: false,
        }),
        Err(Errno::ACCESS | Errno::PERM) if metadata.uid() == mine => Some(Obstacle {
            found: format!(
                "{shown} cannot be used: its mode is {:04o}",
                metadata.mode() & 0o7777
            ),
            remedy: format!("open it to yourself: chmod u+rwX {shown}"),
            of_another: false,
        }),
        Err(Errno::ACCESS | Errno::PERM) => Some(Obstacle {
            found: format!(
                "{shown} cannot be used: it belongs to user {}, you are {mine}",
                metadata.uid()
            ),
            remedy: "run this as the user whose it is".to_owned(),
            of_another: true,
        }),
        Err(error) => Some(odd(path, error.to_string())),
    }
}

fn odd(path: &Path, why: String) -> Obstacle {
    Obstacle {
        found: format!("{} cannot be used: {why}", path.display()),
        remedy: "see what it is: ls -ld on it and on those above it".to_owned(),
        of_another: false,
    }
}

fn not_a(kind: &str, path: &Path) -> Obstacle {
    Obstacle {
        found: format!("{} is not a {kind}", path.display()),
        remedy: "move it away".to_owned(),
        of_another: false,
    }
}

/// What is wrong in an agent's data directory; one word that nothing is, otherwise.
fn contents(dir: &Path) -> Vec<Finding> {
    let directories = DIRECTORIES.iter().map(|name| (name, true));
    let files = FILES.iter().map(|name| (name, false));
    let wrong = directories
        .chain(files)
        .filter_map(|(name, is_dir)| wrong(dir.join(name), is_dir));
    let mut findings: Vec<Finding> = wrong.collect();
    findings.extend(KEYS.iter().filter_map(|name| exposed_key(&dir.join(name))));
    findings.extend(exposed_token(&dir.join(TOKEN)));
    findings.extend(WHOLE.iter().filter_map(|name| damaged(dir.join(name))));
    if findings.is_empty() {
        let found = format!("what is kept in {} is what it should be", dir.display());
        findings.push(Finding::new("data", State::Ok, found));
    }
    findings.extend(cache::of_agent(&dir.join("compiled")));
    findings
}

fn wrong(path: PathBuf, is_dir: bool) -> Option<Finding> {
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(problem(odd(&path, error.to_string()))),
    };
    let obstacle = match (is_dir, metadata.is_dir(), metadata.is_file()) {
        (true, false, _) => Some(not_a("directory", &path)),
        (false, _, false) => Some(not_a("file", &path)),
        (true, true, _) => denied(
            &path,
            &metadata,
            Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        ),
        (false, _, true) => denied(&path, &metadata, Access::READ_OK | Access::WRITE_OK),
    };
    obstacle.map(problem)
}

fn problem(obstacle: Obstacle) -> Finding {
    let help = format!("stop the agent, {}, and start it again", obstacle.remedy);
    Finding::new("data", State::Problem, obstacle.found).help(help)
}

fn exposed_key(path: &Path) -> Option<Finding> {
    let mode = open_to_others(path)?;
    let found = format!(
        "others can read the key {}: its mode is {mode:04o}",
        path.display()
    );
    let help = format!(
        "make it the agent's alone: chmod 600 {}; where somebody could have copied it, move the whole directory away and enroll this machine as a new node",
        path.display()
    );
    Some(Finding::new("data", State::Problem, found).help(help))
}

fn exposed_token(path: &Path) -> Option<Finding> {
    let mode = open_to_others(path)?;
    let found = format!(
        "others can read the token {}, and with it the logs: its mode is {mode:04o}",
        path.display()
    );
    let help = format!(
        "remove it, and start the agent again, which makes a new one: rm {}",
        path.display()
    );
    Some(Finding::new("data", State::Warning, found).help(help))
}

fn damaged(path: PathBuf) -> Option<Finding> {
    // What else keeps it from being read is a finding of its own.
    let Err(StateFileError::Damaged { path, advice }) = StateFile::new(path).read() else {
        return None;
    };
    let found = format!("{} is damaged: no agent starts with it", path.display());
    Some(Finding::new("data", State::Problem, found).help(advice))
}

/// The mode of a file that is not its owner's alone.
fn open_to_others(path: &Path) -> Option<u32> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let mode = metadata.mode() & 0o7777;
    (metadata.is_file() && mode & OTHERS != 0).then_some(mode)
}
