//! What a network is built from.

use std::{fmt, io, sync::Arc, time::Duration};

use realm_identity::{RealmId, SecretKey};

use crate::{AddressError, BlobSource, RpcFactory};

#[derive(Debug, Clone)]
pub struct Config {
    /// The node's signing key, which is its peer id too.
    pub secret: SecretKey,
    /// Names gossip topics and the Kademlia protocol. Both stay off until it is known.
    pub realm: Option<RealmId>,
    /// Multiaddrs; port 0 takes any free one.
    pub listen: Vec<String>,
    /// Multiaddrs that are dialled at the start, and again whenever the connection is lost.
    pub bootstrap: Vec<String>,
    pub mdns: bool,
    /// Like `realm/0.1.0`. Told to every peer.
    pub agent_version: String,
    /// Another number with each start, told to every peer: its connections to an earlier run are dead.
    pub run: Option<u64>,
    /// Told to every peer; what they are worth is the realm's to decide.
    pub tags: Vec<String>,
    pub limits: NetLimits,
}

impl Config {
    /// Listens nowhere, knows nobody; mDNS is off.
    pub fn new(secret: SecretKey) -> Self {
        Self {
            secret,
            realm: None,
            listen: Vec::new(),
            bootstrap: Vec::new(),
            mdns: false,
            agent_version: "realm/0".to_owned(),
            run: None,
            tags: Vec::new(),
            limits: NetLimits::default(),
        }
    }
}

/// Bounds of a network. Strangers are peers that were not named by `set_approved`.
#[derive(Debug, Clone)]
pub struct NetLimits {
    /// Connections from strangers elsewhere; as many again from this machine.
    pub stranger_in: usize,
    /// Connections to strangers.
    pub stranger_out: usize,
    /// Connections from and to approved peers together: their budget of their own.
    pub approved: usize,
    /// Handshakes with strangers that this node began.
    pub pending_out: usize,
    /// Handshakes that others began: of strangers elsewhere, as many again of approved peers'
    /// addresses, and of this machine. Beyond it an old one goes.
    pub pending_in: usize,
    pub per_peer: usize,
    /// Approved peers may hold a direct connection beside a relayed one, in both directions.
    pub per_approved_peer: usize,
    /// Connections from strangers at one address or IPv6 network (/64), and as many handshakes;
    /// loopback is exempt.
    pub per_ip: usize,
    /// Streams a peer may hold open on one connection.
    pub streams: usize,
    /// Largest frame, in bytes.
    pub frame: usize,
    /// Frames waiting for one peer, and their bytes.
    pub frame_queue: usize,
    pub frame_queue_bytes: usize,
    /// Bytes of received frames that nobody has dropped yet, of one peer and of all.
    pub frame_bytes_per_peer: usize,
    pub frame_bytes: usize,
    /// From a frame's first byte to its last, and the same for a blob request.
    pub frame_time: Duration,
    pub request_time: Duration,
    /// RPC streams of one approved peer, and of all of them.
    pub rpc_per_peer: usize,
    pub rpc: usize,
    /// RPC streams of one stranger, such as a command line. All of them together
    /// are bounded by the strangers' connections.
    pub rpc_per_stranger: usize,
    pub blobs_per_peer: usize,
    pub blobs: usize,
    /// How long a connection without streams is kept.
    pub idle: Duration,
    /// Between gossip's own rounds. Tests shorten it.
    pub heartbeat: Duration,
    /// Between two pings of one connection. What died without a word is found out by them only where
    /// nobody else tells of it. Tests shorten it.
    pub ping: Duration,
    /// For the answer to a ping. Where machines are busy it takes seconds; a connection that is closed
    /// for it makes them busier. Tests shorten it.
    pub ping_answer: Duration,
    /// From the start to the first question to approved peers whether this node can be reached.
    pub probe_after: Duration,
    /// Whether private addresses count as reachable: in a realm that never leaves one network.
    pub probe_private: bool,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            stranger_in: 128,
            stranger_out: 64,
            approved: 1024,
            pending_out: 32,
            pending_in: 512,
            per_peer: 2,
            per_approved_peer: 4,
            per_ip: 16,
            streams: 128,
            frame: 1024 * 1024,
            frame_queue: 256,
            frame_queue_bytes: 4 * 1024 * 1024,
            frame_bytes_per_peer: 4 * 1024 * 1024,
            frame_bytes: 32 * 1024 * 1024,
            frame_time: Duration::from_secs(30),
            request_time: Duration::from_secs(10),
            rpc_per_peer: 64,
            rpc: 512,
            rpc_per_stranger: 4,
            blobs_per_peer: 8,
            blobs: 32,
            idle: Duration::from_secs(60),
            heartbeat: Duration::from_secs(1),
            ping: Duration::from_secs(30),
            ping_answer: Duration::from_secs(10),
            probe_after: Duration::from_secs(15),
            probe_private: false,
        }
    }
}

/// Who answers what peers ask for. What is None is not offered.
#[derive(Default)]
pub struct Services {
    pub blobs: Option<Arc<dyn BlobSource>>,
    /// Run once on the network's own thread, since what it makes cannot leave it.
    pub rpc: Option<RpcFactory>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("blobs", &self.blobs.is_some())
            .field("rpc", &self.rpc.is_some())
            .finish()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{address} is in use: another agent may be running; choose another port or 0")]
    InUse { address: String },
    #[error("cannot listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("cannot start the network's thread")]
    Thread(#[source] io::Error),
    #[error("the network stopped while starting")]
    Stopped,
    #[error("invalid network settings: {0}")]
    Settings(String),
}
