//! An entry of a realm's log: the intent envelope.

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::{Artifact, Hash, Message, PublicKey, RealmId, Timestamp, canonical};

/// The version of the entry format that this code writes.
pub const VERSION: u16 = 1;

/// One link of the chain of (realm, author). Every field is inside the signature.
///
/// The first five fields keep their place in every version, so that an entry of a
/// later version can still be verified, stored and forwarded; only the fold stops there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub v: u16,
    pub realm: RealmId,
    pub author: PublicKey,
    /// The revision: the parent's + 1. The genesis is 0.
    pub seq: u64,
    /// The parent's hash; the realm id for the first entry.
    pub prev: Hash,
    /// None when `v` is not [`VERSION`].
    pub body: Option<Body>,
    /// What stands after the five fields, kept for versions this code does not know.
    unknown: Vec<u8>,
}

/// What version 1 says beyond the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Digest of the canonical folded state at the parent.
    pub state: Hash,
    /// A [`Kind`], as a number: later kinds are kept, not understood.
    pub kind: u16,
    pub target: Target,
    /// Imperative intents expire; desired state does not.
    pub not_after: Option<Timestamp>,
    pub issued_at: Timestamp,
    pub payload: Artifact,
}

/// Every kind of intent this code understands. Adding one does not compile without its
/// rule in [`crate::authority`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// Sets the whole spec of one component.
    Push = 1,
    /// Takes a component out of the desired state.
    Remove = 2,
    /// Raises a component's restart generation.
    Restart = 3,
    /// Sets a component's replica count.
    Scale = 4,
    /// Sets whether a component's cells should run.
    Run = 5,
    /// Approves a node, with its name and tags.
    NodeApprove = 6,
    /// Takes a node's approval away for good.
    NodeRevoke = 7,
    /// Replaces a node's name, its tags, and whether it drains.
    NodeSet = 8,
    /// Hands the realm to another owner key.
    OwnerRotate = 9,
    /// Ends a fork: names all heads, keeps one.
    Merge = 10,
    /// Takes a node out of the realm until it is approved again.
    NodeRemove = 11,
}

/// What an intent is about. Bound into the signature, so that it cannot be turned elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Target {
    #[n(0)]
    Realm,
    #[n(1)]
    Component(#[n(0)] String),
    #[n(2)]
    Node(#[n(0)] PublicKey),
    #[n(3)]
    Owner(#[n(0)] PublicKey),
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Push,
        Self::Remove,
        Self::Restart,
        Self::Scale,
        Self::Run,
        Self::NodeApprove,
        Self::NodeRevoke,
        Self::NodeSet,
        Self::OwnerRotate,
        Self::Merge,
        Self::NodeRemove,
    ];

    pub const fn number(self) -> u16 {
        self as u16
    }

    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Remove => "remove",
            Self::Restart => "restart",
            Self::Scale => "scale",
            Self::Run => "run",
            Self::NodeApprove => "node-approve",
            Self::NodeRevoke => "node-revoke",
            Self::NodeSet => "node-set",
            Self::OwnerRotate => "owner-rotate",
            Self::Merge => "merge",
            Self::NodeRemove => "node-remove",
        }
    }
}

impl Entry {
    pub fn new(realm: RealmId, author: PublicKey, seq: u64, prev: Hash, body: Body) -> Self {
        Self {
            v: VERSION,
            realm,
            author,
            seq,
            prev,
            body: Some(body),
            unknown: Vec::new(),
        }
    }

    /// The kind, when this code knows both the version and the kind.
    pub fn kind(&self) -> Option<Kind> {
        self.body
            .as_ref()
            .and_then(|body| Kind::from_number(body.kind))
    }
}

impl Message for Entry {
    const DOMAIN: &'static str = "entry";

    fn author(&self) -> PublicKey {
        self.author
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes);
        self.write(&mut encoder)
            .expect("writing to memory does not fail");
        bytes.extend_from_slice(&self.unknown);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, canonical::Error> {
        if bytes.len() > crate::MAX_SIGNED_BYTES {
            return Err(canonical::Error::TooLarge {
                size: bytes.len(),
                max: crate::MAX_SIGNED_BYTES,
            });
        }
        let entry = Self::read(bytes).map_err(canonical::Error::Malformed)?;
        if entry.to_bytes() == bytes {
            Ok(entry)
        } else {
            Err(canonical::Error::NotCanonical)
        }
    }
}

impl Entry {
    fn write<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.array(FIELDS)?;
        encoder
            .encode(self.v)?
            .encode(self.realm)?
            .encode(self.author)?;
        encoder.encode(self.seq)?.encode(self.prev)?;
        if let Some(body) = &self.body {
            encoder
                .encode(body.state)?
                .encode(body.kind)?
                .encode(&body.target)?;
            encoder
                .encode(body.not_after)?
                .encode(body.issued_at)?
                .encode(body.payload)?;
        }
        Ok(())
    }

    fn read(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        let mut decoder = Decoder::new(bytes);
        if decoder.array()? != Some(FIELDS) {
            return Err(minicbor::decode::Error::message(
                "an entry is an array of eleven",
            ));
        }
        let (v, realm, author) = (decoder.decode()?, decoder.decode()?, decoder.decode()?);
        let (seq, prev) = (decoder.decode()?, decoder.decode()?);
        let mut entry = Self {
            v,
            realm,
            author,
            seq,
            prev,
            body: None,
            unknown: Vec::new(),
        };
        if v == VERSION {
            entry.body = Some(Body {
                state: decoder.decode()?,
                kind: decoder.decode()?,
                target: decoder.decode()?,
                not_after: decoder.decode()?,
                issued_at: decoder.decode()?,
                payload: decoder.decode()?,
            });
        } else {
            let start = decoder.position();
            for _ in 5..FIELDS {
                decoder.skip()?;
            }
            entry.unknown = bytes[start..decoder.position()].to_vec();
        }
        Ok(entry)
    }
}

/// Fields of an entry, in every version; a later version that needs more nests them in its last.
const FIELDS: u64 = 11;
