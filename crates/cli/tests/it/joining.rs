//! Who comes in by which invite and name, and what the owner is told of those that should not.

use crate::{cluster, faketime, free_port};

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
fn who_let_a_node_in_is_shown_also_when_that_one_is_revoked() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let (one, two) = (realm.address("one"), realm.address("two"));
    let show = |name: &str, via: &str| {
        realm_testkit::wait_for("the node", || {
            let shown = realm.run(&["nodes", "show", name, "-o", "json", "--via", via]);
            serde_json::from_str::<serde_json::Value>(&shown.stdout).ok()
        })
    };
    let key = key_of(&realm, "one");
    assert_eq!(show("two", &one)["witnesses"], serde_json::json!([key]));
    assert_eq!(
        show("one", &one)["let_in"],
        serde_json::json!([key_of(&realm, "two")])
    );
    let text = realm.ok(&["nodes", "show", "two", "--via", &one]);
    assert!(text.contains("let in by    one"), "{text}");

    realm.ok(&["nodes", "revoke", "one", "--yes", "--via", &two]);
    realm_testkit::wait_for("the revocation", || {
        (show("one", &two)["state"] == "revoked").then_some(())
    });
    assert_eq!(show("two", &two)["state"], "ready");
    let text = realm.ok(&["nodes", "show", "one", "--via", &two]);
    assert!(text.contains("has let in   two"), "{text}");
}

#[test]
fn a_first_node_whose_invite_names_itself_begins_the_realm() {
    let mut realm = cluster();
    let at = format!("/ip4/127.0.0.1/tcp/{}", free_port());
    let token = realm.ok(&["invite", "--quiet", "--name", "one", "--bootstrap", &at]);
    let file = realm.path().join("one.token");
    std::fs::write(&file, token).unwrap();
    let file = file.display().to_string();
    realm.add_agent("one", &["--enroll-file", &file, "--listen", &at]);
    realm.wait_ready("one");
}

#[test]
fn an_invite_is_used_once_and_expires() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let data = |name: &str| realm.data(name).display().to_string();
    let enroll = |token: &str, name: &str, env: &[(&str, &str)]| {
        realm.run_with(&["enroll", token.trim(), "--data", &data(name)], env)
    };
    // The agent says the same of a token as the command does.
    let both = |token: &str, env: &[(&str, &str)]| {
        let enrolled = enroll(token, "late", env);
        let (path, file) = (data("late"), realm.path().join("late.token"));
        std::fs::write(&file, token).unwrap();
        let (file, http) = (file.display().to_string(), ["--http", "127.0.0.1:0"]);
        let agent = [
            "agent",
            "--no-mdns",
            "--data",
            &path,
            "--enroll-file",
            &file,
        ];
        let listen = ["--listen", "/ip4/127.0.0.1/tcp/0"];
        let started = realm.run_with(&[&agent[..], &listen, &http].concat(), env);
        assert_eq!(started.code, enrolled.code, "{}", started.stderr);
        assert!(
            started.stderr.ends_with(&enrolled.stderr),
            "{}",
            started.stderr
        );
        assert!(
            enrolled.stderr.contains("realm invite\n"),
            "{}",
            enrolled.stderr
        );
        enrolled
    };
    let bad = both("realm-invite:AAAA", &[]);
    assert_eq!(bad.code, 2, "{}", bad.stderr);

    let invite = ["invite", "--quiet", "--name", "two", "--ttl", "10m"];
    let token = realm.ok(&[&invite[..], &["--bootstrap", &one]].concat());
    if let Some(library) = faketime() {
        for (day, words) in [("-1d", "not valid yet"), ("+1d", "expired")] {
            let refused = both(&token, &[("LD_PRELOAD", &library), ("FAKETIME", day)]);
            assert_eq!(refused.code, 4, "{}", refused.stderr);
            assert!(refused.stderr.contains(words), "{}", refused.stderr);
        }
        assert!(!realm.data("late").join("owner.pin").exists());
    }
    // In time, by two: the second one brings nobody in, and is told to the owner.
    for name in ["two", "again"] {
        assert_eq!(enroll(&token, name, &[]).code, 0);
    }
    realm.add_agent("two", &[]);
    let first = key_of(&realm, "two");
    realm.wait_status("one", "the first use counts", |status| {
        is(status, &first, "ready", "two")
    });
    assert_eq!(
        realm.status("one").unwrap()["alarms"],
        serde_json::json!([])
    );
    realm.add_agent("again", &[]);
    let second = key_of(&realm, "again");
    realm.wait_status("one", "the second use is an alarm", |status| {
        let alarm = &status["alarms"][0];
        alarm["code"] == "invite-used-twice"
            && is(status, &second, "pending", "two")
            && alarm["nodes"]
                .as_array()
                .unwrap()
                .contains(&second.as_str().into())
    });
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
