//! What is committed is there, verified, after opening again.

use realm_manifest::identity::Hash;
use realm_store::{Checkpoint, Ledger, LedgerError, Op};

use super::{batch, chain, genesis, payload};

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
        ledger
            .commit(&[
                Op::Checkpoint(checkpoint.clone()),
                Op::ErasePayload {
                    sha256: Hash::of(&payload(2)),
                },
                Op::Claim {
                    hash: Hash::of(b"claim"),
                    wire: b"claim".to_vec(),
                },
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
    assert_eq!(payloads, [Some(payload(1)), None, Some(payload(3))]);
    assert_eq!(contents.claims, [b"claim".to_vec()]);
    assert_eq!(contents.reports, [([9; 32], 7, b"report".to_vec())]);
    assert!(ledger.is_marked(&Hash::of(b"exec")).unwrap());
    assert!(!ledger.is_marked(&Hash::of(b"other")).unwrap());
}

#[test]
fn what_does_not_verify_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let entry = &chain(1)[0];
    let open = |name: &str, ops: &[Op]| {
        let mut ledger = Ledger::open(&temp.path().join(name)).unwrap();
        ledger.commit(ops).unwrap();
        ledger.load().unwrap_err()
    };
    let genesis = Op::Genesis {
        wire: genesis().to_wire(),
    };
    let mut wire = entry.to_wire();
    let last = wire.len() - 1;
    wire[last] ^= 1;
    let forged = Op::Entry {
        hash: entry.hash(),
        wire,
    };
    assert!(matches!(
        open("a", &[genesis.clone(), forged]),
        LedgerError::Entry { .. }
    ));
    let misplaced = Op::Entry {
        hash: Hash::of(b"x"),
        wire: entry.to_wire(),
    };
    assert!(matches!(
        open("b", &[genesis, misplaced]),
        LedgerError::Damaged { .. }
    ));
    assert!(matches!(
        open("c", &batch(entry)),
        LedgerError::Damaged { .. }
    ));
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
