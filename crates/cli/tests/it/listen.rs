//! Where an agent listens, by `--port` and by its file.

use std::{path::Path, process::Stdio};

use realm_testkit::{Cluster, wait_for};

use crate::{KilledAtTheEnd, cluster, free_port};

/// Starts an agent with these arguments, which say to listen at this port; answers with the addresses it tells.
fn listens(
    realm: &Cluster,
    data: &Path,
    args: &[&str],
    port: u16,
) -> (KilledAtTheEnd, Vec<String>) {
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
    // Which interfaces there are it learns one by one.
    let addresses = wait_for("every address in the agent's file", || {
        let info = std::fs::read(data.join("agent.json")).ok()?;
        let info: serde_json::Value = serde_json::from_slice(&info).ok()?;
        let texts = info["addresses"].as_array()?.iter();
        let told: Vec<String> = texts.map(|text| text.as_str().unwrap().into()).collect();
        on_both_transports(&told, port).then_some(told)
    });
    (agent, addresses)
}

/// Whether each family has both transports at this port. Nothing may be told of another port.
fn on_both_transports(addresses: &[String], port: u16) -> bool {
    let (quic, tcp) = (format!("/udp/{port}/quic-v1"), format!("/tcp/{port}"));
    let mut families = vec!["/ip4/"];
    // A machine without IPv6 has no such file, or an empty one.
    if std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|known| !known.is_empty()) {
        families.push("/ip6/");
    }
    let elsewhere = addresses
        .iter()
        .find(|address| !address.contains(&quic) && !address.contains(&tcp));
    assert_eq!(elsewhere, None);
    let is_told = |family: &str, transport: &String| {
        let mut addresses = addresses.iter();
        addresses.any(|address| address.starts_with(family) && address.contains(transport))
    };
    let mut families = families.into_iter();
    families.all(|family| is_told(family, &quic) && is_told(family, &tcp))
}

#[test]
fn a_port_is_for_both_transports_and_both_families() {
    let realm = cluster();
    let port = free_port();
    let text = port.to_string();
    let (agent, _) = listens(&realm, &realm.data("flag"), &["--port", &text], port);
    drop(agent);

    let port = free_port();
    let config = realm.path().join("config/agent.toml");
    std::fs::write(&config, format!("port = {port}\n")).unwrap();
    let (agent, told) = listens(&realm, &realm.data("file"), &[], port);
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
