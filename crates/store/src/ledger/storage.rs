//! Where a ledger and its mark are kept: two files, or memory that fails on purpose.

use std::{
    fmt::Debug,
    fs::OpenOptions,
    io,
    ops::Bound,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{BackendError, StorageBackend, backends::FileBackend};

use crate::own;

/// Opens the two byte stores of one ledger, again and again: after a failed write the database
/// must be opened anew.
pub trait LedgerStorage: Debug + Send + 'static {
    fn ledger(&self) -> io::Result<Box<dyn StorageBackend>>;
    fn mark(&self) -> io::Result<Box<dyn StorageBackend>>;
}

#[derive(Debug)]
pub(super) struct Files {
    pub ledger: PathBuf,
    pub mark: PathBuf,
}

impl LedgerStorage for Files {
    fn ledger(&self) -> io::Result<Box<dyn StorageBackend>> {
        open(&self.ledger)
    }

    fn mark(&self) -> io::Result<Box<dyn StorageBackend>> {
        open(&self.mark)
    }
}

/// A file for the owner alone, made where it is missing.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = own::open(options.mode(0o600), path)?;
    Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
}

/// Remembers that a sync failed. The kernel then forgets which pages it owes the disk, so that
/// a later sync may succeed without them: nothing may be built on this file any more.
#[derive(Debug)]
pub(super) struct Watched {
    pub inner: Box<dyn StorageBackend>,
    pub sync_failed: Arc<AtomicBool>,
}

type End = Bound<u64>;

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data().inspect_err(|_| {
            self.sync_failed.store(true, Ordering::Release);
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: End, end: End) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: End, end: End) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: End, end: End) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: End, end: End) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: End, end: End) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: End, end: End) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
