//! What an operator may do on a node: implemented by the agent, called over RPC.

use futures::future::LocalBoxFuture;
use realm_identity::{Artifact, Hash, PublicKey, RealmId, Timestamp};

use crate::{EventSink, LogSink, RpcError, Survey, SurveySink};

/// The answer of every method: a future of this thread.
type Answer<'a, T> = LocalBoxFuture<'a, Result<T, RpcError>>;

/// What a grafted owner or operator may do. Every future may be dropped midway, when the
/// caller goes away or a deadline passes; what was acknowledged stays.
pub trait Control {
    /// The last agreed entry with the state before it.
    fn head(&self) -> Answer<'_, Head>;

    /// Every head that is known: more than one during a fork.
    fn heads(&self) -> Answer<'_, Vec<HeadId>>;

    /// Verifies, appends durably, and only then answers. Submitting the same bytes again succeeds.
    fn submit(&self, entry: Vec<u8>, payload: Vec<u8>) -> Answer<'_, Submitted>;

    /// What the node knows of its realm, now.
    fn survey(&self) -> Answer<'_, Survey>;

    /// Sends a survey now, whenever it changed, and every few seconds, until the sink closes.
    fn watch(&self, sink: SurveySink) -> Answer<'_, ()>;

    /// Sends lines until there are no more, or with `follow` until the sink closes.
    fn logs(&self, query: LogQuery, sink: LogSink) -> Answer<'_, ()>;

    /// Sends events after the one numbered `after`.
    fn events(&self, after: u64, follow: bool, sink: EventSink) -> Answer<'_, ()>;

    /// Entries `from..=to` of the agreed log, oldest first; it may stop once they hold `max_bytes`.
    fn history(&self, from: u64, to: u64, max_bytes: usize) -> Answer<'_, Vec<Intent>>;

    fn forks(&self) -> Answer<'_, Vec<Fork>>;

    /// Begins or resumes an upload.
    fn upload(&self, artifact: Artifact) -> Answer<'_, Box<dyn Upload>>;

    /// Takes a node's signed claim of an invite, and answers with the witnessed claim.
    fn claim(&self, claim: Vec<u8>) -> Answer<'_, Vec<u8>>;

    /// Nodes that ask to join.
    fn pending(&self) -> Answer<'_, Vec<PendingNode>>;

    /// Dials an address now and remembers it.
    fn peer_add(&self, address: String) -> Answer<'_, ()>;

    /// Takes the owner's signed genesis where an owner is pinned and no realm is known yet.
    fn adopt(&self, genesis: Vec<u8>) -> Answer<'_, ()>;

    /// The witnessed claims by which this node came into the realm, its own first; none where
    /// the log names it.
    fn standing(&self) -> Answer<'_, Vec<Vec<u8>>>;
}

/// An upload under way. Dropping it keeps what was received, so that it can be resumed.
pub trait Upload {
    /// Bytes already here, from the start on; equal to the size when nothing is missing.
    fn received(&self) -> u64;

    /// Takes the bytes at `offset`, which is where the last write ended, and answers how many are here.
    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Answer<'_, u64>;

    /// Verifies the whole and makes it durable.
    fn finish(&mut self) -> Answer<'_, ()>;
}

/// What anyone may know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicInfo {
    pub node: PublicKey,
    /// Version of the program.
    pub version: String,
    /// None when the node belongs to no realm, or does not say.
    pub realm: Option<RealmId>,
    pub name: Option<String>,
}

/// All that is needed to sign the next intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    /// `Signed<Entry>` as on the wire; `Signed<Genesis>` when `seq` is 0.
    pub entry: Vec<u8>,
    /// Canonical folded state before the entry; empty when `seq` is 0.
    pub parent_state: Vec<u8>,
    pub payload: Vec<u8>,
    /// Every entry that a merge names: its heads, and what it applies again. Empty for other kinds.
    pub named: Vec<Intent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadId {
    pub seq: u64,
    pub hash: Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    pub seq: u64,
    /// Nodes that are known to have it on disk; at least the one that answers.
    pub durable_on: u32,
}

/// An entry with its payload, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub entry: Vec<u8>,
    /// None when it was erased, as superseded payloads may be.
    pub payload: Option<Vec<u8>>,
}

/// Two or more entries with one sequence number, and what follows each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    pub seq: u64,
    pub branches: Vec<Branch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// From the fork's `seq` on, oldest first.
    pub entries: Vec<Intent>,
}

/// A node that asked to join and waits for its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingNode {
    pub key: PublicKey,
    /// What the node calls itself: a claim.
    pub name: String,
    pub tags: Vec<String>,
    pub address: String,
    pub first_seen: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// None is every component.
    pub component: Option<String>,
    /// Only the last so many lines.
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub follow: bool,
    /// Lines of the run before the present one.
    pub previous: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub at: Timestamp,
    pub component: String,
    pub node: String,
    pub index: u32,
    pub stream: LogStream,
    /// As the cell wrote it, without the end of the line; need not be UTF-8.
    pub text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Out,
    Err,
    /// What the agent says about the cell.
    Agent,
}

/// Something that happened on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Rises by one; a gap means that older events were dropped.
    pub seq: u64,
    pub at: Timestamp,
    pub kind: String,
    pub subject: String,
    pub message: String,
}
