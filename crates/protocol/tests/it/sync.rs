//! How one log brings another forward: what is told, what is sent and what is left out.

use realm_identity::Hash;
use realm_protocol::{Checkpoint, Frame, Item, Log, Point, limits};

use crate::{
    client::{self, Draft, push},
    fold::Chain,
    log::{add, forked, grow, log, owner},
};

#[test]
fn a_log_catches_up_through_a_fork_and_its_merge() {
    // Whether it has the branch that is kept or the other one.
    for keeps_its_own in [true, false] {
        let (mut log, a, b) = forked(3);
        let mut behind = forked(3).0;
        for branch in [&a, &b] {
            add(&mut log, branch).unwrap();
        }
        add(&mut behind, &a).unwrap();
        let mut draft = Draft::of(&log);
        draft.prev = if keeps_its_own { a.hash } else { b.hash };
        draft.merge.keep = draft.prev;
        let merge = draft.sign(&log, &owner());
        add(&mut log, &merge).unwrap();
        grow(&mut log, 2);
        sync(&log, &mut behind);
        assert_eq!(behind.head(), log.head());
    }
}

/// Gives `to` what it lacks, as nodes do.
fn sync(from: &Log<Chain>, to: &mut Log<Chain>) {
    while let Frame::Locator { tips, samples, .. } = to.locator() {
        match from.answer(&tips, &samples, u64::MAX) {
            Some(Frame::Entries { items, .. }) => {
                for item in items {
                    to.insert(&item.entry, item.payload).unwrap();
                }
            }
            Some(Frame::Checkpoint(checkpoint)) => {
                *to = Log::from_checkpoint(&checkpoint, &[owner().public()], Chain).unwrap();
            }
            _ => return,
        }
    }
}

#[test]
fn long_logs_are_synced_in_steps() {
    let (mut log, mut empty) = (log(), log());
    for _ in 0..30 {
        let signature = push(&log, &owner(), &vec![log.head().seq as u8; 40_000]);
        add(&mut log, &signature).unwrap();
    }
    let Frame::Locator { tips, samples, .. } = empty.locator() else {
        panic!()
    };
    let frame = log.answer(&tips, &samples, u64::MAX).unwrap();
    assert!(matches!(&frame, Frame::Entries { more: true, .. }));
    Frame::decode(&frame.encode()).unwrap();
    sync(&log, &mut empty);
    assert_eq!(log.head(), empty.head());
}

#[test]
fn a_newcomer_starts_at_a_checkpoint() {
    let (mut log, mut empty) = (log(), log());
    grow(&mut log, 20);
    let checkpoint = log.checkpoint().unwrap();
    let mut late = Log::from_checkpoint(&checkpoint, &[owner().public()], Chain).unwrap();
    assert_eq!((late.head(), late.len()), (log.head(), 1));
    grow(&mut log, 3);
    sync(&log, &mut late);
    assert_eq!(late.head(), log.head());
    sync(&late, &mut empty);
    assert_eq!(empty.head(), log.head());
}

/// What `from` answers a log that stands like `to`.
fn answer(from: &Log<Chain>, to: &Log<Chain>) -> Option<Frame> {
    let Frame::Locator { tips, samples, .. } = to.locator() else {
        unreachable!("it is one");
    };
    from.answer(&tips, &samples, u64::MAX)
}

/// The entries of an answer, and whether there are more.
fn entries(answer: Option<Frame>) -> (Vec<Item>, bool) {
    match answer {
        Some(Frame::Entries { items, more, .. }) => (items, more),
        other => panic!("{other:?}"),
    }
}

/// A log that begins at the head of `log`.
fn begun_at_head(log: &Log<Chain>) -> Log<Chain> {
    let checkpoint: Checkpoint = log.checkpoint().unwrap();
    Log::from_checkpoint(&checkpoint, &[owner().public()], Chain).unwrap()
}

#[test]
fn a_locator_steps_back_from_the_head_twice_as_far_each_time() {
    let steps = |log: &Log<Chain>| -> Vec<u64> {
        let Frame::Locator { samples, .. } = log.locator() else {
            unreachable!("it is one");
        };
        assert!(samples.iter().all(|at| log.contains(at.hash)));
        samples.iter().map(|at| at.seq).collect()
    };
    let mut log = log();
    assert_eq!(steps(&log), [0]);
    grow(&mut log, 40);
    assert_eq!(steps(&log), [40, 39, 37, 33, 25, 9, 0]);
    let mut late = begun_at_head(&log);
    assert_eq!(steps(&late), [40, 39]);
    grow(&mut late, 7);
    assert_eq!(steps(&late), [47, 46, 44, 40, 39]);
}

#[test]
fn an_answer_holds_so_many_entries_and_the_next_one_the_rest() {
    let mut from = log();
    grow(&mut from, limits::MAX_ENTRIES);
    let to = log();
    let (items, more) = entries(answer(&from, &to));
    assert_eq!((items.len(), more), (limits::MAX_ENTRIES, false));
    grow(&mut from, 1);
    let (items, more) = entries(answer(&from, &to));
    assert_eq!((items.len(), more), (limits::MAX_ENTRIES, true));
}

#[test]
fn an_answer_holds_so_many_bytes_and_the_next_one_the_rest() {
    let size = |item: &Item| item.entry.len() + item.payload.as_ref().map_or(0, Vec::len);
    // Six entries that fill it to the last byte, or are one too many.
    let filled = |past: usize| {
        let mut from = log();
        let mut room = limits::MAX_ENTRIES_BYTES + past;
        for left in (1..=6).rev() {
            // The length of an entry depends on that of its payload: by measure.
            let mut payload = vec![7; room / left];
            while {
                let signature = push(&from, &owner(), &payload);
                signature.wire.len() + payload.len() > room / left
            } {
                payload.pop();
            }
            let signature = push(&from, &owner(), &payload);
            room -= signature.wire.len() + payload.len();
            add(&mut from, &signature).unwrap();
        }
        assert_eq!(room, 0);
        entries(answer(&from, &log()))
    };
    let (items, more) = filled(0);
    assert_eq!((items.len(), more), (6, false));
    assert_eq!(
        items.iter().map(size).sum::<usize>(),
        limits::MAX_ENTRIES_BYTES
    );
    let (items, more) = filled(1);
    assert_eq!((items.len(), more), (5, true));
}

#[test]
fn of_a_fork_that_branch_is_sent_that_the_other_lacks() {
    let (mut one, a, b) = forked(2);
    let (mut two, ..) = forked(2);
    add(&mut one, &a).unwrap();
    grow(&mut one, 3);
    add(&mut one, &b).unwrap();
    // It knows one branch, and is sent the other; it has what it knows of, and is sent no more.
    add(&mut two, &a).unwrap();
    assert!(one.agreed(1).all(|(entry, _)| two.contains(entry.hash())));
    let branch = one.proofs(4).into_iter().chain(one.proofs(5));
    for item in branch.chain(one.proofs(6)) {
        two.insert(&item.entry, item.payload).unwrap();
    }
    let (items, more) = entries(answer(&one, &two));
    assert_eq!(
        (items[0].entry.clone(), items.len(), more),
        (b.wire, 1, false)
    );
    sync(&one, &mut two);
    assert_eq!(answer(&one, &two), None);
    assert_eq!(answer(&two, &one), None);
}

#[test]
fn who_began_behind_a_fork_is_sent_nothing_of_it() {
    let (mut log, a, b) = forked(2);
    for branch in [a, b] {
        add(&mut log, &branch).unwrap();
    }
    let merge = client::merge(&log, &owner(), vec![]);
    add(&mut log, &merge).unwrap();
    grow(&mut log, 1);
    let first = begun_at_head(&log);
    assert_eq!(answer(&log, &first), None);
    grow(&mut log, 1);
    let second = begun_at_head(&log);
    assert_eq!(answer(&log, &second), None);
    // Each is sent what follows; where it knows no more than the merge, what follows that.
    let sent = |known: &[Point]| entries(log.answer(known, known, u64::MAX)).0;
    assert_eq!(sent(&first.tips()), [log.item(log.head().hash).unwrap()]);
    assert_eq!(first.start().hash, merge.hash);
    assert_eq!(sent(&[first.start()]).len(), 2);
}

#[test]
fn who_may_see_the_log_up_to_a_revision_gets_neither_more_nor_a_checkpoint() {
    let mut log = log();
    grow(&mut log, 6);
    let all = [log.start()];
    for until in 1..=6 {
        let (items, _) = entries(log.answer(&all, &all, until));
        assert_eq!(items.len() as u64, until);
    }
    assert_eq!(log.answer(&all, &all, 0), None);
    // A checkpoint is the whole state.
    let mut late = begun_at_head(&log);
    grow(&mut late, 2);
    let to_all = late.answer(&[], &[], u64::MAX);
    let Some(Frame::Checkpoint(checkpoint)) = to_all else {
        panic!("{to_all:?}");
    };
    let first = late.item(log.head().hash).unwrap();
    assert_eq!(checkpoint.entry, first.entry);
    for until in [0, 6, 8, u64::MAX - 1] {
        assert_eq!(late.answer(&[], &[], until), None);
    }
}

#[test]
fn a_log_lacks_what_it_does_not_know_and_what_is_not_from_before_it() {
    let mut log = log();
    grow(&mut log, 3);
    let mut late = begun_at_head(&log);
    grow(&mut late, 1);
    let unknown = |seq| Point {
        seq,
        hash: Hash::of(b"unknown here"),
    };
    assert!(!late.lacks(&[]));
    assert!(!late.lacks(&late.tips()));
    assert!(!late.lacks(&[late.start(), unknown(1), unknown(2)]), "old");
    assert!(late.lacks(&[unknown(3)]));
    assert!(late.lacks(&[late.tips()[0], unknown(9)]));
    assert!(!late.lacks(&log.tips()));
    assert!(log.lacks(&late.tips()));
}
