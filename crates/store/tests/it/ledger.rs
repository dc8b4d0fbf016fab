//! What is committed is there, verified, after opening again.

use std::path::Path;

use realm_manifest::identity::{Entry, Genesis, Hash, Kind, Signed};
use realm_store::{Checkpoint, Ledger, LedgerError, Op};

use super::{batch, chain, entry, genesis, owner, payload};

#[test]
fn everything_comes_back_as_it_was_put() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    let entries = chain(3);
    let checkpoint = Checkpoint {
        entry: entries[0].to_wire(),
        state: b"state".to_vec(),
        payload: payload(1),
    };
    let claim = Op::Claim {
        hash: Hash::of(b"claim"),
        wire: b"claim".to_vec(),
    };
    {
        let mut ledger = Ledger::open(&path).unwrap();
        ledger
            .commit(&[Op::Genesis {
                wire: genesis().to_wire(),
            }])
            .unwrap();
        for entry in &entries {
            ledger.commit(&batch(entry)).unwrap();
        }
        assert!(!ledger.load().unwrap().caught_up);
        ledger
            .commit(&[
                Op::Checkpoint(checkpoint.clone()),
                claim,
                Op::CaughtUp,
                Op::Mark {
                    intent: Hash::of(b"exec"),
                    at_ms: 5,
                },
                Op::Report {
                    node: [9; 32],
                    seen_ms: 7,
                    wire: b"report".to_vec(),
                },
            ])
            .unwrap();
    }
    let ledger = Ledger::open(&path).unwrap();
    let contents = ledger.load().unwrap();
    assert!(contents.caught_up);
    assert_eq!(contents.genesis.unwrap(), genesis().to_wire());
    assert_eq!(contents.checkpoint.unwrap(), checkpoint);
    let wires: Vec<_> = contents
        .entries
        .iter()
        .map(|item| item.entry.clone())
        .collect();
    assert_eq!(
        wires,
        entries
            .iter()
            .map(|entry| entry.to_wire())
            .collect::<Vec<_>>()
    );
    let payloads: Vec<_> = contents
        .entries
        .iter()
        .map(|item| item.payload.clone())
        .collect();
    assert_eq!(payloads, [1, 2, 3].map(|seq| Some(payload(seq))));
    assert_eq!(contents.claims, [b"claim".to_vec()]);
    assert_eq!(contents.reports, [([9; 32], 7, b"report".to_vec())]);
    assert!(ledger.is_marked(&Hash::of(b"exec")).unwrap());
    assert!(!ledger.is_marked(&Hash::of(b"other")).unwrap());
}

/// A ledger with the genesis and three entries.
fn filled(path: &Path) -> Ledger {
    let mut ledger = Ledger::open(path).unwrap();
    ledger.commit(&[found()]).unwrap();
    for entry in chain(3) {
        ledger.commit(&batch(&entry)).unwrap();
    }
    ledger
}

fn found() -> Op {
    Op::Genesis {
        wire: genesis().to_wire(),
    }
}

#[test]
fn a_batch_that_could_not_be_read_back_is_refused_and_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let mut ledger = filled(&temp.path().join("ledger.redb"));
    let before = ledger.load().unwrap();
    let entries = chain(6);
    let mut wire = entries[3].to_wire();
    let last = wire.len() - 1;
    wire[last] ^= 1;
    let forged = Op::Entry {
        hash: entries[3].hash(),
        wire,
    };
    assert!(matches!(
        ledger.commit(&[forged]),
        Err(LedgerError::Entry { .. })
    ));
    let owner = owner();
    let foreign = Genesis::new(owner.public(), "other".into(), [1; 32]);
    let foreign = Signed::sign(foreign, &owner).unwrap();
    let refused = [
        Op::Entry {
            hash: Hash::of(b"x"),
            wire: entries[3].to_wire(),
        },
        // Its parent is not here: the batch with it failed.
        Op::Entry {
            hash: entries[4].hash(),
            wire: entries[4].to_wire(),
        },
        Op::Genesis {
            wire: foreign.to_wire(),
        },
        Op::Genesis {
            wire: b"nonsense".to_vec(),
        },
        Op::Payload {
            sha256: Hash::of(b"one"),
            bytes: b"another".to_vec(),
        },
        Op::Claim {
            hash: Hash::of(b"one"),
            wire: b"another".to_vec(),
        },
    ];
    for op in refused {
        // What comes before it in the batch is not written either.
        let batch = [batch(&entries[3]), vec![op.clone()]].concat();
        let batch = match &op {
            Op::Entry { .. } => &batch[2..],
            _ => &batch[..],
        };
        let refused = ledger.commit(batch);
        assert!(
            matches!(refused, Err(LedgerError::Refused { .. })),
            "{op:?}: {refused:?}"
        );
        assert_eq!(ledger.load().unwrap(), before, "{op:?}");
    }
    ledger
        .commit(&[batch(&entries[3]), batch(&entries[4])].concat())
        .unwrap();
    // The same again is what a retry does.
    ledger
        .commit(&[vec![found()], batch(&entries[4])].concat())
        .unwrap();
    assert_eq!(ledger.load().unwrap().entries.len(), 5);

    let mark = |at_ms| Op::Mark {
        intent: Hash::of(b"exec"),
        at_ms,
    };
    ledger.commit(&[mark(5)]).unwrap();
    ledger.commit(&[mark(5)]).unwrap();
    assert!(matches!(
        ledger.commit(&[mark(6)]),
        Err(LedgerError::Refused { .. })
    ));
    let mut empty = Ledger::open(&temp.path().join("empty.redb")).unwrap();
    assert!(matches!(
        empty.commit(&batch(&entries[0])),
        Err(LedgerError::Refused { .. })
    ));
}

fn revisions(ledger: &Ledger) -> Vec<u64> {
    let entries = ledger.load().unwrap().entries;
    let seq = |wire: &[u8]| Signed::<Entry>::from_wire(wire).unwrap().seq;
    entries.iter().map(|item| seq(&item.entry)).collect()
}

#[test]
fn a_fork_and_its_merge_are_no_gap() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    let mut ledger = filled(&path);
    let third = chain(3)[2].hash();
    let second = chain(3)[1].hash();
    let other = entry(3, second, Kind::Push, b"other");
    let longer = entry(4, other.hash(), Kind::Push, b"other");
    // It keeps the shorter branch, and comes after the longer one.
    let early = entry(6, third, Kind::Merge, b"state");
    let merge = entry(5, third, Kind::Merge, b"state");
    ledger.commit(&batch(&other)).unwrap();
    assert!(ledger.commit(&batch(&merge)).is_err(), "4 is not here yet");
    ledger.commit(&batch(&longer)).unwrap();
    assert!(ledger.commit(&batch(&early)).is_err());
    assert!(
        ledger
            .commit(&batch(&entry(5, third, Kind::Push, b"state")))
            .is_err(),
        "only a merge leaves out a revision"
    );
    ledger.commit(&batch(&merge)).unwrap();
    drop(ledger);
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(revisions(&ledger), [1, 2, 3, 3, 4, 5]);
}

#[test]
fn a_log_that_starts_at_a_checkpoint_goes_on_from_it() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    let entries = chain(7);
    let checkpoint = |state: &[u8]| {
        Op::Checkpoint(Checkpoint {
            entry: entries[4].to_wire(),
            state: state.to_vec(),
            payload: payload(5),
        })
    };
    let mut ledger = Ledger::open(&path).unwrap();
    let forged = ledger.commit(&[found(), checkpoint(b"another state")]);
    assert!(matches!(forged, Err(LedgerError::Damaged { .. })));
    ledger.commit(&[found(), checkpoint(b"state")]).unwrap();
    drop(ledger);
    let mut ledger = Ledger::open(&path).unwrap();
    assert!(ledger.commit(&batch(&entries[6])).is_err(), "6 is missing");
    ledger.commit(&batch(&entries[5])).unwrap();
    // Another entry beside the checkpoint's is a fork.
    let beside = entry(5, entries[3].hash(), Kind::Push, b"other");
    ledger.commit(&batch(&beside)).unwrap();
    ledger.commit(&batch(&entries[6])).unwrap();
    drop(ledger);
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(revisions(&ledger), [5, 6, 7]);
    drop(ledger);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        Ledger::open(&path),
        Err(LedgerError::Gone {
            acknowledged: 7,
            ..
        })
    ));
}

/// Changes the tables behind the ledger's back.
fn tamper(path: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

const ENTRIES: redb::TableDefinition<'_, [u8; 32], &[u8]> = redb::TableDefinition::new("entries");
const PAYLOADS: redb::TableDefinition<'_, [u8; 32], &[u8]> = redb::TableDefinition::new("payloads");
const CLAIMS: redb::TableDefinition<'_, [u8; 32], &[u8]> = redb::TableDefinition::new("claims");
const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");

#[test]
fn what_does_not_verify_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let entries = chain(3);
    let other = entries[0].to_wire();
    type Change = Box<dyn FnOnce(&redb::WriteTransaction)>;
    let (second, third) = (*entries[1].hash().as_bytes(), *entries[2].hash().as_bytes());
    let cases: Vec<(&str, Change)> = vec![
        (
            "entry before it is missing",
            Box::new(move |t| {
                t.open_table(ENTRIES).unwrap().remove(second).unwrap();
            }),
        ),
        (
            "does not verify",
            Box::new(move |t| {
                t.open_table(ENTRIES)
                    .unwrap()
                    .insert(second, &b"x"[..])
                    .unwrap();
            }),
        ),
        (
            "not what its digest says",
            Box::new(move |t| {
                let mut table = t.open_table(ENTRIES).unwrap();
                table.insert(second, other.as_slice()).unwrap();
            }),
        ),
        (
            "payload is not what its digest says",
            Box::new(|t| {
                let key = *Hash::of(&payload(2)).as_bytes();
                t.open_table(PAYLOADS)
                    .unwrap()
                    .insert(key, &b"x"[..])
                    .unwrap();
            }),
        ),
        (
            "claim is not what its digest says",
            Box::new(|t| {
                t.open_table(CLAIMS)
                    .unwrap()
                    .insert([1; 32], &b"x"[..])
                    .unwrap();
            }),
        ),
        (
            "no genesis",
            Box::new(|t| {
                t.open_table(META).unwrap().remove("genesis").unwrap();
            }),
        ),
        (
            "checkpoint is not whole",
            Box::new(|t| {
                let mut table = t.open_table(META).unwrap();
                table.insert("checkpoint-state", &b"x"[..]).unwrap();
            }),
        ),
        (
            "rolled back",
            Box::new(move |t| {
                t.open_table(ENTRIES).unwrap().remove(third).unwrap();
            }),
        ),
    ];
    for (number, (expected, change)) in cases.into_iter().enumerate() {
        let path = temp.path().join(format!("{number}.redb"));
        drop(filled(&path));
        tamper(&path, change);
        if expected == "no genesis" {
            // Otherwise the mark says it first.
            std::fs::remove_file(path.with_extension("mark")).unwrap();
        }
        let error = Ledger::open(&path).and_then(|ledger| ledger.load());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_ledger_that_is_open_elsewhere_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    let _open = Ledger::open(&path).unwrap();
    assert!(
        Ledger::open(&path)
            .unwrap_err()
            .to_string()
            .contains("another process")
    );
}
