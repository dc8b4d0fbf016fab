//! Networks on loopback: real TCP and QUIC, ephemeral ports, no multicast.
#![allow(clippy::unwrap_used)]

mod blobs;
mod client;
mod frames;
mod gossip;
mod hostile;
mod limits;
mod routes;
mod rpc;
mod scene;
mod silence;
mod start;
mod ways;
