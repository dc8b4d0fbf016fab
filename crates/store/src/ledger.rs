//! The ledger: a realm's log, its claims and what must be remembered for good, in one file.
//!
//! A batch is written in one durable transaction: once [`Ledger::commit`] returns, no crash
//! loses it, and none leaves half of it. A high-water mark beside the file says how far that
//! was, so that an older copy of the file is not taken for the present one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use realm_manifest::identity::{Hash, RealmId, VerifyError};
use redb::{Database, ReadableDatabase as _, TableDefinition};

use crate::{
    dir::{is_full, sync_dir, temporary},
    quiet,
};
use mark::MarkFile;
use storage::{Files, Watched};

mod chain;
mod mark;
mod read;
mod storage;
mod write;

pub use storage::LedgerStorage;

const ENTRIES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("entries");
const PAYLOADS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("payloads");
const CLAIMS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("claims");
const MARKS: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("marks");
const REPORTS: TableDefinition<'_, [u8; 32], (u64, &[u8])> = TableDefinition::new("reports");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// How many batches were committed, reports aside.
const BATCH: &str = "batch";
const GENESIS: &str = "genesis";
const CAUGHT_UP: &str = "caught-up";
const CHECKPOINT: [&str; 3] = ["checkpoint-entry", "checkpoint-state", "checkpoint-payload"];

/// Pages kept in memory: the log is read once at the start, then only written.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// One write; those of a batch are made together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Genesis {
        wire: Vec<u8>,
    },
    /// The log starts here from now on.
    Checkpoint(Checkpoint),
    /// `Signed<Entry>` as on the wire; branches of a fork are kept beside each other.
    Entry {
        hash: Hash,
        wire: Vec<u8>,
    },
    Payload {
        sha256: Hash,
        bytes: Vec<u8>,
    },
    /// `WitnessedClaim` as on the wire. The set only grows.
    Claim {
        hash: Hash,
        wire: Vec<u8>,
    },
    /// This node has read the realm's log as far as its peers had it when it came in.
    CaughtUp,
    /// An imperative intent was carried out; never again.
    Mark {
        intent: Hash,
        at_ms: u64,
    },
    /// The newest report of a node, and when it was seen.
    Report {
        node: [u8; 32],
        seen_ms: u64,
        wire: Vec<u8>,
    },
}

/// Where a log that does not begin with its genesis begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub entry: Vec<u8>,
    pub state: Vec<u8>,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub entry: Vec<u8>,
    pub payload: Option<Vec<u8>>,
}

/// Everything a node starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerContents {
    pub genesis: Option<Vec<u8>>,
    pub checkpoint: Option<Checkpoint>,
    /// In the order of their revision.
    pub entries: Vec<Item>,
    pub claims: Vec<Vec<u8>>,
    /// Whether [`Op::CaughtUp`] was written.
    pub caught_up: bool,
    /// Node key, milliseconds when it was seen, signed report.
    pub reports: Vec<([u8; 32], u64, Vec<u8>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot open the ledger: {help}")]
    Open {
        help: &'static str,
        source: Box<redb::Error>,
    },
    #[error("cannot read the ledger")]
    Read(#[source] Box<redb::Error>),
    #[error("the disk of the ledger is full: free space; writing goes on by itself")]
    Full(#[source] Box<redb::Error>),
    #[error("cannot write the ledger: mend the disk; writing goes on by itself when it can")]
    Write(#[source] Box<redb::Error>),
    #[error(
        "the disk did not keep what was written to the ledger, so nothing more is written: mend the disk, then start the agent again"
    )]
    Failed {
        /// What the disk said; None where that was told before.
        source: Option<Box<redb::Error>>,
    },
    #[error("the ledger is closed after a failed write and could not be opened again")]
    Closed,
    #[error("a batch was refused and nothing of it written: {what}")]
    Refused { what: &'static str },
    #[error(
        "the ledger is damaged: {what}; restore the data directory, or let this node fetch the log from its peers again: move ledger.redb and ledger.mark aside and start it"
    )]
    Damaged { what: String },
    #[error("entry {} in the ledger does not verify", hash.short())]
    Entry { hash: Hash, source: VerifyError },
    #[error(
        "the ledger was rolled back: this node acknowledged revision {acknowledged} of realm {}, and the ledger holds revision {found} or another history, as an older copy would; put the newest copy back, or let this node fetch the log from its peers again: move ledger.redb and ledger.mark aside and start it",
        realm.short()
    )]
    RolledBack {
        realm: RealmId,
        acknowledged: u64,
        found: u64,
    },
    #[error(
        "the ledger {path} is gone, and this node acknowledged revision {acknowledged} of realm {}; put it back, or let this node fetch the log from its peers again: move ledger.mark aside and start it",
        realm.short()
    )]
    Gone {
        path: PathBuf,
        realm: RealmId,
        acknowledged: u64,
    },
    #[error("cannot use the mark beside the ledger, ledger.mark")]
    Mark(#[source] io::Error),
    #[error(
        "the mark beside the ledger is damaged, so nobody can tell whether the ledger is the newest one; if it is (no copy was put back), move ledger.mark aside and start the node"
    )]
    MarkDamaged,
}

/// One realm's ledger. One writer; reads see committed batches only.
#[derive(Debug)]
pub struct Ledger {
    storage: Box<dyn LedgerStorage>,
    /// None after a failed write, until opening works again.
    database: Option<Database>,
    mark: MarkFile,
    /// A sync failed, so the file may lack what was written to it: only reading goes on.
    sync_failed: Arc<AtomicBool>,
}

impl Ledger {
    /// Opens or makes the ledger in `path`, with its mark beside it (`.mark`). A ledger that
    /// lacks what the mark names is an error.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let files = Files {
            ledger: path.to_owned(),
            mark: path.with_extension("mark"),
        };
        let here = path.try_exists().map_err(unusable)?;
        if !files.mark.try_exists().map_err(LedgerError::Mark)? {
            // The mark is made before the ledger: only somebody's hand leaves one alone.
            if here {
                tracing::warn!(
                    ledger = %path.display(),
                    "the ledger has no mark beside it: what it holds now counts as all there was"
                );
            }
            make_whole(&files.mark, |new| MarkFile::create(storage::open(new)?))
                .map_err(LedgerError::Mark)?;
        }
        if !here {
            let mark = open_mark(&files)?.mark();
            if mark.batch > 0 {
                return Err(LedgerError::Gone {
                    path: path.to_owned(),
                    realm: mark.realm,
                    acknowledged: mark.seq,
                });
            }
            make_whole(path, |new| {
                let database = builder().create(new).map_err(io::Error::other)?;
                create_tables(&database).map_err(io::Error::other)
            })
            .map_err(unusable)?;
        }
        Self::open_made(files)
    }

    /// The same over other storage: memory, or one that fails on purpose.
    pub fn open_storage(storage: impl LedgerStorage) -> Result<Self, LedgerError> {
        make_mark(&storage).map_err(LedgerError::Mark)?;
        Self::open_made(storage)
    }

    fn open_made(storage: impl LedgerStorage) -> Result<Self, LedgerError> {
        let mut ledger = Self {
            mark: open_mark(&storage)?,
            storage: Box::new(storage),
            database: None,
            sync_failed: Arc::default(),
        };
        ledger.database = Some(ledger.open_database()?);
        Ok(ledger)
    }

    /// Opens the database and compares it with the mark. Writes no transaction to a good one.
    fn open_database(&mut self) -> Result<Database, LedgerError> {
        let inner = self.storage.ledger().map_err(unusable)?;
        let backend = Watched {
            inner,
            sync_failed: self.sync_failed.clone(),
        };
        let (database, clean) = open_checked(backend)?;
        if !clean {
            tracing::warn!("the ledger had to be repaired");
        }
        if is_empty(&database).map_err(read_error)? {
            create_tables(&database).map_err(write_error)?;
        }
        let acknowledged = self.mark.mark();
        let raw = read::everything(&database).map_err(read_error)?;
        let standing = raw
            .standing(acknowledged)?
            .ok_or_else(|| LedgerError::RolledBack {
                realm: acknowledged.realm,
                acknowledged: acknowledged.seq,
                found: raw.highest(),
            })?;
        // The agent ended between the commit and the mark.
        if standing != acknowledged {
            self.mark.raise(standing).map_err(LedgerError::Mark)?;
        }
        Ok(database)
    }

    /// Writes all of `batch` durably, or none of it. A batch that [`Ledger::load`] would not
    /// accept is refused. After a failed write the same batch may be tried again.
    pub fn commit(&mut self, batch: &[Op]) -> Result<(), LedgerError> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(LedgerError::Failed { source: None });
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => self.open_database()?,
        };
        match write::commit(&database, batch, self.mark.mark()) {
            Ok(Ok(mark)) => {
                self.database = Some(database);
                if mark != self.mark.mark() {
                    self.mark.raise(mark).map_err(LedgerError::Mark)?;
                }
                Ok(())
            }
            Ok(Err(refused)) => {
                self.database = Some(database);
                Err(refused)
            }
            Err(error) => {
                self.after_failure(database);
                if self.sync_failed.load(Ordering::Acquire) {
                    let source = Some(Box::new(error));
                    return Err(LedgerError::Failed { source });
                }
                Err(write_error(error))
            }
        }
    }

    /// redb refuses everything after one failed write, so it is opened anew; but not after a
    /// failed sync, which leaves pages that look written and are not.
    fn after_failure(&mut self, database: Database) {
        if self.sync_failed.load(Ordering::Acquire) {
            self.database = Some(database);
            return;
        }
        // Closing first lets go of the file's lock.
        drop(database);
        match self.open_database() {
            Ok(database) => self.database = Some(database),
            // The next commit tries again and tells whoever asked for it.
            Err(error) => tracing::warn!(%error, "the ledger stays closed for now"),
        }
    }

    /// Reads everything and verifies it: signatures, digests, the genesis, and that no revision
    /// is missing.
    pub fn load(&self) -> Result<LedgerContents, LedgerError> {
        read::everything(self.database()?)
            .map_err(read_error)?
            .verify()
    }

    /// Whether this imperative intent was carried out.
    pub fn is_marked(&self, intent: &Hash) -> Result<bool, LedgerError> {
        read::is_marked(self.database()?, intent).map_err(read_error)
    }

    fn database(&self) -> Result<&Database, LedgerError> {
        self.database.as_ref().ok_or(LedgerError::Closed)
    }
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// A database whose pages all have the right checksums, and whether that was so before.
///
/// After an orderly close redb reads pages before it checks them, and asserts where they are
/// damaged. What cannot be mended is an error; what is mended by going back to the batch before
/// is found by the mark.
fn open_checked(backend: Watched) -> Result<(Database, bool), LedgerError> {
    let open = move || {
        let mut database = builder().create_with_backend(backend)?;
        let clean = database.check_integrity()?;
        Ok((database, clean))
    };
    // Nothing is shared with the closure: after a panic all it had is gone.
    let opened = quiet::caught(open).ok_or_else(|| LedgerError::Damaged {
        what: "its pages contradict each other".to_owned(),
    })?;
    opened.map_err(open_error)
}

fn open_mark(storage: &impl LedgerStorage) -> Result<MarkFile, LedgerError> {
    let storage = storage.mark().map_err(LedgerError::Mark)?;
    MarkFile::open(storage)
        .map_err(LedgerError::Mark)?
        .ok_or(LedgerError::MarkDamaged)
}

/// Makes the mark of storage in which there is nothing at all yet.
fn make_mark(storage: &impl LedgerStorage) -> io::Result<()> {
    let mark = storage.mark()?;
    if mark.len()? == 0 && storage.ledger()?.len()? == 0 {
        MarkFile::create(mark)?;
    }
    Ok(())
}

/// A crash while a file is made must not leave one that cannot be opened, so it gets its name
/// when it is whole.
fn make_whole(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = temporary(path);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(&new)?;
    std::fs::rename(&new, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// All tables exist from the start, so that reading never meets a missing one.
fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in [ENTRIES, PAYLOADS, CLAIMS] {
        transaction.open_table(table)?;
    }
    transaction.open_table(MARKS)?;
    transaction.open_table(REPORTS)?;
    transaction.open_table(META)?;
    transaction.commit()?;
    Ok(())
}

fn is_empty(database: &Database) -> Result<bool, redb::Error> {
    Ok(database.begin_read()?.list_tables()?.next().is_none())
}

fn unusable(error: io::Error) -> LedgerError {
    LedgerError::Open {
        help: "the data directory cannot be used",
        source: Box::new(redb::Error::Io(error)),
    }
}

fn read_error(error: redb::Error) -> LedgerError {
    LedgerError::Read(Box::new(error))
}

fn write_error(error: redb::Error) -> LedgerError {
    match &error {
        redb::Error::Io(cause) if is_full(cause) => LedgerError::Full(Box::new(error)),
        _ => LedgerError::Write(Box::new(error)),
    }
}

fn open_error(error: redb::DatabaseError) -> LedgerError {
    let help = match &error {
        redb::DatabaseError::DatabaseAlreadyOpen => "another process has it open",
        redb::DatabaseError::UpgradeRequired(_) => "another version of realm wrote it",
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if is_full(error) => {
            "the disk is full"
        }
        _ => {
            "restore the data directory, or let this node fetch the log from its peers again: move ledger.redb and ledger.mark aside and start it"
        }
    };
    LedgerError::Open {
        help,
        source: Box::new(error.into()),
    }
}
