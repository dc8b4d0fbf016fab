//! Tests of the protocol: the log by itself, and whole realms in a seeded simulator.

#![allow(clippy::unwrap_used)]

#[path = "../../../agent/src/approvals.rs"]
mod approvals;
mod authority;
#[path = "../../../manifest/tests/it/cbor.rs"]
mod cbor;
mod claims;
mod client;
mod expelled;
mod faults;
mod fold;
mod forged;
mod forger;
mod forgeries;
mod frames;
mod invariants;
mod joins;
mod log;
mod lost;
mod membership;
mod merges;
mod net;
mod newcomer;
mod node;
mod pair;
#[path = "../../../agent/src/fold.rs"]
mod planner_fold;
mod reports;
mod rotations;
mod sim;
mod sized;
mod sync;
mod waiting;
mod wire_page;
mod world;
