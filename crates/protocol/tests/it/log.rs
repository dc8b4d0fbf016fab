//! The log by itself: one refusal for each rule, forks, merges, checkpoints, later versions.

use realm_identity::{
    Artifact, Entry, Genesis, Hash, Kind, Message as _, SecretKey, Signed, Target, Timestamp,
};
use realm_protocol::{Checkpoint, Frame, Halt, Inserted, Log, Refusal, limits};

use crate::{
    client::{self, Signature, body, push, sign},
    fold::{Chain, REFUSED},
    sized::Sized,
    world::key,
};

pub fn owner() -> SecretKey {
    key(0, 100)
}

pub fn log() -> Log<Chain> {
    let Ok(genesis) = Signed::sign(
        Genesis::new(owner().public(), "home".to_owned(), [1; 32]),
        &owner(),
    );
    Log::new(genesis, Chain)
}

pub fn add(log: &mut Log<Chain>, signature: &Signature) -> Result<Inserted, Refusal> {
    log.insert(&signature.wire, Some(signature.payload.clone()))
}

pub fn grow(log: &mut Log<Chain>, count: usize) {
    for index in 0..count {
        let signature = push(
            log,
            &owner(),
            format!("{} {index}", log.head().seq).as_bytes(),
        );
        add(log, &signature).unwrap();
    }
}

fn component() -> Target {
    Target::Component("hello".to_owned())
}

/// Two logs that share `shared` entries and then have one each of their own.
pub fn forked(shared: usize) -> (Log<Chain>, Signature, Signature) {
    let mut log = log();
    grow(&mut log, shared);
    let (a, b) = (push(&log, &owner(), b"a"), push(&log, &owner(), b"b"));
    (log, a, b)
}

fn refusal(entry: impl FnOnce(&Log<Chain>) -> Signature) -> &'static str {
    let mut log = log();
    grow(&mut log, 2);
    let signature = entry(&log);
    let head = log.head().clone();
    let refusal = add(&mut log, &signature).unwrap_err();
    assert_eq!(*log.head(), head, "a refused entry changes nothing");
    refusal.name()
}

#[test]
fn each_rule_has_its_refusal() {
    let stranger = key(0, 7);
    let entry = |log: &Log<Chain>, seq, prev, state: &[u8]| {
        let body = body(Kind::Push, component(), state, b"x");
        sign(
            Entry::new(log.realm(), owner().public(), seq, prev, body),
            &owner(),
            b"x",
        )
    };
    assert_eq!(refusal(|log| push(log, &stranger, b"x")), "bad_author");
    assert_eq!(
        refusal(|log| entry(log, 4, log.head().hash, &log.head().state)),
        "bad_sequence"
    );
    assert_eq!(
        refusal(|log| entry(log, 3, Hash::of(b"?"), &log.head().state)),
        "unknown_parent"
    );
    assert_eq!(
        refusal(|log| entry(log, 3, log.head().hash, b"?")),
        "state_mismatch"
    );
    assert_eq!(refusal(|log| entry(log, 0, log.head().hash, b"?")), "stale");
    assert_eq!(refusal(|log| push(log, &owner(), REFUSED)), "fold");
    assert_eq!(
        refusal(|log| Signature {
            payload: b"y".to_vec(),
            ..push(log, &owner(), b"x")
        }),
        "payload_mismatch"
    );
    for wrong in [
        Artifact {
            size: 2,
            ..Artifact::of(b"x")
        },
        Artifact {
            blake3: Hash::of(b"x"),
            ..Artifact::of(b"x")
        },
    ] {
        let mismatch = refusal(|log| {
            let mut body = body(Kind::Push, component(), &log.head().state, b"x");
            body.payload = wrong;
            let entry = Entry::new(log.realm(), owner().public(), 3, log.head().hash, body);
            sign(entry, &owner(), b"x")
        });
        assert_eq!(mismatch, "payload_mismatch");
    }
    assert_eq!(
        refusal(|log| client::next(log, &owner(), Kind::Push, Target::Realm, b"x")),
        "authority"
    );
    assert_eq!(
        refusal(|log| {
            let body = body(Kind::Push, component(), &log.head().state, b"x");
            let realm = Hash::of(b"elsewhere");
            sign(
                Entry::new(realm, owner().public(), 3, log.head().hash, body),
                &owner(),
                b"x",
            )
        }),
        "foreign_realm"
    );
    assert_eq!(
        refusal(|log| {
            let mut signature = push(log, &owner(), b"x");
            signature.wire.push(0);
            signature
        }),
        "invalid"
    );
}

#[test]
fn a_missing_payload_is_asked_for_again() {
    let mut log = log();
    let signature = push(&log, &owner(), b"x");
    assert_eq!(
        log.insert(&signature.wire, None),
        Err(Refusal::PayloadMissing)
    );
    add(&mut log, &signature).unwrap();
    assert_eq!(log.head().seq, 1);
}

#[test]
fn submits_go_on_from_the_head_only() {
    let mut log = log();
    grow(&mut log, 1);
    let (first, second) = (push(&log, &owner(), b"1"), push(&log, &owner(), b"2"));
    log.check_submit(&first.wire).unwrap();
    add(&mut log, &first).unwrap();
    log.check_submit(&first.wire).unwrap();
    let moved = Refusal::HeadMoved {
        seq: 2,
        head: first.hash,
    };
    assert_eq!(log.check_submit(&second.wire), Err(moved));
}

#[test]
fn what_is_submitted_is_of_this_realm_and_understood() {
    let mut log = log();
    grow(&mut log, 1);
    let entry = |log: &Log<Chain>, realm, kind| {
        let mut body = body(Kind::Push, component(), &log.head().state, b"x");
        body.kind = kind;
        let (seq, prev) = (log.head().seq + 1, log.head().hash);
        let entry = Entry::new(realm, owner().public(), seq, prev, body);
        sign(entry, &owner(), b"x")
    };
    let push = Kind::Push.number();
    let foreign = entry(&log, Hash::of(b"elsewhere"), push);
    let refused = log.check_submit(&foreign.wire).unwrap_err();
    assert_eq!(refused.name(), "foreign_realm");
    let unknown = entry(&log, log.realm(), 999);
    let later = Err(Refusal::Incompatible { seq: 2 });
    assert_eq!(log.check_submit(&unknown.wire), later);
    // A peer may bring it: then nothing goes on from here.
    let good = entry(&log, log.realm(), push);
    log.check_submit(&good.wire).unwrap();
    add(&mut log, &unknown).unwrap();
    assert_eq!(log.check_submit(&good.wire), later);
}

#[test]
fn so_many_entries_for_one_revision_are_kept_and_no_more() {
    let mut log = log();
    let entries: Vec<_> = (0..=limits::MAX_SIBLINGS)
        .map(|index| push(&log, &owner(), format!("{index}").as_bytes()))
        .collect();
    let (last, kept) = entries.split_last().unwrap();
    for entry in kept {
        add(&mut log, entry).unwrap();
    }
    let refused = Err(Refusal::TooManySiblings { seq: 1 });
    assert_eq!(add(&mut log, last), refused);
    assert_eq!(log.proofs(1).len(), limits::MAX_SIBLINGS);
}

#[test]
fn a_state_has_so_many_bytes_and_no_more() {
    const MAX: usize = limits::MAX_STATE_BYTES;
    let mut log = Log::new(log().genesis().clone(), Sized::default());
    let mut add = |size: usize| {
        let signature = push(&log, &owner(), size.to_string().as_bytes());
        log.insert(&signature.wire, Some(signature.payload))?;
        Ok((log.head().state.len(), log.checkpoint()))
    };
    let too_large = Refusal::StateTooLarge { max: MAX };
    assert_eq!(add(MAX + 1), Err(too_large.clone()));
    assert_eq!(add(MAX).unwrap().0, MAX);
    let good = add(1).unwrap().1.unwrap();
    // A log that starts at a checkpoint takes no larger one either.
    let begin = |checkpoint: &Checkpoint| {
        Log::from_checkpoint(checkpoint, &[owner().public()], Sized::default())
    };
    assert_eq!(begin(&good).unwrap().head().seq, 2);
    let state = vec![0; MAX + 1];
    let body = body(Kind::Push, component(), &state, b"1");
    let entry = Entry::new(log.realm(), owner().public(), 2, log.start().hash, body);
    let larger = Checkpoint {
        entry: sign(entry, &owner(), b"1").wire,
        state,
        ..good
    };
    assert_eq!(begin(&larger).unwrap_err(), too_large);
}

#[test]
fn every_entry_is_folded_once_and_a_checkpoint_folds_none() {
    let fold = Sized::default();
    let mut log = Log::new(log().genesis().clone(), fold.clone());
    assert!(log.is_empty());
    for size in 1..=30 {
        let signature = push(&log, &owner(), size.to_string().as_bytes());
        log.insert(&signature.wire, Some(signature.payload))
            .unwrap();
        assert_eq!(log.checkpoint().unwrap().state.len(), size - 1);
    }
    assert_eq!(fold.folded.get(), 30);
    assert!(!log.is_empty());
}

#[test]
fn desired_state_does_not_expire() {
    let mut log = log();
    let mut body = body(Kind::Push, component(), &log.head().state, b"x");
    body.not_after = Some(Timestamp::from_millis(1));
    let entry = Entry::new(log.realm(), owner().public(), 1, log.head().hash, body);
    let signature = sign(entry, &owner(), b"x");
    log.check_submit(&signature.wire).unwrap();
    add(&mut log, &signature).unwrap();
    assert_eq!(log.head().seq, 1);
}

#[test]
fn a_new_owner_signs_from_the_next_revision() {
    let (mut log, next) = (log(), key(0, 101));
    let rotate = client::rotate(&log, &owner(), next.public());
    add(&mut log, &rotate).unwrap();
    let old = push(&log, &owner(), b"x");
    assert_eq!(add(&mut log, &old).unwrap_err().name(), "bad_author");
    let new = push(&log, &next, b"x");
    add(&mut log, &new).unwrap();
    assert_eq!((log.head().seq, log.owner()), (2, next.public()));
}

#[test]
fn a_fork_freezes_before_it_whatever_came_first() {
    let (mut one, a, b) = forked(3);
    let (mut two, ..) = forked(3);
    add(&mut one, &a).unwrap();
    grow(&mut one, 2);
    assert_eq!(one.head().seq, 6);
    add(&mut one, &b).unwrap();
    add(&mut two, &b).unwrap();
    add(&mut two, &a).unwrap();
    assert_eq!(
        (one.head(), one.halt()),
        (two.head(), Some(&Halt::Forked { seq: 4 }))
    );
    assert_eq!(one.head().seq, 3);
    assert_eq!(one.proofs(4).len(), 2);
    assert_eq!(
        one.check_submit(&push(&one, &owner(), b"c").wire),
        Err(Refusal::Forked)
    );
}

#[test]
fn only_a_merge_of_every_head_ends_a_fork() {
    let (mut log, a, b) = forked(1);
    add(&mut log, &a).unwrap();
    add(&mut log, &b).unwrap();
    let merge = client::merge(&log, &owner(), vec![]);
    add(&mut log, &merge).unwrap();
    assert_eq!((log.head().seq, log.halt()), (3, None));
    grow(&mut log, 1);
    assert_eq!(log.head().seq, 4);
    // A branch that the merge did not know of opens the fork again, and a merge of all ends it.
    let (other, ..) = forked(1);
    let late = push(&other, &owner(), b"late");
    add(&mut log, &late).unwrap();
    assert_eq!(
        (log.head().seq, log.halt()),
        (1, Some(&Halt::Forked { seq: 2 }))
    );
    let merge = client::merge(&log, &owner(), vec![]);
    add(&mut log, &merge).unwrap();
    assert_eq!((log.head().seq, log.halt()), (5, None));
}

#[test]
fn a_checkpoint_must_hold_together() {
    let mut log = log();
    grow(&mut log, 3);
    let good = log.checkpoint().unwrap();
    let state = realm_protocol::Checkpoint {
        state: b"?".to_vec(),
        ..good.clone()
    };
    let owners = [owner().public()];
    assert_eq!(
        Log::from_checkpoint(&state, &owners, Chain)
            .unwrap_err()
            .name(),
        "state_mismatch"
    );
    let strangers = [key(0, 7).public()];
    assert_eq!(
        Log::from_checkpoint(&good, &strangers, Chain)
            .unwrap_err()
            .name(),
        "bad_author"
    );
}

#[test]
fn an_unknown_kind_or_version_is_kept_and_not_guessed() {
    let mut log = log();
    grow(&mut log, 1);
    let mut unknown = body(Kind::Push, component(), &log.head().state, b"x");
    unknown.kind = 999;
    let entry = Entry::new(log.realm(), owner().public(), 2, log.head().hash, unknown);
    let kind = sign(entry, &owner(), b"x");
    add(&mut log, &kind).unwrap();
    assert!(matches!(
        log.halt(),
        Some(Halt::Incompatible { seq: 2, .. })
    ));
    assert_eq!(log.head().seq, 1);
    // What follows is kept as well, and all of it is forwarded.
    let after = body(Kind::Push, component(), b"unknown here", b"y");
    let entry = Entry::new(log.realm(), owner().public(), 3, kind.hash, after);
    add(&mut log, &sign(entry, &owner(), b"y")).unwrap();
    assert_eq!((log.len(), log.head().seq, log.tips()[0].seq), (3, 1, 3));
    let Frame::Locator { tips, samples, .. } = self::log().locator() else {
        panic!()
    };
    let Some(Frame::Entries { items, .. }) = log.answer(&tips, &samples, u64::MAX) else {
        panic!()
    };
    assert_eq!(items.len(), 3);
}

#[test]
fn entries_of_a_later_version_still_verify() {
    let mut log = log();
    let plain = Entry::new(
        log.realm(),
        owner().public(),
        1,
        log.head().hash,
        body(Kind::Push, component(), &log.head().state, b"x"),
    );
    // The version stands first: array header, then one byte.
    let mut bytes = plain.to_bytes();
    assert_eq!(bytes[1], 1);
    bytes[1] = 2;
    let later = Entry::from_bytes(&bytes).unwrap();
    add(&mut log, &sign(later, &owner(), b"x")).unwrap();
    assert!(matches!(
        log.halt(),
        Some(Halt::Incompatible { seq: 1, .. })
    ));
}

#[test]
fn the_last_revision_has_none_after_it() {
    let log = log();
    let entry = |prev, state: &[u8]| {
        let body = body(Kind::Push, component(), state, b"x");
        let entry = Entry::new(log.realm(), owner().public(), u64::MAX, prev, body);
        sign(entry, &owner(), b"x")
    };
    let last = entry(Hash::of(b"before"), &log.head().state);
    let checkpoint = Checkpoint {
        genesis: log.genesis().to_wire(),
        entry: last.wire,
        state: log.head().state.clone(),
        payload: last.payload,
    };
    let mut at_the_end = Log::from_checkpoint(&checkpoint, &[owner().public()], Chain).unwrap();
    let head = at_the_end.head().clone();
    let refused = add(&mut at_the_end, &entry(head.hash, &head.state));
    assert_eq!(refused.unwrap_err().name(), "bad_sequence");
    assert_eq!(*at_the_end.head(), head);
}
