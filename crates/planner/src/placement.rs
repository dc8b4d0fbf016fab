//! Who should run what: rendezvous hashing over the nodes that may, under their ceilings.
//!
//! Every pair of a replica and a node has a score, the SHA-256 of realm, component, index and
//! node key. The highest score that still fits is taken first. A node that comes or goes
//! therefore moves few replicas, and nodes with equal views agree without talking.

use std::collections::{BTreeMap, BTreeSet};

use realm_manifest::{
    ComponentName, NodeName, Tag, VolumeMode, VolumeSource,
    identity::{Hash, PublicKey},
    report::{CellState, NodeReport, NodeState},
};

use crate::{Component, State, cell_digest};

/// What is known of one approved node.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub name: NodeName,
    pub tags: Vec<Tag>,
    /// A member that answers, and did for long enough to be given work.
    pub present: bool,
    /// Its newest signed report, whatever its age.
    pub report: Option<NodeReport>,
}

/// The approved nodes, the revoked left out.
pub type Nodes = BTreeMap<PublicKey, NodeView>;

/// Where each replica of each component should be.
pub type Assignment = BTreeMap<ComponentName, BTreeMap<u32, BTreeSet<PublicKey>>>;

/// Computes the whole assignment. A component with `run = false` has none.
pub fn assign(state: &State, nodes: &Nodes) -> Assignment {
    let mut room: BTreeMap<PublicKey, Room> = nodes
        .iter()
        .map(|(key, node)| (*key, Room::of(node)))
        .collect();
    let mut assignment = Assignment::new();
    for (name, component) in &state.components {
        if component.run {
            let placed = place(state, name, component, nodes, &mut room);
            assignment.insert(name.clone(), placed);
        }
    }
    assignment
}

/// Nodes that could run a cell of this component now.
pub fn eligible(name: &ComponentName, component: &Component, nodes: &Nodes) -> Vec<PublicKey> {
    nodes
        .iter()
        .filter(|(_, node)| node.present && takes_work(node) && !declines(node, name, component))
        .filter(|(key, node)| matches_placement(component, **key, node))
        .map(|(key, _)| *key)
        .collect()
}

/// Nodes that the owner's words choose for this component, whether they are here or not.
pub fn chosen(component: &Component, nodes: &Nodes) -> Vec<PublicKey> {
    nodes
        .iter()
        .filter(|(key, node)| matches_placement(component, **key, node))
        .map(|(key, _)| *key)
        .collect()
}

fn place(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    room: &mut BTreeMap<PublicKey, Room>,
) -> BTreeMap<u32, BTreeSet<PublicKey>> {
    let memory = u64::from(component.spec.limits.memory_max_mb);
    let candidates = eligible(name, component, nodes);
    let mut placed: BTreeMap<u32, BTreeSet<PublicKey>> = BTreeMap::new();
    let Some(replicas) = component.spec.replicas else {
        for node in candidates {
            if room.get_mut(&node).is_some_and(|room| room.take(memory)) {
                placed.entry(0).or_default().insert(node);
            }
        }
        return placed;
    };

    let mut open: BTreeSet<u32> = (0..replicas).collect();
    let mut load: BTreeMap<PublicKey, u32> = BTreeMap::new();
    for (index, node) in holders(name, component, nodes) {
        if open.remove(&index) {
            placed.entry(index).or_default().insert(node);
            *load.entry(node).or_default() += 1;
            if let Some(room) = room.get_mut(&node) {
                room.take(memory);
            }
        }
    }

    let mut pairs: Vec<(Hash, u32, PublicKey)> = Vec::new();
    for index in &open {
        for node in &candidates {
            pairs.push((score(state, name, *index, *node), *index, *node));
        }
    }
    pairs.sort_by(|a, b| b.cmp(a));
    // Round by round, so that no node has two while another has none.
    let rounds = replicas.div_ceil(u32::try_from(candidates.len()).unwrap_or(u32::MAX).max(1));
    for most in 1..=rounds {
        for (_, index, node) in &pairs {
            let load = load.entry(*node).or_default();
            if !open.contains(index) || *load >= most {
                continue;
            }
            if room.get_mut(node).is_some_and(|room| room.take(memory)) {
                open.remove(index);
                *load += 1;
                placed.entry(*index).or_default().insert(*node);
            }
        }
    }
    // What a full or missing node left over goes wherever there is room.
    for (_, index, node) in &pairs {
        if open.contains(index) && room.get_mut(node).is_some_and(|room| room.take(memory)) {
            open.remove(index);
            placed.entry(*index).or_default().insert(*node);
        }
    }
    placed
}

/// Cells with a named volume that they write stay where their data is, also while that node is away.
fn holders(name: &ComponentName, component: &Component, nodes: &Nodes) -> BTreeMap<u32, PublicKey> {
    let stays = component.spec.grants.volumes.iter().any(|volume| {
        volume.mode == VolumeMode::Rw && matches!(volume.source, VolumeSource::Named(_))
    });
    let mut holders = BTreeMap::new();
    if !stays {
        return holders;
    }
    for (key, node) in nodes {
        if !matches_placement(component, *key, node) {
            continue;
        }
        for cell in node.report.iter().flat_map(|report| &report.cells) {
            if cell.component == *name && cell.state != CellState::Stopped {
                holders.entry(cell.index).or_insert(*key);
            }
        }
    }
    holders
}

fn score(state: &State, name: &ComponentName, index: u32, node: PublicKey) -> Hash {
    let mut bytes = Vec::with_capacity(32 + 64 + 4 + 32);
    bytes.extend_from_slice(state.realm.as_bytes());
    bytes.extend_from_slice(name.as_str().as_bytes());
    // No name holds a zero byte, so two inputs never read alike.
    bytes.push(0);
    bytes.extend_from_slice(&index.to_be_bytes());
    bytes.extend_from_slice(node.as_bytes());
    Hash::of(&bytes)
}

fn takes_work(node: &NodeView) -> bool {
    node.report
        .as_ref()
        .is_none_or(|report| !matches!(report.state, NodeState::Draining | NodeState::Incompatible))
}

fn declines(node: &NodeView, name: &ComponentName, component: &Component) -> bool {
    let digest = cell_digest(&component.spec);
    node.report.as_ref().is_some_and(|report| {
        report
            .declined
            .iter()
            .any(|no| no.component == *name && no.spec == digest)
    })
}

fn matches_placement(component: &Component, key: PublicKey, node: &NodeView) -> bool {
    let placement = &component.spec.placement;
    (placement.nodes.is_empty() || placement.nodes.contains(&key))
        && placement.tags.iter().all(|tag| node.tags.contains(tag))
}

/// What a node still has to give; a node that declared nothing is not limited here.
struct Room {
    memory_mb: u64,
    cells: u32,
}

impl Room {
    fn of(node: &NodeView) -> Self {
        match &node.report {
            Some(report) => Self {
                memory_mb: report.capacity.memory_mb,
                cells: report.capacity.cells,
            },
            None => Self {
                memory_mb: u64::MAX,
                cells: u32::MAX,
            },
        }
    }

    fn take(&mut self, memory_mb: u64) -> bool {
        if self.cells == 0 || self.memory_mb < memory_mb {
            return false;
        }
        self.cells -= 1;
        self.memory_mb -= memory_mb;
        true
    }
}
