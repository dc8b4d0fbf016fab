//! The bounds on connections.

use realm_identity::SecretKey;
use realm_p2p::{DialRpcError, NetLimits, RpcConnection, dial_rpc};

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
