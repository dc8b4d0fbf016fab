//! What goes into a [`crate::Node`] and what comes out.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use realm_identity::{Hash, PublicKey, RealmId, Timestamp};

use crate::{JoinRequest, Offence, Refusal};

/// The present, given with every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, for what is signed. May step.
    pub wall: Timestamp,
    /// Milliseconds on a clock that never goes back, for timers.
    pub mono: u64,
}

/// Ties an answer to what asked for it.
pub type Token = u64;

/// The gossip topics of a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    Heads,
    Status,
}

/// What to do with a gossip message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it.
    Accept,
    /// Neither forward it nor blame anyone: old, or about what is not known yet.
    Ignore,
    /// Nobody honest forwards this.
    Reject,
}

/// An entry as on the wire, with its payload where it is still kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Item {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub entry: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub payload: Option<Vec<u8>>,
}

/// Where a log may start instead of at its genesis: whoever trusts the entry's author
/// needs nothing before it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Checkpoint {
    /// `Signed<Genesis>` as on the wire.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub genesis: Vec<u8>,
    /// `Signed<Entry>` as on the wire; its `state` is the digest of the state here.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub entry: Vec<u8>,
    /// Canonical folded state at the entry's parent.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub state: Vec<u8>,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub payload: Vec<u8>,
}

/// How the log took a node out, by the folded state: a log that starts at a checkpoint may not
/// hold the entry that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expulsion {
    /// The revision of the last entry that changed it.
    pub revision: u64,
    /// The owner revoked it, so that it never counts again.
    pub for_good: bool,
}

/// What was on disk when the node started.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// `Signed<Genesis>`; None for a node that is in no realm yet.
    pub genesis: Option<Vec<u8>>,
    /// Where the log starts, if not at the genesis.
    pub checkpoint: Option<Checkpoint>,
    /// Every stored entry, in any order, branches of a fork included.
    pub entries: Vec<Item>,
    /// Every stored `WitnessedClaim`.
    pub claims: Vec<Vec<u8>>,
    /// Whether [`Op::CaughtUp`] was written. Without it the node is a newcomer, whatever it has: it
    /// may have been stopped while it read the log.
    pub caught_up: bool,
}

#[derive(Debug, Clone)]
pub enum Event {
    /// A connection to `peer` is open; frames to it arrive from now on.
    PeerConnected {
        peer: PublicKey,
    },
    PeerDisconnected {
        peer: PublicKey,
    },
    /// One frame from a peer that the transport has authenticated.
    Frame {
        from: PublicKey,
        bytes: Vec<u8>,
    },
    /// One gossip message. Use [`crate::Node::handle_gossip`] where the verdict is wanted.
    Gossip {
        from: PublicKey,
        topic: Topic,
        bytes: Vec<u8>,
    },
    /// An operator's entry. Answered by [`Effect::SubmitResult`] with the same token.
    Submit {
        token: Token,
        entry: Vec<u8>,
        payload: Vec<u8>,
    },
    /// Makes a realm that was created on this node, or that an invite names, this node's realm.
    Found {
        genesis: Vec<u8>,
    },
    /// The operations of this [`Effect::Persist`] are on disk.
    Persisted {
        token: Token,
    },
    /// They are not; they are asked for again later.
    PersistFailed {
        token: Token,
    },
    /// The nodes that count as approved now: by chain or by claim, and not revoked.
    Approved {
        nodes: BTreeSet<PublicKey>,
    },
    /// The nodes that the log took out. They are told of it, and of nothing later.
    Expelled {
        nodes: BTreeMap<PublicKey, Expulsion>,
    },
    /// An owner was pinned on this node, or a key that may act as one rotated in.
    Pinned {
        owner: PublicKey,
    },
    /// This node's own report (`Signed<NodeReport>`): kept for others to pull.
    OwnReport {
        report: Vec<u8>,
        digest: Vec<u8>,
    },
    /// A `WitnessedClaim` made here, to be kept and spread.
    AddClaim {
        claim: Vec<u8>,
    },
    /// Asks to join: sent to every connected peer, and to those that connect later.
    Join {
        request: Vec<u8>,
    },
    /// This node's own `Signed<Claim>`: sent like a join request, until it is witnessed.
    Claim {
        claim: Vec<u8>,
    },
    /// A join request was dealt with.
    JoinSettled {
        node: PublicKey,
    },
    /// Time passed; call at [`crate::Node::next_timeout`].
    Tick,
}

/// One write; those of one [`Effect::Persist`] go to disk together, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Genesis {
        wire: Vec<u8>,
    },
    /// The log starts here from now on; what was stored before it may go.
    Checkpoint {
        checkpoint: Checkpoint,
    },
    Entry {
        hash: Hash,
        seq: u64,
        wire: Vec<u8>,
    },
    Payload {
        sha256: Hash,
        bytes: Vec<u8>,
    },
    Claim {
        hash: Hash,
        wire: Vec<u8>,
    },
    /// Told with [`Effect::CaughtUp`]: the next start is none of a newcomer.
    CaughtUp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub seq: u64,
    pub hash: Hash,
    /// Nodes known to have it on disk, this one included.
    pub durable_on: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    Up,
    Suspect,
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Send {
        to: PublicKey,
        frame: Vec<u8>,
    },
    Publish {
        topic: Topic,
        bytes: Vec<u8>,
    },
    /// Write all of it durably, then answer with [`Event::Persisted`].
    Persist {
        token: Token,
        ops: Vec<Op>,
    },
    SubmitResult {
        token: Token,
        result: Result<Accepted, Refusal>,
    },
    /// This node is in a realm now, by the word of `owner`: its founder, or who owned it later. Already on disk.
    RealmJoined {
        realm: RealmId,
        owner: PublicKey,
        genesis: Vec<u8>,
    },
    /// The agreed head moved, forward except right after [`Effect::Forked`]. Already on disk.
    HeadAdvanced {
        seq: u64,
        hash: Hash,
        state: Vec<u8>,
    },
    /// Two entries for one revision: the state is that of the last agreed entry.
    Forked {
        seq: u64,
        proofs: Vec<Vec<u8>>,
    },
    /// A merge ended the fork.
    ForkEnded {
        seq: u64,
    },
    /// The entry for `seq` is of a later version: the fold stops before it.
    Incompatible {
        seq: u64,
        reason: String,
    },
    MemberChanged {
        node: PublicKey,
        state: MemberState,
    },
    ReportUpdated {
        node: PublicKey,
        report: Vec<u8>,
    },
    JoinRequested {
        request: JoinRequest,
    },
    /// Somebody presents a `Signed<Claim>` that has no witness yet.
    ClaimPresented {
        from: PublicKey,
        claim: Vec<u8>,
    },
    /// A verified `WitnessedClaim` joined the set. Already on disk.
    ClaimAdded {
        claim: Vec<u8>,
    },
    /// This node came into the realm just now and has read the log as far as the approved peers it
    /// met had it: before that, whom it takes for approved may have been revoked. Everything it read
    /// is on disk.
    CaughtUp,
    /// The owner revoked this node, which asked to join and was never told more of the log.
    Revoked {
        realm: RealmId,
        seq: u64,
    },
    /// Two nodes used one invite: neither counts until the owner decides.
    ClaimConflict {
        invite_key: PublicKey,
        nodes: [PublicKey; 2],
    },
    /// This node would like a connection to `peer`.
    Dial {
        peer: PublicKey,
    },
    /// The connection to `peer` carries nothing any more: the peer is lost to the others as well. To be
    /// closed, so that another way is found.
    HangUp {
        peer: PublicKey,
    },
    /// Something to count, and to hold against `peer`.
    Warn {
        peer: PublicKey,
        what: Offence,
    },
}
