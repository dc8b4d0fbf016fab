//! Serving RPC streams on the network's own thread, `/realm/rpc/1`.

use std::{panic::AssertUnwindSafe, rc::Rc};

use futures::{FutureExt as _, future::LocalBoxFuture};
use libp2p::{Stream, StreamProtocol};
use realm_identity::PublicKey;

use crate::slots::Slot;

pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/realm/rpc/1");

/// Serves one RPC connection after the other; lives on the network's thread.
///
/// Each future runs as a task of its own, so that a panic ends only that connection.
pub trait RpcServe {
    /// `peer` is authenticated by the transport; what it may do is for the RPC to decide.
    fn serve(&self, peer: PublicKey, stream: Stream) -> LocalBoxFuture<'static, ()>;
}

/// Makes the server on the network's thread, since Cap'n Proto's objects cannot cross threads.
pub type RpcFactory = Box<dyn FnOnce() -> Rc<dyn RpcServe> + Send>;

/// Whether it ended by itself.
pub(crate) async fn run(
    server: Rc<dyn RpcServe>,
    peer: PublicKey,
    stream: Stream,
    _slot: Slot,
) -> bool {
    let connection = async move { server.serve(peer, stream).await };
    AssertUnwindSafe(connection).catch_unwind().await.is_ok()
}
