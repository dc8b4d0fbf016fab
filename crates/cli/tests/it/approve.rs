//! Nodes that ask to join, approved several at once.

use realm_testkit::Cluster;

use crate::cluster;

/// A node that trusts the owner and has nobody's approval.
fn add_asking(realm: &mut Cluster, place: &str, name: &str, bootstrap: &str) {
    let owner = realm.ok(&["key", "show"]);
    let data = realm.data(place).display().to_string();
    let configure = ["configure", "--owner", owner.trim(), "--data", &data];
    realm.ok(&[&configure[..], &["--bootstrap", bootstrap]].concat());
    realm.add_agent(place, &["--name", name]);
}

fn count(status: &serde_json::Value, state: &str) -> usize {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().filter(|node| node["state"] == state).count()
}

#[test]
fn several_nodes_are_approved_at_once_or_none() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    for name in ["two", "three"] {
        add_asking(&mut realm, name, name, &one);
    }
    realm.wait_status("one", "both ask", |status| count(status, "pending") == 2);

    let approve = |nodes: &[&str]| {
        let rest = ["--tag", "new", "--via", &one];
        realm.run(&[&["nodes", "approve"][..], nodes, &rest].concat())
    };
    let unknown = approve(&["two", "three", "nobody"]);
    assert_eq!(unknown.code, 5, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("nobody"), "{}", unknown.stderr);
    let named = approve(&["two", "three", "--name", "same"]);
    assert_eq!(named.code, 2, "{}", named.stderr);
    let status = realm.status("one").unwrap();
    assert_eq!(status["revision"], 0, "nothing was signed");
    assert_eq!(count(&status, "pending"), 2);

    // One of them is named twice, and approved once.
    let done = approve(&["two", "three", "two"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let status = realm.wait_status("one", "all are in", |status| count(status, "ready") == 3);
    assert_eq!(status["revision"], 2, "an entry for each");
    for name in ["two", "three"] {
        let nodes = status["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == name).unwrap();
        assert_eq!(node["tags"], serde_json::json!(["new"]), "{node}");
    }
}

#[test]
fn two_that_would_have_one_name_are_both_refused() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    for place in ["left", "right"] {
        add_asking(&mut realm, place, "twin", &one);
    }
    let status = realm.wait_status("one", "both ask", |status| count(status, "pending") == 2);
    let nodes = status["nodes"].as_array().unwrap();
    let mut approve = vec!["nodes", "approve", "--via", &one];
    let asking = nodes.iter().filter(|node| node["state"] == "pending");
    approve.extend(asking.map(|node| node["key"].as_str().unwrap()));
    let refused = realm.run(&approve);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--name"), "{}", refused.stderr);
    assert_eq!(realm.status("one").unwrap()["revision"], 0);
}
