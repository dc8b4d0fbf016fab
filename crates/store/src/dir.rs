//! The data directory: private, and one agent's at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{StateFile, StateFileError, own};

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
        "{path} is no data directory of an agent, and is not empty: it has {found}; choose another directory, or an empty one"
    )]
    Foreign { path: PathBuf, found: String },
    #[error(
        "another agent{} uses the data directory {path}: stop it, or choose another directory",
        pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked { path: PathBuf, pid: Option<String> },
    #[error(
        "{path} is gone, and {because} says that this directory has been in use: put the key back from a backup, or move the whole directory aside and enroll this machine as a new node"
    )]
    KeyGone {
        path: PathBuf,
        because: &'static str,
    },
    #[error(
        "others may read the key {path} (its mode is {mode:04o}): run chmod 600 on it, and if somebody could have copied it, move the whole directory aside and enroll this machine as a new node"
    )]
    KeyExposed { path: PathBuf, mode: u32 },
    #[error(transparent)]
    State(#[from] StateFileError),
}

/// What an agent leaves in its data directory: one of these is in each that was ever used, also in one that
/// was put back from a backup of the key alone.
const OURS: [&str; 16] = [
    "lock",
    "node.key",
    "owner.pin",
    "ledger.redb",
    "ledger.mark",
    "claim",
    "boot",
    "floor",
    "peers",
    "ended",
    "trial",
    "sealing.key",
    "sealing.cert",
    "http.token",
    "cache.key",
    "agent.json",
];
/// The same of directories; one for volumes may be anybody's.
const OUR_DIRS: [&str; 3] = ["blobs", "partial", "compiled"];
/// What the root of an empty file system has. Names that begin with a dot are passed over, too: a home directory made
/// for the agent, or a snapshot of the file system.
const OF_A_DISK: &str = "lost+found";

/// What only a node with a key leaves behind.
const TRACES: [&str; 3] = ["ledger.redb", "ledger.mark", "claim"];

impl DataDir {
    /// Opens the directory, makes it where it is missing, and takes its lock.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        let open_error = |source| DirError::Open {
            path: path.into(),
            source,
        };
        if let Some(found) = foreign(path).map_err(open_error)? {
            return Err(DirError::Foreign {
                path: path.into(),
                found,
            });
        }
        create_private(path).map_err(open_error)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut lock = own::open(options.mode(0o600), &path.join("lock")).map_err(open_error)?;
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
        own::private_dir(&path).map_err(|source| DirError::Open {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// A small file whose damage is noticed.
    pub fn state_file(&self, name: &str) -> StateFile {
        StateFile::new(self.path.join(name))
    }

    /// Reads a secret of `N` bytes, or makes it with `make` the first time. For one that may be
    /// made anew whenever it is lost or damaged.
    pub fn secret<const N: usize>(
        &self,
        name: &str,
        make: impl FnOnce() -> io::Result<[u8; N]>,
    ) -> Result<[u8; N], DirError> {
        match self.read_secret(name) {
            Ok(Some(secret)) => return Ok(secret),
            Ok(None) => {}
            Err(DirError::State(StateFileError::Damaged { path, .. })) => {
                tracing::warn!(path = %path.display(), "a damaged secret is made anew: what it protected is made again");
            }
            Err(error) => return Err(error),
        }
        self.make_secret(name, make)
    }

    fn make_secret<const N: usize>(
        &self,
        name: &str,
        make: impl FnOnce() -> io::Result<[u8; N]>,
    ) -> Result<[u8; N], DirError> {
        let secret = make().map_err(|source| DirError::Open {
            path: self.path.join(name),
            source,
        })?;
        self.state_file(name).write(&secret)?;
        Ok(secret)
    }

    /// The same for a secret that others know this node by: where the directory has been in use
    /// a lost one is an error, because another one would be another node.
    pub fn identity<const N: usize>(
        &self,
        name: &str,
        make: impl FnOnce() -> io::Result<[u8; N]>,
    ) -> Result<[u8; N], DirError> {
        if let Some(secret) = self.read_secret(name)? {
            return Ok(secret);
        }
        for because in TRACES {
            let trace = self.path.join(because);
            let found = fs::symlink_metadata(&trace);
            match found {
                Ok(_) => {
                    return Err(DirError::KeyGone {
                        path: self.path.join(name),
                        because,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(DirError::Open {
                        path: trace,
                        source,
                    });
                }
            }
        }
        self.make_secret(name, make)
    }

    fn read_secret<const N: usize>(&self, name: &str) -> Result<Option<[u8; N]>, DirError> {
        let file = self.state_file(name);
        // Anything but a file is left to the reading, which follows no link.
        if let Ok(metadata) = fs::symlink_metadata(file.path())
            && metadata.is_file()
            && metadata.mode() & own::OTHERS != 0
        {
            return Err(DirError::KeyExposed {
                path: file.path().into(),
                mode: metadata.mode() & 0o7777,
            });
        }
        let Some(bytes) = file.read()? else {
            return Ok(None);
        };
        Ok(Some(
            <[u8; N]>::try_from(bytes).map_err(|_| file.damaged())?,
        ))
    }
}

/// Something in a directory that is not an agent's, such as /etc, whose mode nobody may change; None where it is
/// one, is empty or is not there.
fn foreign(path: &Path) -> io::Result<Option<String>> {
    let found = |name: &&str| fs::symlink_metadata(path.join(name));
    let is_file = |name: &&str| found(name).is_ok_and(|found| found.is_file());
    let is_dir = |name: &&str| found(name).is_ok_and(|found| found.is_dir());
    if OURS.iter().any(is_file) || OUR_DIRS.iter().any(is_dir) {
        return Ok(None);
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        // A file in its place is refused by who opens it.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if !is_hidden && name != OF_A_DISK {
            return Ok(Some(format!("{}", name.display())));
        }
    }
    Ok(None)
}

/// Makes the data directory for the owner alone, and those above it. Whoever named it may have named a
/// link to it.
fn create_private(path: &Path) -> io::Result<()> {
    create_synced(path)?;
    own::close(&File::open(path)?, path)
}

/// What is synced inside a directory lasts only as long as the directory's own name, so that is
/// synced too.
pub(crate) fn create_synced(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    create_synced(above)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else was faster.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(above),
    }
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
