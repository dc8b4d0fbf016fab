//! What a network tells.

use std::time::Duration;

use bytes::Bytes;
use realm_identity::PublicKey;

/// Events come in the order in which they happened; a peer's frames lie between its
/// [`NetworkEvent::PeerConnected`] and its [`NetworkEvent::PeerDisconnected`].
#[derive(Debug, Clone)]
pub enum NetworkEvent {
    /// The node can be dialled here.
    Listening {
        address: String,
    },
    /// It no longer can: a listener ended, or a relay refused or gave up the reservation.
    NotListening {
        addresses: Vec<String>,
        reason: String,
    },
    /// The first connection with this peer.
    PeerConnected {
        key: PublicKey,
        link: Link,
    },
    /// The last connection with this peer is gone.
    PeerDisconnected {
        key: PublicKey,
    },
    /// Bytes that a peer sent by `send_frame`. Dropping them makes room for more.
    Frame {
        from: PublicKey,
        bytes: Bytes,
    },
    /// Frames to this peer were dropped: its queue was full, or it could not be reached.
    FramesDropped {
        to: PublicKey,
        count: u64,
        reason: String,
    },
    /// The peer broke the framing and was cut off.
    Malformed {
        from: PublicKey,
        reason: String,
    },
    /// Waits for `report_validation`; it is not forwarded before.
    Gossip {
        id: GossipId,
        source: PublicKey,
        topic: Topic,
        bytes: Bytes,
    },
    Rtt {
        key: PublicKey,
        rtt: Duration,
    },
    /// What the peer says of itself.
    Identified {
        key: PublicKey,
        version: String,
        tags: Vec<String>,
    },
    /// A connection of the peer goes to this start of it, by its own word: each tells another
    /// [`Config::run`](crate::Config::run).
    Started {
        key: PublicKey,
        run: u64,
    },
    /// Seen on the local network, not dialled yet, and not to be believed in anything else.
    Discovered {
        key: PublicKey,
        addresses: Vec<String>,
    },
    Reachability(Reachability),
}

/// How a peer is reached, the best first. A TCP connection is closed by the machine of a node that dies,
/// where QUIC falls silent, and costs about a fifth less while it is idle (decision 0015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    Tcp,
    Quic,
    Relay,
}

impl Link {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Relay => "relay",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reachability {
    Unknown,
    /// Peers reached this node at this address.
    Public {
        address: String,
    },
    Private,
}

/// The two gossip topics of a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Heads,
    Status,
}

/// Names a gossip message and who handed it over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GossipId {
    pub(crate) message: Vec<u8>,
    pub(crate) source: PublicKey,
}

/// What becomes of a gossip message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Forwarded.
    Accept,
    /// Not forwarded, and not held against whoever sent it.
    Ignore,
    /// Not forwarded; costs the sender's score.
    Reject,
}

#[derive(Debug, Clone)]
pub struct PeerInfo {
    pub key: PublicKey,
    /// Addresses of the open connections, then the ones it is known under.
    pub addresses: Vec<String>,
    pub link: Link,
    pub rtt: Option<Duration>,
    pub version: Option<String>,
    pub tags: Vec<String>,
    pub approved: bool,
}

/// Counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub connections: usize,
    /// Connections refused by a limit or a ban.
    pub refused: u64,
    pub frames_in: u64,
    pub frames_out: u64,
    pub frames_dropped: u64,
    pub malformed: u64,
    pub gossip_in: u64,
    pub gossip_dropped: u64,
    /// Held against whoever sent it.
    pub gossip_rejected: u64,
    pub rpc_open: usize,
    pub rpc_refused: u64,
    /// Connections' tasks that panicked; each ended only itself.
    pub rpc_panics: u64,
    pub blobs_served: u64,
    pub blobs_refused: u64,
}
