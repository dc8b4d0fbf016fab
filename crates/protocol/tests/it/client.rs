//! Owners' command lines: they sign one entry after another, and keep what they signed until it
//! is accepted.

use realm_identity::{
    Artifact, Body, Entry, Hash, Kind, PublicKey, SecretKey, Signed, Target, Timestamp,
};
use realm_manifest::payload::{Merge, Payload};
use realm_protocol::{Fold, Log};

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
pub fn next<F: Fold>(
    log: &Log<F>,
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

pub fn push<F: Fold>(log: &Log<F>, key: &SecretKey, payload: &[u8]) -> Signature {
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
    let mut draft = Draft::of(log);
    draft.merge.reapply = reapply;
    draft.sign(log, key)
}

/// A merge that is not signed yet.
#[derive(Debug, Clone)]
pub struct Draft {
    pub merge: Merge,
    pub prev: Hash,
    pub seq: u64,
}

impl Draft {
    /// Of everything this log knows, keeping its first tip.
    pub fn of(log: &Log<Chain>) -> Self {
        let tips = log.tips();
        let mut heads: Vec<_> = tips.iter().map(|tip| tip.hash).collect();
        heads.sort();
        let keep = tips[0].hash;
        let merge = Merge {
            heads,
            keep,
            reapply: Vec::new(),
            note: None,
        };
        Self {
            merge,
            prev: keep,
            seq: tips.iter().map(|tip| tip.seq).max().unwrap() + 1,
        }
    }

    pub fn sign(&self, log: &Log<Chain>, key: &SecretKey) -> Signature {
        let payload = Payload::Merge(self.merge.clone()).encode();
        let state = log.state_at(self.prev).unwrap();
        let body = body(Kind::Merge, Target::Realm, &state, &payload);
        let entry = Entry::new(log.realm(), key.public(), self.seq, self.prev, body);
        sign(entry, key, &payload)
    }
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
