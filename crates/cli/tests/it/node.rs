//! One node: how it is started, what it is told, and what it survives.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use realm_testkit::wait_for;

use crate::{KilledAtTheEnd, cluster, faketime, guest, page::http_address, three_nodes};

#[test]
fn an_agent_runs_a_program_of_its_own_under_limits() {
    let mut realm = cluster();
    let (ticker, spin) = (guest("ticker.wasm"), guest("spin.wasm"));
    realm.add_node_with("one", &[], &["--wasm", &ticker, "--memory-max-mb", "16"]);
    realm.wait_ready("one");
    let one = realm.address("one");
    wait_for("lines of the node's own program", || {
        let lines = realm.run(&["logs", "local-ticker", "--via", &one]);
        lines.stdout.contains("one/local-ticker#0").then_some(())
    });
    let status = realm.status("one").unwrap();
    assert_eq!(
        status["components"].as_array().unwrap().len(),
        0,
        "no part of the realm"
    );

    realm.add_node_with(
        "two",
        &[],
        &["--wasm", &spin, "--fuel", "1000000", "--epoch-ms", "20"],
    );
    wait_for("the fuel to run out", || {
        let log = realm.log("two");
        (log.contains("limited") && log.contains("fuel")).then_some(())
    });
    let missing = realm.run(&["agent", "--fuel", "5", "--data", "/nonexistent"]);
    assert_eq!(missing.code, 2, "{}", missing.stderr);
    assert!(missing.stderr.contains("--wasm"), "{}", missing.stderr);
}

#[test]
fn the_binary_called_realm_agent_is_an_agent() {
    let realm = cluster();
    let data = realm.data("alone");
    let agent = Command::new(env!("CARGO_BIN_EXE_realm"))
        .arg0("realm-agent")
        .args([
            "--no-mdns",
            "--http",
            "127.0.0.1:0",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
        ])
        .args(["--trust-first-use", "10m", "--data"])
        .arg(&data)
        .env("XDG_RUNTIME_DIR", realm.path().join("run"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _agent = KilledAtTheEnd(agent);
    let address = wait_for("the agent's file", || {
        let info = std::fs::read(data.join("agent.json")).ok()?;
        let info: serde_json::Value = serde_json::from_slice(&info).ok()?;
        Some(info["addresses"][0].as_str()?.to_owned())
    });
    // The window takes the first owner, who approves the node through itself.
    realm.ok(&["status", "--via", &address]);
    let pending = wait_for("the node asks to join", || {
        let nodes = realm.run(&["nodes", "ls", "--via", &address]);
        nodes
            .stderr
            .contains("asks to join")
            .then_some(nodes.stderr)
    });
    let key = pending
        .split_whitespace()
        .find(|word| word.starts_with("ed25519:"))
        .unwrap();
    realm.ok(&["nodes", "approve", key, "--via", &address]);
    realm.ok(&[
        "push",
        "hello",
        &guest("hello.wasm"),
        "--wait",
        "--via",
        &address,
    ]);
    let stranger = cluster();
    assert_eq!(
        stranger.run(&["status", "--via", &address]).code,
        4,
        "the window is closed"
    );
}

#[test]
fn status_is_watched_as_a_stream() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let mut watching = realm
        .command()
        .args(["status", "--watch", "-o", "json", "--via", &one])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let _watching = KilledAtTheEnd(watching);
    realm.ok(&["push", "hello", &guest("hello.wasm"), "--via", &one]);
    let seen = lines
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
        .find(|status| status["components"][0]["state"] == "done");
    assert!(seen.is_some(), "every status is one line, until it is done");
}

#[test]
fn a_frozen_node_loses_nothing() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    realm.signal("two", "STOP");
    realm.wait_status("one", "the frozen node is lost", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["state"] == "lost")
    });
    realm.ok(&[
        "push",
        "ticker",
        &guest("ticker.wasm"),
        "--wait",
        "--via",
        &one,
    ]);
    realm.signal("two", "CONT");
    realm.wait_status("two", "it catches up and runs", |status| {
        status["revision"] == 1 && status["components"][0]["running"] == 2
    });
}

#[test]
fn a_node_leaves_and_joins_anew() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let data = realm.data("two").display().to_string();
    let running = realm.run(&["leave", "--yes", "--data", &data]);
    assert_eq!(running.code, 1, "{}", running.stderr);
    assert!(
        running.stderr.contains("stop the agent"),
        "{}",
        running.stderr
    );
    assert_eq!(realm.stop("two"), 0);
    let kept = realm.data("two").join("volumes/db/kept");
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    std::fs::write(&kept, "data").unwrap();
    assert_eq!(
        realm.run(&["leave", "--data", &data]).code,
        2,
        "nobody can confirm"
    );
    realm.ok(&["leave", "--yes", "--data", &data]);
    realm.ok(&["leave", "--yes", "--data", &data]);
    assert!(kept.exists(), "volumes stay unless they are named");
    for name in ["ledger.redb", "http.token"] {
        assert!(
            !realm.data("two").join(name).exists(),
            "{name} is forgotten"
        );
    }

    let token = realm.ok(&[
        "invite",
        "--quiet",
        "--name",
        "two-again",
        "--bootstrap",
        &one,
    ]);
    realm.ok(&["enroll", token.trim(), "--data", &data]);
    realm.start_with("two", &[]);
    realm.wait_status("one", "it is here under its new key", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["name"] == "two-again" && node["state"] == "ready")
    });
    realm.stop("two");
    realm.ok(&["leave", "--yes", "--volumes", "--data", &data]);
    assert!(!kept.exists());
}

#[test]
fn a_stepped_clock_changes_nothing_that_is_asked() {
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
    // One node a year ahead, one a year behind: both go on with what is asked.
    for (name, offset) in [("two", "+365d"), ("three", "-365d")] {
        assert_eq!(realm.stop(name), 0);
        let shifted = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        realm.set_env(name, &shifted);
        realm.start(name);
    }
    realm.wait_status("one", "all three run it", |status| {
        status["components"][0]["running"] == 3
    });
    realm.ok(&["restart", "ticker", "--via", &realm.address("two")]);
    realm.ok(&[
        "push",
        "hello",
        &guest("hello.wasm"),
        "--wait",
        "--via",
        &realm.address("three"),
    ]);
    for name in ["one", "two", "three"] {
        let status = realm.wait_status(name, "everything everywhere", |status| {
            status["revision"] == 3
                && status["components"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|one| one["running"] == 3)
        });
        assert_eq!(status["forked"], false);
    }
    // What is judged by the clock says so: an invite, seen by a node a year ahead.
    let token = realm.ok(&["invite", "--quiet", "--name", "late", "--ttl", "10m"]);
    let late = realm.data("late").display().to_string();
    let refused = realm.run_with(
        &["enroll", token.trim(), "--data", &late],
        &[("LD_PRELOAD", &library), ("FAKETIME", "+365d")],
    );
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("expired"), "{}", refused.stderr);
}

#[test]
fn connections_that_say_nothing_do_not_hold_the_agent() {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let address = http_address(&realm, "one");
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET / HT").unwrap();
            stream
        })
        .collect();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(silent.len(), 200);
}

#[test]
fn a_job_that_ended_is_not_run_again_by_a_restart() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let (hello, code) = (guest("hello.wasm"), guest("exit-code.p1.wasm"));
    let never = ["--restart", "never", "--via", &one];
    realm.ok(&[&["push", "good", &hello, "--wait"][..], &never].concat());
    realm.ok(&[&["push", "bad", &code, "--arg", "3"][..], &never].concat());
    let started = |status: &serde_json::Value| -> Vec<serde_json::Value> {
        let components = status["components"].as_array().unwrap();
        components
            .iter()
            .map(|component| component["cells"][0]["started_at"].clone())
            .collect()
    };
    let ended = |status: &serde_json::Value| {
        status["components"][0]["state"] == "failed" && status["components"][1]["state"] == "done"
    };
    let before = started(&realm.wait_status("one", "both have ended", ended));
    // What is on disk is not known at once.
    wait_for("both ends are remembered", || {
        let bytes = std::fs::read(realm.data("one").join("ended")).ok()?;
        let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
        (has(b"good") && has(b"bad")).then_some(())
    });
    realm.kill("one");
    realm.start("one");
    let after = started(&realm.wait_status("one", "both as they were", ended));
    assert_eq!(before, after, "neither was run again");
    // Lines are kept in memory: that they are gone is said, not left to be guessed.
    for previous in [&[][..], &["--previous"]] {
        let logs = [&["logs", "bad", "--via", &one][..], previous].concat();
        let lines = realm.ok(&logs);
        assert!(
            lines.contains("agent │") && lines.contains("before is gone"),
            "{lines}"
        );
        assert_eq!(lines.lines().count(), 1, "{lines}");
    }
    // Asking for it runs it again.
    realm.ok(&["restart", "good", "--wait", "--via", &one]);
    let again = started(&realm.wait_status("one", "it ran anew", |status| {
        ended(status) && started(status)[1] != after[1]
    }));
    assert_eq!(again[0], after[0]);
    // Where its record is damaged the node cannot know, and says so.
    assert_eq!(realm.stop("one"), 0);
    let record = realm.data("one").join("ended");
    std::fs::write(&record, b"damaged").unwrap();
    realm.start("one");
    let status = realm.wait_status("one", "both may have run twice", |status| {
        ended(status)
            && started(status)
                .iter()
                .zip(&again)
                .all(|(now, then)| now != then)
    });
    let reason = &status["components"][1]["cells"][0]["reason"];
    assert_eq!(reason["code"], "maybe-again", "{reason}");
    let aside = realm.data("one").join("ended.damaged");
    assert_eq!(std::fs::read(aside).unwrap(), b"damaged");
    let log = realm.log("one");
    let alarm = log
        .lines()
        .find(|line| line.contains("ended.damaged") && line.contains("alarm"));
    assert!(
        alarm.is_some_and(|line| line.contains("bad, good")),
        "{log}"
    );
}

#[test]
fn a_first_node_whose_invite_expired_says_so_once() {
    let Some(library) = faketime() else { return };
    let realm = cluster();
    let token = realm.ok(&["invite", "--quiet", "--name", "one"]);
    let data = realm.data("one").display().to_string();
    realm.ok(&["enroll", token.trim(), "--data", &data]);
    let log = realm.path().join("one.log");
    let file = std::fs::File::create(&log).unwrap();
    let agent = realm
        .command()
        .args([
            "agent",
            "--no-mdns",
            "--http",
            "127.0.0.1:0",
            "--data",
            &data,
        ])
        .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
        .envs([("LD_PRELOAD", library.as_str()), ("FAKETIME", "+1d")])
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let _agent = KilledAtTheEnd(agent);
    let expired = || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.matches("expired").count()
    };
    wait_for("the refusal", || (expired() > 0).then_some(()));
    let first = std::time::Instant::now();
    wait_for("three rounds of housekeeping", || {
        (first.elapsed().as_secs() >= 3).then_some(())
    });
    assert_eq!(expired(), 1);
}

#[test]
fn what_removed_cells_held_goes_back_to_the_machine() {
    const MIB: u64 = 1024 * 1024;
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let (one, pid) = (realm.address("one"), realm.pid("one"));
    let held = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB").parse::<u64>();
        kib.unwrap() * 1024
    };
    let before = held();
    // Each fills its log of 1 MiB with short lines.
    for name in ["a", "b", "c"] {
        let flood = guest("flood.wasm");
        realm.ok(&["push", name, &flood, "--replicas", "12", "--via", &one]);
    }
    wait_for("the logs to fill", || {
        (held() > before + 33 * MIB).then_some(())
    });
    for name in ["a", "b", "c"] {
        realm.ok(&["rm", name, "--via", &one]);
    }
    wait_for("the memory to go back", || {
        (held() < before + 12 * MIB).then_some(())
    });
}
