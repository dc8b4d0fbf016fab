//! The two engines.

use realm_manifest::Limits;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails,
};

pub(crate) const MEMORIES_PER_CELL: u32 = 4;
pub(crate) const TABLES_PER_CELL: u32 = 16;
pub(crate) const TABLE_ELEMENTS: usize = 100_000;
pub(crate) const INSTANCES_PER_CELL: u32 = 32;
/// Wasmtime's default, named because status reports it.
pub(crate) const STACK_BYTES: usize = 512 * 1024;
/// That of a guest and of the host calls it makes, which have half. About two share a page of page tables.
const FIBER_BYTES: usize = 2 * STACK_BYTES;
/// The address space behind one memory, whatever a cell may use of it: Wasmtime's default.
pub(crate) const MEMORY_BYTES: usize = 4 << 30;
/// What the engine keeps of a cell's instances beside their memories and tables, most of it 32 bytes for each function
/// that may be called by reference: a compiler of 75 MB needs 1.2 MiB. Nothing is reserved for it; it comes on top of
/// the cell's memory limit, which Wasmtime has no way to charge for it.
pub(crate) const INSTANCE_BYTES: usize = 8 << 20;
/// Resources (streams, files, sockets) of one cell at once.
pub(crate) const RESOURCES_MAX: usize = 4096;
/// Handles of the component model of one cell at once.
pub(crate) const HANDLES_MAX: usize = 10_000;
/// The engine's own entries behind those: a stream has three, and a pipe between two host ends has no handle.
pub(crate) const CONCURRENT_MAX: usize = 4 * HANDLES_MAX;
/// Bytes one call of a guest may hand to the host.
pub(crate) const HOSTCALL_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of random data one call of a guest may ask for.
pub(crate) const RANDOM_BYTES: u64 = 64 * 1024;
/// Slots for memories and tables are shared: most cells have one memory and few tables.
const MEMORIES_ON_AVERAGE: u32 = 2;
const TABLES_ON_AVERAGE: u32 = 4;

/// Which engine an artifact is compiled for. Counting fuel costs speed, so only cells with a fuel limit pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    Epoch,
    Fuel,
}

impl Flavour {
    pub const fn of(limits: &Limits) -> Self {
        if limits.counts_fuel() {
            Self::Fuel
        } else {
            Self::Epoch
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Fuel => "fuel",
        }
    }
}

/// What compiled code depends on; the same in the agent and in its compile child. With `debug`, what a
/// guest says of its source files is kept beside its code: another form, with a cache entry of its own.
pub(crate) fn base_config(flavour: Flavour, debug: bool) -> Config {
    // Named either way: else a variable of Wasmtime would decide, which the child does not see.
    let details = if debug {
        WasmBacktraceDetails::Enable
    } else {
        WasmBacktraceDetails::Disable
    };
    let mut config = Config::new();
    config
        .wasm_backtrace_details(details)
        .epoch_interruption(true)
        .consume_fuel(flavour == Flavour::Fuel)
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(FIBER_BYTES)
        .memory_init_cow(true);
    config
}

/// An engine that runs cells, with room for `cells` of them.
pub(crate) fn pooling(flavour: Flavour, debug: bool, cells: u32) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(cells)
        .total_core_instances(cells.saturating_mul(INSTANCES_PER_CELL))
        .total_memories(cells.saturating_mul(MEMORIES_ON_AVERAGE))
        .total_tables(cells.saturating_mul(TABLES_ON_AVERAGE))
        .total_stacks(cells.saturating_mul(2))
        .max_core_instances_per_component(INSTANCES_PER_CELL)
        .max_memories_per_component(MEMORIES_PER_CELL)
        .max_memories_per_module(MEMORIES_PER_CELL)
        .max_tables_per_component(TABLES_PER_CELL)
        .max_tables_per_module(TABLES_PER_CELL)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(MEMORY_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_component_instance_size(INSTANCE_BYTES);
    let mut config = base_config(flavour, debug);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}
