//! A ledger file with one bit turned over is refused, or reads as it was: never as something
//! else, and never with a panic.

use realm_store::{Checkpoint, Ledger, LedgerContents, Op};

use super::{batch, chain, disk::Disks, genesis};
use realm_manifest::identity::Hash;

/// Of every page; its first bytes hold what the rest is read by.
const PAGE: usize = 4096;
const EVERY: usize = 24;
const STEP: usize = 251;

/// A ledger with everything in it, its storage after `last`, and what it reads as.
fn filled(last: impl FnOnce(&Disks, Ledger) -> Disks) -> (Disks, LedgerContents) {
    let disks = Disks::new();
    let mut ledger = Ledger::open_storage(disks.clone()).unwrap();
    let entries = chain(12);
    ledger
        .commit(&[Op::Genesis {
            wire: genesis().to_wire(),
        }])
        .unwrap();
    ledger
        .commit(&[
            Op::Checkpoint(Checkpoint {
                entry: entries[0].to_wire(),
                state: b"state".to_vec(),
                payload: super::payload(1),
            }),
            Op::Claim {
                hash: Hash::of(&[7; 600]),
                wire: vec![7; 600],
            },
            Op::Mark {
                intent: Hash::of(b"exec"),
                at_ms: 5,
            },
            Op::Report {
                node: [9; 32],
                seen_ms: 7,
                wire: vec![8; 5000],
            },
        ])
        .unwrap();
    for entry in &entries[1..] {
        ledger.commit(&batch(entry)).unwrap();
    }
    let contents = ledger.load().unwrap();
    assert!(ledger.is_marked(&Hash::of(b"exec")).unwrap());
    (last(&disks, ledger), contents)
}

fn check_every_page(disks: &Disks, expected: &LedgerContents) {
    let (whole, mark) = (disks.ledger.bytes(), disks.mark.bytes());
    let (mut refused, mut same) = (0, 0);
    for (number, page) in whole.chunks(PAGE).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        for at in 0..page.len() {
            // The header is small and decides everything.
            let header = number == 0 && at < 320;
            if !header && at >= EVERY && at % STEP != number % STEP {
                continue;
            }
            // Of the flags at its beginning every bit counts.
            let flags = number == 0 && at < 16;
            for bit in if flags { 0..8 } else { at % 8..at % 8 + 1 } {
                let mut bytes = whole.clone();
                bytes[number * PAGE + at] ^= 1 << bit;
                let opened = Ledger::open_storage(Disks::holding(bytes, mark.clone()));
                match opened.and_then(|ledger| {
                    let marked = ledger.is_marked(&Hash::of(b"exec"))?;
                    Ok((ledger.load()?, marked))
                }) {
                    Err(_) => refused += 1,
                    Ok((contents, marked)) => {
                        assert_eq!(&contents, expected, "page {number}, byte {at}, bit {bit}");
                        assert!(marked, "page {number}, byte {at}, bit {bit}");
                        same += 1;
                    }
                }
            }
        }
    }
    assert!(
        refused > 100 && same > 100,
        "{refused} refused, {same} the same: too few to mean much"
    );
}

#[test]
fn in_a_ledger_that_was_closed_in_order() {
    let (disks, contents) = filled(|disks, ledger| {
        drop(ledger);
        disks.clone()
    });
    check_every_page(&disks, &contents);
}

#[test]
fn in_a_ledger_whose_agent_was_killed() {
    let (disks, contents) = filled(|disks, ledger| {
        let killed = Disks::holding(disks.ledger.bytes(), disks.mark.bytes());
        drop(ledger);
        killed
    });
    check_every_page(&disks, &contents);
}
