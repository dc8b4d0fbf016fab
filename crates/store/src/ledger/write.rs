//! One batch into the tables: nothing that [`super::read`] would not accept gets in.

use realm_manifest::identity::{Entry, Genesis, Hash, RealmId, Signed};
use redb::{Database, ReadableTable as _, Table, WriteTransaction};

use super::{
    BATCH, CAUGHT_UP, CHECKPOINT, CLAIMS, Checkpoint, ENTRIES, GENESIS, LedgerError, MARKS, META,
    Op, PAYLOADS, REPORTS,
    chain::{self, Start},
    mark::Mark,
    read::verify_checkpoint,
};

/// What a batch came to: the mark after it, or why it was refused and changed nothing.
type Outcome = Result<Result<Mark, LedgerError>, redb::Error>;

/// Writes `batch` durably, or none of it. `mark` is what was acknowledged before.
pub(super) fn commit(database: &Database, batch: &[Op], mark: Mark) -> Outcome {
    // Durability is immediate by default: commit returns after the disk has it.
    let transaction = database.begin_write()?;
    let mark = match apply(&transaction, batch, mark)? {
        Ok(mark) => mark,
        Err(refused) => {
            transaction.abort()?;
            return Ok(Err(refused));
        }
    };
    transaction.commit()?;
    Ok(Ok(mark))
}

fn apply(transaction: &WriteTransaction, batch: &[Op], mut mark: Mark) -> Outcome {
    let mut entries = transaction.open_table(ENTRIES)?;
    let mut payloads = transaction.open_table(PAYLOADS)?;
    let mut claims = transaction.open_table(CLAIMS)?;
    let mut marks = transaction.open_table(MARKS)?;
    let mut reports = transaction.open_table(REPORTS)?;
    let mut meta = transaction.open_table(META)?;
    // Reports are sent again by whom they are about: losing one is no loss to be noticed.
    if batch.iter().any(|op| !matches!(op, Op::Report { .. })) {
        let count = meta.get(BATCH)?.map(|bytes| counter(bytes.value()));
        mark.batch = count.unwrap_or(0) + 1;
        meta.insert(BATCH, mark.batch.to_le_bytes().as_slice())?;
    }
    for op in batch {
        match op {
            Op::Genesis { wire } => {
                let Ok(genesis) = Signed::<Genesis>::from_wire(wire) else {
                    return Ok(Err(refused("the genesis does not verify")));
                };
                let realm = genesis.realm_id();
                match realm_of(&meta)? {
                    Some(earlier) if earlier != realm => {
                        return Ok(Err(refused("there is another genesis")));
                    }
                    Some(_) => {}
                    None => {
                        meta.insert(GENESIS, wire.as_slice())?;
                    }
                }
                if mark.seq == 0 {
                    (mark.realm, mark.entry) = (realm, realm);
                }
            }
            Op::Checkpoint(checkpoint) => {
                let entry = match Signed::<Entry>::from_wire(&checkpoint.entry) {
                    Ok(entry) => entry,
                    Err(source) => return Ok(Err(unverified(&checkpoint.entry, source))),
                };
                if let Err(error) = verify_checkpoint(checkpoint) {
                    return Ok(Err(error));
                }
                let Checkpoint {
                    entry: wire,
                    state,
                    payload,
                } = checkpoint;
                for (key, bytes) in CHECKPOINT.into_iter().zip([wire, state, payload]) {
                    meta.insert(key, bytes.as_slice())?;
                }
                if entry.seq > mark.seq {
                    (mark.seq, mark.entry) = (entry.seq, entry.hash());
                }
            }
            Op::Entry { hash, wire } => {
                let entry = match Signed::<Entry>::from_wire(wire) {
                    Ok(entry) => entry,
                    Err(source) => {
                        return Ok(Err(LedgerError::Entry {
                            hash: *hash,
                            source,
                        }));
                    }
                };
                if entry.hash() != *hash {
                    return Ok(Err(refused("an entry is not what its digest says")));
                }
                if let Err(reason) = follows(&entries, &meta, &entry, mark.seq)? {
                    return Ok(Err(refused(reason)));
                }
                // The same digest is the same entry: what is here was verified, and stays.
                if entries.get(hash.as_bytes())?.is_none() {
                    entries.insert(hash.as_bytes(), wire.as_slice())?;
                }
                if entry.seq > mark.seq {
                    (mark.seq, mark.entry) = (entry.seq, *hash);
                }
            }
            Op::Payload { sha256, bytes } => {
                if Hash::of(bytes) != *sha256 {
                    return Ok(Err(refused("a payload is not what its digest says")));
                }
                payloads.insert(sha256.as_bytes(), bytes.as_slice())?;
            }
            Op::Claim { hash, wire } => {
                if Hash::of(wire) != *hash {
                    return Ok(Err(refused("a claim is not what its digest says")));
                }
                claims.insert(hash.as_bytes(), wire.as_slice())?;
            }
            Op::CaughtUp => {
                meta.insert(CAUGHT_UP, [].as_slice())?;
            }
            Op::Mark { intent, at_ms } => {
                let earlier = marks.insert(intent.as_bytes(), at_ms)?;
                if earlier.is_some_and(|earlier| earlier.value() != *at_ms) {
                    return Ok(Err(refused("the intent was carried out at another time")));
                }
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
    Ok(Ok(mark))
}

/// Whether the entry goes on from what is in the tables, so that a batch that comes after a
/// failed one leaves no gap.
fn follows(
    entries: &Table<'_, [u8; 32], &[u8]>,
    meta: &Table<'_, &str, &[u8]>,
    entry: &Signed<Entry>,
    highest: u64,
) -> Result<Result<(), &'static str>, redb::Error> {
    let genesis = meta.get(GENESIS)?.map(|wire| wire.value().to_vec());
    let checkpoint = meta.get(CHECKPOINT[0])?.map(|wire| wire.value().to_vec());
    let start = match Start::read(genesis.as_deref(), checkpoint.as_deref()) {
        Ok(Some(start)) => start,
        Ok(None) => return Ok(Err("there is no genesis")),
        Err(_) => {
            return Ok(Err(
                "the genesis or the checkpoint in the ledger is damaged",
            ));
        }
    };
    let parent = match start.seq(&entry.prev) {
        Some(seq) => Some(seq),
        None => entries
            .get(entry.prev.as_bytes())?
            .and_then(|wire| Signed::<Entry>::from_wire(wire.value()).ok())
            .map(|parent| parent.seq),
    };
    Ok(chain::check(entry, &start, parent).and_then(|()| {
        if entry.seq > highest.saturating_add(1) {
            return Err("a revision is missing before it");
        }
        Ok(())
    }))
}

fn realm_of(meta: &Table<'_, &str, &[u8]>) -> Result<Option<RealmId>, redb::Error> {
    let wire = meta.get(GENESIS)?;
    // One that does not verify is no realm's, so that no other takes its place either.
    Ok(wire.map(|wire| {
        Signed::<Genesis>::from_wire(wire.value())
            .map_or(Hash::of(wire.value()), |genesis| genesis.realm_id())
    }))
}

pub(super) fn counter(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn refused(what: &'static str) -> LedgerError {
    LedgerError::Refused { what }
}

fn unverified(wire: &[u8], source: realm_manifest::identity::VerifyError) -> LedgerError {
    LedgerError::Entry {
        hash: Hash::of(wire),
        source,
    }
}
