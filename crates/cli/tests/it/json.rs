//! `-o json` of what is read right here: one object or list, with these keys.

use realm_testkit::Cluster;
use serde_json::{Value, json};

use crate::cluster;

fn read(realm: &Cluster, args: &[&str]) -> Value {
    serde_json::from_str(&realm.ok(&[args, &["-o", "json"]].concat())).unwrap()
}

#[test]
fn what_is_known_here_is_told_as_json() {
    let mut realm = cluster();
    let key = realm.ok(&["key", "show"]).trim().to_owned();
    let shown = read(&realm, &["key", "show"]);
    assert_eq!(shown["key"], key.as_str());
    assert!(
        shown["file"]
            .as_str()
            .unwrap()
            .ends_with("config/owner.key")
    );
    let fingerprint = shown["fingerprint"].as_str().unwrap();
    assert!(fingerprint.split('-').count() > 2, "{fingerprint}");

    realm.ok(&["init", "--name", "other"]);
    realm.ok(&["use", "test"]);
    let realms = read(&realm, &["ls"]);
    let of = |name: &str| {
        let found = realms
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {name}: {realms}"))
            .clone()
    };
    for (name, current) in [("test", true), ("other", false)] {
        let one = of(name);
        assert_eq!(one["current"], current);
        assert_eq!(one["owner"], key.as_str());
        assert_eq!(one["revision"], 0);
        assert_eq!(one["id"].as_str().unwrap().len(), 64);
    }

    assert_eq!(read(&realm, &["peer", "ls"]), json!([]));
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let peers = read(&realm, &["peer", "ls"]);
    assert!(
        peers.as_array().unwrap().contains(&via.clone().into()),
        "{peers}"
    );

    let config = read(&realm, &["config", "show", "--via", &via]);
    assert_eq!(config["via"], json!({ "value": via, "origin": "flag" }));
    assert_eq!(config["config-dir"]["origin"], "variable REALM_CONFIG_DIR");
}
