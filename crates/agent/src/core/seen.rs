//! What another node last said of itself, as it is kept.

use std::sync::Arc;

use realm_identity::{PublicKey, Signed, Timestamp};
use realm_manifest::report::NodeReport;
use realm_store::Op;

/// A node's newest report, and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub report: Arc<NodeReport>,
    /// The report as on the wire, for who asks.
    pub wire: Arc<[u8]>,
    pub at: Timestamp,
}

impl Seen {
    pub fn new(report: Signed<NodeReport>, at: Timestamp) -> Self {
        Self {
            wire: report.to_wire().into(),
            report: Arc::new(report.into_inner()),
            at,
        }
    }

    pub(super) fn op(&self, key: &PublicKey) -> Op {
        Op::Report {
            node: *key.as_bytes(),
            seen_ms: self.at.as_millis(),
            wire: self.wire.to_vec(),
        }
    }
}
