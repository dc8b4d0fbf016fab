//! Where an agent listens, by `--port` and by its file.

use std::{
    net::{TcpListener, UdpSocket},
    path::Path,
    process::Stdio,
};

use realm_testkit::{Cluster, wait_for};

use crate::{KilledAtTheEnd, cluster};

/// A port that nothing uses on any of this machine's addresses, over TCP or UDP.
fn free_port() -> u16 {
    let free = |port: u16| {
        let udp = UdpSocket::bind(("0.0.0.0", port)).is_ok();
        udp && TcpListener::bind(("0.0.0.0", port)).is_ok()
    };
    wait_for("a free port", || {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        free(port).then_some(port)
    })
}

/// Starts an agent with these arguments; answers with the addresses it tells.
fn addresses(realm: &Cluster, data: &Path, args: &[&str]) -> (KilledAtTheEnd, Vec<String>) {
    let agent = realm
        .command()
        .args(["agent", "--no-mdns", "--http", "127.0.0.1:0", "--data"])
        .arg(data)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let agent = KilledAtTheEnd(agent);
    let addresses = wait_for("the agent's file", || {
        let info = std::fs::read(data.join("agent.json")).ok()?;
        let info: serde_json::Value = serde_json::from_slice(&info).ok()?;
        let texts = info["addresses"].as_array()?.iter();
        Some(texts.map(|text| text.as_str().unwrap().into()).collect())
    });
    (agent, addresses)
}

fn on_both_transports(addresses: &[String], port: u16) {
    let (quic, tcp) = (format!("/udp/{port}/quic-v1"), format!("/tcp/{port}"));
    let mut families = vec!["/ip4/"];
    // A machine without IPv6 has no such file, or an empty one.
    if std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|known| !known.is_empty()) {
        families.push("/ip6/");
    }
    for family in families {
        for transport in [&quic, &tcp] {
            let there = addresses
                .iter()
                .any(|address| address.starts_with(family) && address.contains(transport.as_str()));
            assert!(there, "{family} with {transport}: {addresses:?}");
        }
    }
    let elsewhere = addresses
        .iter()
        .find(|address| !address.contains(&quic) && !address.contains(&tcp));
    assert_eq!(elsewhere, None);
}

#[test]
fn a_port_is_for_both_transports_and_both_families() {
    let realm = cluster();
    let port = free_port();
    let text = port.to_string();
    let (agent, told) = addresses(&realm, &realm.data("flag"), &["--port", &text]);
    on_both_transports(&told, port);
    drop(agent);

    let port = free_port();
    let config = realm.path().join("config/agent.toml");
    std::fs::write(&config, format!("port = {port}\n")).unwrap();
    let (agent, told) = addresses(&realm, &realm.data("file"), &[]);
    on_both_transports(&told, port);
    // It answers there.
    let at = told.iter().find(|address| address.contains("/tcp/"));
    let asked = realm.run(&["status", "--via", at.unwrap()]);
    assert_eq!(asked.code, 4, "a node without an owner: {}", asked.stderr);
    drop(agent);

    let both = ["agent", "--port", "1", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let refused = realm.run(&both);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    std::fs::write(&config, "port = 1\nlisten = []\n").unwrap();
    let refused = realm.run(&["agent"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("both"), "{}", refused.stderr);
}
