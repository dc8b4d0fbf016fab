//! Why something was not accepted: a name for each reason, so that each can be counted.

use realm_identity::{Hash, PublicKey, authority};

/// Why an entry was not taken into the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this node belongs to no realm yet")]
    NoRealm,
    #[error("not a valid signed entry: {0}")]
    Invalid(String),
    #[error("the entry is for realm {found}, this is realm {expected}")]
    ForeignRealm { found: Hash, expected: Hash },
    #[error("the entry is signed by {found}, the owner at that revision is {owner}")]
    BadAuthor { found: PublicKey, owner: PublicKey },
    #[error("not allowed")]
    Authority(#[from] authority::Refusal),
    #[error("revision {found} does not follow {expected} by one")]
    BadSequence { found: u64, expected: u64 },
    #[error("the entry's parent {prev} is not known here")]
    UnknownParent { prev: Hash },
    #[error("the entry is about state {found}, here it is {expected}")]
    StateMismatch { found: Hash, expected: Hash },
    #[error("the payload is missing")]
    PayloadMissing,
    #[error("the payload is not the one that was signed")]
    PayloadMismatch,
    #[error("revision {seq} is older than where this log starts")]
    Stale { seq: u64 },
    #[error("the merge does not name the heads of the fork: {0}")]
    BadMerge(&'static str),
    #[error("the log's head is revision {seq} ({head}); read it again and sign anew")]
    HeadMoved { seq: u64, head: Hash },
    #[error("the log has forked; only a merge goes on from here: realm history merge")]
    Forked,
    #[error("this node does not understand revision {seq}; use a newer one")]
    Incompatible { seq: u64 },
    #[error("refused: {0}")]
    Fold(String),
    #[error("too many entries for revision {seq}")]
    TooManySiblings { seq: u64 },
    #[error("the state would be larger than {max} bytes")]
    StateTooLarge { max: usize },
    #[error("the entry could not be written to disk")]
    Storage,
    #[error("too many submits are waiting")]
    Busy,
}

impl Refusal {
    /// A stable name for counters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoRealm => "no_realm",
            Self::Invalid(_) => "invalid",
            Self::ForeignRealm { .. } => "foreign_realm",
            Self::BadAuthor { .. } => "bad_author",
            Self::Authority(_) => "authority",
            Self::BadSequence { .. } => "bad_sequence",
            Self::UnknownParent { .. } => "unknown_parent",
            Self::StateMismatch { .. } => "state_mismatch",
            Self::PayloadMissing => "payload_missing",
            Self::PayloadMismatch => "payload_mismatch",
            Self::Stale { .. } => "stale",
            Self::BadMerge(_) => "bad_merge",
            Self::HeadMoved { .. } => "head_moved",
            Self::Forked => "forked",
            Self::Incompatible { .. } => "incompatible",
            Self::Fold(_) => "fold",
            Self::TooManySiblings { .. } => "too_many_siblings",
            Self::StateTooLarge { .. } => "state_too_large",
            Self::Storage => "storage",
            Self::Busy => "busy",
        }
    }
}

/// What a peer did that it should not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    #[error("malformed frame")]
    MalformedFrame,
    #[error("malformed gossip")]
    MalformedGossip,
    #[error("entry refused: {}", .0.name())]
    Entry(Refusal),
    #[error("bad checkpoint")]
    BadCheckpoint,
    #[error("spoke for another node")]
    Impersonation,
    #[error("asked for what only approved nodes get")]
    NotApproved,
    #[error("too many messages")]
    RateLimited,
    #[error("bad claim")]
    BadClaim,
    #[error("bad report")]
    BadReport,
    #[error("bad join request")]
    BadJoin,
    #[error("bad membership packet")]
    BadSwim,
}

impl Offence {
    /// A stable name for counters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MalformedFrame => "malformed_frame",
            Self::MalformedGossip => "malformed_gossip",
            Self::Entry(refusal) => refusal.name(),
            Self::BadCheckpoint => "bad_checkpoint",
            Self::Impersonation => "impersonation",
            Self::NotApproved => "not_approved",
            Self::RateLimited => "rate_limited",
            Self::BadClaim => "bad_claim",
            Self::BadReport => "bad_report",
            Self::BadJoin => "bad_join",
            Self::BadSwim => "bad_swim",
        }
    }
}
