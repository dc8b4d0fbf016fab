//! Every bound of the protocol, with its reason.

/// Largest frame: a checkpoint with its state is the largest thing sent in one.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// Largest gossip message: more would be forwarded by everybody to everybody.
pub const MAX_GOSSIP_BYTES: usize = 16 * 1024;
/// Largest status digest, envelope included.
pub const MAX_STATUS_BYTES: usize = 1024;
/// Entries and payloads in one frame, so that a slow link is not blocked for long. One entry
/// with the largest payload still fits.
pub const MAX_ENTRIES_BYTES: usize = 256 * 1024;
/// Entries in one frame, whatever their size: bounds the signatures checked in one step.
pub const MAX_ENTRIES: usize = 512;
/// Largest folded state in a checkpoint; leaves room for the entry beside it.
pub const MAX_STATE_BYTES: usize = 768 * 1024;
/// Largest signed report of a node: half a frame.
pub const MAX_REPORT_BYTES: usize = realm_manifest::report::MAX_REPORT_BYTES;
/// Points in a locator: steps doubling back over 2^64 entries need 64.
pub const MAX_SAMPLES: usize = 64;
/// Heads of a fork that are told of in one message.
pub const MAX_TIPS: usize = 32;
/// Entries kept for one revision: an owner that signs more than this many is not merely mistaken.
pub const MAX_SIBLINGS: usize = 16;
/// SWIM packets hold about 170 members; the rest follows in later ones.
pub const MAX_SWIM_BYTES: usize = 8 * 1024;
/// Claims kept: invites that were taken up, over the life of a realm.
pub const MAX_CLAIMS: usize = 4096;
/// Other nodes whose claims of one invite are kept: one is enough to know that it was used twice.
pub const MAX_CLAIMANTS: usize = 2;
/// Digests of claims named in one frame.
pub const MAX_CLAIM_HASHES: usize = MAX_CLAIMS;
/// Claims in one frame; 16 of the largest stay below a quarter of a frame.
pub const MAX_CLAIMS_PER_FRAME: usize = 16;
/// Frames of claims that a newcomer is sent at once; it asks for the rest when it trusts somebody.
pub const MAX_CLAIM_FRAMES: usize = 4;
/// Claims kept whose witness is not approved yet: anyone may send such.
pub const MAX_WAITING_CLAIMS: usize = 256;
/// Join requests waiting for the owner.
pub const MAX_PENDING_JOINS: usize = 64;
/// Join requests that approved peers told of, beside those of nodes that are connected here.
pub const MAX_TOLD_JOINS: usize = 64;
/// Largest join request.
pub const MAX_JOIN_BYTES: usize = 4 * 1024;
/// Peers with state here: 1,024 approved, and strangers.
pub const MAX_PEERS: usize = 2048;
/// Members known to SWIM, and nodes whose reports are kept.
pub const MAX_MEMBERS: usize = 4096;
/// Submits waiting for the disk; more are refused as busy.
pub const MAX_SUBMITS: usize = 256;
/// Effects waiting to be drained before peers' frames are dropped: the caller is too slow.
pub const MAX_EFFECTS: usize = 8192;
/// Frames an approved peer may send at once, and then per second.
pub const APPROVED_BURST: u32 = 512;
pub const APPROVED_PER_SECOND: u32 = 256;
/// Gossip messages that one peer may hand over at once, and then per second: each has a signature to
/// check. In a realm of 1,000 nodes a message comes from a few peers, and each node has one in some seconds.
pub const GOSSIP_BURST: u32 = 2048;
pub const GOSSIP_PER_SECOND: u32 = 512;
/// Messages of one author that are handed on at once, and then per second: whoever hands them on must not
/// be taken for the one that floods. Nodes that are connected to the author hear it themselves.
pub const AUTHOR_BURST: u32 = 64;
pub const AUTHOR_PER_SECOND: u32 = 16;
/// Frames that a peer may send which is not approved.
pub const STRANGER_BURST: u32 = 16;
pub const STRANGER_PER_SECOND: u32 = 2;
