//! Peers that misuse gossip.

use std::time::Duration;

use futures::{AsyncReadExt as _, StreamExt as _};
use libp2p::{
    PeerId, StreamProtocol,
    gossipsub::{
        AllowAllSubscriptionFilter, Behaviour, ConfigBuilder, Event, IdentTopic, IdentityTransform,
        MessageAuthenticity, ValidationMode,
    },
    swarm::SwarmEvent,
};
use realm_p2p::{NetworkEvent, Verdict};
use tokio::{sync::mpsc, time::timeout};

use super::{Hostile, assert_serves, dial, swarm};
use crate::scene::{Node, PATIENCE, TCP, config, realm, secret};

const SEED: u8 = 67;

/// A peer of the realm's gossip that publishes whatever it is given. It says so when it has lost its peer.
struct Talker {
    say: mpsc::Sender<Vec<u8>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Approved at the node, so that what it says is listened to.
async fn talker(node: &Node) -> Talker {
    node.handle
        .set_approved([secret(SEED).public()].into())
        .await
        .unwrap();
    let mut swarm = swarm(SEED, |_| {
        let config = ConfigBuilder::default()
            .validation_mode(ValidationMode::Anonymous)
            .max_transmit_size(1024 * 1024)
            .heartbeat_interval(Duration::from_millis(100))
            .build()
            .unwrap();
        Behaviour::<IdentityTransform, AllowAllSubscriptionFilter>::new(
            MessageAuthenticity::Anonymous,
            config,
        )
        .unwrap()
    });
    let topic = IdentTopic::new(format!("realm/{}/heads", realm()));
    swarm.behaviour_mut().subscribe(&topic).unwrap();
    let _: PeerId = dial(&mut swarm, node).await;
    loop {
        let event = swarm.select_next_some().await;
        if matches!(event, SwarmEvent::Behaviour(Event::Subscribed { .. })) {
            break;
        }
    }
    let (say, mut said) = mpsc::channel::<Vec<u8>>(16);
    let driver = tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(bytes) = said.recv() => {
                    // Without a peer any more, it talks to nobody.
                    let _ = swarm.behaviour_mut().publish(topic.clone(), bytes);
                }
                _ = swarm.select_next_some() => {}
            }
        }
    });
    Talker { say, driver }
}

fn gossip(event: NetworkEvent) -> Option<(realm_p2p::GossipId, Vec<u8>)> {
    match event {
        NetworkEvent::Gossip { id, bytes, .. } => Some((id, bytes.to_vec())),
        _ => None,
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_reaches_nobody() {
    let mut node = Node::start(config(1, TCP)).await;
    let talker = talker(&node).await;
    talker.say.send(b"first".to_vec()).await.unwrap();
    assert_eq!(node.wait("gossip", gossip).await.1, b"first");
    talker.say.send(vec![7; 17 * 1024]).await.unwrap();
    talker.say.send(vec![7; 512 * 1024]).await.unwrap();
    assert_serves(&mut node).await;
    assert_eq!(node.handle.stats().await.unwrap().gossip_in, 1);
}

#[tokio::test]
async fn rejected_messages_shut_a_peer_out_and_are_counted() {
    let mut node = Node::start(config(1, TCP)).await;
    let talker = talker(&node).await;
    let mut rejected = 0;
    // It never stops; the node stops listening.
    for number in 0u32..200 {
        let sent = talker.say.send(format!("bad {number}").into_bytes());
        sent.await.unwrap();
        let heard = timeout(Duration::from_millis(300), node.wait("gossip", gossip));
        let Ok((id, _)) = heard.await else { break };
        node.handle
            .report_validation(id, Verdict::Reject)
            .await
            .unwrap();
        rejected += 1;
    }
    assert!((1..=3).contains(&rejected), "{rejected} were heard");
    let stats = node.handle.stats().await.unwrap();
    assert_eq!(stats.gossip_rejected, rejected);
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn bytes_that_are_no_gossip_end_the_stream_and_nothing_else() {
    let mut node = Node::start(config(1, TCP)).await;
    let meshsub = StreamProtocol::new("/meshsub/1.2.0");
    // A length without end, a length that is too large, and no protobuf.
    let garbage: [&[u8]; 3] = [
        &[0xff; 64],
        &[0x80, 0x80, 0x80, 0x08, 1],
        &[4, 0xff, 0xff, 0xff, 0xff],
    ];
    for (seed, bytes) in (70..).zip(garbage) {
        let mut hostile = Hostile::with_key(&node, seed).await;
        let mut stream = hostile.say(meshsub.clone(), bytes).await;
        // The node hangs up, on this stream.
        let ended = timeout(PATIENCE, stream.read(&mut [0])).await;
        assert!(
            matches!(ended.expect("in time"), Ok(0) | Err(_)),
            "{bytes:?}"
        );
        assert_serves(&mut node).await;
    }
    assert_eq!(node.handle.stats().await.unwrap().gossip_in, 0);
}
