//! The frames on `/realm/log/1`: canonical CBOR, every part bounded.

use minicbor::{Decode, Encode};
use realm_identity::{Hash, PublicKey, RealmId, canonical};

use crate::{Checkpoint, Item, limits::*};

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Point {
    #[n(0)]
    pub seq: u64,
    #[n(1)]
    pub hash: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Frame {
    /// "This is what I have": the newest entry of every branch, and steps back from the head.
    /// Answered by what the sender lacks.
    #[n(0)]
    Locator {
        #[n(0)]
        realm: RealmId,
        #[n(1)]
        tips: Vec<Point>,
        #[n(2)]
        samples: Vec<Point>,
    },
    /// Entries, parents first. With `more`, a new locator fetches the next.
    #[n(1)]
    Entries {
        #[n(0)]
        realm: RealmId,
        #[n(1)]
        items: Vec<Item>,
        #[n(2)]
        more: bool,
    },
    #[n(2)]
    Checkpoint(#[n(0)] Checkpoint),
    /// `Signed<Genesis>`, for a node that has no realm yet but pinned its owner.
    #[n(3)]
    Genesis(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(4)]
    GetEntry(#[n(0)] Hash),
    /// Entries for one revision, all signed by the owner.
    #[n(5)]
    ForkProof(#[n(0)] Vec<Item>),
    /// Digests of the claims the sender has; answered by those it lacks.
    #[n(6)]
    ClaimsHave(#[n(0)] Vec<Hash>),
    #[n(7)]
    Claims(#[n(0)] Vec<Bytes>),
    /// `Signed<Claim>`, from the node that makes it, to be witnessed.
    #[n(8)]
    Claim(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// `Signed<JoinRequest>`.
    #[n(9)]
    Join(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A SWIM packet.
    #[n(10)]
    Swim(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Asks for the report of `node` with at least this `seq` of this boot.
    #[n(11)]
    GetReport {
        #[n(0)]
        node: PublicKey,
        #[n(1)]
        boot_id: u64,
        #[n(2)]
        seq: u64,
    },
    /// `Signed<NodeReport>`.
    #[n(12)]
    Report(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The owner's `Signed<Entry>` that revoked the receiver, which asked to join and gets nothing
    /// else of the log.
    #[n(13)]
    Revoked(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// A byte string in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Bytes(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("malformed frame")]
    Malformed(#[from] canonical::Error),
    #[error("{what}: {count}, at most {max} are allowed")]
    TooMany {
        what: &'static str,
        count: usize,
        max: usize,
    },
}

impl Frame {
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// Decodes a whole frame and checks the bounds of its kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let frame: Self = canonical::decode(bytes, MAX_FRAME_BYTES)?;
        frame.check()?;
        Ok(frame)
    }

    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Locator { tips, samples, .. } => {
                bound("tips", tips.len(), MAX_TIPS)?;
                bound("samples", samples.len(), MAX_SAMPLES)
            }
            Self::Entries { items, .. } => check_items(items, MAX_ENTRIES),
            Self::ForkProof(items) => check_items(items, MAX_SIBLINGS),
            Self::Checkpoint(checkpoint) => {
                bound("state bytes", checkpoint.state.len(), MAX_STATE_BYTES)?;
                bound(
                    "genesis bytes",
                    checkpoint.genesis.len(),
                    realm_identity::MAX_SIGNED_BYTES,
                )?;
                bound(
                    "entry bytes",
                    checkpoint.entry.len(),
                    realm_identity::MAX_SIGNED_BYTES,
                )?;
                bound("payload bytes", checkpoint.payload.len(), MAX_PAYLOAD)
            }
            Self::ClaimsHave(hashes) => bound("claims", hashes.len(), MAX_CLAIM_HASHES),
            Self::Claims(claims) => {
                bound("claims", claims.len(), MAX_CLAIMS_PER_FRAME)?;
                claims
                    .iter()
                    .try_for_each(|claim| bound("claim bytes", claim.0.len(), MAX_CLAIM))
            }
            Self::Claim(wire) => bound("claim bytes", wire.len(), MAX_CLAIM),
            Self::Join(wire) => bound("join bytes", wire.len(), MAX_JOIN_BYTES),
            Self::Swim(packet) => bound("swim bytes", packet.len(), MAX_SWIM_BYTES),
            Self::Report(wire) => bound("report bytes", wire.len(), MAX_REPORT_BYTES),
            Self::Genesis(wire) => bound(
                "genesis bytes",
                wire.len(),
                realm_identity::MAX_SIGNED_BYTES,
            ),
            Self::Revoked(wire) => {
                bound("entry bytes", wire.len(), realm_identity::MAX_SIGNED_BYTES)
            }
            Self::GetEntry(_) | Self::GetReport { .. } => Ok(()),
        }
    }
}

const MAX_PAYLOAD: usize = realm_manifest::payload::MAX_PAYLOAD_BYTES;
const MAX_CLAIM: usize = 12 * 1024;

fn bound(what: &'static str, count: usize, max: usize) -> Result<(), FrameError> {
    if count > max {
        Err(FrameError::TooMany { what, count, max })
    } else {
        Ok(())
    }
}

fn check_items(items: &[Item], max: usize) -> Result<(), FrameError> {
    bound("entries", items.len(), max)?;
    let mut bytes = 0;
    for item in items {
        let payload = item.payload.as_ref().map_or(0, Vec::len);
        bound(
            "entry bytes",
            item.entry.len(),
            realm_identity::MAX_SIGNED_BYTES,
        )?;
        bound("payload bytes", payload, MAX_PAYLOAD)?;
        bytes += item.entry.len() + payload;
    }
    bound(
        "bytes of entries",
        bytes,
        MAX_ENTRIES_BYTES + realm_identity::MAX_SIGNED_BYTES + MAX_PAYLOAD,
    )
}
