//! Between network namespaces: one local network with nothing configured, and firewalls that let
//! nobody in with one bootstrap address.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use realm_testkit::Cluster;
use serde_json::Value;

use crate::{KilledAtTheEnd, cluster, guest};

/// Lets answers in, and nothing that begins outside.
const FIREWALL: &str = "table inet f {
 chain in {
  type filter hook input priority 0; policy drop;
  iif lo accept
  ct state established,related accept
 }
}
";

/// Namespaces on one bridge, gone at the end.
struct Net {
    wan: String,
    names: Vec<String>,
}

fn ip(args: &[&str]) -> bool {
    let done = Command::new("ip").args(args).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// Sets the firewall up inside a namespace.
fn protect(ns: &str) -> bool {
    let nft = Command::new("ip")
        .args(["netns", "exec", ns, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn();
    nft.is_ok_and(|mut nft| {
        let mut rules = nft.stdin.take().unwrap();
        let written = rules.write_all(FIREWALL.as_bytes());
        drop(rules);
        nft.wait().unwrap().success() && written.is_ok()
    })
}

impl Net {
    fn new() -> Option<Self> {
        let wan = format!("realm{}", std::process::id());
        let net = Self {
            wan: wan.clone(),
            names: Vec::new(),
        };
        // The bridge passes frames on whatever its own firewall says: this only tries it.
        if !ip(&["netns", "add", &wan]) || !protect(&wan) {
            realm_testkit::skipped("network namespaces need root, iproute2 and nftables");
            return None;
        }
        assert!(ip(&["-n", &wan, "link", "add", "br0", "type", "bridge"]));
        assert!(ip(&["-n", &wan, "link", "set", "br0", "up"]));
        Some(net)
    }

    /// A namespace with this last byte of its address; public space, for that is what AutoNAT looks at.
    fn add(&mut self, name: &str, last: u8, firewall: bool) -> String {
        let ns = format!("{}{name}", self.wan);
        self.names.push(ns.clone());
        let (inside, outside) = (format!("v{name}"), format!("p{name}"));
        assert!(ip(&["netns", "add", &ns]));
        let peer = [
            "link", "add", &inside, "netns", &ns, "type", "veth", "peer", "name", &outside,
            "netns", &self.wan,
        ];
        assert!(ip(&peer));
        assert!(ip(&[
            "-n", &self.wan, "link", "set", &outside, "master", "br0", "up"
        ]));
        let address = format!("45.45.45.{last}/24");
        assert!(ip(&["-n", &ns, "addr", "add", &address, "dev", &inside]));
        assert!(ip(&["-n", &ns, "link", "set", &inside, "up"]));
        assert!(ip(&["-n", &ns, "link", "set", "lo", "up"]));
        // Multicast needs a route.
        assert!(ip(&["-n", &ns, "route", "add", "default", "dev", &inside]));
        assert!(!firewall || protect(&ns));
        ns
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for ns in self.names.iter().chain([&self.wan]) {
            // What cannot be removed now is only a name.
            ip(&["netns", "del", ns]);
        }
    }
}

fn invite(realm: &Cluster, name: &str, bootstrap: Option<&str>) {
    let token = realm.path().join(format!("{name}.token"));
    let mut invite = vec!["invite", "--quiet", "--name", name];
    invite.extend(
        bootstrap
            .iter()
            .flat_map(|address| ["--bootstrap", address]),
    );
    std::fs::write(&token, realm.ok(&invite)).unwrap();
}

fn agent(realm: &Cluster, ns: &str, name: &str, more: &[&str]) -> KilledAtTheEnd {
    let token = realm.path().join(format!("{name}.token"));
    let log = std::fs::File::create(realm.path().join(format!("{name}.log"))).unwrap();
    let child = Command::new("ip")
        .args(["netns", "exec", ns, env!("CARGO_BIN_EXE_realm"), "agent"])
        .args(more)
        .args([
            "--http",
            "127.0.0.1:0",
            "--listen",
            "/ip4/0.0.0.0/tcp/2020",
            "--enroll-file",
        ])
        .arg(&token)
        .arg("--data")
        .arg(realm.data(name))
        .env("XDG_RUNTIME_DIR", realm.path().join("run"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    KilledAtTheEnd(child)
}

fn addresses(realm: &Cluster, name: &str, wanted: &str) -> String {
    realm_testkit::wait_for(&format!("{wanted} among the addresses of {name}"), || {
        let info = std::fs::read(realm.data(name).join("agent.json")).ok()?;
        let info: Value = serde_json::from_slice(&info).ok()?;
        let addresses = info["addresses"].as_array()?.iter();
        let mut found = addresses
            .filter_map(|at| at.as_str())
            .filter(|at| at.contains(wanted));
        found.next().map(str::to_owned)
    })
}

/// What `realm` prints inside a namespace.
fn inside(realm: &Cluster, ns: &str, args: &[&str]) -> Option<String> {
    let output = Command::new("ip")
        .args(["netns", "exec", ns, env!("CARGO_BIN_EXE_realm")])
        .args(args)
        .env("HOME", realm.path())
        .env("REALM_CONFIG_DIR", realm.path().join("config"))
        .env("REALM_STATE_DIR", realm.path().join("state"))
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(words)
}

#[test]
fn a_first_node_is_pushed_to_in_its_first_seconds() {
    let Some(mut net) = Net::new() else { return };
    let realm = cluster();
    let place = net.add("a", 1, false);
    invite(&realm, "one", None);
    let _agent = agent(&realm, &place, "one", &[]);
    let address = addresses(&realm, "one", "/ip4/45.45.45.1/");
    // It still waits for others of its network; whoever asks it now keeps nothing from it.
    let push = [
        "push",
        "hello",
        &guest("hello.wasm"),
        "--wait",
        "--via",
        &address,
    ];
    assert!(inside(&realm, &place, &push).is_some());
}

#[test]
fn machines_of_one_network_become_a_realm_with_nothing_configured() {
    let Some(mut net) = Net::new() else { return };
    let realm = cluster();
    let places: Vec<String> = [("a", 1), ("b", 2), ("c", 3)]
        .map(|(name, last)| net.add(name, last, false))
        .into();
    // Invites made beforehand, which know no address.
    let names = ["one", "two", "three"];
    names.iter().for_each(|name| invite(&realm, name, None));
    let _agents: Vec<KilledAtTheEnd> = places
        .iter()
        .zip(names)
        .map(|(ns, name)| agent(&realm, ns, name, &[]))
        .collect();
    // The command line, on a machine without an agent's file, finds a node by itself.
    realm_testkit::wait_for("three nodes in one realm", || {
        let nodes = inside(&realm, &places[2], &["nodes", "ls", "-o", "json"])?;
        let nodes: Value = serde_json::from_str(&nodes).ok()?;
        let ready = nodes
            .as_array()?
            .iter()
            .filter(|node| node["state"] == "ready");
        (ready.count() == 3).then_some(())
    });
}

#[test]
fn nodes_that_nobody_reaches_find_each_other_through_one_that_everybody_does() {
    let Some(mut net) = Net::new() else { return };
    let realm = cluster();
    let public = net.add("a", 1, false);
    let (left, right) = (net.add("b", 2, true), net.add("c", 3, true));
    invite(&realm, "public", None);
    let _public = agent(&realm, &public, "public", &["--no-mdns"]);
    let hub = addresses(&realm, "public", "/ip4/45.45.45.1/");
    invite(&realm, "left", Some(&hub));
    invite(&realm, "right", Some(&hub));
    let _left = agent(&realm, &left, "left", &["--no-mdns"]);
    let _right = agent(&realm, &right, "right", &["--no-mdns"]);
    // Each is told that it is not reachable, and gets a place at the relay.
    addresses(&realm, "left", "/p2p-circuit/");
    addresses(&realm, "right", "/p2p-circuit/");
    let left_address = addresses(&realm, "left", "/ip4/45.45.45.2/");
    realm_testkit::wait_for("the two behind firewalls are connected", || {
        let via = ["nodes", "ls", "-o", "json", "--via", &left_address];
        let nodes: Value = serde_json::from_str(&inside(&realm, &left, &via)?).ok()?;
        let right = nodes
            .as_array()?
            .iter()
            .find(|node| node["name"] == "right")?;
        (right["state"] == "ready" && right["link"].is_string()).then_some(())
    });
    let (hello, push) = (guest("hello.wasm"), ["push", "hello"]);
    let rest = ["--wait", "--via", &left_address];
    let pushed = inside(&realm, &left, &[&push[..], &[&hello], &rest].concat());
    assert!(pushed.is_some(), "it runs on all three");
}
