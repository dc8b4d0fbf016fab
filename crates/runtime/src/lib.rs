//! Cells: inspecting, compiling, starting, limiting and stopping WebAssembly guests. The only crate that names Wasmtime.
//!
//! [`inspect`] reads bytes without compiling them. [`Runtime::prepare`] reads and compiles in a child process, checks
//! imports and keeps the results in a local cache; [`Runtime::start`] makes a cell of it, and the [`CellHandle`]
//! stops it, waits for it and reports on it.
//!
//! Threads: one that ticks the epoch, and two pools for guests, one of them with a lower priority. The caller's
//! executor never runs a guest. Each cell has one task, owned by its handle and by the runtime.
//!
//! The crate knows nothing of nodes, logs or the network between them.

pub mod compile_child;

mod artifact;
mod cache;
mod cell;
mod compile;
mod dns;
mod ending;
mod engine;
mod exit;
mod files_p2;
mod files_p3;
mod flight;
mod grants;
mod guest;
mod held;
mod inspect;
mod limiter;
mod linker;
mod listing;
mod log_ring;
mod network;
mod output;
mod pace;
mod places;
mod pool;
mod prepared;
mod printable;
mod runtime;
mod sandbox;
mod sockets_p3;
mod stdio;
mod streams;
mod ticker;
mod turns;

pub use cell::{CellConfig, CellHandle, CellStats, Mount, StartError};
pub use compile::{CompileError, CompilerConfig};
pub use engine::Flavour;
pub use exit::{ExitStatus, Limit, LimitHit};
pub use flight::Stage;
pub use inspect::{Entry, InspectError, Inspection, Item, Kind, Need, Preview, Producer, inspect};
pub use log_ring::{LogLine, LogReader, LogRing, LogStream, Sequence};
pub use prepared::{PrepareError, Prepared, PreparedKind};
pub use printable::{printable, printable_json};
pub use runtime::{Runtime, RuntimeConfig, RuntimeError};
pub use stdio::Stdio;
