//! What is missing, what is too much, and why.

use realm_manifest::{
    ComponentName,
    identity::{Hash, PublicKey},
    report::{Capacity, CellReport, CellState, Reason},
};

use crate::{
    Component, Counts, Nodes, State,
    placement::{chosen, declines, eligible, held, is_behind, kept, matches_placement},
};

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

impl Drift {
    /// A cell that is there and should not be. Only who reads the reports can say whether its node
    /// has not learned of that yet.
    pub(super) const fn unwanted(node: PublicKey, cell: &CellReport) -> Self {
        Self {
            node: Some(node),
            index: Some(cell.index),
            want: false,
            have: Some(cell.state),
            reason: None,
        }
    }
}

/// One component with everything that is known of it.
pub(super) struct Scene<'a> {
    pub state: &'a State,
    pub name: &'a ComponentName,
    pub component: &'a Component,
    /// Of what its cells are made from.
    pub digest: Hash,
    pub nodes: &'a Nodes,
    /// Every reported cell of it, also of nodes that are away.
    pub cells: Vec<(PublicKey, &'a CellReport)>,
    /// How many cells each node should have.
    pub counts: &'a Counts,
}

impl Scene<'_> {
    /// Whether what the node reports may be alive.
    pub fn is_live(&self, node: &PublicKey) -> bool {
        let view = self.nodes.get(node);
        view.is_some_and(|view| view.live_report().is_some())
    }

    /// Whether the cell is made from what is asked now.
    pub fn is_current(&self, node: &PublicKey, cell: &CellReport) -> bool {
        cell.spec == self.digest && cell.generation >= self.component.generation_on(node)
    }

    /// Every cell that may be alive.
    pub fn live(&self) -> impl Iterator<Item = (PublicKey, &CellReport)> {
        let cells = self.cells.iter().copied();
        cells.filter(|(node, _)| self.is_live(node))
    }

    /// Every cell that should be there.
    pub fn places(&self) -> impl Iterator<Item = (PublicKey, u32)> {
        self.counts
            .iter()
            .flat_map(|(node, count)| (0..*count).map(move |index| (*node, index)))
    }

    /// A cell that its node should have, and that is not as asked.
    pub fn missing(&self, node: PublicKey, index: u32, cell: Option<&CellReport>) -> Drift {
        let here = self.nodes.get(&node).is_some_and(|view| view.present);
        let have = cell.and_then(|cell| self.counts_as(&node, cell));
        let reason = if !here {
            // Only what stays with its data is asked of a node that is away.
            let help = "bring the node back, or let its data go: realm nodes rm";
            let message = "its data is on a node that is away, and it does not move without it";
            Some(reason("node-lost", message, Some(help)))
        } else if cell.is_some_and(|cell| self.is_current(&node, cell)) {
            cell.and_then(|cell| cell.reason.clone())
        } else {
            have.map(|_| {
                reason(
                    "replacing",
                    "an earlier version runs until this one does",
                    None,
                )
            })
        };
        wanted(Some(node), Some(index), have, reason)
    }

    /// What a cell counts as for what is asked now: how one of an earlier version ended says
    /// nothing about this one.
    fn counts_as(&self, node: &PublicKey, cell: &CellReport) -> Option<CellState> {
        let ended = matches!(
            cell.state,
            CellState::Done
                | CellState::Failed
                | CellState::Backoff
                | CellState::Stopped
                | CellState::Library
        );
        (self.is_current(node, cell) || !ended).then_some(cell.state)
    }

    /// Cells that belong to a node which cannot run them, and so start nowhere else.
    pub fn stuck(&self) -> Vec<Drift> {
        match self.component.spec.replicas {
            _ if !self.component.run => Vec::new(),
            Some(_) => self.held_back(),
            None => self.refused(),
        }
    }

    /// Replicas whose data is on a node that drains, or has no room for them.
    fn held_back(&self) -> Vec<Drift> {
        let held = held(self.state, self.name, self.component, self.nodes);
        let beyond = held.into_iter().flat_map(|(node, held)| {
            let count = self.counts.get(&node).copied().unwrap_or(0);
            (count..held).map(move |index| (node, index))
        });
        beyond
            .map(|(node, index)| {
                let reason = if self.state.is_draining(&node) {
                    let message =
                        "its data is on this node, which drains, and it does not move without it";
                    let help =
                        "take it up again: realm nodes undrain; or let its data go: realm nodes rm";
                    reason("draining", message, Some(help))
                } else {
                    let message = "its data is on this node, which has no room for it";
                    self.no_room(message, &[node])
                };
                wanted(
                    Some(node),
                    Some(index),
                    self.have(node, index),
                    Some(reason),
                )
            })
            .collect()
    }

    /// A component that runs everywhere is asked of every node that matches and is here, also of
    /// one that declined it or has no room: what a node cannot do must show.
    fn refused(&self) -> Vec<Drift> {
        chosen(self.component, self.nodes)
            .into_iter()
            .filter(|key| self.nodes.get(key).is_some_and(|view| view.present))
            .filter(|key| !self.state.is_draining(key) && !self.counts.contains_key(key))
            .map(|key| {
                let no_room = || self.no_room("the node has no room for it", &[key]);
                let reason = self.declined(&key);
                let reason = reason.or_else(|| self.behind(&key)).unwrap_or_else(no_room);
                wanted(Some(key), Some(0), self.have(key, 0), Some(reason))
            })
            .collect()
    }

    /// Nodes that are away and should run it: they are missing, and nobody can say when they come.
    pub fn away(&self) -> Vec<Drift> {
        if !self.component.run || self.component.spec.replicas.is_some() {
            return Vec::new();
        }
        chosen(self.component, self.nodes)
            .into_iter()
            .filter(|key| self.nodes.get(key).is_some_and(|view| !view.present))
            .map(|key| {
                let message = "the node is away";
                let reason = reason("node-lost", message, Some("see it: realm nodes ls"));
                wanted(Some(key), Some(0), self.have(key, 0), Some(reason))
            })
            .collect()
    }

    /// So many replicas that no node can take.
    pub fn unplaced(&self, count: u32) -> Vec<Drift> {
        if count == 0 {
            return Vec::new();
        }
        let reason = self.nowhere();
        (0..count)
            .map(|_| wanted(None, None, None, Some(reason.clone())))
            .collect()
    }

    /// Cells that are there and should not be; one that stands for a refusal holds nothing.
    pub fn unwanted(&self) -> Vec<Drift> {
        let kept = kept(
            self.state,
            self.name,
            self.component,
            self.nodes,
            self.counts,
        );
        self.live()
            .filter(|(node, cell)| {
                let refuses = self.nodes.get(node).is_some_and(|view| {
                    declines(view, self.name, self.component)
                        && matches_placement(self.component, *node, view)
                });
                let may_stay = cell.index < kept.get(node).copied().unwrap_or(0);
                !may_stay && !refuses && cell.state != CellState::Stopped
            })
            .map(|(node, cell)| Drift::unwanted(node, cell))
            .collect()
    }

    /// Why no node can take a cell of this component.
    pub fn nowhere(&self) -> Reason {
        let chosen = chosen(self.component, self.nodes);
        if self.nodes.is_empty() {
            let help = "approve one: realm nodes approve, or let one join: realm invite";
            return reason("no-nodes", "no node is approved yet", Some(help));
        }
        if chosen.is_empty() {
            let help = "see the tags: realm nodes ls; change the placement: realm push --tag";
            return reason("no-match", "no node matches its nodes and tags", Some(help));
        }
        if let Some(declined) = chosen.iter().find_map(|key| self.declined(key)) {
            return declined;
        }
        if chosen.iter().all(|key| self.state.is_draining(key)) {
            let help = "take a node up again: realm nodes undrain; or add one: realm invite";
            return reason(
                "draining",
                "every node that could run it drains",
                Some(help),
            );
        }
        let here = eligible(self.state, self.name, self.component, self.nodes);
        if here.is_empty() {
            if let Some(behind) = chosen.iter().find_map(|key| self.behind(key)) {
                return behind;
            }
            let drains = chosen.iter().any(|key| self.state.is_draining(key));
            return match drains {
                true => {
                    let message = "every node that could run it drains or is away";
                    let help = "take a node up again: realm nodes undrain; or bring one back";
                    reason("draining", message, Some(help))
                }
                false => reason("nodes-away", "every node that could run it is away", None),
            };
        }
        self.no_room("no node has room for it", &here)
    }

    /// Names the highest ceiling of the nodes that it does not fit on.
    fn no_room(&self, message: &str, nodes: &[PublicKey]) -> Reason {
        let capacities = nodes.iter().filter_map(|key| {
            let report = self.nodes.get(key)?.report.as_ref()?;
            Some(report.capacity)
        });
        let most = capacities.max_by_key(|capacity| (capacity.memory_mb, capacity.cells));
        let help = match most {
            Some(Capacity { memory_mb, cells }) => format!(
                "raise memory_mb in agent.toml (now {memory_mb} MiB), or lower --memory-max-mb; \
                 max_cells is {cells}"
            ),
            None => "raise memory_mb in agent.toml, or lower --memory-max-mb".to_owned(),
        };
        reason("no-room", message, Some(&help))
    }

    fn declined(&self, node: &PublicKey) -> Option<Reason> {
        let report = self.nodes.get(node)?.report.as_ref()?;
        let declined = report
            .declined
            .iter()
            .find(|declined| declined.component == *self.name);
        declined.map(|declined| declined.reason.clone())
    }

    fn behind(&self, node: &PublicKey) -> Option<Reason> {
        let view = self.nodes.get(node)?;
        is_behind(view, self.component).then(|| {
            let message = "the node's version of realm does not understand the log up to this";
            let help = "install the version there that signed it: see docs/operating/upgrade.md";
            reason("incompatible", message, Some(help))
        })
    }

    fn have(&self, node: PublicKey, index: u32) -> Option<CellState> {
        self.live()
            .find(|(key, cell)| *key == node && cell.index == index)
            .and_then(|(_, cell)| self.counts_as(&node, cell))
    }
}

fn wanted(
    node: Option<PublicKey>,
    index: Option<u32>,
    have: Option<CellState>,
    reason: Option<Reason>,
) -> Drift {
    Drift {
        node,
        index,
        want: true,
        have,
        reason,
    }
}

fn reason(code: &str, message: &str, help: Option<&str>) -> Reason {
    Reason {
        code: code.into(),
        message: message.into(),
        help: help.map(str::to_owned),
    }
}
