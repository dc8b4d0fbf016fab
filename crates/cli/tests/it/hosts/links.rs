//! Ways between nodes that are open in one direction, lose, delay, reorder, double or corrupt.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use realm_testkit::{Faults, Kind, Metrics, Net, Relay, wait_for};

use super::scene::{self, figure};
use crate::{cluster, disk::enlarged, guest};

/// A program with so much more in it.
fn large(dir: &std::path::Path, bytes: u32) -> String {
    let path = dir.join("large.wasm");
    let ticker = fs::read(guest("ticker.wasm")).unwrap();
    fs::write(&path, enlarged(ticker, bytes)).unwrap();
    path.display().to_string()
}

#[test]
fn a_way_that_is_open_in_one_direction_stops_nobody() {
    let Some(mut scene) = scene::ready(4) else {
        return;
    };
    let ticker = guest("ticker.wasm");
    scene.ok(0, &["push", "ticker", &ticker, "--replicas", "4"]);
    scene.wait_running("ticker", 4, 0..4);
    let hosts = scene.net.hosts().to_vec();
    let linked = |page: &Metrics| {
        let kinds = ["quic", "tcp", "relay"].iter();
        let links = kinds.filter_map(|kind| page.value("realm_links", &format!("\"{kind}\"")));
        links.sum::<f64>() as usize
    };
    scene.wait("everybody is linked with everybody", |page| {
        linked(page) >= 3
    });
    scene.net.one_way(&hosts[..1], &hosts[1..2]);
    scene.wait_of("the two find out", 0..2, |page| linked(page) == 2);
    // Both are asked, on either end of it.
    scene.ok(0, &["scale", "ticker=6"]);
    scene.ok(1, &["scale", "ticker=8"]);
    let took = scene.wait("both intents are everywhere, and nobody is lost", |page| {
        page.revision() == Some(3) && page.nodes("ready") == 4
    });
    figure("two intents over a one-way link", took);
    scene.wait_running("ticker", 8, 0..4);
}

#[test]
fn an_intent_and_an_artifact_get_through_where_a_third_is_lost() {
    let Some(mut scene) = scene::ready(4) else {
        return;
    };
    // Where every third datagram is lost, neither TCP nor QUIC carries more than some 60 KB a second.
    let large = large(scene.realm.path(), 1024 * 1024);
    scene.net.lose(30);
    let began = Instant::now();
    scene.ok(0, &["push", "ticker", &guest("ticker.wasm")]);
    scene.wait("the intent is everywhere", |page| {
        page.revision() == Some(1)
    });
    figure("an intent with 30 % lost", began.elapsed());
    let began = Instant::now();
    scene.ok(0, &["push", "large", &large, "--replicas", "1"]);
    scene.wait_running("large", 1, 0..4);
    figure("1 MiB pushed and started with 30 % lost", began.elapsed());
    scene.net.heal();
    scene.wait("nobody is lost for good", |page| page.nodes("ready") == 4);
}

/// Two nodes that reach each other by a relay alone; a large program gets from one to the other.
fn over(kind: Kind, faults: Faults, bytes: u32, seen: impl Fn(&Relay) -> bool) {
    let Some(mut net) = Net::new(3) else { return };
    let hosts = net.hosts().to_vec();
    net.split(&hosts[..1], &hosts[2..]);
    let [near, between, far] = &hosts[..] else {
        panic!("three hosts")
    };
    let mut realm = cluster();
    let enroll = |realm: &realm_testkit::Cluster, name: &str, more: &[&str]| {
        let token = realm.path().join(format!("{name}.token"));
        let invite = [&["invite", "--quiet", "--name", name], more].concat();
        fs::write(&token, realm.ok(&invite)).unwrap();
        token.display().to_string()
    };
    let token = enroll(&realm, "near", &[]);
    realm.add_agent_on(near, "near", &["--enroll-file", &token, "--no-mdns"]);
    realm.start("near");
    realm.wait_ready("near");
    let to = SocketAddr::from((near.v4(), 2020));
    let relay = Relay::new(between, kind, to, faults, 42);
    let address = realm.address("near");
    let (_, key) = address.split_once("/p2p/").unwrap();
    let at = match kind {
        Kind::Tcp => format!("tcp/{}", relay.port),
        Kind::Udp => format!("udp/{}/quic-v1", relay.port),
    };
    let at = format!("/ip4/{}/{at}/p2p/{key}", between.v4());
    let token = enroll(&realm, "far", &["--bootstrap", &at]);
    realm.add_agent_on(far, "far", &["--enroll-file", &token, "--no-mdns"]);
    realm.start("far");
    realm.wait_ready("near");
    let began = Instant::now();
    let large = large(realm.path(), bytes);
    let pushed = realm.run_at("near", &["push", "large", &large]);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    realm.wait_status("far", "both run it", |status| {
        let component = &status["components"][0];
        component["running"] == 2 && component["state"] == "running"
    });
    figure(&format!("{bytes} bytes over {kind:?}"), began.elapsed());
    wait_for("the faults", || seen(&relay).then_some(()));
    let scaled = realm.run_at("far", &["restart", "large"]);
    assert_eq!(scaled.code, 0, "{}", scaled.stderr);
    for name in ["near", "far"] {
        realm.wait_status(name, "they agree", |status| {
            status["revision"] == 2 && status["components"][0]["running"] == 2
        });
    }
}

#[test]
fn datagrams_that_are_late_doubled_and_corrupt_harm_nothing() {
    let faults = Faults {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(20),
        reordered: 50,
        doubled: 50,
        corrupted: 10,
        ..Faults::default()
    };
    over(Kind::Udp, faults, 1024 * 1024, |relay| {
        relay.corrupted() > 0
    });
}

#[test]
fn a_corrupt_stream_is_cut_and_begun_again() {
    let faults = Faults {
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(5),
        corrupted: 4,
        ..Faults::default()
    };
    over(Kind::Tcp, faults, 1024 * 1024, |relay| {
        relay.corrupted() > 0 && relay.connections() > 1
    });
}
