//! Starting, stopping and what is told meanwhile.

use std::time::Duration;

use realm_p2p::{ConnectError, Link, Network, NetworkEvent, Services, StartError};

use crate::scene::{Node, PATIENCE, QUIC, TCP, config, secret};

#[tokio::test]
async fn a_port_in_use_is_named() {
    for listen in [TCP, QUIC] {
        let first = Node::start(config(1, listen)).await;
        let taken = first.address().await;
        let plain = taken.split("/p2p/").next().unwrap();
        let error = Network::start(config(2, plain), Services::default())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, StartError::InUse { address } if address == plain),
            "{error}"
        );
        assert!(error.to_string().contains("in use"), "{error}");
    }
}

#[tokio::test]
async fn a_port_is_free_again_after_shutdown() {
    for listen in [TCP, QUIC] {
        let first = Node::start(config(1, listen)).await;
        let address = first.address().await;
        let plain = address.split("/p2p/").next().unwrap();
        first.handle.shutdown().await;
        assert!(
            first.handle.listen_addresses().await.is_err(),
            "clones know that it stopped"
        );
        Node::start(config(1, plain)).await;
    }
}

#[tokio::test]
async fn what_runs_on_the_networks_thread_ends_in_order_after_it() {
    let (handle, mut events) = Network::start(config(1, TCP), Services::default())
        .await
        .unwrap();
    let (say, said) = tokio::sync::oneshot::channel();
    let own = handle.clone();
    let task = handle.spawn(async move {
        while events.recv().await.is_some() {}
        // The network is gone, and whoever ends after it still waits where it wants.
        tokio::task::yield_now().await;
        let gone = own.listen_addresses().await.is_err();
        let thread = std::thread::current().name().map(str::to_owned);
        let _ = say.send((gone, thread));
    });
    handle.shutdown().await;
    assert!(task.is_finished(), "shutdown waits for it");
    assert_eq!(said.await.unwrap(), (true, Some("realm-p2p".to_owned())));
    let late = handle.spawn(std::future::pending::<()>());
    assert!(late.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn one_port_serves_both_transports_and_both_families() {
    // A port that was free a moment ago, for all four.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let mut settings = config(1, TCP);
    settings.listen = vec![
        format!("/ip4/0.0.0.0/tcp/{port}"),
        format!("/ip4/0.0.0.0/udp/{port}/quic"),
    ];
    // A machine may have IPv6 switched off; it then cannot be listened on by anyone.
    let ip6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    if ip6 {
        settings.listen.push(format!("/ip6/::/tcp/{port}"));
        settings.listen.push(format!("/ip6/::/udp/{port}/quic-v1"));
    }
    let node = Node::start(settings).await;
    let addresses = node.handle.listen_addresses().await.unwrap();
    for address in addresses
        .iter()
        .filter(|address| address.contains("127.0.0.1"))
    {
        let other = Node::start(config(2, TCP)).await;
        assert_eq!(
            other.handle.dial(address).await.expect("connects"),
            node.key()
        );
    }
    assert!(
        addresses.iter().any(|address| address.contains("quic-v1")),
        "{addresses:?}"
    );
    assert!(
        addresses.iter().any(|address| address.contains("/ip6/")),
        "{addresses:?}"
    );
}

#[tokio::test]
async fn a_bad_address_is_repeated() {
    let error = Network::start(config(1, "localhost:2020"), Services::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("localhost:2020"), "{error}");
}

#[tokio::test]
async fn a_foreign_address_has_one_cause() {
    use std::error::Error as _;

    // TEST-NET-1: no machine has it. Port 0 is tried by the transport, another one by a probe.
    for listen in [
        "/ip4/192.0.2.1/tcp/0",
        "/ip4/192.0.2.1/udp/0/quic-v1",
        "/ip4/192.0.2.1/tcp/2020",
        "/ip4/192.0.2.1/udp/2020/quic-v1",
    ] {
        let error = Network::start(config(1, listen), Services::default())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {listen}"));
        let cause = error.source().expect("why");
        assert!(cause.to_string().contains("annot assign"), "{cause}");
        assert!(cause.source().is_none(), "{cause:?}");
    }
    let error = Network::start(config(1, "/ip4/127.0.0.1/sctp/7"), Services::default())
        .await
        .unwrap_err();
    let cause = error.source().expect("why").to_string();
    assert!(cause.contains("no transport"), "{cause}");
}

#[tokio::test]
async fn peers_are_told_with_link_version_and_tags() {
    for (listen, link) in [(TCP, Link::Tcp), (QUIC, Link::Quic)] {
        let mut settings = config(1, listen);
        settings.tags = vec!["edge".to_owned(), "zone=eu".to_owned()];
        let tagged = Node::start(settings).await;
        let mut other = Node::start(config(2, listen)).await;
        other.dial(&tagged).await;
        let (key, version, tags) = other
            .wait("identity", |event| match event {
                NetworkEvent::Identified { key, version, tags } => Some((key, version, tags)),
                _ => None,
            })
            .await;
        assert_eq!((key, version.as_str()), (tagged.key(), "realm/test-1"));
        assert_eq!(tags, ["edge", "zone=eu"]);
        let peers = other.handle.peers().await.unwrap();
        assert_eq!(peers.len(), 1);
        assert_eq!((peers[0].key, peers[0].link), (tagged.key(), link));
        assert!(!peers[0].approved);
        other
            .wait("round trip", |event| match event {
                NetworkEvent::Rtt { key, rtt } if key == tagged.key() => Some(rtt),
                _ => None,
            })
            .await;
    }
}

#[tokio::test]
async fn bootstrap_is_dialled_again_when_it_comes_back() {
    let first = Node::start(config(1, TCP)).await;
    let address = first.address().await;
    let mut settings = config(2, TCP);
    settings.bootstrap = vec![address.clone()];
    let mut second = Node::start(settings).await;
    assert_eq!(second.connected().await, first.key());
    first.handle.shutdown().await;
    assert_eq!(second.disconnected().await, secret(1).public());
    let again = Node::start(config(1, address.split("/p2p/").next().unwrap())).await;
    assert_eq!(second.connected().await, again.key());
}

#[tokio::test]
async fn another_node_at_an_address_is_refused_by_name() {
    let node = Node::start(config(1, TCP)).await;
    let expected = Node::start(config(2, TCP)).await;
    let dialler = Node::start(config(3, TCP)).await;
    let id = expected
        .address()
        .await
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    let address = node.address().await;
    let wrong = format!("{}/p2p/{id}", address.split("/p2p/").next().unwrap());
    let error = dialler.handle.dial(&wrong).await.unwrap_err();
    assert!(
        error.to_string().contains(&node.key().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_peer_without_an_address_is_said_to_have_none() {
    let node = Node::start(config(1, TCP)).await;
    let nobody = secret(9).public();
    let error = node.handle.connect(nobody).await.unwrap_err();
    assert_eq!(error, ConnectError::NoAddress(nobody));
}

#[tokio::test]
async fn a_banned_peer_stays_out() {
    let mut node = Node::start(config(1, TCP)).await;
    let mut other = Node::start(config(2, TCP)).await;
    other.dial(&node).await;
    assert_eq!(node.connected().await, other.key());
    node.handle
        .ban(other.key(), Duration::from_secs(600))
        .await
        .unwrap();
    assert_eq!(node.disconnected().await, other.key());
    assert_eq!(other.disconnected().await, node.key());
    let banned = node.handle.connect(other.key()).await.unwrap_err();
    assert!(banned.to_string().contains("banned"), "{banned}");
    // The handshake may end before the refusal reaches the other side; the connection does not last.
    if other.handle.dial(&node.address().await).await.is_ok() {
        assert_eq!(other.disconnected().await, node.key());
    }
    assert!(node.handle.peers().await.unwrap().is_empty());
}

#[tokio::test]
async fn connections_are_made_within_milliseconds() {
    for listen in [TCP, QUIC] {
        let node = Node::start(config(1, listen)).await;
        let other = Node::start(config(2, listen)).await;
        let started = std::time::Instant::now();
        other.dial(&node).await;
        let took = started.elapsed();
        eprintln!("{listen}: connected in {took:?}");
        assert!(took < PATIENCE / 4, "{took:?}");
    }
}
