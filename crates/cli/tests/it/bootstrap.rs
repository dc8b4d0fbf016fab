//! Ways into a realm that are flags: a token on the command line, roles, and addresses of several forms.

use realm_testkit::{Cluster, wait_for};

use crate::{cluster, picture::node};

fn data(realm: &Cluster, name: &str) -> String {
    realm.data(name).display().to_string()
}

#[test]
fn a_token_is_a_flag_and_a_role_is_a_tag() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let invite = ["invite", "--quiet", "--name", "two", "--bootstrap", &one];
    let token = realm.ok(&invite);
    let two = data(&realm, "two");
    realm.ok(&["enroll", "--token", token.trim(), "--data", &two]);
    realm.add_agent("two", &["--role", "edge", "--role", "zone=north"]);
    let status = realm.wait_status("one", "it is in, with its roles", |status| {
        let two = node(status, "two");
        two["state"] == "ready" && two["tags"].as_array().unwrap().len() == 2
    });
    let tags = serde_json::json!(["edge", "zone=north"]);
    assert_eq!(node(&status, "two")["tags"], tags);
}

/// The port of a running node's address over QUIC.
fn quic_port(realm: &Cluster, name: &str) -> String {
    let info = std::fs::read(realm.data(name).join("agent.json")).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    let mut addresses = info["addresses"].as_array().unwrap().iter();
    let text = addresses.find_map(|address| address.as_str()?.split_once("/udp/"));
    text.unwrap().1.split('/').next().unwrap().to_owned()
}

#[test]
fn a_node_is_told_of_several_addresses_by_name_and_in_the_older_form() {
    let mut realm = cluster();
    let quic = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    realm.add_node_with("one", &[], &quic);
    realm.wait_ready("one");
    wait_for("an address over QUIC", || {
        let info = std::fs::read_to_string(realm.data("one").join("agent.json")).ok()?;
        info.contains("/quic-v1").then_some(())
    });
    let owner = realm.ok(&["key", "show"]);
    let data = data(&realm, "two");
    // The first answers to nobody; the second is that of the requirements, with its port.
    let named = format!("/dns4/localhost/udp/{}/quic", quic_port(&realm, "one"));
    let configure = ["configure", "--owner", owner.trim(), "--data", &data];
    let bootstrap = ["--bootstrap", "/ip4/127.0.0.1/udp/1/quic", &named];
    realm.ok(&[&configure[..], &bootstrap].concat());
    realm.add_agent("two", &["--name", "two"]);
    realm.wait_status("one", "it came by that address", |status| {
        node(status, "two")["state"] == "pending"
    });
}
