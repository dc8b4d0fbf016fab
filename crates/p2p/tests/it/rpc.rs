//! RPC streams.

use std::rc::Rc;

use futures::{
    AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _,
    future::{LocalBoxFuture, join_all},
};
use realm_identity::PublicKey;
use realm_p2p::{ConnectError, RpcServe, Services, Stream};
use tokio::time::timeout;

use crate::scene::{Node, PATIENCE, QUIC, TCP, config};

/// Answers each byte with itself; a zero makes it panic.
pub struct Echo;

impl RpcServe for Echo {
    fn serve(&self, _: PublicKey, mut stream: Stream) -> LocalBoxFuture<'static, ()> {
        async move {
            let mut byte = [0];
            while stream.read(&mut byte).await.is_ok_and(|read| read == 1) {
                assert!(byte[0] != 0, "asked to panic");
                if stream.write_all(&byte).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        }
        .boxed_local()
    }
}

pub fn echo() -> Services {
    Services {
        blobs: None,
        rpc: Some(Box::new(|| Rc::new(Echo) as Rc<dyn RpcServe>)),
    }
}

pub async fn ask(stream: &mut Stream, byte: u8) -> std::io::Result<u8> {
    stream.write_all(&[byte]).await?;
    stream.flush().await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    Ok(answer[0])
}

#[tokio::test]
async fn sixty_four_streams_at_once_all_arrive() {
    for listen in [TCP, QUIC] {
        let server = Node::serving(config(1, listen), echo()).await;
        let client = Node::start(config(2, listen)).await;
        server.approve(&[&client]).await;
        client.dial(&server).await;
        let opened = join_all((0..64).map(|_| client.handle.open_rpc(server.key()))).await;
        let mut streams: Vec<_> = opened
            .into_iter()
            .map(|open| open.expect("opens"))
            .collect();
        let asked = join_all(
            streams
                .iter_mut()
                .enumerate()
                .map(|(n, stream)| async move {
                    (
                        n as u8 + 1,
                        ask(stream, n as u8 + 1).await.expect("answers"),
                    )
                }),
        );
        for (sent, got) in timeout(PATIENCE, asked).await.expect("in time") {
            assert_eq!(sent, got);
        }
        assert_eq!(server.handle.stats().await.unwrap().rpc_open, 64);
        // One more than a peer may have is closed at once.
        let mut extra = client.handle.open_rpc(server.key()).await.unwrap();
        let refused = timeout(PATIENCE, ask(&mut extra, 1))
            .await
            .expect("in time");
        assert!(refused.is_err());
        assert_eq!(server.handle.stats().await.unwrap().rpc_refused, 1);
    }
}

#[tokio::test]
async fn a_stranger_has_four_streams() {
    let server = Node::serving(config(1, TCP), echo()).await;
    let client = Node::start(config(2, TCP)).await;
    client.dial(&server).await;
    let mut streams = Vec::new();
    for number in 1..=4 {
        let mut stream = client.handle.open_rpc(server.key()).await.unwrap();
        assert_eq!(ask(&mut stream, number).await.unwrap(), number);
        streams.push(stream);
    }
    let mut extra = client.handle.open_rpc(server.key()).await.unwrap();
    assert!(
        timeout(PATIENCE, ask(&mut extra, 5))
            .await
            .expect("in time")
            .is_err()
    );
}

#[tokio::test]
async fn a_panic_ends_only_its_own_stream() {
    let server = Node::serving(config(1, TCP), echo()).await;
    let client = Node::start(config(2, TCP)).await;
    client.dial(&server).await;
    let mut bad = client.handle.open_rpc(server.key()).await.unwrap();
    let mut good = client.handle.open_rpc(server.key()).await.unwrap();
    assert!(ask(&mut bad, 0).await.is_err());
    assert_eq!(ask(&mut good, 5).await.unwrap(), 5);
    assert_eq!(server.handle.stats().await.unwrap().rpc_panics, 1);
}

#[tokio::test]
async fn a_node_without_rpc_says_so() {
    let server = Node::start(config(1, TCP)).await;
    let client = Node::start(config(2, TCP)).await;
    client.dial(&server).await;
    let error = client.handle.open_rpc(server.key()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unsupported(_)), "{error}");
}
