//! Two agents with one key, as where a node's data directory was copied.

use realm_testkit::{Cluster, wait_for};
use serde_json::Value;

use crate::{history::copy_dir, three_nodes};

fn has_alarm(status: &Value) -> bool {
    let alarms = status["alarms"].as_array().unwrap();
    alarms.iter().any(|alarm| alarm["code"] == "twin")
}

fn present(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().all(|node| node["state"] == "ready")
}

/// Nodes "one", "two" and "three", and a copy of "three" in "copy", which does not run.
fn copied() -> Cluster {
    let mut realm = three_nodes();
    for name in ["two", "three"] {
        realm.wait_ready(name);
    }
    realm.stop("three");
    copy_dir(&realm.data("three"), &realm.data("copy"));
    realm.start("three");
    realm.wait_status("one", "all are here", present);
    realm
}

#[test]
fn two_agents_with_one_key_are_an_alarm() {
    let mut realm = copied();
    realm.add_agent("copy", &[]);
    let status = realm.wait_status("one", "the alarm", has_alarm);
    let alarms = status["alarms"].as_array().unwrap();
    let alarm = alarms.iter().find(|alarm| alarm["code"] == "twin").unwrap();
    let message = alarm["message"].as_str().unwrap();
    assert!(
        message.contains("two agents run with the key of three"),
        "{message}"
    );
    let help = alarm["help"].as_str().unwrap();
    assert!(help.contains("stop one of the two"), "{help}");
    wait_for("the event", || {
        let one = realm.address("one");
        let events = realm.ok(&["events", "--node", "one", "--via", &one]);
        events.contains("twin").then_some(())
    });
    assert_eq!(realm.run(&["explain", "twin"]).code, 0);
}

#[test]
fn a_node_that_starts_again_somewhere_else_is_no_twin() {
    let mut realm = copied();
    // At another address, from another directory, again and again.
    for round in 0..4 {
        let (old, new) = match round % 2 {
            0 => ("three", "copy"),
            _ => ("copy", "three"),
        };
        realm.kill(old);
        realm.wait_status("one", "it is gone", |status| !present(status));
        std::fs::remove_dir_all(realm.data(new)).unwrap();
        copy_dir(&realm.data(old), &realm.data(new));
        match round {
            0 => realm.add_agent(new, &[]),
            _ => realm.start(new),
        }
        let status = realm.wait_status("one", "it is back", present);
        assert!(!has_alarm(&status), "{status}");
    }
}
