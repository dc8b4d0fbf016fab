//! What a node says of itself: a small digest in gossip, the whole report on request.

use minicbor::{Decode, Encode, bytes::ByteVec};
use realm_identity::{Hash, PublicKey, RealmId, Timestamp, message};

use crate::{ComponentName, NodeName, Tag};

/// Largest signed report, in bytes: [`MAX_CELLS`] cells with the longest names fit, and four reports
/// of nobody's fault fill what a peer may have in flight.
pub const MAX_REPORT_BYTES: usize = 512 * 1024;
/// Most cells of one node, all of which its report names.
pub const MAX_CELLS: u32 = 2048;
/// Most problems of a node itself that its report names; who reads one takes no more.
pub const MAX_PROBLEMS: usize = 4;

/// A node's account of itself and its cells, signed by the node. A node reports only itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeReport {
    #[n(0)]
    pub node: PublicKey,
    #[n(1)]
    pub realm: RealmId,
    /// Rises with every start of the agent, whatever its clock says.
    #[n(2)]
    pub boot_id: u64,
    /// Rises with every report of one boot.
    #[n(3)]
    pub seq: u64,
    #[n(4)]
    pub at: Timestamp,
    /// The revision this node has folded.
    #[n(5)]
    pub revision: u64,
    #[n(6)]
    pub head: Hash,
    #[n(7)]
    pub state: NodeState,
    /// What the node calls itself; a claim, the owner's word decides.
    #[n(8)]
    pub name: NodeName,
    #[n(9)]
    pub tags: Vec<Tag>,
    #[n(10)]
    pub version: String,
    /// Multiaddrs the node believes it can be reached at.
    #[n(11)]
    pub addresses: Vec<String>,
    /// Per cent of one core, times 100.
    #[n(12)]
    pub cpu_hundredths: Option<u32>,
    /// Resident memory of the agent.
    #[n(13)]
    pub memory_bytes: Option<u64>,
    #[n(14)]
    pub capacity: Capacity,
    #[n(15)]
    pub cells: Vec<CellReport>,
    /// Components this node cannot take, and why; the next in rendezvous order takes them.
    #[n(16)]
    pub declined: Vec<Declined>,
    /// Components whose named volumes have data on this node, sorted; also while it runs no cell of
    /// them. Replicas that write such a volume stay where it is.
    #[n(17)]
    pub holds: Vec<Held>,
    /// `Signed<SealingCertificate>` as on the wire: who reads it verifies it. It is the node's word
    /// alone, so a report with a bad one is still a report.
    #[n(18)]
    pub sealing: Option<ByteVec>,
    /// What keeps the node itself from doing its part, such as a full disk; the worst first, and
    /// absent from the bytes where there is none.
    #[n(19)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub problems: Vec<Reason>,
}

message!(
    NodeReport,
    "node-report",
    |report| report.node,
    MAX_REPORT_BYTES
);

/// Ceilings a node declares; placement stays under them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Capacity {
    /// Memory the node gives to cells, in MiB.
    #[n(0)]
    pub memory_mb: u64,
    #[n(1)]
    pub cells: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum NodeState {
    #[n(0)]
    Pending,
    #[n(1)]
    Ready,
    #[n(2)]
    Draining,
    #[n(3)]
    Incompatible,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CellReport {
    #[n(0)]
    pub component: ComponentName,
    #[n(1)]
    pub index: u32,
    /// Digest of the spec this cell runs: says whether it is up to date.
    #[n(2)]
    pub spec: Hash,
    #[n(3)]
    pub generation: u64,
    #[n(4)]
    pub state: CellState,
    #[n(5)]
    pub reason: Option<Reason>,
    #[n(6)]
    pub restarts: u32,
    #[n(7)]
    pub memory_bytes: u64,
    #[n(8)]
    pub fuel_used: Option<u64>,
    #[n(9)]
    pub preemptions: u64,
    #[n(10)]
    pub started_at: Option<Timestamp>,
    #[n(11)]
    pub exit_code: Option<i32>,
    /// None while nothing has to be tried again.
    #[n(12)]
    pub retry: Option<Retry>,
}

/// A cell that ended, or could not begin, and is tried again; until it has run for a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Retry {
    /// How often in a row it has ended without having run for a second.
    #[n(0)]
    pub crashes: u32,
    /// When it is tried again, by the node's clock; None while it is being tried.
    #[n(1)]
    pub at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum CellState {
    #[n(0)]
    Pulling,
    #[n(1)]
    Compiling,
    #[n(2)]
    Starting,
    #[n(3)]
    Running,
    #[n(4)]
    Backoff,
    #[n(5)]
    Done,
    #[n(6)]
    Failed,
    #[n(7)]
    Stopped,
    /// The artifact has no entry point: listed with its exports, not run.
    #[n(8)]
    Library,
}

/// Why something is as it is: a stable code, words, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(map)]
pub struct Reason {
    #[n(0)]
    pub code: String,
    #[n(1)]
    pub message: String,
    #[n(2)]
    pub help: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Declined {
    #[n(0)]
    pub component: ComponentName,
    /// The spec it declined; a changed spec is tried again.
    #[n(1)]
    pub spec: Hash,
    #[n(2)]
    pub reason: Reason,
}

/// Data of a component, and how many cells it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Held {
    #[n(0)]
    pub component: ComponentName,
    #[n(1)]
    pub cells: u32,
}

/// The gossiped summary, at most 1 KiB: enough to know that a newer report waits.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StatusDigest {
    #[n(0)]
    pub node: PublicKey,
    #[n(1)]
    pub realm: RealmId,
    #[n(2)]
    pub boot_id: u64,
    #[n(3)]
    pub seq: u64,
    #[n(4)]
    pub at: Timestamp,
    #[n(5)]
    pub revision: u64,
    #[n(6)]
    pub head: Hash,
    #[n(7)]
    pub state: NodeState,
    /// Digest of the signed bytes of the report with this `boot_id` and `seq`.
    #[n(8)]
    pub report: Hash,
    #[n(9)]
    pub cells_running: u32,
    #[n(10)]
    pub cells_wanted: u32,
    /// Codes of the worst problems, at most four.
    #[n(11)]
    pub problems: Vec<String>,
}

message!(StatusDigest, "status", |digest| digest.node);
