//! The bounds on connections.

use std::time::{Duration, Instant};

use realm_identity::SecretKey;
use realm_p2p::{DialRpcError, NetLimits, RpcConnection, dial_rpc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

use crate::{
    rpc::{ask, echo},
    scene::{Node, PATIENCE, TCP, config},
};

async fn dial(node: &Node, number: u16) -> Result<RpcConnection, DialRpcError> {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    dial_rpc(
        &[node.address().await],
        None,
        &SecretKey::from_seed(&seed),
        PATIENCE,
    )
    .await
}

#[tokio::test]
async fn the_129th_stranger_is_refused_and_an_approved_peer_is_not() {
    let node = Node::serving(config(1, TCP), echo()).await;
    let max = NetLimits::default().stranger_in as u16;
    let mut strangers = Vec::new();
    for number in 0..max {
        strangers.push(dial(&node, number + 1000).await.expect("within the limit"));
    }
    assert!(dial(&node, 3000).await.is_err(), "one too many");
    assert_eq!(node.handle.stats().await.unwrap().refused, 1);
    let approved = Node::start(config(2, TCP)).await;
    node.approve(&[&approved]).await;
    approved.dial(&node).await;
    let mut stream = approved
        .handle
        .open_rpc(node.key())
        .await
        .expect("a budget of its own");
    assert_eq!(ask(&mut stream, 3).await.unwrap(), 3);
    // The strangers that were there first are not disturbed.
    for stranger in &mut strangers {
        let mut stream = stranger.stream.take().unwrap();
        assert_eq!(ask(&mut stream, 4).await.unwrap(), 4);
    }
}

#[tokio::test]
async fn a_peer_has_two_connections_at_most() {
    let node = Node::serving(config(1, TCP), echo()).await;
    let _one = dial(&node, 1000).await.expect("the first");
    let _two = dial(&node, 1000).await.expect("the second");
    assert!(dial(&node, 1000).await.is_err(), "the third");
}

#[tokio::test]
async fn connections_to_strangers_are_counted_too() {
    let mut settings = config(1, TCP);
    settings.limits.stranger_out = 1;
    let node = Node::start(settings).await;
    let (first, second) = (
        Node::start(config(2, TCP)).await,
        Node::start(config(3, TCP)).await,
    );
    node.dial(&first).await;
    let error = node.handle.dial(&second.address().await).await.unwrap_err();
    assert!(error.to_string().contains("to strangers"), "{error}");
}

/// Connections that a flood holds at once: it opens another for each one that is ended.
const FLOOD: usize = 1000;
/// Multistream's header is this, with its length before it; half of it says nothing yet.
const HALF_A_HEADER: &[u8] = b"\x13/multist";

/// One of the flood: connects, says that much, and does it again when it is thrown out.
async fn silent(address: std::net::SocketAddr, says: &'static [u8], opened: watch::Sender<usize>) {
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let wrote = stream.write_all(says).await;
        opened.send_modify(|opened| *opened += 1);
        if wrote.is_ok() {
            // Ends when the node does not want it any more; what it says meanwhile is not read.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_nobody_out() {
    let node = Node::serving(config(1, TCP), echo()).await;
    let address = node.address().await;
    let port = address.split('/').nth(4).unwrap().parse().unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    for says in [&b""[..], HALF_A_HEADER] {
        let (opened, mut many) = watch::channel(0);
        let mut flood = JoinSet::new();
        for _ in 0..FLOOD {
            flood.spawn(silent(address, says, opened.clone()));
        }
        many.wait_for(|many| *many >= FLOOD).await.unwrap();
        for number in 0..10 {
            let began = Instant::now();
            let mut client = dial(&node, number).await.expect("gets in");
            assert_eq!(ask(client.stream.as_mut().unwrap(), 3).await.unwrap(), 3);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(2), "{number} took {took:?}");
        }
        flood.shutdown().await;
    }
    assert!(node.handle.stats().await.unwrap().refused > 0);
}
