//! Who is obeyed, and who is not.

use std::process::Command;

use crate::{KilledAtTheEnd, cluster, guest};

#[test]
fn another_owner_is_told_no_and_changes_nothing() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let stranger = cluster();
    let refused = stranger.run(&["push", "evil", &guest("ticker.wasm"), "--via", &one]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert_eq!(stranger.run(&["status", "--via", &one]).code, 4);
    assert_eq!(realm.status("one").unwrap()["revision"], 0);
}

#[test]
fn a_node_without_an_invite_waits_for_the_owner() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let owner = realm.ok(&["key", "show"]);
    let data = realm.data("two").display().to_string();
    realm.ok(&[
        "configure",
        "--owner",
        owner.trim(),
        "--bootstrap",
        &one,
        "--data",
        &data,
    ]);
    let log = std::fs::File::create(realm.path().join("two.log")).unwrap();
    let agent = Command::new(env!("CARGO_BIN_EXE_realm"))
        .args([
            "agent",
            "--no-mdns",
            "--http",
            "127.0.0.1:0",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
        ])
        .args(["--name", "two", "--data", &data])
        .env("XDG_RUNTIME_DIR", realm.path().join("run"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let _agent = KilledAtTheEnd(agent);
    realm_testkit::wait_for("the join request", || {
        let nodes = realm.run(&["nodes", "ls", "--via", &one]);
        (nodes.stdout + &nodes.stderr)
            .contains("pending")
            .then_some(())
    });
    realm.ok(&["nodes", "approve", "two", "--via", &one]);
    let status = realm.wait_status("one", "two is ready", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| node["state"] == "ready")
            .count()
            == 2
    });
    assert_eq!(status["revision"], 1);
    realm.ok(&["nodes", "revoke", "two", "--yes", "--via", &one]);
    realm.wait_status("one", "two is revoked", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["state"] == "revoked")
    });
}

#[test]
fn a_data_directory_and_a_port_have_one_agent() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    let data = realm.data("one").display().to_string();
    let second = realm.run(&[
        "agent",
        "--no-mdns",
        "--data",
        &data,
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--http",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("another agent"), "{}", second.stderr);
    let address = realm.address("one");
    let address = address.split("/p2p/").next().unwrap();
    let elsewhere = realm.data("elsewhere").display().to_string();
    let taken = realm.run(&[
        "agent",
        "--no-mdns",
        "--data",
        &elsewhere,
        "--listen",
        address,
        "--http",
        "127.0.0.1:0",
    ]);
    assert_eq!(taken.code, 1);
    assert!(taken.stderr.contains("in use"), "{}", taken.stderr);
}

#[test]
fn an_invite_is_used_once_and_expires() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let data = realm.data("late").display().to_string();
    let bad = realm.run(&["enroll", "realm-invite:AAAA", "--data", &data]);
    assert_eq!(bad.code, 2, "{}", bad.stderr);
    let used = std::fs::read_to_string(realm.path().join("one.token")).unwrap();
    let owner = realm.ok(&["key", "show"]);
    realm.ok(&["enroll", used.trim(), "--data", &data]);
    let other = realm.run(&[
        "configure",
        "--owner",
        "ed25519:11111111111111111111111111111111",
        "--data",
        &data,
    ]);
    assert_eq!(other.code, 2, "{}", other.stderr);
    assert!(owner.starts_with("ed25519:"));
}

#[test]
fn health_and_readiness_are_on_loopback() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let log = realm.log("one");
    let address = log
        .split("http://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let answer = |path: &str, host: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(answer("/healthz", "localhost").starts_with("HTTP/1.1 200"));
    assert!(answer("/readyz", address).starts_with("HTTP/1.1 200"));
    assert!(answer("/healthz", "evil.example").starts_with("HTTP/1.1 421"));
}
