//! How each component stands: what was asked, what the nodes report, and what lies between.

use std::collections::BTreeMap;

use realm_manifest::{
    ComponentName,
    identity::PublicKey,
    report::{CellReport, CellState, Reason},
};

use crate::{Counts, Nodes, State, cell_digest, placement, surplus::serves};

mod drift;

pub use drift::Drift;
use drift::Scene;

/// So often in a row a cell may end without having run for a second; then it keeps crashing, which is
/// a failure although it is started again.
pub const MAX_CRASHES: u32 = 3;

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
    /// Cells that are as asked: running, or done, or a library that is in place. One that still
    /// runs on a node it is leaving counts, and so do those beyond what is desired, until they stop.
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
    let mut cells = reported(nodes);
    let scenes = state.components.iter().map(|(name, component)| Scene {
        state,
        name,
        component,
        digest: cell_digest(&component.spec),
        nodes,
        cells: cells.remove(name).unwrap_or_default(),
        counts: assignment.get(name).unwrap_or(&none),
    });
    scenes.map(|scene| one(&scene)).collect()
}

fn one(scene: &Scene<'_>) -> ComponentStatus {
    let mut desired_nodes: Vec<PublicKey> = scene.counts.keys().copied().collect();
    let (good, mut drift) = in_place(scene);
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
    let running = running(scene, &good, desired);
    let tally = Tally {
        desired,
        running: running.min(desired),
        good: &good,
        missing: &drift,
        crashing: crashing(scene),
    };
    let cells = scene.cells.iter();
    // Of what is away nobody knows what it does now.
    let mut current = scene
        .live()
        .filter(|(key, cell)| scene.is_current(key, cell));
    let remark = current.find_map(|(_, cell)| cell.reason.clone());
    let (state, reason) = judge(scene, &tally, remark);
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
        cells: cells.map(|(key, cell)| (*key, (*cell).clone())).collect(),
        drift,
    }
}

/// Cells of components that are not asked for any more, on nodes that are here: nothing else tells
/// of them.
pub fn leftovers(state: &State, nodes: &Nodes) -> Vec<(ComponentName, Drift)> {
    let here = nodes.iter().flat_map(|(key, node)| {
        let cells = node.live_report().into_iter();
        let cells = cells.flat_map(|report| &report.cells);
        cells.map(move |cell| (key, cell))
    });
    let left = here.filter(|(_, cell)| {
        cell.state != CellState::Stopped && !state.components.contains_key(&cell.component)
    });
    let drift = left.map(|(key, cell)| (cell.component.clone(), Drift::unwanted(*key, cell)));
    drift.collect()
}

/// Every reported cell by component, also of nodes that are away.
fn reported(nodes: &Nodes) -> BTreeMap<&ComponentName, Vec<(PublicKey, &CellReport)>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, node) in nodes {
        for cell in node.report.iter().flat_map(|report| &report.cells) {
            found.entry(&cell.component).or_default().push((*key, cell));
        }
    }
    found
}

/// States of the cells that are as asked and in their place, and what is missing there.
fn in_place(scene: &Scene<'_>) -> (Vec<CellState>, Vec<Drift>) {
    let (mut good, mut missing) = (Vec::new(), Vec::new());
    let mut cells: BTreeMap<(PublicKey, u32), &CellReport> = BTreeMap::new();
    for (key, cell) in &scene.cells {
        cells.entry((*key, cell.index)).or_insert(cell);
    }
    for (node, index) in scene.places() {
        let cell = cells.get(&(node, index)).copied();
        let as_asked = |cell: &&CellReport| {
            scene.is_live(&node) && scene.is_current(&node, cell) && serves(cell.state)
        };
        match cell.filter(as_asked) {
            Some(cell) => good.push(cell.state),
            None => missing.push(scene.missing(node, index, cell)),
        }
    }
    (good, missing)
}

/// Cells that run as asked: where there is a number, wherever they are. Where one is asked of each
/// node, another one that runs elsewhere stands for none that is missing.
fn running(scene: &Scene<'_>, good: &[CellState], desired: u32) -> u32 {
    let in_place = u32::try_from(good.len()).unwrap_or(u32::MAX);
    if scene.component.spec.replicas.is_none() && in_place < desired {
        return in_place;
    }
    let serving = scene
        .live()
        .filter(|(key, cell)| serves(cell.state) && scene.is_current(key, cell));
    u32::try_from(serving.count()).unwrap_or(u32::MAX)
}

/// What the state of a component is judged by.
struct Tally<'a> {
    desired: u32,
    running: u32,
    /// States of the cells that are as asked, in their place.
    good: &'a [CellState],
    missing: &'a [Drift],
    /// Whether one of them keeps crashing.
    crashing: bool,
}

/// Also while a cell is on its way once more, so that the answer does not change with every try.
fn crashing(scene: &Scene<'_>) -> bool {
    let mut cells = scene
        .live()
        .filter(|(key, cell)| scene.is_current(key, cell));
    cells.any(|(_, cell)| cell.retry.is_some_and(|retry| retry.crashes >= MAX_CRASHES))
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
    // What failed says more than what is on its way.
    let failed =
        |drift: &&Drift| matches!(drift.have, Some(CellState::Failed | CellState::Backoff));
    let missing = tally.missing.iter();
    let telling = missing.clone().filter(failed).chain(missing);
    let reason = telling.into_iter().find_map(|drift| drift.reason.clone());
    let have = |wanted: &[CellState]| {
        tally
            .missing
            .iter()
            .any(|drift| drift.have.is_some_and(|have| wanted.contains(&have)))
    };
    let failing = have(&[CellState::Failed]) || tally.crashing;
    let waits = have(&[CellState::Backoff]);
    let state = if tally.running >= tally.desired && !failing && !waits {
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
        // It is tried again.
        CellState::Backoff,
    ]) {
        ComponentState::Starting
    } else {
        ComponentState::Pending
    };
    (state, reason)
}
