//! What happens to single nodes of a realm: they are killed, stopped for a while, told a wrong time, or have one
//! family of addresses only.

use std::fs;

use serde_json::{Value, json};

use super::scene::{self, figure};
use crate::{faketime, guest};

#[test]
fn nodes_killed_one_after_the_other_lose_no_intent_that_was_acknowledged() {
    const NODES: u8 = 5;
    let Some(mut scene) = scene::ready(NODES) else {
        return;
    };
    let all = usize::from(NODES);
    let ticker = guest("ticker.wasm");
    scene.ok(0, &["push", "ticker", &ticker, "--replicas", "4"]);
    scene.wait_running("ticker", 4, 0..all);
    for index in 0..all {
        let name = scene.names[index].clone();
        scene.realm.kill(&name);
        // Who is asked is killed next.
        let cells = format!("ticker={}", 5 + index);
        scene.ok((index + 1) % all, &["scale", &cells]);
        scene.realm.start(&name);
    }
    let every = 1 + all as u64;
    let took = scene.wait("every intent on every node", |page| {
        page.revision() == Some(every) && !page.is_forked() && page.nodes("ready") == all
    });
    figure("all intents everywhere after the last start", took);
    scene.wait_running("ticker", 4 + all, 0..all);
}

#[test]
fn a_node_that_was_stopped_for_a_while_does_its_part_again() {
    const NODES: u8 = 4;
    let Some(scene) = scene::ready(NODES) else {
        return;
    };
    let last = usize::from(NODES) - 1;
    let (name, awake) = (scene.names[last].clone(), 0..last);
    let ticker = guest("ticker.wasm");
    scene.ok(0, &["push", "ticker", &ticker, "--replicas", "8"]);
    scene.wait_running("ticker", 8, 0..last + 1);
    scene.realm.signal(&name, "STOP");
    scene.wait_of("it is lost", awake.clone(), |page| page.nodes("lost") == 1);
    // Its connections are open still.
    let links: Value = serde_json::from_str(&scene.ok(0, &["network", "-o", "json"])).unwrap();
    let mut links = links["links"].as_array().unwrap().iter();
    let way = links.find(|way| way["to"] == *name).unwrap();
    assert_eq!(
        (&way["state"], &way["link"]),
        (&json!("lost"), &Value::Null)
    );
    scene.ok(0, &["scale", "ticker=10"]);
    // Its work is given to others, which takes its 10 s.
    scene.wait_running("ticker", 10, awake);
    scene.realm.signal(&name, "CONT");
    let took = scene.wait("it is back, and knows what it missed", |page| {
        page.nodes("ready") == last + 1 && page.revision() == Some(2)
    });
    figure("a stopped node is back", took);
    scene.wait_running("ticker", 10, 0..last + 1);
}

#[test]
fn a_clock_that_jumps_harms_nobody_and_is_named() {
    let Some(library) = faketime() else { return };
    let Some(mut scene) = scene::of(3) else {
        return;
    };
    let clock = scene.realm.path().join("clock");
    fs::write(&clock, "+0\n").unwrap();
    let name = scene.names[2].clone();
    let env = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    scene.realm.set_env(&name, &env);
    scene.start();
    scene.wait("three nodes", |page| page.nodes("ready") == 3);
    let ticker = guest("ticker.wasm");
    scene.ok(0, &["push", "ticker", &ticker, "--wait"]);
    // The push was the first revision.
    for (revision, jump) in (2..).zip(["+400d", "-3650d"]) {
        fs::write(&clock, format!("{jump}\n")).unwrap();
        let asked = scene.names[0].clone();
        scene
            .realm
            .wait_status(&asked, "the clock is named", |status| {
                let alarms = status["alarms"].as_array().unwrap().iter();
                let mut clocks = alarms.filter(|alarm| alarm["code"] == "clock");
                clocks.any(|alarm| alarm["message"].as_str().unwrap().contains(&name))
            });
        // Whoever signs asks the one that is wrong.
        scene.ok(2, &["restart", "ticker"]);
        scene.wait("the intent is everywhere", |page| {
            page.revision() == Some(revision) && page.nodes("ready") == 3
        });
        scene.wait_running("ticker", 3, 0..3);
    }
    fs::write(&clock, "+0\n").unwrap();
    let asked = scene.names[0].clone();
    let right = |status: &serde_json::Value| status["alarms"].as_array().unwrap().is_empty();
    scene.realm.wait_status(&asked, "the clock is right", right);
    // Nobody was lost, or waited for, by a time on the wall.
    for index in 0..3 {
        let page = scene.page(index).unwrap();
        assert_eq!(
            page.value("realm_events_total", "kind=\"lost\"")
                .unwrap_or(0.0),
            0.0
        );
    }
}

#[test]
fn hosts_without_ipv4_find_each_other() {
    const NODES: u8 = 3;
    let Some(mut scene) = scene::of(NODES) else {
        return;
    };
    for host in scene.net.hosts() {
        let mut ip = host.command("ip");
        let flushed = ip.args(["-4", "addr", "flush", "dev", "eth0"]).status();
        assert!(flushed.unwrap().success());
    }
    scene.start();
    figure("ready over IPv6 alone", scene.wait_ready());
    let ticker = guest("ticker.wasm");
    scene.ok(0, &["push", "ticker", &ticker, "--replicas", "3", "--wait"]);
    let found = scene.ok(0, &["doctor"]);
    assert!(
        found.contains("nodes of the local network can be found"),
        "{found}"
    );
}
