//! The status as people and programs read it, put together from the log and from a survey.
//!
//! What is asked comes from the folded log, what runs from the reports, and each report counts only
//! if the node that it is about has signed it. Whether a node answers, and how it is reached, is the
//! word of the node that was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use realm_identity::{PublicKey, RealmId, Signed, WitnessedClaim};
use realm_manifest::report::{self, CellReport, NodeReport};
use realm_planner::{
    NodeView, Nodes, SetBy, Standing, State,
    status::{ComponentStatus, components},
};
use realm_rpc::{
    Sighting, Survey, View,
    status::{
        API_VERSION, Cell, CellState, Component, ComponentState, Node, NodeState, Realm, Setter,
        Status, time,
    },
};

use crate::{
    approvals::{Approval, ByChain, approved},
    fold::chain,
    naming,
    reason::plain,
    whereabouts,
};

mod drift;
mod heard;
mod lookout;
mod told;

pub use told::Told;

/// Makes a status of each survey, and keeps what it checked for the next one.
#[derive(Debug, Default)]
pub struct Reader {
    reports: BTreeMap<PublicKey, Checked>,
    approvals: Option<Approvals>,
}

/// What was handed over as a node's report, and what it is, or why it does not count.
#[derive(Debug)]
struct Checked {
    wire: Arc<[u8]>,
    report: Result<Arc<NodeReport>, String>,
}

/// What a survey shows.
#[derive(Debug)]
pub struct Picture {
    pub status: Status,
    /// Words that were handed over as a node's and are not: nothing of them is in the status.
    pub unsigned: Vec<Unsigned>,
    /// What each approved node that is here says of itself, by name; None where its word is missing.
    /// Also of components that are not asked for any more, which no status names.
    pub told: BTreeMap<String, Option<Told>>,
}

/// A report that does not prove that it is the node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    pub node: String,
    pub why: String,
}

/// Which nodes are approved, with what that was found from.
#[derive(Debug)]
struct Approvals {
    owners: Vec<PublicKey>,
    chain: ByChain,
    claims: Vec<Vec<u8>>,
    read: Vec<WitnessedClaim>,
    approved: BTreeMap<PublicKey, Approval>,
}

impl Reader {
    /// `state` must be verified, `asked` is the node that the survey is from.
    pub fn read(&mut self, state: &State, asked: PublicKey, survey: &Survey) -> Picture {
        self.check_reports(state.realm, survey);
        let found = self.approvals(state, survey);
        let (approved, claims) = (found.approved.clone(), found.read.clone());
        let scene = Scene {
            state,
            asked,
            survey,
            approved,
            claims,
            reports: &self.reports,
        };
        Picture {
            unsigned: scene.unsigned(),
            told: scene.told(),
            status: scene.status(),
        }
    }

    fn check_reports(&mut self, realm: RealmId, survey: &Survey) {
        let mut before = std::mem::take(&mut self.reports);
        for (key, sighting) in &survey.nodes {
            let Some(wire) = &sighting.report else {
                continue;
            };
            let known = before.remove(key).filter(|known| known.wire == *wire);
            let checked = known.unwrap_or_else(|| Checked {
                wire: wire.clone(),
                report: check(wire, *key, realm),
            });
            self.reports.insert(*key, checked);
        }
    }

    fn approvals(&mut self, state: &State, survey: &Survey) -> &Approvals {
        let owners = state.owners();
        let chain = ByChain::of(state);
        let claims: Vec<Vec<u8>> = survey
            .nodes
            .values()
            .flat_map(|sighting| sighting.claims.iter().cloned())
            .collect();
        let known = self.approvals.take().filter(|known| {
            known.owners == owners && known.chain == chain && known.claims == claims
        });
        let known = known.unwrap_or_else(|| {
            let read: Vec<WitnessedClaim> = claims
                .iter()
                .filter_map(|wire| WitnessedClaim::from_wire(wire).ok())
                .collect();
            Approvals {
                approved: approved(state.realm, &owners, &chain, &read),
                read,
                owners,
                chain,
                claims,
            }
        });
        self.approvals.insert(known)
    }
}

fn check(wire: &[u8], node: PublicKey, realm: RealmId) -> Result<Arc<NodeReport>, String> {
    let report = Signed::<NodeReport>::from_wire(wire).map_err(|error| chain(&error))?;
    if report.node != node {
        return Err(format!("it is the word of {}", report.node));
    }
    if report.realm != realm {
        return Err("it is of another realm".to_owned());
    }
    Ok(heard::heard(report.into_inner()).into())
}

/// How a node looks to placement: its own tags count beside those its owner gave it.
pub(crate) fn node_view(
    approval: &Approval,
    report: Option<Arc<NodeReport>>,
    view: &View,
) -> NodeView {
    NodeView {
        tags: tags(Some(approval), report.as_deref()),
        present: view.present,
        settled: view.settled,
        boot_id: view.boot_id,
        report,
    }
}

fn tags(approval: Option<&Approval>, report: Option<&NodeReport>) -> Vec<realm_manifest::Tag> {
    let approval = approval.into_iter().flat_map(|approval| &approval.tags);
    let report = report.into_iter().flat_map(|report| &report.tags);
    let tags: BTreeSet<_> = approval.chain(report).cloned().collect();
    tags.into_iter().collect()
}

/// Everything one status is made from.
struct Scene<'a> {
    state: &'a State,
    asked: PublicKey,
    survey: &'a Survey,
    approved: BTreeMap<PublicKey, Approval>,
    claims: Vec<WitnessedClaim>,
    reports: &'a BTreeMap<PublicKey, Checked>,
}

impl Scene<'_> {
    fn status(&self) -> Status {
        let placed = self.placed();
        let statuses = components(self.state, &placed);
        let mut nodes: Vec<Node> = self.keys().into_iter().map(|key| self.node(key)).collect();
        nodes.sort_by(|a, b| (&a.name, a.key).cmp(&(&b.name, b.key)));
        Status {
            api_version: API_VERSION.to_owned(),
            realm: Realm {
                id: self.state.realm,
                name: self.state.name.clone(),
            },
            revision: self.state.revision,
            forked: self.survey.forked,
            nodes,
            components: statuses
                .iter()
                .map(|status| self.component(status))
                .collect(),
            drift: self.drift(&statuses, &placed),
            alarms: self.alarms(),
        }
    }

    fn unsigned(&self) -> Vec<Unsigned> {
        let bad = self.reports.iter().filter_map(|(key, checked)| {
            let why = checked.report.as_ref().err()?.clone();
            let node = self.name(key);
            Some(Unsigned { node, why })
        });
        bad.collect()
    }

    /// Every node to speak of. Who was taken out shows only where it asks to come back.
    fn keys(&self) -> BTreeSet<PublicKey> {
        let named = self.state.nodes.iter();
        let named = named.filter(|(_, node)| node.standing != Standing::Removed);
        let mut keys: BTreeSet<PublicKey> = named.map(|(key, _)| *key).collect();
        keys.extend(self.approved.keys());
        let seen = self.survey.nodes.iter();
        let shown = seen.filter(|(key, sighting)| {
            let record = self.state.nodes.get(key);
            let removed = record.is_some_and(|node| node.standing == Standing::Removed);
            // It says what it calls itself when it asks.
            !removed || sighting.view.name.is_some()
        });
        keys.extend(shown.map(|(key, _)| *key));
        keys.insert(self.asked);
        keys
    }

    /// The approved nodes as placement sees them.
    fn placed(&self) -> Nodes {
        let nodes = self.approved.iter().map(|(key, approval)| {
            let report = self.reported(key).cloned();
            (*key, node_view(approval, report, &self.view(key)))
        });
        nodes.collect()
    }

    fn report(&self, key: &PublicKey) -> Option<&NodeReport> {
        self.reported(key).map(|report| &**report)
    }

    fn reported(&self, key: &PublicKey) -> Option<&Arc<NodeReport>> {
        self.reports.get(key)?.report.as_ref().ok()
    }

    fn view(&self, key: &PublicKey) -> View {
        let sighting: Option<&Sighting> = self.survey.nodes.get(key);
        let view = sighting.map(|sighting| sighting.view.clone());
        View {
            present: self.is_here(key),
            ..view.unwrap_or_default()
        }
    }

    /// The name the owner gave, else the one the node reports, else what it calls itself to those
    /// it asks to let it join, else the start of its key.
    fn name(&self, key: &PublicKey) -> String {
        let approval = self.approved.get(key);
        if let Some(name) = approval.and_then(|approval| approval.name.as_ref()) {
            return name.to_string();
        }
        let given = naming::recorded(self.state, &self.claims, key)
            .or_else(|| naming::invited(&self.claims, key));
        if let Some(name) = given {
            return name.to_string();
        }
        if let Some(report) = self.report(key) {
            return report.name.to_string();
        }
        // Strangers that ask to join choose it.
        let asked = self.view(key).name.map(|name| plain(&name));
        asked.unwrap_or_else(|| key.short())
    }

    fn is_here(&self, key: &PublicKey) -> bool {
        let sighting = self.survey.nodes.get(key);
        // Who was asked answers, after all.
        *key == self.asked || sighting.is_some_and(|sighting| sighting.view.present)
    }

    /// Why nothing of a node counts, where that is so.
    fn not_signed(&self, key: &PublicKey) -> Option<report::Reason> {
        let why = self.reports.get(key)?.report.as_ref().err()?;
        let node = self.name(key);
        Some(report::Reason {
            code: "unsigned".into(),
            message: format!("what was handed over as {node}'s word is not signed by it: {why}"),
            help: Some("ask another node: --via ADDR".into()),
        })
    }

    fn node_state(&self, key: &PublicKey) -> NodeState {
        let standing = self.state.nodes.get(key).map(|node| node.standing);
        if standing == Some(Standing::Revoked) {
            return NodeState::Revoked;
        }
        if !self.approved.contains_key(key) {
            return NodeState::Pending;
        }
        if !self.is_here(key) {
            return NodeState::Lost;
        }
        match self.report(key).map(|report| report.state) {
            Some(report::NodeState::Incompatible) => NodeState::Incompatible,
            Some(report::NodeState::Draining) => NodeState::Draining,
            _ if self.state.is_draining(key) => NodeState::Draining,
            _ => NodeState::Ready,
        }
    }

    fn node(&self, key: PublicKey) -> Node {
        let view = self.view(&key);
        let report = self.report(&key);
        let tags = tags(self.approved.get(&key), report);
        let reported = report.map_or(&[][..], |report| &report.addresses);
        let address = whereabouts::address(view.address, reported.first().cloned());
        let state = self.node_state(&key);
        // Where nobody answers any more, the connection is closed some seconds later.
        let link = view.link.filter(|_| state != NodeState::Lost);
        Node {
            name: self.name(&key),
            key,
            state,
            version: report.map(|report| report.version.clone()),
            tags: tags.iter().map(ToString::to_string).collect(),
            address: whereabouts::of_link(address, link, reported),
            circuits: report.map_or_else(Vec::new, |report| {
                whereabouts::circuits(&report.addresses, |key| self.approved.contains_key(key))
            }),
            link,
            rtt_ms: link
                .and(view.rtt_micros)
                .map(|micros| micros as f64 / 1000.0),
            cpu_percent: report
                .and_then(|report| report.cpu_hundredths)
                .map(|hundredths| f64::from(hundredths) / 100.0),
            memory_bytes: report.and_then(|report| report.memory_bytes),
            cell_count: report.map(|report| report.cells.len() as u64),
            sealing_certificate: report.and_then(|report| {
                Some(realm_identity::sealing::to_text(report.sealing.as_ref()?))
            }),
            last_seen: view.last_seen.and_then(time),
            witnesses: self.witnesses(&key),
            problems: self.problems(&key).to_vec(),
        }
    }

    fn component(&self, status: &ComponentStatus) -> Component {
        let asked = &self.state.components[&status.name];
        let limits = &asked.spec.limits;
        Component {
            name: status.name.to_string(),
            digest: asked.spec.artifact.sha256,
            desired: u64::from(status.desired),
            running: u64::from(status.running),
            state: component_state(status.state),
            reason: status.reason.clone(),
            set_by: realm_rpc::status::SetBy {
                by: match asked.set_by {
                    SetBy::Push => Setter::Push,
                    SetBy::Apply => Setter::Apply,
                },
                revision: asked.revision,
            },
            desired_nodes: status
                .desired_nodes
                .iter()
                .map(|key| self.name(key))
                .collect(),
            cells: status
                .cells
                .iter()
                .map(|(key, report)| self.cell(key, report, limits.memory_max_bytes()))
                .collect(),
        }
    }

    fn cell(&self, key: &PublicKey, report: &CellReport, memory_max: u64) -> Cell {
        let node = self.name(key);
        let here = self.is_here(key);
        let retry = report.retry.filter(|_| here);
        let lost = || report::Reason {
            code: "lost".into(),
            message: format!("{node} is away: what runs there is not known"),
            help: Some(format!(
                "see when it was last seen: realm nodes show {node}"
            )),
        };
        let reason = match here {
            true => report.reason.clone(),
            false => Some(lost()),
        };
        Cell {
            id: format!("{node}/{}#{}", report.component, report.index),
            node,
            index: report.index,
            state: here.then(|| cell_state(report.state)),
            reason,
            restarts: u64::from(report.restarts),
            crashes: u64::from(retry.map_or(0, |retry| retry.crashes)),
            restart_at: retry.and_then(|retry| retry.at).and_then(time),
            memory_bytes: Some(report.memory_bytes),
            memory_max_bytes: Some(memory_max),
            fuel_used: report.fuel_used,
            preemptions: Some(report.preemptions),
            started_at: report.started_at.and_then(time),
            exit_code: report.exit_code,
        }
    }
}

fn component_state(state: realm_planner::status::ComponentState) -> ComponentState {
    use realm_planner::status::ComponentState as Planned;
    match state {
        Planned::Pending => ComponentState::Pending,
        Planned::Starting => ComponentState::Starting,
        Planned::Running => ComponentState::Running,
        Planned::Degraded => ComponentState::Degraded,
        Planned::Done => ComponentState::Done,
        Planned::Stopped => ComponentState::Stopped,
        Planned::Failed => ComponentState::Failed,
        Planned::Waiting => ComponentState::Waiting,
    }
}

/// A library is in place and not run: for who reads the status it is done, and the reason says why.
pub(crate) fn cell_state(state: report::CellState) -> CellState {
    match state {
        report::CellState::Pulling => CellState::Pulling,
        report::CellState::Compiling => CellState::Compiling,
        report::CellState::Starting => CellState::Starting,
        report::CellState::Running => CellState::Running,
        report::CellState::Backoff => CellState::Backoff,
        report::CellState::Done | report::CellState::Library => CellState::Done,
        report::CellState::Failed => CellState::Failed,
        report::CellState::Stopped => CellState::Stopped,
    }
}
