//! `realm doctor`: what it says where all is well, and where something is not.

use realm_testkit::{Printed, wait_for};
use serde_json::Value;

use crate::{cluster, faketime, floor::shifted};

/// What was found by a check: its state and its words.
fn found(printed: &Printed, check: &str) -> (String, String) {
    let answer: Value = serde_json::from_str(&printed.stdout).unwrap();
    let checks = answer["checks"].as_array().unwrap();
    let one = checks.iter().find(|one| one["check"] == check);
    let one = one.unwrap_or_else(|| panic!("no {check}: {}", printed.stdout));
    let text = |key: &str| one[key].as_str().unwrap().to_owned();
    (text("state"), text("found"))
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_realm_that_is_well_and_names_what_is_not() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let ask = ["doctor", "-o", "json", "--via", &via];
    let well = wait_for("both nodes tell their time", || {
        let printed = realm.run(&ask);
        let (_, words) = found(&printed, "clock");
        words.starts_with("2 nodes").then_some(printed)
    });
    assert_eq!(well.code, 0, "{}{}", well.stdout, well.stderr);
    for check in [
        "sandbox", "key", "realm", "node", "clock", "versions", "log",
    ] {
        assert_eq!(found(&well, check).0, "ok", "{}", well.stdout);
    }
    let text = realm.ok(&["doctor", "--via", &via]);
    assert!(text.contains("✓ sandbox"), "{text}");

    if let Some(library) = faketime() {
        let late = realm.run_with(&ask, &shifted(&library, "+4m"));
        let (state, words) = found(&late, "clock");
        assert_eq!((late.code, state.as_str()), (0, "warning"), "{words}");
        assert!(
            words.contains("one is 2") && words.contains("behind"),
            "{words}"
        );
    }

    realm.kill("two");
    realm.wait_status("one", "two is lost", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["state"] == "lost")
    });
    let (state, words) = found(&realm.run(&ask), "nodes");
    assert_eq!(
        (state.as_str(), words.as_str()),
        ("warning", "1 here, 1 away: two")
    );

    assert_eq!(found(&realm.run(&ask), "ports").0, "ok");

    let pid = realm.pid("one");
    realm.kill("one");
    let nobody = realm.run(&ask);
    assert_eq!(nobody.code, 1);
    let (state, words) = found(&nobody, "ports");
    assert_eq!(state, "warning", "{words}");
    assert!(
        words.contains(&pid.to_string()) && words.ends_with("ended without tidying up"),
        "{words}"
    );
    assert_eq!(found(&nobody, "node").0, "problem", "{}", nobody.stdout);
}

#[test]
fn the_doctor_needs_no_realm_and_sees_what_the_machine_lacks() {
    let realm = cluster();
    let empty = realm.path().join("empty").display().to_string();
    let exe = env!("CARGO_BIN_EXE_realm");
    let script = format!("ulimit -n 256 && exec {exe} doctor -o json");
    let output = realm
        .command()
        .env("REALM_STATE_DIR", &empty)
        .env("REALM_CONFIG_DIR", &empty)
        .get_envs()
        .fold(
            std::process::Command::new("sh"),
            |mut shell, (key, value)| {
                match value {
                    Some(value) => shell.env(key, value),
                    None => shell.env_remove(key),
                };
                shell
            },
        )
        .args(["-c", &script])
        .output()
        .unwrap();
    let printed = Printed {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert_eq!(printed.code, 0, "{}{}", printed.stdout, printed.stderr);
    assert_eq!(found(&printed, "files").0, "warning");
    assert_eq!(found(&printed, "key").0, "skipped");
    assert_eq!(found(&printed, "realm").0, "skipped");
    assert_eq!(found(&printed, "sandbox").0, "ok");
}
