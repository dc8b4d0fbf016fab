//! Reaching a peer that one has no address of: by asking the realm, and through a relay.

use bytes::Bytes;
use realm_p2p::{Link, NetworkEvent};
use tokio::time::{interval, timeout};

use crate::scene::{Node, PATIENCE, QUIC, TCP, config};

/// A middle node that both others are connected to, and that knows where they listen.
async fn star(listen: &str) -> [Node; 3] {
    let mut middle = Node::start(config(1, listen)).await;
    let mut a = Node::start(config(2, listen)).await;
    let mut b = Node::start(config(3, listen)).await;
    for node in [&middle, &a, &b] {
        node.approve(&[&middle, &a, &b]).await;
    }
    for outer in [&mut a, &mut b] {
        outer.dial(&middle).await;
        let identified = |event| match event {
            NetworkEvent::Identified { key, .. } => Some(key),
            _ => None,
        };
        assert_eq!(middle.wait("identity", identified).await, outer.key());
        assert_eq!(outer.wait("identity", identified).await, middle.key());
    }
    [middle, a, b]
}

#[tokio::test]
async fn a_peer_is_found_by_asking_the_realm() {
    for listen in [TCP, QUIC] {
        let [_middle, a, mut b] = star(listen).await;
        // Where it is said to be, nobody is.
        a.handle
            .add_address(b.key(), "/ip4/127.0.0.1/tcp/9")
            .await
            .unwrap();
        let found = timeout(PATIENCE, async {
            let mut again = interval(std::time::Duration::from_millis(100));
            loop {
                again.tick().await;
                // The middle node may not know yet that the other one answers such questions.
                if let Ok(key) = a.handle.connect(b.key()).await {
                    return key;
                }
            }
        });
        assert_eq!(found.await.expect("found"), b.key());
        a.handle
            .send_frame(b.key(), Bytes::from_static(b"straight"))
            .await
            .unwrap();
        assert_eq!(b.frame().await, (a.key(), b"straight".to_vec()));
    }
}

#[tokio::test]
async fn an_approved_peer_is_reached_through_a_relay_and_a_stranger_is_not() {
    let middle = Node::start(config(1, TCP)).await;
    let mut hidden = Node::start(config(2, TCP)).await;
    let other = Node::start(config(3, TCP)).await;
    let relay = middle.address().await;
    middle
        .handle
        .announce(relay.split("/p2p/").next().unwrap())
        .await
        .unwrap();
    middle.approve(&[&hidden, &other]).await;
    middle.handle.set_relay(true).await.unwrap();
    hidden.handle.relay_via(&relay).await.unwrap();
    let through = hidden
        .wait("reservation", |event| match event {
            NetworkEvent::Listening { address } if address.contains("p2p-circuit") => Some(address),
            _ => None,
        })
        .await;
    assert_eq!(
        other.handle.dial(&through).await.expect("connects"),
        hidden.key()
    );
    let peers = other.handle.peers().await.unwrap();
    let peer = peers.iter().find(|peer| peer.key == hidden.key()).unwrap();
    // Hole punching may have replaced it already.
    assert!(matches!(peer.link, Link::Relay | Link::Tcp));
    other
        .handle
        .send_frame(hidden.key(), Bytes::from_static(b"around"))
        .await
        .unwrap();
    assert_eq!(hidden.frame().await, (other.key(), b"around".to_vec()));

    let stranger = Node::start(config(4, TCP)).await;
    let refused = stranger.handle.dial(&through).await.unwrap_err();
    assert!(refused.to_string().contains("p2p-circuit"), "{refused}");
}
