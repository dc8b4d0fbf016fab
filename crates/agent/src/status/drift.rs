//! What is not as asked, row by row.

use realm_identity::PublicKey;
use realm_manifest::report::Reason;
use realm_planner::{
    Nodes,
    status::{self as planned, ComponentStatus, leftovers},
};
use realm_rpc::status::Drift;

use super::{Scene, Told, cell_state};

impl Scene<'_> {
    /// Also of components that are gone and still run somewhere, after those that are asked for.
    pub(super) fn drift(&self, statuses: &[ComponentStatus], placed: &Nodes) -> Vec<Drift> {
        let asked = statuses.iter().flat_map(|status| {
            let rows = status.drift.iter();
            rows.map(|drift| self.row(status.name.as_str(), drift))
        });
        let left = leftovers(self.state, placed);
        let left = left
            .iter()
            .map(|(name, drift)| self.row(name.as_str(), drift));
        asked.chain(left).collect()
    }

    fn row(&self, component: &str, drift: &planned::Drift) -> Drift {
        Drift {
            component: component.to_owned(),
            node: drift.node.map(|key| self.name(&key)),
            index: drift.index,
            want: if drift.want { "running" } else { "stopped" }.to_owned(),
            have: match (drift.node, drift.have) {
                (Some(key), _) if !self.is_here(&key) => "lost".to_owned(),
                (_, Some(have)) => cell_state(have).to_string(),
                (_, None) => "nothing".to_owned(),
            },
            reason: drift.reason.clone().or_else(|| {
                let node = drift.node?;
                self.not_signed(&node)
                    .or_else(|| self.not_taken(&node).filter(|_| !drift.want))
                    .or_else(|| self.problems(&node).first().cloned())
            }),
        }
    }

    /// Why a node goes on with what nobody asks for any more: it does not know that yet.
    fn not_taken(&self, key: &PublicKey) -> Option<Reason> {
        let told = Told::of(self.report(key)?);
        told.not_taken(&self.name(key), self.state.revision)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use realm_identity::{Genesis, Hash, RealmId, Signed, Timestamp};
    use realm_manifest::report::{Capacity, CellReport, CellState, NodeReport, NodeState};
    use realm_planner::State;
    use realm_rpc::{HeadId, Sighting, Survey, View};

    use super::*;
    use crate::{
        approvals::tests::{NOW, claim, key},
        reason::{DISK_FULL, reason},
        status::{Picture, Reader},
        supervisor::new_report,
    };

    /// The realm at revision 35, without components; node 10 is all there is.
    fn empty() -> State {
        let mut state = State::genesis(&Genesis::new(key(1).public(), "home".into(), [0; 32]));
        state.revision = 35;
        state
    }

    fn cell(component: &str) -> CellReport {
        let mut cell = new_report(&(component.parse().unwrap(), 0), Hash::of(b"spec"), 1);
        cell.state = CellState::Running;
        cell
    }

    fn report(realm: RealmId, revision: u64) -> NodeReport {
        NodeReport {
            node: key(10).public(),
            realm,
            boot_id: 1,
            seq: 1,
            at: Timestamp(1),
            revision,
            head: Hash::of(b"head"),
            state: NodeState::Ready,
            name: "a0".parse().unwrap(),
            tags: Vec::new(),
            version: String::new(),
            addresses: Vec::new(),
            cpu_hundredths: None,
            memory_bytes: None,
            capacity: Capacity::default(),
            declined: Vec::new(),
            cells: vec![cell("gone")],
            holds: Vec::new(),
            sealing: None,
            problems: Vec::new(),
        }
    }

    /// What a status shows when node 10 says this and is here, or is away.
    fn picture(state: &State, said: NodeReport, present: bool) -> Picture {
        let signed = Signed::sign(said, &key(10)).unwrap_or_else(|never| match never {});
        let sighting = Sighting {
            view: View {
                present,
                ..View::default()
            },
            report: Some(signed.to_wire().into()),
            claims: vec![claim(50, 10, 10, NOW).to_wire()],
        };
        let survey = Survey {
            head: HeadId {
                seq: state.revision,
                hash: Hash::of(b"head"),
            },
            forked: false,
            nodes: BTreeMap::from([(key(10).public(), sighting)]),
        };
        Reader::default().read(state, key(2).public(), &survey)
    }

    #[test]
    fn cells_of_a_removed_component_show_until_they_are_gone() {
        let state = empty();
        let drift = |revision| {
            picture(&state, report(state.realm, revision), true)
                .status
                .drift
        };
        let behind = drift(33);
        let [row] = &behind[..] else {
            panic!("{behind:?}")
        };
        assert_eq!((&*row.component, row.index), ("gone", Some(0)));
        assert_eq!(row.node.as_deref(), Some("node-10"));
        assert_eq!((&*row.want, &*row.have), ("stopped", "running"));
        let reason = row.reason.as_ref().unwrap();
        assert_eq!(reason.code, "behind");
        assert_eq!(
            reason.message,
            "node-10 is at revision 33, and has not taken revision 35 yet"
        );

        let stopping = drift(35);
        assert_eq!(stopping.len(), 1, "it is told of until it is gone");
        assert_eq!(stopping[0].reason, None, "the node knows");

        let mut gone = report(state.realm, 35);
        gone.cells.clear();
        assert!(picture(&state, gone, true).status.drift.is_empty());
        let away = picture(&state, report(state.realm, 33), false);
        assert!(away.status.drift.is_empty(), "what is away is not known");
    }

    #[test]
    fn a_node_that_is_behind_says_why() {
        let state = empty();
        let mut said = report(state.realm, 33);
        let full = reason(DISK_FULL, "its disk is full".into(), Some("free space"));
        said.problems.push(full.clone());
        let picture = picture(&state, said, true);
        let reason = picture.status.drift[0].reason.clone().unwrap();
        assert!(
            reason
                .message
                .ends_with("has not taken revision 35 yet: its disk is full"),
            "{}",
            reason.message
        );
        assert_eq!(reason.help, full.help);
        let told = picture.told["node-10"].as_ref().unwrap();
        assert_eq!(told.not_taken("node-10", 35), Some(reason));
        assert_eq!(told.not_taken("node-10", 33), None);

        let mut said = report(state.realm, 33);
        said.state = NodeState::Incompatible;
        let told = Told::of(&said);
        assert_eq!(told.not_taken("a0", 35).unwrap().code, "incompatible");
    }
}
