//! A node that knows that time has passed, whatever its clock says.

use crate::{cluster, faketime};

/// The wall clock of a process, shifted.
pub fn shifted<'a>(library: &'a str, offset: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("LD_PRELOAD", library),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
}

#[test]
fn a_node_whose_clock_was_reset_takes_no_expired_invite() {
    let Some(library) = faketime() else { return };
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    // What the owner signed now tells the node the time, and it remembers it.
    realm.ok(&["nodes", "tag", "one", "edge", "--via", &one]);
    assert_eq!(realm.stop("one"), 0);
    assert!(realm.data("one").join("floor").exists());

    // Made two hours ago for one hour: good by a clock that is an hour and a half behind.
    let invite = ["invite", "--quiet", "--name", "late", "--bootstrap", &one];
    let invite = realm.run_with(&invite, &shifted(&library, "-120m"));
    assert_eq!(invite.code, 0, "{}", invite.stderr);
    let token = realm.path().join("late.token").display().to_string();
    std::fs::write(&token, &invite.stdout).unwrap();
    let behind = shifted(&library, "-90m");
    realm.set_env("one", &behind);
    realm.start("one");
    let data = realm.data("late").display().to_string();
    let enrolled = realm.run_with(&["enroll", invite.stdout.trim(), "--data", &data], &behind);
    assert_eq!(enrolled.code, 0, "it knows no better: {}", enrolled.stderr);
    realm.add_agent("late", &[]);
    realm_testkit::wait_for("one refuses to vouch for it", || {
        realm.log("one").contains("expired").then_some(())
    });
    let status = realm.wait_status("one", "it waits for the owner", |status| {
        status["nodes"].as_array().unwrap().len() == 2
    });
    let late = &status["nodes"].as_array().unwrap()[0];
    assert_eq!(late["state"], "pending", "{status}");

    // The node itself, had it known the time, would not have taken the invite.
    let one_again = realm.data("one").display().to_string();
    assert_eq!(realm.stop("one"), 0);
    let again = realm.run_with(
        &["enroll", invite.stdout.trim(), "--data", &one_again],
        &behind,
    );
    assert_eq!(again.code, 4, "{}", again.stderr);
    assert!(again.stderr.contains("expired"), "{}", again.stderr);
}

#[test]
fn a_clock_that_differs_is_an_alarm_until_it_is_set() {
    let Some(library) = faketime() else { return };
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("two");
    let alarm = |status: &serde_json::Value| {
        let alarms = status["alarms"].as_array().unwrap();
        let found = alarms.iter().find(|alarm| alarm["code"] == "clock");
        found.map(|alarm| alarm["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(alarm(&realm.status("one").unwrap()), None);

    realm.stop("two");
    realm.set_env("two", &shifted(&library, "+2h"));
    realm.start("two");
    let status = realm.wait_status("one", "the alarm", |status| alarm(status).is_some());
    let message = alarm(&status).unwrap();
    assert!(message.starts_with("the clock of two is "), "{message}");
    assert!(message.ends_with(" ahead of that of one"), "{message}");
    realm_testkit::wait_for("one records it", || {
        realm.log("one").contains(&message).then_some(())
    });

    realm.stop("two");
    realm.set_env("two", &[]);
    realm.start("two");
    realm.wait_status("one", "the end of the alarm", |status| {
        let mut nodes = status["nodes"].as_array().unwrap().iter();
        nodes.all(|node| node["state"] == "ready") && alarm(status).is_none()
    });
}
