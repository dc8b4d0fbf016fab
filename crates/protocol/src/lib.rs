//! What nodes say to each other, as state machines without IO.
//!
//! [`Node`] is the whole protocol of one node: log sync, forks and merges, membership,
//! status and claims. The caller gives it [`Event`]s with the present time and carries out
//! the [`Effect`]s it asks for; nothing here reads a clock, a disk or a socket.
//! [`Log`] is the chain by itself, [`Frame`] the bytes on `/realm/log/1`, [`gossip`] those on
//! the topics. What an intent means is not known here: the caller supplies a [`Fold`].

mod event;
mod fold;
mod frame;
pub mod gossip;
pub mod limits;
mod log;
mod mutation;
mod node;
mod pace;
mod refusal;
mod swim;

pub use event::{
    Accepted, Checkpoint, Effect, Event, Expulsion, Item, MemberState, Now, Op, Restored, Token,
    Topic, Verdict,
};
pub use fold::{Fold, FoldRefusal};
pub use frame::{Frame, FrameError, Point};
pub use gossip::{HeadAnnounce, JoinRequest};
pub use log::{Halt, Head, Inserted, Log};
#[doc(hidden)]
pub use mutation::Mutation;
pub use node::{Config, Node, RestoreError};
pub use pace::report_every_ms;
pub use refusal::{Offence, Refusal};
pub use swim::Member;
