//! Which cells beyond a node's count may stop without the component falling short.
//!
//! The order in which surplus cells stop depends on nothing but the signed reports and the
//! ranking. A cell that has stopped was the first in that order, so whoever sees it gone comes to
//! the same remaining list: nodes that act on older and newer reports never stop too many.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use realm_manifest::{
    ComponentName,
    identity::PublicKey,
    report::{CellReport, CellState},
};

use crate::{
    Component, Nodes, State, cell_digest,
    placement::{Counts, kept, ranking},
};

/// How a component's cells stand on the nodes that are here.
#[derive(Debug)]
pub(crate) struct Surplus {
    /// Cells that run as asked, wherever.
    running: u32,
    replicas: u32,
    /// How many cells each node may keep in any case.
    kept: Counts,
    stops: BTreeSet<(PublicKey, u32)>,
}

/// Whether the cell does its work, or has done it.
pub(crate) const fn serves(state: CellState) -> bool {
    matches!(
        state,
        CellState::Running | CellState::Done | CellState::Library
    )
}

/// Whether the cell is made from what is asked now.
pub(crate) fn is_current(cell: &CellReport, component: &Component, node: &PublicKey) -> bool {
    cell.spec == cell_digest(&component.spec) && cell.generation >= component.generation_on(node)
}

/// Every cell of the component that may be alive, by the reports of the nodes that are here.
pub(crate) fn live_cells<'n>(
    name: &'n ComponentName,
    nodes: &'n Nodes,
) -> impl Iterator<Item = (PublicKey, &'n CellReport)> {
    nodes.iter().flat_map(move |(key, node)| {
        let cells = node
            .live_report()
            .into_iter()
            .flat_map(|report| &report.cells);
        cells
            .filter(move |cell| cell.component == *name)
            .map(move |cell| (*key, cell))
    })
}

impl Surplus {
    pub fn of(
        state: &State,
        name: &ComponentName,
        component: &Component,
        counts: &Counts,
        nodes: &Nodes,
    ) -> Self {
        let replicas = component.spec.replicas.unwrap_or(0);
        let ranks: BTreeMap<PublicKey, usize> =
            ranking(state, name, nodes.keys().copied().collect())
                .into_iter()
                .zip(0..)
                .collect();
        let kept = kept(state, name, component, nodes, counts);
        let (mut running, mut spare) = (0u32, Vec::new());
        for (key, cell) in live_cells(name, nodes).filter(|(_, cell)| serves(cell.state)) {
            let current = is_current(cell, component, &key);
            running += u32::from(current);
            if cell.index >= kept.get(&key).copied().unwrap_or(0) {
                // False is first: what is out of date, then what drains, then the last ranked.
                let stays = !state.is_draining(&key);
                let last = Reverse((ranks.get(&key), cell.index));
                spare.push((current, stays, last, key));
            }
        }
        spare.sort_unstable();
        // An older cell in its place is about to be replaced there, and is not relied on.
        let outdated = spare.iter().filter(|(current, ..)| !current).count();
        let able = (running as usize + outdated).saturating_sub(replicas as usize);
        let stops = spare
            .into_iter()
            .take(able)
            .map(|(_, _, Reverse((_, index)), key)| (key, index))
            .collect();
        Self {
            running,
            replicas,
            kept,
            stops,
        }
    }

    /// Whether a cell beyond its node's count may stop; `report` is what the node says of it.
    pub fn may_stop(&self, node: PublicKey, index: u32, report: Option<&CellReport>) -> bool {
        if index < self.kept.get(&node).copied().unwrap_or(0) {
            return false;
        }
        match report {
            Some(cell) if serves(cell.state) => self.stops.contains(&(node, index)),
            // It adds nothing to what runs.
            Some(_) => true,
            // Nothing is known of it yet, so the others must be enough.
            None => self.running >= self.replicas,
        }
    }
}
