//! What a cell may use.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Bounds of one cell. Absent limits have the defaults of [`Limits::default`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// MiB over all linear memories, tables and host buffers of the cell together.
    #[n(0)]
    pub memory_max_mb: u32,
    /// Fuel per start, in Wasmtime's units (about one per instruction); 0 is unlimited.
    #[n(1)]
    pub fuel: u64,
    /// Fuel per second; a dry bucket suspends the cell, never traps. 0 is unlimited.
    #[n(2)]
    pub fuel_per_sec: u64,
    /// The preemption slice: the longest the cell holds a thread before it yields, in milliseconds.
    #[n(3)]
    pub epoch_ms: u32,
    /// Longest one invocation may take, in milliseconds; unset for services.
    #[n(4)]
    pub deadline_ms: Option<u64>,
    /// Requests served at once by one cell.
    #[n(5)]
    pub max_concurrency: u32,
    /// Bytes a second that standard output and standard error may write together.
    #[n(6)]
    pub output_bytes_per_sec: u64,
}

impl Limits {
    pub const MEMORY_MAX_MB: u32 = 64;
    pub const EPOCH_MS: u32 = 100;
    pub const MAX_CONCURRENCY: u32 = 64;
    pub const OUTPUT_BYTES_PER_SEC: u64 = 1024 * 1024;

    pub const fn memory_max_bytes(&self) -> u64 {
        self.memory_max_mb as u64 * 1024 * 1024
    }

    /// Whether the cell needs the engine that counts fuel.
    pub const fn counts_fuel(&self) -> bool {
        self.fuel > 0 || self.fuel_per_sec > 0
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_max_mb: Self::MEMORY_MAX_MB,
            fuel: 0,
            fuel_per_sec: 0,
            epoch_ms: Self::EPOCH_MS,
            deadline_ms: None,
            max_concurrency: Self::MAX_CONCURRENCY,
            output_bytes_per_sec: Self::OUTPUT_BYTES_PER_SEC,
        }
    }
}
