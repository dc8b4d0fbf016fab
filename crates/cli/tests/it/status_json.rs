//! `status -o json` is what programs read: exactly these keys at each level, and null where nothing is known.

use std::collections::BTreeSet;

use realm_testkit::Cluster;
use serde_json::Value;

use crate::{cluster, guest};

const STATUS: &str = "alarms apiVersion components drift forked nodes realm revision";
const REALM: &str = "id name";
const NODE: &str = "address cell_count cpu_percent key last_seen link memory_bytes name problems \
                    rtt_ms sealing_certificate state tags version";
const COMPONENT: &str = "cells desired desired_nodes digest name reason running set_by state";
const SET_BY: &str = "by revision";
const CELL: &str = "crashes exit_code fuel_used id index memory_bytes memory_max_bytes node preemptions \
                    reason restart_at restarts started_at state";
const DRIFT: &str = "component have index node reason want";
const REASON: &str = "code help message";
const ALARM: &str = "code help message nodes";

/// Exactly these keys.
fn has(object: &Value, keys: &str) {
    let found: BTreeSet<&str> = object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let wanted: BTreeSet<&str> = keys.split_whitespace().collect();
    assert_eq!(found, wanted, "{object:#}");
}

/// Exactly these keys in each; there is one at least.
fn each_has<'a>(objects: &'a Value, keys: &str) -> &'a Vec<Value> {
    let objects = objects.as_array().unwrap();
    assert!(!objects.is_empty(), "nothing has {keys}");
    objects.iter().for_each(|object| has(object, keys));
    objects
}

/// Null, or these keys; answers whether there was one.
fn reason(of: &Value) -> bool {
    let reason = &of["reason"];
    if reason.is_null() {
        return false;
    }
    has(reason, REASON);
    true
}

fn exact(status: &Value) {
    has(status, STATUS);
    assert_eq!(status["apiVersion"], "realm/v1");
    has(&status["realm"], REALM);
    each_has(&status["nodes"], NODE);
    let mut reasons = 0;
    for component in each_has(&status["components"], COMPONENT) {
        has(&component["set_by"], SET_BY);
        reasons += usize::from(reason(component));
        if component["cells"] != serde_json::json!([]) {
            let cells = each_has(&component["cells"], CELL);
            reasons += cells.iter().filter(|cell| reason(cell)).count();
        }
    }
    assert!(
        reasons >= 2,
        "a component and a cell have reasons: {status:#}"
    );
    let drift = each_has(&status["drift"], DRIFT);
    assert!(drift.iter().any(reason), "{status:#}");
    each_has(&status["alarms"], ALARM);
}

/// One node that runs, one that is away, and two that used one invite, which is an alarm.
fn scene(realm: &mut Cluster) {
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let token = realm.path().join("shared").display().to_string();
    let invite = ["invite", "--quiet", "--name", "shared", "--bootstrap", &one];
    std::fs::write(&token, realm.ok(&invite)).unwrap();
    for place in ["left", "right"] {
        realm.add_agent(place, &["--enroll-file", &token]);
    }
    // Who is approved changes until then, which ends what commands were allowed.
    realm.wait_status("one", "both wait for the owner", |status| {
        let nodes = status["nodes"].as_array().unwrap().iter();
        nodes.filter(|node| node["state"] == "pending").count() == 2
    });
    let (ticker, code) = (guest("ticker.wasm"), guest("exit-code.p1.wasm"));
    let on_both = ["--peer", "one", "--peer", "two", "--via", &one];
    realm.ok(&[&["push", "ticker", &ticker, "--wait"][..], &on_both].concat());
    let bad = ["push", "bad", &code, "--arg", "3", "--restart", "never"];
    realm.ok(&[&bad[..], &["--peer", "one", "--via", &one]].concat());
    realm.ok(&[
        "push", "nowhere", &ticker, "--tag", "no-node", "--via", &one,
    ]);
    realm.kill("two");
}

#[test]
fn the_json_of_status_has_exactly_these_keys() {
    let mut realm = cluster();
    scene(&mut realm);
    let is = |status: &Value, at: usize, state: &str| status["components"][at]["state"] == state;
    let status = realm.wait_status("one", "everything is told", |status| {
        let lost = |node: &Value| node["state"] == "lost";
        is(status, 0, "failed")
            && status["nodes"].as_array().unwrap().iter().any(lost)
            && status["alarms"] != serde_json::json!([])
            && status["components"][2]["cells"].as_array().unwrap().len() == 2
    });
    exact(&status);

    // How a node that is away is reached nobody knows; what it said last is told with when that was.
    let of = |list: &Value, key: &str, value: &str| {
        let mut list = list.as_array().unwrap().iter();
        list.find(|one| one[key] == value).unwrap().clone()
    };
    let away = of(&status["nodes"], "name", "two");
    assert_eq!(away["link"], Value::Null, "{away:#}");
    assert_eq!(away["rtt_ms"], Value::Null, "{away:#}");
    // One that was never let in said nothing of itself.
    let asks = of(&status["nodes"], "state", "pending");
    for unknown in ["cpu_percent", "memory_bytes", "cell_count"] {
        assert_eq!(asks[unknown], Value::Null, "{unknown}: {asks:#}");
    }
    assert_ne!(away["last_seen"], Value::Null);
    let own = of(&status["nodes"], "name", "one");
    assert_eq!(own["link"], "self");
    assert!(own["memory_bytes"].as_u64().unwrap() > 0);
    let ticker = of(&status["components"], "name", "ticker");
    let there = of(&ticker["cells"], "node", "two");
    assert_eq!(there["state"], Value::Null, "{there:#}");
    // Fuel is not counted where nothing limits it.
    assert_eq!(there["fuel_used"], Value::Null, "{there:#}");
    let here = of(&ticker["cells"], "node", "one");
    assert_eq!(here["exit_code"], Value::Null, "it runs");
    assert_eq!(here["id"], "one/ticker#0");
    for time in [&here["started_at"], &away["last_seen"]] {
        let text = time.as_str().unwrap();
        assert!(
            text.contains('T') && text.ends_with('Z'),
            "RFC 3339 in UTC: {text}"
        );
    }
}

#[test]
fn the_json_of_one_component_is_the_same_form() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let code = guest("exit-code.p1.wasm");
    for name in ["first", "second"] {
        let push = ["push", name, &code, "--arg", "3", "--restart", "never"];
        realm.ok(&[&push[..], &["--via", &via]].concat());
    }
    realm.wait_status("one", "both have failed", |status| {
        let mut components = status["components"].as_array().unwrap().iter();
        components.all(|one| one["state"] == "failed")
    });
    let one = realm.ok(&["status", "second", "-o", "json", "--via", &via]);
    let one: Value = serde_json::from_str(&one).unwrap();
    has(&one, STATUS);
    assert_eq!(one["apiVersion"], "realm/v1");
    assert_eq!(one["components"].as_array().unwrap().len(), 1);
    assert_eq!(one["components"][0]["name"], "second");
    for drift in each_has(&one["drift"], DRIFT) {
        assert_eq!(drift["component"], "second");
    }
    let none = realm.run(&["status", "third", "-o", "json", "--via", &via]);
    assert_eq!(none.code, 5, "{}", none.stderr);
}
