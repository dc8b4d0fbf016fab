//! `realm doctor`: what it says where all is well, and where something is not.

mod lacks;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use realm_testkit::{Cluster, Printed, wait_for};
use serde_json::Value;

use crate::{cluster, faketime, floor::shifted, guest, history::copy_dir};

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
    let (state, words) = found(&well, "reach");
    assert_eq!(
        (state.as_str(), words.starts_with("no node has tried yet")),
        ("skipped", true)
    );
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
    // What is asked for now is on one of the two, and both are said.
    let file = guest("hello.wasm");
    let push = |name: &str, more: &[&str]| {
        let args = ["push", name, &file, "--no-start", "--via", &via];
        realm.run(&[&args[..], more].concat())
    };
    let said = push("first", &[]).stderr;
    assert!(said.contains("durable on 1 of 2 (1 away)\n"), "{said}");
    let told: Value = serde_json::from_str(&push("second", &["-o", "json"]).stdout).unwrap();
    assert_eq!(
        (
            &told["durable_on"],
            &told["durable_of"],
            &told["durable_away"]
        ),
        (&1.into(), &1.into(), &1.into())
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

/// Every finding of a check, with its help.
fn all(printed: &Printed, check: &str) -> Vec<(String, String, Option<String>)> {
    let answer: Value = serde_json::from_str(&printed.stdout)
        .unwrap_or_else(|_| panic!("{}{}", printed.stdout, printed.stderr));
    let checks = answer["checks"].as_array().unwrap();
    let those = checks.iter().filter(|one| one["check"] == check);
    let text = |one: &Value, key: &str| one[key].as_str().map(str::to_owned);
    those
        .map(|one| {
            let (state, found) = (text(one, "state"), text(one, "found"));
            (state.unwrap(), found.unwrap(), text(one, "help"))
        })
        .collect()
}

/// What is wrong, and has no remedy.
fn without_remedy(printed: &Printed) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&printed.stdout).unwrap();
    let checks = answer["checks"].as_array().unwrap().iter();
    let wrong = |one: &&Value| one["state"] == "problem" || one["state"] == "warning";
    let without = checks.filter(wrong).filter(|one| one["help"].is_null());
    without.cloned().collect()
}

#[test]
fn the_doctor_sees_directories_that_cannot_be_used_and_secrets_that_others_read() {
    let realm = cluster();
    let data = realm.path().join("node");
    fs::create_dir(&data).unwrap();
    let shown = data.display().to_string();
    let ask = ["doctor", "-o", "json", "--data", &shown];
    let well = realm.run(&ask);
    assert_eq!(all(&well, "data")[0].0, "ok", "{}", well.stdout);

    fs::create_dir(data.join("agent.json")).unwrap();
    fs::write(data.join("blobs"), "").unwrap();
    fs::write(data.join("http.token"), "").unwrap();
    fs::write(data.join("node.key"), "").unwrap();
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(data.join("http.token"), open.clone()).unwrap();
    fs::set_permissions(data.join("node.key"), open).unwrap();
    let ill = realm.run(&ask);
    let found = all(&ill, "data");
    for (state, words, remedy) in [
        ("problem", "/agent.json is not a file", "move it away"),
        ("problem", "/blobs is not a directory", "move it away"),
        ("problem", "/node.key: its mode is 0644", "chmod 600 "),
        ("warning", "/http.token, and with it the logs", "rm "),
    ] {
        let is_it = |one: &&(String, String, Option<String>)| one.1.contains(words);
        let one = found.iter().find(is_it);
        let one = one.unwrap_or_else(|| panic!("{words}: {}", ill.stdout));
        assert_eq!(one.0, state, "{words}");
        let help = one.2.as_deref().unwrap();
        assert!(help.contains(remedy), "{help}");
    }
    assert_eq!(without_remedy(&ill), Vec::<Value>::new());

    let blobs = data.join("blobs").display().to_string();
    let below = format!("{blobs}/deeper");
    for at in [&blobs, &below] {
        let ask = ["doctor", "-o", "json", "--data", at, "--state-dir", at];
        let printed = realm.run(&ask);
        assert_eq!(printed.code, 1, "{}", printed.stderr);
        for check in ["disk", "state"] {
            let (state, words, help) = all(&printed, check).remove(0);
            assert_eq!(state, "problem", "{words}");
            assert_eq!(words, format!("{blobs} is not a directory"));
            assert!(help.unwrap().contains("DIR"));
        }
        // What cannot be kept there is compiled and run nowhere, and that has a remedy, too.
        assert_eq!(all(&printed, "sandbox")[0].0, "problem");
        assert_eq!(without_remedy(&printed), Vec::<Value>::new());
    }
}

#[test]
fn the_doctor_sees_a_directory_that_may_not_be_written() {
    let realm = cluster();
    let state = realm.path().join("state of nobody");
    let data = realm.path().join("data");
    for dir in [&state, &data] {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o500)).unwrap();
    }
    let is_root = rustix::process::geteuid().is_root();
    let look = |state: &Path, data: &Path| {
        let plain = realm.command();
        // Root may write everywhere, but for this right of root's.
        let mut doctor = match is_root {
            true => std::process::Command::new("setpriv"),
            false => std::process::Command::new(plain.get_program()),
        };
        if is_root {
            doctor.args(["--bounding-set", "-dac_override,-dac_read_search"]);
            doctor.arg(plain.get_program());
        }
        for (key, value) in plain.get_envs() {
            value.map(|value| doctor.env(key, value));
        }
        doctor.args(["doctor", "-o", "json", "--state-dir"]);
        printed(doctor.arg(state).arg("--data").arg(data))
    };
    let closed = look(&state, &data);
    for (check, dir) in [("state", &state), ("disk", &data)] {
        let (found, words, help) = all(&closed, check).remove(0);
        assert_eq!(found, "problem", "{words}");
        assert!(words.contains("its mode is 0500"), "{words}");
        let help = help.unwrap();
        assert!(help.contains("chmod u+rwX"), "{help}");
        assert!(help.contains(&dir.display().to_string()), "{help}");
    }
    assert_eq!(without_remedy(&closed), Vec::<Value>::new());

    if is_root {
        // That of a service is nobody else's business, and nothing is said of what lies in it.
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&data, Some(65534), None).unwrap();
        let service = look(realm.path(), &data);
        let (found, words, _) = all(&service, "disk").remove(0);
        assert_eq!(found, "warning", "{words}");
        assert!(words.contains("belongs to user 65534"), "{words}");
        assert_eq!(all(&service, "data"), []);
    }
}

#[test]
fn the_doctor_sees_a_file_system_that_is_read_only() {
    let realm = cluster();
    let dir = realm.path().join("disc");
    fs::create_dir(&dir).unwrap();
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" || exit 77; \
                  exec \"$0\" doctor -o json --state-dir \"$1\" --data \"$1\"";
    let held = realm.command();
    let mut unshare = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
        .args(["--mount", "sh", "-c", script])
        .arg(held.get_program())
        .arg(&dir);
    for (key, value) in held.get_envs() {
        value.map(|value| unshare.env(key, value));
    }
    let printed = printed(&mut unshare);
    if printed.stdout.is_empty() {
        realm_testkit::skipped("mounting needs root or user namespaces");
        return;
    }
    for check in ["state", "disk"] {
        let (found, words, help) = all(&printed, check).remove(0);
        assert_eq!(found, "problem", "{words}");
        assert!(words.ends_with("its file system is read-only"), "{words}");
        assert!(help.unwrap().contains("findmnt --target"));
    }
    assert_eq!(without_remedy(&printed), Vec::<Value>::new());
}

fn printed(command: &mut std::process::Command) -> Printed {
    let output = command.output().unwrap();
    Printed {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_revision_that_was_seen_and_that_no_node_has_is_a_finding() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let file = guest("hello.wasm");
    let push = |realm: &Cluster, name: &str| {
        let via = realm.address("one");
        realm.ok(&["push", name, &file, "--no-start", "--via", &via]);
    };
    push(&realm, "before");
    assert_eq!(realm.stop("one"), 0);
    let (data, copy) = (realm.data("one"), realm.path().join("copy"));
    copy_dir(&data, &copy);
    realm.start("one");
    push(&realm, "after");
    let look = |realm: &Cluster| {
        let ask = ["doctor", "-o", "json", "--via", &realm.address("one")];
        realm.run(&ask)
    };
    let well = found(&look(&realm), "log");
    assert_eq!(
        (well.0.as_str(), well.1.as_str()),
        ("ok", "one history, at revision 2")
    );

    assert_eq!(realm.stop("one"), 0);
    fs::remove_dir_all(&data).unwrap();
    copy_dir(&copy, &data);
    realm.start("one");
    let lost = look(&realm);
    let (state, words) = found(&lost, "log");
    assert_eq!((lost.code, state.as_str()), (1, "problem"), "{words}");
    assert!(
        words.contains("you have seen revision 2") && words.ends_with("the newest is 1"),
        "{words}"
    );
    assert!(
        lost.stdout.contains("realm history accept-loss"),
        "{}",
        lost.stdout
    );

    let via = realm.address("one");
    let accept = [
        "history",
        "accept-loss",
        "--yes",
        "-o",
        "json",
        "--via",
        &via,
    ];
    let given_up: Value = serde_json::from_str(&realm.ok(&accept)).unwrap();
    let hash = &given_up["given_up"]["hash"];
    assert!(hash.is_string(), "{given_up}");
    let lost = serde_json::json!({ "from": 2, "to": 2, "hash": hash });
    assert_eq!(
        given_up,
        serde_json::json!({
            "changed": true, "given_up": lost, "seen": 2, "newest": 1, "next": 2, "asked": 1,
        })
    );
    let nothing: Value = serde_json::from_str(&realm.ok(&accept)).unwrap();
    assert_eq!(
        (&nothing["changed"], &nothing["seen"]),
        (&false.into(), &1.into())
    );
    assert_eq!(nothing["given_up"], Value::Null);
    assert_eq!(found(&look(&realm), "log").0, "ok");
}
