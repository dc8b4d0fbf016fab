//! The status as operators read it, put together from the log, the reports and the network.

use realm_identity::PublicKey;
use realm_manifest::report::{self, CellReport};
use realm_p2p::PeerInfo;
use realm_planner::{
    SetBy, Standing, State,
    status::{ComponentStatus, components},
};
use realm_protocol::MemberState;
use realm_rpc::status::{
    API_VERSION, Cell, CellState, Component, ComponentState, Drift, Link, Node, NodeState, Realm,
    Setter, Status, time,
};

use crate::core::Core;

pub(crate) fn status(core: &Core, state: &State, peers: &[PeerInfo]) -> Status {
    let statuses = components(state, &core.nodes());
    let mut keys: Vec<PublicKey> = core.approved.keys().copied().collect();
    keys.extend(
        state
            .nodes
            .iter()
            .filter(|(key, node)| {
                // Who was taken out shows only where it asks to come back.
                node.standing != Standing::Removed && !core.approved.contains_key(key)
            })
            .map(|(key, _)| *key),
    );
    keys.extend(
        core.node
            .joins()
            .map(|join| join.node)
            .filter(|key| !keys.contains(key))
            .collect::<Vec<_>>(),
    );
    let me = core.key.public();
    if !keys.contains(&me) {
        keys.push(me);
    }
    let mut nodes: Vec<Node> = keys
        .iter()
        .map(|key| node(core, state, *key, peers))
        .collect();
    nodes.sort_by(|a, b| (&a.name, a.key).cmp(&(&b.name, b.key)));
    let drift = statuses
        .iter()
        .flat_map(|status| drift(core, status))
        .collect();
    Status {
        api_version: API_VERSION.to_owned(),
        realm: Realm {
            id: state.realm,
            name: state.name.clone(),
        },
        revision: state.revision,
        forked: core.forked,
        nodes,
        components: statuses
            .iter()
            .map(|status| component(core, state, status))
            .collect(),
        drift,
    }
}

fn node(core: &Core, state: &State, key: PublicKey, peers: &[PeerInfo]) -> Node {
    let me = core.key.public();
    let seen = core.reports.get(&key);
    let report = seen.map(|seen| &seen.report);
    let peer = peers.iter().find(|peer| peer.key == key);
    let draining = state.is_draining(&key);
    let standing = state.nodes.get(&key).map(|node| node.standing);
    let here = is_here(core, &key);
    let state = if standing == Some(Standing::Revoked) {
        NodeState::Revoked
    } else if !core.approved.contains_key(&key) {
        NodeState::Pending
    } else if !here {
        NodeState::Lost
    } else {
        match report.map(|report| report.state) {
            Some(report::NodeState::Incompatible) => NodeState::Incompatible,
            _ if draining => NodeState::Draining,
            Some(report::NodeState::Draining) => NodeState::Draining,
            _ => NodeState::Ready,
        }
    };
    let mut tags: Vec<String> = core
        .approved
        .get(&key)
        .iter()
        .flat_map(|approval| approval.tags.iter())
        .chain(report.iter().flat_map(|report| report.tags.iter()))
        .map(ToString::to_string)
        .collect();
    tags.sort();
    tags.dedup();
    let link = if key == me {
        Some(Link::Itself)
    } else {
        peer.map(|peer| match peer.link {
            realm_p2p::Link::Quic => Link::Quic,
            realm_p2p::Link::Tcp => Link::Tcp,
            realm_p2p::Link::Relay => Link::Relay,
        })
    };
    let address = if key == me {
        core.addresses.first().cloned()
    } else {
        let known = peer.and_then(|peer| peer.addresses.first().cloned());
        known.or_else(|| report.and_then(|report| report.addresses.first().cloned()))
    };
    Node {
        name: core.node_name(&key),
        key,
        state,
        version: report.map(|report| report.version.clone()),
        tags,
        address,
        link,
        rtt_ms: peer
            .and_then(|peer| peer.rtt)
            .map(|rtt| rtt.as_secs_f64() * 1000.0),
        cpu_percent: report
            .and_then(|report| report.cpu_hundredths)
            .map(|hundredths| f64::from(hundredths) / 100.0),
        memory_bytes: report.and_then(|report| report.memory_bytes),
        cell_count: report.map(|report| report.cells.len() as u64),
        last_seen: seen.and_then(|seen| {
            time(if key == me {
                crate::clock::wall()
            } else {
                seen.at
            })
        }),
    }
}

/// Whether a node answers; this one always does.
fn is_here(core: &Core, key: &PublicKey) -> bool {
    let member = core.node.members().get(key).map(|member| member.state);
    *key == core.key.public() || matches!(member, Some(MemberState::Up | MemberState::Suspect))
}

fn component(core: &Core, state: &State, status: &ComponentStatus) -> Component {
    let asked = &state.components[&status.name];
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
            .map(|key| core.node_name(key))
            .collect(),
        cells: status
            .cells
            .iter()
            .map(|(key, report)| cell(core, *key, report, limits.memory_max_bytes()))
            .collect(),
    }
}

fn cell(core: &Core, key: PublicKey, report: &CellReport, memory_max: u64) -> Cell {
    let node = core.node_name(&key);
    let here = is_here(core, &key);
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
        memory_bytes: Some(report.memory_bytes),
        memory_max_bytes: Some(memory_max),
        fuel_used: report.fuel_used,
        preemptions: Some(report.preemptions),
        started_at: report.started_at.and_then(time),
        exit_code: report.exit_code,
    }
}

fn drift(core: &Core, status: &ComponentStatus) -> Vec<Drift> {
    status
        .drift
        .iter()
        .map(|drift| Drift {
            component: status.name.to_string(),
            node: drift.node.map(|key| core.node_name(&key)),
            index: drift.index,
            want: if drift.want { "running" } else { "stopped" }.to_owned(),
            have: match (drift.node, drift.have) {
                (Some(key), _) if !is_here(core, &key) => "lost".to_owned(),
                (_, Some(have)) => cell_state(have).to_string(),
                (_, None) => "nothing".to_owned(),
            },
            reason: drift.reason.clone(),
        })
        .collect()
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
