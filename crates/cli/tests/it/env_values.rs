//! Values of a component's environment may be secret: they are for the program alone.

use realm_testkit::wait_for;

use crate::{
    cluster, guest,
    http::{ask, token},
    page::http_address,
    picture::component,
};

const CANARY: &str = "canary-5e1f7d0c";

#[test]
fn a_value_of_an_env_is_told_to_its_program_and_to_nobody_else() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
        // As much as an agent ever says.
        assert_eq!(realm.stop(name), 0);
        realm.set_env(name, &[("RUST_LOG", "info,realm=trace")]);
        realm.start(name);
    }
    realm.wait_ready("one");
    let via = realm.address("one");
    let env = ["--env", &format!("VALUE={CANARY}"), "--via", &via];
    let push = |name: &str, file: &str, flags: &[&str]| {
        realm.ok(&[&["push", name, &guest(file)][..], &env, flags].concat());
    };
    push("keeps", "ticker.wasm", &["--wait"]);
    // What becomes of a program has reasons, and they are words about it.
    push("fails", "exit-code.wasm", &["--arg", "3"]);
    push("panics", "panic.wasm", &["--restart", "never"]);
    push("nowhere", "ticker.wasm", &["--tag", "no-node"]);
    realm.ok(&["restart", "keeps", "--via", &via]);
    realm.wait_status("one", "each has come to its end", |status| {
        let restarts = &component(status, "fails")["cells"][0]["restarts"];
        let panicked = component(status, "panics")["state"] == "failed";
        panicked && restarts.as_u64().is_some_and(|restarts| restarts >= 1)
    });

    let mut told = Vec::new();
    for node in ["one", "two"] {
        let (address, token) = (http_address(&realm, node), token(&realm, node));
        for path in [
            "/metrics",
            "/v1/status",
            "/v1/events",
            "/logs?tail=10000",
            "/logs?previous=1&tail=10000",
        ] {
            // The other node restarts its cell when it has heard of that.
            let body = wait_for(&format!("words of {path} of {node}"), || {
                let (code, body) = ask(&address, path, &[&token], None);
                assert_eq!(code, 200, "{path} of {node}: {body}");
                (body.len() > 40).then_some(body)
            });
            told.push((format!("{path} of {node}"), body));
        }
        told.push((format!("the log of {node}"), realm.log(node)));
    }
    let sse = "Accept: text/event-stream";
    let (address, token) = (http_address(&realm, "one"), token(&realm, "one"));
    let (_, events) = ask(&address, "/logs?follow=0", &[&token, sse], None);
    told.push(("/logs as events".to_owned(), events));
    for form in ["json", "text"] {
        for words in [
            &["status"][..],
            &["status", "--wide"],
            &["events"],
            &["network", "--all"],
            &["doctor"],
            &["nodes", "ls"],
            &["nodes", "show", "two"],
            &["logs", "--all"],
        ] {
            let printed = realm.run(&[words, &["-o", form, "--via", &via]].concat());
            let both = printed.stdout + &printed.stderr;
            told.push((format!("realm {} -o {form}", words.join(" ")), both));
        }
    }
    for (what, words) in &told {
        assert!(words.len() > 40, "{what} tells nothing: {words}");
        assert!(!words.contains(CANARY), "{what}: {words}");
    }
    let all = |word: &str| {
        told.iter()
            .filter(|(_, words)| words.contains(word))
            .count()
    };
    assert!(all("keeps") > 8 && all("panics") > 8, "it is told of them");

    // Its program has it, and what that prints is shown.
    push("prints", "env-dump.wasm", &["--wait"]);
    wait_for("what the program prints", || {
        let (_, lines) = ask(&address, "/logs?component=prints", &[&token], None);
        lines.contains(CANARY).then_some(())
    });
}
