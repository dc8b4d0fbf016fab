//! What files, variables and flags set: of the agent, and of what is pushed.

use std::{io::Write as _, process::Stdio};

use realm_testkit::Cluster;
use serde_json::Value;

use crate::{cluster, guest};

/// Writes a file below the directory that stands for `/etc/realm`.
fn system_file(realm: &Cluster, name: &str, text: &str) {
    let path = realm.path().join("etc").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn system_dir(realm: &Cluster) -> String {
    realm.path().join("etc").display().to_string()
}

/// The node that was asked.
fn own(status: &Value) -> &Value {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["link"] == "self").unwrap()
}

#[test]
fn an_agent_is_set_up_by_the_system_then_its_directory_then_the_user_then_flags() {
    let mut realm = cluster();
    system_file(
        &realm,
        "agent.toml",
        "name = \"from-system\"\ntags = [\"system\"]\nmemory_mb = 8\nmdns = false\n",
    );
    system_file(&realm, "agent.d/20-later.toml", "memory_mb = 48\n");
    system_file(
        &realm,
        "agent.d/10-first.toml",
        "memory_mb = 9\ntags = [\"first\"]\nlog = \"realm_agent=debug\"\n",
    );
    system_file(&realm, "agent.d/ignored.conf", "this is not read");
    std::fs::write(
        realm.path().join("config/agent.toml"),
        "name = \"from-user\"\n",
    )
    .unwrap();
    // An invite without a name leaves the name to the node.
    let token = realm.path().join("token");
    std::fs::write(&token, realm.ok(&["invite", "--quiet"])).unwrap();
    let token = token.display().to_string();
    let etc = system_dir(&realm);
    let args = ["--enroll-file", &token, "--system-dir", &etc];
    realm.add_agent("one", &args);
    // The user's file is read last, and agent.d goes before agent.toml.
    realm.wait_status("one", "the node is as the files say", |status| {
        let node = own(status);
        node["name"] == "from-user" && node["tags"] == serde_json::json!(["first"])
    });
    // The ceiling of the last file of agent.d holds: one such cell fits, two do not.
    let hello = guest("ticker.wasm");
    let via = realm.address("one");
    let push = [
        "push",
        "ticker",
        &hello,
        "--memory-max-mb",
        "32",
        "--via",
        &via,
    ];
    realm.ok(&[&push[..], &["--replicas", "1", "--wait"]].concat());
    realm.ok(&["scale", "ticker=2", "--via", &via]);
    let full = realm.wait_status("one", "there is no room for two", |status| {
        let component = &status["components"][0];
        component["running"] == 1 && component["state"] == "degraded"
    });
    let why = full["components"][0]["reason"]["message"].as_str().unwrap();
    assert!(why.contains("room"), "{why}");
    assert!(
        realm.log("one").contains("DEBUG realm_agent"),
        "what agent.d says of the log is in force"
    );
    // A flag has the last word.
    assert_eq!(realm.stop("one"), 0);
    let flags = ["--system-dir", &etc, "--name", "from-flag", "--tag", "flag"];
    realm.start_with("one", &flags);
    realm.wait_status("one", "the flags are in force", |status| {
        let node = own(status);
        node["name"] == "from-flag" && node["tags"] == serde_json::json!(["flag"])
    });
}

#[test]
fn a_mistake_in_a_file_of_the_agent_stops_it_with_words() {
    let realm = cluster();
    system_file(&realm, "agent.d/10.toml", "memry_mb = 10\n");
    let etc = system_dir(&realm);
    let data = realm.data("one").display().to_string();
    let agent = ["agent", "--system-dir", &etc, "--data", &data];
    let refused = realm.run(&agent);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for word in ["10.toml", "memry_mb", "memory_mb"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    system_file(&realm, "agent.d/10.toml", "log = \"realm=loud\"\n");
    let refused = realm.run(&agent);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("loud"), "{}", refused.stderr);
}

#[test]
fn the_trace_level_tells_of_every_rpc_message() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let status = ["status", "--via", &via];
    let traced = realm.run_with(&status, &[("RUST_LOG", "realm=trace")]);
    for what in [
        "bootstrap #",
        "call #",
        "membrane.1",
        "operator.",
        "return #",
    ] {
        assert!(traced.stderr.contains(what), "{what}: {}", traced.stderr);
    }
    let quiet = realm.run_with(&status, &[("RUST_LOG", "realm=debug")]);
    assert!(!quiet.stderr.contains("call #"), "{}", quiet.stderr);
}

#[test]
fn every_limit_of_a_push_is_in_force_and_named_by_flags() {
    let mut realm = cluster();
    realm.add_node("one", &["edge"]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let spin = guest("spin.wasm");
    let job = |name: &str, limits: &[&str]| {
        let push = [
            "push", "--name", name, "--file", &spin, "--peer", "one", "--tag", "edge",
        ];
        let rest = ["--restart", "never", "--via", &via];
        realm.ok(&[&push[..], limits, &rest].concat());
    };
    job("fuel", &["--fuel", "1000000"]);
    job("deadline", &["--deadline-ms", "300", "--epoch-ms", "10"]);
    let status = realm.wait_status("one", "both met their limit", |status| {
        let components = status["components"].as_array().unwrap();
        components.len() == 2 && components.iter().all(|one| one["state"] == "failed")
    });
    let of = |name: &str| {
        let components = status["components"].as_array().unwrap();
        let found = components.iter().find(|one| one["name"] == name);
        found.unwrap().clone()
    };
    let why = |name: &str| of(name)["reason"]["message"].as_str().unwrap().to_owned();
    assert!(why("fuel").contains("1000000"), "{}", why("fuel"));
    assert!(why("deadline").contains("300"), "{}", why("deadline"));
    // 300 ms in slices of 10 ms, less where others have the processor; without the flag 3 at most.
    let cell = &of("deadline")["cells"][0];
    assert!(cell["preemptions"].as_u64().unwrap() >= 5, "{cell}");

    let grow = guest("grow.wasm");
    let small = ["--memory-max-mb", "16", "--restart", "never"];
    realm.ok(&[&["push", "grow", &grow, "--via", &via][..], &small].concat());
    let status = realm.wait_status("one", "it met the end of its memory", |status| {
        let components = status["components"].as_array().unwrap();
        let grow = components.iter().find(|one| one["name"] == "grow");
        grow.is_some_and(|grow| {
            !grow["cells"][0]["exit_code"].is_null() || grow["state"] == "failed"
        })
    });
    let components = status["components"].as_array().unwrap();
    let grow = components.iter().find(|one| one["name"] == "grow").unwrap();
    assert_eq!(grow["cells"][0]["memory_max_bytes"], 16 * 1024 * 1024);
    let lines = realm.ok(&["logs", "grow", "--via", &via]);
    let told = lines.split("refused after ").nth(1).unwrap();
    let got: u64 = told.split(' ').next().unwrap().parse().unwrap();
    assert!((4..16).contains(&got), "{lines}");
}

/// A core module with a start, and an import that nobody offers.
const WANTS_MORE: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0f\x01\x03env\x07nothing\0\0\x07\x0a\x01\x06_start\0\0";

#[test]
fn what_no_node_can_run_is_refused_before_it_is_signed() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let file = realm.path().join("wants-more.wasm");
    std::fs::write(&file, WANTS_MORE).unwrap();
    let file = file.display().to_string();
    let refused = realm.run(&["push", "more", &file, "--via", &via]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("env/nothing"), "{}", refused.stderr);
    let http = realm.run(&["push", "web", &guest("hello-http.wasm"), "--via", &via]);
    assert_eq!(http.code, 2, "{}", http.stderr);
    assert!(http.stderr.contains("wasi:http"), "{}", http.stderr);
    assert_eq!(realm.status("one").unwrap()["revision"], 0);
}

#[test]
fn a_program_comes_from_standard_input() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let piped = |args: &[&str]| {
        let mut command = realm.command();
        let command = command.args(args).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let program = std::fs::read(guest("hello.wasm")).unwrap();
        child.stdin.take().unwrap().write_all(&program).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(piped(&["inspect", "-"]).contains("component"));
    assert!(piped(&["run", "-"]).contains("hello"));
    piped(&["push", "hello", "-", "--wait", "--via", &via]);
    assert_eq!(
        realm.status("one").unwrap()["components"][0]["state"],
        "done"
    );
}

#[test]
fn what_cannot_be_used_is_refused_by_its_own_name() {
    let person = cluster();
    for address in ["garbage", "127.0.0.1:2020"] {
        let refused = person.run(&["invite", "--bootstrap", address]);
        assert_eq!(refused.code, 2, "{}", refused.stdout);
        assert!(refused.stderr.contains(address), "{}", refused.stderr);
    }
    let encrypted = person.path().join("other/owner.key").display().to_string();
    let words = person.path().join("words").display().to_string();
    std::fs::write(&words, "open sesame").unwrap();
    let other = ["--key", &encrypted, "--passphrase-file"];
    let init = [
        &other[..],
        &[&words, "init", "--name", "other", "--passphrase"],
    ]
    .concat();
    person.ok(&init);
    let missing = person.run(&[&other[..], &["nof", "invite", "--realm", "other"]].concat());
    assert_eq!(missing.code, 5, "{}", missing.stderr);
    assert!(
        missing.stderr.contains("passphrase file nof"),
        "{}",
        missing.stderr
    );
    let nothing = person.run(&["invite", "--key", "/dev/null"]);
    assert_ne!(nothing.code, 0);
    assert!(!nothing.stderr.contains("chmod"), "{}", nothing.stderr);

    // A relative directory would be another one wherever a command is run.
    let mut command = person.command();
    let relative = command
        .args(["ls"])
        .env("HOME", "rel")
        .env("XDG_STATE_HOME", "rel")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&relative.stderr).into_owned();
    assert_eq!(relative.status.code(), Some(1), "{words}");
    assert!(words.contains("HOME"), "{words}");
}
