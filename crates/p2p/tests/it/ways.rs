//! Which of several ways to a peer is taken, and by whom.

use bytes::Bytes;
use realm_p2p::Link;

use crate::scene::{Node, config};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Nobody listens there.
const DEAD: &str = "/ip4/127.0.0.1/tcp/9";

async fn pair(listen: &str) -> [Node; 2] {
    let [a, b] = [
        Node::start(config(1, listen)).await,
        Node::start(config(2, listen)).await,
    ];
    a.approve(&[&b]).await;
    b.approve(&[&a]).await;
    [a, b]
}

/// What `node` knows of `other`: the last one is tried first.
async fn knows(node: &Node, other: &Node, addresses: &[&str]) {
    for address in addresses {
        let known = node.handle.add_address(other.key(), address).await;
        known.unwrap();
    }
}

/// Both ways round: the one with the larger key waits for the other to begin, who knows nothing here.
async fn both_connect(listen: &str, before: impl AsyncFn(&Node, &Node) -> String) {
    for turn in [0, 1] {
        let nodes = pair(listen).await;
        let (from, to) = (&nodes[turn], &nodes[1 - turn]);
        let before = before(from, to).await;
        knows(from, to, &[&to.address().await, &before]).await;
        let found = from.handle.connect(to.key()).await;
        assert_eq!(found.unwrap(), to.key(), "{before} first");
    }
}

#[tokio::test]
async fn a_dead_address_that_comes_first_is_no_end() {
    for listen in [TCP, QUIC] {
        both_connect(listen, async |_, _| DEAD.to_owned()).await;
    }
}

#[tokio::test]
async fn an_address_that_this_node_has_too_is_no_end() {
    // Two machines listen on the same address of their loopback, or of a bridge.
    for listen in [TCP, QUIC] {
        both_connect(listen, async |from, _| {
            let own = from.address().await;
            own.split("/p2p/").next().unwrap().to_owned()
        })
        .await;
    }
}

#[tokio::test]
async fn two_that_find_each_other_at_once_connect_once() {
    for listen in [TCP, QUIC] {
        let [a, b] = pair(listen).await;
        knows(&a, &b, &[&b.address().await]).await;
        knows(&b, &a, &[&a.address().await]).await;
        let (to_b, to_a) = tokio::join!(a.handle.connect(b.key()), b.handle.connect(a.key()));
        assert_eq!((to_b.unwrap(), to_a.unwrap()), (b.key(), a.key()));
        for node in [&a, &b] {
            assert_eq!(node.handle.stats().await.unwrap().connections, 1);
        }
    }
}

#[tokio::test]
async fn two_that_have_frames_for_each_other_at_once_connect_once() {
    for listen in [TCP, QUIC] {
        let [mut a, mut b] = pair(listen).await;
        knows(&a, &b, &[&b.address().await]).await;
        knows(&b, &a, &[&a.address().await]).await;
        let word = Bytes::from_static(b"a word");
        let (to_b, to_a) = tokio::join!(
            a.handle.send_frame(b.key(), word.clone()),
            b.handle.send_frame(a.key(), word),
        );
        to_b.unwrap();
        to_a.unwrap();
        assert_eq!((a.frame().await.0, b.frame().await.0), (b.key(), a.key()));
        for node in [&a, &b] {
            assert_eq!(node.handle.stats().await.unwrap().connections, 1);
        }
    }
}

/// The port in `/ip4/…/tcp/PORT/p2p/…`, as the system writes it.
fn port(address: &str) -> String {
    let port: u16 = address.split('/').nth(4).unwrap().parse().unwrap();
    format!("{port:04X}")
}

#[tokio::test]
async fn a_dial_over_tcp_does_not_come_from_where_the_node_listens() {
    let [a, b] = pair(TCP).await;
    knows(&a, &b, &[&b.address().await]).await;
    a.handle.connect(b.key()).await.unwrap();
    let (from, to) = (port(&a.address().await), port(&b.address().await));
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let open = |line: &&str| line.contains(&format!(":{to} 01 "));
    let open: Vec<_> = sockets.lines().filter(open).collect();
    assert_eq!(open.len(), 1, "{sockets}");
    assert!(!open[0].contains(&format!(":{from} ")), "{open:?}");
}

#[tokio::test]
async fn many_that_are_gone_keep_nobody_waiting_for_long() {
    let [a, b] = pair(TCP).await;
    let (from, to) = if a.key() < b.key() {
        (&a, &b)
    } else {
        (&b, &a)
    };
    let gone: Vec<_> = (10..40)
        .map(|seed| crate::scene::secret(seed).public())
        .collect();
    let gone_asked = async {
        for key in &gone {
            from.handle.add_address(*key, DEAD).await.unwrap();
        }
        let asked = gone.iter().map(|key| from.handle.connect(*key));
        assert!(
            futures::future::join_all(asked)
                .await
                .iter()
                .all(Result::is_err)
        );
    };
    let asked = async {
        knows(from, to, &[&to.address().await]).await;
        from.handle.connect(to.key()).await.unwrap()
    };
    let ((), found) = tokio::join!(gone_asked, asked);
    assert_eq!(found, to.key());
}

/// How `node` is connected with `to`.
async fn link(node: &Node, to: &Node) -> Link {
    let peers = node.handle.peers().await.unwrap();
    peers.iter().find(|peer| peer.key == to.key()).unwrap().link
}

/// A node that listens both ways.
async fn both_ways(seed: u8) -> Node {
    let mut config = config(seed, QUIC);
    config.listen.push(TCP.to_owned());
    Node::start(config).await
}

#[tokio::test]
async fn who_listens_both_ways_is_reached_over_tcp() {
    let (a, b) = (both_ways(1).await, both_ways(2).await);
    a.approve(&[&b]).await;
    b.approve(&[&a]).await;
    let mut addresses = b.handle.listen_addresses().await.unwrap();
    // What was learnt last would be tried first.
    addresses.sort_by_key(|address| address.contains("quic"));
    for address in &addresses {
        knows(&a, &b, &[address]).await;
    }
    a.handle.connect(b.key()).await.unwrap();
    assert_eq!(link(&a, &b).await, Link::Tcp);
}
