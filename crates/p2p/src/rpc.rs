//! Serving RPC streams on the network's own thread.

use std::rc::Rc;

use futures::future::LocalBoxFuture;
use libp2p::Stream;
use realm_identity::PublicKey;

/// Serves one RPC connection after the other; lives on the network's thread.
///
/// Each future runs as a task of its own, so that a panic ends only that connection.
pub trait RpcServe {
    /// `peer` is authenticated by the transport; what it may do is for the RPC to decide.
    fn serve(&self, peer: PublicKey, stream: Stream) -> LocalBoxFuture<'static, ()>;
}

/// Makes the server on the network's thread, since Cap'n Proto's objects cannot cross threads.
pub type RpcFactory = Box<dyn FnOnce() -> Rc<dyn RpcServe> + Send>;
