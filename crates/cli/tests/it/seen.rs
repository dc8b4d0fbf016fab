//! `realm events` and `realm network`: what nodes tell of themselves and of each other.

use std::time::SystemTime;

use realm_testkit::wait_for;
use serde_json::Value;

use crate::{cluster, guest};

fn lines(printed: &str) -> Vec<Value> {
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn events_tell_what_happened_on_every_node_in_order() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let push = [
        "push",
        "greeter",
        &guest("ticker.wasm"),
        "--wait",
        "--via",
        &via,
    ];
    realm.ok(&push);

    let all = lines(&realm.ok(&["events", "-o", "json", "--via", &via]));
    let times: Vec<&str> = all
        .iter()
        .map(|one| one["time"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    for node in ["one", "two"] {
        for kind in ["pulled", "started"] {
            let of = |one: &&Value| one["node"] == node && one["kind"] == kind;
            // Whoever was sent the program did not pull it.
            let sent = node == "one" && kind == "pulled";
            assert!(
                sent || all.iter().any(|one| of(&one)),
                "{node} {kind}: {all:#?}"
            );
        }
    }
    let of_two = lines(&realm.ok(&["events", "--node", "two", "-o", "json", "--via", &via]));
    assert!(of_two.iter().all(|one| one["node"] == "two"), "{of_two:#?}");
    let last = realm.ok(&["events", "--tail", "1", "--via", &via]);
    assert_eq!(last.lines().count(), 1, "{last}");

    // Followed, also when a node was away.
    let printed = realm.path().join("events");
    let file = std::fs::File::create(&printed).unwrap();
    let mut follow = realm.command();
    follow
        .args(["events", "-f", "-o", "json", "--via", &via])
        .stdout(file);
    let _follow = crate::KilledAtTheEnd(follow.spawn().unwrap());
    let count = |node: &str, kind: &str| {
        let printed = std::fs::read_to_string(&printed).unwrap();
        let whole = &printed[..printed.rfind('\n').map_or(0, |end| end + 1)];
        let of = |one: &&Value| one["node"] == node && one["kind"] == kind;
        lines(whole).iter().filter(of).count()
    };
    let more = |node: &str, kind: &str, before: usize| {
        wait_for(&format!("{kind} of {node} again"), || {
            (count(node, kind) > before).then_some(())
        });
    };
    more("two", "started", 0);
    let (lost, started) = (count("one", "lost"), count("two", "started"));
    realm.kill("two");
    more("one", "lost", lost);
    realm.start("two");
    more("two", "started", started);

    // Those since a moment after the first ones, and none of these.
    let time = |event: &Value| {
        let time = event["time"].as_str().unwrap();
        humantime::parse_rfc3339(time).unwrap()
    };
    let newest = all.iter().map(time).max().unwrap();
    let age = SystemTime::now().duration_since(newest).unwrap();
    let since = format!("{}ms", age.as_millis() - 1);
    let later = lines(&realm.ok(&["events", "--since", &since, "-o", "json", "--via", &via]));
    assert!(later.iter().all(|event| time(event) > newest), "{later:#?}");
    let is_lost = |event: &Value| event["node"] == "one" && event["kind"] == "lost";
    assert!(later.iter().any(is_lost), "{later:#?}");
    let none = realm.run(&["events", "--since", "0s", "--via", &via]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    assert!(none.stderr.contains("no events"), "{}", none.stderr);

    let lost = count("one", "lost");
    realm.kill("two");
    more("one", "lost", lost);
    let named = realm.run(&["events", "--via", &via]);
    assert_eq!(named.code, 0);
    assert!(
        named.stderr.contains("no events from two: it is lost"),
        "{}",
        named.stderr
    );
    let asked = realm.run(&["events", "--node", "two", "--via", &via]);
    assert_eq!(asked.code, 6, "{}", asked.stderr);
}

#[test]
fn network_shows_every_way_with_its_link_and_speed() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let both = wait_for("both ways have been measured", || {
        let told = realm.run(&["network", "--all", "-o", "json", "--via", &via]);
        let all: Value = serde_json::from_str(&told.stdout).ok()?;
        let links = all["links"].as_array().unwrap().clone();
        (links.len() == 2 && links.iter().all(|link| link["rtt_ms"].is_f64())).then_some(links)
    });
    for (link, (from, to)) in both.iter().zip([("one", "two"), ("two", "one")]) {
        assert_eq!((&link["from"], &link["to"]), (&from.into(), &to.into()));
        assert_eq!(link["link"], "tcp");
        assert_eq!(link["relay"], Value::Null);
    }
    let text = realm.ok(&["network", "--via", &via]);
    assert!(text.contains("1 of 1 linked; no relay is in use"), "{text}");

    realm.kill("two");
    realm.wait_status("one", "two is lost", |status| {
        status["nodes"][1]["state"] == "lost"
    });
    let text = realm.ok(&["network", "--via", &via]);
    assert!(
        text.contains("0 of 1 linked") && text.contains("lost"),
        "{text}"
    );
}

#[test]
fn a_message_with_several_lines_is_one_line_of_the_agents_log() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let (file, via) = (guest("hello.wasm"), realm.address("one"));
    let note = "first\n2026-01-01T00:00:00Z  WARN realm: forged";
    let push = ["push", "hello", &file, "--no-start", "--via", &via];
    realm.ok(&[&push[..], &["-m", note]].concat());
    let line = wait_for("the line", || {
        let log = realm.log("one");
        log.lines()
            .find(|line| line.contains("(first"))
            .map(str::to_owned)
    });
    assert!(line.contains("first\\n2026-01-01"), "{line}");
    assert!(!realm.log("one").contains("\n2026-01-01"));
}
