//! A realm of honest nodes, members of it that were taken over, and what is measured of them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use realm_identity::{PublicKey, RealmId, SecretKey};
use realm_testkit::{Cluster, Host, Metrics, wait_for};

use crate::{
    cluster, guest,
    liar::as_owner,
    page::{get, http_address},
};

/// What a delivery scales, and what never starts.
pub const STILL: &str = "still";
/// Writes lines without end.
pub const LOUD: &str = "loud";

/// Members that were taken over.
pub const TAKEN: [&str; 4] = ["mallory", "malvina", "malory", "maldwyn"];

/// Nodes "one" and "two" are honest. The others joined by an invite as they did and were taken over:
/// their agents are gone, and their keys are the foes'.
pub struct Scene {
    pub realm: Cluster,
    pub target: Target,
}

/// What a foe knows: node "one", which it attacks, and the keys of some members.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: String,
    pub quic: SocketAddr,
    /// Addresses of the foes.
    pub from: [Ipv4Addr; 3],
    /// Their machine, where it is not this one.
    pub host: Option<Host>,
    pub http: String,
    /// The header that opens what is for this machine's user alone.
    pub token: String,
    pub realm: RealmId,
    /// "one" and "two".
    pub nodes: [PublicKey; 2],
    pub members: [SecretKey; TAKEN.len()],
}

impl Scene {
    /// Everybody is on this machine.
    pub fn new() -> Self {
        let from = [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last));
        Self::at(Ipv4Addr::LOCALHOST, None, from)
    }

    /// This thread is on the first host. The foes are on the second one, which gets more addresses.
    pub fn between(home: &Host, away: Host) -> Self {
        let own = away.v4();
        let [a, b, c, last] = own.octets();
        let from = [last, last + 100, last + 200].map(|last| Ipv4Addr::new(a, b, c, last));
        for more in &from[1..] {
            let mut add = away.command("ip");
            add.args(["addr", "add", &format!("{more}/24"), "dev", "eth0"]);
            assert!(add.status().unwrap().success());
        }
        Self::at(home.v4(), Some(away), from)
    }

    fn at(ip: Ipv4Addr, host: Option<Host>, from: [Ipv4Addr; 3]) -> Self {
        let mut realm = cluster();
        let [tcp, quic] = ["tcp/0", "udp/0/quic-v1"].map(|port| format!("/ip4/{ip}/{port}"));
        let mut listen = vec!["--listen", &quic];
        // It listens there anyway.
        if !ip.is_loopback() {
            listen.extend(["--listen", &tcp]);
        }
        realm.add_node_with("one", &[], &listen);
        realm.add_node("two", &[]);
        for name in TAKEN {
            realm.add_node(name, &[]);
        }
        realm.wait_ready("one");
        let one = realm.address("one");
        let push = |name: &str, file: &str, more: &[&str]| {
            let file = guest(file);
            realm.ok(&[&["push", name, &file, "--via", &one][..], more].concat());
        };
        push(STILL, "hello.wasm", &["--no-start"]);
        push(LOUD, "flood.wasm", &["--replicas", "1", "--node", "one"]);
        let members = TAKEN.map(|name| {
            wait_for(&format!("{name} has all"), || {
                (realm.status(name)?["revision"] == 2).then_some(())
            });
            realm.kill(name);
            let data = realm_store::DataDir::open(&realm.data(name)).unwrap();
            realm_agent::trust::node_key(&data).unwrap()
        });
        let token = fs::read_to_string(realm.data("one").join("http.token")).unwrap();
        let [info, other] = ["one", "two"].map(|node| {
            let info = fs::read_to_string(realm.data(node).join("agent.json")).unwrap();
            serde_json::from_str::<serde_json::Value>(&info).unwrap()
        });
        let nodes = [&info, &other].map(|info| info["key"].as_str().unwrap().parse().unwrap());
        let addresses = info["addresses"].as_array().unwrap().iter();
        let address = |kind: &str| {
            let there = format!("/ip4/{ip}/{kind}/");
            let mut addresses = addresses.clone().map(|address| address.as_str().unwrap());
            addresses
                .find(|address| address.starts_with(&there))
                .unwrap()
        };
        let port = address("udp").split('/').nth(4).unwrap();
        let target = Target {
            address: address("tcp").to_owned(),
            quic: (IpAddr::from(ip), port.parse().unwrap()).into(),
            from,
            host,
            http: http_address(&realm, "one"),
            token: format!("Authorization: Bearer {}", token.trim()),
            realm: as_owner(&realm, &one, async |_, realm, _| realm),
            nodes,
            members,
        };
        Self { realm, target }
    }

    pub fn gauge(&self, node: &str) -> Gauge {
        Gauge::of(self.realm.pid(node))
    }

    /// The sum of a counter of node "one" over its labels, or of those that `label` is in.
    pub fn counted(&self, name: &str, label: &str) -> f64 {
        let page = Metrics::at(self.target.http.parse().unwrap()).expect("a page");
        page.values(name, label).into_iter().sum()
    }

    /// What node "one" did not take from whom, or held against them, by what it was.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        let page = Metrics::at(self.target.http.parse().unwrap()).expect("a page");
        let is_one = |name: &str| {
            name.starts_with("realm_offences_total")
                || ["_refused_total", "_rejected_total", "_dropped_total"]
                    .iter()
                    .any(|end| name.starts_with("realm_network_") && name.contains(end))
        };
        let all = page.all().filter(|(name, _)| is_one(name));
        all.map(|(name, value)| (name.to_owned(), value as u64))
            .collect()
    }

    /// That the offence was counted, and that whoever did it is named among the events of node "one".
    pub fn assert_shown(&self, offences: &[&str], named: &[&SecretKey]) {
        for offence in offences {
            let counted = self.counted("realm_offences_total", &format!("offence=\"{offence}\""));
            assert!(counted > 0.0, "{offence} is not counted");
        }
        let events = self.realm.ok(&[
            "events",
            "--node",
            "one",
            "-o",
            "json",
            "--via",
            &self.realm.address("one"),
        ]);
        for key in named {
            let (key, mut lines) = (key.public().to_string(), events.lines());
            let names = |line: &str| line.contains("\"refused\"") && line.contains(&key);
            assert!(lines.any(names), "{key} is not named: {events}");
        }
    }

    /// That node "one" is of use to its owner.
    pub fn assert_answers(&self) {
        let nodes = self.realm.status("one").expect("a status");
        let state = |name: &str| {
            let nodes = nodes["nodes"].as_array().unwrap();
            let node = nodes.iter().find(|node| node["name"] == name).unwrap();
            node["state"].clone()
        };
        assert_eq!(
            (state("one"), state("two")),
            ("ready".into(), "ready".into())
        );
        let page = get(&self.target.http, "/readyz", "localhost");
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Open file descriptors.
    pub files: usize,
}

impl Gauge {
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        Self {
            resident: kib.parse::<u64>().unwrap() * 1024,
            files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        }
    }
}

impl std::fmt::Display for Gauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = self.resident as f64 / (1024.0 * 1024.0);
        write!(f, "{mib:.1} MiB, {} files", self.files)
    }
}
