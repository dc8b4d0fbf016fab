//! What a node can give, and what is reserved of it.

use crate::{Component, NodeView};

/// What a node still has to give; a node that declared nothing is not limited here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    memory_mb: u64,
    cells: u32,
}

impl Room {
    pub fn of(node: &NodeView) -> Self {
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

    /// Reserves one cell of the component, if it fits.
    pub fn take(&mut self, component: &Component) -> bool {
        self.reserve(component.spec.limits.memory_max_mb)
    }

    /// Reserves the place of a cell that has ended, if there is one: it is still reported.
    pub fn take_ended(&mut self) -> bool {
        self.reserve(0)
    }

    /// Gives back the memory of this many cells of the component that have ended.
    pub fn give_back(&mut self, component: &Component, ended: u64) {
        let freed = u64::from(component.spec.limits.memory_max_mb).saturating_mul(ended);
        self.memory_mb = self.memory_mb.saturating_add(freed);
    }

    /// Reserves this many MiB more for a cell that has its place, if they are there.
    pub fn grow(&mut self, memory_mb: u32) -> bool {
        let left = self.memory_mb.checked_sub(memory_mb.into());
        self.memory_mb = left.unwrap_or(self.memory_mb);
        left.is_some()
    }

    /// Reserves one cell of this many MiB, if it fits.
    pub fn reserve(&mut self, memory_mb: u32) -> bool {
        let memory_mb = u64::from(memory_mb);
        if self.cells == 0 || self.memory_mb < memory_mb {
            return false;
        }
        self.cells -= 1;
        self.memory_mb -= memory_mb;
        true
    }
}
