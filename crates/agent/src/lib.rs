//! The agent: the one place where log, network, store and runtime meet.
//!
//! [`Agent::start`] builds every part and hands it to one task, the core, which owns the
//! realm's state on this node and has a thread of its own. Around it: the ledger's thread, the
//! network's thread (with the RPC server on it), the guests' threads of the runtime, one task for
//! each cell, and the HTTP endpoint. All of them are stopped in order by [`Agent::shutdown`].
//!
//! What must stay absent: an owner's private key, and any way to change state but a signed intent.

pub mod agent_file;
mod alarms;
pub mod approvals;
mod backoff;
mod cell;
mod clock;
mod config;
mod control;
mod core;
mod desk;
mod ended;
mod events;
mod fetch;
mod floor;
mod fold;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod leave;
mod ledger;
mod local;
mod logs;
mod metrics;
mod naming;
mod offenders;
mod presence;
mod reason;
mod report;
mod sealing;
mod start;
pub mod status;
mod supervisor;
mod survey;
pub mod trust;
mod twins;
mod volumes;
mod whereabouts;

pub use config::{Config, ConfigError, DEFAULT_HTTP, DEFAULT_PORT, default_listen};
pub use fold::PlannerFold;
pub use leave::{LeaveError, leave};
pub use local::{Local, LocalError};
pub use start::{Agent, CoreEnded, StartError};

/// What a node tells others of its program.
pub(crate) const VERSION: &str = concat!("realm/", env!("CARGO_PKG_VERSION"));
