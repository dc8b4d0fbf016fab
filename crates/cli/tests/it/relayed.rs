//! Nodes that have no way to each other but a relay: what `realm network` and `realm doctor` tell of them.

use realm_testkit::{Cluster, wait_for};
use serde_json::Value;

use crate::{
    KilledAtTheEnd, cluster,
    nat::{Net, addresses, agent, command, inside, invite},
};

/// What the doctor of a node's own machine finds of who is reached, and what helps.
fn reach(realm: &Cluster, ns: &str, name: &str, via: &str) -> Option<(String, String, String)> {
    let args = ["doctor", "-o", "json", "--via", via];
    let mut doctor = command(realm, ns, &args);
    let output = doctor.env("REALM_DATA_DIR", realm.data(name)).output();
    let told: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let mut checks = told["checks"].as_array().unwrap().iter();
    let found = checks.find(|one| one["check"] == "reach")?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((text("state"), text("found"), text("help")))
}

/// The words of one line of a table.
fn row<'t>(table: &'t str, to: &str) -> Vec<&'t str> {
    let mut rows = table.lines().map(|line| line.split_whitespace().collect());
    let row = rows.find(|row: &Vec<&str>| row.get(1) == Some(&to));
    row.unwrap_or_else(|| panic!("no {to}: {table}"))
}

#[test]
fn a_link_that_leads_through_a_relay_is_told_with_the_relay_and_so_is_who_is_not_reached() {
    let Some(mut net) = Net::new() else { return };
    let realm = cluster();
    let public = net.add("a", 1, false);
    let (left, right) = (net.add("b", 2, true), net.add("c", 3, true));
    // No hole can be punched.
    net.part("b", "c");
    invite(&realm, "public", None);
    let relay: KilledAtTheEnd = agent(&realm, &public, "public", &["--no-mdns"]);
    let hub = addresses(&realm, "public", "/ip4/45.45.45.1/");
    invite(&realm, "left", Some(&hub));
    invite(&realm, "right", Some(&hub));
    let _left = agent(&realm, &left, "left", &["--no-mdns"]);
    let _right = agent(&realm, &right, "right", &["--no-mdns"]);
    addresses(&realm, "left", "/p2p-circuit/");
    addresses(&realm, "right", "/p2p-circuit/");
    let via = addresses(&realm, "left", "/ip4/45.45.45.2/");

    let right_via = addresses(&realm, "right", "/ip4/45.45.45.3/");
    // One of them called, and the other was called: both know by what way.
    for (ns, via, other) in [(&left, &via, "right"), (&right, &right_via, "left")] {
        let links = wait_for("the links to both others", || {
            let told = inside(&realm, ns, &["network", "-o", "json", "--via", via])?;
            let told: Value = serde_json::from_str(&told).ok()?;
            let links = told["links"].as_array()?.clone();
            let linked = links.iter().filter(|link| link["link"].is_string());
            (linked.count() == 2).then_some(links)
        });
        let to = |name: &str| links.iter().find(|link| link["to"] == name).unwrap();
        assert_eq!(to(other)["link"], "relay", "{links:?}");
        assert_eq!(to(other)["relay"], "public", "{links:?}");
        assert_eq!(to("public")["relay"], Value::Null, "{links:?}");
    }

    let table = inside(&realm, &left, &["network", "--via", &via]).unwrap();
    let header = ["FROM", "TO", "STATE", "LINK", "RTT", "RELAY", "ADDRESS"];
    let first: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, header);
    let (relayed, direct) = (row(&table, "right"), row(&table, "public"));
    assert_eq!((relayed[3], relayed[5]), ("relay", "public"), "{table}");
    assert!(relayed[6].contains("/p2p-circuit/"), "{table}");
    assert_eq!(direct[5], "-", "{table}");
    assert!(["quic", "tcp"].contains(&direct[3]), "{table}");
    let last = table.lines().last().unwrap();
    assert_eq!(last, "2 of 2 linked; relays in use: public");
    let table = inside(&realm, &public, &["network", "--via", &hub]).unwrap();
    let last = table.lines().last().unwrap();
    assert_eq!(last, "2 of 2 linked; no relay is in use");

    let both = "reached through a relay alone: left (by public), right (by public)";
    // What each says of itself comes with its next report.
    let (state, help) = wait_for("both are relayed", || {
        let (state, words, help) = reach(&realm, &left, "left", &via)?;
        (words == both).then_some((state, help))
    });
    assert_eq!(state, "warning");
    assert!(help.starts_with("let its port "), "{help}");
    let all = format!("{both}; reached directly: public");
    wait_for("and one is not", || {
        let (_, words, _) = reach(&realm, &public, "public", &hub)?;
        (words == all).then_some(())
    });

    drop(relay);
    let alone = wait_for("left has no relay", || {
        let (state, words, help) = reach(&realm, &left, "left", &via)?;
        words
            .starts_with("reached by nobody outside")
            .then_some((state, words, help))
    });
    let (state, words, help) = alone;
    assert_eq!(state, "warning");
    assert!(
        words.starts_with("reached by nobody outside, and no node relays: left"),
        "{words}"
    );
    assert!(
        help.contains("take a node into the realm that everybody reaches"),
        "{help}"
    );
}
