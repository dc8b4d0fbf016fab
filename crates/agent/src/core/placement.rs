//! What this node runs: how it sees the others, and which steps of the plan it takes yet.

use realm_identity::PublicKey;
use realm_planner::{Nodes, PlanInput, Step, plan};
use realm_protocol::{MemberState, Now};

use super::Core;
use crate::presence::Sight;

/// At the start nobody knows anybody: the first view needs no such wait.
const START_GRACE_MS: u64 = 3_000;

/// What this node had the time to learn before it acts.
#[derive(Debug, Clone, Copy)]
struct Learnt {
    /// The log, as far as its peers have it.
    log: bool,
    /// What others run, if they say so at all.
    others: bool,
}

impl Core {
    /// The approved nodes as placement sees them.
    pub(crate) fn nodes(&self) -> Nodes {
        let now = self.clock.now();
        self.approved
            .iter()
            .map(|(key, approval)| {
                let report = self.reports.get(key).map(|seen| seen.report.clone());
                let sight = self.sight(key, now);
                let view = realm_rpc::View {
                    present: sight.present,
                    settled: sight.settled,
                    boot_id: self.node.boot_id(*key),
                    ..realm_rpc::View::default()
                };
                let node = crate::status::node_view(approval, report, &view);
                (*key, node)
            })
            .collect()
    }

    /// Whether a node answers; this one always does.
    pub(crate) fn is_present(&self, key: &PublicKey) -> bool {
        let member = self.node.members().get(key).map(|member| member.state);
        *key == self.key.public() || member.is_some_and(|state| state != MemberState::Lost)
    }

    pub(crate) fn sight(&self, key: &PublicKey, now: Now) -> Sight {
        let start = self.started_mono + START_GRACE_MS;
        match *key == self.key.public() {
            true => Sight::ITSELF,
            false => self
                .presence
                .sight(key, self.is_present(key), start, now.mono),
        }
    }

    /// A node acts on its own view: during a partition at least as many cells run as were asked.
    pub(super) fn plan(&mut self) {
        let Some(state) = &self.state else { return };
        let nodes = self.nodes();
        let own = self.supervisor.own_cells();
        let input = PlanInput {
            state,
            me: self.key.public(),
            nodes: &nodes,
            own: &own,
        };
        let learnt = Learnt {
            log: self.node.is_caught_up(),
            others: self.clock.now().mono >= self.member_since + START_GRACE_MS,
        };
        for step in steps(&input, learnt) {
            self.supervisor.apply(step);
        }
    }
}

/// The steps of the plan that are taken now: none by a newcomer that may not know who is out, and
/// of what another one may run, none before that one had a chance to say so.
fn steps(input: &PlanInput<'_>, learnt: Learnt) -> Vec<Step> {
    if !learnt.log {
        return Vec::new();
    }
    let mut steps = plan(input);
    if !learnt.others && !hears_others(input) {
        let is_shared =
            |step: &Step| matches!(step, Step::Start { spec, .. } if spec.replicas.is_some());
        steps.retain(|step| !is_shared(step));
    }
    steps
}

/// Whether every other node has said what it runs.
fn hears_others(input: &PlanInput<'_>) -> bool {
    let mut others = input.nodes.iter().filter(|(key, _)| **key != input.me);
    others.all(|(_, node)| node.live_report().is_some())
}

#[cfg(test)]
mod tests;
