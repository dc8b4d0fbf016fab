//! What one node does about the desired state.

use std::collections::BTreeMap;

use realm_manifest::{
    ComponentName, ComponentSpec,
    identity::{Hash, PublicKey},
    report::CellState,
};

use crate::{Assignment, Component, Nodes, State, cell_digest, placement};

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
    /// Fewer replicas, or this node no longer matches the placement.
    NotWanted,
    /// Another node runs it now.
    Moved,
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
    for cell in own.values() {
        if let Some(why) = stop_reason(input, &assignment, cell) {
            steps.push(stop(cell, why));
        }
    }
    for (name, indices) in &assignment {
        let Some(component) = input.state.components.get(name) else {
            continue;
        };
        for (index, holders) in indices {
            if holders.contains(&input.me) {
                steps.extend(bring_up(
                    name,
                    *index,
                    component,
                    own.get(&(name, *index)).copied(),
                ));
            }
        }
    }
    steps
}

fn bring_up(
    name: &ComponentName,
    index: u32,
    component: &Component,
    own: Option<&OwnCell>,
) -> Option<Step> {
    let spec = || Box::new(component.spec.clone());
    let (name, generation) = (name.clone(), component.generation);
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
            })
        }
        Some(_) => None,
    }
}

/// Why a cell of this node should stop; None where it should stay, also only until another
/// node runs it: there are never fewer than asked.
fn stop_reason(
    input: &PlanInput<'_>,
    assignment: &Assignment,
    cell: &OwnCell,
) -> Option<StopReason> {
    let Some(component) = input.state.components.get(&cell.component) else {
        return Some(StopReason::Removed);
    };
    if !component.run {
        return Some(StopReason::Stopped);
    }
    let holders = assignment
        .get(&cell.component)
        .and_then(|indices| indices.get(&cell.index));
    if holders.is_some_and(|holders| holders.contains(&input.me)) {
        return None;
    }
    let Some(replicas) = component.spec.replicas else {
        return Some(StopReason::NotWanted);
    };
    if cell.index >= replicas {
        return Some(StopReason::NotWanted);
    }
    let digest = cell_digest(&component.spec);
    let elsewhere = holders.into_iter().flatten().any(|node| {
        input.nodes.get(node).is_some_and(|view| {
            view.present
                && view
                    .report
                    .iter()
                    .flat_map(|report| &report.cells)
                    .any(|other| {
                        other.component == cell.component
                            && other.index == cell.index
                            && other.spec == digest
                            && other.generation >= component.generation
                            && matches!(
                                other.state,
                                CellState::Running | CellState::Done | CellState::Library
                            )
                    })
        })
    });
    elsewhere.then_some(StopReason::Moved)
}

fn stop(cell: &OwnCell, why: StopReason) -> Step {
    Step::Stop {
        component: cell.component.clone(),
        index: cell.index,
        why,
    }
}
