//! Making a node forget its realm: what `realm leave` does to a data directory.

use std::{fs, io, path::PathBuf};

use realm_store::DataDir;

use crate::{http::host::TOKEN_FILE, ledger::LEDGER};

/// What belongs to the membership, in the order in which it goes. Whom the node trusts and who it
/// is go last, so that leaving that was cut short is noticed, and can be done again.
const FILES: [&str; 13] = [
    TOKEN_FILE,
    "trial",
    "ended",
    "boot",
    "floor",
    "sealing.cert",
    "sealing.key",
    "claim",
    "peers",
    LEDGER,
    "ledger.mark",
    "owner.pin",
    "node.key",
];
const DIRS: [&str; 3] = ["blobs", "partial", "compiled"];
const VOLUMES: &str = "volumes";

#[derive(Debug, thiserror::Error)]
#[error("cannot remove {path}")]
pub struct LeaveError {
    path: PathBuf,
    source: io::Error,
}

/// Forgets the realm: its log, artifacts, owner and this node's key. Named volumes stay unless
/// `volumes` says otherwise. Doing it twice is harmless.
pub fn leave(dir: &DataDir, volumes: bool) -> Result<(), LeaveError> {
    let dirs = DIRS.iter().chain(volumes.then_some(&VOLUMES));
    for name in dirs {
        remove(dir, name, |path| fs::remove_dir_all(path))?;
    }
    for name in FILES {
        let aside = format!("{name}{}", realm_store::ASIDE);
        for name in [&aside, name] {
            remove(dir, name, |path| fs::remove_file(path))?;
        }
    }
    Ok(())
}

fn remove(
    dir: &DataDir,
    name: &str,
    how: impl Fn(&PathBuf) -> io::Result<()>,
) -> Result<(), LeaveError> {
    let path = dir.path().join(name);
    match how(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LeaveError { path, source }),
        _ => Ok(()),
    }
}
