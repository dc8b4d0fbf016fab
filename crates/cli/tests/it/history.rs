//! The realm's log as its owner sees it: forks and how they end, and a new owner key.

use std::path::Path;

use realm_testkit::{Cluster, wait_for};
use serde_json::{Value, json};

use crate::{cluster, completion::tab, guest};

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn push(realm: &Cluster, name: &str, on: &str, more: &[&str]) {
    let (file, via) = (guest("ticker.wasm"), realm.address(on));
    realm.ok(&[&["push", name, &file, "--via", &via], more].concat());
}

/// Two nodes with one revision, and the state of a second machine of the owner's, which has seen it too.
pub fn two_sides() -> (Cluster, String) {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    realm.wait_ready("two");
    push(&realm, "before", "one", &["--wait"]);
    let fresh = realm.path().join("other-state");
    copy_dir(&realm.path().join("state"), &fresh);
    let fresh = fresh.display().to_string();
    (realm, fresh)
}

#[test]
fn both_sides_of_a_partition_fork_and_a_merge_ends_it() {
    let (mut realm, fresh) = two_sides();
    let other = ["--state-dir", fresh.as_str()];

    // One side goes on alone, then the other.
    realm.stop("two");
    push(&realm, "left", "one", &[]);
    push(&realm, "shared", "one", &["--env", "NAME=left"]);
    realm.stop("one");
    realm.start("two");
    // Nor has this machine the intents any more: otherwise it would hand them to the other side.
    for state in std::fs::read_dir(realm.path().join("state/realms")).unwrap() {
        std::fs::remove_dir_all(state.unwrap().path().join("kept")).unwrap();
    }
    let refused = realm.run(&["stop", "before", "--via", &realm.address("two")]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("behind revision 3"),
        "{}",
        refused.stderr
    );
    // Somebody with the same key who does not know of the other side.
    push(
        &realm,
        "shared",
        "two",
        &[&other[..], &["--env", "NAME=right"]].concat(),
    );
    push(&realm, "right", "two", &other);
    push(&realm, "right2", "two", &other);

    realm.start("one");
    for name in ["one", "two"] {
        let status = realm.wait_status(name, "the fork shows", |status| status["forked"] == true);
        assert_eq!(status["revision"], 1, "frozen at the last agreed entry");
    }
    let one = realm.address("one");
    for node in ["one", "two"] {
        wait_for("its event", || {
            let told = ["events", "--node", node, "-o", "json", "--via", &one];
            let told = realm.ok(&told);
            let mut events = told
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            events
                .any(|event| event["kind"] == "forked" && event["subject"] == "revision 2")
                .then_some(())
        });
    }
    // The second machine still has intents that one node alone took: a fork takes none of them.
    for state in [&[][..], &other] {
        let refused = realm.run(&[&["stop", "before", "--via", &one], state].concat());
        assert_eq!(refused.code, 1);
        let said = &refused.stderr;
        assert!(said.contains("realm history merge"), "{said}");
        assert!(!said.contains("again"), "{said}");
    }
    the_fork_is_told(&realm, &one);

    let asked = realm.run(&["history", "merge", "--via", &one]);
    assert_eq!(asked.code, 2, "nobody can confirm: {}", asked.stderr);
    assert!(asked.stderr.contains("2 branches"), "{}", asked.stderr);
    let branches = tab(&realm, &["history", "merge", "--keep", ""]);
    assert_eq!(branches.len(), 2, "{branches:?}");
    // The first digits are enough for the shell as they are for the command.
    let start = &branches[0][..7];
    let offered = tab(&realm, &["history", "merge", "--keep", start]);
    assert_eq!(offered, [branches[0].as_str()]);
    let keep = ["history", "merge", "--keep", start, "--via", &one];
    let asked = realm.run(&keep);
    assert_eq!(asked.code, 2, "it is one to keep: {}", asked.stderr);
    let merge = ["history", "merge", "--yes", "--via", &one];
    let merged = realm.ok(&[&merge[..], &["-m", "both sides", "-o", "json"]].concat());
    let merged: Value = serde_json::from_str(&merged).unwrap();
    let said = |key: &str| merged[key].clone();
    assert_eq!(
        [said("subject"), said("revision")],
        [json!("realm"), json!(5)]
    );
    assert_eq!(
        [said("changed"), said("left_out")],
        [json!(true), json!([])]
    );
    let applied_again = merged["applied_again"].as_array().unwrap();
    assert_eq!(applied_again.len(), 1, "{merged}");
    assert!(applied_again[0].is_string(), "{merged}");
    for name in ["one", "two"] {
        let status = realm.wait_status(name, "the fork is over", |status| {
            status["forked"] == false && status["revision"] == 5
        });
        let mut names: Vec<&str> = status["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["name"].as_str().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["before", "left", "right", "right2", "shared"]);
    }
    // The longest branch was kept, so its word on what both changed stands.
    realm.wait_status("one", "the kept side's cell", |_| {
        realm
            .ok(&["logs", "shared", "--via", &one])
            .contains("right")
    });
    let shown = realm.ok(&["history", "show", "5", "-o", "json", "--via", &one]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["kind"], "merge");
    assert_eq!(shown["message"], "both sides");
    assert_eq!(shown["heads"].as_array().unwrap().len(), 2);
    assert_eq!(shown["applied_again"], merged["applied_again"]);

    // The log goes on from the merge, checked from its first entry.
    realm.ok(&["stop", "before", "--via", &realm.address("two")]);
    realm.ok(&["start", "before", "--via", &one]);
    realm.ok(&["history", "verify", "--via", &one]);
    let listed = realm.ok(&["history", "--via", &one]);
    let verbs: Vec<&str> = listed
        .lines()
        .rev()
        .take(2)
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    assert_eq!(verbs, ["start", "stop"], "{listed}");
    let offered = tab(&realm, &["history", "merge", "--keep", ""]);
    assert!(!offered.contains(&branches[0]), "{offered:?}");
    let nothing = realm.run(&["history", "merge", "--via", &one]);
    assert_eq!(nothing.code, 0);
    assert!(nothing.stderr.contains("no fork"), "{}", nothing.stderr);
    let nothing = realm.ok(&["history", "merge", "-o", "json", "--via", &one]);
    let nothing: Value = serde_json::from_str(&nothing).unwrap();
    assert_eq!(nothing["subject"], "realm");
    assert_eq!(
        (&nothing["revision"], &nothing["changed"]),
        (&json!(7), &json!(false))
    );
}

/// What `realm history` says while revision 2 exists twice, with one more intent on one side and two on
/// the other.
fn the_fork_is_told(realm: &Cluster, via: &str) {
    let listed = realm.ok(&["history", "--via", via]);
    for words in [
        "FORKED at revision 2: 2 branches",
        "realm history merge",
        "left",
        "right2",
    ] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let lines = lines(realm, via);
    let keys =
        |line: &Value| -> Vec<String> { line.as_object().unwrap().keys().cloned().collect() };
    assert!(
        lines.iter().all(|line| keys(line) == keys(&lines[0])),
        "one form"
    );
    let (agreed, branches): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line["branch"].is_null());
    assert_eq!(agreed.len(), 1, "{agreed:?}");
    assert_eq!(agreed[0]["target"], "before");
    let mut tips: Vec<&str> = branches
        .iter()
        .map(|line| line["branch"].as_str().unwrap())
        .collect();
    tips.dedup();
    assert_eq!((branches.len(), tips.len()), (5, 2), "{branches:?}");

    let shown = realm.run(&["history", "show", "2", "--via", via]);
    assert_eq!(shown.code, 5, "{}", shown.stderr);
    assert!(
        shown.stderr.starts_with("error[not-found]: "),
        "{}",
        shown.stderr
    );
    let none = realm.run(&["history", "show", "0", "--via", via]);
    assert_eq!(none.code, 5, "{}", none.stderr);
    for words in ["forked at revision 2", "realm history merge"] {
        assert!(shown.stderr.contains(words), "{}", shown.stderr);
    }
    let verified = realm.run(&["history", "verify", "-o", "json", "--via", via]);
    assert_eq!(verified.code, 3);
    let verified: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(
        verified,
        json!({ "revision": 1, "verified": 1, "forks": [2] })
    );
}

fn lines(realm: &Cluster, via: &str) -> Vec<Value> {
    let listed = realm.ok(&["history", "-o", "json", "--via", via]);
    let lines = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn a_merge_passes_over_the_revisions_of_a_longer_branch() {
    let (mut realm, fresh) = two_sides();
    let other = ["--state-dir", fresh.as_str()];
    realm.stop("two");
    push(&realm, "left", "one", &[]);
    realm.stop("one");
    realm.start("two");
    for name in ["right", "right2"] {
        push(&realm, name, "two", &other);
    }
    realm.start("one");
    realm.wait_status("one", "the fork shows", |status| status["forked"] == true);
    let via = realm.address("one");
    let listed = lines(&realm, &via);
    let left = listed.iter().find(|line| line["target"] == "left").unwrap();
    let keep = ["--keep", left["branch"].as_str().unwrap()];
    let merge = [
        "history",
        "merge",
        "--yes",
        "--reapply",
        "none",
        "--via",
        &via,
    ];
    let merged = realm.run(&[&merge[..], &keep].concat());
    assert!(
        merged.stderr.contains("✓ the fork is ended: revision 4"),
        "{}",
        merged.stderr
    );
    assert_eq!(merged.code, 0);

    let revisions: Vec<u64> = lines(&realm, &via)
        .iter()
        .map(|line| line["revision"].as_u64().unwrap())
        .collect();
    assert_eq!(revisions, [1, 2, 4]);
    let shown = realm.run(&["history", "show", "3", "--via", &via]);
    assert_eq!(shown.code, 5, "{}", shown.stderr);
    assert!(
        shown.stderr.starts_with("error[not-found]: "),
        "{}",
        shown.stderr
    );
    assert!(
        shown
            .stderr
            .contains("help: see what it kept: realm history show 4"),
        "{}",
        shown.stderr
    );
    assert!(
        realm
            .ok(&["history", "show", "4", "--via", &via])
            .contains("merge")
    );
    let verified = realm.run(&["history", "verify", "--via", &via]);
    assert!(
        verified.stderr.contains("✓ revision 4: 3 intents"),
        "{}",
        verified.stderr
    );
    let verified = realm.ok(&["history", "verify", "-o", "json", "--via", &via]);
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(
        verified,
        json!({ "revision": 4, "verified": 3, "forks": [] })
    );
}

#[test]
fn a_merge_says_what_it_cannot_apply_again() {
    let (mut realm, fresh) = two_sides();
    let other = ["--state-dir", fresh.as_str()];
    realm.stop("two");
    realm.ok(&["rm", "before", "--via", &realm.address("one")]);
    push(&realm, "left", "one", &[]);
    realm.stop("one");
    realm.start("two");
    let two = realm.address("two");
    realm.ok(&[&["scale", "before=1", "--via", &two][..], &other].concat());
    realm.start("one");
    realm.wait_status("one", "the fork shows", |status| status["forked"] == true);
    let via = realm.address("one");
    let merge = ["history", "merge", "--reapply", "all", "--via", &via];
    let asked = realm.run(&merge).stderr;
    let why = "cannot be applied again: no component before";
    assert!(
        asked.contains(why) && !asked.contains("  applied again"),
        "{asked}"
    );
    let merged = realm.run(&[&merge[..], &["--yes", "-o", "json"]].concat());
    let merged: Value = serde_json::from_str(&merged.stdout).unwrap();
    assert_eq!(
        (&merged["changed"], &merged["applied_again"]),
        (&json!(true), &json!([]))
    );
    let left_out = json!([
        { "revision": 2, "kind": "scale", "target": "before", "why": "no component before" }
    ]);
    assert_eq!(merged["left_out"], left_out);
    let shown = realm.ok(&["history", "show", "4", "-o", "json", "--via", &via]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        shown["applied_again"],
        json!([]),
        "it claims nothing that did not happen"
    );
}

#[test]
fn the_owner_key_is_replaced_and_nodes_follow() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    push(
        &realm,
        "ticker",
        "one",
        &["--wait", "--env", "TOKEN_OF=zebra"],
    );
    let old = realm.ok(&["key", "show"]);
    realm.stop("two");
    let asked = realm.run(&["key", "rotate", "--via", &one]);
    assert_eq!(asked.code, 2, "{}", asked.stderr);
    let rotated = realm.run(&["key", "rotate", "--yes", "-m", "yearly", "--via", &one]);
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    // Whether the one that stopped is known to be lost is a matter of time.
    let durable = "revision 2, durable on 1 of ";
    assert!(rotated.stderr.contains(durable), "{}", rotated.stderr);
    let new = realm.ok(&["key", "show"]);
    assert_ne!(old, new);

    // The new key is obeyed, the old one is not, and a node that was away follows.
    realm.ok(&["restart", "ticker", "--via", &one]);
    let kept = std::fs::read_dir(realm.path().join("config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.extension().is_some_and(|end| end == "key") && !path.ends_with("owner.key")
        })
        .unwrap();
    let refused = realm.run(&[
        "stop",
        "ticker",
        "--via",
        &one,
        "--key",
        kept.to_str().unwrap(),
    ]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    // Also where nothing but the old key is known, as on the owner's second machine.
    for words in [new.trim(), "at revision 2", "realm key import"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    realm.start("two");
    let two = realm.address("two");
    realm.wait_status("one", "two is back", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["state"] == "ready")
    });
    realm.ok(&["stop", "ticker", "--via", &two]);
    realm.ok(&["key", "rotate", "--yes", "--via", &two]);
    realm.ok(&["start", "ticker", "--wait", "--via", &two]);
    realm.ok(&["history", "verify", "--via", &one]);

    let shown = realm.ok(&["history", "show", "1", "--via", &one]);
    assert!(
        shown.contains("TOKEN_OF") && !shown.contains("zebra"),
        "{shown}"
    );
    assert_eq!(realm.run(&["history", "show", "99", "--via", &one]).code, 5);
    let rotations = realm.ok(&["history", "--via", &one]);
    assert_eq!(rotations.matches("owner-rotate").count(), 2, "{rotations}");
}
