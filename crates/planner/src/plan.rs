//! What one node does about the desired state.

use std::collections::BTreeMap;

use realm_manifest::{
    ComponentName, ComponentSpec,
    identity::{Hash, PublicKey},
    report::CellReport,
};

use crate::{
    Assignment, Component, NodeView, Nodes, State, cell_digest,
    ended::has_ended,
    placement,
    room::Room,
    surplus::{self, Surplus},
};

/// Everything a plan depends on.
#[derive(Debug)]
pub struct PlanInput<'a> {
    pub state: &'a State,
    pub me: PublicKey,
    /// The approved nodes, this one among them if it is one.
    pub nodes: &'a Nodes,
    pub own: &'a [OwnCell],
}

/// A cell that this node has, whatever its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCell {
    pub component: ComponentName,
    pub index: u32,
    /// [`cell_digest`] of the spec it was made from.
    pub spec: Hash,
    pub generation: u64,
    /// Memory that it may use, in MiB.
    pub memory_max_mb: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Start {
        component: ComponentName,
        index: u32,
        spec: Box<ComponentSpec>,
        generation: u64,
    },
    /// Its spec or generation is older than asked: start the new one, then stop the old.
    Replace {
        component: ComponentName,
        index: u32,
        spec: Box<ComponentSpec>,
        generation: u64,
        /// The node has no room for both: stop the old one, then start the new.
        stop_first: bool,
    },
    Stop {
        component: ComponentName,
        index: u32,
        why: StopReason,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The component is no longer in the desired state.
    Removed,
    /// `realm stop`.
    Stopped,
    /// The component runs on every eligible node, and this one is not, or not with this index.
    NotWanted,
    /// Enough run without it: another node has it now, or fewer are asked for.
    Moved,
    /// The node drains, and nothing takes this cell over: it would be one on each node, or its
    /// data is here.
    Draining,
    /// This node is not approved, or no longer.
    NotApproved,
}

/// The steps from what this node has to what it should have. Equal input, equal steps; when
/// there is nothing to do there are none.
pub fn plan(input: &PlanInput<'_>) -> Vec<Step> {
    if !input.nodes.contains_key(&input.me) {
        return input
            .own
            .iter()
            .map(|cell| stop(cell, StopReason::NotApproved))
            .collect();
    }
    let assignment = placement::assign(input.state, input.nodes);
    let own: BTreeMap<(&ComponentName, u32), &OwnCell> = input
        .own
        .iter()
        .map(|cell| ((&cell.component, cell.index), cell))
        .collect();
    let mut steps = Vec::new();
    let mut surplus = BTreeMap::new();
    for cell in own.values() {
        if let Some(why) = stop_reason(input, &assignment, &mut surplus, cell) {
            steps.push(stop(cell, why));
        }
    }
    for (name, counts) in &assignment {
        let (Some(component), Some(count)) =
            (input.state.components.get(name), counts.get(&input.me))
        else {
            continue;
        };
        for index in 0..*count {
            let cell = own.get(&(name, index)).copied();
            let generation = component.generation_on(&input.me);
            steps.extend(bring_up((name, index), component, generation, cell));
        }
    }
    make_room(input, &mut steps);
    steps
}

/// Decides which cells are replaced side by side: those for which there is room beside everything
/// that stays, that starts, and that was decided before.
fn make_room(input: &PlanInput<'_>, steps: &mut [Step]) {
    let Some(me) = input.nodes.get(&input.me) else {
        return;
    };
    let replaces = |step: &Step| matches!(step, Step::Replace { .. });
    if !steps.iter().any(replaces) {
        return;
    }
    let mut room = Room::of(me);
    let stays = |cell: &&OwnCell| {
        !steps.iter().any(|step| match step {
            Step::Stop {
                component, index, ..
            } => (component, *index) == (&cell.component, cell.index),
            Step::Start { .. } | Step::Replace { .. } => false,
        })
    };
    let mut fits = true;
    for cell in input.own.iter().filter(stays) {
        fits &= room.reserve(memory_of(me, cell));
    }
    for step in steps.iter() {
        if let Step::Start { spec, .. } = step {
            fits &= room.reserve(spec.limits.memory_max_mb);
        }
    }
    for step in steps {
        if let Step::Replace {
            component,
            index,
            spec,
            stop_first,
            ..
        } = step
        {
            let memory = spec.limits.memory_max_mb;
            *stop_first = !(fits && room.reserve(memory));
            if *stop_first {
                let old = input
                    .own
                    .iter()
                    .find(|cell| (&cell.component, cell.index) == (&*component, *index))
                    .map_or(0, |cell| memory_of(me, cell));
                // What the old one had is not there for others before it has stopped.
                fits &= room.grow(memory.saturating_sub(old));
            }
        }
    }
}

/// Memory that the cell may still use, in MiB: none once it has ended.
fn memory_of(me: &NodeView, cell: &OwnCell) -> u32 {
    let ended = || {
        let report = me.live_report()?;
        let mut cells = report.cells.iter();
        let told = cells.find(|told| told.component == cell.component && is_of(told, cell))?;
        Some(has_ended(told))
    };
    match ended() {
        Some(true) => 0,
        Some(false) | None => cell.memory_max_mb,
    }
}

fn bring_up(
    (name, index): (&ComponentName, u32),
    component: &Component,
    generation: u64,
    own: Option<&OwnCell>,
) -> Option<Step> {
    let spec = || Box::new(component.spec.clone());
    let name = name.clone();
    match own {
        None => Some(Step::Start {
            component: name,
            index,
            spec: spec(),
            generation,
        }),
        Some(cell) if cell.spec != cell_digest(&component.spec) || cell.generation < generation => {
            Some(Step::Replace {
                component: name,
                index,
                spec: spec(),
                generation,
                stop_first: false,
            })
        }
        Some(_) => None,
    }
}

/// Why a cell of this node should stop; None where it should stay, also only until enough run
/// elsewhere: there are never fewer than asked.
fn stop_reason<'a>(
    input: &PlanInput<'a>,
    assignment: &Assignment,
    surplus: &mut BTreeMap<&'a ComponentName, Surplus>,
    cell: &'a OwnCell,
) -> Option<StopReason> {
    let Some(component) = input.state.components.get(&cell.component) else {
        return Some(StopReason::Removed);
    };
    if !component.run {
        return Some(StopReason::Stopped);
    }
    let counts = assignment.get(&cell.component)?;
    if cell.index < counts.get(&input.me).copied().unwrap_or(0) || says_no(input, component, cell) {
        return None;
    }
    let follows = component.spec.replicas.is_some() && !component.spec.writes_named_volume();
    if !follows && input.state.is_draining(&input.me) {
        return Some(StopReason::Draining);
    }
    if component.spec.replicas.is_none() {
        return Some(StopReason::NotWanted);
    }
    let surplus = surplus.entry(&cell.component).or_insert_with(|| {
        Surplus::of(input.state, &cell.component, component, counts, input.nodes)
    });
    let report = surplus::live_cells(&cell.component, input.nodes)
        .find(|(node, report)| *node == input.me && is_of(report, cell))
        .map(|(_, report)| report);
    surplus
        .may_stop(input.me, cell.index, report)
        .then_some(StopReason::Moved)
}

/// Whether the cell stands for what this node declines: it holds nothing, and without it the node
/// would forget that it cannot, and try again and again.
fn says_no(input: &PlanInput<'_>, component: &Component, cell: &OwnCell) -> bool {
    let current = cell.spec == cell_digest(&component.spec)
        && cell.generation >= component.generation_on(&input.me);
    current
        && component.spec.replicas != Some(0)
        && !input.state.is_draining(&input.me)
        && input.nodes.get(&input.me).is_some_and(|me| {
            placement::declines(me, &cell.component, component)
                && placement::matches_placement(component, input.me, me)
        })
}

fn is_of(report: &CellReport, cell: &OwnCell) -> bool {
    let of = (report.index, report.spec, report.generation);
    of == (cell.index, cell.spec, cell.generation)
}

fn stop(cell: &OwnCell, why: StopReason) -> Step {
    Step::Stop {
        component: cell.component.clone(),
        index: cell.index,
        why,
    }
}
