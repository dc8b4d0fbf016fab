//! Many addresses by every kind of socket: without a grant for that very address nothing is reached, and nobody hears of it.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
};

use realm_manifest::Grants;
use realm_runtime::ExitStatus;

use crate::scene::{Scene, prebuilt, scene};

/// Hears whatever arrives at its port on any address of this machine.
struct Ears {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    port: u16,
}

impl Ears {
    fn open() -> Self {
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        let mut ears = Self {
            tcp: vec![tcp],
            udp: vec![udp],
            port,
        };
        // Where there is no IPv6, or where one socket takes both, there is nothing more to hear.
        ears.tcp.extend(TcpListener::bind(("::", port)));
        ears.udp.extend(UdpSocket::bind(("::", port)));
        for tcp in &ears.tcp {
            tcp.set_nonblocking(true).unwrap();
        }
        for udp in &ears.udp {
            udp.set_nonblocking(true).unwrap();
        }
        ears
    }

    /// How many came since the last time. On loopback who was let in is there when he is told so.
    fn heard(&self) -> usize {
        let tcp = self.tcp.iter().map(|tcp| {
            std::iter::from_fn(|| nothing_more(tcp.accept()))
                .collect::<Vec<_>>()
                .len()
        });
        let udp = self.udp.iter().map(|udp| {
            std::iter::from_fn(|| nothing_more(udp.recv_from(&mut [0; 64])))
                .collect::<Vec<_>>()
                .len()
        });
        tcp.chain(udp).sum()
    }
}

fn nothing_more<T>(outcome: std::io::Result<T>) -> Option<T> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        outcome => Some(outcome.unwrap()),
    }
}

/// The address that this machine has towards others, if it has one.
fn own() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Nothing is sent: the system only chooses a route.
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip())
}

fn addresses() -> Vec<IpAddr> {
    let text = [
        "127.0.0.1",
        "127.0.0.2",
        "127.1.2.3",
        "127.255.255.254",
        "0.0.0.0",
        "0.0.0.1",
        "10.0.0.1",
        "10.255.255.254",
        "100.64.0.1",
        "169.254.169.254",
        "169.254.0.1",
        "172.16.0.1",
        "172.31.255.254",
        "192.0.0.1",
        "192.168.0.1",
        "192.168.255.254",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "8.8.8.8",
        "::",
        "::1",
        "::2",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "2001:db8::1",
        "2606:4700:4700::1111",
        "fc00::1",
        "fd00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff02::fb",
        "ff0e::1",
    ];
    let own = own();
    assert!(own.is_none_or(|own| !own.is_loopback()), "{own:?}");
    let fixed = text.iter().map(|text| text.parse().unwrap());
    fixed.chain(own).collect()
}

/// What net-probe says of each target, without the target.
async fn said(scene: &Scene, rules: &[String], targets: &[String]) -> Vec<String> {
    let grants = Grants {
        args: targets.to_vec(),
        allowed_outbound: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..Grants::default()
    };
    let (status, lines) = scene.run_granted(&prebuilt("net-probe"), grants).await;
    assert_eq!(status, ExitStatus::Exited(0), "{lines:?}");
    assert_eq!(lines.len(), targets.len(), "{lines:?}");
    let after = |(target, line): (&String, &String)| {
        let rest = line.strip_prefix(&format!("{target}: "));
        rest.unwrap().to_owned()
    };
    targets.iter().zip(&lines).map(after).collect()
}

/// Said of an address that is not granted; the others are refusals of the socket itself, of addresses that mean nothing.
const REFUSED: [&str; 3] = [
    "error: access-denied",
    "error: invalid-argument",
    "error: not-supported",
];

#[tokio::test]
async fn no_address_is_reached_that_was_not_granted() {
    let scene = scene();
    let ears = Ears::open();
    let port = ears.port;
    let targets: Vec<String> = addresses()
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .flat_map(|at| ["tcp", "udp", "udpto"].map(|verb| format!("{verb}:{at}")))
        .collect();
    let neighbours: [&[&str]; 4] = [
        &[],
        // Any name, which permits no address that this cell did not resolve.
        &["tcp://*", "udp://*"],
        // Another port, and another address.
        &[
            "tcp://0.0.0.0/0:9",
            "udp://0.0.0.0/0:9",
            "tcp://[::/0]:9",
            "udp://[::/0]:9",
        ],
        &["tcp://192.0.2.77", "udp://192.0.2.77"],
    ];
    let mut cases = 0;
    for rules in neighbours {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        let said = said(&scene, &rules, &targets).await;
        for (target, said) in targets.iter().zip(said) {
            assert!(REFUSED.contains(&&*said), "{rules:?}: {target}: {said}");
            cases += 1;
        }
        assert_eq!(ears.heard(), 0, "{rules:?}");
    }
    assert!(cases >= 500, "{cases}");

    // The same targets are heard where they are granted: ears and mouth work.
    let local = |ip: &str| [format!("tcp://{ip}:{port}"), format!("udp://{ip}:{port}")];
    for (rule, ip) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.0/8", "127.1.2.3")] {
        let targets = ["udp", "udpto"].map(|verb| format!("{verb}:{ip}:{port}"));
        let said = said(&scene, &local(rule), &targets).await;
        assert_eq!(said, ["ok sent=1", "ok sent=1"], "{rule}");
        assert_eq!(ears.heard(), 2, "{rule}");
    }
}

#[tokio::test]
async fn a_datagram_goes_to_the_peer_of_its_socket_alone() {
    let scene = scene();
    let (named, other) = (Ears::open(), Ears::open());
    let (here, there) = (named.port, other.port);
    let rules = [format!("udp://127.0.0.1:{here}")];
    let targets = [
        format!("udpvia:127.0.0.1:{here}=127.0.0.1:{there}"),
        format!("udpvia:127.0.0.1:{here}=127.0.0.2:{here}"),
        format!("udpvia:127.0.0.1:{there}=127.0.0.1:{here}"),
        format!("udpto:127.0.0.1:{there}"),
        format!("udpto:127.0.0.2:{here}"),
    ];
    for (target, said) in targets.iter().zip(said(&scene, &rules, &targets).await) {
        assert!(REFUSED.contains(&&*said), "{target}: {said}");
    }
    assert_eq!((named.heard(), other.heard()), (0, 0));
    let own = [format!("udpvia:127.0.0.1:{here}=127.0.0.1:{here}")];
    assert_eq!(said(&scene, &rules, &own).await, ["ok sent=1"]);
    assert_eq!((named.heard(), other.heard()), (1, 0));
}

#[tokio::test]
async fn no_spelling_of_an_address_is_a_name() {
    let scene = scene();
    let ears = Ears::open();
    let port = ears.port;
    // What the system turns into an address without asking anybody.
    let local = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "0177.1",
        "::1",
        "::ffff:127.0.0.1",
        "0:0:0:0:0:0:0:1",
        "fe80::1%lo",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "",
    ];
    let others = [
        "[::1]",
        "127.0.0.1.",
        "127.0.0.1%lo",
        "\u{2460}\u{2461}\u{2466}.\u{24ea}.\u{24ea}.\u{2460}",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "\u{ff11}27.0.0.1",
        "metadata",
        ".",
        "localhost\u{0}.example.org",
    ];
    let targets = |names: &[&str]| -> Vec<String> {
        let each = |name: &&str| [format!("tcpname:{name}:{port}"), format!("dns:{name}")];
        names.iter().flat_map(each).collect()
    };
    let (all, local) = (targets(&[&local[..], &others].concat()), targets(&local));
    for (target, said) in all.iter().zip(said(&scene, &[], &all).await) {
        assert_eq!(said, "error: access-denied", "{target}");
    }
    let any = ["tcp://*".to_owned(), "udp://*".to_owned()];
    for (target, said) in local.iter().zip(said(&scene, &any, &local).await) {
        // Refused, not known, or known and without an answer that may be used.
        let nothing = said.starts_with("error: ") || said == "ok ";
        assert!(nothing, "{target}: {said}");
    }
    assert_eq!(ears.heard(), 0);
    // Where the name is granted with what is private, it has answers.
    let private = [format!("tcp://localhost:{port}?private")];
    let heard = said(&scene, &private, &["dns:localhost".to_owned()]).await;
    assert!(heard[0].contains("127.0.0.1"), "{heard:?}");
}
