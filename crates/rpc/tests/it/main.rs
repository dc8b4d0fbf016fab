//! A client and a node over a pipe in memory.
#![allow(clippy::unwrap_used)]

mod authority;
mod calls;
mod floods;
mod follow;
mod graft;
mod scene;
mod schema;
