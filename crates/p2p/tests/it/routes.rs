//! Reaching a peer that one has no address of: by asking the realm, and through a relay.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder, autonat, multiaddr::Protocol, noise, swarm::SwarmEvent, tcp,
    yamux,
};
use realm_identity::PublicKey;
use realm_p2p::{DialRpcError, Link, NetworkEvent, Reachability, RpcConnection, dial_rpc};
use tokio::time::{interval, timeout};

use crate::{
    rpc::{ask, echo},
    scene::{Node, PATIENCE, QUIC, TCP, config, realm, secret},
};

/// A middle node that both others are connected to, and that knows where they listen.
async fn star(listen: &str) -> [Node; 3] {
    star_with(listen, &[]).await
}

/// The same, where some do not know their realm yet.
async fn star_with(listen: &str, homeless: &[usize]) -> [Node; 3] {
    let start = |index: usize| {
        let mut settings = config(index as u8 + 1, listen);
        if homeless.contains(&index) {
            settings.realm = None;
        }
        Node::start(settings)
    };
    let (mut middle, mut a, mut b) = (start(0).await, start(1).await, start(2).await);
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

/// Asks until there is an answer: who answers may not know yet where the peer is.
async fn find(node: &Node, key: PublicKey) {
    let found = timeout(PATIENCE, async {
        let mut again = interval(Duration::from_millis(100));
        loop {
            again.tick().await;
            if let Ok(found) = node.handle.connect(key).await {
                return found;
            }
        }
    });
    assert_eq!(found.await.expect("found"), key);
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
        find(&a, b.key()).await;
        a.handle
            .send_frame(b.key(), Bytes::from_static(b"straight"))
            .await
            .unwrap();
        assert_eq!(b.frame().await, (a.key(), b"straight".to_vec()));
    }
}

#[tokio::test]
async fn a_realm_that_is_learned_late_is_searched_over_open_connections() {
    for (late, listen) in [(0, TCP), (1, TCP), (1, QUIC)] {
        // The one that is asked, or the one that asks.
        let [middle, a, b] = star_with(listen, &[late]).await;
        let before = a.handle.connect(b.key()).await;
        assert!(before.is_err(), "nobody can know where it is");
        [&middle, &a][late].handle.set_realm(realm()).await.unwrap();
        find(&a, b.key()).await;
    }
}

#[tokio::test]
async fn another_realm_is_not_searched() {
    let [_middle, a, b] = star_with(TCP, &[1]).await;
    a.handle
        .set_realm(realm_identity::Hash::of(b"another realm"))
        .await
        .unwrap();
    assert!(a.handle.connect(b.key()).await.is_err());
    // And back: what is looked up from now on is found.
    a.handle.set_realm(realm()).await.unwrap();
    find(&a, b.key()).await;
}

#[tokio::test]
async fn whoever_is_no_longer_approved_is_asked_nothing_and_gets_no_answer() {
    let [middle, a, b] = star(TCP).await;
    middle.approve(&[&b]).await;
    assert!(a.handle.connect(b.key()).await.is_err(), "not answered");
    middle.approve(&[&a, &b]).await;
    find(&a, b.key()).await;
}

/// A node that relays, and one that can be reached only through it.
async fn relayed() -> (Node, Node, String) {
    relayed_over(TCP).await
}

async fn relayed_over(listen: &str) -> (Node, Node, String) {
    let middle = Node::serving(config(1, listen), echo()).await;
    let mut settings = config(2, listen);
    settings.listen.clear();
    let mut hidden = Node::serving(settings, echo()).await;
    let relay = middle.address().await;
    middle
        .handle
        .announce(relay.split("/p2p/").next().unwrap())
        .await
        .unwrap();
    middle.approve(&[&hidden]).await;
    middle.handle.set_relay(true).await.unwrap();
    hidden.handle.relay_via(&relay).await.unwrap();
    let through = hidden
        .wait("reservation", |event| match event {
            NetworkEvent::Listening { address } if address.contains("p2p-circuit") => Some(address),
            _ => None,
        })
        .await;
    (middle, hidden, through)
}

#[tokio::test]
async fn a_relayed_connection_carries_frames_and_rpc() {
    let (middle, mut hidden, through) = relayed().await;
    let mut settings = config(3, TCP);
    // Nothing to punch a hole with: whatever arrives came through the relay.
    settings.listen.clear();
    let mut other = Node::serving(settings, echo()).await;
    middle.approve(&[&hidden, &other]).await;
    hidden.approve(&[&other]).await;
    other.approve(&[&hidden]).await;
    assert_eq!(
        other.handle.dial(&through).await.expect("connects"),
        hidden.key()
    );
    other
        .handle
        .send_frame(hidden.key(), Bytes::from(vec![7; 1024 * 1024]))
        .await
        .unwrap();
    assert_eq!(hidden.frame().await, (other.key(), vec![7; 1024 * 1024]));
    hidden
        .handle
        .send_frame(other.key(), Bytes::from_static(b"back"))
        .await
        .unwrap();
    assert_eq!(other.frame().await, (hidden.key(), b"back".to_vec()));
    let mut stream = other.handle.open_rpc(hidden.key()).await.expect("opens");
    assert_eq!(ask(&mut stream, 9).await.unwrap(), 9);
    let peers = other.handle.peers().await.unwrap();
    let peer = peers.iter().find(|peer| peer.key == hidden.key()).unwrap();
    assert_eq!(peer.link, Link::Relay);
    // So it is for the one that was called.
    let peers = hidden.handle.peers().await.unwrap();
    let peer = peers.iter().find(|peer| peer.key == other.key()).unwrap();
    assert_eq!(peer.link, Link::Relay);
    let relay = realm_p2p::relay_of(&peer.addresses[0]).map(|(relay, _)| relay);
    assert_eq!(relay, Some(middle.key()), "{:?}", peer.addresses);
}

#[tokio::test]
async fn a_stranger_gets_neither_a_reservation_nor_a_connection() {
    let (middle, hidden, through) = relayed().await;
    let mut stranger = Node::start(config(4, TCP)).await;
    let refused = stranger.handle.dial(&through).await.unwrap_err();
    assert!(refused.to_string().contains("p2p-circuit"), "{refused}");
    let relay = middle.address().await;
    stranger.handle.relay_via(&relay).await.unwrap();
    // It ends: refused, not waited for.
    stranger
        .wait("refusal", |event| match event {
            NetworkEvent::NotListening { reason, .. } => Some(reason),
            NetworkEvent::Listening { address } if address.contains("p2p-circuit") => {
                panic!("a stranger has a reservation: {address}")
            }
            _ => None,
        })
        .await;
    // The same node, once it is approved.
    middle.approve(&[&hidden, &stranger]).await;
    stranger.handle.relay_via(&relay).await.unwrap();
    stranger
        .wait("reservation", |event| match event {
            NetworkEvent::Listening { address } => {
                Some(address).filter(|a| a.contains("p2p-circuit"))
            }
            _ => None,
        })
        .await;
    assert_eq!(
        stranger.handle.dial(&through).await.expect("connects"),
        hidden.key()
    );
    // And no longer, once it is not: the circuit ends with the approval.
    middle.approve(&[&hidden]).await;
    assert_eq!(stranger.disconnected().await, hidden.key());
}

/// A command line's connection through the relay to the hidden node.
async fn command(
    relay: &RpcConnection,
    hidden: &Node,
    through: &str,
) -> Result<RpcConnection, DialRpcError> {
    relay.through(through, hidden.key(), PATIENCE).await
}

#[tokio::test]
async fn a_guest_of_a_relay_has_circuits_until_it_is_dismissed_or_leaves() {
    for listen in [TCP, QUIC] {
        let (middle, hidden, through) = relayed_over(listen).await;
        let guest = secret(9);
        let at = [middle.address().await];
        let dial = || dial_rpc(&at, Some(middle.key()), &guest, PATIENCE);
        let relay = dial().await.expect("connects");
        let refused = command(&relay, &hidden, &through).await.unwrap_err();
        assert!(matches!(refused, DialRpcError::Failed { .. }), "{refused}");

        middle.handle.relay_for(guest.public()).await.unwrap();
        let mut first = command(&relay, &hidden, &through).await.expect("relayed");
        assert_eq!(first.peer, hidden.key());
        let mut stream = first.stream.take().unwrap();
        assert_eq!(ask(&mut stream, 7).await.unwrap(), 7);
        // The circuit is the same one.
        let mut again = command(&relay, &hidden, &through).await.expect("relayed");
        assert_eq!(ask(again.stream.as_mut().unwrap(), 8).await.unwrap(), 8);
        // Others are strangers as before, and the guest is one to everything else.
        let other = dial_rpc(&at, None, &secret(10), PATIENCE).await.unwrap();
        assert!(command(&other, &hidden, &through).await.is_err());
        let peers = middle.handle.peers().await.unwrap();
        let seen = peers.iter().find(|peer| peer.key == guest.public());
        assert!(!seen.expect("connected").approved);

        middle.handle.dismiss_guests().await.unwrap();
        assert!(
            timeout(PATIENCE, ask(&mut stream, 9))
                .await
                .unwrap()
                .is_err()
        );
        // The node behind the relay notices too.
        timeout(PATIENCE, gone(&hidden, guest.public()))
            .await
            .unwrap();
        assert!(command(&relay, &hidden, &through).await.is_err());

        // It ends with the guest's last connection: whoever comes with the same key is a stranger.
        middle.handle.relay_for(guest.public()).await.unwrap();
        let held = command(&relay, &hidden, &through).await.expect("relayed");
        // What leads through the connection holds it.
        drop(relay);
        drop((first, again));
        let mut held = held;
        assert_eq!(ask(held.stream.as_mut().unwrap(), 3).await.unwrap(), 3);
        drop(held);
        timeout(PATIENCE, gone(&middle, guest.public()))
            .await
            .unwrap();
        let relay = dial().await.expect("connects");
        assert!(command(&relay, &hidden, &through).await.is_err());
    }
}

#[tokio::test]
async fn nobody_is_made_a_guest_before_it_is_connected() {
    let (middle, hidden, through) = relayed().await;
    let guest = secret(9);
    middle.handle.relay_for(guest.public()).await.unwrap();
    let at = [middle.address().await];
    let relay = dial_rpc(&at, None, &guest, PATIENCE).await.unwrap();
    assert!(command(&relay, &hidden, &through).await.is_err());
}

#[tokio::test]
async fn a_circuit_leads_to_the_node_that_is_meant_through_the_relay_that_is_there() {
    let (middle, hidden, through) = relayed().await;
    let at = [middle.address().await];
    let relay = dial_rpc(&at, None, &secret(9), PATIENCE).await.unwrap();
    middle.handle.relay_for(secret(9).public()).await.unwrap();
    for (circuit, node) in [
        (&*through, secret(5).public()),
        (&*at[0], hidden.key()),
        (&*through.replace("/p2p-circuit", ""), hidden.key()),
    ] {
        let refused = relay.through(circuit, node, PATIENCE).await.unwrap_err();
        assert!(matches!(refused, DialRpcError::Failed { .. }), "{refused}");
    }
    // Nobody at the relay has this place.
    let absent = through.rsplit_once('/').unwrap().0;
    let refused = relay.through(
        absent.strip_suffix("/p2p").unwrap(),
        secret(5).public(),
        PATIENCE,
    );
    let refused = refused.await.unwrap_err();
    assert!(matches!(refused, DialRpcError::Failed { .. }), "{refused}");
    let refused = dial_rpc(&[through], None, &secret(9), PATIENCE).await;
    assert!(matches!(refused, Err(DialRpcError::OnlyRelayed)));
}

/// Returns once the node has no connection with this peer.
async fn gone(node: &Node, key: PublicKey) {
    let mut again = interval(Duration::from_millis(50));
    loop {
        again.tick().await;
        let peers = node.handle.peers().await.unwrap();
        if peers.iter().all(|peer| peer.key != key) {
            return;
        }
    }
}

#[tokio::test]
async fn approved_peers_learn_whether_they_can_be_reached_and_strangers_do_not() {
    let probing = |seed| {
        let mut settings = config(seed, TCP);
        settings.limits.probe_after = Duration::from_millis(200);
        settings.limits.probe_private = true;
        settings
    };
    let server = Node::start(probing(1)).await;
    let mut known = Node::start(probing(2)).await;
    server.approve(&[&known]).await;
    // The client trusts the server; what counts is what the server thinks of it.
    known.approve(&[&server]).await;
    known.dial(&server).await;
    let reachable = known
        .wait("reachability", |event| match event {
            NetworkEvent::Reachability(Reachability::Public { address }) => Some(address),
            _ => None,
        })
        .await;
    let own = known.address().await;
    let own = own.split("/p2p/").next().unwrap();
    assert!(reachable.starts_with(own), "{reachable} {own}");

    let mut prober = prober(&server).await;
    let refused = timeout(PATIENCE, async {
        loop {
            match prober.select_next_some().await {
                SwarmEvent::Behaviour(autonat::Event::OutboundProbe(
                    autonat::OutboundProbeEvent::Error { error, .. },
                )) if !is_too_early(&error) => return error,
                SwarmEvent::Behaviour(autonat::Event::OutboundProbe(
                    autonat::OutboundProbeEvent::Response { address, .. },
                )) => panic!("a stranger was probed at {address}"),
                _ => {}
            }
        }
    });
    let refused = refused.await.expect("in time");
    assert!(
        matches!(
            refused,
            autonat::OutboundProbeError::OutboundRequest(
                autonat::OutboundFailure::UnsupportedProtocols
            )
        ),
        "{refused:?}"
    );
}

/// The prober does not listen yet, or has asked its one server just now: it tries again.
fn is_too_early(error: &autonat::OutboundProbeError) -> bool {
    use autonat::OutboundProbeError::{NoAddresses, NoServer};
    matches!(error, NoAddresses | NoServer)
}

/// A stranger that asks a node, and it alone, whether it can be reached.
async fn prober(server: &Node) -> Swarm<autonat::Behaviour> {
    let config = autonat::Config {
        boot_delay: Duration::ZERO,
        // It listens a moment later.
        retry_interval: Duration::from_millis(50),
        only_global_ips: false,
        use_connected: false,
        ..autonat::Config::default()
    };
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| autonat::Behaviour::new(key.public().to_peer_id(), config))
        .unwrap()
        .build();
    let address: Multiaddr = server.address().await.parse().unwrap();
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        panic!("{address} names no peer")
    };
    swarm.behaviour_mut().add_server(peer, Some(address));
    swarm.listen_on(TCP.parse().unwrap()).unwrap();
    swarm
}

/// What a peer dialled from is a port that nobody listens on.
#[tokio::test]
async fn a_peer_is_reached_where_it_listens_and_not_where_it_came_from() {
    let here = Node::start(config(1, TCP)).await;
    // It cannot dial TCP from a port that it listens on.
    let there = Node::start(config(2, QUIC)).await;
    here.approve(&[&there]).await;
    there.approve(&[&here]).await;
    there.dial(&here).await;
    let listens = there.address().await;
    let told = async {
        loop {
            let peers = here.handle.peers().await.unwrap();
            let peer = peers.iter().find(|peer| peer.key == there.key());
            let addresses = peer.map(|peer| peer.addresses.clone()).unwrap_or_default();
            if !addresses.is_empty() {
                return addresses;
            }
            tokio::task::yield_now().await;
        }
    };
    let addresses = tokio::time::timeout(PATIENCE, told)
        .await
        .expect("its addresses");
    let tcp = addresses.iter().find(|address| address.contains("/tcp/"));
    assert_eq!(tcp, None);
    assert!(
        listens.starts_with(&addresses[0]),
        "{listens} {addresses:?}"
    );
}
