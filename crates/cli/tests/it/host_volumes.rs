//! Host directories as volumes on a node: inside the prefixes of its config, and nowhere else.

use std::{fs, os::unix::fs::symlink};

use realm_testkit::Cluster;
use serde_json::Value;

use crate::{cluster, guest};

/// Pushes a reader of `/data/in` with this directory; answers with the component once it has ended.
fn pushed(realm: &Cluster, name: &str, directory: &str) -> Value {
    let via = realm.address("one");
    let (probe, volume) = (guest("fs-probe.wasm"), format!("{directory}:/data:ro"));
    let push = ["push", name, &probe, "--volume", &volume];
    let rest = [
        "--arg",
        "read:/data/in",
        "--restart",
        "never",
        "--via",
        &via,
    ];
    realm.ok(&[&push[..], &rest].concat());
    let of = |status: &Value| -> Option<Value> {
        let components = status["components"].as_array().unwrap();
        components.iter().find(|one| one["name"] == name).cloned()
    };
    let status = realm.wait_status("one", "it has ended", |status| {
        of(status).is_some_and(|one| one["state"] == "done" || one["state"] == "failed")
    });
    of(&status).unwrap()
}

#[test]
fn a_host_directory_is_a_volume_only_inside_a_prefix() {
    let mut realm = cluster();
    let path = |name: &str| realm.path().join(name);
    for (directory, content) in [
        ("offered/app", "inside"),
        ("offered-not/app", "sibling"),
        ("outside", "outside"),
    ] {
        fs::create_dir_all(path(directory)).unwrap();
        fs::write(path(directory).join("in"), content).unwrap();
    }
    symlink(path("outside"), path("offered/link")).unwrap();
    // The config names the directory by a link to it, as systems do with theirs.
    symlink(path("offered"), path("named")).unwrap();
    let config = format!("volume_prefixes = [{:?}]\n", path("named"));
    fs::write(path("config/agent.toml"), config).unwrap();
    let at = |name: &str| path(name).display().to_string();
    let inside = [at("offered/app"), at("named/app")];
    let refused = [
        ("link", at("offered/link")),
        ("sibling", at("offered-not/app")),
        ("outside", at("outside")),
        ("missing", at("offered/nothing")),
    ];
    let dots = format!("{}:/data", at("offered/../outside"));
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");

    for (count, directory) in inside.iter().enumerate() {
        let name = format!("inside-{count}");
        let read = pushed(&realm, &name, directory);
        assert_eq!(read["state"], "done", "{read:#}");
        let lines = realm.ok(&["logs", &name, "--via", &via]);
        assert!(lines.contains("inside"), "{lines}");
    }
    for (name, directory) in refused {
        let read = pushed(&realm, name, &directory);
        assert_eq!(read["state"], "failed", "{read:#}");
        let reason = &read["cells"][0]["reason"];
        assert_eq!(reason["code"], "volume", "{read:#}");
        assert!(
            reason["message"].as_str().unwrap().contains(&directory),
            "{reason}"
        );
    }
    // Dots are refused before anything is signed.
    let before = realm.status("one").unwrap()["revision"].clone();
    let push = ["push", "dots", &guest("fs-probe.wasm"), "--volume", &dots];
    let said = realm.run(&[&push[..], &["--via", &via]].concat());
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert_eq!(realm.status("one").unwrap()["revision"], before);
    let lines = realm.ok(&["logs", "--all", "--via", &via]);
    assert!(
        !lines.contains("outside") && !lines.contains("sibling"),
        "{lines}"
    );
}
