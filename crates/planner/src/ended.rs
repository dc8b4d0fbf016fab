//! Cells that have ended: they hold their place and no memory.

use std::collections::{BTreeMap, BTreeSet};

use realm_manifest::{
    ComponentName,
    identity::{Hash, PublicKey},
    report::{CellReport, CellState},
};

use crate::{Nodes, State, cell_digest};

/// Indices of cells by component and node.
type Indices<'s> = BTreeMap<(&'s ComponentName, PublicKey), BTreeSet<u32>>;

/// What the nodes that are here report of cells that are as asked now.
#[derive(Debug, Default)]
pub(crate) struct Current<'s> {
    cells: Indices<'s>,
    ended: Indices<'s>,
}

impl<'s> Current<'s> {
    pub fn of(state: &'s State, nodes: &Nodes) -> Self {
        let mut found = Self::default();
        let mut digests: BTreeMap<&ComponentName, Hash> = BTreeMap::new();
        for (key, node) in nodes {
            let Some(report) = node.live_report() else {
                continue;
            };
            for cell in &report.cells {
                let asked = state.components.get_key_value(&cell.component);
                let Some((name, component)) = asked else {
                    continue;
                };
                let digest = digests.entry(name);
                let digest = *digest.or_insert_with(|| cell_digest(&component.spec));
                let current =
                    cell.spec == digest && cell.generation >= component.generation_on(key);
                if cell.state == CellState::Stopped || !current {
                    continue;
                }
                let id = (name, *key);
                found.cells.entry(id).or_default().insert(cell.index);
                if has_ended(cell) {
                    found.ended.entry(id).or_default().insert(cell.index);
                }
            }
        }
        found
    }

    pub fn none_ended(&self) -> bool {
        self.ended.is_empty()
    }

    /// Whether the node has this cell, whatever became of it.
    pub fn has(&self, name: &ComponentName, node: PublicKey, index: u32) -> bool {
        let cells = self.cells.get(&(name, node));
        cells.is_some_and(|cells| cells.contains(&index))
    }

    pub fn has_ended(&self, name: &ComponentName, node: PublicKey, index: u32) -> bool {
        let ended = self.ended.get(&(name, node));
        ended.is_some_and(|ended| ended.contains(&index))
    }

    /// How many of the cells below `count` have ended.
    pub fn ended_below(&self, name: &ComponentName, node: PublicKey, count: u32) -> u64 {
        let ended = self.ended.get(&(name, node));
        ended.map_or(0, |ended| ended.range(..count).count() as u64)
    }
}

/// Whether a cell will not run again until its spec or its generation changes, and uses no memory.
///
/// What is tried once more says `Backoff`, never `Failed`. Where a cell failed before it could
/// take over from the one that it was to replace, that one runs on, and its memory is reported here.
pub(crate) const fn has_ended(cell: &CellReport) -> bool {
    match cell.state {
        CellState::Done | CellState::Library => true,
        CellState::Failed => cell.memory_bytes == 0,
        CellState::Pulling
        | CellState::Compiling
        | CellState::Starting
        | CellState::Running
        | CellState::Backoff
        | CellState::Stopped => false,
    }
}
