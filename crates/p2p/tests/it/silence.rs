//! Connections that die without a word, as by a cable that is cut: a proxy that forwards no more.

use std::time::{Duration, Instant};

use realm_identity::{Hash, PublicKey};
use realm_p2p::{BlobSource, Config, FetchError, NetworkEvent, Services};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::scene::{Node, PATIENCE, TCP, config};

/// A dead connection is known as one, and a source that gives nothing is left, after some seconds; on a
/// machine that is busy each pause of this process forgives the silence before it. Without any of that
/// the system would take minutes.
const NOTICED: Duration = PATIENCE;
/// Answers that a connection gives, one in two seconds, in a time in which a dead one is noticed.
const ANSWERS: usize = 5;

/// Carries bytes both ways until it is told to stop; it closes nothing even then.
struct Proxy {
    address: String,
    carries: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn to(node: &Node) -> Self {
        let address = node.address().await;
        let port = address
            .split('/')
            .nth(4)
            .and_then(|port| port.parse::<u16>().ok());
        let port = port.expect("a TCP address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let own = listener.local_addr().expect("bound").port();
        let (carries, watch) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", port)).await;
                let far = far.expect("the node listens");
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                ways.spawn(carry(near_in, far_out, watch.clone()));
                ways.spawn(carry(far_in, near_out, watch.clone()));
            }
        });
        Self {
            address: address.replacen(&port.to_string(), &own.to_string(), 1),
            carries,
            _tasks: tasks,
        }
    }

    fn cut(&self) {
        self.carries.send_replace(false);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut carries: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            _ = carries.wait_for(|carries| !*carries) => break,
        };
        match read {
            Ok(read) if read > 0 => {
                if to.write_all(&bytes[..read]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
    // Both ends stay open; nothing is read, so that what is sent piles up.
    std::future::pending::<()>().await;
}

/// Without a realm to search for others in: that finds the way past the proxy.
fn alone(seed: u8) -> Config {
    let mut config = config(seed, TCP);
    config.realm = None;
    config
}

async fn pair() -> (Node, Node, Proxy) {
    let (a, b) = (
        Node::start(alone(1)).await,
        Node::serving(alone(2), serving()).await,
    );
    a.approve(&[&b]).await;
    b.approve(&[&a]).await;
    let proxy = Proxy::to(&b).await;
    a.handle.dial(&proxy.address).await.expect("connects");
    (a, b, proxy)
}

/// Waits for answers to pings; a connection that ends meanwhile fails the test.
async fn is_answered(a: &mut Node) {
    for _ in 0..ANSWERS {
        a.wait("round trip", |event| match event {
            NetworkEvent::Rtt { .. } => Some(()),
            NetworkEvent::PeerDisconnected { .. } => panic!("it answers"),
            _ => None,
        })
        .await;
    }
}

struct Zeros;

impl BlobSource for Zeros {
    fn allow(&self, _: PublicKey) -> bool {
        true
    }

    fn read_range(&self, _: Hash, _: u64, len: u32) -> io::Result<Option<Vec<u8>>> {
        Ok(Some(vec![0; len as usize]))
    }
}

fn serving() -> Services {
    Services {
        blobs: Some(Arc::new(Zeros)),
        rpc: None,
    }
}

#[tokio::test]
async fn a_connection_that_died_silently_is_closed_on_both_sides() {
    let (mut a, mut b, proxy) = pair().await;
    // Each has answered the other before.
    for node in [&mut a, &mut b] {
        node.wait("round trip", |event| {
            matches!(event, NetworkEvent::Rtt { .. }).then_some(())
        })
        .await;
    }
    proxy.cut();
    let started = Instant::now();
    // More than the sockets hold: closing cannot be said any more either.
    for _ in 0..64 {
        let frame = bytes::Bytes::from(vec![7; 512 * 1024]);
        a.handle.send_frame(b.key(), frame).await.expect("runs");
    }
    assert_eq!(a.disconnected().await, b.key());
    assert_eq!(b.disconnected().await, a.key());
    assert!(started.elapsed() < NOTICED, "{:?}", started.elapsed());
    assert!(a.handle.peers().await.expect("runs").is_empty());
    // And another way to it is taken at once, while the old one is still closing.
    a.dial(&b).await;
    a.handle
        .send_frame(b.key(), bytes::Bytes::from_static(b"again"))
        .await
        .expect("runs");
    assert_eq!(b.frame().await, (a.key(), b"again".to_vec()));
}

#[tokio::test]
async fn a_connection_that_answers_stays() {
    let (mut a, b, proxy) = pair().await;
    is_answered(&mut a).await;
    assert_eq!(a.handle.peers().await.expect("runs")[0].key, b.key());
    drop(proxy);
}

#[tokio::test]
async fn a_node_that_is_behind_with_events_blames_nobody() {
    /// Frames that are sent at once: the sender's queue takes them.
    const BATCH: u64 = 50;
    /// Fewer than the queues between the network and its consumer hold, by less than a batch or two.
    const TAKEN: u64 = 1200;
    let (mut a, b, proxy) = pair().await;
    let batch = async || {
        for _ in 0..BATCH {
            let frame = bytes::Bytes::from_static(b"more");
            a.handle.send_frame(b.key(), frame).await.expect("runs");
        }
    };
    // B takes no event.
    let deadline = Instant::now() + PATIENCE;
    for sent in 1..=TAKEN / BATCH {
        batch().await;
        while b.handle.stats().await.expect("runs").frames_in < sent * BATCH {
            assert!(Instant::now() < deadline, "the frames do not come");
            tokio::task::yield_now().await;
        }
    }
    // What it cannot take any more waits in the connection.
    for _ in 0..4 {
        batch().await;
    }
    is_answered(&mut a).await;
    assert_eq!(b.handle.peers().await.expect("runs")[0].key, a.key());
    drop(proxy);
}

#[tokio::test]
async fn a_source_that_falls_silent_is_left_soon() {
    let (a, b, proxy) = pair().await;
    let deadline = 3 * NOTICED;
    let fetch = |len| {
        a.handle
            .fetch_range(b.key(), Hash::of(b"x"), 0, len, deadline)
    };
    fetch(1024).await.expect("is served");
    proxy.cut();
    let started = Instant::now();
    let left = fetch(1024).await;
    assert!(
        matches!(
            left,
            Err(FetchError::Silent(_) | FetchError::Unreachable(_) | FetchError::Broken(_))
        ),
        "{left:?}"
    );
    assert!(started.elapsed() < NOTICED, "{:?}", started.elapsed());
}
