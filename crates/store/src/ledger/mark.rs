//! The high-water mark: what this node acknowledged, kept beside the ledger and not in it.
//!
//! An older copy of the ledger, or an empty one, is whole in itself; only something outside
//! it can tell that there was more. The mark is written after the ledger's commit and before
//! the acknowledgement, so it is never ahead of what was committed, and at most one batch behind.
//!
//! Two slots are written in turns, in place, and synced once: replacing a file would take two
//! syncs (the file and its directory) for every batch. A write that is cut off leaves the other
//! slot. Doing without the sync would be cheaper, but then a disk that loses both the last
//! commit and the mark in one power cut is not noticed.

use std::io;

use realm_manifest::identity::{Hash, RealmId};
use redb::StorageBackend;

/// A slot has a page of its own, so that no write touches both.
const SLOT_BYTES: u64 = 4096;
const SLOTS: u64 = 2;
const MAGIC: &[u8; 8] = b"rlmmark1";
/// Magic, batch, realm, seq, entry.
const CONTENT_BYTES: usize = 8 + 8 + 32 + 8 + 32;
const CHECKSUM_BYTES: usize = 32;

/// The highest acknowledged entry of the owner's chain, as of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Batches acknowledged so far, but for those that only hold reports.
    pub batch: u64,
    /// All zeros before the node is in a realm.
    pub realm: RealmId,
    pub seq: u64,
    /// The realm's id where `seq` is 0.
    pub entry: Hash,
}

impl Mark {
    /// Nothing is acknowledged.
    pub const NONE: Self = Self {
        batch: 0,
        realm: RealmId::from_bytes([0; 32]),
        seq: 0,
        entry: Hash::from_bytes([0; 32]),
    };

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CONTENT_BYTES + CHECKSUM_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.batch.to_le_bytes());
        bytes.extend(self.realm.as_bytes());
        bytes.extend(self.seq.to_le_bytes());
        bytes.extend(self.entry.as_bytes());
        let checksum = Hash::of(&bytes);
        bytes.extend(checksum.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_at_checked(CONTENT_BYTES)?;
        if Hash::of(content).as_bytes()[..] != *checksum {
            return None;
        }
        let rest = content.strip_prefix(MAGIC)?;
        let (batch, rest) = rest.split_first_chunk::<8>()?;
        let (realm, rest) = rest.split_first_chunk::<32>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (entry, _) = rest.split_first_chunk::<32>()?;
        Some(Self {
            batch: u64::from_le_bytes(*batch),
            realm: RealmId::from_bytes(*realm),
            seq: u64::from_le_bytes(*seq),
            entry: Hash::from_bytes(*entry),
        })
    }
}

/// The mark where it is kept.
#[derive(Debug)]
pub(super) struct MarkFile {
    storage: Box<dyn StorageBackend>,
    mark: Mark,
    /// Holds `mark`; the other one is written next.
    slot: u64,
}

impl MarkFile {
    /// Makes a mark by which nothing is acknowledged, in empty storage.
    pub fn create(storage: Box<dyn StorageBackend>) -> io::Result<()> {
        let mut bytes = Mark::NONE.to_bytes();
        bytes.resize((SLOT_BYTES * SLOTS) as usize, 0);
        storage.write(0, &bytes)?;
        storage.sync_data()
    }

    /// Reads the mark. None where neither slot is whole: an empty file is damaged, too, since a
    /// mark gets its name when it is whole.
    pub fn open(storage: Box<dyn StorageBackend>) -> io::Result<Option<Self>> {
        let length = storage.len()?;
        let mut newest: Option<(Mark, u64)> = None;
        for slot in 0..SLOTS {
            let mut bytes = [0; CONTENT_BYTES + CHECKSUM_BYTES];
            let start = slot * SLOT_BYTES;
            if start + bytes.len() as u64 > length {
                continue;
            }
            storage.read(start, &mut bytes)?;
            if let Some(mark) = Mark::from_bytes(&bytes)
                && newest.is_none_or(|(newest, _)| mark.batch > newest.batch)
            {
                newest = Some((mark, slot));
            }
        }
        Ok(newest.map(|(mark, slot)| Self {
            storage,
            mark,
            slot,
        }))
    }

    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Returns after the disk has it. After an error the earlier mark holds, and the same slot
    /// is written again.
    pub fn raise(&mut self, mark: Mark) -> io::Result<()> {
        let slot = (self.slot + 1) % SLOTS;
        self.storage.write(slot * SLOT_BYTES, &mark.to_bytes())?;
        self.storage.sync_data()?;
        (self.mark, self.slot) = (mark, slot);
        Ok(())
    }
}
