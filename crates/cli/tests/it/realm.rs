//! The main job: push once, and it runs on every node, whatever happens to them.

use crate::{
    cluster, guest,
    picture::{cells_on, component, node},
    three_nodes,
};

#[test]
fn a_push_runs_on_every_node_and_every_verb_works() {
    let mut realm = cluster();
    for name in ["one", "two", "three"] {
        realm.add_node(name, &["edge"]);
    }
    realm.wait_ready("one");
    let one = realm.address("one");
    let via = ["--via", one.as_str()];
    let verb = |args: &[&str]| realm.ok(&[args, &via].concat());

    verb(&[
        "push",
        "ticker",
        &guest("ticker.wasm"),
        "--env",
        "NAME=zebra",
        "--wait",
    ]);
    for name in ["one", "two", "three"] {
        let status = realm.wait_status(name, "three cells", |status| {
            component(status, "ticker")["running"] == 3
        });
        assert_eq!(status["apiVersion"], "realm/v1");
        assert_eq!(status["revision"], 1);
        assert_eq!(status["drift"].as_array().unwrap().len(), 0);
        assert!(
            !status.to_string().contains("zebra"),
            "values of env never appear in status"
        );
    }
    assert!(verb(&["logs", "ticker", "--tail", "2"]).contains("zebra"));
    for name in ["one", "two", "three"] {
        let log = realm.log(name);
        assert!(log.contains("starting a cell"), "{log}");
        assert!(
            !log.contains("zebra"),
            "values of env never appear in the agent's log"
        );
    }
    let lines = verb(&["logs", "ticker"]);
    for name in ["one", "two", "three"] {
        assert!(lines.contains(&format!("{name}/ticker#0")), "{lines}");
    }
    assert!(verb(&["history"]).contains("push"));
    let first: serde_json::Value =
        serde_json::from_str(verb(&["history", "-o", "json"]).lines().next().unwrap()).unwrap();
    let hash = first["hash"].as_str().unwrap();
    assert_eq!(hash.len(), 64, "a whole digest, for programs");
    verb(&["history", "verify"]);

    // The same push again is no new revision.
    verb(&["push", "ticker", &guest("ticker.wasm"), "--wait"]);
    assert_eq!(realm.status("one").unwrap()["revision"], 1);

    verb(&["scale", "ticker=2", "--wait"]);
    realm.wait_status("two", "two cells", |status| {
        cells_on(component(status, "ticker")).len() == 2
    });
    verb(&["stop", "ticker"]);
    realm.wait_status("two", "no cells", |status| {
        component(status, "ticker")["state"] == "stopped"
            && cells_on(component(status, "ticker")).is_empty()
    });
    verb(&["start", "ticker", "--wait"]);
    verb(&["restart", "ticker", "--wait"]);
    realm.wait_status("three", "two cells again", |status| {
        component(status, "ticker")["running"] == 2
    });
    verb(&["push", "other", &guest("ticker.wasm"), "--wait"]);
    let unknown = realm.run(&["rm", "ticker", "nothing", "--via", &one]);
    assert_eq!(unknown.code, 5, "{}", unknown.stderr);
    let status = realm.status("one").unwrap();
    assert!(component(&status, "ticker").is_object(), "none is removed");
    verb(&["rm", "ticker", "other", "--wait"]);
    for name in ["one", "two"] {
        let status = realm.status(name).unwrap();
        assert_eq!(node(&status, name)["cell_count"], 0);
    }
    realm.wait_status("three", "nothing", |status| {
        status["components"].as_array().unwrap().is_empty()
    });
    assert_eq!(realm.run(&["stop", "ticker", "--via", &one]).code, 5);
}

#[test]
fn a_job_that_ends_well_is_done_and_one_that_fails_says_why() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    realm.ok(&["push", "job", &guest("hello.wasm"), "--wait", "--via", &one]);
    let status = realm.status("one").unwrap();
    assert_eq!(component(&status, "job")["state"], "done");
    realm.ok(&[
        "push",
        "bad",
        &guest("exit-code.p1.wasm"),
        "--arg",
        "7",
        "--restart",
        "never",
        "--via",
        &one,
    ]);
    let status = realm.wait_status("one", "the failure", |status| {
        component(status, "bad")["state"] == "failed"
    });
    let cell = &component(&status, "bad")["cells"][0];
    assert_eq!(cell["exit_code"], 7);
    assert!(cell["reason"]["help"].is_string(), "{cell}");
    realm.ok(&[
        "push",
        "tight",
        &guest("spin.wasm"),
        "--deadline-ms",
        "200",
        "--restart",
        "never",
        "--via",
        &one,
    ]);
    let status = realm.wait_status("one", "the limit", |status| {
        component(status, "tight")["state"] == "failed"
    });
    let message = component(&status, "tight")["reason"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("deadline") && message.contains("200"),
        "{message}"
    );
    realm.ok(&[
        "push",
        "loud",
        &guest("flood.wasm"),
        "--wait",
        "--via",
        &one,
    ]);
    let status = realm.wait_status("one", "the paced output", |status| {
        component(status, "loud")["reason"]["message"].is_string()
    });
    let message = component(&status, "loud")["reason"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("output") && message.contains("1048576"),
        "{message}"
    );
    realm.ok(&["push", "lib", &guest("adder.wasm"), "--wait", "--via", &one]);
    let status = realm.wait_status("one", "the library", |status| {
        component(status, "lib")["state"] == "done"
    });
    assert_eq!(component(&status, "lib")["reason"]["code"], "library");
    let text = realm.path().join("text");
    std::fs::write(&text, "no wasm").unwrap();
    assert_eq!(
        realm
            .run(&["push", "text", &text.display().to_string(), "--via", &one])
            .code,
        2
    );
}

#[test]
fn killed_nodes_lose_nothing_and_their_work_moves_and_returns() {
    let mut realm = three_nodes();
    realm.ok(&[
        "push",
        "ticker",
        &guest("ticker.wasm"),
        "--replicas",
        "2",
        "--wait",
        "--via",
        &realm.address("one"),
    ]);
    for name in ["one", "two", "three"] {
        let other = if name == "one" { "two" } else { "one" };
        realm.wait_status(other, "two cells", |status| {
            component(status, "ticker")["running"] == 2
        });
        realm.kill(name);
        realm.wait_status(other, "the node is lost, its work is elsewhere", |status| {
            node(status, name)["state"] == "lost"
                && component(status, "ticker")["running"] == 2
                && node(status, name)["last_seen"].is_string()
        });
        // An intent that the killed node has to learn of when it is back.
        let waited = realm.run(&[
            "restart",
            "ticker",
            "--wait",
            "--via",
            &realm.address(other),
        ]);
        assert_eq!(waited.code, 0, "{}", waited.stderr);
        assert!(
            waited.stderr.contains(&format!("lost: {name}")),
            "{}",
            waited.stderr
        );
        let revision = realm.status(other).unwrap()["revision"].clone();
        realm.start(name);
        realm.wait_status(name, "the returned node has the whole log", |status| {
            status["revision"] == revision
        });
        realm.wait_ready(other);
    }
    realm.wait_status("three", "two cells at the end", |status| {
        component(status, "ticker")["running"] == 2
    });
}

#[test]
fn all_nodes_restarted_go_on_where_they_were() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    realm.ok(&[
        "push",
        "ticker",
        &guest("ticker.wasm"),
        "--wait",
        "--via",
        &realm.address("one"),
    ]);
    assert_eq!(realm.stop("two"), 0, "{}", realm.log("two"));
    assert_eq!(realm.stop("one"), 0, "{}", realm.log("one"));
    realm.start("one");
    realm.start("two");
    realm.wait_status("two", "both run again", |status| {
        status["revision"] == 1 && component(status, "ticker")["running"] == 2
    });
}

#[test]
fn waiting_for_all_counts_the_lost() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "each", &ticker, "--wait", "--via", &one]);
    realm.kill("two");
    realm.wait_status("one", "two is lost, and missing", |status| {
        node(status, "two")["state"] == "lost"
            && status["drift"][0]["node"] == "two"
            && status["drift"][0]["have"] == "lost"
    });
    let push = [
        "push",
        "each",
        &ticker,
        "--env",
        "NAME=again",
        "--via",
        &one,
    ];
    let present = realm.run(&[&push[..], &["--wait"]].concat());
    assert_eq!(present.code, 0, "{}", present.stderr);
    assert!(present.stderr.contains("lost: two"), "{}", present.stderr);
    let all = realm.run(&[&push[..], &["--wait=all", "--timeout", "2s"]].concat());
    assert_eq!(all.code, 6, "{}", all.stderr);
    assert!(all.stderr.contains("two: lost"), "{}", all.stderr);
    assert_eq!(realm.run(&["status", "--exit-code", "--via", &one]).code, 3);
    // Back again, it is waited for from its first second.
    realm.start("two");
    realm.wait_ready("one");
    realm.ok(&[&push[..], &["--wait=all"]].concat());
    let status = realm.status("one").unwrap();
    assert_eq!(cells_on(component(&status, "each")).len(), 2);
}

#[test]
fn three_agents_in_one_process_are_a_realm() {
    let mut realm = cluster();
    for name in ["one", "two", "three"] {
        realm.add_node_here(name);
    }
    realm.wait_ready("one");
    let one = realm.address("one");
    let push = ["push", "ticker", &guest("ticker.wasm"), "--replicas", "3"];
    realm.ok(&[&push[..], &["--wait", "--via", &one]].concat());
    realm.stop_here("three");
    realm.wait_status("one", "its replica is elsewhere", |status| {
        node(status, "three")["state"] == "lost" && component(status, "ticker")["running"] == 3
    });
}

#[test]
fn a_version_that_cannot_start_leaves_the_one_before_running() {
    /// A program with more memories than a cell may have.
    const FIVE_MEMORIES: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\
        \x05\x0b\x05\0\0\0\0\0\0\0\0\0\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let bad = realm.path().join("bad.wasm");
    std::fs::write(&bad, FIVE_MEMORIES).unwrap();
    realm.ok(&[
        "push",
        "web",
        &guest("sleeper.wasm"),
        "--wait",
        "--via",
        &one,
    ]);
    realm.ok(&["push", "web", bad.to_str().unwrap(), "--via", &one]);
    let status = realm.wait_status("one", "the failure", |status| {
        component(status, "web")["cells"][0]["state"] == "failed"
    });
    let cell = &component(&status, "web")["cells"][0];
    assert_eq!(cell["reason"]["code"], "limit", "{cell}");
    // The memory of the one before, which placement must not give to others.
    assert!(cell["memory_bytes"].as_u64() > Some(0), "{cell}");
    realm.ok(&[
        "push",
        "web",
        &guest("ticker.wasm"),
        "--wait",
        "--via",
        &one,
    ]);
    let status = realm.status("one").unwrap();
    assert_eq!(component(&status, "web")["state"], "running");
}
