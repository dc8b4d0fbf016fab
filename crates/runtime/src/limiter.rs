//! What a cell's memories and tables take together.

use std::sync::Arc;

use wasmtime::{Error, ResourceLimiter, Result};

use crate::{
    engine::{INSTANCES_PER_CELL, MEMORIES_PER_CELL, TABLE_ELEMENTS, TABLES_PER_CELL},
    exit::Limit,
    guest::Shared,
};

/// Wasmtime stores a table element in a word.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// A running sum over all memories and tables of a store; they live as long as the store does.
#[derive(Debug)]
pub(crate) struct CellLimiter {
    shared: Arc<Shared>,
    /// The last growth that was allowed, to take back if it fails.
    last_growth: u64,
}

impl CellLimiter {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            last_growth: 0,
        }
    }

    fn charge(&mut self, bytes: u64) -> bool {
        let allowed = self
            .shared
            .usage
            .charge_memory(bytes, self.shared.limits.memory_max_bytes());
        self.last_growth = if allowed { bytes } else { 0 };
        if !allowed {
            self.shared.hit(Limit::Memory);
        }
        allowed
    }

    fn undo(&mut self) {
        self.shared
            .usage
            .release_memory(std::mem::take(&mut self.last_growth));
    }
}

impl ResourceLimiter for CellLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        Ok(self.charge((desired.saturating_sub(current)) as u64))
    }

    fn memory_grow_failed(&mut self, _: Error) -> Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        if desired > TABLE_ELEMENTS {
            self.shared.hit(Limit::TableElements);
            self.last_growth = 0;
            return Ok(false);
        }
        let elements = desired.saturating_sub(current) as u64;
        Ok(self.charge(elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn table_grow_failed(&mut self, _: Error) -> Result<()> {
        self.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES_PER_CELL as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_CELL as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_CELL as usize
    }
}
