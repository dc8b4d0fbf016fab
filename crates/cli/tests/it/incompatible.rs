//! An intent of a later version: a node keeps it, says that it does not understand it, and goes on with what it did.

use realm_identity::{Artifact, Body, Entry, Hash, Signed, Target, Timestamp};
use realm_planner::{State, fold};
use realm_rpc::ErrorCode;
use realm_store::{Ledger, Op};
use realm_testkit::Cluster;
use serde_json::Value;

use crate::{
    cluster, guest,
    liar::as_owner,
    picture::{cells_on, component},
};

/// No version has this kind.
const UNKNOWN: u16 = 60_000;
const PAYLOAD: &[u8] = b"of a later version";

/// An intent of an unknown kind on the head that the node has.
fn unknown(realm: &Cluster, address: &str) -> Signed<Entry> {
    as_owner(realm, address, async |owner, realm, operator| {
        let head = operator.head().await.unwrap();
        let newest = Signed::<Entry>::from_wire(&head.entry).unwrap();
        let parent = State::decode(&head.parent_state).unwrap();
        let state = fold::apply(&parent, &newest, &head.payload).unwrap();
        let body = Body {
            state: state.digest(),
            kind: UNKNOWN,
            target: Target::Realm,
            not_after: None,
            issued_at: Timestamp(1),
            payload: Artifact::of(PAYLOAD),
        };
        let entry = Entry::new(realm, owner.public(), head.seq + 1, newest.hash(), body);
        let Ok(signed) = Signed::sign(entry, owner);
        let refused = operator.submit(&signed.to_wire(), PAYLOAD).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.code,
            ErrorCode::Unsupported,
            "nobody can add it here: {refused:?}"
        );
        signed
    })
}

/// Leaves the intent in a node's ledger, as an agent of a later version that ran there would.
fn keep(realm: &Cluster, name: &str, intent: &Signed<Entry>) {
    let path = realm.data(name).join("ledger.redb");
    let mut ledger = Ledger::open(&path).unwrap();
    let payload = Op::Payload {
        sha256: Hash::of(PAYLOAD),
        bytes: PAYLOAD.to_vec(),
    };
    let entry = Op::Entry {
        hash: intent.hash(),
        wire: intent.to_wire(),
    };
    ledger.commit(&[payload, entry]).unwrap();
}

fn all_incompatible(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.len() == 2 && nodes.iter().all(|node| node["state"] == "incompatible")
}

#[test]
fn a_kind_of_a_later_version_stops_the_fold_and_no_cell() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let one = realm.address("one");
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &one]);
    let cells = |status: &Value| {
        let mut nodes = cells_on(component(status, "ticker"));
        nodes.sort();
        nodes
    };
    let start = |status: &Value| {
        let mut cells = component(status, "ticker")["cells"]
            .as_array()
            .unwrap()
            .iter();
        let here = cells.find(|cell| cell["node"] == "one").unwrap();
        here["started_at"].clone()
    };
    let before = realm.status("one").unwrap();
    let intent = unknown(&realm, &one);
    assert_eq!(realm.stop("two"), 0);
    keep(&realm, "two", &intent);
    realm.start("two");

    let after = realm.wait_status("one", "both say that they are behind", |status| {
        all_incompatible(status) && cells(status) == ["one", "two"]
    });
    assert_eq!(
        start(&after),
        start(&before),
        "the one that was running runs on"
    );
    let listed = realm.ok(&["nodes", "ls", "--via", &one]);
    assert_eq!(listed.matches("incompatible").count(), 2, "{listed}");
    for name in ["one", "two"] {
        let log = realm.log(name);
        let told = "kind 60000 kind=\"incompatible\" subject=\"revision 2\"";
        assert!(log.contains(told), "{name} does not say why: {log}");
    }

    // Nobody signs on what this version does not understand.
    let refused = realm.run(&["push", "other", &ticker, "--via", &one]);
    assert_ne!(refused.code, 0, "{}", refused.stdout);
}
