//! Gossip: validated before it goes on, and only among approved peers.

use std::time::Duration;

use bytes::Bytes;
use realm_p2p::{GossipId, NetworkEvent, PublishError, Topic, Verdict};
use tokio::time::{interval, timeout};

use crate::scene::{Node, PATIENCE, QUIC, TCP, config, realm};

#[tokio::test]
async fn an_accepted_message_goes_on() {
    let [a, mut b, mut c] = line().await;
    let relay = async {
        loop {
            let (id, ..) = b.wait("gossip", gossip).await;
            b.handle
                .report_validation(id, Verdict::Accept)
                .await
                .unwrap();
        }
    };
    let (_, topic, bytes) = until(repeat(&a, Topic::Heads), relay, c.wait("gossip", gossip)).await;
    assert_eq!((topic, &bytes[..5]), (Topic::Heads, b"round".as_slice()));
}

#[tokio::test]
async fn a_rejected_message_does_not() {
    let [a, mut b, mut c] = line().await;
    publish(&a, Topic::Heads, b"bad").await;
    let (id, topic, bytes) = b.wait("gossip", gossip).await;
    assert_eq!((topic, bytes.as_slice()), (Topic::Heads, b"bad".as_slice()));
    b.handle
        .report_validation(id, Verdict::Reject)
        .await
        .unwrap();
    let relay = async {
        loop {
            let (id, ..) = b.wait("gossip", gossip).await;
            b.handle
                .report_validation(id, Verdict::Accept)
                .await
                .unwrap();
        }
    };
    let (_, topic, _) = until(repeat(&a, Topic::Status), relay, c.wait("gossip", gossip)).await;
    assert_eq!(topic, Topic::Status);
}

#[tokio::test]
async fn strangers_get_none() {
    let a = Node::start(config(1, TCP)).await;
    let mut b = Node::start(config(2, TCP)).await;
    let mut c = Node::start(config(3, TCP)).await;
    a.dial(&b).await;
    a.dial(&c).await;
    a.approve(&[&b, &c]).await;
    b.approve(&[&a]).await;
    c.approve(&[&a]).await;
    // Both have subscribed and get everything.
    let both = async { futures::join!(b.wait("gossip", gossip), c.wait("gossip", gossip)) };
    until(repeat(&a, Topic::Status), std::future::pending(), both).await;
    a.approve(&[&b]).await;
    publish(&a, Topic::Heads, b"among us").await;
    b.wait("gossip", |event| {
        gossip(event).filter(|(_, topic, _)| *topic == Topic::Heads)
    })
    .await;
    // The frame is sent after the gossip, on the same connection.
    a.handle
        .send_frame(c.key(), Bytes::from_static(b"end"))
        .await
        .unwrap();
    let seen = c.wait("end", |event| match event {
        NetworkEvent::Frame { .. } => Some(false),
        event => gossip(event)
            .filter(|(_, topic, _)| *topic == Topic::Heads)
            .map(|_| true),
    });
    assert!(!seen.await, "a stranger got gossip");
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

/// Publishes again and again, since a mesh is built over several rounds.
async fn repeat(node: &Node, topic: Topic) {
    let mut again = interval(Duration::from_millis(20));
    for round in 0u32.. {
        again.tick().await;
        publish(node, topic, format!("round {round}").as_bytes()).await;
    }
}

async fn until<T>(
    a: impl Future<Output = ()>,
    b: impl Future<Output = ()>,
    seen: impl Future<Output = T>,
) -> T {
    tokio::select! {
        () = a => unreachable!("goes on for ever"),
        () = b => unreachable!("goes on for ever"),
        seen = seen => seen,
    }
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
