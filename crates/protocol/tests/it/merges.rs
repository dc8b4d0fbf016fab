//! What ends a fork: which merges are taken, and what is agreed on behind one.

use realm_identity::{Hash, Kind, Target};
use realm_protocol::{Halt, Log, Refusal};

use crate::{
    client::{self, Draft, Signature, push, rotate},
    fold::Chain,
    log::{add, grow, log, owner},
    world::key,
};

/// Two revisions, and three entries for the third.
fn forked_in_three() -> (Log<Chain>, Vec<Signature>) {
    let mut log = log();
    grow(&mut log, 2);
    let branches: Vec<_> = [b"a", b"b", b"c"]
        .into_iter()
        .map(|payload| push(&log, &owner(), payload))
        .collect();
    for branch in &branches {
        add(&mut log, branch).unwrap();
    }
    assert_eq!(log.halt(), Some(&Halt::Forked { seq: 3 }));
    (log, branches)
}

fn hashes(log: &Log<Chain>, from: u64) -> Vec<Hash> {
    log.agreed(from).map(|(entry, _)| entry.hash()).collect()
}

#[test]
fn a_merge_of_three_branches_ends_their_fork() {
    let (mut log, branches) = forked_in_three();
    let mut draft = Draft::of(&log);
    draft.merge.reapply = vec![branches[2].hash, branches[0].hash];
    draft.merge.reapply.retain(|hash| *hash != draft.prev);
    let merge = draft.sign(&log, &owner());
    add(&mut log, &merge).unwrap();
    assert_eq!((log.head().hash, log.halt()), (merge.hash, None));
    let heads: Vec<_> = log.heads().iter().map(|head| head.hash).collect();
    assert_eq!(heads, [merge.hash], "what lost is no head any more");
    // Who signs the next entry is shown all that the merge names.
    let named: Vec<_> = log.named_by_head().map(|(entry, _)| entry.hash()).collect();
    assert_eq!(named, [draft.merge.heads, draft.merge.reapply].concat());
    grow(&mut log, 1);
    assert_eq!(log.named_by_head().count(), 0, "it is no merge");
}

#[test]
fn the_heads_of_a_fork_are_the_newest_of_each_branch() {
    let mut log = log();
    grow(&mut log, 2);
    assert_eq!(log.heads().len(), 1);
    let (a, b) = (push(&log, &owner(), b"a"), push(&log, &owner(), b"b"));
    add(&mut log, &a).unwrap();
    grow(&mut log, 1);
    let mut expected = vec![log.head().hash, b.hash];
    add(&mut log, &b).unwrap();
    let heads: Vec<_> = log
        .heads()
        .iter()
        .map(|head| (head.seq, head.hash))
        .collect();
    assert!(heads.is_sorted());
    assert_eq!(heads.iter().map(|head| head.0).collect::<Vec<_>>(), [3, 4]);
    expected.reverse();
    assert_eq!(
        heads.into_iter().map(|head| head.1).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn what_is_agreed_goes_through_the_branch_that_a_merge_keeps() {
    for keep_longer in [true, false] {
        let mut log = log();
        grow(&mut log, 2);
        let short = push(&log, &owner(), b"short");
        grow(&mut log, 2);
        let shared = hashes(&log, 1)[..2].to_vec();
        let long = hashes(&log, 3);
        add(&mut log, &short).unwrap();
        let mut draft = Draft::of(&log);
        let kept = match keep_longer {
            true => long,
            false => vec![short.hash],
        };
        draft.prev = *kept.last().unwrap();
        draft.merge.keep = draft.prev;
        let merge = draft.sign(&log, &owner());
        assert_eq!(merge.seq, 5, "behind every branch");
        add(&mut log, &merge).unwrap();
        assert_eq!(hashes(&log, 1), [shared, kept, vec![merge.hash]].concat());
    }
}

/// What becomes of a merge of three branches that is changed before it is signed.
fn refused(change: impl FnOnce(&mut Draft, &[Signature])) -> Refusal {
    let (mut log, branches) = forked_in_three();
    let mut draft = Draft::of(&log);
    change(&mut draft, &branches);
    let merge = draft.sign(&log, &owner());
    let refusal = add(&mut log, &merge).unwrap_err();
    assert_eq!(log.halt(), Some(&Halt::Forked { seq: 3 }));
    refusal
}

#[test]
fn a_merge_names_its_heads_sorted_and_each_once() {
    let bad = Refusal::BadMerge("its heads are not two or more, sorted, each once");
    assert_eq!(refused(|draft, _| draft.merge.heads.reverse()), bad);
    let twice = refused(|draft, _| draft.merge.heads.insert(0, draft.merge.heads[0]));
    assert_eq!(twice, bad);
    assert_eq!(
        refused(|draft, _| draft.merge.heads = vec![draft.prev]),
        bad
    );
    assert_eq!(refused(|draft, _| draft.merge.heads.clear()), bad);
}

#[test]
fn a_merge_goes_on_from_the_head_that_it_keeps() {
    let bad = Refusal::BadMerge("its parent is not the head it keeps");
    let other = |draft: &Draft| {
        let mut heads = draft.merge.heads.iter();
        *heads.find(|head| **head != draft.prev).unwrap()
    };
    assert_eq!(refused(|draft, _| draft.prev = other(draft)), bad);
    assert_eq!(refused(|draft, _| draft.merge.keep = other(draft)), bad);
    let no_head = refused(|draft, _| draft.merge.heads.retain(|head| *head != draft.prev));
    assert_eq!(no_head, bad);
}

#[test]
fn a_merge_names_what_is_known_and_follows_the_newest_of_it() {
    let prev = Hash::from_bytes([0xff; 32]);
    let unknown = Refusal::UnknownParent { prev };
    assert_eq!(refused(|draft, _| draft.merge.heads.push(prev)), unknown);
    assert_eq!(refused(|draft, _| draft.merge.reapply.push(prev)), unknown);
    let late = Refusal::BadSequence {
        found: 5,
        expected: 4,
    };
    assert_eq!(refused(|draft, _| draft.seq = 5), late);
    let early = Refusal::BadSequence {
        found: 3,
        expected: 4,
    };
    assert_eq!(refused(|draft, _| draft.seq = 3), early);
}

#[test]
fn a_merge_applies_neither_an_owner_change_nor_a_merge_again() {
    let bad = Refusal::BadMerge("it applies an owner change or a merge again");
    let mut log = log();
    grow(&mut log, 1);
    let turned = rotate(&log, &owner(), key(0, 101).public());
    let (a, b) = (push(&log, &owner(), b"a"), push(&log, &owner(), b"b"));
    add(&mut log, &a).unwrap();
    add(&mut log, &b).unwrap();
    let merge = client::merge(&log, &owner(), vec![]);
    add(&mut log, &merge).unwrap();
    add(&mut log, &turned).unwrap();
    let mut good = Draft::of(&log);
    (good.prev, good.merge.keep) = (merge.hash, merge.hash);
    for again in [turned.hash, merge.hash] {
        let mut draft = good.clone();
        draft.merge.reapply = vec![again];
        let merge = draft.sign(&log, &owner());
        assert_eq!(add(&mut log, &merge), Err(bad.clone()));
    }
    let merge = good.sign(&log, &owner());
    add(&mut log, &merge).unwrap();
}

#[test]
fn a_merge_that_nobody_can_read_is_refused() {
    let (mut log, branches) = forked_in_three();
    let state = log.state_at(branches[0].hash).unwrap();
    let body = client::body(Kind::Merge, Target::Realm, &state, b"?");
    let (prev, by) = (branches[0].hash, owner());
    let entry = realm_identity::Entry::new(log.realm(), by.public(), 4, prev, body);
    let merge = client::sign(entry, &by, b"?");
    let bad = Refusal::BadMerge("its payload cannot be read");
    assert_eq!(add(&mut log, &merge), Err(bad));
}

#[test]
fn a_merge_where_nothing_forked_moves_no_head() {
    let mut log = log();
    grow(&mut log, 2);
    let mut draft = Draft::of(&log);
    let before = hashes(&log, 1);
    draft.merge.heads = before.clone();
    draft.merge.heads.sort();
    let merge = draft.sign(&log, &owner());
    let no_fork = Refusal::BadMerge("there is no fork");
    assert_eq!(log.check_submit(&merge.wire), Err(no_fork));
    // Nor when it comes from a peer.
    add(&mut log, &merge).unwrap();
    assert_eq!(hashes(&log, 1), before);
    assert_eq!(log.halt(), Some(&Halt::Forked { seq: 3 }));
}
