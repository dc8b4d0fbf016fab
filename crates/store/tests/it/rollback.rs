//! An older copy of the ledger, or none, is noticed.

use std::path::Path;

use realm_store::{Ledger, LedgerError, Op};

use super::{batch, chain, genesis};

fn found() -> Op {
    Op::Genesis {
        wire: genesis().to_wire(),
    }
}

/// Commits the genesis and entries up to `to`, and closes.
fn append(path: &Path, to: u64) {
    let mut ledger = Ledger::open(path).unwrap();
    ledger.commit(&[found()]).unwrap();
    for entry in chain(to) {
        ledger.commit(&batch(&entry)).unwrap();
    }
}

#[test]
fn an_older_copy_is_refused_and_the_newest_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    let copy = |name: &str| std::fs::copy(&path, temp.path().join(name)).map(drop);
    let restore = |name: &str| std::fs::copy(temp.path().join(name), &path).map(drop);
    drop(Ledger::open(&path).unwrap());
    copy("empty").unwrap();
    append(&path, 0);
    copy("founded").unwrap();
    append(&path, 3);
    copy("third").unwrap();
    {
        // A mark of an intent is acknowledged as well: the copy without it would do it twice.
        let mut ledger = Ledger::open(&path).unwrap();
        let intent = chain(1)[0].hash();
        ledger.commit(&[Op::Mark { intent, at_ms: 1 }]).unwrap();
    }
    copy("marked").unwrap();
    append(&path, 5);
    copy("newest").unwrap();
    for older in ["empty", "founded", "third", "marked"] {
        restore(older).unwrap();
        let error = Ledger::open(&path).unwrap_err();
        let LedgerError::RolledBack {
            realm,
            acknowledged,
            found,
        } = &error
        else {
            panic!("{older}: {error:?}");
        };
        assert_eq!((*realm, *acknowledged), (genesis().realm_id(), 5));
        assert_eq!(
            *found,
            if older == "empty" || older == "founded" {
                0
            } else {
                3
            }
        );
        let text = error.to_string();
        for words in [
            "revision 5",
            "older copy",
            "move ledger.redb and ledger.mark aside",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
    restore("newest").unwrap();
    assert_eq!(
        Ledger::open(&path).unwrap().load().unwrap().entries.len(),
        5
    );

    // The marked copy differs from the one before it in no entry.
    append(&path, 5);
    let mark = path.with_extension("mark");
    std::fs::remove_file(&mark).unwrap();
    restore("marked").unwrap();
    drop(Ledger::open(&path).unwrap());
    restore("third").unwrap();
    assert!(matches!(
        Ledger::open(&path),
        Err(LedgerError::RolledBack { .. })
    ));
}

#[test]
fn a_lost_ledger_is_refused_until_somebody_moves_the_mark_aside() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    append(&path, 2);
    std::fs::remove_file(&path).unwrap();
    let error = Ledger::open(&path).unwrap_err();
    assert!(
        matches!(
            error,
            LedgerError::Gone {
                acknowledged: 2,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("move ledger.mark aside"),
        "{error}"
    );
    assert!(!path.exists(), "an empty one must not take its place");
    std::fs::rename(path.with_extension("mark"), temp.path().join("aside")).unwrap();
    let ledger = Ledger::open(&path).unwrap();
    assert!(ledger.load().unwrap().entries.is_empty());
}

#[test]
fn a_crash_between_the_commit_and_the_mark_opens_and_raises_the_mark() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    let mark = path.with_extension("mark");
    append(&path, 2);
    let behind = std::fs::read(&mark).unwrap();
    append(&path, 3);
    std::fs::write(&mark, behind).unwrap();
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(ledger.load().unwrap().entries.len(), 3);
    drop(ledger);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        Ledger::open(&path),
        Err(LedgerError::Gone {
            acknowledged: 3,
            ..
        })
    ));
}

#[test]
fn a_torn_mark_falls_back_and_a_damaged_one_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    let mark = path.with_extension("mark");
    append(&path, 3);
    let whole = std::fs::read(&mark).unwrap();
    let slots = [0, 4096];
    for slot in slots {
        for at in 0..120 {
            let mut torn = whole.clone();
            torn[slot + at..slot + 120].fill(0xff);
            std::fs::write(&mark, torn).unwrap();
            let ledger = Ledger::open(&path).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!(ledger.load().unwrap().entries.len(), 3);
        }
    }
    let mut damaged = whole.clone();
    for slot in slots {
        damaged[slot + 20] ^= 1;
    }
    std::fs::write(&mark, damaged).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::MarkDamaged)));
    std::fs::write(&mark, &whole[..100]).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::MarkDamaged)));
}

#[test]
fn another_realms_ledger_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (one, two) = (temp.path().join("one.redb"), temp.path().join("two.redb"));
    append(&one, 2);
    append(&two, 2);
    let owner = super::owner();
    let genesis = super::Genesis::new(owner.public(), "other".into(), [3; 32]);
    let genesis = super::Signed::sign(genesis, &owner).unwrap();
    let other = temp.path().join("other.redb");
    let mut ledger = Ledger::open(&other).unwrap();
    ledger
        .commit(&[Op::Genesis {
            wire: genesis.to_wire(),
        }])
        .unwrap();
    drop(ledger);
    std::fs::copy(&two, &one).unwrap();
    drop(Ledger::open(&one).unwrap());
    std::fs::copy(&other, &one).unwrap();
    assert!(matches!(
        Ledger::open(&one),
        Err(LedgerError::RolledBack { .. })
    ));
}

#[test]
fn an_empty_mark_is_a_damaged_one() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ledger.redb");
    append(&path, 2);
    // As a file system that was cut off may leave it.
    std::fs::write(temp.path().join("ledger.mark"), b"").unwrap();
    let error = Ledger::open(&path).unwrap_err();
    assert!(matches!(error, LedgerError::MarkDamaged), "{error}");
    // Also where the ledger went with it.
    std::fs::remove_file(&path).unwrap();
    let error = Ledger::open(&path).unwrap_err();
    assert!(matches!(error, LedgerError::MarkDamaged), "{error}");
}
