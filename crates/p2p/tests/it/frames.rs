//! Frames between two nodes.

use bytes::Bytes;
use realm_p2p::NetworkEvent;

use crate::scene::{Node, PATIENCE, QUIC, TCP, config, secret};

#[tokio::test]
async fn frames_go_both_ways_in_order() {
    for listen in [TCP, QUIC] {
        let mut a = Node::start(config(1, listen)).await;
        let mut b = Node::start(config(2, listen)).await;
        a.dial(&b).await;
        // B has no address of A, so its frames need this connection.
        assert_eq!(b.connected().await, a.key());
        for number in 0..200u32 {
            let bytes = Bytes::from(number.to_be_bytes().to_vec());
            a.handle.send_frame(b.key(), bytes.clone()).await.unwrap();
            b.handle.send_frame(a.key(), bytes).await.unwrap();
        }
        for number in 0..200u32 {
            assert_eq!(a.frame().await, (b.key(), number.to_be_bytes().to_vec()));
            assert_eq!(b.frame().await, (a.key(), number.to_be_bytes().to_vec()));
        }
    }
}

#[tokio::test]
async fn a_frame_may_be_one_mebibyte_and_no_more() {
    let mut a = Node::start(config(1, QUIC)).await;
    let mut b = Node::start(config(2, QUIC)).await;
    a.dial(&b).await;
    let largest = vec![7; 1024 * 1024];
    a.handle
        .send_frame(b.key(), Bytes::from(largest.clone()))
        .await
        .unwrap();
    assert_eq!(b.frame().await.1, largest);
    for bytes in [vec![7; 1024 * 1024 + 1], Vec::new()] {
        a.handle
            .send_frame(b.key(), Bytes::from(bytes))
            .await
            .unwrap();
        let reason = a.wait("refusal", dropped).await.1;
        assert!(reason.contains("1 to 1048576"), "{reason}");
    }
}

#[tokio::test]
async fn a_known_peer_is_dialled_for_a_frame() {
    let a = Node::start(config(1, TCP)).await;
    let mut b = Node::start(config(2, TCP)).await;
    a.handle
        .add_address(b.key(), &b.address().await)
        .await
        .unwrap();
    a.handle
        .send_frame(b.key(), Bytes::from_static(b"hello"))
        .await
        .unwrap();
    assert_eq!(b.connected().await, a.key());
    assert_eq!(b.frame().await, (a.key(), b"hello".to_vec()));
}

#[tokio::test]
async fn frames_to_nobody_are_told_as_dropped() {
    let mut a = Node::start(config(1, TCP)).await;
    let nobody = secret(9).public();
    a.handle
        .send_frame(nobody, Bytes::from_static(b"hello"))
        .await
        .unwrap();
    let (count, reason) = a.wait("drop", dropped).await;
    assert_eq!(count, 1);
    assert!(reason.contains("no address"), "{reason}");
    assert_eq!(a.handle.stats().await.unwrap().frames_dropped, 1);
}

#[tokio::test]
async fn a_full_queue_is_told() {
    let mut a = Node::start(config(1, TCP)).await;
    // Its events are not read, so that in the end its frames are not either.
    let b = Node::start(config(2, TCP)).await;
    a.dial(&b).await;
    let frame = Bytes::from(vec![1; 1024 * 1024]);
    let mut sent = 0;
    let told = loop {
        a.handle.send_frame(b.key(), frame.clone()).await.unwrap();
        sent += 1;
        assert!(sent < 10_000, "the queue has no bound");
        if let Ok(event) = a.events.try_recv()
            && let Some(told) = dropped(event)
        {
            break told;
        }
    };
    assert!(told.1.contains("queue is full"), "{told:?}");
    // Whoever reads no events holds a bounded number of bytes, and still gets answers.
    let stats = tokio::time::timeout(PATIENCE, b.handle.stats())
        .await
        .expect("answers")
        .unwrap();
    assert!(stats.frames_in <= 32, "{stats:?}");
}

#[tokio::test]
async fn the_stream_is_opened_again_after_a_break() {
    let mut a = Node::start(config(1, TCP)).await;
    let mut b = Node::start(config(2, TCP)).await;
    a.dial(&b).await;
    a.handle
        .send_frame(b.key(), Bytes::from_static(b"one"))
        .await
        .unwrap();
    assert_eq!(b.frame().await.1, b"one");
    b.handle.disconnect(a.key()).await.unwrap();
    assert_eq!(a.disconnected().await, b.key());
    a.handle
        .send_frame(b.key(), Bytes::from_static(b"two"))
        .await
        .unwrap();
    assert_eq!(b.frame().await.1, b"two");
}

fn dropped(event: NetworkEvent) -> Option<(u64, String)> {
    match event {
        NetworkEvent::FramesDropped { count, reason, .. } => Some((count, reason)),
        _ => None,
    }
}
