//! The binary as a person uses it, against real agents.
#![allow(clippy::unwrap_used)]

mod agent_flags;
mod agent_killed;
mod alone;
mod approve;
mod away;
mod bootstrap;
mod clock;
mod colour;
mod completion;
mod damage;
mod debian;
mod demo;
mod disk;
mod doctor;
mod drains;
mod env_values;
mod figures;
mod flood;
mod floor;
mod grafana;
mod history;
mod host_volumes;
mod hostile;
mod hostile_guests;
mod hostile_output;
mod hosts;
mod http;
mod incompatible;
mod interrupted;
mod joining;
mod json;
mod killed;
mod layers;
mod liar;
mod links;
mod listen;
mod logs_flags;
mod manual;
mod nat;
mod node;
mod output;
mod own_program;
mod page;
mod picture;
mod placement;
mod prometheus;
mod push_flags;
mod quic;
mod realm;
mod registry;
mod relayed;
mod seen;
mod seen_otherwise;
mod set_back;
mod settings;
mod slips;
mod ssh_agent;
mod status_json;
mod stdio;
mod together;
mod tour;
mod trust;
mod twin;
mod unreached;
mod wait;
mod wasm_debug;

use std::{
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::Child,
};

use realm_testkit::Cluster;

fn cluster() -> Cluster {
    Cluster::new(env!("CARGO_BIN_EXE_realm"))
}

/// Nodes "one", "two" and "three" of a realm, ready in the eyes of the first.
fn three_nodes() -> Cluster {
    let mut realm = cluster();
    for name in ["one", "two", "three"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    realm
}

/// A port that nothing uses on any of this machine's addresses, over TCP or UDP. It lies below those that
/// the kernel gives to whoever asks for any, so no other test gets it meanwhile.
fn free_port() -> u16 {
    let free = |port: &u16| {
        let udp = UdpSocket::bind(("0.0.0.0", *port)).is_ok();
        udp && TcpListener::bind(("0.0.0.0", *port)).is_ok()
    };
    // Tests run side by side, each in a process of its own.
    let first = 12_000 + u16::try_from(std::process::id() % 8_000).unwrap();
    (first..first + 8_000).find(free).unwrap()
}

/// A process that a failing test does not leave behind.
struct KilledAtTheEnd(Child);

impl Drop for KilledAtTheEnd {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's libfaketime, which shifts the wall clock of one process.
fn faketime() -> Option<String> {
    let found = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ]
    .into_iter()
    .find(|path| std::path::Path::new(path).exists());
    if found.is_none() {
        realm_testkit::skipped("libfaketime is not installed (Debian package faketime)");
    }
    found.map(str::to_owned)
}

/// A program that is committed with the project.
fn guest(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../guests/prebuilt")
        .join(name);
    path.display().to_string()
}
