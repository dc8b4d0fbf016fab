//! How each component stands: what was asked, what the nodes report, and what lies between.

use realm_manifest::{
    ComponentName,
    identity::PublicKey,
    report::{CellReport, CellState, Reason},
};

use crate::{Assignment, Component, Nodes, State, cell_digest, placement};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentState {
    Pending,
    Starting,
    Running,
    Degraded,
    Done,
    Stopped,
    Failed,
    Waiting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentStatus {
    pub name: ComponentName,
    pub state: ComponentState,
    pub reason: Option<Reason>,
    /// Cells that should be there; those of nodes that are away are not counted for a component
    /// that runs everywhere.
    pub desired: u32,
    /// Cells that are as asked: running, or done, or a library that is in place.
    pub running: u32,
    pub desired_nodes: Vec<PublicKey>,
    /// Every reported cell of this component, with the node that reports it.
    pub cells: Vec<(PublicKey, CellReport)>,
    pub drift: Vec<Drift>,
}

/// A cell that should be there and is not as asked, or is there and should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// None where no node is found that could take it.
    pub node: Option<PublicKey>,
    pub index: u32,
    pub want: bool,
    pub have: Option<CellState>,
    pub reason: Option<Reason>,
}

impl ComponentState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        }
    }
}

/// The status of every component.
pub fn components(state: &State, nodes: &Nodes) -> Vec<ComponentStatus> {
    let assignment = placement::assign(state, nodes);
    state
        .components
        .iter()
        .map(|(name, component)| one(name, component, nodes, &assignment))
        .collect()
}

fn one(
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    assignment: &Assignment,
) -> ComponentStatus {
    let digest = cell_digest(&component.spec);
    let cells = reported(name, nodes);
    let mut drift = Vec::new();
    let mut good = Vec::new();
    let mut desired_nodes = Vec::new();
    let placed = assignment.get(name);
    let mut placed_cells = 0;
    for (index, holders) in placed.into_iter().flatten() {
        for node in holders {
            placed_cells += 1;
            if !desired_nodes.contains(node) {
                desired_nodes.push(*node);
            }
            let cell = cells
                .iter()
                .find(|(key, cell)| key == node && cell.index == *index)
                .map(|(_, cell)| cell);
            let current =
                cell.filter(|cell| cell.spec == digest && cell.generation >= component.generation);
            let present = nodes.get(node).is_some_and(|view| view.present);
            match current {
                Some(cell) if present && is_good(cell.state) => good.push(cell.state),
                _ => drift.push(missing(*node, *index, cell, present)),
            }
        }
    }
    // A component that runs everywhere is asked of every node that matches and is here, also of
    // one that declined it or has no room: what a node cannot do must show.
    let refused: Vec<PublicKey> = placement::chosen(component, nodes)
        .into_iter()
        .filter(|_| component.run && component.spec.replicas.is_none())
        .filter(|key| nodes.get(key).is_some_and(|view| view.present))
        .filter(|key| !desired_nodes.contains(key))
        .collect();
    for node in &refused {
        drift.push(Drift {
            node: Some(*node),
            index: 0,
            want: true,
            have: None,
            reason: Some(refusal(name, nodes, node)),
        });
    }
    let desired = match component.spec.replicas {
        _ if !component.run => 0,
        Some(replicas) => replicas,
        None => placed_cells + u32::try_from(refused.len()).unwrap_or(u32::MAX),
    };
    desired_nodes.extend(refused);
    for index in 0..component
        .spec
        .replicas
        .filter(|_| component.run)
        .unwrap_or(0)
    {
        if placed.is_none_or(|placed| !placed.contains_key(&index)) {
            drift.push(unplaced(name, component, nodes, index));
        }
    }
    let running = u32::try_from(good.len()).unwrap_or(u32::MAX);
    let remark = cells.iter().find_map(|(_, cell)| cell.reason.clone());
    let (state, reason) = judge(name, component, nodes, desired, &good, &drift, remark);
    desired_nodes.sort();
    ComponentStatus {
        name: name.clone(),
        state,
        reason,
        desired,
        running,
        desired_nodes,
        cells,
        drift,
    }
}

fn judge(
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    desired: u32,
    good: &[CellState],
    drift: &[Drift],
    remark: Option<Reason>,
) -> (ComponentState, Option<Reason>) {
    if !component.run || component.spec.replicas == Some(0) {
        return (ComponentState::Stopped, None);
    }
    if desired == 0 {
        return (
            ComponentState::Waiting,
            Some(nowhere(name, component, nodes)),
        );
    }
    if drift.is_empty() {
        // A library is in place and never runs: its reason says so. What met a limit and goes
        // on says which.
        let finished = |state: &CellState| matches!(state, CellState::Done | CellState::Library);
        let state = if good.iter().all(finished) {
            ComponentState::Done
        } else {
            ComponentState::Running
        };
        return (state, remark);
    }
    let reason = drift.iter().find_map(|drift| drift.reason.clone());
    let have = |wanted: &[CellState]| {
        drift
            .iter()
            .any(|drift| drift.have.is_some_and(|have| wanted.contains(&have)))
    };
    let state = if !good.is_empty() {
        ComponentState::Degraded
    } else if have(&[CellState::Failed, CellState::Backoff]) {
        ComponentState::Failed
    } else if drift.iter().all(|drift| drift.node.is_none()) {
        ComponentState::Waiting
    } else if have(&[
        CellState::Pulling,
        CellState::Compiling,
        CellState::Starting,
    ]) {
        ComponentState::Starting
    } else {
        ComponentState::Pending
    };
    (state, reason)
}

fn reported(name: &ComponentName, nodes: &Nodes) -> Vec<(PublicKey, CellReport)> {
    nodes
        .iter()
        .flat_map(|(key, node)| {
            let cells = node.report.iter().flat_map(|report| &report.cells);
            cells
                .filter(|cell| cell.component == *name)
                .map(|cell| (*key, cell.clone()))
        })
        .collect()
}

fn is_good(state: CellState) -> bool {
    matches!(
        state,
        CellState::Running | CellState::Done | CellState::Library
    )
}

fn missing(node: PublicKey, index: u32, cell: Option<&CellReport>, present: bool) -> Drift {
    let reason = if present {
        cell.and_then(|cell| cell.reason.clone())
    } else {
        Some(reason(
            "node-lost",
            "the node it belongs to is away".into(),
            None,
        ))
    };
    Drift {
        node: Some(node),
        index,
        want: true,
        have: cell.map(|cell| cell.state),
        reason,
    }
}

fn unplaced(name: &ComponentName, component: &Component, nodes: &Nodes, index: u32) -> Drift {
    let reason = Some(nowhere(name, component, nodes));
    Drift {
        node: None,
        index,
        want: true,
        have: None,
        reason,
    }
}

/// Why this node has no cell of a component that it should run.
fn refusal(name: &ComponentName, nodes: &Nodes, node: &PublicKey) -> Reason {
    let report = nodes.get(node).and_then(|view| view.report.as_ref());
    let declined = report
        .into_iter()
        .flat_map(|report| &report.declined)
        .find(|declined| declined.component == *name);
    match declined {
        Some(declined) => declined.reason.clone(),
        None => {
            let help = "free memory on the node, or lower --memory-max-mb";
            reason("no-room", "the node has no room for it".into(), Some(help))
        }
    }
}

/// Why no node can take a cell of this component.
fn nowhere(name: &ComponentName, component: &Component, nodes: &Nodes) -> Reason {
    let chosen = placement::chosen(component, nodes);
    if nodes.is_empty() {
        let help = "approve one: realm nodes approve, or let one join: realm invite";
        return reason("no-nodes", "no node is approved yet".into(), Some(help));
    }
    if chosen.is_empty() {
        let help = "see the tags: realm nodes ls; change the placement: realm push --tag";
        return reason(
            "no-match",
            "no node matches its nodes and tags".into(),
            Some(help),
        );
    }
    let declined = chosen.iter().find_map(|key| {
        let report = nodes.get(key)?.report.as_ref()?;
        report
            .declined
            .iter()
            .find(|no| no.component == *name)
            .map(|no| no.reason.clone())
    });
    if let Some(declined) = declined {
        return declined;
    }
    if placement::eligible(name, component, nodes).is_empty() {
        return reason(
            "nodes-away",
            "every node that could run it is away".into(),
            None,
        );
    }
    let help = "free memory on a node, lower --memory-max-mb, or add a node";
    reason("no-room", "no node has room for it".into(), Some(help))
}

fn reason(code: &str, message: String, help: Option<&str>) -> Reason {
    Reason {
        code: code.into(),
        message,
        help: help.map(str::to_owned),
    }
}
