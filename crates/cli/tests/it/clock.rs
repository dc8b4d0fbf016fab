//! One node of three whose clock jumps: ten years back, 400 days ahead, and right again.

use std::fs;

use serde_json::Value;

use crate::{faketime, guest, three_nodes};

/// What the status says of wrong clocks.
fn alarm(status: &Value) -> Option<String> {
    let alarms = status["alarms"].as_array()?;
    let found = alarms.iter().find(|alarm| alarm["code"] == "clock")?;
    found["message"].as_str().map(str::to_owned)
}

fn all_ready(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "ready")
}

#[test]
fn a_clock_that_jumps_on_one_node_of_three_is_named_and_harms_nobody() {
    let Some(library) = faketime() else { return };
    let mut realm = three_nodes();
    let one = realm.address("one");
    realm.ok(&[
        "push",
        "ticker",
        &guest("ticker.wasm"),
        "--wait",
        "--via",
        &one,
    ]);

    // The offset is read at every look at the clock; the monotonic one stays what it is.
    let offset = realm.path().join("offset");
    fs::write(&offset, "+0\n").unwrap();
    assert_eq!(realm.stop("two"), 0);
    let file = offset.display().to_string();
    realm.set_env(
        "two",
        &[
            ("LD_PRELOAD", &library),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ],
    );
    realm.start("two");
    realm.wait_ready("one");
    let mut told = realm.log("one").len();
    let mut revision = 1;
    for (jump, words) in [
        ("-3650d", Some("behind that of one")),
        ("+400d", Some("ahead of that of one")),
        ("+0", None),
    ] {
        // While it runs: nobody is lost, and each takes what is signed.
        fs::write(&offset, format!("{jump}\n")).unwrap();
        realm.wait_status("one", &format!("{jump}: the alarm"), |status| {
            match (alarm(status), words) {
                (Some(message), Some(words)) => {
                    message.starts_with("the clock of two is ") && message.ends_with(words)
                }
                (found, words) => found.is_none() && words.is_none(),
            }
        });
        let doctor = realm.run(&["doctor", "--via", &one]);
        let named = doctor.stdout.contains("timedatectl");
        assert_eq!(named, words.is_some(), "{jump}: {}", doctor.stdout);
        for verb in ["stop", "start"] {
            realm.ok(&[verb, "ticker", "--wait", "--via", &one]);
            revision += 1;
        }
        let lost = realm.log("one")[told..].contains("kind=\"lost\"");
        assert!(!lost, "{jump}: {}", realm.log("one"));
        // And it is heard again after a start by that clock, also when an earlier one was ahead.
        assert_eq!(realm.stop("two"), 0, "{jump}");
        realm.start("two");
        realm.wait_status(
            "one",
            &format!("{jump}: two is back and as far"),
            |status| {
                let ticker = &status["components"][0];
                all_ready(status) && status["revision"] == revision && ticker["running"] == 3
            },
        );
        told = realm.log("one").len();
    }
    // Nothing of the cells on the others was touched by it.
    let status = realm.status("one").unwrap();
    let cells = status["components"][0]["cells"].as_array().unwrap();
    for cell in cells.iter().filter(|cell| cell["node"] != "two") {
        assert_eq!(cell["restarts"], 0, "{status}");
    }
}
