//! Moves bytes between machines: the only crate that names libp2p.
//!
//! It authenticates peers by key, keeps connections within bounds, and carries four
//! kinds of bytes: frames (`/realm/log/1`), gossip, blob ranges (`/realm/blob/1`) and RPC
//! streams (`/realm/rpc/1`). What the bytes mean is not known here.
//!
//! [`Network::start`] runs one task on a thread of its own; [`NetworkHandle`] sends it
//! commands over a bounded channel, and [`NetworkEvent`]s come back in one ordered,
//! bounded stream. Streams are accepted on that thread, and RPC is served there.
//! A command line uses [`dial_rpc`] and [`discover_mdns`] instead, which need no network.

mod address;
mod behaviour;
mod beside;
mod blob;
mod book;
mod client;
mod config;
mod event;
mod for_approved;
mod frames;
mod gossip;
mod handle;
mod handshakes;
mod key;
mod limits;
mod multicast;
mod network;
mod rpc;
mod slots;
mod streams;
mod task;
mod transport;
#[cfg(test)]
mod wire_page;

pub use address::{
    AddressError, check_address, check_dial_address, check_listen_address, is_here_only, relay_of,
};
pub use blob::{BlobSource, FetchError};
pub use client::{Attempt, DialRpcError, RpcConnection, dial_rpc, discover_mdns};
pub use config::{Config, NetLimits, Services, StartError};
pub use event::{GossipId, Link, NetworkEvent, PeerInfo, Reachability, Stats, Topic, Verdict};
pub use handle::{Closed, ConnectError, NetworkHandle, PublishError};
pub use multicast::leads_nowhere_v4;
pub use network::Network;
pub use rpc::{RpcFactory, RpcServe};

/// A stream between two peers: reads and writes by the traits of `futures::io`.
pub use libp2p::Stream;

/// Makes aws-lc-rs the process's TLS provider. Call it first in `main` and in tests; calling again is harmless.
pub fn install_crypto_provider() {
    // An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
