//! How each component stands: what was asked, what the nodes report, and what lies between.

use realm_manifest::{
    ComponentName,
    identity::PublicKey,
    report::{CellReport, CellState, Reason},
};

use crate::{
    Assignment, Component, Counts, Nodes, State,
    placement::{self, declines, matches_placement},
    surplus::{is_current, live_cells, serves},
};

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
    /// Cells that are as asked: running, or done, or a library that is in place; at most as many
    /// as are desired. One that still runs on a node it is leaving counts.
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
    /// Counts per node; None where there is no node.
    pub index: Option<u32>,
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
        .map(|(name, component)| one(state, name, component, nodes, &assignment))
        .collect()
}

fn one(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    assignment: &Assignment,
) -> ComponentStatus {
    let none = Counts::new();
    let counts = assignment.get(name).unwrap_or(&none);
    let cells = reported(name, nodes);
    let mut drift = Vec::new();
    let mut good = Vec::new();
    for (node, index) in places(counts) {
        let cell = cells
            .iter()
            .find(|(key, cell)| *key == node && cell.index == index)
            .map(|(_, cell)| cell);
        let here = nodes
            .get(&node)
            .is_some_and(|view| view.live_report().is_some());
        match cell.filter(|cell| here && is_current(cell, component) && serves(cell.state)) {
            Some(cell) => good.push(cell.state),
            None => drift.push(missing(node, index, cell, nodes)),
        }
    }
    let mut desired_nodes: Vec<PublicKey> = counts.keys().copied().collect();
    let placed: u32 = counts.values().sum();
    let desired = match component.spec.replicas {
        _ if !component.run => 0,
        Some(replicas) => {
            let stuck = stuck(state, name, component, nodes, counts);
            desired_nodes.extend(stuck.iter().filter_map(|drift| drift.node));
            drift.extend(stuck);
            let explained = u32::try_from(drift.len() + good.len()).unwrap_or(u32::MAX);
            let nowhere = nowhere(state, name, component, nodes);
            drift.extend((explained..replicas).map(|_| unplaced(&nowhere)));
            replicas
        }
        None => {
            let refused = refused(state, name, component, nodes, counts);
            desired_nodes.extend(refused.iter().filter_map(|drift| drift.node));
            let count = placed + u32::try_from(refused.len()).unwrap_or(u32::MAX);
            drift.extend(refused);
            count
        }
    };
    let running = match component.spec.replicas {
        Some(_) => live_cells(name, nodes)
            .filter(|(_, cell)| serves(cell.state) && is_current(cell, component))
            .count(),
        None => good.len(),
    };
    let running = u32::try_from(running).unwrap_or(u32::MAX).min(desired);
    let remark = cells.iter().find_map(|(_, cell)| cell.reason.clone());
    let verdict = Verdict {
        desired,
        running,
        good: &good,
        missing: &drift,
    };
    let (verdict, reason) = judge(state, name, component, nodes, &verdict, remark);
    drift.extend(unwanted(state, name, component, nodes, counts));
    desired_nodes.sort();
    desired_nodes.dedup();
    ComponentStatus {
        name: name.clone(),
        state: verdict,
        reason,
        desired,
        running,
        desired_nodes,
        cells,
        drift,
    }
}

/// What the state of a component is judged by.
struct Verdict<'a> {
    desired: u32,
    running: u32,
    /// States of the cells that are as asked, in their place.
    good: &'a [CellState],
    missing: &'a [Drift],
}

fn judge(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    verdict: &Verdict<'_>,
    remark: Option<Reason>,
) -> (ComponentState, Option<Reason>) {
    if !component.run || component.spec.replicas == Some(0) {
        return (ComponentState::Stopped, None);
    }
    if verdict.desired == 0 {
        return (
            ComponentState::Waiting,
            Some(nowhere(state, name, component, nodes)),
        );
    }
    if verdict.missing.is_empty() {
        // A library is in place and never runs: its reason says so. What met a limit and goes
        // on says which.
        let finished = |state: &CellState| matches!(state, CellState::Done | CellState::Library);
        let state = if verdict.good.iter().all(finished) {
            ComponentState::Done
        } else {
            ComponentState::Running
        };
        return (state, remark);
    }
    let reason = verdict
        .missing
        .iter()
        .find_map(|drift| drift.reason.clone());
    let have = |wanted: &[CellState]| {
        verdict
            .missing
            .iter()
            .any(|drift| drift.have.is_some_and(|have| wanted.contains(&have)))
    };
    let failing = have(&[CellState::Failed, CellState::Backoff]);
    let state = if verdict.running >= verdict.desired && !failing {
        // All run, and some are on their way to another node.
        ComponentState::Running
    } else if verdict.running > 0 {
        ComponentState::Degraded
    } else if failing {
        ComponentState::Failed
    } else if verdict.missing.iter().all(|drift| drift.node.is_none()) {
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

/// Every cell that should be there.
fn places(counts: &Counts) -> impl Iterator<Item = (PublicKey, u32)> {
    counts
        .iter()
        .flat_map(|(node, count)| (0..*count).map(move |index| (*node, index)))
}

fn missing(node: PublicKey, index: u32, cell: Option<&CellReport>, nodes: &Nodes) -> Drift {
    let here = nodes.get(&node).is_some_and(|view| view.present);
    let reason = if here {
        cell.and_then(|cell| cell.reason.clone())
    } else {
        let help = "bring the node back, or let its data go: realm nodes rm";
        let message = "its data is on a node that is away, and it does not move without it";
        Some(reason("node-lost", message.into(), Some(help)))
    };
    Drift {
        node: Some(node),
        index: Some(index),
        want: true,
        have: cell.map(|cell| cell.state),
        reason,
    }
}

/// Replicas whose node has their data and cannot run them: they do not start elsewhere.
fn stuck(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    counts: &Counts,
) -> Vec<Drift> {
    if !component.run {
        return Vec::new();
    }
    let held = placement::held(state, name, component, nodes);
    let beyond = held.into_iter().flat_map(|(node, held)| {
        let count = counts.get(&node).copied().unwrap_or(0);
        (count..held).map(move |index| (node, index))
    });
    beyond
        .map(|(node, index)| {
            let (code, message, help) = if state.is_draining(&node) {
                (
                    "draining",
                    "its data is on this node, which drains, and it does not move without it",
                    "take it up again: realm nodes undrain; or let its data go: realm nodes rm",
                )
            } else {
                (
                    "no-room",
                    "its data is on this node, which has no room for it",
                    "free memory on the node, or lower --memory-max-mb",
                )
            };
            Drift {
                node: Some(node),
                index: Some(index),
                want: true,
                have: have(name, nodes, node, index),
                reason: Some(reason(code, message.into(), Some(help))),
            }
        })
        .collect()
}

/// A component that runs everywhere is asked of every node that matches and is here, also of one
/// that declined it or has no room: what a node cannot do must show.
fn refused(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    counts: &Counts,
) -> Vec<Drift> {
    if !component.run {
        return Vec::new();
    }
    placement::chosen(component, nodes)
        .into_iter()
        .filter(|key| nodes.get(key).is_some_and(|view| view.present))
        .filter(|key| !state.is_draining(key))
        .filter(|key| !counts.contains_key(key))
        .map(|key| Drift {
            node: Some(key),
            index: Some(0),
            want: true,
            have: have(name, nodes, key, 0),
            reason: Some(refusal(name, nodes, &key)),
        })
        .collect()
}

/// Cells that are there and should not be; one that stands for a refusal holds nothing.
fn unwanted(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    counts: &Counts,
) -> Vec<Drift> {
    let kept = placement::kept(state, name, component, nodes, counts);
    live_cells(name, nodes)
        .filter(|(node, cell)| {
            let refuses = nodes.get(node).is_some_and(|view| {
                declines(view, name, component) && matches_placement(component, *node, view)
            });
            let wanted = cell.index < kept.get(node).copied().unwrap_or(0);
            !wanted && !refuses && cell.state != CellState::Stopped
        })
        .map(|(node, cell)| Drift {
            node: Some(node),
            index: Some(cell.index),
            want: false,
            have: Some(cell.state),
            reason: None,
        })
        .collect()
}

fn have(name: &ComponentName, nodes: &Nodes, node: PublicKey, index: u32) -> Option<CellState> {
    live_cells(name, nodes)
        .find(|(key, cell)| *key == node && cell.index == index)
        .map(|(_, cell)| cell.state)
}

fn unplaced(why: &Reason) -> Drift {
    Drift {
        node: None,
        index: None,
        want: true,
        have: None,
        reason: Some(why.clone()),
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
fn nowhere(state: &State, name: &ComponentName, component: &Component, nodes: &Nodes) -> Reason {
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
    if chosen.iter().all(|key| state.is_draining(key)) {
        let help = "take a node up again: realm nodes undrain; or add one: realm invite";
        let message = "every node that could run it drains";
        return reason("draining", message.into(), Some(help));
    }
    if placement::eligible(state, name, component, nodes).is_empty() {
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
