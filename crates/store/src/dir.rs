//! The data directory: private, and one agent's at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{StateFile, StateFileError};

/// An opened data directory. The lock is held for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holding it open is what locks the directory.
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum DirError {
    #[error("cannot open the data directory {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "another agent{} uses the data directory {path}: stop it, or choose another directory",
        pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked { path: PathBuf, pid: Option<String> },
    #[error(transparent)]
    State(#[from] StateFileError),
}

impl DataDir {
    /// Opens the directory, makes it where it is missing, and takes its lock.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        let open_error = |source| DirError::Open {
            path: path.into(),
            source,
        };
        create_private(path).map_err(open_error)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NOFOLLOW)
            .open(path.join("lock"))
            .map_err(open_error)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // Who holds it is a courtesy: an unreadable file only shortens the message.
            let _ = (&mut lock).take(16).read_to_string(&mut pid);
            let pid = Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty());
            return Err(DirError::Locked {
                path: path.into(),
                pid,
            });
        }
        lock.set_len(0).map_err(open_error)?;
        writeln!(lock, "{}", std::process::id()).map_err(open_error)?;
        Ok(Self {
            path: path.into(),
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory inside, made where it is missing.
    pub fn subdir(&self, name: &str) -> Result<PathBuf, DirError> {
        let path = self.path.join(name);
        create_private(&path).map_err(|source| DirError::Open {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// A small file whose damage is noticed.
    pub fn state_file(&self, name: &str) -> StateFile {
        StateFile::new(self.path.join(name))
    }

    /// Reads a secret of `N` bytes, or makes it with `make` the first time.
    pub fn secret<const N: usize>(
        &self,
        name: &str,
        make: impl FnOnce() -> io::Result<[u8; N]>,
    ) -> Result<[u8; N], DirError> {
        let file = self.state_file(name);
        if let Some(bytes) = file.read()? {
            let damaged = StateFileError::Damaged {
                path: self.path.join(name),
            };
            return <[u8; N]>::try_from(bytes).map_err(|_| damaged.into());
        }
        let secret = make().map_err(|source| DirError::Open {
            path: self.path.join(name),
            source,
        })?;
        file.write(&secret)?;
        Ok(secret)
    }
}

/// Refuses to follow a link that someone put where our file should be.
pub(crate) const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// The name under which a file is made before it replaces `path`: no two files share one.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// No room on the disk, in the quota, or in the process's limit.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
