//! Every grant from both sides: with it something works, without it that is refused, and so it is with a neighbour of it.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    path::Path,
    sync::Arc,
};

use realm_manifest::{Grants, VolumeMode};
use realm_runtime::{CellConfig, LogRing, Mount, Stdio};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    file_acts::{self, Act},
    scene::{Scene, prebuilt, scene, wasm},
    sockets_p3::{self, Try},
};

/// Prints what `wasi:config` offers.
const READER: &str = include_str!("vars.wat");
const ENV_NAME: &str = "REALM_TEST_OF_GRANTS";

/// One grant: a guest that tries, what it prints if it may, and the two ways in which it may not.
struct Case {
    /// The field of `Grants`.
    field: &'static str,
    what: &'static str,
    program: Arc<[u8]>,
    /// What the guest is told to try; no grant for anything.
    tries: Vec<String>,
    /// In the output if, and only if, it may.
    sign: String,
    with: Given,
    neighbours: Vec<Given>,
}

#[derive(Debug, Default, Clone)]
struct Given {
    args: Vec<String>,
    env: Vec<(String, String)>,
    vars: Vec<(String, String)>,
    outbound: Vec<String>,
    volumes: Vec<(String, VolumeMode)>,
}

fn pair(key: &str, value: &str) -> Vec<(String, String)> {
    vec![(key.into(), value.into())]
}

fn args(arg: &str) -> Given {
    Given {
        args: vec![arg.into()],
        ..Given::default()
    }
}

fn env(key: &str, value: &str) -> Given {
    Given {
        env: pair(key, value),
        ..Given::default()
    }
}

fn vars(key: &str, value: &str) -> Given {
    Given {
        vars: pair(key, value),
        ..Given::default()
    }
}

fn outbound(rule: String) -> Given {
    Given {
        outbound: vec![rule],
        ..Given::default()
    }
}

fn volume(name: &str, mode: VolumeMode) -> Given {
    Given {
        volumes: vec![(name.into(), mode)],
        ..Given::default()
    }
}

const TCP_P3: &str = "TCP by 0.3";
const UDP_P3: &str = "UDP by 0.3";
/// Programs that read a file, and that make one, in each preview.
const READERS: [&str; 3] = ["reading by 0.1", "reading by 0.2", "reading by 0.3"];
const MAKERS: [&str; 3] = ["making by 0.1", "making by 0.2", "making by 0.3"];

/// What these programs are: some are written here, others are prebuilt.
fn program(name: &str, tcp: u16, udp: u16) -> Arc<[u8]> {
    let here = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let thrice = |once: Try| wasm(&sockets_p3::probe(&[once.clone(), once.clone(), once], "x"));
    let by: [fn(&[Act<'_>]) -> String; 3] = [
        file_acts::preview1,
        file_acts::preview2,
        file_acts::preview3,
    ];
    let which = |names: [&str; 3]| names.iter().position(|known| *known == name);
    match name {
        "vars" => wasm(READER),
        TCP_P3 => thrice(Try::Tcp(here(tcp))),
        UDP_P3 => thrice(Try::Udp(here(udp))),
        _ => match (which(READERS), which(MAKERS)) {
            (Some(preview), _) => wasm(&by[preview](&[Act::Read(0, "file"); 3])),
            (_, Some(preview)) => wasm(&by[preview](&[Act::Create(0, "new"); 3])),
            _ => prebuilt(name),
        },
    }
}

fn cases(tcp: u16, udp: u16) -> Vec<Case> {
    let case = |field, what, guest, tries: &str, sign: &str, with, neighbours| Case {
        field,
        what,
        program: program(guest, tcp, udp),
        tries: if tries.is_empty() {
            Vec::new()
        } else {
            vec![tries.to_owned()]
        },
        sign: sign.to_owned(),
        with,
        neighbours,
    };
    let mut all = vec![
        case(
            "args",
            "an argument",
            "env-dump",
            "",
            "the-argument",
            args("the-argument"),
            vec![args("another-argument"), env("X", "1")],
        ),
        case(
            "env",
            "a variable",
            "env-dump",
            "",
            "env REALM_TEST_OF_GRANTS=yes",
            env(ENV_NAME, "yes"),
            vec![env("REALM_TEST_OF_GRANTS2", "yes"), vars(ENV_NAME, "yes")],
        ),
        case(
            "vars",
            "a var",
            "vars",
            "",
            "greeting=good day",
            vars("greeting", "good day"),
            vec![vars("greeting2", "good day"), env("greeting", "good day")],
        ),
        case(
            "allowed_outbound",
            "TCP to an address",
            "net-probe",
            &format!("tcp:127.0.0.1:{tcp}"),
            "ok sent=true",
            outbound(format!("tcp://127.0.0.1:{tcp}")),
            vec![
                outbound(format!("tcp://127.0.0.1:{udp}")),
                outbound(format!("tcp://127.0.0.2:{tcp}")),
                outbound(format!("udp://127.0.0.1:{tcp}")),
                outbound("tcp://*".into()),
                outbound(format!("tcp://localhost:{tcp}?private")),
                outbound("postgres://127.0.0.1".into()),
            ],
        ),
        case(
            "allowed_outbound",
            "TCP to a network",
            "net-probe",
            &format!("tcp:127.0.0.1:{tcp}"),
            "ok sent=true",
            outbound(format!("tcp://127.0.0.0/31:{tcp}")),
            vec![
                outbound(format!("tcp://127.0.0.2/31:{tcp}")),
                outbound(format!("tcp://127.0.0.0/31:{udp}")),
                outbound(format!("udp://127.0.0.0/31:{tcp}")),
                outbound("tcp://[::1/128]".into()),
            ],
        ),
        case(
            "allowed_outbound",
            "TCP to any port of an address",
            "net-probe",
            &format!("tcp:127.0.0.1:{tcp}"),
            "ok sent=true",
            outbound("tcp://127.0.0.1:*".into()),
            vec![
                outbound("tcp://127.0.0.2:*".into()),
                outbound("udp://127.0.0.1:*".into()),
            ],
        ),
        case(
            "allowed_outbound",
            "TCP by 0.3",
            TCP_P3,
            "",
            "0\n0\n0",
            outbound(format!("tcp://127.0.0.1:{tcp}")),
            vec![
                outbound(format!("tcp://127.0.0.1:{udp}")),
                outbound(format!("tcp://127.0.0.2:{tcp}")),
                outbound(format!("udp://127.0.0.1:{tcp}")),
            ],
        ),
        case(
            "allowed_outbound",
            "UDP by 0.3",
            UDP_P3,
            "",
            "0\n0\n0",
            outbound(format!("udp://127.0.0.1:{udp}")),
            vec![
                outbound(format!("udp://127.0.0.1:{tcp}")),
                outbound(format!("tcp://127.0.0.1:{udp}")),
            ],
        ),
        case(
            "allowed_outbound",
            "UDP without a connection",
            "net-probe",
            &format!("udpto:127.0.0.1:{udp}"),
            "ok sent=1",
            outbound(format!("udp://127.0.0.1:{udp}")),
            vec![
                outbound(format!("udp://127.0.0.1:{tcp}")),
                outbound(format!("tcp://127.0.0.1:{udp}")),
            ],
        ),
        case(
            "allowed_outbound",
            "UDP to an address",
            "net-probe",
            &format!("udp:127.0.0.1:{udp}"),
            "ok sent=1",
            outbound(format!("udp://127.0.0.1:{udp}")),
            vec![
                outbound(format!("udp://127.0.0.1:{tcp}")),
                outbound(format!("udp://127.0.0.2:{udp}")),
                outbound(format!("tcp://127.0.0.1:{udp}")),
                outbound("udp://*".into()),
            ],
        ),
        case(
            "allowed_outbound",
            "TCP by name",
            "net-probe",
            &format!("tcpname:localhost:{tcp}"),
            "127.0.0.1=connected",
            outbound(format!("tcp://localhost:{tcp}?private")),
            vec![
                outbound(format!("tcp://localhost:{tcp}")),
                outbound(format!("tcp://localhost:{udp}?private")),
                outbound(format!("tcp://localhost2:{tcp}?private")),
                outbound(format!("tcp://*.localhost:{tcp}?private")),
                outbound(format!("udp://localhost:{tcp}?private")),
            ],
        ),
        case(
            "allowed_outbound",
            "looking a name up",
            "net-probe",
            "dns:localhost",
            "127.0.0.1",
            outbound("tcp://localhost?private".into()),
            vec![
                outbound("tcp://localhost".into()),
                outbound("tcp://other?private".into()),
            ],
        ),
        case(
            "volumes",
            "reading a file",
            "fs-probe",
            "read:/data/file",
            "ok mine",
            volume("mine", VolumeMode::Ro),
            vec![volume("empty", VolumeMode::Ro), args("read:/mine/file")],
        ),
        case(
            "volumes",
            "writing a file",
            "fs-probe",
            "write:/data/new",
            "/data/new: ok",
            volume("mine", VolumeMode::Rw),
            vec![volume("mine", VolumeMode::Ro)],
        ),
    ];
    // Thrice, because one sign of success is in other numbers, too.
    for name in READERS {
        let sign = if name == READERS[0] {
            "00\n00\n00"
        } else {
            "0\n0\n0"
        };
        all.push(case(
            "volumes",
            name,
            name,
            "",
            sign,
            volume("mine", VolumeMode::Ro),
            vec![volume("empty", VolumeMode::Rw)],
        ));
    }
    for name in MAKERS {
        let sign = if name == MAKERS[0] {
            "00\n00\n00"
        } else {
            "0\n0\n0"
        };
        all.push(case(
            "volumes",
            name,
            name,
            "",
            sign,
            volume("mine", VolumeMode::Rw),
            vec![volume("mine", VolumeMode::Ro)],
        ));
    }
    all
}

async fn output(scene: &Scene, root: &Path, case: &Case, given: &Given) -> String {
    let ring = LogRing::new();
    let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
    config.grants = Grants {
        args: [&case.tries[..], &given.args].concat(),
        env: given.env.clone(),
        vars: given.vars.clone(),
        allowed_outbound: given
            .outbound
            .iter()
            .map(|rule| rule.parse().unwrap())
            .collect(),
        ..Grants::default()
    };
    let mount = |(name, mode): &(String, VolumeMode)| Mount {
        host: root.join(name),
        guest: "/data".into(),
        mode: *mode,
    };
    config.mounts = given.volumes.iter().map(mount).collect();
    // How it ends is the guest's affair: some fail where they may not.
    scene.run_config(&case.program, config).await;
    let lines = ring.tail(100).into_iter().map(|line| line.text);
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_grant_works_with_it_and_not_without_it_nor_with_its_neighbour() {
    let scene = scene();
    let dir = tempfile::tempdir().unwrap();
    for name in ["mine", "empty"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("mine/file"), "mine").unwrap();
    // Whoever connects is hung up on: that it stood is enough.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = listener.local_addr().unwrap().port();
    let mut server = JoinSet::new();
    server.spawn(async move { while listener.accept().await.is_ok() {} });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let cases = cases(tcp, socket.local_addr().unwrap().port());

    for case in &cases {
        let Case { what, sign, .. } = case;
        let with = output(&scene, dir.path(), case, &case.with).await;
        assert!(with.contains(sign), "{what}: {with}");
        // What was written would be there for the next one.
        let _ = std::fs::remove_file(dir.path().join("mine/new"));
        let nothing = [Given::default()];
        for given in nothing.iter().chain(&case.neighbours) {
            let without = output(&scene, dir.path(), case, given).await;
            assert!(!without.contains(sign), "{what}, {given:?}: {without}");
        }
        assert!(!case.neighbours.is_empty(), "{what}");
    }
    assert!(!dir.path().join("mine/new").exists());

    // A grant that is not tried here does not compile, and one that is has a case.
    let Grants {
        args: _,
        env: _,
        vars: _,
        allowed_outbound: _,
        volumes: _,
    } = Grants::default();
    let json = serde_json::to_value(Grants::default()).unwrap();
    let all: BTreeSet<_> = json.as_object().unwrap().keys().cloned().collect();
    let tried: BTreeSet<_> = cases.iter().map(|case| case.field.to_owned()).collect();
    assert_eq!(tried, all);
}
