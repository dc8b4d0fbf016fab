//! A node whose directory was set back: others remember a later start of it.

use std::time::{SystemTime, UNIX_EPOCH};

use realm_identity::{PublicKey, SecretKey, Signed, Timestamp};
use realm_manifest::report::NodeReport;
use realm_store::DataDir;
use realm_testkit::Cluster;
use serde_json::Value;

use crate::{
    cluster, guest,
    history::copy_dir,
    liar::{Liar, listen_to},
    picture::node,
};

/// Until it runs on both.
fn push(realm: &Cluster, name: &str, via: &str) {
    let args = ["push", name, &guest("ticker.wasm"), "--via", via];
    let wait = ["--wait=all", "--timeout", "30s"];
    realm.ok(&[&args[..], &wait].concat());
}

#[test]
fn a_node_that_others_remember_a_later_start_of_is_heard_at_once() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    for name in ["one", "two"] {
        realm.wait_ready(name);
    }
    let one = realm.address("one");
    push(&realm, "before", &one);
    realm.stop("two");
    let (data, copy) = (realm.data("two"), realm.path().join("copy"));
    copy_dir(&data, &copy);

    // It starts again with its clock ahead by an hour, and others hear it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ahead = u64::try_from(now.as_millis()).unwrap() + 3_600_000;
    let dir = DataDir::open(&data).unwrap();
    dir.state_file("boot").write(&ahead.to_be_bytes()).unwrap();
    drop(dir);
    realm.start("two");
    push(&realm, "ahead", &one);
    realm.stop("two");

    std::fs::remove_dir_all(&data).unwrap();
    copy_dir(&copy, &data);
    realm.start("two");
    push(&realm, "after", &one);
    let log = std::fs::read_to_string(realm.path().join("two.log")).unwrap();
    assert!(log.contains("others remember a later start"), "{log}");
    assert_eq!(
        log.matches("starting again").count(),
        2,
        "told once, in two ways: {log}"
    );
    assert_eq!(realm.stop("two"), 0);
}

#[test]
fn a_node_of_which_nothing_new_is_heard_is_named_and_its_clock_is_not_blamed() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let status = realm.wait_status("one", "two is heard", |status| {
        let nodes = status["nodes"].as_array().unwrap();
        nodes.len() == 2 && nodes.iter().all(|node| node["last_seen"].is_string())
    });
    let two: PublicKey = node(&status, "two")["key"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let me = SecretKey::from_seed(&[66; 32]);
    let mut told = listen_to(&realm, &realm.address("one"), me.public());

    // As one tells it after some minutes in which it took nothing of two's word.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    let old = Timestamp(now - 7 * 60_000);
    told.survey
        .nodes
        .entry(me.public())
        .or_default()
        .view
        .last_seen = Some(Timestamp(now));
    let sighting = told.survey.nodes.get_mut(&two).unwrap();
    sighting.view.last_seen = Some(old);
    (sighting.view.present, sighting.view.settled) = (true, true);
    let report = Signed::<NodeReport>::from_wire(sighting.report.as_ref().unwrap()).unwrap();
    let mut report = report.into_inner();
    report.at = old;
    let seed = std::fs::read(realm.data("two").join("node.key")).unwrap();
    let key = SecretKey::from_seed(&seed[..32].try_into().unwrap());
    let signed = Signed::sign(report, &key).unwrap();
    sighting.report = Some(signed.to_wire().into());

    let liar = Liar::at("/ip4/127.0.0.1/tcp/0", told, me);
    let status = realm.ok(&["status", "-o", "json", "--via", &liar.address]);
    let status: Value = serde_json::from_str(&status).unwrap();
    let codes: Vec<&Value> = status["alarms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["code"])
        .collect();
    assert_eq!(codes, ["unheard"], "{status}");
    let message = status["alarms"][0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("two is here, and its newest report came 7min ago"),
        "{message}"
    );
    let looked = realm.run(&["doctor", "--via", &liar.address]).stdout;
    assert!(
        looked.contains("older copy of its data directory"),
        "{looked}"
    );
    assert!(!looked.contains("behind this machine"), "{looked}");
}
