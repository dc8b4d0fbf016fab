//! Who is obeyed, and who is not.

use std::process::Command;

use crate::{KilledAtTheEnd, cluster, guest};

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
    let ready = get(http_address(&said()), "/readyz", "localhost");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("revoked this node"), "{ready}");
}

/// Where an agent says that its HTTP endpoint is.
pub fn http_address(log: &str) -> &str {
    let said = log.split("http://").nth(1).unwrap();
    said.split('/').next().unwrap()
}

fn get(address: &str, path: &str, host: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
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
fn an_invite_is_used_once_and_expires() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let data = realm.data("late").display().to_string();
    let bad = realm.run(&["enroll", "realm-invite:AAAA", "--data", &data]);
    assert_eq!(bad.code, 2, "{}", bad.stderr);
    let used = std::fs::read_to_string(realm.path().join("one.token")).unwrap();
    let owner = realm.ok(&["key", "show"]);
    realm.ok(&["enroll", used.trim(), "--data", &data]);
    let other = realm.run(&[
        "configure",
        "--owner",
        "ed25519:11111111111111111111111111111111",
        "--data",
        &data,
    ]);
    assert_eq!(other.code, 2, "{}", other.stderr);
    assert!(owner.starts_with("ed25519:"));
}

#[test]
fn health_and_readiness_are_on_loopback() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let log = realm.log("one");
    let address = http_address(&log);
    let answer = |path: &str, host: &str| get(address, path, host);
    assert!(answer("/healthz", "localhost").starts_with("HTTP/1.1 200"));
    assert!(answer("/readyz", address).starts_with("HTTP/1.1 200"));
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

/// The key of a node that was started.
fn key_of(realm: &realm_testkit::Cluster, name: &str) -> String {
    let info = std::fs::read(realm.data(name).join("agent.json")).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    info["key"].as_str().unwrap().to_owned()
}

/// Whether the node with this key has this state, and this name.
fn is(status: &serde_json::Value, key: &str, state: &str, name: &str) -> bool {
    status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .any(|node| node["key"] == key && node["state"] == state && node["name"] == name)
}

#[test]
fn an_invite_that_two_nodes_use_is_an_alarm_until_the_owner_decides() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let token = realm.path().join("shared.token").display().to_string();
    let invite = ["invite", "--quiet", "--name", "shared", "--bootstrap", &one];
    std::fs::write(&token, realm.ok(&invite)).unwrap();
    realm.add_agent("right", &["--enroll-file", &token]);
    let right = key_of(&realm, "right");
    realm.wait_status("one", "the first to use it is let in", |status| {
        is(status, &right, "ready", "shared")
    });
    realm.add_agent("thief", &["--enroll-file", &token]);
    let thief = key_of(&realm, "thief");
    let status = realm.wait_status("one", "both wait for the owner", |status| {
        is(status, &right, "pending", "shared") && is(status, &thief, "pending", "shared")
    });
    let alarm = &status["alarms"][0];
    assert_eq!(alarm["code"], "invite-used-twice", "{alarm}");
    assert!(
        alarm["help"]
            .as_str()
            .unwrap()
            .contains("realm nodes revoke")
    );
    let keys = alarm["nodes"].as_array().unwrap();
    assert!(keys.contains(&right.as_str().into()) && keys.contains(&thief.as_str().into()));
    for command in [&["status"][..], &["nodes", "ls"]] {
        let shown = realm.ok(&[command, &["--via", &one]].concat());
        assert!(shown.contains("ALARM") && shown.contains(&thief), "{shown}");
    }

    let log = realm.log("one");
    assert!(
        log.contains("alarm") && log.contains("one invite was used"),
        "{log}"
    );

    let by_name = realm.run(&["nodes", "approve", "shared", "--via", &one]);
    assert_eq!(by_name.code, 2, "{}", by_name.stderr);
    assert!(by_name.stderr.contains("key"), "{}", by_name.stderr);
    realm.ok(&["nodes", "approve", &right, "--via", &one]);
    realm.wait_status("one", "the right one is in, the alarm stays", |status| {
        is(status, &right, "ready", "shared") && status["alarms"][0]["code"] == "invite-used-twice"
    });
    realm.ok(&["nodes", "revoke", &thief, "--yes", "--via", &one]);
    realm.wait_status("one", "the other one is out, under its name", |status| {
        is(status, &right, "ready", "shared")
            && is(status, &thief, "revoked", "shared")
            && status["alarms"].as_array().unwrap().is_empty()
    });
    // Who is out makes no name ambiguous.
    realm.ok(&["nodes", "rename", "shared", "kept", "--via", &one]);
    realm.wait_status("one", "it has its new name", |status| {
        is(status, &right, "ready", "kept")
    });
}

#[test]
fn a_name_that_two_nodes_have_is_an_alarm_and_names_neither() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let taken = realm.run(&["invite", "--name", "one"]);
    assert_eq!(taken.code, 2, "{}", taken.stderr);
    assert!(taken.stderr.contains("called one"), "{}", taken.stderr);

    let mut keys = Vec::new();
    for (node, warns) in [("first", false), ("second", true)] {
        let invite = realm.run(&["invite", "--name", "twin", "--bootstrap", &one]);
        assert_eq!(
            invite.stderr.contains("warning"),
            warns,
            "{}",
            invite.stderr
        );
        let token = realm.path().join(node).with_extension("token");
        std::fs::write(&token, invite.stdout).unwrap();
        realm.add_agent(node, &["--enroll-file", &token.display().to_string()]);
        keys.push(key_of(&realm, node));
    }
    realm.wait_status("one", "both are in, which is an alarm", |status| {
        keys.iter().all(|key| is(status, key, "ready", "twin"))
            && status["alarms"][0]["code"] == "name-used-twice"
    });
    for command in [&["drain", "twin"][..], &["revoke", "twin", "--yes"]] {
        let refused = realm.run(&[&["nodes"], command, &["--via", &one]].concat());
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(&keys[1]), "{}", refused.stderr);
    }
    realm.ok(&["nodes", "rename", &keys[1], "other", "--via", &one]);
    realm.wait_status("one", "the alarm is over", |status| {
        is(status, &keys[1], "ready", "other") && status["alarms"].as_array().unwrap().is_empty()
    });
    // The log knew nothing of this one, and still it keeps its name.
    realm.ok(&["nodes", "revoke", "twin", "--yes", "--via", &one]);
    realm.wait_status("one", "it is out, under its name", |status| {
        is(status, &keys[0], "revoked", "twin")
    });
}

#[test]
fn every_node_tells_who_asks_to_join() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let (one, two) = (realm.address("one"), realm.address("two"));
    let owner = realm.ok(&["key", "show"]);
    let data = realm.data("three").display().to_string();
    let configure = ["configure", "--owner", owner.trim(), "--data", &data];
    realm.ok(&[&configure[..], &["--bootstrap", &two]].concat());
    realm.add_agent("three", &["--name", "three"]);
    let three = key_of(&realm, "three");
    // It is connected to the second one alone.
    realm.wait_status("one", "the first one knows of it", |status| {
        is(status, &three, "pending", "three")
    });
    realm.ok(&["nodes", "approve", "three", "--via", &one]);
    realm.wait_status("one", "it is in", |status| {
        is(status, &three, "ready", "three")
    });
}

#[test]
fn who_is_revoked_while_it_asks_to_join_says_so() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let owner = realm.ok(&["key", "show"]);
    let data = realm.data("two").display().to_string();
    let configure = ["configure", "--owner", owner.trim(), "--data", &data];
    realm.ok(&[&configure[..], &["--bootstrap", &one]].concat());
    realm.add_agent("two", &["--name", "two"]);
    let two = key_of(&realm, "two");
    realm.wait_status("one", "it asks to join", |status| {
        is(status, &two, "pending", "two")
    });
    realm.ok(&["nodes", "revoke", &two, "--yes", "--via", &one]);
    realm_testkit::wait_for("the node to say so", || {
        realm.log("two").contains("revoked this node").then_some(())
    });
    // It is told again after a start: nothing of the log is on its disk.
    realm.stop("two");
    realm.start("two");
    realm_testkit::wait_for("the node to say so again", || {
        let said = realm.log("two");
        (said.matches("revoked this node").count() >= 2).then_some(())
    });
}

#[test]
fn those_that_the_first_node_let_in_stay_when_it_goes() {
    let mut realm = cluster();
    for node in ["one", "two", "three"] {
        realm.add_node(node, &[]);
        realm.wait_ready(node);
    }
    let (two, keys) = (realm.address("two"), ["two", "three"]);
    let keys = keys.map(|node| (node, key_of(&realm, node)));
    let one = key_of(&realm, "one");
    realm.ok(&["nodes", "rm", "one", "--yes", "--via", &two]);
    for at in ["two", "three"] {
        realm.wait_status(at, "the others are in, without it", |status| {
            let is_in = |key: &str| {
                let mut nodes = status["nodes"].as_array().unwrap().iter();
                nodes.any(|node| node["key"] == key && node["state"] == "ready")
            };
            status["revision"] == 1 && !is_in(&one) && keys.iter().all(|(_, key)| is_in(key))
        });
    }
    // Who comes now believes those that are here.
    let invite = ["invite", "--quiet", "--name", "four", "--bootstrap", &two];
    let token = realm.ok(&invite);
    let file = realm.path().join("four.token").display().to_string();
    std::fs::write(&file, token).unwrap();
    realm.add_agent("four", &["--enroll-file", &file]);
    realm.wait_status("four", "it knows all of them", |status| {
        keys.iter()
            .all(|(node, key)| is(status, key, "ready", node))
    });
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
        assert!(!log.contains("asks to join"), "{log}");
    }
}
