//! Peers that do not keep to the protocols, over a bare libp2p swarm.

mod blob;
mod gossip;

use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identity, noise,
    swarm::{NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use realm_identity::PublicKey;
use realm_p2p::NetworkEvent;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    rpc::echo,
    scene::{Node, PATIENCE, TCP, config, secret},
};

const LOG: StreamProtocol = StreamProtocol::new("/realm/log/1");
const BLOB: StreamProtocol = StreamProtocol::new("/realm/blob/1");
const RPC: StreamProtocol = StreamProtocol::new("/realm/rpc/1");

/// A peer that writes what it likes.
struct Hostile {
    key: PublicKey,
    control: libp2p_stream::Control,
    target: PeerId,
    driver: JoinHandle<()>,
}

impl Hostile {
    async fn connect(node: &Node) -> Self {
        Self::with_key(node, 66).await
    }

    async fn with_key(node: &Node, seed: u8) -> Self {
        let mut swarm = swarm(seed, |_| libp2p_stream::Behaviour::new());
        let target = dial(&mut swarm, node).await;
        let control = swarm.behaviour().new_control();
        Self {
            key: secret(seed).public(),
            control,
            target,
            driver: drive(swarm),
        }
    }

    async fn open(&mut self, protocol: StreamProtocol) -> Stream {
        let opened = timeout(PATIENCE, self.control.open_stream(self.target, protocol));
        opened.await.expect("in time").expect("opens")
    }

    /// A stream with these bytes on it, which stays open.
    async fn say(&mut self, protocol: StreamProtocol, bytes: &[u8]) -> Stream {
        let mut stream = self.open(protocol).await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A bare libp2p peer with one behaviour.
fn swarm<B: NetworkBehaviour>(
    seed: u8,
    behaviour: impl FnOnce(&identity::Keypair) -> B,
) -> Swarm<B> {
    let keypair = identity::Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|keypair| behaviour(keypair))
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

async fn dial<B: NetworkBehaviour>(swarm: &mut Swarm<B>, node: &Node) -> PeerId {
    let address: Multiaddr = node.address().await.parse().unwrap();
    swarm
        .dial(DialOpts::unknown_peer_id().address(address).build())
        .unwrap();
    loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
            return peer_id;
        }
    }
}

fn drive<B: NetworkBehaviour>(mut swarm: Swarm<B>) -> JoinHandle<()>
where
    Swarm<B>: Send,
{
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    })
}

/// That the node is still of use to others.
async fn assert_serves(node: &mut Node) {
    let other = Node::start(config(9, TCP)).await;
    other.dial(node).await;
    other
        .handle
        .send_frame(node.key(), Bytes::from_static(b"still there?"))
        .await
        .unwrap();
    let from_other = |event| match event {
        NetworkEvent::Frame { from, bytes } if from == secret(9).public() => Some(bytes),
        _ => None,
    };
    assert_eq!(node.wait("frame", from_other).await, &b"still there?"[..]);
}

#[tokio::test]
async fn a_frame_of_no_or_too_much_length_cuts_the_connection() {
    let mut node = Node::start(config(1, TCP)).await;
    for len in [0, 1024 * 1024 + 1, 1 << 31, u32::MAX] {
        let mut hostile = Hostile::connect(&node).await;
        let mut stream = hostile.open(LOG).await;
        stream.write_all(&len.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let reason = node
            .wait("complaint", |event| match event {
                NetworkEvent::Malformed { reason, .. } => Some(reason),
                _ => None,
            })
            .await;
        assert!(reason.contains(&format!("{len} bytes")), "{reason}");
        node.disconnected().await;
    }
    assert_eq!(node.handle.stats().await.unwrap().malformed, 4);
    assert!(node.handle.peers().await.unwrap().is_empty());
}

#[tokio::test]
async fn half_a_frame_is_nothing_and_the_next_stream_works() {
    let mut node = Node::start(config(1, TCP)).await;
    let mut hostile = Hostile::connect(&node).await;
    let mut half = hostile.open(LOG).await;
    half.write_all(&[0, 0, 0, 9, 1, 2, 3]).await.unwrap();
    half.close().await.unwrap();
    drop(half);
    let mut whole = hostile.open(LOG).await;
    whole.write_all(&[0, 0, 0, 2, 8, 9]).await.unwrap();
    whole.flush().await.unwrap();
    assert_eq!(node.frame().await.1, [8, 9]);
}

#[tokio::test]
async fn what_is_not_served_cannot_be_opened() {
    let node = Node::start(config(1, TCP)).await;
    let mut hostile = Hostile::connect(&node).await;
    let opened = timeout(PATIENCE, hostile.control.open_stream(hostile.target, BLOB));
    assert!(opened.await.expect("in time").is_err());
}

async fn complaint(node: &mut Node) -> (PublicKey, String) {
    node.wait("complaint", |event| match event {
        NetworkEvent::Malformed { from, reason } => Some((from, reason)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_frame_that_does_not_end_cuts_the_connection() {
    let mut settings = config(1, TCP);
    settings.limits.frame_time = Duration::from_millis(200);
    let mut node = Node::start(settings).await;
    // Of the length, and of the content.
    for begun in [&[0][..], &[0, 0, 1], &[0, 0, 0, 9, 1, 2, 3]] {
        let mut hostile = Hostile::connect(&node).await;
        let _half = hostile.say(LOG, begun).await;
        let (from, reason) = complaint(&mut node).await;
        assert_eq!(from, hostile.key);
        assert!(reason.contains("200ms"), "{reason}");
        assert_eq!(node.disconnected().await, hostile.key);
    }
    assert_eq!(node.handle.stats().await.unwrap().malformed, 3);
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_costs_nobody_anything() {
    let mut settings = config(1, TCP);
    settings.limits.frame_time = Duration::from_millis(50);
    let mut node = Node::start(settings).await;
    let mut hostile = Hostile::connect(&node).await;
    // Only a frame that has begun has to end.
    let mut silent = hostile.open(LOG).await;
    assert_serves(&mut node).await;
    silent.write_all(&[0, 0, 0, 1, 7]).await.unwrap();
    silent.flush().await.unwrap();
    assert_eq!(node.frame().await, (hostile.key, vec![7]));
}

#[tokio::test]
async fn frames_that_nobody_takes_are_bounded_for_each_peer() {
    const PART: usize = 256 * 1024;
    let mut settings = config(1, TCP);
    settings.limits.frame = 64 * 1024;
    settings.limits.frame_bytes_per_peer = PART;
    settings.limits.frame_bytes = 2 * PART;
    let mut node = Node::start(settings).await;
    let mut hostile = Hostile::connect(&node).await;
    let mut stream = hostile.open(LOG).await;
    let frame = [&(64 * 1024u32).to_be_bytes()[..], &[7; 64 * 1024]].concat();
    // It writes until nothing moves any more.
    let flood = tokio::spawn(async move {
        while stream.write_all(&frame).await.is_ok() {}
        stream
    });
    let mut held = Vec::new();
    while held.len() < PART / (64 * 1024) {
        if let NetworkEvent::Frame { bytes, .. } = node.events.recv().await.expect("runs") {
            held.push(bytes);
        }
    }
    // What this test keeps is the peer's part: no more comes from it, and others have theirs.
    assert_serves(&mut node).await;
    assert_eq!(
        node.handle.stats().await.unwrap().frames_in,
        held.len() as u64 + 1
    );
    // A new stream, or a new connection, brings no new part.
    let mut again = Hostile::connect(&node).await;
    let _more = again.say(LOG, &[0, 0, 0, 1, 7]).await;
    assert_eq!(
        node.handle.stats().await.unwrap().frames_in,
        held.len() as u64 + 1
    );
    held.pop();
    assert_eq!(node.frame().await.0, hostile.key);
    flood.abort();
}

#[tokio::test]
async fn frames_for_a_peer_that_does_not_read_are_bounded_in_bytes() {
    const FRAME: usize = 64 * 1024;
    const SENT: u64 = 200;
    let mut settings = config(1, TCP);
    settings.limits.frame_queue_bytes = 4 * FRAME;
    let mut node = Node::start(settings).await;
    let mut hostile = Hostile::connect(&node).await;
    let _unread = hostile.control.accept(LOG).unwrap();
    assert_eq!(node.connected().await, hostile.key);
    for _ in 0..SENT {
        let frame = Bytes::from_static(&[7; FRAME]);
        node.handle.send_frame(hostile.key, frame).await.unwrap();
    }
    // Those that wait, and those that lie in the windows of the connection.
    let taken = node.handle.stats().await.unwrap().frames_out;
    assert!((1..=SENT / 4).contains(&taken), "{taken} were taken");
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn a_stranger_that_opens_streams_without_end_has_four_of_rpc() {
    let mut settings = config(1, TCP);
    settings.limits.streams = 32;
    let mut node = Node::serving(settings, echo()).await;
    let mut hostile = Hostile::connect(&node).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        let opened = timeout(PATIENCE, hostile.control.open_stream(hostile.target, RPC));
        match opened.await.expect("in time") {
            Ok(stream) => streams.push(stream),
            // The connection did not survive that many.
            Err(_) => break,
        }
    }
    let stats = node.handle.stats().await.unwrap();
    assert!(stats.rpc_open <= 4, "{stats:?}");
    assert!(stats.rpc_refused > 0 || stats.connections == 0, "{stats:?}");
    assert_serves(&mut node).await;
}
