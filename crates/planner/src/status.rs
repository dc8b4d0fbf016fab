//! How each component stands: what was asked, what the nodes report, and what lies between.

use realm_manifest::{
    ComponentName,
    identity::PublicKey,
    report::{CellReport, CellState, Reason},
};

use crate::{
    Counts, Nodes, State, placement,
    surplus::{is_current, live_cells, serves},
};

mod drift;

pub use drift::Drift;
use drift::Scene;

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
    let none = Counts::new();
    let scenes = state.components.iter().map(|(name, component)| Scene {
        state,
        name,
        component,
        nodes,
        counts: assignment.get(name).unwrap_or(&none),
    });
    scenes.map(|scene| one(&scene)).collect()
}

fn one(scene: &Scene<'_>) -> ComponentStatus {
    let cells = reported(scene);
    let mut desired_nodes: Vec<PublicKey> = scene.counts.keys().copied().collect();
    let (good, mut drift) = in_place(scene, &cells);
    let stuck = scene.stuck();
    desired_nodes.extend(stuck.iter().filter_map(|drift| drift.node));
    drift.extend(stuck);
    let explained = u32::try_from(good.len() + drift.len()).unwrap_or(u32::MAX);
    let desired = match scene.component.spec.replicas {
        _ if !scene.component.run => 0,
        Some(replicas) => replicas,
        None => explained,
    };
    drift.extend(scene.unplaced(desired.saturating_sub(explained)));
    let tally = Tally {
        desired,
        running: running(scene, &good).min(desired),
        good: &good,
        missing: &drift,
    };
    let mut current = cells
        .iter()
        .filter(|(_, cell)| is_current(cell, scene.component));
    let remark = current.find_map(|(_, cell)| cell.reason.clone());
    let (state, reason) = judge(scene, &tally, remark);
    let running = tally.running;
    drift.extend(scene.unwanted());
    drift.extend(scene.away());
    desired_nodes.sort();
    desired_nodes.dedup();
    ComponentStatus {
        name: scene.name.clone(),
        state,
        reason,
        desired,
        running,
        desired_nodes,
        cells,
        drift,
    }
}

/// Every reported cell, also of nodes that are away.
fn reported(scene: &Scene<'_>) -> Vec<(PublicKey, CellReport)> {
    let cells = scene.nodes.iter().flat_map(|(key, node)| {
        let cells = node.report.iter().flat_map(|report| &report.cells);
        cells.map(|cell| (*key, cell))
    });
    cells
        .filter(|(_, cell)| cell.component == *scene.name)
        .map(|(key, cell)| (key, cell.clone()))
        .collect()
}

/// States of the cells that are as asked and in their place, and what is missing there.
fn in_place(scene: &Scene<'_>, cells: &[(PublicKey, CellReport)]) -> (Vec<CellState>, Vec<Drift>) {
    let (mut good, mut missing) = (Vec::new(), Vec::new());
    for (node, index) in scene.places() {
        let cell = cells
            .iter()
            .find(|(key, cell)| *key == node && cell.index == index)
            .map(|(_, cell)| cell);
        let live = scene
            .nodes
            .get(&node)
            .is_some_and(|view| view.live_report().is_some());
        let as_asked =
            |cell: &&CellReport| live && is_current(cell, scene.component) && serves(cell.state);
        match cell.filter(as_asked) {
            Some(cell) => good.push(cell.state),
            None => missing.push(scene.missing(node, index, cell)),
        }
    }
    (good, missing)
}

/// Cells that run as asked: where there is a number, wherever they are.
fn running(scene: &Scene<'_>, good: &[CellState]) -> u32 {
    let count = match scene.component.spec.replicas {
        Some(_) => live_cells(scene.name, scene.nodes)
            .filter(|(_, cell)| serves(cell.state) && is_current(cell, scene.component))
            .count(),
        None => good.len(),
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What the state of a component is judged by.
struct Tally<'a> {
    desired: u32,
    running: u32,
    /// States of the cells that are as asked, in their place.
    good: &'a [CellState],
    missing: &'a [Drift],
}

fn judge(
    scene: &Scene<'_>,
    tally: &Tally<'_>,
    remark: Option<Reason>,
) -> (ComponentState, Option<Reason>) {
    if !scene.component.run || scene.component.spec.replicas == Some(0) {
        return (ComponentState::Stopped, None);
    }
    if tally.desired == 0 {
        return (ComponentState::Waiting, Some(scene.nowhere()));
    }
    if tally.missing.is_empty() {
        // A library is in place and never runs: its reason says so. What met a limit and goes
        // on says which.
        let finished = |state: &CellState| matches!(state, CellState::Done | CellState::Library);
        let state = if tally.good.iter().all(finished) {
            ComponentState::Done
        } else {
            ComponentState::Running
        };
        return (state, remark);
    }
    let reason = tally.missing.iter().find_map(|drift| drift.reason.clone());
    let have = |wanted: &[CellState]| {
        tally
            .missing
            .iter()
            .any(|drift| drift.have.is_some_and(|have| wanted.contains(&have)))
    };
    let failing = have(&[CellState::Failed, CellState::Backoff]);
    let state = if tally.running >= tally.desired && !failing {
        // All run, and some are on their way to another node.
        ComponentState::Running
    } else if tally.running > 0 {
        ComponentState::Degraded
    } else if failing {
        ComponentState::Failed
    } else if tally.missing.iter().all(|drift| drift.node.is_none()) {
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
