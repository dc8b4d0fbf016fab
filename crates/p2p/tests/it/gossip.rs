//! Gossip: validated before it goes on, and only among approved peers.

use std::time::Duration;

use realm_p2p::{GossipId, NetworkEvent, PublishError, Topic, Verdict};
use tokio::time::{interval, timeout};

use crate::scene::{Node, PATIENCE, QUIC, TCP, config, realm};

#[tokio::test]
async fn a_message_goes_on_only_when_accepted() {
    for (verdict, goes_on) in [(Verdict::Accept, true), (Verdict::Reject, false)] {
        let [mut a, mut b, mut c] = line().await;
        publish(&a, Topic::Heads, b"head 1").await;
        let (id, topic, bytes) = b.wait("gossip", gossip).await;
        assert_eq!(
            (topic, bytes.as_slice()),
            (Topic::Heads, b"head 1".as_slice())
        );
        b.handle.report_validation(id, verdict).await.unwrap();
        // A later message, always accepted, shows that the first one is not merely late.
        publish(&a, Topic::Status, b"status 1").await;
        let (id, ..) = b.wait("gossip", gossip).await;
        b.handle
            .report_validation(id, Verdict::Accept)
            .await
            .unwrap();
        let (_, topic, _) = c.wait("gossip", gossip).await;
        assert_eq!(topic, if goes_on { Topic::Heads } else { Topic::Status });
        a.events.close();
    }
}

#[tokio::test]
async fn strangers_get_none() {
    let a = Node::start(config(1, TCP)).await;
    let b = Node::start(config(2, TCP)).await;
    let mut stranger = Node::start(config(3, TCP)).await;
    a.dial(&b).await;
    stranger.dial(&a).await;
    a.approve(&[&b]).await;
    b.approve(&[&a]).await;
    stranger.approve(&[&a, &b]).await;
    publish(&a, Topic::Heads, b"head 1").await;
    // Gossip flows in this link's order: once approved, the next message is the first one seen.
    a.approve(&[&b, &stranger]).await;
    let second = b"head 2".as_slice();
    let (_, _, bytes) = timeout(PATIENCE, async {
        let mut again = interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                _ = again.tick() => publish(&a, Topic::Heads, second).await,
                seen = stranger.wait("gossip", gossip) => return seen,
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(bytes, second);
}

#[tokio::test]
async fn too_large_and_too_early_are_refused() {
    let a = Node::start(config(1, QUIC)).await;
    let large = a
        .handle
        .publish(Topic::Heads, vec![0; 16 * 1024 + 1])
        .await
        .unwrap_err();
    assert_eq!(
        large,
        PublishError::TooLarge {
            size: 16 * 1024 + 1,
            max: 16 * 1024
        }
    );
    let alone = a.handle.publish(Topic::Heads, vec![0]).await.unwrap_err();
    assert_eq!(alone, PublishError::NoPeers);
    let mut settings = config(2, QUIC);
    settings.realm = None;
    let homeless = Node::start(settings).await;
    let early = homeless
        .handle
        .publish(Topic::Heads, vec![0])
        .await
        .unwrap_err();
    assert_eq!(early, PublishError::NoRealm);
}

#[tokio::test]
async fn a_realm_can_be_set_later_and_the_largest_message_fits() {
    let mut settings = config(1, QUIC);
    settings.realm = None;
    let a = Node::start(settings).await;
    let mut b = Node::start(config(2, QUIC)).await;
    a.dial(&b).await;
    a.handle.set_realm(realm()).await.unwrap();
    a.approve(&[&b]).await;
    b.approve(&[&a]).await;
    publish(&a, Topic::Status, &[9; 16 * 1024]).await;
    let (_, topic, bytes) = b.wait("gossip", gossip).await;
    assert_eq!((topic, bytes.len()), (Topic::Status, 16 * 1024));
}

/// Three nodes, the outer ones connected only through the middle.
async fn line() -> [Node; 3] {
    let nodes = [1, 2, 3].map(|seed| Node::start(config(seed, TCP)));
    let [a, b, c] = nodes;
    let (a, b, c) = (a.await, b.await, c.await);
    a.dial(&b).await;
    c.dial(&b).await;
    for node in [&a, &b, &c] {
        node.approve(&[&a, &b, &c]).await;
    }
    [a, b, c]
}

/// Publishes as soon as a peer has subscribed.
async fn publish(node: &Node, topic: Topic, bytes: &[u8]) {
    let published = timeout(PATIENCE, async {
        let mut again = interval(Duration::from_millis(10));
        loop {
            again.tick().await;
            match node.handle.publish(topic, bytes.to_vec()).await {
                Ok(()) | Err(PublishError::Duplicate) => return,
                Err(PublishError::NoPeers) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    published.await.expect("a peer subscribes");
}

fn gossip(event: NetworkEvent) -> Option<(GossipId, Topic, Vec<u8>)> {
    match event {
        NetworkEvent::Gossip {
            id, topic, bytes, ..
        } => Some((id, topic, bytes.to_vec())),
        _ => None,
    }
}
