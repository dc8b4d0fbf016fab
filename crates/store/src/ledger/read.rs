//! Everything out of the tables, and whether it can be believed.

use std::collections::{HashMap, HashSet};

use realm_manifest::identity::{Entry, Hash, Signed};
use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::{
    BATCH, CAUGHT_UP, CHECKPOINT, CLAIMS, Checkpoint, ENTRIES, GENESIS, Item, LedgerContents,
    LedgerError, MARKS, META, PAYLOADS, REPORTS,
    chain::{self, Start},
    mark::Mark,
    write::counter,
};

/// What the tables hold, before anything is believed.
#[derive(Default)]
pub(super) struct Raw {
    batch: u64,
    genesis: Option<Vec<u8>>,
    checkpoint: [Option<Vec<u8>>; 3],
    entries: Vec<(Hash, Vec<u8>)>,
    payloads: HashMap<Hash, Vec<u8>>,
    claims: Vec<(Hash, Vec<u8>)>,
    caught_up: bool,
    reports: Vec<([u8; 32], u64, Vec<u8>)>,
}

pub(super) fn everything(database: &Database) -> Result<Raw, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let value = |key: &str| -> Result<Option<Vec<u8>>, redb::Error> {
        Ok(meta.get(key)?.map(|value| value.value().to_vec()))
    };
    let mut raw = Raw {
        batch: value(BATCH)?.map_or(0, |bytes| counter(&bytes)),
        genesis: value(GENESIS)?,
        caught_up: value(CAUGHT_UP)?.is_some(),
        checkpoint: [
            value(CHECKPOINT[0])?,
            value(CHECKPOINT[1])?,
            value(CHECKPOINT[2])?,
        ],
        ..Raw::default()
    };
    for row in transaction.open_table(ENTRIES)?.iter()? {
        let (hash, wire) = row?;
        raw.entries
            .push((Hash::from_bytes(hash.value()), wire.value().to_vec()));
    }
    for row in transaction.open_table(PAYLOADS)?.iter()? {
        let (sha256, bytes) = row?;
        raw.payloads
            .insert(Hash::from_bytes(sha256.value()), bytes.value().to_vec());
    }
    for row in transaction.open_table(CLAIMS)?.iter()? {
        let (hash, wire) = row?;
        raw.claims
            .push((Hash::from_bytes(hash.value()), wire.value().to_vec()));
    }
    for row in transaction.open_table(REPORTS)?.iter()? {
        let (node, report) = row?;
        let (seen_ms, wire) = report.value();
        raw.reports.push((node.value(), seen_ms, wire.to_vec()));
    }
    Ok(raw)
}

pub(super) fn is_marked(database: &Database, intent: &Hash) -> Result<bool, redb::Error> {
    let marks = database.begin_read()?.open_table(MARKS)?;
    Ok(marks.get(intent.as_bytes())?.is_some())
}

impl Raw {
    /// The mark that these contents stand for; None where they lack what `acknowledged` names.
    pub fn standing(&self, acknowledged: Mark) -> Result<Option<Mark>, LedgerError> {
        let start = self.start()?;
        let realm = start.as_ref().map_or(Mark::NONE.realm, |start| start.realm);
        let other_realm = acknowledged.realm != Mark::NONE.realm && acknowledged.realm != realm;
        if other_realm || self.batch < acknowledged.batch {
            return Ok(None);
        }
        let checkpoint = start.and_then(|start| start.checkpoint);
        let known = [Mark::NONE.entry, realm].contains(&acknowledged.entry)
            || checkpoint.is_some_and(|(hash, _)| hash == acknowledged.entry)
            || self
                .entries
                .iter()
                .any(|(hash, _)| *hash == acknowledged.entry);
        if !known {
            return Ok(None);
        }
        if self.batch == acknowledged.batch && self.batch > 0 {
            return Ok(Some(acknowledged));
        }
        // Of two entries for one revision, the one that was acknowledged first stays the mark.
        let mut standing = Mark {
            batch: self.batch,
            realm,
            ..acknowledged
        };
        if standing.seq == 0 {
            standing.entry = realm;
        }
        let mut entries: Vec<_> = checkpoint.into_iter().collect();
        for (hash, wire) in &self.entries {
            let entry = Signed::<Entry>::from_wire(wire).map_err(|source| LedgerError::Entry {
                hash: *hash,
                source,
            })?;
            entries.push((*hash, entry.seq));
        }
        for (entry, seq) in entries {
            if seq > standing.seq {
                (standing.seq, standing.entry) = (seq, entry);
            }
        }
        Ok(Some(standing))
    }

    /// The highest revision, whatever else is wrong.
    pub fn highest(&self) -> u64 {
        let entries = self.entries.iter().map(|(_, wire)| wire);
        entries
            .chain(&self.checkpoint[0])
            .filter_map(|wire| Signed::<Entry>::from_wire(wire).ok())
            .map(|entry| entry.seq)
            .max()
            .unwrap_or(0)
    }

    fn start(&self) -> Result<Option<Start>, LedgerError> {
        Start::read(self.genesis.as_deref(), self.checkpoint[0].as_deref()).map_err(damaged)
    }

    /// Signatures, digests, and that no revision is missing.
    pub fn verify(self) -> Result<LedgerContents, LedgerError> {
        let start = self.start()?;
        if start.is_none() && !self.entries.is_empty() {
            return Err(damaged("it has entries and no genesis"));
        }
        let checkpoint = match self.checkpoint {
            [None, None, None] => None,
            [Some(entry), Some(state), Some(payload)] => Some(Checkpoint {
                entry,
                state,
                payload,
            }),
            _ => return Err(damaged("its checkpoint is not whole")),
        };
        if let Some(checkpoint) = &checkpoint {
            verify_checkpoint(checkpoint)?;
        }
        for (sha256, bytes) in &self.payloads {
            if Hash::of(bytes) != *sha256 {
                return Err(damaged("a payload is not what its digest says"));
            }
        }
        for (hash, wire) in &self.claims {
            if Hash::of(wire) != *hash {
                return Err(damaged("a claim is not what its digest says"));
            }
        }
        let entries = match &start {
            Some(start) => verify_entries(self.entries, start, &self.payloads)?,
            None => Vec::new(),
        };
        Ok(LedgerContents {
            genesis: self.genesis,
            checkpoint,
            entries,
            claims: self.claims.into_iter().map(|(_, wire)| wire).collect(),
            caught_up: self.caught_up,
            reports: self.reports,
        })
    }
}

pub(super) fn verify_checkpoint(checkpoint: &Checkpoint) -> Result<(), LedgerError> {
    let entry = Signed::<Entry>::from_wire(&checkpoint.entry)
        .map_err(|_| damaged("its checkpoint does not verify"))?;
    match &entry.body {
        Some(body)
            if body.state == Hash::of(&checkpoint.state)
                && body.payload.sha256 == Hash::of(&checkpoint.payload) =>
        {
            Ok(())
        }
        _ => Err(damaged("its checkpoint is not the one that was signed")),
    }
}

fn verify_entries(
    rows: Vec<(Hash, Vec<u8>)>,
    start: &Start,
    payloads: &HashMap<Hash, Vec<u8>>,
) -> Result<Vec<Item>, LedgerError> {
    let mut entries = Vec::with_capacity(rows.len());
    for (hash, wire) in rows {
        let entry = Signed::<Entry>::from_wire(&wire)
            .map_err(|source| LedgerError::Entry { hash, source })?;
        if entry.hash() != hash {
            return Err(damaged("an entry is not what its digest says"));
        }
        entries.push((entry, wire));
    }
    entries.sort_by_key(|(entry, _)| (entry.seq, entry.hash()));

    let starts = [Some(start.base), start.checkpoint];
    let mut seqs: HashMap<Hash, u64> = starts.into_iter().flatten().collect();
    let mut present: HashSet<u64> = seqs.values().copied().collect();
    let mut items = Vec::with_capacity(entries.len());
    for (entry, wire) in entries {
        let parent = seqs.get(&entry.prev).copied();
        chain::check(&entry, start, parent).map_err(|what| LedgerError::Damaged {
            what: format!("revision {}: {what}", entry.seq),
        })?;
        if !start.precedes(&entry) && !present.contains(&(entry.seq - 1)) {
            return Err(LedgerError::Damaged {
                what: format!("revision {} is missing", entry.seq - 1),
            });
        }
        present.insert(entry.seq);
        seqs.insert(entry.hash(), entry.seq);
        let payload = entry
            .body
            .as_ref()
            .and_then(|body| payloads.get(&body.payload.sha256));
        items.push(Item {
            entry: wire,
            payload: payload.cloned(),
        });
    }
    Ok(items)
}

fn damaged(what: &str) -> LedgerError {
    LedgerError::Damaged {
        what: what.to_owned(),
    }
}
