//! Between network namespaces: one local network with nothing configured, and firewalls that let
//! nobody in with one bootstrap address.

use std::{
    fs::File,
    io::Write as _,
    net::TcpListener,
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Output, Stdio},
    rc::Rc,
    time::Duration,
};

use realm_identity::{PublicKey, SecretKey};
use realm_p2p::{DialRpcError, RpcConnection};
use realm_rpc::{Client, Limits};
use realm_testkit::{Cluster, PATIENCE};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::{
    KilledAtTheEnd, cluster, guest,
    liar::{Liar, listen_to, owner, runtime},
};

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
pub struct Net {
    wan: String,
    names: Vec<String>,
}

fn ip(args: &[&str]) -> bool {
    let done = Command::new("ip").args(args).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// Sets a firewall up inside a namespace.
fn protect(ns: &str, firewall: &str) -> bool {
    let nft = Command::new("ip")
        .args(["netns", "exec", ns, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn();
    nft.is_ok_and(|mut nft| {
        let mut rules = nft.stdin.take().unwrap();
        let written = rules.write_all(firewall.as_bytes());
        drop(rules);
        nft.wait().unwrap().success() && written.is_ok()
    })
}

impl Net {
    pub fn new() -> Option<Self> {
        let wan = format!("realm{}", std::process::id());
        let net = Self {
            wan: wan.clone(),
            names: Vec::new(),
        };
        // The bridge passes frames on whatever its own firewall says: this only tries it.
        if !ip(&["netns", "add", &wan]) || !protect(&wan, FIREWALL) {
            realm_testkit::skipped("network namespaces need root, iproute2 and nftables");
            return None;
        }
        assert!(ip(&["-n", &wan, "link", "add", "br0", "type", "bridge"]));
        assert!(ip(&["-n", &wan, "link", "set", "br0", "up"]));
        Some(net)
    }

    /// A namespace with this last byte of its address; public space, for that is what AutoNAT looks at.
    pub fn add(&mut self, name: &str, last: u8, firewall: bool) -> String {
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
        assert!(!firewall || protect(&ns, FIREWALL));
        ns
    }

    /// Nothing gets from one of these to the other by itself, in either direction.
    pub fn part(&self, one: &str, other: &str) {
        let rules = format!(
            "table bridge parted {{
 chain forward {{
  type filter hook forward priority 0; policy accept;
  iifname p{one} oifname p{other} drop
  iifname p{other} oifname p{one} drop
 }}
}}
"
        );
        assert!(protect(&self.wan, &rules));
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

pub fn invite(realm: &Cluster, name: &str, bootstrap: Option<&str>) {
    let token = realm.path().join(format!("{name}.token"));
    let mut invite = vec!["invite", "--quiet", "--name", name];
    invite.extend(
        bootstrap
            .iter()
            .flat_map(|address| ["--bootstrap", address]),
    );
    std::fs::write(&token, realm.ok(&invite)).unwrap();
}

pub fn agent(realm: &Cluster, ns: &str, name: &str, more: &[&str]) -> KilledAtTheEnd {
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

pub fn addresses(realm: &Cluster, name: &str, wanted: &str) -> String {
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
pub fn inside(realm: &Cluster, ns: &str, args: &[&str]) -> Option<String> {
    let output = ran(realm, ns, args);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(words)
}

fn ran(realm: &Cluster, ns: &str, args: &[&str]) -> Output {
    command(realm, ns, args).output().unwrap()
}

pub fn command(realm: &Cluster, ns: &str, args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", ns, env!("CARGO_BIN_EXE_realm")])
        .args(args)
        .env("HOME", realm.path())
        .env("REALM_CONFIG_DIR", realm.path().join("config"))
        .env("REALM_STATE_DIR", realm.path().join("state"));
    command
}

/// What a program of one's own does inside a namespace.
fn there<T: Send>(ns: &str, work: impl AsyncFnOnce() -> T + Send) -> T {
    let work = || {
        let place = File::open(format!("/run/netns/{ns}")).unwrap();
        // Of this thread alone.
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        tokio::task::LocalSet::new().block_on(&runtime(), work())
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A connection to a relay, and what leads through it.
struct Guest<'r> {
    relay: RpcConnection,
    client: Client,
    circuit: &'r str,
    hidden: PublicKey,
}

impl<'r> Guest<'r> {
    async fn of(hub: &str, circuit: &'r str) -> Self {
        let secret = SecretKey::from_seed(&[77; 32]);
        let at = [hub.to_owned()];
        let dialled = realm_p2p::dial_rpc(&at, None, &secret, PATIENCE).await;
        let mut relay = dialled.unwrap();
        let (_, hidden) = circuit.rsplit_once('/').unwrap();
        // The key in its id, read as if it were a relay's.
        let hidden = realm_p2p::relay_of(&format!("/p2p/{hidden}/p2p-circuit"));
        let client = realm_rpc::connect(relay.stream.take().unwrap(), Limits::default());
        Self {
            relay,
            client,
            circuit,
            hidden: hidden.unwrap().0,
        }
    }

    /// Whether the key is given anything.
    async fn proves(&self, key: &SecretKey) -> bool {
        let key = Rc::new(key.clone());
        let graft = self.client.graft(key, self.relay.peer, None).await;
        graft.unwrap().operator.is_some()
    }

    async fn goes_through(&self) -> Result<RpcConnection, DialRpcError> {
        let circuit = self.relay.through(self.circuit, self.hidden, PATIENCE);
        circuit.await
    }
}

/// Whether a command got to a listener while it asked a node at `listen`, which tells that all others
/// are there.
fn is_led_to(trap: &TcpListener, realm: &Cluster, ns: &str, listen: &str) -> bool {
    let key = SecretKey::from_seed(&[66; 32]);
    let mut told = listen_to(realm, &realm.address("one"), key.public());
    let port = trap.local_addr().unwrap().port();
    for node in told.survey.nodes.values_mut() {
        node.view.present = true;
        node.view.link = None;
        node.view.address = Some(format!("/ip4/127.0.0.1/tcp/{port}"));
    }
    there(ns, async || {
        let liar = Liar::at(listen, told, key);
        let logs = ran(realm, ns, &["logs", "--all", "--via", &liar.address]);
        let words = String::from_utf8_lossy(&logs.stderr).into_owned();
        assert!(words.contains("no lines from one: "), "{words}");
        // What it remembers is asked first the next time.
        ran(realm, ns, &["status"]);
    });
    match trap.accept() {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            false
        }
    }
}

#[test]
fn another_machine_s_loopback_is_not_this_one_s() {
    let Some(mut net) = Net::new() else { return };
    let ns = net.add("far", 9, false);
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let trap = there(&ns, async || {
        let trap = TcpListener::bind("127.0.0.1:0").unwrap();
        trap.set_nonblocking(true).unwrap();
        trap
    });
    assert!(!is_led_to(&trap, &realm, &ns, "/ip4/45.45.45.9/tcp/0"));
    // On loopback itself it may.
    assert!(is_led_to(&trap, &realm, &ns, "/ip4/127.0.0.1/tcp/0"));
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
    let behind = agent(&realm, &right, "right", &["--no-mdns"]);
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
    let (ticker, push) = (guest("ticker.wasm"), ["push", "ticker"]);
    let rest = ["--wait", "--via", &left_address];
    let pushed = inside(&realm, &left, &[&push[..], &[&ticker], &rest].concat());
    assert!(pushed.is_some(), "it runs on all three");
    // Lines stay with the node that has the cell: those behind firewalls give theirs through a relay,
    // to a command behind another firewall and to one in the open.
    for (place, via) in [(&left, &left_address), (&public, &hub)] {
        let logs = inside(&realm, place, &["logs", "ticker", "--via", via]);
        let logs = logs.unwrap_or_else(|| panic!("not all lines, by {via}"));
        for node in ["public", "left", "right"] {
            assert!(logs.contains(&format!(" {node}/ticker#")), "{node}: {logs}");
        }
    }
    let start = || agent(&realm, &right, "right", &["--no-mdns"]);
    let _right = followed_lines_go_on_through_a_relay(&realm, &public, &hub, behind, start);
    let circuit = addresses(&realm, "left", "/p2p-circuit/");
    a_relay_serves_whoever_proved_the_owner_s_key(&realm, &public, &hub, &circuit);
}

/// While the agent behind the relay is killed and started again; gives the new one.
fn followed_lines_go_on_through_a_relay(
    realm: &Cluster,
    place: &str,
    hub: &str,
    right: KilledAtTheEnd,
    start: impl FnOnce() -> KilledAtTheEnd,
) -> KilledAtTheEnd {
    let (lines, words) = (realm.path().join("lines"), realm.path().join("words"));
    let follow = ["logs", "ticker", "-f", "--node", "right", "--via", hub];
    let mut command = command(realm, place, &follow);
    let command = command
        .stdout(File::create(&lines).unwrap())
        .stderr(File::create(&words).unwrap());
    let _following = KilledAtTheEnd(command.spawn().unwrap());
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let told = || read(&lines).matches(" right/ticker#").count();
    realm_testkit::wait_for("lines of right", || (told() > 0).then_some(()));
    drop(right);
    realm_testkit::wait_for("a word that right is gone", || {
        read(&words).contains("no more lines from").then_some(())
    });
    let before = told();
    let right = start();
    realm_testkit::wait_for("more lines of right", || {
        (told() > before && read(&words).contains(" is back: ")).then_some(())
    });
    right
}

fn a_relay_serves_whoever_proved_the_owner_s_key(
    realm: &Cluster,
    place: &str,
    hub: &str,
    circuit: &str,
) {
    let (owner, stranger) = (owner(realm), SecretKey::from_seed(&[78; 32]));
    there(place, async || {
        let guest = Guest::of(hub, circuit).await;
        let refused = guest.goes_through().await;
        assert!(matches!(refused, Err(DialRpcError::Failed { .. })));
        assert!(!guest.proves(&stranger).await);
        let refused = guest.goes_through().await;
        assert!(matches!(refused, Err(DialRpcError::Failed { .. })));
        assert!(guest.proves(&owner).await);
        let mut through = guest.goes_through().await.expect("the owner's command");
        // At the other end it is a stranger until it proves the key there too.
        let hidden = realm_rpc::connect(through.stream.take().unwrap(), Limits::default());
        let owner = Rc::new(owner);
        let graft = hidden.graft(owner.clone(), guest.relay.peer, None).await;
        assert!(graft.is_err(), "a proof is for the node that asked for it");
        let graft = hidden.graft(owner, guest.hidden, None).await;
        assert!(graft.unwrap().operator.is_some());
        // What was given ends with the approval of any node, and so does what was reached by it.
        assert!(
            inside(
                realm,
                place,
                &["nodes", "revoke", "right", "--yes", "--via", hub]
            )
            .is_some()
        );
        tokio::time::timeout(PATIENCE, async {
            let mut again = tokio::time::interval(Duration::from_millis(50));
            while guest.goes_through().await.is_ok() {
                again.tick().await;
            }
        })
        .await
        .expect("the circuit ends");
    });
}
