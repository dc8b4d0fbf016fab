//! The data directory under use, damage and crashes.
#![allow(clippy::unwrap_used)]

mod blobs;
mod dir;
mod disk;
mod faults;
mod flips;
mod full;
mod kill;
mod kill_blobs;
mod ledger;
mod rollback;
mod room;
#[path = "../../../testkit/src/skipped.rs"]
mod skipped;
#[path = "../../../testkit/src/strace.rs"]
mod strace;
#[allow(dead_code, reason = "tests of agents need more of it")]
#[path = "../../../testkit/src/synced.rs"]
mod synced;
mod upload;

use realm_manifest::identity::{
    Artifact, Body, Entry, Genesis, Hash, Kind, SecretKey, Signed, Target, Timestamp,
};
use realm_store::Op;

pub fn owner() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

pub fn genesis() -> Signed<Genesis> {
    let owner = owner();
    Signed::sign(Genesis::new(owner.public(), "home".into(), [0; 32]), &owner).unwrap()
}

pub fn payload(seq: u64) -> Vec<u8> {
    format!("payload of revision {seq}").into_bytes()
}

/// The first `count` entries of a chain; the ledger checks signatures, not meaning.
pub fn chain(count: u64) -> Vec<Signed<Entry>> {
    let mut prev = genesis().realm_id();
    let mut chain = Vec::new();
    for seq in 1..=count {
        let entry = entry(seq, prev, Kind::Push, b"state");
        prev = entry.hash();
        chain.push(entry);
    }
    chain
}

/// One signed entry; another `state` makes another entry.
pub fn entry(seq: u64, prev: Hash, kind: Kind, state: &[u8]) -> Signed<Entry> {
    let owner = owner();
    let body = Body {
        state: Hash::of(state),
        kind: kind.number(),
        target: Target::Component("web".into()),
        not_after: None,
        issued_at: Timestamp(seq),
        payload: Artifact::of(&payload(seq)),
    };
    let realm = genesis().realm_id();
    Signed::sign(Entry::new(realm, owner.public(), seq, prev, body), &owner).unwrap()
}

pub fn batch(entry: &Signed<Entry>) -> Vec<Op> {
    let bytes = payload(entry.seq);
    vec![
        Op::Payload {
            sha256: Hash::of(&bytes),
            bytes,
        },
        Op::Entry {
            hash: entry.hash(),
            wire: entry.to_wire(),
        },
    ]
}
