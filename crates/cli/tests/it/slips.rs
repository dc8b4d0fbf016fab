//! Slips of the hand, and what a person is told of them.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use realm_testkit::Cluster;
use serde_json::Value;

use crate::{KilledAtTheEnd, cluster, guest, picture::node};

fn two_nodes() -> (Cluster, String) {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    (realm, via)
}

/// What a command that fails says, with its exit code before.
fn refused(realm: &Cluster, args: &[&str]) -> String {
    let printed = realm.run(args);
    assert_ne!(printed.code, 0, "{args:?}: {}", printed.stdout);
    format!("{} {}", printed.code, printed.stderr)
}

#[test]
fn a_slip_is_refused_with_what_helps() {
    let realm = cluster();
    for (args, words) in [
        (&["invite", "--ttl", "1ns"][..], "between a second and 30"),
        (
            &["invite", "--bootstrap", "/ip4/0.0.0.0/tcp/2020"],
            "of one machine",
        ),
        (
            &["invite", "--bootstrap", "/ip4/192.0.2.7/tcp/0"],
            "nobody listens at port 0",
        ),
        (&["scale", "web=99999999999"], "at most 1000 cells"),
        (&["scale", "web=many"], "a number, or each"),
        (&["status", "--realm", ""], "the name of the realm is empty"),
        (&["use", ""], "the name of the realm is empty"),
        (&["logs"], "realm logs --all"),
        (
            &["peer", "add", "junk"],
            "realm peer add /ip4/192.0.2.7/udp/2020/quic-v1",
        ),
    ] {
        let told = refused(&realm, args);
        assert!(told.starts_with("2 "), "{args:?}: {told}");
        assert!(told.contains(words), "{args:?}: {told}");
    }
    let name = refused(&realm, &["invite", "--name", "a.b"]);
    assert!(!name.contains("realm push"), "{name}");

    // A key from a backup, on a machine that knows no realm.
    let other = realm.path().join("other").display().to_string();
    let keyed = realm.run_with(&["status"], &[("REALM_STATE_DIR", &other)]);
    assert_eq!(keyed.code, 5);
    assert!(
        keyed.stderr.contains("realm adopt --via ADDR"),
        "{}",
        keyed.stderr
    );

    let away = "/ip4/127.0.0.1/tcp/1";
    let printed = realm.run(&["status", "-o", "json", "--via", away]);
    assert_eq!(printed.code, 7);
    let error: Value = serde_json::from_str(&printed.stderr).unwrap();
    let help = error["error"]["help"].as_str().unwrap();
    assert!(help.contains("realm doctor"), "{help}");
    let named = printed.stderr.matches(away).count();
    assert_eq!(named, 1, "{}", printed.stderr);

    let left = realm.path().join("left").display().to_string();
    let (key, data) = (realm.ok(&["key", "show"]), ["--data", &left]);
    let owner = key.split_whitespace().next().unwrap();
    realm.ok(&[&["configure", "--owner", owner][..], &data].concat());
    let left = realm.run(&[&["leave", "--yes"][..], &data].concat());
    assert!(left.stderr.contains("was revoked"), "{}", left.stderr);
}

#[test]
fn a_node_is_named_by_a_few_letters_of_its_key_and_a_revoked_one_gets_no_work() {
    let (realm, via) = two_nodes();
    let status = realm.status("one").unwrap();
    let key = node(&status, "two")["key"].as_str().unwrap().to_owned();
    let letters = key.trim_start_matches("ed25519:");
    for many in [4, 6, 8, 12] {
        let shown = ["nodes", "show", &letters[..many], "--via", &via];
        assert!(realm.ok(&shown).contains(&key), "{many}");
    }
    let few = refused(&realm, &["nodes", "show", &letters[..3], "--via", &via]);
    assert!(few.starts_with("5 "), "{few}");

    let taken = refused(&realm, &["nodes", "rename", "two", "one", "--via", &via]);
    assert!(taken.contains("choose another; or rename"), "{taken}");
    assert!(!taken.contains("--name"), "{taken}");

    realm.ok(&["nodes", "revoke", "two", "--yes", "--via", &via]);
    let hello = guest("hello.wasm");
    for node in ["two", &key] {
        let told = refused(
            &realm,
            &["push", "hello", &hello, "--node", node, "--via", &via],
        );
        assert!(told.starts_with("2 "), "{told}");
        assert!(told.contains("is revoked"), "{told}");
    }
}

#[test]
fn an_address_is_forgotten_and_the_last_events_come_before_the_new_ones() {
    let (realm, via) = two_nodes();
    let peers = || realm.ok(&["peer", "ls"]);
    let first = peers().lines().next().unwrap().to_owned();
    realm.ok(&["peer", "rm", &first]);
    assert!(!peers().lines().any(|line| line == first), "{}", peers());
    let again = refused(&realm, &["peer", "rm", &first]);
    assert!(again.starts_with("5 "), "{again}");
    assert!(again.contains("realm peer ls"), "{again}");

    let mut follow = realm.command();
    follow
        .args(["events", "-f", "--tail", "1", "--node", "one", "-o", "json"])
        .args(["--via", &via])
        .stdout(Stdio::piped());
    let mut following = KilledAtTheEnd(follow.spawn().unwrap());
    let mut line = String::new();
    let printed = following.0.stdout.take().unwrap();
    BufReader::new(printed).read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    // The agent began, the first of all, comes where all of them are asked for.
    assert!(event["seq"].as_u64().unwrap() > 2, "{line}");
}
