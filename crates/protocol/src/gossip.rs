//! Signed messages that nodes make about themselves: head announcements and join requests.

use minicbor::{Decode, Encode};
use realm_identity::{Hash, PublicKey, RealmId, Timestamp, message};

use crate::Point;

pub const VERSION: u16 = 1;

/// Where a node's durable log stands: digests only, entries are pulled.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HeadAnnounce {
    #[n(0)]
    pub v: u16,
    #[n(1)]
    pub node: PublicKey,
    #[n(2)]
    pub realm: RealmId,
    /// The agreed head.
    #[n(3)]
    pub seq: u64,
    #[n(4)]
    pub head: Hash,
    /// Every branch's newest entry when there is a fork, else nothing; at most [`crate::limits::MAX_TIPS`].
    #[n(5)]
    pub tips: Vec<Point>,
    /// Of the boot that says it, as in [`realm_manifest::report::NodeReport`].
    #[n(6)]
    pub boot_id: u64,
    /// Rises with every announcement of one boot: newer is told without trusting a clock.
    #[n(7)]
    pub count: u64,
}

message!(HeadAnnounce, "heads", |announce| announce.node);

/// A node without approval asks for it. Everything in it is a claim.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct JoinRequest {
    #[n(0)]
    pub v: u16,
    #[n(1)]
    pub node: PublicKey,
    /// The realm it was told to join, if it knows.
    #[n(2)]
    pub realm: Option<RealmId>,
    #[n(3)]
    pub name: String,
    #[n(4)]
    pub tags: Vec<String>,
    #[n(5)]
    pub addresses: Vec<String>,
    #[n(6)]
    pub version: String,
    #[n(7)]
    pub at: Timestamp,
}

message!(JoinRequest, "join", |request| request.node);
