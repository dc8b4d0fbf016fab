//! Who should run what: a number of cells for each node, under the nodes' ceilings.
//!
//! For each component the nodes are ranked by a score, the SHA-256 of realm, component and node
//! key. Replicas are handed out in rounds over that ranking, one a round to every node that has
//! room, until all are placed. So counts differ by one at most where there is room, nodes with
//! equal views agree without talking, and little moves:
//!
//! - The replicas are the first N of the places (round, rank). A node that goes takes only its
//!   own places out of that list, so no other node loses a cell; when it is back, so is the old
//!   picture.
//! - Components are placed in the order in which they came to the realm, each in the room that is
//!   left: a newcomer takes no room from what was there before. Where room runs out, a component
//!   that takes over cells of a lost node may push a younger one aside. The first component in that
//!   order whose counts change only gains; a cell of another node moves only to make room for an
//!   older component.
//! - A cell with a named volume that it writes stays with its data, and takes its room before
//!   those that can move: see [`held`].
//! - A cell that has ended keeps its place and gives back its memory, which goes to what waits for
//!   room; nothing moves because of it.
//! - A node whose version does not understand the newest entries keeps what it has from before them, and
//!   is given nothing else.
//! - A node that drains has no count, and its cells go as if it were lost, but for waiting until
//!   they run elsewhere.
//! - While a node that was away has not stayed for long enough, no cell moves: those that there are
//!   stay where they are, see [`stay`]. What no node has yet goes by the ranking, to such a node
//!   too. Who was away depends on whom one asks, above all after a partition, and new work must
//!   come to the same node for everybody.

use std::{collections::BTreeMap, sync::Arc};

use realm_manifest::{
    ComponentName, Tag,
    identity::{Hash, PublicKey},
    report::{CellState, NodeReport, NodeState},
};

use crate::{Component, State, cell_digest, ended::Current, freed, room::Room};

/// What is known of one approved node.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub tags: Vec<Tag>,
    /// A member that answers.
    pub present: bool,
    /// Present for long enough to be given replicas that run elsewhere. What runs nowhere, and one
    /// on each node, does not wait for that.
    pub settled: bool,
    /// The boot that the node speaks of in its newest gossip; None where it is not known.
    pub boot_id: Option<u64>,
    /// Its newest signed report, whatever its age.
    pub report: Option<Arc<NodeReport>>,
}

/// The approved nodes, the revoked left out.
pub type Nodes = BTreeMap<PublicKey, NodeView>;

/// How many cells of each component each node should have: those with the indices below the
/// count. A node that is away has a count only for cells that stay with their data.
pub type Assignment = BTreeMap<ComponentName, Counts>;

/// Cells of one component by node; no count is zero.
pub type Counts = BTreeMap<PublicKey, u32>;

impl NodeView {
    /// The report, if its cells may be alive now: the node is here, and has not started anew since.
    pub fn live_report(&self) -> Option<&NodeReport> {
        self.report
            .as_deref()
            .filter(|report| self.present && self.boot_id.is_none_or(|boot| boot == report.boot_id))
    }
}

/// Computes the whole assignment. A component with `run = false` has none.
pub fn assign(state: &State, nodes: &Nodes) -> Assignment {
    let mut rooms: Rooms = nodes
        .iter()
        .map(|(key, node)| (*key, Room::of(node)))
        .collect();
    let running = by_age(state);
    // What cannot move takes its room before what can.
    let mut assignment: Assignment = running
        .iter()
        .map(|(name, asked)| {
            let counts = settle(state, name, asked, nodes, &mut rooms);
            ((*name).clone(), counts)
        })
        .collect();
    let current = Current::of(state, nodes);
    for (name, asked) in &running {
        let counts = assignment.entry((*name).clone()).or_default();
        spread(state, (name, asked), nodes, &current, &mut rooms, counts);
    }
    freed::fill(
        state,
        &running,
        nodes,
        &current,
        &mut rooms,
        &mut assignment,
    );
    assignment
}

/// The components that should run, in the order in which they are given room: the oldest first, and
/// by name those that one merge brought in.
fn by_age(state: &State) -> Vec<(&ComponentName, &Component)> {
    let running = state.components.iter().filter(|(_, asked)| asked.run);
    let mut by_age: Vec<_> = running.collect();
    by_age.sort_by_key(|(name, asked)| (asked.created, *name));
    by_age
}

/// Nodes that could run a cell of this component now.
pub fn eligible(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
) -> Vec<PublicKey> {
    nodes
        .iter()
        .filter(|(key, _)| !state.is_draining(key))
        .filter(|(_, node)| {
            node.present && takes_work(node, component) && !declines(node, name, component)
        })
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

/// Replicas that never move by themselves, by the node that has their data: as many as it has
/// cells, or data of cells. Also when that node is away, full or draining: then
/// the replica is missing, and not started elsewhere with an empty volume.
///
/// Where more are held than asked for, nodes that report cells come before those with data alone,
/// then the ranking decides.
pub fn held(state: &State, name: &ComponentName, component: &Component, nodes: &Nodes) -> Counts {
    let mut held = Counts::new();
    let (true, Some(replicas)) = (
        component.spec.writes_named_volume(),
        component.spec.replicas,
    ) else {
        return held;
    };
    let mut places: Vec<(u32, bool, usize, PublicKey)> = Vec::new();
    let keys = chosen(component, nodes);
    for (rank, key) in ranking(state, name, keys).into_iter().enumerate() {
        let Some(report) = nodes.get(&key).and_then(|node| node.report.as_ref()) else {
            continue;
        };
        let cells = cells_kept(report, name, component);
        let data = report.holds.iter().find(|held| held.component == *name);
        let count = cells.max(data.map_or(0, |held| held.cells));
        places.extend((0..count).map(|round| (round, cells == 0, rank, key)));
    }
    places.sort_unstable();
    for (_, _, _, key) in places.into_iter().take(replicas as usize) {
        *held.entry(key).or_default() += 1;
    }
    held
}

/// The cells that each node may keep: those it should have, and those it holds and has no room for
/// by what it declares now. The latter run on, but would not be started again.
pub(crate) fn kept(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    counts: &Counts,
) -> Counts {
    let mut kept = counts.clone();
    let held = held(state, name, component, nodes);
    for (node, held) in held
        .into_iter()
        .filter(|(node, _)| !state.is_draining(node))
    {
        let count = kept.entry(node).or_default();
        *count = held.max(*count);
    }
    kept
}

/// The nodes in the order in which a component's replicas are handed out.
pub fn ranking(state: &State, name: &ComponentName, nodes: Vec<PublicKey>) -> Vec<PublicKey> {
    let mut ranked: Vec<(Hash, PublicKey)> = nodes
        .into_iter()
        .map(|node| (score(state, name, node), node))
        .collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().map(|(_, node)| node).collect()
}

/// Whether the node has said that it cannot take the component as it is now.
pub(crate) fn declines(node: &NodeView, name: &ComponentName, component: &Component) -> bool {
    node.report
        .as_ref()
        .is_some_and(|report| declined_in(report, name, component))
}

pub(crate) fn matches_placement(component: &Component, key: PublicKey, node: &NodeView) -> bool {
    let placement = &component.spec.placement;
    (placement.nodes.is_empty() || placement.nodes.contains(&key))
        && placement.tags.iter().all(|tag| node.tags.contains(tag))
}

/// Counts for the replicas that stay where they are.
fn settle(
    state: &State,
    name: &ComponentName,
    component: &Component,
    nodes: &Nodes,
    rooms: &mut Rooms,
) -> Counts {
    let mut counts = Counts::new();
    for (key, held) in held(state, name, component, nodes) {
        if state.is_draining(&key) {
            continue;
        }
        let here = nodes.get(&key).is_some_and(|node| node.present);
        // A node that is away keeps its claim; its room matters when it is back.
        let fits = |room: &mut Room| !here || room.take(component);
        let Some(room) = rooms.get_mut(&key) else {
            continue;
        };
        let taken = (0..held).take_while(|_| fits(room)).count();
        if taken > 0 {
            counts.insert(key, u32::try_from(taken).unwrap_or(u32::MAX));
        }
    }
    counts
}

/// Hands out the replicas that are not held, or one to every node where there is no number.
fn spread(
    state: &State,
    (name, component): (&ComponentName, &Component),
    nodes: &Nodes,
    current: &Current<'_>,
    rooms: &mut Rooms,
    counts: &mut Counts,
) {
    let open = ranking(state, name, eligible(state, name, component, nodes));
    let Some(replicas) = component.spec.replicas else {
        let left = u32::try_from(open.len()).unwrap_or(u32::MAX);
        hand_out(open, left, 1, counts, |node, _| {
            reserve(rooms, node, component)
        });
        return;
    };
    let held: u32 = held(state, name, component, nodes).values().sum();
    let mut left = replicas.saturating_sub(held);
    let is_settled = |node: &PublicKey| nodes.get(node).is_some_and(|view| view.settled);
    if !open.iter().all(is_settled) {
        left = stay(&open, is_settled, left, replicas, counts, |node, index| {
            current.has(name, node, index) && reserve(rooms, node, component)
        });
    }
    hand_out(open, left, replicas, counts, |node, _| {
        reserve(rooms, node, component)
    });
}

/// Leaves up to `left` replicas where they are, and says how many are to be placed then. Where there
/// are more of them, those of settled nodes come first: a node gives nothing away to one that was
/// lost a moment ago, although that one may never have stopped it.
fn stay(
    open: &[PublicKey],
    is_settled: impl Fn(&PublicKey) -> bool,
    mut left: u32,
    rounds: u32,
    counts: &mut Counts,
    mut take: impl FnMut(PublicKey, u32) -> bool,
) -> u32 {
    for settled in [true, false] {
        let nodes = open.iter().copied();
        let nodes = nodes.filter(|node| is_settled(node) == settled).collect();
        left = hand_out(nodes, left, rounds, counts, &mut take);
    }
    left
}

fn reserve(rooms: &mut Rooms, node: PublicKey, component: &Component) -> bool {
    let room = rooms.get_mut(&node);
    room.is_some_and(|room| room.take(component))
}

/// Hands out up to `left` replicas to the `open` nodes, one a round to each that `take`s it; that is
/// asked with the index which the cell would have there. Says how many are left.
pub(crate) fn hand_out(
    mut open: Vec<PublicKey>,
    mut left: u32,
    rounds: u32,
    counts: &mut Counts,
    mut take: impl FnMut(PublicKey, u32) -> bool,
) -> u32 {
    for round in 1..=rounds {
        if left == 0 || open.is_empty() {
            break;
        }
        // A node without room in this round has none in the next.
        open.retain(|node| {
            let count = counts.get(node).copied().unwrap_or(0);
            if left == 0 || count >= round {
                return true;
            }
            let taken = take(*node, count);
            if taken {
                counts.insert(*node, count + 1);
                left -= 1;
            }
            taken
        });
    }
    left
}

/// Cells that say that a component's data is on the node that reports them. One that was declined
/// never had any.
fn cells_kept(report: &NodeReport, name: &ComponentName, component: &Component) -> u32 {
    if declined_in(report, name, component) {
        return 0;
    }
    let cells = report
        .cells
        .iter()
        .filter(|cell| cell.component == *name && cell.state != CellState::Stopped);
    u32::try_from(cells.count()).unwrap_or(u32::MAX)
}

pub(crate) fn declined_in(
    report: &NodeReport,
    name: &ComponentName,
    component: &Component,
) -> bool {
    let digest = cell_digest(&component.spec);
    report
        .declined
        .iter()
        .any(|no| no.component == *name && no.spec == digest)
}

fn score(state: &State, name: &ComponentName, node: PublicKey) -> Hash {
    let mut bytes = Vec::with_capacity(32 + 64 + 32);
    bytes.extend_from_slice(state.realm.as_bytes());
    bytes.extend_from_slice(name.as_str().as_bytes());
    // No name holds a zero byte, so two inputs never read alike.
    bytes.push(0);
    bytes.extend_from_slice(node.as_bytes());
    Hash::of(&bytes)
}

fn takes_work(node: &NodeView, component: &Component) -> bool {
    let drains = |report: &NodeReport| report.state == NodeState::Draining;
    !node.report.as_deref().is_some_and(drains) && !is_behind(node, component)
}

/// Whether the component was last changed behind what the node's version understands of the log. What
/// is older stays as it is: the node keeps it running.
pub(crate) fn is_behind(node: &NodeView, component: &Component) -> bool {
    node.report.as_ref().is_some_and(|report| {
        report.state == NodeState::Incompatible && report.revision < component.revision
    })
}

pub(crate) type Rooms = BTreeMap<PublicKey, Room>;
