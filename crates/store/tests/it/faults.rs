//! Storage that fails on purpose: every write and sync, one after the other.

use realm_store::{Ledger, LedgerError, Op};

use super::{batch, chain, disk::Disks, genesis};

const ENTRIES: u64 = 6;

fn batches(entries: u64) -> Vec<Vec<Op>> {
    let genesis = vec![Op::Genesis {
        wire: genesis().to_wire(),
    }];
    std::iter::once(genesis)
        .chain(chain(entries).iter().map(batch))
        .collect()
}

/// Commits the chain until the disk fails; says how many batches were acknowledged.
fn run(disks: &Disks) -> u64 {
    let Ok(mut ledger) = Ledger::open_storage(disks.clone()) else {
        return 0;
    };
    let mut acknowledged = 0;
    for batch in batches(ENTRIES) {
        if ledger.commit(&batch).is_err() {
            assert!(ledger.commit(&batch).is_err(), "a dead disk takes nothing");
            break;
        }
        acknowledged += 1;
    }
    acknowledged
}

fn check(disks: Disks, acknowledged: u64, context: &str) {
    let ledger = Ledger::open_storage(disks).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let contents = ledger
        .load()
        .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let found = u64::from(contents.genesis.is_some()) + contents.entries.len() as u64;
    assert!(
        found >= acknowledged,
        "{context}: {found} of {acknowledged} acknowledged batches"
    );
    assert!(
        found <= acknowledged + 1,
        "{context}: {found} batches, {acknowledged} acknowledged"
    );
    for item in &contents.entries {
        assert!(
            item.payload.is_some(),
            "{context}: an entry without its payload"
        );
    }
}

/// Making the files is the rename's business; here they exist.
fn created() -> Disks {
    let created = Disks::new();
    drop(Ledger::open_storage(created.clone()).unwrap());
    created
}

#[test]
fn no_acknowledged_batch_is_lost_wherever_the_power_goes() {
    let created = created();
    let whole = created.after_power_loss(0);
    assert_eq!(run(&whole), ENTRIES + 1);
    let operations = whole.operations();
    assert!(
        operations > 20,
        "{operations} operations are too few to mean much"
    );
    for fail_at in 1..=operations {
        let disks = created.after_power_loss(0);
        disks.fail_at(fail_at);
        let acknowledged = run(&disks);
        for seed in 0..4 {
            let after = disks.after_power_loss(seed ^ (fail_at << 8));
            check(
                after,
                acknowledged,
                &format!("power lost at operation {fail_at}, seed {seed}"),
            );
        }
    }
}

/// With the mark of after the power loss, and the ledger of before: the disk lost what it said
/// it had. Wherever the power went, that is noticed.
#[test]
fn a_disk_that_loses_an_acknowledged_batch_is_noticed() {
    let created = created();
    let whole = created.after_power_loss(0);
    run(&whole);
    let mut noticed = 0;
    for fail_at in 1..=whole.operations() {
        let disks = created.after_power_loss(0);
        disks.fail_at(fail_at);
        let acknowledged = run(&disks);
        let mark = disks.after_power_loss(fail_at).mark.bytes();
        let opened = Ledger::open_storage(Disks::holding(created.ledger.bytes(), mark));
        if acknowledged > 0 {
            assert!(
                matches!(opened, Err(LedgerError::RolledBack { .. })),
                "power lost at operation {fail_at}: {opened:?}"
            );
            noticed += 1;
        }
    }
    assert!(noticed > 10, "{noticed} cases are too few to mean much");
}

#[test]
fn one_sync_for_the_ledger_and_one_for_the_mark() {
    let disks = created();
    let mut ledger = Ledger::open_storage(disks.clone()).unwrap();
    let mut batches = batches(2).into_iter();
    ledger.commit(&batches.next().unwrap()).unwrap();
    let syncs = |batch: &[Op], ledger: &mut Ledger| {
        let before = disks.syncs();
        ledger.commit(batch).unwrap();
        let after = disks.syncs();
        (after.0 - before.0, after.1 - before.1)
    };
    for batch in batches {
        assert_eq!(syncs(&batch, &mut ledger), (1, 1));
    }
    let report = Op::Report {
        node: [9; 32],
        seen_ms: 7,
        wire: b"report".to_vec(),
    };
    assert_eq!(syncs(&[report], &mut ledger), (1, 0));
}

#[test]
fn opening_a_good_ledger_writes_no_transaction() {
    let disks = created();
    run(&disks);
    let (ledger, mark) = (disks.ledger.bytes(), disks.mark.bytes());
    let open = Ledger::open_storage(disks.clone()).unwrap();
    let changed: Vec<_> = ledger
        .iter()
        .zip(disks.ledger.bytes())
        .enumerate()
        .filter(|(_, (before, after))| *before != after)
        .map(|(at, _)| at)
        .collect();
    // The byte in the header that says that it is open.
    assert!(changed.iter().all(|at| *at == 9), "{changed:?}");
    assert_eq!(ledger.len(), disks.ledger.bytes().len());
    assert_eq!(mark, disks.mark.bytes());
    drop(open);
}

#[test]
fn after_a_full_disk_reading_and_then_writing_go_on() {
    let disks = created();
    assert_eq!(run(&disks), ENTRIES + 1);
    let mut ledger = Ledger::open_storage(disks.clone()).unwrap();
    let before = ledger.load().unwrap();
    let next = chain(ENTRIES + 1).pop().unwrap();
    // The header can be written over; there is no page for anything new.
    disks.ledger.fill(Some(4096));
    for _ in 0..2 {
        let error = ledger.commit(&batch(&next)).unwrap_err();
        assert!(matches!(error, LedgerError::Full(_)), "{error:?}");
        assert!(error.to_string().contains("free space"), "{error}");
        assert_eq!(ledger.load().unwrap(), before, "reading goes on");
    }
    disks.ledger.fill(None);
    ledger.commit(&batch(&next)).unwrap();
    assert_eq!(ledger.load().unwrap().entries.len() as u64, ENTRIES + 1);
    drop(ledger);
    let again = Ledger::open_storage(disks).unwrap();
    assert_eq!(again.load().unwrap().entries.len() as u64, ENTRIES + 1);
}

#[test]
fn a_disk_that_takes_nothing_for_a_while_is_used_again() {
    let disks = created();
    run(&disks);
    let mut ledger = Ledger::open_storage(disks.clone()).unwrap();
    let next = chain(ENTRIES + 1).pop().unwrap();
    disks.ledger.fill(Some(0));
    assert!(matches!(
        ledger.commit(&batch(&next)),
        Err(LedgerError::Full(_))
    ));
    // Not even the header could be written: closed, and said so.
    assert!(matches!(ledger.load(), Err(LedgerError::Closed)));
    assert!(ledger.commit(&batch(&next)).is_err());
    disks.ledger.fill(None);
    ledger.commit(&batch(&next)).unwrap();
    assert_eq!(ledger.load().unwrap().entries.len() as u64, ENTRIES + 1);
}

#[test]
fn nothing_is_built_on_a_sync_that_failed() {
    let disks = created();
    run(&disks);
    let mut ledger = Ledger::open_storage(disks.clone()).unwrap();
    let next = chain(ENTRIES + 1).pop().unwrap();
    let before = ledger.load().unwrap();
    disks.ledger.fail_syncs(true);
    let error = ledger.commit(&batch(&next)).unwrap_err();
    assert!(
        matches!(error, LedgerError::Failed { source: Some(_) }),
        "{error:?}"
    );
    disks.ledger.fail_syncs(false);
    let writes = disks.operations();
    let error = ledger.commit(&batch(&next)).unwrap_err();
    assert!(
        matches!(error, LedgerError::Failed { source: None }),
        "{error:?}"
    );
    assert!(error.to_string().contains("start the agent again"));
    assert_eq!(disks.operations(), writes, "nothing was tried");
    assert_eq!(ledger.load().unwrap(), before, "what is known can be read");
}

#[test]
fn a_batch_without_its_mark_is_not_acknowledged_and_can_be_tried_again() {
    let disks = created();
    run(&disks);
    let mut ledger = Ledger::open_storage(disks.clone()).unwrap();
    let next = chain(ENTRIES + 1).pop().unwrap();
    disks.mark.fail_syncs(true);
    assert!(matches!(
        ledger.commit(&batch(&next)),
        Err(LedgerError::Mark(_))
    ));
    disks.mark.fail_syncs(false);
    ledger.commit(&batch(&next)).unwrap();
    drop(ledger);
    let again = Ledger::open_storage(disks).unwrap();
    assert_eq!(again.load().unwrap().entries.len() as u64, ENTRIES + 1);
}
