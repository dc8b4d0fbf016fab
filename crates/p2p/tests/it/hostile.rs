//! Peers that do not keep to the protocols, over a bare libp2p swarm.

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use realm_p2p::NetworkEvent;
use tokio::{task::JoinHandle, time::timeout};

use crate::scene::{Node, PATIENCE, TCP, config};

const LOG: StreamProtocol = StreamProtocol::new("/realm/log/1");
const BLOB: StreamProtocol = StreamProtocol::new("/realm/blob/1");

/// A peer that writes what it likes.
struct Hostile {
    control: libp2p_stream::Control,
    target: PeerId,
    driver: JoinHandle<()>,
}

impl Hostile {
    async fn connect(node: &Node) -> Self {
        let mut swarm: Swarm<libp2p_stream::Behaviour> = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                tcp::Config::default().nodelay(true),
                noise::Config::new,
                yamux::Config::default,
            )
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .build();
        let address: Multiaddr = node.address().await.parse().unwrap();
        swarm
            .dial(DialOpts::unknown_peer_id().address(address).build())
            .unwrap();
        let target = loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } =
                swarm.select_next_some().await
            {
                break peer_id;
            }
        };
        let control = swarm.behaviour().new_control();
        let driver = tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self {
            control,
            target,
            driver,
        }
    }

    async fn open(&mut self, protocol: StreamProtocol) -> Stream {
        let opened = timeout(PATIENCE, self.control.open_stream(self.target, protocol));
        opened.await.expect("in time").expect("opens")
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.driver.abort();
    }
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

#[tokio::test]
async fn unsound_blob_requests_are_answered_with_a_refusal() {
    use std::{io, sync::Arc};

    use realm_identity::{Hash, PublicKey};
    use realm_p2p::{BlobSource, Services};

    struct Open;
    impl BlobSource for Open {
        fn allow(&self, _: PublicKey) -> bool {
            true
        }
        fn read_range(&self, _: Hash, _: u64, _: u32) -> io::Result<Option<Vec<u8>>> {
            panic!("an unsound request reaches no source")
        }
    }

    let services = Services {
        blobs: Some(Arc::new(Open)),
        rpc: None,
    };
    let node = Node::serving(config(1, TCP), services).await;
    let mut hostile = Hostile::connect(&node).await;
    for (offset, len) in [(0, 0), (0, 1024 * 1024 + 1), (0, u32::MAX), (u64::MAX, 1)] {
        let mut stream = hostile.open(BLOB).await;
        let mut request = vec![7; 32];
        request.extend_from_slice(&u64::to_be_bytes(offset));
        request.extend_from_slice(&u32::to_be_bytes(len));
        stream.write_all(&request).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("in time")
            .unwrap();
        assert_eq!(answer, [4], "{offset} {len}");
    }
}
