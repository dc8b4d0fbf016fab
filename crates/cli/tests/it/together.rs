//! Commands that run at once, realms beside each other, and what is left when nodes or files are lost.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use realm_testkit::{Cluster, wait_for};

use crate::{KilledAtTheEnd, cluster, guest, picture::component, three_nodes};

/// The directory where the command line remembers the cluster's realm.
fn state_of(realm: &Cluster) -> PathBuf {
    let realms = realm.path().join("state/realms");
    let mut found = fs::read_dir(realms).unwrap();
    found.next().unwrap().unwrap().path()
}

/// Two nodes that are ready, and where they listen.
fn two_nodes() -> (Cluster, String, String) {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    realm.wait_ready("two");
    let (one, two) = (realm.address("one"), realm.address("two"));
    (realm, one, two)
}

fn finish(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), stderr)
}

#[test]
fn pushes_at_the_same_time_do_not_fork_the_realm() {
    const PUSHES: usize = 8;
    let realm = three_nodes();
    let started: Vec<Child> = (0..PUSHES)
        .map(|index| {
            realm
                .command()
                .args(["push", &format!("par{index}"), &guest("ticker.wasm")])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for push in started {
        let (code, stderr) = finish(push);
        assert_eq!(code, 0, "{stderr}");
    }
    for name in ["one", "two", "three"] {
        let status = realm.wait_status(name, "every push", |status| {
            status["revision"] == PUSHES as u64
        });
        assert_eq!(status["forked"], false);
        assert_eq!(status["components"].as_array().unwrap().len(), PUSHES);
    }
}

#[test]
fn each_of_two_realms_on_a_machine_gets_its_own_commands() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    realm.ok(&["init", "--name", "shop"]);
    let token = realm.ok(&["invite", "--quiet", "--name", "till"]);
    let token_file = realm.path().join("till.token");
    fs::write(&token_file, token).unwrap();
    realm.add_agent("till", &["--enroll-file", token_file.to_str().unwrap()]);
    let name_of = |realm_name: &str| {
        let printed = realm.run(&["status", "-o", "json", "--realm", realm_name]);
        let status: serde_json::Value = serde_json::from_str(&printed.stdout).ok()?;
        Some(status["nodes"][0]["name"].as_str()?.to_owned())
    };
    // Whichever of the two answers first.
    for _ in 0..5 {
        let shop = wait_for("the node of the shop", || name_of("shop"));
        assert_eq!(shop, "till");
        assert_eq!(name_of("test").as_deref(), Some("one"));
    }
    let other = realm.run(&["status", "--realm", "test", "--via", &realm.address("till")]);
    assert_eq!(other.code, 4, "{}", other.stderr);
    assert!(other.stderr.contains("realm use"), "{}", other.stderr);
}

#[test]
fn an_intent_that_only_a_lost_node_had_is_sent_again() {
    let (mut realm, one, two) = two_nodes();
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &one]);
    realm.stop("two");
    realm.ok(&["scale", "ticker=1", "--via", &one]);
    realm.kill("one");
    fs::remove_dir_all(realm.data("one")).unwrap();
    realm.start("two");
    realm.ok(&["stop", "ticker", "--via", &two]);
    let history = realm.ok(&["history", "--via", &two]);
    let kinds: Vec<&str> = history
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().nth(2).unwrap())
        .collect();
    assert_eq!(kinds, ["push", "scale", "stop"], "{history}");
}

#[test]
fn what_is_lost_for_good_is_given_up_by_an_explicit_command() {
    let (mut realm, one, two) = two_nodes();
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &one]);
    let nothing = realm.run(&["history", "accept-loss", "--yes", "--via", &one]);
    assert_eq!(nothing.code, 0, "{}", nothing.stderr);
    assert!(nothing.stderr.contains("nothing is lost"));
    realm.stop("two");
    realm.ok(&["scale", "ticker=1", "--via", &one]);
    realm.kill("one");
    // Nor does this machine have the intent any more, only that it saw it.
    fs::remove_dir_all(state_of(&realm).join("kept")).unwrap();
    realm.start("two");
    let refused = realm.run(&["stop", "ticker", "--via", &two]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("accept-loss"), "{}", refused.stderr);
    let asked = realm.run(&["history", "accept-loss", "--via", &two]);
    assert_eq!(asked.code, 2, "nobody can confirm: {}", asked.stderr);
    assert!(asked.stderr.contains("revision 2"), "{}", asked.stderr);
    realm.ok(&["history", "accept-loss", "--yes", "--via", &two]);
    realm.ok(&["stop", "ticker", "--via", &two]);

    // As was said: a node that comes back with it shows the fork.
    realm.start("one");
    realm.wait_status("two", "the fork shows", |status| status["forked"] == true);
}

#[test]
fn nothing_is_signed_where_a_node_went_on_without_what_was_signed_before() {
    let (mut realm, one, two) = two_nodes();
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--via", &one]);
    realm.wait_status("two", "the push", |status| status["revision"] == 1);
    // Another machine of the same person.
    let other = realm.path().join("other");
    fs::create_dir(&other).unwrap();
    for dir in ["config", "state"] {
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .args([realm.path().join(dir), other.join(dir)])
            .status();
        assert!(copied.unwrap().success());
    }
    realm.stop("two");
    realm.ok(&["scale", "ticker=1", "--via", &one]);
    realm.stop("one");
    realm.start("two");
    let dir = |what: &str| other.join(what).display().to_string();
    let (config, state) = (dir("config"), dir("state"));
    for verb in ["stop", "start"] {
        let there = ["--config-dir", &config, "--state-dir", &state];
        let signed = realm.run(&[&[verb, "ticker", "--via", &two], &there[..]].concat());
        assert_eq!(signed.code, 0, "{}", signed.stderr);
    }

    let refused = realm.run(&["scale", "ticker=2", "--via", &two]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    for word in ["forked", "another revision 2", "accept-loss"] {
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    let kept = state_of(&realm).join("kept/2");
    assert!(kept.exists(), "it may be the only copy");
    let seen = fs::read_to_string(state_of(&realm).join("head")).unwrap();
    let accept = ["history", "accept-loss", "--yes", "--via", &two];
    let done = realm.ok(&[&accept[..], &["-o", "json"]].concat());
    let done: serde_json::Value = serde_json::from_str(&done).unwrap();
    let hash = seen.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(
        done["given_up"],
        serde_json::json!({ "from": 2, "to": 2, "hash": hash })
    );
    assert!(!kept.exists());
    realm.ok(&["scale", "ticker=2", "--via", &two]);
}

#[test]
fn a_node_joins_by_an_invite_of_whom_the_realm_was_handed_to() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--via", &one]);
    realm.ok(&["key", "rotate", "--yes", "--via", &one]);
    realm.add_node("two", &[]);
    realm.wait_ready("two");
    let two = realm.address("two");
    realm.wait_status("two", "a cell on both", |status| {
        component(status, "ticker")["running"] == 2
    });
    realm.ok(&["scale", "ticker=1", "--via", &two]);
    // It knows whose it is after a start, too.
    realm.stop("two");
    realm.start("two");
    realm.wait_ready("two");

    // Handed on once more before the invite is taken up: its owner is neither the first nor the last.
    let invite = ["invite", "--quiet", "--name", "three", "--bootstrap", &one];
    let token = realm.path().join("early.token");
    fs::write(&token, realm.ok(&invite)).unwrap();
    realm.ok(&["key", "rotate", "--yes", "--via", &one]);
    realm.add_agent("three", &["--enroll-file", &token.display().to_string()]);
    realm.wait_ready("three");
    // Each of them can show the whole way to somebody who knows nothing of it.
    realm.ok(&["scale", "ticker=2", "--via", &one]);
    for node in ["two", "three"] {
        let via = realm.address(node);
        realm.wait_status(node, "the last change", |status| status["revision"] == 5);
        realm.ok(&["history", "verify", "--via", &via]);
    }
}

#[test]
fn the_owner_key_alone_gives_the_realm_back() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    realm.ok(&["push", "ticker", &guest("ticker.wasm"), "--via", &one]);
    let backup = realm.path().join("bak.key").display().to_string();
    realm.ok(&["key", "export", &backup]);
    let at = |home: &str, args: &[&str]| {
        let dir = |what: &str| realm.path().join(home).join(what).display().to_string();
        let (config, state) = (dir("config"), dir("state"));
        realm.run(&[args, &["--config-dir", &config, "--state-dir", &state]].concat())
    };
    assert_eq!(at("fresh", &["key", "import", &backup]).code, 0);
    let unknown = at("fresh", &["status", "--via", &one]);
    assert_eq!(unknown.code, 5, "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("realm adopt --via"),
        "{}",
        unknown.stderr
    );
    let adopted = at("fresh", &["adopt", "--via", &one]);
    assert_eq!(adopted.code, 0, "{}", adopted.stderr);
    assert_eq!(at("fresh", &["stop", "ticker", "--via", &one]).code, 0);

    // Somebody else's key gets nothing, and the one that the realm is handed to gets it.
    assert_eq!(at("friend", &["init", "--name", "mine"]).code, 0);
    let friend = at("friend", &["key", "show"]).stdout;
    let refused = at("friend", &["adopt", "--via", &one]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    realm.ok(&[
        "key",
        "rotate",
        "--to",
        friend.trim(),
        "--yes",
        "--via",
        &one,
    ]);
    let adopted = at("friend", &["adopt", "--via", &one]);
    assert_eq!(adopted.code, 0, "{}", adopted.stderr);
    let started = at("friend", &["start", "ticker", "--via", &one]);
    assert_eq!(started.code, 0, "{}", started.stderr);
    assert_eq!(at("fresh", &["adopt", "--via", &one]).code, 4);
}

#[test]
fn a_full_or_closed_standard_error_changes_no_exit_code() {
    let realm = cluster();
    for (args, code) in [
        (&["use", "test"][..], 0),
        (&["use", "nowhere"], 5),
        (&["status", "--via", "/ip4/127.0.0.1/tcp/1"], 7),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = realm
            .command()
            .args(args)
            .stdout(Stdio::null())
            .stderr(full)
            .status()
            .unwrap();
        assert_eq!(ended.code(), Some(code), "{args:?}");
    }
}

#[test]
fn an_agent_goes_on_when_nobody_reads_its_standard_error() {
    let realm = cluster();
    let token = realm.ok(&["invite", "--quiet", "--name", "one"]);
    let token_file = realm.path().join("one.token");
    fs::write(&token_file, token).unwrap();
    let data = realm.data("one");
    let mut agent = realm
        .command()
        .args(["agent", "--no-mdns", "--http", "127.0.0.1:0", "--listen"])
        .args(["/ip4/127.0.0.1/tcp/0", "--data", data.to_str().unwrap()])
        .args(["--enroll-file", token_file.to_str().unwrap()])
        .env("RUST_LOG", "debug")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(agent.stderr.take());
    let _agent = KilledAtTheEnd(agent);
    let ready = || {
        let pushed = realm.run(&["push", "ticker", &guest("ticker.wasm"), "--wait"]);
        (pushed.code == 0).then_some(())
    };
    wait_for("the agent runs the program", ready);
    let status: serde_json::Value =
        serde_json::from_str(&realm.ok(&["status", "-o", "json"])).unwrap();
    assert_eq!(component(&status, "ticker")["running"], 1);
}

#[test]
fn nodes_of_another_realm_are_nobody_to_ask() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let bare = one.split("/p2p/").next().unwrap();
    realm.kill("one");
    // Another realm's agent has its port now.
    let mut other = cluster();
    other.add_node_with("other", &[], &["--listen", bare]);
    append(&state_of(&realm).join("peers"), &format!("\n{bare}\n"));
    let nobody = realm.run(&["status"]);
    assert_eq!(nobody.code, 7, "{}", nobody.stderr);
    let words = "1 agent that answered belongs to another realm";
    assert!(nobody.stderr.contains(words), "{}", nobody.stderr);
    let named = realm.run(&["status", "--via", bare]);
    assert_eq!(named.code, 4, "{}", named.stderr);
}

#[test]
fn damaged_files_of_the_state_are_named() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let state = state_of(&realm);
    let named = |file: &str, args: &[&str]| {
        let refused = realm.run(args);
        assert_ne!(refused.code, 0, "{args:?}");
        let path = state.join(file).display().to_string();
        assert!(refused.stderr.contains(&path), "{}", refused.stderr);
        assert!(refused.stderr.contains("help:"), "{}", refused.stderr);
    };
    append(&state.join("peers"), "\nno address\n");
    realm.ok(&["status"]);
    let ticker = guest("ticker.wasm");
    fs::write(state.join("outbox"), "junk").unwrap();
    named("outbox", &["push", "ticker", &ticker]);
    fs::remove_file(state.join("outbox")).unwrap();
    fs::write(state.join("mark"), "").unwrap();
    named("mark", &["push", "ticker", &ticker]);
    fs::remove_file(state.join("mark")).unwrap();
    realm.ok(&["push", "ticker", &ticker]);

    realm.ok(&["init", "--name", "shop"]);
    fs::write(state.join("genesis"), "junk").unwrap();
    assert!(realm.ok(&["ls"]).contains("shop"));
    let id = state.file_name().unwrap().to_str().unwrap().to_owned();
    named("genesis", &["status", "--realm", &id]);
}

fn append(path: &Path, text: &str) {
    let mut file = fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
