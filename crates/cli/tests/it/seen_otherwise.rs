//! A node at the revision that this person has seen, whose entry is another one.

use std::path::PathBuf;

use realm_testkit::Cluster;
use serde_json::{Value, json};

use crate::history::{copy_dir, push, two_sides};

/// The directory of the one realm in a state directory.
fn realm_dir(state: &str) -> PathBuf {
    let mut realms = std::fs::read_dir(PathBuf::from(state).join("realms")).unwrap();
    realms.next().unwrap().unwrap().path()
}

/// Each machine of the owner's signed a revision 2, at another node; the second node alone is here.
fn two_entries_of_one_revision() -> (Cluster, String, String) {
    let (mut realm, other) = two_sides();
    realm.stop("two");
    push(&realm, "left", "one", &[]);
    realm.stop("one");
    realm.start("two");
    push(&realm, "right", "two", &["--state-dir", &other]);
    let mine = realm.path().join("state").display().to_string();
    // What was signed here is not offered to the other side: two nodes had it.
    std::fs::remove_dir_all(realm_dir(&mine).join("kept")).unwrap();
    (realm, mine, other)
}

/// What the doctor says of the log: a state and its words.
fn log_by_the_doctor(realm: &Cluster, via: &str) -> (String, String) {
    let printed = realm.run(&["doctor", "-o", "json", "--via", via]);
    let answer: Value = serde_json::from_str(&printed.stdout).unwrap();
    let mut checks = answer["checks"].as_array().unwrap().iter();
    let log = checks.find(|one| one["check"] == "log").unwrap();
    let text = |key: &str| log[key].as_str().unwrap().to_owned();
    (text("state"), text("found"))
}

#[test]
fn a_log_that_went_on_from_another_entry_than_the_one_seen_is_found_by_verifying_it() {
    let (mut realm, _mine, other) = two_entries_of_one_revision();
    let two = realm.address("two");
    push(&realm, "right2", "two", &["--state-dir", &other]);
    let verify = ["history", "verify", "--via", &two];
    let refused = realm.run(&verify);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    for words in [
        "has another revision 2 than the one that you have seen",
        "sign anew what is still wanted",
    ] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    realm.ok(&[&verify[..], &["--state-dir", &other]].concat());

    // A merge chose between the two: the other one is no contradiction any more.
    realm.start("one");
    realm.wait_status("two", "the fork shows", |status| status["forked"] == true);
    let merge = ["history", "merge", "--yes", "--via", &two];
    realm.ok(&[&merge[..], &["--state-dir", &other]].concat());
    realm.ok(&verify);
}

#[test]
fn another_entry_of_the_revision_that_was_seen_is_told_as_a_fork() {
    let (mut realm, mine, other) = two_entries_of_one_revision();
    let two = realm.address("two");
    // A copy of before there was more than a number.
    let old = realm.path().join("old-state");
    copy_dir(&PathBuf::from(&mine), &old);
    let old = old.display().to_string();
    std::fs::remove_file(realm_dir(&old).join("head")).unwrap();

    let refused = realm.run(&["stop", "before", "--via", &two, "-o", "json"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let told = "has another revision 2 than the one that you have seen";
    for words in [told, "\"forked\"", "realm history merge"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    let refused = realm.run(&["history", "verify", "--via", &two]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    let status = realm.run(&["status", "--via", &two]);
    assert_eq!(status.code, 0, "{}", status.stderr);
    let said = format!("{}{}", status.stdout, status.stderr);
    assert!(said.contains("warning:") && said.contains(told), "{said}");
    let (state, found) = log_by_the_doctor(&realm, &two);
    assert_eq!(state, "problem", "{found}");
    assert!(found.contains(told), "{found}");
    // Who signed there has seen it so, and is told nothing.
    let status = realm.run(&["status", "--via", &two, "--state-dir", &other]);
    let said = format!("{}{}", status.stdout, status.stderr);
    assert!(!said.contains("another revision"), "{said}");

    // With both nodes it is a fork as any other, which each machine sees.
    realm.start("one");
    realm.wait_status("two", "the fork shows", |status| status["forked"] == true);
    for state in [&mine, &other] {
        let refused = realm.run(&["stop", "before", "--via", &two, "--state-dir", state]);
        assert_eq!(refused.code, 1);
        let said = &refused.stderr;
        assert!(said.contains("the log has forked at revision 2"), "{said}");
    }
    let (state, found) = log_by_the_doctor(&realm, &two);
    assert_eq!((&*state, &*found), ("problem", "forked after revision 1"));
    realm.ok(&["history", "merge", "--yes", "--via", &two]);
    for state in [&mine, &other, &old] {
        realm.wait_ready("two");
        realm.ok(&["stop", "before", "--via", &two, "--state-dir", state]);
        realm.ok(&["start", "before", "--via", &two, "--state-dir", state]);
    }
}

#[test]
fn what_was_seen_otherwise_and_is_gone_for_good_can_be_given_up() {
    let (realm, mine, _other) = two_entries_of_one_revision();
    let two = realm.address("two");
    let asked = realm.run(&["history", "accept-loss", "--via", &two]);
    assert_eq!(asked.code, 2, "nobody can confirm: {}", asked.stderr);
    let told = "none has revision 2 as you have seen it";
    let said = format!("{}{}", asked.stdout, asked.stderr);
    assert!(said.contains(told), "{said}");
    let seen = std::fs::read_to_string(realm_dir(&mine).join("head")).unwrap();
    let accept = ["history", "accept-loss", "--yes", "--via", &two];
    let done = realm.ok(&[&accept[..], &["-o", "json"]].concat());
    let done: Value = serde_json::from_str(&done).unwrap();
    let hash = seen.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(
        done["given_up"],
        json!({ "from": 2, "to": 2, "hash": hash })
    );
    assert!(!realm_dir(&mine).join("head").exists());
    realm.ok(&["stop", "before", "--via", &two]);
    let nothing = realm.run(&["history", "accept-loss", "--via", &two]);
    assert_eq!(nothing.code, 0, "{}", nothing.stderr);
}

#[test]
fn a_state_of_an_earlier_version_takes_the_entry_that_a_node_has() {
    let (realm, mine, _other) = two_entries_of_one_revision();
    let two = realm.address("two");
    std::fs::remove_file(realm_dir(&mine).join("head")).unwrap();
    realm.ok(&["stop", "before", "--via", &two]);
    assert!(realm_dir(&mine).join("head").exists());
}
