//! How a cell ended, and which limit it met.

use std::fmt;

use realm_manifest::Limits;
use serde::Serialize;

use crate::{
    engine,
    files_p3::FILE_STREAMS_MAX,
    listing::LISTINGS_MAX,
    network::{OUTBOUND_MAX, SOCKETS_MAX},
};

/// The end of one start of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitStatus {
    /// The guest returned, or called exit.
    Exited(i32),
    /// The guest did something WebAssembly forbids, or aborted.
    Trapped { message: String },
    /// A limit ended it.
    LimitHit(LimitHit),
    /// Stopped from outside.
    Killed,
    /// The host could not run it: not the guest's doing.
    Failed { message: String },
}

impl ExitStatus {
    /// The guest's code where it has one.
    pub const fn code(&self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(*code),
            _ => None,
        }
    }

    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Exited(0))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Trapped { message } => write!(f, "trapped: {message}"),
            Self::LimitHit(hit) => hit.fmt(f),
            Self::Killed => f.write_str("stopped"),
            Self::Failed { message } => write!(f, "could not run: {message}"),
        }
    }
}

/// A limit that a cell met: which, what it stands at, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitHit {
    pub which: Limit,
    /// The limit's value, in the unit of [`Limit`].
    pub value: u64,
    pub remedy: String,
}

impl LimitHit {
    pub fn new(which: Limit, value: u64) -> Self {
        Self {
            which,
            value,
            remedy: which.remedy(value),
        }
    }

    /// A limit that a cell with these limits met.
    pub fn of(which: Limit, limits: &Limits) -> Self {
        Self::new(which, which.value(limits))
    }

    /// Which limit, and where it stands.
    pub fn name(&self) -> String {
        let unit = self.which.unit();
        format!("limit {} of {}{unit}", self.which, self.value)
    }
}

impl fmt::Display for LimitHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} met: {}", self.name(), self.remedy)
    }
}

/// Everything a cell is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Bytes over all memories and tables.
    Memory,
    /// Elements of one table.
    TableElements,
    Memories,
    Tables,
    Instances,
    /// Bytes of address space behind one memory.
    MemorySize,
    /// Bytes that the engine keeps of an instance: it grows with functions, globals and tables.
    InstanceSize,
    /// Streams, files, sockets and timers open at once.
    Resources,
    /// Handles of the component model at once.
    Handles,
    /// Bytes in one call to the host.
    HostcallBytes,
    /// Random bytes in one call.
    RandomBytes,
    /// Fuel per start.
    Fuel,
    /// Fuel per second: suspends, never ends a cell.
    FuelPerSec,
    /// Milliseconds one invocation may take.
    Deadline,
    /// Bytes a second of output: delays, never ends a cell.
    Output,
    /// Sockets open at once.
    Sockets,
    /// Lookups and datagram calls under way at once.
    Outbound,
    /// Directories being read at once.
    Listings,
    /// Streams of files of WASI 0.3 at once.
    FileStreams,
    /// Depth of calls, in bytes of stack.
    Stack,
}

impl Limit {
    pub(crate) const ALL: [Self; 20] = [
        Self::Memory,
        Self::TableElements,
        Self::Memories,
        Self::Tables,
        Self::Instances,
        Self::MemorySize,
        Self::InstanceSize,
        Self::Resources,
        Self::Handles,
        Self::HostcallBytes,
        Self::RandomBytes,
        Self::Fuel,
        Self::FuelPerSec,
        Self::Deadline,
        Self::Output,
        Self::Sockets,
        Self::Outbound,
        Self::Listings,
        Self::FileStreams,
        Self::Stack,
    ];

    /// The stable code in status and events.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::TableElements => "table-elements",
            Self::Memories => "memories",
            Self::Tables => "tables",
            Self::Instances => "instances",
            Self::MemorySize => "memory-size",
            Self::InstanceSize => "instance-size",
            Self::Resources => "resources",
            Self::Handles => "handles",
            Self::HostcallBytes => "hostcall-bytes",
            Self::RandomBytes => "random-bytes",
            Self::Fuel => "fuel",
            Self::FuelPerSec => "fuel-per-sec",
            Self::Deadline => "deadline",
            Self::Output => "output",
            Self::Sockets => "sockets",
            Self::Outbound => "outbound",
            Self::Listings => "listings",
            Self::FileStreams => "file-streams",
            Self::Stack => "stack",
        }
    }

    /// Whether it slows a cell down, and refuses it nothing.
    pub const fn delays(self) -> bool {
        matches!(self, Self::FuelPerSec | Self::Output)
    }

    /// Where it stands for a cell with these limits, in its unit.
    pub fn value(self, limits: &Limits) -> u64 {
        match self {
            Self::Memory => limits.memory_max_bytes(),
            Self::Fuel => limits.fuel,
            Self::FuelPerSec => limits.fuel_per_sec,
            Self::Deadline => limits.deadline_ms.unwrap_or_default(),
            Self::Output => limits.output_bytes_per_sec,
            Self::TableElements => engine::TABLE_ELEMENTS as u64,
            Self::Memories => u64::from(engine::MEMORIES_PER_CELL),
            Self::Tables => u64::from(engine::TABLES_PER_CELL),
            Self::Instances => u64::from(engine::INSTANCES_PER_CELL),
            Self::MemorySize => engine::MEMORY_BYTES as u64,
            Self::InstanceSize => engine::INSTANCE_BYTES as u64,
            Self::Resources => engine::RESOURCES_MAX as u64,
            Self::Handles => engine::HANDLES_MAX as u64,
            Self::HostcallBytes => engine::HOSTCALL_BYTES as u64,
            Self::RandomBytes => engine::RANDOM_BYTES,
            Self::Sockets => SOCKETS_MAX as u64,
            Self::Outbound => OUTBOUND_MAX as u64,
            Self::Listings => LISTINGS_MAX as u64,
            Self::FileStreams => FILE_STREAMS_MAX as u64,
            Self::Stack => engine::STACK_BYTES as u64,
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Memory
            | Self::Stack
            | Self::MemorySize
            | Self::InstanceSize
            | Self::HostcallBytes
            | Self::RandomBytes => " bytes",
            Self::Deadline => " ms",
            Self::Output => " bytes a second",
            _ => "",
        }
    }

    fn remedy(self, value: u64) -> String {
        const MIB: u64 = 1024 * 1024;
        match self {
            Self::Memory => format!(
                "raise memory_max_mb above {}, or make the guest use less",
                value / MIB
            ),
            Self::Fuel => format!("raise fuel above {value}, or set 0 for no limit"),
            Self::FuelPerSec => format!("raise fuel_per_sec above {value}, or set 0 for no limit"),
            Self::Deadline => format!("raise deadline_ms above {value}, or unset it for a service"),
            Self::Output => "write less: no push can raise this limit".into(),
            Self::Stack => "the guest recurses too deeply: this limit is fixed".into(),
            Self::Sockets
            | Self::Resources
            | Self::Handles
            | Self::Listings
            | Self::FileStreams => "close some first: this limit is fixed".into(),
            Self::HostcallBytes | Self::RandomBytes => {
                "ask for less at once: this limit is fixed".into()
            }
            Self::MemorySize | Self::InstanceSize => {
                "build the guest smaller: this limit is fixed".into()
            }
            Self::Outbound => "wait for some first: this limit is fixed".into(),
            Self::TableElements | Self::Memories | Self::Tables | Self::Instances => {
                "build the guest with fewer: this limit is fixed".into()
            }
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
