//! Which lines `realm logs` gives.

use realm_testkit::{Cluster, wait_for};
use serde_json::Value;

use crate::{cluster, guest};

/// Lines as JSON, in the order in which they came.
fn logs(realm: &Cluster, args: &[&str]) -> Vec<Value> {
    let via = realm.address("one");
    let text = realm.ok(&[&["logs", "-o", "json", "--via", &via][..], args].concat());
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["text"].as_str().unwrap())
        .collect()
}

#[test]
fn no_letter_of_a_line_is_lost_or_obeyed() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let word = "\u{1b}[31m\u{9b}2J\u{7f}\u{202e}ü";
    let push = ["push", "hello", &guest("hello.wasm"), "--arg", word];
    realm.ok(&[&push[..], &["--wait", "--via", &via]].concat());
    let said = format!("arg {word}");
    assert!(texts(&logs(&realm, &["hello"])).contains(&said.as_str()));
    for form in ["json", "text"] {
        let raw = realm.ok(&["logs", "hello", "-o", form, "--via", &via]);
        let obeyed = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
        assert!(
            !raw.contains(obeyed) && !raw.contains('\u{fffd}'),
            "{raw:?}"
        );
    }
}

#[test]
fn tail_gives_that_many_and_previous_the_run_before() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let hello = guest("hello.wasm");
    let push = |word: &str| {
        let args = ["--arg", word, "--arg", "b", "--arg", "c", "--arg", "d"];
        let rest = ["--wait", "--via", &via];
        realm.ok(&[&["push", "hello", &hello][..], &args, &rest].concat());
    };
    push("first");
    let all = logs(&realm, &["hello"]);
    assert_eq!(
        texts(&all),
        ["hello", "arg first", "arg b", "arg c", "arg d"]
    );
    assert_eq!(
        texts(&logs(&realm, &["hello", "--tail", "2"])),
        ["arg c", "arg d"]
    );
    assert_eq!(texts(&logs(&realm, &["hello", "--tail", "99"])).len(), 5);
    assert_eq!(
        logs(&realm, &["hello", "--previous"]).len(),
        0,
        "there was none before"
    );
    push("second");
    assert_eq!(texts(&logs(&realm, &["hello"]))[1], "arg second");
    assert_eq!(
        texts(&logs(&realm, &["hello", "--previous"]))[1],
        "arg first"
    );

    for line in &all {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            ["component", "index", "node", "stream", "text", "time"]
        );
        assert_eq!(line["component"], "hello");
        assert_eq!(
            (&line["node"], &line["stream"]),
            (&"one".into(), &"out".into())
        );
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
}

#[test]
fn since_leaves_the_older_ones_out() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    realm.ok(&["push", "ticker", &guest("ticker.wasm"), "--via", &via]);
    // One line a second.
    wait_for("some lines", || {
        (logs(&realm, &["ticker"]).len() >= 8).then_some(())
    });
    let oldest = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(4);
    let newer = logs(&realm, &["ticker", "--since", "4s"]);
    let all = logs(&realm, &["ticker", "--since", "1h"]);
    assert!(all.len() >= 8, "{all:?}");
    let is_newer = |line: &Value| {
        line["time"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            >= oldest
    };
    assert!(newer.iter().all(is_newer), "{newer:?}");
    assert!(!is_newer(&all[0]), "{all:?}");
    assert_eq!(all[0]["text"], "ticker tick 1");
    let last = all.iter().map(|line| &line["text"]);
    assert!(
        newer
            .iter()
            .all(|line| last.clone().any(|text| *text == line["text"]))
    );
}

#[test]
fn one_node_gives_its_own_lines() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    realm.ok(&[
        "push",
        "hello",
        &guest("hello.wasm"),
        "--wait",
        "--via",
        &via,
    ]);
    let nodes = |args: &[&str]| -> Vec<String> {
        let lines = logs(&realm, args);
        lines
            .iter()
            .map(|line| line["node"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut both = nodes(&["hello"]);
    both.sort();
    assert_eq!(both, ["one", "two"]);
    assert_eq!(nodes(&["hello", "--node", "two"]), ["two"]);
    assert_eq!(nodes(&["--all", "--peer", "one"]), ["one"]);
    let nobody = realm.run(&["logs", "hello", "--node", "three", "--via", &via]);
    assert_eq!(nobody.code, 5, "{}", nobody.stderr);
}
