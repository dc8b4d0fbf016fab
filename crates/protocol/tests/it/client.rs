//! Owners' command lines: they sign one entry after another, and keep what they signed until it
//! is accepted.

use realm_identity::{
    Artifact, Body, Entry, Hash, Kind, PublicKey, SecretKey, Signed, Target, Timestamp,
};
use realm_manifest::payload::{Merge, Payload};
use realm_protocol::Log;

use crate::fold::Chain;

#[derive(Debug, Clone)]
pub struct Signature {
    pub hash: Hash,
    pub seq: u64,
    pub wire: Vec<u8>,
    pub payload: Vec<u8>,
}

#[derive(Debug)]
pub struct Client {
    pub outbox: Option<Signature>,
    /// The highest revision it ever signed; it does not sign at or below it.
    pub mark: u64,
}

pub fn body(kind: Kind, target: Target, state: &[u8], payload: &[u8]) -> Body {
    Body {
        state: Hash::of(state),
        kind: kind.number(),
        target,
        not_after: None,
        issued_at: Timestamp::from_millis(1),
        payload: Artifact::of(payload),
    }
}

/// Signs an entry that goes on from the log's head.
pub fn next(
    log: &Log<Chain>,
    key: &SecretKey,
    kind: Kind,
    target: Target,
    payload: &[u8],
) -> Signature {
    let head = log.head();
    let body = body(kind, target, &head.state, payload);
    sign(
        Entry::new(log.realm(), key.public(), head.seq + 1, head.hash, body),
        key,
        payload,
    )
}

pub fn push(log: &Log<Chain>, key: &SecretKey, payload: &[u8]) -> Signature {
    next(
        log,
        key,
        Kind::Push,
        Target::Component("hello".to_owned()),
        payload,
    )
}

pub fn rotate(log: &Log<Chain>, key: &SecretKey, to: PublicKey) -> Signature {
    next(log, key, Kind::OwnerRotate, Target::Owner(to), b"rotate")
}

/// Signs a merge of everything this log knows, keeping its first tip and applying `reapply` again.
pub fn merge(log: &Log<Chain>, key: &SecretKey, reapply: Vec<Hash>) -> Signature {
    let tips = log.tips();
    let mut heads: Vec<_> = tips.iter().map(|tip| tip.hash).collect();
    heads.sort();
    let keep = tips[0].hash;
    let payload = Payload::Merge(Merge {
        heads,
        keep,
        reapply,
        note: None,
    })
    .encode();
    let state = log.state_at(keep).unwrap();
    let seq = tips.iter().map(|tip| tip.seq).max().unwrap() + 1;
    let body = body(Kind::Merge, Target::Realm, &state, &payload);
    sign(
        Entry::new(log.realm(), key.public(), seq, keep, body),
        key,
        &payload,
    )
}

pub fn sign(entry: Entry, key: &SecretKey, payload: &[u8]) -> Signature {
    let seq = entry.seq;
    let Ok(signed) = Signed::sign(entry, key);
    Signature {
        hash: signed.hash(),
        seq,
        wire: signed.to_wire(),
        payload: payload.to_vec(),
    }
}
