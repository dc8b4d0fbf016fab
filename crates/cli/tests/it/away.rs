//! A node that was away while much was decided.

use std::time::Instant;

use realm_testkit::wait_for;

use crate::{
    flood::{Deliveries, STILL},
    guest, three_nodes,
};

const INTENTS: u64 = 1_000;

#[test]
fn who_was_away_for_a_thousand_intents_or_is_new_has_them_all() {
    let mut realm = three_nodes();
    let one = realm.address("one");
    realm.ok(&[
        "push",
        STILL,
        &guest("hello.wasm"),
        "--no-start",
        "--via",
        &one,
    ]);
    let (ticker, away) = (guest("ticker.wasm"), ["--node", "three"]);
    realm.ok(&[
        &["push", "ticker", &ticker, "--wait", "--via", &one][..],
        &away,
    ]
    .concat());
    realm.kill("three");

    let mut deliveries = Deliveries::new(&realm, "one", "two");
    let before = deliveries.revision();
    for _ in 0..INTENTS {
        deliveries.deliver();
    }
    let wanted = deliveries.revision();
    assert_eq!(wanted, before + INTENTS);

    let began = Instant::now();
    realm.start("three");
    realm.add_node("four", &[]);
    for name in ["three", "four"] {
        wait_for(&format!("{name} has them"), || {
            (realm.status(name)?["revision"] == wanted).then_some(())
        });
        println!("{name} has them after {:?}", began.elapsed());
    }
    realm.wait_ready("one");
    let verified = |name| {
        let verified = realm.run_at(name, &["history", "verify"]);
        assert_eq!(verified.code, 0, "{verified:?}");
        verified.stderr
    };
    let said = verified("one");
    assert!(said.contains(&format!("{wanted} intents")), "{said}");
    for name in ["three", "four"] {
        assert_eq!(verified(name), said);
    }
    realm.wait_status("three", "its work goes on", |status| {
        let of_it = |one: &&serde_json::Value| one["name"] == "ticker";
        let mut components = status["components"].as_array().unwrap().iter();
        components.find(of_it).unwrap()["running"] == 1
    });
}
