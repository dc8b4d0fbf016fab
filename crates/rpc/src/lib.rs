//! Control over Cap'n Proto: membranes, servers, clients and the status they speak of.
//!
//! No transport and no IO: [`serve`] and [`connect`] run over any stream, on a
//! [`tokio::task::LocalSet`], since Cap'n Proto's objects cannot cross threads. Each connection
//! is one future, so that whatever goes wrong in it ends only that connection.
//!
//! A node implements [`Host`] (who is there, what a key may hold) and [`Control`] (what an operator
//! may do). A command line calls [`connect`], then [`Client::graft`], and uses the [`Operator`].

mod client;
mod control;
mod convert;
mod error;
mod gate;
mod limits;
mod membrane;
mod operator;
mod operator_client;
mod server;
mod sink;
pub mod status;
mod survey;
mod trace;

// Made by `examples/generate.rs` from `schema/*.capnp`; `tests/it` compares their digests.
mod schema {
    #![allow(
        clippy::all,
        clippy::unwrap_used,
        clippy::unimplemented,
        missing_debug_implementations,
        reason = "generated code"
    )]
    pub mod membrane_capnp;
    pub mod operator_capnp;
}

pub use client::{Client, ConnectError, Graft, connect};
pub use control::{
    Branch, Control, Event, Fork, Head, HeadId, Intent, LogLine, LogQuery, LogStream, PendingNode,
    PublicInfo, Submitted, Upload,
};
pub use error::{ErrorCode, RpcError};
pub use limits::{CHUNK_BYTES, Limits};
pub use membrane::Host;
pub use operator_client::{Operator, UploadClient};
pub use server::{ServeError, serve};
pub use sink::{EventSink, LogSink, SinkClosed};
pub use survey::{Sighting, Survey, SurveySink, View};
