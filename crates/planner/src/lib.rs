//! From what was asked to what a node does: the fold of the log, placement, and the plan.
//!
//! Pure: no async, clock, disk or socket. [`State`] is the folded log, [`fold`] how an intent
//! changes it, [`placement`] who should run what, [`plan()`] what one node does about it, and
//! [`status`] how it all looks to people. Equal input gives equal output on every node.

pub mod fold;
pub mod placement;
pub mod push;
pub mod status;

mod ended;
mod freed;
mod plan;
mod room;
mod state;
mod surplus;

pub use fold::FoldError;
pub use placement::{Assignment, Counts, NodeView, Nodes};
pub use plan::{OwnCell, PlanInput, Step, StopReason, plan};
pub use push::{PushPatch, next_entry};
pub use state::{Component, NodeRecord, SetBy, Standing, State, cell_digest};
