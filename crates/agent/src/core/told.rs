//! What this node tells who asks: a survey, what a status is made of, and what it counts.

use realm_p2p::PeerInfo;
use realm_rpc::{ErrorCode, RpcError, Survey, status::NodeState};

use super::Core;
use crate::{
    desk::{Counted, Grounds},
    metrics::Snapshot,
};

impl Core {
    /// What this node knows of its realm.
    pub(crate) fn survey(&self, peers: &[PeerInfo]) -> Result<Survey, RpcError> {
        crate::survey::survey(self, peers).ok_or_else(|| {
            RpcError::new(ErrorCode::NotFound, "this node is in no realm yet")
                .help("let it join: realm invite, then realm enroll on the node")
        })
    }

    /// What a reader of the survey makes a status of.
    pub(crate) fn grounds(&self, peers: &[PeerInfo]) -> Result<Grounds, RpcError> {
        let survey = self.survey(peers)?;
        let state = self.state.clone().ok_or_else(|| {
            RpcError::new(
                ErrorCode::NotFound,
                "the log of this node's realm is empty yet",
            )
        })?;
        Ok(Grounds {
            state,
            asked: self.key.public(),
            survey,
        })
    }

    /// What this node counts; connections and disk are asked of those who know them.
    pub(crate) fn metrics(&self) -> Counted {
        let me = self.key.public();
        let mut snapshot = Snapshot {
            node: self.node_name(&me),
            version: crate::VERSION,
            ready: self.unready().is_none(),
            process: self.reporter.process(),
            cells: self.supervisor.metrics(),
            offences: self.offenders.counts().clone(),
            problems: self.problems.iter().map(|one| one.code.clone()).collect(),
            ..Snapshot::default()
        };
        if let Some(state) = &self.state {
            snapshot.revision = state.revision;
            snapshot.forked = self.forked;
        }
        for key in self.approved.keys() {
            let draining = self
                .state
                .as_ref()
                .is_some_and(|state| state.is_draining(key));
            let state = match (self.is_present(key), draining) {
                (true, false) => NodeState::Ready,
                (true, true) => NodeState::Draining,
                (false, _) => NodeState::Lost,
            };
            *snapshot.nodes.entry(state.to_string()).or_default() += 1;
        }
        let placed = self.state.clone().map(|state| (state, self.nodes()));
        Counted { snapshot, placed }
    }
}
