//! The ledger: a realm's log, its claims and what must be remembered for good, in one file.
//!
//! A batch is written in one durable transaction: once [`Ledger::commit`] returns, no crash
//! loses it, and none leaves half of it.

use std::{io, path::Path};

use crate::dir::sync_dir;
use realm_manifest::identity::{Entry, Genesis, Hash, Signed, VerifyError};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition};

const ENTRIES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("entries");
const PAYLOADS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("payloads");
const CLAIMS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("claims");
const MARKS: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("marks");
const REPORTS: TableDefinition<'_, [u8; 32], (u64, &[u8])> = TableDefinition::new("reports");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const GENESIS: &str = "genesis";
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
    /// Superseded: the entry stays, its payload goes.
    ErasePayload {
        sha256: Hash,
    },
    /// `WitnessedClaim` as on the wire. The set only grows.
    Claim {
        hash: Hash,
        wire: Vec<u8>,
    },
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
    #[error(
        "cannot write the ledger: free disk space or mend the disk, then start the agent again"
    )]
    Write(#[source] Box<redb::Error>),
    #[error("an earlier write failed, so nothing more is written: start the agent again")]
    Failed,
    #[error(
        "the ledger is damaged: {what}; restore the data directory, or join anew with an empty one"
    )]
    Damaged { what: String },
    #[error("entry {} in the ledger does not verify", hash.short())]
    Entry { hash: Hash, source: VerifyError },
}

/// One realm's ledger. One writer; reads see committed batches only.
#[derive(Debug)]
pub struct Ledger {
    database: Database,
    /// After a failed write the disk's state is not known: only opening again may go on.
    failed: bool,
}

impl Ledger {
    /// Opens or makes the ledger in `path`.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let io_error = |error: io::Error| LedgerError::Open {
            help: "the data directory cannot be used",
            source: Box::new(redb::Error::Io(error)),
        };
        if !path.try_exists().map_err(io_error)? {
            // A crash while the file is made must not leave one that cannot be opened, so it
            // gets its name when it is whole.
            let new = path.with_extension("new");
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(error));
                }
                _ => {}
            }
            drop(Self::prepare(Self::builder().create(&new))?);
            std::fs::rename(&new, path).map_err(io_error)?;
            sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io_error)?;
        }
        Self::prepare(Self::builder().create(path))
    }

    /// The same over other storage: memory, or one that fails on purpose.
    pub fn open_backend(backend: impl StorageBackend) -> Result<Self, LedgerError> {
        Self::prepare(Self::builder().create_with_backend(backend))
    }

    fn builder() -> redb::Builder {
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        builder
    }

    fn prepare(database: Result<Database, redb::DatabaseError>) -> Result<Self, LedgerError> {
        let ledger = Self {
            database: database.map_err(open_error)?,
            failed: false,
        };
        // All tables exist from the start, so that reading never meets a missing one.
        let create = || -> Result<(), redb::Error> {
            let transaction = ledger.database.begin_write()?;
            for table in [ENTRIES, PAYLOADS, CLAIMS] {
                transaction.open_table(table)?;
            }
            transaction.open_table(MARKS)?;
            transaction.open_table(REPORTS)?;
            transaction.open_table(META)?;
            transaction.commit()?;
            Ok(())
        };
        create().map_err(|error| LedgerError::Write(Box::new(error)))?;
        Ok(ledger)
    }

    /// Writes all of `batch` durably, or none of it. After an error nothing more is written.
    pub fn commit(&mut self, batch: &[Op]) -> Result<(), LedgerError> {
        if self.failed {
            return Err(LedgerError::Failed);
        }
        self.write(batch).map_err(|error| {
            self.failed = true;
            LedgerError::Write(Box::new(error))
        })
    }

    fn write(&self, batch: &[Op]) -> Result<(), redb::Error> {
        // Durability is immediate by default: commit returns after the disk has it.
        let transaction = self.database.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut payloads = transaction.open_table(PAYLOADS)?;
            let mut claims = transaction.open_table(CLAIMS)?;
            let mut marks = transaction.open_table(MARKS)?;
            let mut reports = transaction.open_table(REPORTS)?;
            let mut meta = transaction.open_table(META)?;
            for op in batch {
                match op {
                    Op::Genesis { wire } => {
                        meta.insert(GENESIS, wire.as_slice())?;
                    }
                    Op::Checkpoint(checkpoint) => {
                        let parts = [&checkpoint.entry, &checkpoint.state, &checkpoint.payload];
                        for (key, bytes) in CHECKPOINT.into_iter().zip(parts) {
                            meta.insert(key, bytes.as_slice())?;
                        }
                    }
                    Op::Entry { hash, wire } => {
                        entries.insert(hash.as_bytes(), wire.as_slice())?;
                    }
                    Op::Payload { sha256, bytes } => {
                        payloads.insert(sha256.as_bytes(), bytes.as_slice())?;
                    }
                    Op::ErasePayload { sha256 } => {
                        payloads.remove(sha256.as_bytes())?;
                    }
                    Op::Claim { hash, wire } => {
                        claims.insert(hash.as_bytes(), wire.as_slice())?;
                    }
                    Op::Mark { intent, at_ms } => {
                        marks.insert(intent.as_bytes(), at_ms)?;
                    }
                    Op::Report {
                        node,
                        seen_ms,
                        wire,
                    } => {
                        reports.insert(node, (*seen_ms, wire.as_slice()))?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Reads everything and verifies it: signatures, digests, the genesis.
    pub fn load(&self) -> Result<LedgerContents, LedgerError> {
        let contents = self
            .read()
            .map_err(|error| LedgerError::Read(Box::new(error)))?;
        verify(contents)
    }

    /// Whether this imperative intent was carried out.
    pub fn is_marked(&self, intent: &Hash) -> Result<bool, LedgerError> {
        let read = || -> Result<bool, redb::Error> {
            let marks = self.database.begin_read()?.open_table(MARKS)?;
            Ok(marks.get(intent.as_bytes())?.is_some())
        };
        read().map_err(|error| LedgerError::Read(Box::new(error)))
    }

    fn read(&self) -> Result<Raw, redb::Error> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let value = |key: &str| -> Result<Option<Vec<u8>>, redb::Error> {
            Ok(meta.get(key)?.map(|value| value.value().to_vec()))
        };
        let parts = [
            value(CHECKPOINT[0])?,
            value(CHECKPOINT[1])?,
            value(CHECKPOINT[2])?,
        ];
        let payloads = transaction.open_table(PAYLOADS)?;
        let mut raw = Raw {
            genesis: value(GENESIS)?,
            checkpoint: parts,
            ..Raw::default()
        };
        for row in transaction.open_table(ENTRIES)?.iter()? {
            let (hash, wire) = row?;
            raw.entries
                .push((Hash::from_bytes(hash.value()), wire.value().to_vec()));
        }
        for row in payloads.iter()? {
            let (sha256, bytes) = row?;
            raw.payloads
                .insert(Hash::from_bytes(sha256.value()), bytes.value().to_vec());
        }
        for row in transaction.open_table(CLAIMS)?.iter()? {
            raw.claims.push(row?.1.value().to_vec());
        }
        for row in transaction.open_table(REPORTS)?.iter()? {
            let (node, report) = row?;
            let (seen_ms, wire) = report.value();
            raw.reports.push((node.value(), seen_ms, wire.to_vec()));
        }
        Ok(raw)
    }
}

/// What the tables hold, before anything is believed.
#[derive(Default)]
struct Raw {
    genesis: Option<Vec<u8>>,
    checkpoint: [Option<Vec<u8>>; 3],
    entries: Vec<(Hash, Vec<u8>)>,
    payloads: std::collections::HashMap<Hash, Vec<u8>>,
    claims: Vec<Vec<u8>>,
    reports: Vec<([u8; 32], u64, Vec<u8>)>,
}

fn verify(raw: Raw) -> Result<LedgerContents, LedgerError> {
    let damaged = |what: &str| LedgerError::Damaged {
        what: what.to_owned(),
    };
    if let Some(wire) = &raw.genesis {
        Signed::<Genesis>::from_wire(wire).map_err(|_| damaged("its genesis does not verify"))?;
    } else if !raw.entries.is_empty() {
        return Err(damaged("it has entries and no genesis"));
    }
    let checkpoint = match raw.checkpoint {
        [None, None, None] => None,
        [Some(entry), Some(state), Some(payload)] => Some(Checkpoint {
            entry,
            state,
            payload,
        }),
        _ => return Err(damaged("its checkpoint is not whole")),
    };
    for (sha256, bytes) in &raw.payloads {
        if Hash::of(bytes) != *sha256 {
            return Err(damaged("a payload is not what its digest says"));
        }
    }
    let mut entries = Vec::with_capacity(raw.entries.len());
    for (hash, wire) in raw.entries {
        let entry = Signed::<Entry>::from_wire(&wire)
            .map_err(|source| LedgerError::Entry { hash, source })?;
        if entry.hash() != hash {
            return Err(damaged("an entry is not what its digest says"));
        }
        let payload = entry
            .body
            .as_ref()
            .and_then(|body| raw.payloads.get(&body.payload.sha256));
        entries.push((
            entry.seq,
            hash,
            Item {
                entry: wire,
                payload: payload.cloned(),
            },
        ));
    }
    entries.sort_by_key(|(seq, hash, _)| (*seq, *hash));
    Ok(LedgerContents {
        genesis: raw.genesis,
        checkpoint,
        entries: entries.into_iter().map(|(_, _, item)| item).collect(),
        claims: raw.claims,
        reports: raw.reports,
    })
}

fn open_error(error: redb::DatabaseError) -> LedgerError {
    let help = match &error {
        redb::DatabaseError::DatabaseAlreadyOpen => "another process has it open",
        redb::DatabaseError::UpgradeRequired(_) => "another version of realm wrote it",
        redb::DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() == io::ErrorKind::StorageFull =>
        {
            "the disk is full"
        }
        _ => "restore the data directory, or join anew with an empty one",
    };
    LedgerError::Open {
        help,
        source: Box::new(error.into()),
    }
}
