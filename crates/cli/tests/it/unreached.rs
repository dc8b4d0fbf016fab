//! A node that is there for others, and that this machine does not reach.

use std::{fs::File, process::Command};

use realm_identity::SecretKey;
use realm_testkit::{Cluster, wait_for};

use crate::{
    KilledAtTheEnd, cluster, guest,
    liar::{Liar, listen_to},
};

/// A realm whose only node runs a program, and then not: who is asked tells that it is there.
fn told_to_be_there() -> (Cluster, Liar) {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let (ticker, one) = (guest("ticker.wasm"), realm.address("one"));
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &one]);
    let key = SecretKey::from_seed(&[66; 32]);
    let mut told = listen_to(&realm, &one, key.public());
    for node in told.survey.nodes.values_mut() {
        node.view.present = true;
        node.view.link = None;
        node.view.address = Some(one.clone());
    }
    realm.kill("one");
    let liar = Liar::at("/ip4/127.0.0.1/tcp/0", told, key);
    (realm, liar)
}

#[test]
fn it_is_named_with_what_helps_and_nothing_is_claimed_of_it() {
    let (realm, liar) = told_to_be_there();
    let one = realm.address("one");
    for (what, args) in [
        ("lines", &["logs", "ticker", "--node", "one"][..]),
        ("events", &["events", "--node", "one"]),
    ] {
        let asked = realm.run(&[args, &["--via", &liar.address]].concat());
        assert_eq!(asked.code, 6, "{}", asked.stderr);
        let said: Vec<&str> = asked.stderr.lines().collect();
        let [line] = said.as_slice() else {
            panic!("one line: {}", asked.stderr);
        };
        let from = format!("no {what} from one: no agent answers at ");
        assert!(line.starts_with(&from), "{line}");
        let help = format!("ask on one that does, such as its own, with --via {one}");
        assert!(line.ends_with(&help), "{line}");
    }
}

#[test]
fn who_follows_it_gets_its_lines_as_soon_as_it_is_reached() {
    let (mut realm, liar) = told_to_be_there();
    let (lines, said) = (realm.path().join("lines"), realm.path().join("said"));
    let mut logs: Command = realm.command();
    logs.args(["logs", "ticker", "-f", "--via", &liar.address])
        .stdout(File::create(&lines).unwrap())
        .stderr(File::create(&said).unwrap());
    let _logs = KilledAtTheEnd(logs.spawn().unwrap());
    let said = || std::fs::read_to_string(&said).unwrap();
    let dialled = "it is dialled again and again meanwhile";
    wait_for("that it is dialled again", || {
        said().contains(dialled).then_some(())
    });
    realm.start("one");
    wait_for("its lines", || {
        let lines = std::fs::read_to_string(&lines).unwrap();
        lines.contains("one/ticker#0").then_some(())
    });
    assert_eq!(said().matches(dialled).count(), 1, "{}", said());
    assert!(said().contains("one is reached\n"), "{}", said());
}

#[test]
fn what_libraries_warn_of_is_for_those_who_ask() {
    let realm = cluster();
    // The kernel forbids to send there, which the library below warns of.
    let broadcast = "/ip4/255.255.255.255/udp/9/quic-v1";
    let ask = ["status", "--via", broadcast];
    let plain = realm.run(&ask);
    assert_eq!(plain.code, 7, "{}", plain.stderr);
    assert!(!plain.stderr.contains("quinn"), "{}", plain.stderr);
    let told = realm.run(&[&ask[..], &["-v"]].concat());
    assert!(told.stderr.contains("quinn_udp"), "{}", told.stderr);
}
