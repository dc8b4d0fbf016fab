//! Who gets the memory that ended cells have left.
//!
//! The assignment is made first as if no cell had ended, so no place depends on what ends when.
//! What is left waiting then comes into the memory that ended cells gave back: first the cells that
//! are there already, then new ones. So a cell that ends moves nothing, neither its own component
//! nor what came into such memory before.
//!
//! One exception: a cell that came and writes a named volume is from then on settled with its data
//! before all that can move, and may push such a cell to another node.

use std::collections::BTreeMap;

use realm_manifest::{ComponentName, identity::PublicKey};

use crate::{
    Assignment, Component, Counts, Nodes, State,
    ended::Current,
    placement::{Rooms, eligible, hand_out, held, ranking},
};

/// A component with cells that have no place yet.
struct Waiting<'a> {
    name: &'a ComponentName,
    component: &'a Component,
    /// Nodes with data of its cells, and how many belong there: more than have a place.
    held: Vec<(PublicKey, u32)>,
    /// Cells that may go to any of the `open` nodes, which are ranked.
    left: u32,
    open: Vec<PublicKey>,
    counts: &'a mut Counts,
}

/// Adds to the assignment what finds room in the memory of ended cells; `rooms` is what the
/// assignment has left, and `running` are its components in the order in which they get room.
pub(crate) fn fill(
    state: &State,
    running: &[(&ComponentName, &Component)],
    nodes: &Nodes,
    current: &Current<'_>,
    rooms: &mut Rooms,
    assignment: &mut Assignment,
) {
    if current.none_ended() {
        return;
    }
    for (name, component) in running {
        for (node, count) in assignment.get(*name).into_iter().flatten() {
            if let Some(room) = rooms.get_mut(node) {
                room.give_back(component, current.ended_below(name, *node, *count));
            }
        }
    }
    let mut all: BTreeMap<_, _> = assignment.iter_mut().collect();
    let mut waiting: Vec<Waiting<'_>> = running
        .iter()
        .filter_map(|(name, component)| {
            Waiting::of(state, name, component, nodes, all.remove(*name)?)
        })
        .collect();
    for component in &mut waiting {
        component.stay(current, rooms);
    }
    for component in &mut waiting {
        component.come(current, rooms);
    }
}

impl<'a> Waiting<'a> {
    /// None where every cell has its place.
    fn of(
        state: &State,
        name: &'a ComponentName,
        component: &'a Component,
        nodes: &Nodes,
        counts: &'a mut Counts,
    ) -> Option<Self> {
        let count = |node: &PublicKey| counts.get(node).copied().unwrap_or(0);
        let placed: u32 = counts.values().sum();
        let open = || ranking(state, name, eligible(state, name, component, nodes));
        let (held, left, open) = match component.spec.replicas {
            Some(replicas) => {
                let mut held = held(state, name, component, nodes);
                let all: u32 = held.values().sum();
                // A node that drains keeps what it holds, and has no count.
                held.retain(|node, _| !state.is_draining(node));
                let settled: u32 = held.iter().map(|(node, held)| count(node).min(*held)).sum();
                held.retain(|node, held| count(node) < *held);
                let left = replicas
                    .saturating_sub(all)
                    .saturating_sub(placed.saturating_sub(settled));
                (held, left, if left > 0 { open() } else { Vec::new() })
            }
            None => {
                let mut open = open();
                open.retain(|node| count(node) == 0);
                let left = u32::try_from(open.len()).unwrap_or(u32::MAX);
                (Counts::new(), left, open)
            }
        };
        (left > 0 || !held.is_empty()).then(|| Self {
            name,
            component,
            held: held.into_iter().collect(),
            left,
            open,
            counts,
        })
    }

    /// Cells that are there already keep their place.
    fn stay(&mut self, current: &Current<'_>, rooms: &mut Rooms) {
        for (node, held) in self.held.clone() {
            while self.count(node) < held
                && current.has(self.name, node, self.count(node))
                && self.take(node, current, rooms)
            {}
        }
        let most = self.rounds();
        for node in self.open.clone() {
            while self.left > 0
                && self.count(node) < most
                && current.has(self.name, node, self.count(node))
                && self.take(node, current, rooms)
            {
                self.left -= 1;
            }
        }
    }

    /// New cells come into what is left.
    fn come(&mut self, current: &Current<'_>, rooms: &mut Rooms) {
        for (node, held) in self.held.clone() {
            while self.count(node) < held && self.take(node, current, rooms) {}
        }
        let (open, rounds) = (std::mem::take(&mut self.open), self.rounds());
        let (name, component) = (self.name, self.component);
        hand_out(open, self.left, rounds, self.counts, |node, index| {
            fits(name, component, node, index, current, rooms)
        });
    }

    fn take(&mut self, node: PublicKey, current: &Current<'_>, rooms: &mut Rooms) -> bool {
        let index = self.count(node);
        let taken = fits(self.name, self.component, node, index, current, rooms);
        if taken {
            self.counts.insert(node, index + 1);
        }
        taken
    }

    fn count(&self, node: PublicKey) -> u32 {
        self.counts.get(&node).copied().unwrap_or(0)
    }

    /// The most cells that one node may have.
    fn rounds(&self) -> u32 {
        self.component.spec.replicas.unwrap_or(1)
    }
}

fn fits(
    name: &ComponentName,
    component: &Component,
    node: PublicKey,
    index: u32,
    current: &Current<'_>,
    rooms: &mut Rooms,
) -> bool {
    rooms.get_mut(&node).is_some_and(|room| {
        if current.has_ended(name, node, index) {
            room.take_ended()
        } else {
            room.take(component)
        }
    })
}
