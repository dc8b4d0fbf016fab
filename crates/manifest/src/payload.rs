//! What an intent's payload says, one type for each kind that has one.

use minicbor::{Decode, Encode};
use realm_identity::{Hash, Kind, PublicKey, canonical};

use crate::{ComponentSpec, NodeName, Tag};

/// An intent with its payload is pulled in one frame: 48 KiB leaves room for the envelope.
pub const MAX_PAYLOAD_BYTES: usize = 48 * 1024;

/// A payload, decoded for its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "payloads are read one at a time, never kept in bulk"
)]
pub enum Payload {
    Push(Push),
    Remove(Note),
    Restart(Restart),
    Scale(Scale),
    Run(Run),
    NodeApprove(NodeFacts),
    NodeRevoke(Note),
    NodeSet(NodeFacts),
    OwnerRotate(Note),
    Merge(Merge),
    NodeRemove(Note),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Push {
    #[n(0)]
    pub spec: ComponentSpec,
    /// Whether its cells should run once it is placed. `push --no-start` says no; None keeps what was.
    #[n(1)]
    pub run: Option<bool>,
    #[n(2)]
    pub note: Option<String>,
}

/// Nothing but why (`-m`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Note {
    #[n(0)]
    pub note: Option<String>,
}

/// Every cell whose generation is lower starts anew: on the named nodes, or everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Restart {
    #[n(0)]
    pub generation: u64,
    #[n(1)]
    pub note: Option<String>,
    /// Sorted, each once; with none it is every node.
    #[n(2)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub nodes: Vec<PublicKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Scale {
    /// None is one on every eligible node.
    #[n(0)]
    pub replicas: Option<u32>,
    #[n(1)]
    pub note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Run {
    #[n(0)]
    pub run: bool,
    #[n(1)]
    pub note: Option<String>,
}

/// What the owner says of a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeFacts {
    #[n(0)]
    pub name: NodeName,
    /// Sorted, each once.
    #[n(1)]
    pub tags: Vec<Tag>,
    /// Whether its cells should leave it, and no new ones come.
    #[n(2)]
    pub drain: bool,
    #[n(3)]
    pub note: Option<String>,
}

/// Ends a fork.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Merge {
    /// Every head of the fork, sorted; `keep` is one of them and the parent of the merge.
    #[n(0)]
    pub heads: Vec<Hash>,
    #[n(1)]
    pub keep: Hash,
    /// Entries of the other branches that are applied again on top, in this order.
    #[n(2)]
    pub reapply: Vec<Hash>,
    #[n(3)]
    pub note: Option<String>,
}

impl Payload {
    /// Reads the payload of an intent of `kind`; anything but the canonical encoding is refused.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, canonical::Error> {
        fn read<T>(bytes: &[u8]) -> Result<T, canonical::Error>
        where
            T: Encode<()> + for<'b> Decode<'b, ()>,
        {
            canonical::decode(bytes, MAX_PAYLOAD_BYTES)
        }
        Ok(match kind {
            Kind::Push => Self::Push(read(bytes)?),
            Kind::Remove => Self::Remove(read(bytes)?),
            Kind::Restart => Self::Restart(read(bytes)?),
            Kind::Scale => Self::Scale(read(bytes)?),
            Kind::Run => Self::Run(read(bytes)?),
            Kind::NodeApprove => Self::NodeApprove(read(bytes)?),
            Kind::NodeRevoke => Self::NodeRevoke(read(bytes)?),
            Kind::NodeSet => Self::NodeSet(read(bytes)?),
            Kind::OwnerRotate => Self::OwnerRotate(read(bytes)?),
            Kind::Merge => Self::Merge(read(bytes)?),
            Kind::NodeRemove => Self::NodeRemove(read(bytes)?),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Push(payload) => canonical::encode(payload),
            Self::Remove(payload)
            | Self::NodeRevoke(payload)
            | Self::NodeRemove(payload)
            | Self::OwnerRotate(payload) => canonical::encode(payload),
            Self::Restart(payload) => canonical::encode(payload),
            Self::Scale(payload) => canonical::encode(payload),
            Self::Run(payload) => canonical::encode(payload),
            Self::NodeApprove(payload) | Self::NodeSet(payload) => canonical::encode(payload),
            Self::Merge(payload) => canonical::encode(payload),
        }
    }

    /// Why it was done, as its author put it.
    pub fn note(&self) -> Option<&str> {
        match self {
            Self::Push(payload) => payload.note.as_deref(),
            Self::Remove(payload)
            | Self::NodeRevoke(payload)
            | Self::NodeRemove(payload)
            | Self::OwnerRotate(payload) => payload.note.as_deref(),
            Self::Restart(payload) => payload.note.as_deref(),
            Self::Scale(payload) => payload.note.as_deref(),
            Self::Run(payload) => payload.note.as_deref(),
            Self::NodeApprove(payload) | Self::NodeSet(payload) => payload.note.as_deref(),
            Self::Merge(payload) => payload.note.as_deref(),
        }
    }

    pub const fn kind(&self) -> Kind {
        match self {
            Self::Push(_) => Kind::Push,
            Self::Remove(_) => Kind::Remove,
            Self::Restart(_) => Kind::Restart,
            Self::Scale(_) => Kind::Scale,
            Self::Run(_) => Kind::Run,
            Self::NodeApprove(_) => Kind::NodeApprove,
            Self::NodeRevoke(_) => Kind::NodeRevoke,
            Self::NodeSet(_) => Kind::NodeSet,
            Self::OwnerRotate(_) => Kind::OwnerRotate,
            Self::Merge(_) => Kind::Merge,
            Self::NodeRemove(_) => Kind::NodeRemove,
        }
    }
}
