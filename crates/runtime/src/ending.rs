//! How an error of the engine is told: the limit that it met if there is one, else what the guest did.

use wasmtime::{Trap, component::ResourceTableError};
use wasmtime_wasi::I32Exit;

use crate::{
    ExitStatus, Limit, LimitHit,
    engine::{
        HANDLES_MAX, HOSTCALL_BYTES, INSTANCE_BYTES, INSTANCES_PER_CELL, MEMORIES_PER_CELL,
        MEMORY_BYTES, RANDOM_BYTES, RESOURCES_MAX, STACK_BYTES, TABLE_ELEMENTS, TABLES_PER_CELL,
    },
    guest::Shared,
};

#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
pub(crate) struct DeadlinePassed;

pub(crate) fn deadline_hit(shared: &Shared) -> ExitStatus {
    shared.hit(Limit::Deadline);
    ExitStatus::LimitHit(LimitHit::new(
        Limit::Deadline,
        shared.limits.deadline_ms.unwrap_or_default(),
    ))
}

pub(crate) fn explain(shared: &Shared, error: &wasmtime::Error) -> ExitStatus {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return ExitStatus::Exited(*code);
    }
    if error.is::<DeadlinePassed>() {
        return deadline_hit(shared);
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return ExitStatus::Failed {
            message: format!("the node has no room for another cell: {error:#}"),
        };
    }
    match limit_met(shared, error) {
        Some((limit, value)) => {
            if !shared.was_hit(limit) {
                shared.hit(limit);
            }
            ExitStatus::LimitHit(LimitHit::new(limit, value))
        }
        None => ExitStatus::Trapped {
            message: trap_message(error),
        },
    }
}

/// Which limit explains the error. A trap after a refused growth is a guest that could not go on without the memory.
fn limit_met(shared: &Shared, error: &wasmtime::Error) -> Option<(Limit, u64)> {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return Some((Limit::Fuel, shared.limits.fuel)),
        Some(Trap::StackOverflow) => return Some((Limit::Stack, STACK_BYTES as u64)),
        _ => {}
    }
    if shared.was_hit(Limit::TableElements) {
        return Some((Limit::TableElements, TABLE_ELEMENTS as u64));
    }
    if shared.was_hit(Limit::Memory) {
        return Some((Limit::Memory, shared.limits.memory_max_bytes()));
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Some((Limit::Resources, RESOURCES_MAX as u64));
    }
    fixed_limit(&format!("{error:#}"))
}

/// A limit that is the same for every cell, by what the engine says when it is met: it has no types for these.
/// Each has a test, so that another wording in a new version is noticed.
pub(crate) fn fixed_limit(text: &str) -> Option<(Limit, u64)> {
    const PHRASES: &[(&str, Limit, u64)] = &[
        (
            "instance count too high",
            Limit::Instances,
            INSTANCES_PER_CELL as u64,
        ),
        (
            "memory count too high",
            Limit::Memories,
            MEMORIES_PER_CELL as u64,
        ),
        (
            "table count too high",
            Limit::Tables,
            TABLES_PER_CELL as u64,
        ),
        (
            "defined memories count of",
            Limit::Memories,
            MEMORIES_PER_CELL as u64,
        ),
        (
            "defined tables count of",
            Limit::Tables,
            TABLES_PER_CELL as u64,
        ),
        (
            "core module instances, which exceeds",
            Limit::Instances,
            INSTANCES_PER_CELL as u64,
        ),
        (
            "linear memories, which exceeds",
            Limit::Memories,
            MEMORIES_PER_CELL as u64,
        ),
        (
            "tables, which exceeds",
            Limit::Tables,
            TABLES_PER_CELL as u64,
        ),
        (
            "has a minimum element size of",
            Limit::TableElements,
            TABLE_ELEMENTS as u64,
        ),
        (
            "memory has a minimum byte size",
            Limit::MemorySize,
            MEMORY_BYTES as u64,
        ),
        (
            "instance allocation for this",
            Limit::InstanceSize,
            INSTANCE_BYTES as u64,
        ),
        (
            "store handle limit exceeded",
            Limit::Handles,
            HANDLES_MAX as u64,
        ),
        (
            "fuel allocated for hostcalls has been exhausted",
            Limit::HostcallBytes,
            HOSTCALL_BYTES as u64,
        ),
        ("requested len", Limit::RandomBytes, RANDOM_BYTES),
    ];
    PHRASES
        .iter()
        .find(|(phrase, ..)| text.contains(phrase))
        .map(|(_, limit, value)| (*limit, *value))
}

/// The cause first, then where: what people read is the first line.
fn trap_message(error: &wasmtime::Error) -> String {
    /// A backtrace names functions of the guest, which may be as long as it likes.
    const MAX_CHARS: usize = 4096;
    let text = match error.downcast_ref::<Trap>() {
        Some(trap) => format!("{trap}\n{error}"),
        None => format!("{error:#}"),
    };
    text.chars().take(MAX_CHARS).collect()
}
