//! `allowed_outbound` from both sides: what the guest is told, and whether anybody heard it.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::{Arc, Mutex},
};

use realm_manifest::Grants;
use realm_runtime::{CellConfig, ExitStatus, Limit, LogRing, Stdio};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    scene::{Scene, end, prebuilt, scene, until, wasm},
    sockets_p3::{ANY, DENIED, DONE, NO_ROOM, Try, probe},
    text::{MEMORY, Text, component},
};

/// Answers every connection, and takes note of who came.
struct Echo {
    at: SocketAddrV4,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    own: Mutex<Vec<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Echo {
    async fn on(ip: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let SocketAddr::V4(at) = listener.local_addr().unwrap() else {
            panic!("an IPv4 listener")
        };
        let seen: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, peer)) = listener.accept().await {
                noted.lock().unwrap().push(peer);
                open.spawn(async move {
                    let mut bytes = [0; 64];
                    while let Ok(length) = stream.read(&mut bytes).await {
                        if length == 0 || stream.write_all(&bytes[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            at,
            seen,
            own: Mutex::default(),
            task,
        }
    }

    /// How many came. Connections are accepted in order, so one of our own shows that none is on its way.
    async fn heard(&self) -> usize {
        let marker = TcpStream::connect(self.at).await.unwrap();
        let address = marker.local_addr().unwrap();
        self.own.lock().unwrap().push(address);
        until(|| self.seen.lock().unwrap().contains(&address)).await;
        self.seen.lock().unwrap().len() - self.own.lock().unwrap().len()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn grants(rules: &[String], args: &[String]) -> Grants {
    Grants {
        args: args.to_vec(),
        allowed_outbound: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..Grants::default()
    }
}

/// What net-probe says of each target, without the target.
async fn p2(scene: &Scene, rules: &[String], targets: &[String]) -> Vec<String> {
    let (status, lines) = scene
        .run_granted(&prebuilt("net-probe"), grants(rules, targets))
        .await;
    assert_eq!(status, ExitStatus::Exited(0), "{lines:?}");
    let said = |(target, line): (&String, &String)| {
        line.strip_prefix(&format!("{target}: "))
            .unwrap()
            .to_owned()
    };
    assert_eq!(lines.len(), targets.len(), "{lines:?}");
    targets.iter().zip(&lines).map(said).collect()
}

async fn p3(scene: &Scene, rules: &[String], name: &str, tries: &[Try]) -> Vec<String> {
    let (status, lines) = scene
        .run_granted(&wasm(&probe(tries, name)), grants(rules, &[]))
        .await;
    assert_eq!(status, ExitStatus::Exited(0), "{lines:?}");
    lines
}

const REFUSED: &str = "error: access-denied";
const TALKED: &str = "ok sent=true heard=10";

#[tokio::test]
async fn tcp_reaches_what_is_named_and_nothing_else() {
    let scene = scene();
    let (named, other) = (
        Echo::on(Ipv4Addr::LOCALHOST).await,
        Echo::on(Ipv4Addr::LOCALHOST).await,
    );
    let far = Echo::on(Ipv4Addr::new(127, 9, 0, 1)).await;
    let targets = [named.at, other.at, far.at].map(|at| format!("tcp:{at}"));
    for (rules, reached) in [
        (vec![], [false, false, false]),
        (vec![format!("tcp://{}", named.at)], [true, false, false]),
        (
            vec![format!("tcp://127.9.0.0/16:{}", far.at.port())],
            [false, false, true],
        ),
        (vec!["tcp://127.0.0.0/8".to_owned()], [true, true, true]),
        (vec!["tcp://127.0.0.1".to_owned()], [true, true, false]),
        // Names never mean addresses, and another scheme is another grant.
        (
            vec!["tcp://*".to_owned(), format!("udp://{}", named.at)],
            [false, false, false],
        ),
    ] {
        let echoes = [&named, &other, &far];
        let before = [named.heard().await, other.heard().await, far.heard().await];
        let said = p2(&scene, &rules, &targets).await;
        let wanted = reached.map(|reached| if reached { TALKED } else { REFUSED });
        assert_eq!(said, wanted, "{rules:?}");
        let tries = echoes.map(|echo| Try::Tcp(echo.at));
        let said = p3(&scene, &rules, "x", &tries).await;
        let wanted = reached.map(|reached| if reached { DONE } else { DENIED });
        assert_eq!(said, wanted, "{rules:?}");
        let each = reached.map(|reached| if reached { 2 } else { 0 });
        let after = [named.heard().await, other.heard().await, far.heard().await];
        let heard = [0, 1, 2].map(|index| after[index] - before[index]);
        assert_eq!(heard, each, "{rules:?}");
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_in_0_3() {
    let scene = scene();
    let echo = Echo::on(Ipv4Addr::LOCALHOST).await;
    let rules = [format!("tcp://{}", echo.at)];
    let tries = [Try::Talk(echo.at), Try::Talk(echo.at)];
    assert_eq!(
        p3(&scene, &rules, "good day", &tries).await,
        ["8", DONE, "8", DONE]
    );
    assert_eq!(echo.heard().await, 2);
}

#[tokio::test]
async fn datagrams_reach_what_is_named_and_nothing_else() {
    let scene = scene();
    let listen = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let SocketAddr::V4(at) = socket.local_addr().unwrap() else {
            panic!("an IPv4 socket")
        };
        (socket, at)
    };
    let ((named, named_at), (other, other_at)) = (listen(), listen());
    let rules = [format!("udp://{named_at}"), format!("tcp://{other_at}")];
    let targets = [named_at, other_at].map(|at| format!("udp:{at}"));
    assert_eq!(p2(&scene, &rules, &targets).await, ["ok sent=1", REFUSED]);
    let tries = [Try::Udp(named_at), Try::Udp(other_at)];
    assert_eq!(p3(&scene, &rules, "datagram", &tries).await, [DONE, DENIED]);
    assert_eq!(p3(&scene, &[], "datagram", &tries).await, [DENIED, DENIED]);
    // On loopback a datagram is there when it is sent.
    let mut bytes = [0; 64];
    for wanted in ["net-probe\n", "datagram"] {
        let (length, _) = named.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], wanted.as_bytes());
    }
    assert!(named.recv_from(&mut bytes).is_err() && other.recv_from(&mut bytes).is_err());
}

#[tokio::test]
async fn a_name_reaches_private_addresses_only_when_it_says_so() {
    let scene = scene();
    let echo = Echo::on(Ipv4Addr::LOCALHOST).await;
    let port = echo.at.port();
    let by_name = format!("tcpname:localhost:{port}");
    let public = [format!("tcp://localhost:{port}")];
    // The name is resolved, and its private answers are left out.
    assert_eq!(
        p2(&scene, &public, &["dns:localhost".into(), by_name.clone()]).await,
        ["ok ", "ok "]
    );
    assert_eq!(
        p3(&scene, &public, "localhost", &[Try::Name(port)]).await,
        ["100"]
    );
    assert_eq!(echo.heard().await, 0);
    let private = [format!("tcp://localhost:{port}?private")];
    let said = p2(&scene, &private, std::slice::from_ref(&by_name)).await;
    assert!(said[0].contains("127.0.0.1=connected"), "{said:?}");
    assert_eq!(
        p3(&scene, &private, "localhost", &[Try::Name(port)]).await,
        [DONE]
    );
    assert_eq!(echo.heard().await, 2);
    // Another name is not even asked for; numbers in disguise are addresses.
    let targets = [
        "dns:localhost.localdomain",
        "dns:127.0.0.1",
        "dns:example.org",
    ]
    .map(str::to_owned);
    assert_eq!(p2(&scene, &private, &targets).await, [REFUSED; 3]);
    let disguised = [
        format!("tcpname:2130706433:{port}"),
        format!("tcpname:0x7f.1:{port}"),
    ];
    assert_eq!(
        p2(&scene, &["tcp://*".into()], &disguised).await,
        ["ok ", "ok "]
    );
    assert_eq!(
        p3(&scene, &private, "example.org", &[Try::Name(port)]).await,
        [DENIED]
    );
    let long = "a".repeat(300);
    assert_eq!(
        p3(&scene, &["tcp://*".into()], &long, &[Try::Name(port)]).await,
        [DENIED]
    );
    assert_eq!(echo.heard().await, 2);
}

#[tokio::test]
async fn an_address_counts_only_for_the_cell_that_resolved_it() {
    let scene = scene();
    let echo = Echo::on(Ipv4Addr::LOCALHOST).await;
    let (at, port) = (echo.at, echo.at.port());
    let rules = [format!("tcp://localhost:{port}?private")];
    let targets = [
        format!("tcp:{at}"),
        "dns:localhost".into(),
        format!("tcp:{at}"),
    ];
    let said = p2(&scene, &rules, &targets).await;
    assert_eq!(
        (said[0].as_str(), said[2].as_str()),
        (REFUSED, TALKED),
        "{said:?}"
    );
    let tries = [Try::Tcp(at), Try::Name(port), Try::Tcp(at)];
    assert_eq!(
        p3(&scene, &rules, "localhost", &tries).await,
        [DENIED, DONE, DONE]
    );
    assert_eq!(echo.heard().await, 3);
    // The next cell of the same program knows nothing of it.
    assert_eq!(p2(&scene, &rules, &targets[..1]).await, [REFUSED]);
    assert_eq!(p3(&scene, &rules, "localhost", &tries[..1]).await, [DENIED]);
    assert_eq!(echo.heard().await, 3);
}

#[tokio::test]
async fn nothing_listens() {
    let scene = scene();
    let rules = ["tcp://0.0.0.0/0".to_owned(), "udp://0.0.0.0/0".to_owned()];
    let targets = ["bind:0.0.0.0:0", "bind:127.0.0.1:0", "bind:0.0.0.0:41234"].map(str::to_owned);
    assert_eq!(p2(&scene, &rules, &targets).await, [REFUSED; 3]);
    let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let tries = [Try::Listen, Try::Bind(local), Try::Bind(ANY)];
    assert_eq!(
        p3(&scene, &rules, "x", &tries).await,
        [DENIED, DENIED, DONE]
    );
}

/// Runs to the end and says which limits were met, and how often at least once.
async fn limited(scene: &Scene, wasm: &Arc<[u8]>, grants: Grants) -> (Vec<String>, Vec<Limit>) {
    let flavour = realm_runtime::Flavour::Epoch;
    let prepared = scene.runtime.prepare(wasm.clone(), flavour).await.unwrap();
    let ring = LogRing::new();
    let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
    config.grants = grants;
    let cell = scene.runtime.start(&prepared, config).unwrap();
    let status = end(&cell).await;
    let lines: Vec<_> = ring.tail(1000).into_iter().map(|line| line.text).collect();
    assert_eq!(status, ExitStatus::Exited(0), "{lines:?}");
    let met = cell.stats().limit_hits.into_iter().map(|(limit, _)| limit);
    (lines, met.collect())
}

#[tokio::test]
async fn a_cell_has_32_sockets_in_either_preview() {
    let scene = scene();
    let echo = Echo::on(Ipv4Addr::LOCALHOST).await;
    let rules = [format!("tcp://{}", echo.at)];
    let hoard = grants(&rules, &["sockets".into()]);
    let (lines, met) = limited(&scene, &prebuilt("many-handles"), hoard).await;
    assert_eq!(lines.last().unwrap(), "refused after 32: new-socket-limit");
    assert_eq!(met, [Limit::Sockets]);
    // A stream of 0.3 keeps its socket open after the handle is gone: it counts.
    let text = wasm(&probe(&[Try::Hoard(echo.at), Try::Tcp(echo.at)], "x"));
    let (lines, met) = limited(&scene, &text, grants(&rules, &[])).await;
    assert_eq!(lines, ["32", NO_ROOM]);
    assert_eq!(met, [Limit::Sockets]);
    // What is let go makes room.
    let text = wasm(&probe(&[Try::Churn(echo.at, 100), Try::Tcp(echo.at)], "x"));
    let (lines, met) = limited(&scene, &text, grants(&rules, &[])).await;
    assert_eq!(lines, ["100", DONE]);
    assert_eq!(met, []);
}

#[tokio::test]
async fn calls_that_wait_for_the_network_are_bounded() {
    let scene = scene();
    let text = wasm(&probe(&[Try::Receive], "x"));
    let rules = ["udp://127.0.0.1".to_owned()];
    let (lines, met) = limited(&scene, &text, grants(&rules, &[])).await;
    assert_eq!(lines, [NO_ROOM, "64"]);
    assert_eq!(met, [Limit::Outbound]);
}

/// Looks a name up again and again by `wasi:sockets` 0.2, keeps the lookups, and prints how many there were.
fn lookups() -> String {
    const IMPORTS: &str = r#"
    (import "wasi:sockets/network@0.2.0" (instance $network
        (export "network" (type (sub resource)))
        (type $e (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
            "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
            "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
            "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
            "permanent-resolver-failure"))
        (export "error-code" (type (eq $e)))))
    (alias export $network "network" (type $net))
    (alias export $network "error-code" (type $code))
    (import "wasi:sockets/instance-network@0.2.0" (instance $instance
        (alias outer 1 $net (type $outer)) (export "network" (type $net (eq $outer)))
        (export "instance-network" (func (result (own $net))))))
    (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $names
        (alias outer 1 $net (type $outer)) (export "network" (type $net (eq $outer)))
        (alias outer 1 $code (type $outer-code)) (export "error-code" (type $error (eq $outer-code)))
        (export "resolve-address-stream" (type $stream (sub resource)))
        (export "resolve-addresses" (func (param "network" (borrow $net)) (param "name" string)
            (result (result (own $stream) (error $error)))))))
    (alias export $names "resolve-address-stream" (type $lookup))"#;
    let resolve = format!(r#"(canon lower (func $names "resolve-addresses") {MEMORY})"#);
    component(&Text {
        imports: IMPORTS,
        calls: &[
            (
                "network",
                r#"(canon lower (func $instance "instance-network"))"#,
                "(result i32)",
            ),
            ("resolve", &resolve, "(param i32 i32 i32 i32)"),
            ("drop", "(canon resource.drop $lookup)", "(param i32)"),
        ],
        data: "localhost",
        functions: r#"(func $hold (param $network i32) (result i32) (local $held i32)
            (block (loop
                (call $resolve (local.get $network) (i32.const 1024) (i32.const 9) (i32.const 2048))
                (br_if 1 (i32.load8_u (i32.const 2048)))
                (local.set $held (i32.add (local.get $held) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $held) (i32.const 1000)))))
            (local.get $held))"#,
        body: r#"(local $network i32) (local $last i32)
            (local.set $network (call $network))
            (call $resolve (local.get $network) (i32.const 1024) (i32.const 9) (i32.const 2048))
            (local.set $last (i32.load (i32.const 2052)))
            (call $say (call $hold (local.get $network)))
            (call $say (i32.load8_u (i32.const 2052)))
            (call $drop (local.get $last))
            (call $say (call $hold (local.get $network)))
            (call $exit (i32.const 0))"#,
    })
}

#[tokio::test]
async fn lookups_that_are_held_are_bounded() {
    const TEMPORARY_FAILURE: &str = "19";
    let scene = scene();
    let granted = grants(&["tcp://localhost".to_owned()], &[]);
    let (lines, met) = limited(&scene, &wasm(&lookups()), granted).await;
    // One is held before; it is let go, and its place is there again.
    assert_eq!(lines, ["63", TEMPORARY_FAILURE, "1"]);
    assert_eq!(met, [Limit::Outbound]);
}
