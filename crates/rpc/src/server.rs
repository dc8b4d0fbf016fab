//! The node's side of one connection.

use std::{rc::Rc, time::Duration};

use capnp_rpc::{RpcSystem, rpc_twoparty_capnp::Side};
use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use crate::{
    Host, Limits,
    gate::{Gate, Network},
    membrane::MembraneServer,
    schema::membrane_capnp::membrane,
};

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The peer broke a bound or the protocol, or the stream failed.
    #[error("the connection was cut")]
    Cut(#[source] capnp::Error),
    #[error("nothing was under way for {0:?}")]
    Idle(Duration),
}

impl ServeError {
    /// Whether the peer asked for more at once than one connection may; no stream that breaks off looks so.
    pub fn is_overload(&self) -> bool {
        matches!(self, Self::Cut(error) if error.kind == capnp::ErrorKind::Overloaded)
    }
}

/// Serves a [`Host`]'s membrane over `stream` until the peer leaves, is idle or is cut off.
///
/// Must run on a [`tokio::task::LocalSet`] or any other executor of one thread. Dropping it closes the connection.
pub async fn serve<S>(stream: S, host: Rc<dyn Host>, limits: Limits) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (network, gate) = Network::new(stream, Side::Server, limits);
    let membrane: membrane::Client = capnp_rpc::new_client(MembraneServer::new(host, limits));
    let system = RpcSystem::new(Box::new(network), Some(membrane.client));
    tokio::select! {
        ended = system => ended.map_err(ServeError::Cut),
        () = idle(&gate, limits.idle) => Err(ServeError::Idle(limits.idle)),
    }
}

/// Returns once nothing was under way for `limit`.
async fn idle(gate: &Gate, limit: Duration) {
    loop {
        let since = gate.idle_since().unwrap_or_else(Instant::now);
        let end = since + limit;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}
