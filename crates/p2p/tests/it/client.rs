//! What a command line does: dial, race, discover.

use std::time::Duration;

use realm_p2p::{DialRpcError, dial_rpc, discover_mdns};

use crate::{
    rpc::{ask, echo},
    scene::{Node, PATIENCE, QUIC, TCP, config, secret},
};

#[tokio::test]
async fn the_first_address_that_answers_wins() {
    for listen in [TCP, QUIC] {
        let server = Node::serving(config(1, listen), echo()).await;
        // Nobody listens on the discard port here.
        let addresses = ["/ip4/127.0.0.1/tcp/9".to_owned(), server.address().await];
        let started = std::time::Instant::now();
        let mut connection = dial_rpc(&addresses, Some(server.key()), &secret(7), PATIENCE)
            .await
            .expect("connects");
        eprintln!("{listen}: a stream after {:?}", started.elapsed());
        assert_eq!(
            (connection.peer, &connection.address),
            (server.key(), &addresses[1])
        );
        let mut stream = connection.stream.take().unwrap();
        assert_eq!(ask(&mut stream, 42).await.unwrap(), 42);
    }
}

/// Commands come one after the other, each with a new key and all the addresses of a node.
#[tokio::test]
async fn a_node_with_several_addresses_takes_every_command() {
    const COMMANDS: u16 = 200;
    let mut settings = config(1, TCP);
    let also = [QUIC, "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
    settings.listen.extend(also.map(str::to_owned));
    let server = Node::serving(settings, echo()).await;
    let addresses = server.handle.listen_addresses().await.unwrap();
    assert_eq!(addresses.len(), 4, "{addresses:?}");
    for number in 0..COMMANDS {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let key = realm_identity::SecretKey::from_seed(&seed);
        let mut connection = dial_rpc(&addresses, Some(server.key()), &key, PATIENCE)
            .await
            .unwrap_or_else(|error| panic!("command {number}: {error}"));
        let mut stream = connection.stream.take().unwrap();
        assert_eq!(ask(&mut stream, 42).await.unwrap(), 42, "command {number}");
    }
}

#[tokio::test]
async fn every_failure_is_listed() {
    let server = Node::serving(config(1, TCP), echo()).await;
    let plain = server
        .address()
        .await
        .split("/p2p/")
        .next()
        .unwrap()
        .to_owned();
    let addresses = ["/ip4/127.0.0.1/tcp/9".to_owned(), plain.clone()];
    let other = secret(8).public();
    let error = dial_rpc(&addresses, Some(other), &secret(7), PATIENCE)
        .await
        .unwrap_err();
    let DialRpcError::Failed { attempts } = error else {
        panic!("{error}")
    };
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    let wrong = attempts
        .iter()
        .find(|attempt| attempt.address.contains(&plain))
        .unwrap();
    assert!(wrong.reason.contains(&server.key().to_string()), "{wrong}");
    let refused = attempts.iter().find(|one| one != &wrong).unwrap();
    assert!(!refused.reason.contains("/ip4/"), "named once: {refused}");
}

#[tokio::test]
async fn what_failed_is_told_when_another_address_is_silent() {
    // Accepts in the kernel and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!(
        "/ip4/127.0.0.1/tcp/{}",
        listener.local_addr().unwrap().port()
    );
    let closed = "/ip4/127.0.0.1/tcp/9".to_owned();
    let wait = Duration::from_millis(500);
    let addresses = [silent.clone(), closed.clone()];
    let error = dial_rpc(&addresses, None, &secret(7), wait)
        .await
        .unwrap_err();
    let DialRpcError::Failed { attempts } = error else {
        panic!("{error}")
    };
    let reason = |address: &str| {
        let found = attempts.iter().filter(|one| one.address == address);
        let reasons: Vec<&str> = found.map(|one| one.reason.as_str()).collect();
        reasons.join(", ")
    };
    assert_eq!(reason(&silent), "no answer within 500ms");
    assert!(reason(&closed).contains("refused"), "{attempts:?}");
}

#[tokio::test]
async fn a_node_without_rpc_and_a_silent_one_are_told_apart() {
    let mute = Node::start(config(1, TCP)).await;
    let error = dial_rpc(&[mute.address().await], None, &secret(7), PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, DialRpcError::NoRpc { .. }), "{error}");
    // Accepts in the kernel and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    let error = dial_rpc(&[address], None, &secret(7), Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(matches!(error, DialRpcError::Deadline(_)), "{error}");
    let error = dial_rpc(&[], None, &secret(7), PATIENCE).await.unwrap_err();
    assert!(matches!(error, DialRpcError::NoAddress), "{error}");
}

#[tokio::test]
async fn discovery_ends_in_time() {
    let wait = Duration::from_millis(100);
    let found = tokio::time::timeout(PATIENCE, discover_mdns(wait))
        .await
        .expect("in time");
    // Whoever else is on this network may answer; it then has an address.
    assert!(found.iter().all(|(_, addresses)| !addresses.is_empty()));
}
