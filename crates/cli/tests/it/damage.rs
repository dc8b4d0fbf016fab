//! Files of a node that were damaged while it was stopped.

use std::path::{Path, PathBuf};

use realm_testkit::wait_for;
use serde_json::Value;

use crate::{cluster, guest, http::ask, page::http_address};

#[test]
fn damaged_files_stop_the_agent_with_words() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    realm.ok(&[
        "push",
        "hello",
        &guest("hello.wasm"),
        "--wait",
        "--via",
        &realm.address("one"),
    ]);
    assert_eq!(realm.stop("one"), 0);
    let data = realm.data("one");
    let agent = |realm: &realm_testkit::Cluster| {
        realm.run(&[
            "agent",
            "--no-mdns",
            "--http",
            "127.0.0.1:0",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--data",
            &data.display().to_string(),
        ])
    };
    let damage = |file: &str| {
        let path = data.join(file);
        let Ok(good) = std::fs::read(&path) else {
            panic!("{file} is not in the data directory");
        };
        let mut bad = good.clone();
        // The header of a database, the checksum of a small file.
        bad[..16].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, &bad[..bad.len() - 1]).unwrap();
        (path, good)
    };
    for file in ["ledger.redb", "owner.pin", "node.key"] {
        let (path, good) = damage(file);
        let refused = agent(&realm);
        assert_eq!(refused.code, 1, "{file}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(file.split('.').next().unwrap()),
            "{file}: {}",
            refused.stderr
        );
        assert!(refused.stderr.contains("error["), "{}", refused.stderr);
        assert_eq!(
            std::fs::read(&path).unwrap().len(),
            good.len() - 1,
            "nothing is overwritten"
        );
        std::fs::write(&path, good).unwrap();
    }
    // A missing ledger of a node that joined is no reason to begin anew, nor is a missing pin.
    for file in ["ledger.redb", "owner.pin"] {
        std::fs::rename(data.join(file), data.join("elsewhere")).unwrap();
        let refused = agent(&realm);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains(file), "{}", refused.stderr);
        std::fs::rename(data.join("elsewhere"), data.join(file)).unwrap();
    }
    // What the node can do without is told, and made anew.
    for file in ["cache.key", "boot", "ended"] {
        damage(file);
    }
    realm.start("one");
    realm.wait_status("one", "everything is there again", |status| {
        status["revision"] == 1 && status["components"][0]["state"] == "done"
    });
    for file in ["cache.key", "boot", "ended"] {
        let path = data.join(file).display().to_string();
        assert!(realm.log("one").contains(&path), "{}", realm.log("one"));
    }
}

#[test]
fn a_damaged_artifact_is_not_run_and_is_pulled_again() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let one = realm.address("one");
    let push = ["push", "ticker", &guest("ticker.wasm"), "--wait"];
    realm.ok(&[&push[..], &["--via", &one]].concat());
    assert_eq!(realm.stop("two"), 0);
    // The program changed on disk, and what was compiled of it is gone.
    let data = realm.data("two");
    std::fs::remove_dir_all(data.join("compiled")).unwrap();
    let within = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let files = within(&data.join("blobs")).into_iter();
    let artifacts: Vec<_> = files
        .flat_map(|folder| within(&folder))
        .filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\0asm")))
        .collect();
    let [artifact] = &artifacts[..] else {
        panic!("{artifacts:?}");
    };
    let good = std::fs::read(artifact).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(artifact, &bad).unwrap();
    realm.start("two");
    wait_for("it is as it was", || {
        (std::fs::read(artifact).ok()? == good).then_some(())
    });
    let log = realm.log("two");
    assert!(log.contains("damaged on disk"), "{log}");
    wait_for("it runs again", || {
        let log = realm.log("two");
        (log.matches("kind=\"started\"").count() == 2).then_some(())
    });
}

#[test]
fn a_data_directory_that_was_taken_away_is_an_alarm_until_it_is_back() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("two");
    let (via, http) = (realm.address("two"), http_address(&realm, "two"));
    let ready = || ask(&http, "/readyz", &[], None);
    assert_eq!(ready().0, 200);
    let (data, away) = (realm.data("two"), realm.path().join("away"));
    let code = |one: &Value| one["code"] == "data-gone";
    let alarmed = |status: &Value| status["alarms"].as_array().unwrap().iter().any(code);

    std::fs::rename(&data, &away).unwrap();
    realm.wait_status("one", "the alarm of two", alarmed);
    let (status, why) = ready();
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("was taken away"), "{why}");
    let push = [
        "push",
        "hello",
        &guest("hello.wasm"),
        "--no-start",
        "--via",
        &via,
    ];
    let refused = realm.run(&push);
    assert_eq!(refused.code, 1, "it would not last: {}", refused.stderr);

    std::fs::rename(&away, &data).unwrap();
    realm.wait_status("one", "it is over", |status| !alarmed(status));
    wait_for("two is ready", || (ready().0 == 200).then_some(()));
    realm.ok(&push);
}
