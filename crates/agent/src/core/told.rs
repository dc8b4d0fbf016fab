//! What this node tells who asks: a survey, a status made of it, and what it counts.

use realm_p2p::PeerInfo;
use realm_rpc::{
    ErrorCode, RpcError, Survey,
    status::{NodeState, Status},
};

use super::Core;
use crate::metrics::Snapshot;

impl Core {
    /// What this node knows of its realm.
    pub(crate) fn survey(&self, peers: &[PeerInfo]) -> Result<Survey, RpcError> {
        crate::survey::survey(self, peers).ok_or_else(|| {
            RpcError::new(ErrorCode::NotFound, "this node is in no realm yet")
                .help("let it join: realm invite, then realm enroll on the node")
        })
    }

    /// The status that a reader of the survey would make of it.
    pub(crate) fn status(&mut self, peers: &[PeerInfo]) -> Result<Status, RpcError> {
        let survey = self.survey(peers)?;
        let state = self.state.as_ref().ok_or_else(|| {
            RpcError::new(
                ErrorCode::NotFound,
                "the log of this node's realm is empty yet",
            )
        })?;
        let me = self.key.public();
        Ok(self.reader.read(state, me, &survey).status)
    }

    /// What this node counts; connections and disk are asked of those who know them.
    pub(crate) fn metrics(&self) -> Snapshot {
        let me = self.key.public();
        let mut snapshot = Snapshot {
            node: self.node_name(&me),
            version: crate::VERSION,
            ready: self.approved.contains_key(&me),
            process: self.reporter.process(),
            cells: self.supervisor.metrics(),
            ..Snapshot::default()
        };
        if let Some(state) = &self.state {
            snapshot.revision = state.revision;
            snapshot.forked = self.forked;
            for component in realm_planner::status::components(state, &self.nodes()) {
                let name = component.state.name().to_owned();
                *snapshot.components.entry(name).or_default() += 1;
            }
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
        snapshot
    }
}
