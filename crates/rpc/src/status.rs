//! The status as programs read it: `realm/v1`. Changes are additive; what is unknown is null, never 0.

use realm_identity::{Hash, PublicKey, RealmId, Timestamp};
pub use realm_manifest::report::Reason;
use serde::{Deserialize, Serialize};

pub const API_VERSION: &str = "realm/v1";

/// All that a node knows of its realm, nodes that are away included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    pub realm: Realm,
    pub revision: u64,
    pub forked: bool,
    pub nodes: Vec<Node>,
    pub components: Vec<Component>,
    /// Where what is differs from what should be.
    pub drift: Vec<Drift>,
    /// What the owner must look at; nothing solves it by itself.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub code: String,
    pub message: String,
    pub help: String,
    /// Keys: names may be what is wrong.
    pub nodes: Vec<PublicKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Realm {
    pub id: RealmId,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub key: PublicKey,
    pub state: NodeState,
    pub version: Option<String>,
    pub tags: Vec<String>,
    pub address: Option<String>,
    /// Where it is reached through approved nodes that relay for it, by its own signed word; for who
    /// connects to it, not for who reads the status.
    #[serde(skip)]
    pub circuits: Vec<String>,
    pub link: Option<Link>,
    pub rtt_ms: Option<f64>,
    /// Of one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory of the agent.
    pub memory_bytes: Option<u64>,
    pub cell_count: Option<u64>,
    pub last_seen: Option<jiff::Timestamp>,
    /// `Signed<SealingCertificate>` in base64: the node's own word, for who reads it to verify.
    #[serde(default)]
    pub sealing_certificate: Option<String>,
    /// Nodes that saw its invite taken up, which is all that lets it in; none where the log of the
    /// realm names it. For `realm nodes show`.
    #[serde(skip)]
    pub witnesses: Vec<PublicKey>,
    /// What keeps the node itself from doing its part, such as a full disk, by its own word.
    #[serde(default)]
    pub problems: Vec<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    pub name: String,
    /// SHA-256 of the artifact.
    pub digest: Hash,
    /// Cells that should run.
    pub desired: u64,
    /// Cells that do; more than are desired while surplus ones stop.
    pub running: u64,
    pub state: ComponentState,
    pub reason: Option<Reason>,
    pub set_by: SetBy,
    /// Names of the nodes that should run it.
    pub desired_nodes: Vec<String>,
    pub cells: Vec<Cell>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBy {
    pub by: Setter,
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// `node/component#index`.
    pub id: String,
    pub node: String,
    pub index: u32,
    /// Null where the node is away, so that nobody knows.
    pub state: Option<CellState>,
    pub reason: Option<Reason>,
    pub restarts: u64,
    /// How often in a row it has ended without having run for a second.
    #[serde(default)]
    pub crashes: u64,
    /// When it is started again, by its node's clock; null while it runs, or is being started.
    #[serde(default)]
    pub restart_at: Option<jiff::Timestamp>,
    pub memory_bytes: Option<u64>,
    pub memory_max_bytes: Option<u64>,
    pub fuel_used: Option<u64>,
    pub preemptions: Option<u64>,
    pub started_at: Option<jiff::Timestamp>,
    pub exit_code: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    pub component: String,
    /// None where no node is found that could take it.
    pub node: Option<String>,
    pub index: Option<u32>,
    pub want: String,
    pub have: String,
    pub reason: Option<Reason>,
}

/// A closed list of words that later versions may add to: what is not known is read as unknown.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[non_exhaustive]
        pub enum $name {
            $($variant,)+
            /// A word of a later version.
            #[serde(other)]
            Unknown,
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&match self {
                    $(Self::$variant => stringify!($variant),)+
                    Self::Unknown => "Unknown",
                }.to_lowercase())
            }
        }
    };
}

words!(
    /// Where a node stands in its realm.
    NodeState { Pending, Ready, Draining, Lost, Incompatible, Revoked }
);
words!(
    /// A component as a whole.
    ComponentState { Pending, Starting, Running, Degraded, Done, Stopped, Failed, Waiting }
);
words!(
    /// One running instance.
    CellState { Pulling, Compiling, Starting, Running, Backoff, Done, Failed, Stopped }
);
words!(
    /// Which verb set a component.
    Setter { Push, Apply }
);

/// How the asked node reaches another; itself is written `self`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Link {
    #[serde(rename = "self")]
    Itself,
    Quic,
    Tcp,
    Relay,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Itself => "self",
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Relay => "relay",
            Self::Unknown => "unknown",
        })
    }
}

/// A time as statuses write it; None for one that no calendar has.
pub fn time(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.as_millis()).ok()?).ok()
}
