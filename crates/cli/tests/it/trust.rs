//! Who is obeyed, and who is not.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    KilledAtTheEnd, cluster, guest,
    history::copy_dir,
    page::{get, http_address},
};

#[test]
fn another_owner_is_told_no_and_changes_nothing() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let stranger = cluster();
    let refused = stranger.run(&["push", "evil", &guest("ticker.wasm"), "--via", &one]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert_eq!(stranger.run(&["status", "--via", &one]).code, 4);
    assert_eq!(realm.status("one").unwrap()["revision"], 0);
}

#[test]
fn a_node_without_an_invite_waits_for_the_owner() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let owner = realm.ok(&["key", "show"]);
    let data = realm.data("two").display().to_string();
    realm.ok(&[
        "configure",
        "--owner",
        owner.trim(),
        "--bootstrap",
        &one,
        "--data",
        &data,
    ]);
    let log = std::fs::File::create(realm.path().join("two.log")).unwrap();
    let agent = Command::new(env!("CARGO_BIN_EXE_realm"))
        .args([
            "agent",
            "--no-mdns",
            "--http",
            "127.0.0.1:0",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
        ])
        .args(["--name", "two", "--data", &data])
        .env("XDG_RUNTIME_DIR", realm.path().join("run"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let _agent = KilledAtTheEnd(agent);
    realm_testkit::wait_for("the join request", || {
        let nodes = realm.run(&["nodes", "ls", "--via", &one]);
        (nodes.stdout + &nodes.stderr)
            .contains("pending")
            .then_some(())
    });
    realm.ok(&["nodes", "approve", "two", "--via", &one]);
    let status = realm.wait_status("one", "two is ready", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| node["state"] == "ready")
            .count()
            == 2
    });
    assert_eq!(status["revision"], 1);
    realm.ok(&["nodes", "revoke", "two", "--yes", "--via", &one]);
    realm.wait_status("one", "two is revoked", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["state"] == "revoked")
    });
    let said = || std::fs::read_to_string(realm.path().join("two.log")).unwrap();
    realm_testkit::wait_for("the node to say so", || {
        said().contains("revoked this node").then_some(())
    });
    let ready = get(&http_address(&realm, "two"), "/readyz", "localhost");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("revoked this node"), "{ready}");
}

#[test]
fn a_signal_stops_an_agent_in_order_also_while_it_starts() {
    const TERM: u64 = 15;

    let realm = cluster();
    let pipe = realm.path().join("settings.toml");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let data = realm.data("one").display().to_string();
    let agent = Command::new(env!("CARGO_BIN_EXE_realm"))
        .args(["agent", "--no-mdns", "--http", "127.0.0.1:0"])
        .args(["--listen", "/ip4/127.0.0.1/tcp/0", "--data", &data])
        .arg("--config")
        .arg(&pipe)
        .env("XDG_RUNTIME_DIR", realm.path().join("run"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let id = agent.id().to_string();
    let mut agent = KilledAtTheEnd(agent);
    // It reads its settings and gets none; the signals that it handles are a mask.
    realm_testkit::wait_for("a handler", || {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        (caught & (1 << (TERM - 1)) != 0).then_some(())
    });
    let kill = Command::new("kill").args(["-TERM", &id]).status();
    assert!(kill.unwrap().success());
    assert!(agent.0.try_wait().unwrap().is_none(), "it starts first");
    std::fs::write(&pipe, b"").unwrap();
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_data_directory_and_a_port_have_one_agent() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    let data = realm.data("one").display().to_string();
    let second = realm.run(&[
        "agent",
        "--no-mdns",
        "--data",
        &data,
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--http",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("another agent"), "{}", second.stderr);
    let address = realm.address("one");
    let address = address.split("/p2p/").next().unwrap();
    let elsewhere = realm.data("elsewhere").display().to_string();
    let taken = realm.run(&[
        "agent",
        "--no-mdns",
        "--data",
        &elsewhere,
        "--listen",
        address,
        "--http",
        "127.0.0.1:0",
    ]);
    assert_eq!(taken.code, 1);
    assert!(taken.stderr.contains("in use"), "{}", taken.stderr);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = listener.local_addr().unwrap().to_string();
    let taken = realm.run(&[
        "agent",
        "--no-mdns",
        "--data",
        &elsewhere,
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--http",
        &http,
    ]);
    assert_eq!(taken.code, 1);
    for words in ["in use", &http] {
        assert!(taken.stderr.contains(words), "{}", taken.stderr);
    }
    // None of them has disturbed the one that was there.
    realm.wait_ready("one");
}

#[test]
fn health_and_readiness_are_on_loopback() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let address = http_address(&realm, "one");
    let answer = |path: &str, host: &str| get(&address, path, host);
    assert!(answer("/healthz", "localhost").starts_with("HTTP/1.1 200"));
    assert!(answer("/readyz", &address).starts_with("HTTP/1.1 200"));
    assert!(answer("/healthz", "evil.example").starts_with("HTTP/1.1 421"));
}

#[test]
fn a_peer_that_is_added_brings_a_node_into_the_realm() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    // This invite knows nobody's address but one that answers no more.
    let token = realm.path().join("lonely.token").display().to_string();
    let gone = "/ip4/127.0.0.1/tcp/1";
    let invite = realm.ok(&["invite", "--quiet", "--name", "two", "--bootstrap", gone]);
    std::fs::write(&token, invite).unwrap();
    realm.add_agent("two", &["--enroll-file", &token]);
    let two = realm.address("two");
    realm.ok(&["peer", "add", &one, "--via", &two]);
    realm.wait_status("one", "two is of the realm", |status| {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["name"] == "two" && node["state"] == "ready")
    });
    // It is remembered.
    realm.stop("two");
    realm.start("two");
    realm.wait_ready("one");
    let bad = realm.run(&["peer", "add", "not-an-address", "--via", &two]);
    assert_eq!(bad.code, 2, "{}", bad.stderr);
}

#[test]
fn an_address_that_is_added_is_tried_where_those_that_are_remembered_do_not_answer() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    // A machine of the owner's that was away while all nodes moved.
    let state = realm.path().join("moved");
    copy_dir(&realm.path().join("state"), &state);
    let gone = "/ip4/127.0.0.1/tcp/1";
    for known in std::fs::read_dir(state.join("realms")).unwrap() {
        std::fs::write(known.unwrap().path().join("peers"), gone).unwrap();
    }
    let (state, run) = (state.display().to_string(), realm.path().join("none"));
    let there = |args: &[&str]| {
        let run = run.display().to_string();
        let env = [("REALM_STATE_DIR", &*state), ("XDG_RUNTIME_DIR", &*run)];
        realm.run_with(args, &env)
    };
    let nowhere = there(&["peer", "add", "/ip4/127.0.0.1/tcp/2"]);
    assert_eq!(nowhere.code, 7, "{}", nowhere.stderr);
    assert!(
        nowhere.stderr.contains("realm peer add ADDRESS --via ADDR"),
        "{}",
        nowhere.stderr
    );
    for tried in [gone, "/ip4/127.0.0.1/tcp/2"] {
        let mut causes = nowhere.stderr.lines().filter(|line| {
            let why = line.split_once(&format!("cause: {tried}: "));
            why.is_some_and(|(_, why)| why.contains("refused"))
        });
        assert!(causes.next().is_some(), "{}", nowhere.stderr);
        assert!(causes.next().is_none(), "{}", nowhere.stderr);
    }
    let added = there(&["peer", "add", &one]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    assert!(added.stderr.contains("is remembered"), "{}", added.stderr);
    assert_eq!(there(&["status"]).code, 0, "nodes are found by it");

    // The node that was asked is remembered, too.
    for known in std::fs::read_dir(realm.path().join("state/realms")).unwrap() {
        std::fs::write(known.unwrap().path().join("peers"), gone).unwrap();
    }
    realm.ok(&["peer", "add", "/ip4/127.0.0.1/tcp/2"]);
    let remembered = realm.ok(&["peer", "ls"]);
    assert!(remembered.lines().any(|at| at == one), "{remembered}");
}

#[test]
fn a_node_certifies_the_key_that_secrets_are_sealed_to() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let shown = |node: &str| -> serde_json::Value {
        let shown = realm.ok(&["nodes", "show", node, "-o", "json", "--via", &one]);
        serde_json::from_str(&shown).unwrap()
    };
    let sealing = |node: &str| {
        realm_testkit::wait_for("the key", || {
            Some(shown(node)["sealing_key"].as_str()?.to_owned())
        })
    };
    let (first, second) = (sealing("one"), sealing("two"));
    assert!(first.starts_with("age1") && first.len() == 62, "{first}");
    assert_ne!(first, second);
    let key = realm.data("two").join("sealing.key");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(realm.stop("two"), 0);
    realm.start("two");
    realm.wait_ready("one");
    let again = realm.ok(&["nodes", "show", "two", "--via", &one]);
    assert!(again.contains(&second), "{again}");
    // A lost one is made anew, and the node says so.
    assert_eq!(realm.stop("two"), 0);
    std::fs::remove_file(&key).unwrap();
    realm.start("two");
    assert!(realm.log("two").contains("its sealing key was lost"));
    realm_testkit::wait_for("the new key", || {
        let shown = realm.ok(&["nodes", "show", "two", "--via", &one]);
        (shown.contains("age1") && !shown.contains(&second)).then_some(())
    });
}

#[test]
fn who_comes_with_an_invite_does_not_ask_the_owner() {
    let mut realm = cluster();
    let began = Instant::now();
    for node in ["one", "two", "three"] {
        realm.add_node(node, &[]);
        let listed = realm.run(&["nodes", "ls", "--via", &realm.address("one")]);
        assert!(!listed.stderr.contains("approve"), "{}", listed.stderr);
    }
    for node in ["one", "two", "three"] {
        realm.wait_ready(node);
    }
    for node in ["one", "two", "three"] {
        let log = realm.log(node);
        // One that its invite has not let in for ten seconds does ask.
        let in_time = began.elapsed() < Duration::from_secs(10);
        assert!(!in_time || !log.contains("asks to join"), "{log}");
    }
}
