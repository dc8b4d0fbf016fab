//! Flags of `realm push`, each seen by what it changes on a node.

use std::{
    fs,
    time::{Duration, Instant},
};

use realm_testkit::{Cluster, PATIENCE, wait_for};
use serde_json::Value;

use crate::{
    cluster, guest,
    picture::component,
    trust::{get, http_address},
};

/// A component that prints its vars.
const READER: &str = include_str!("../../../runtime/tests/it/vars.wat");

fn one_node() -> Cluster {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    realm
}

/// Pushes through `one`, and waits where the flags say so.
fn push(realm: &Cluster, name: &str, file: &str, flags: &[&str]) {
    let via = realm.address("one");
    realm.ok(&[&["push", name, file, "--via", &via][..], flags].concat());
}

/// What the present run of a component has written.
fn lines(realm: &Cluster, name: &str) -> String {
    realm.ok(&["logs", name, "--via", &realm.address("one")])
}

#[test]
fn env_comes_from_a_file_and_flags_and_is_told_where_it_looks_secret() {
    let realm = one_node();
    let via = realm.address("one");
    let file = realm.path().join("env").display().to_string();
    fs::write(
        &file,
        "# what it needs\nFIRST=from-file\nSECOND=from-file\n",
    )
    .unwrap();
    let dump = guest("env-dump.wasm");
    let given = ["--env-file", &file, "--env", "SECOND=from-flag"];
    let flags = ["--env", "DB_PASSWORD=hunter2", "--wait", "--via", &via];
    let pushed = realm.run(&[&["push", "env", &dump][..], &given, &flags].concat());
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    let warned: Vec<&str> = pushed
        .stderr
        .lines()
        .filter(|line| line.contains("secret"))
        .collect();
    assert_eq!(warned.len(), 1, "{}", pushed.stderr);
    assert!(warned[0].contains("DB_PASSWORD"), "{}", warned[0]);
    let seen = lines(&realm, "env");
    for line in [
        "env FIRST=from-file",
        "env SECOND=from-flag",
        "env DB_PASSWORD=hunter2",
    ] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    let status = realm.status("one").unwrap().to_string();
    assert!(
        !status.contains("hunter2") && !status.contains("from-file"),
        "{status}"
    );
    let missing = realm.run(&[
        "push",
        "env",
        &dump,
        "--env-file",
        "/nonexistent",
        "--via",
        &via,
    ]);
    assert_eq!(missing.code, 5, "{}", missing.stderr);
}

#[test]
fn a_component_is_placed_without_being_started() {
    let realm = one_node();
    let ticker = guest("ticker.wasm");
    push(&realm, "ticker", &ticker, &["--no-start"]);
    let status = realm.wait_status("one", "it is there", |status| {
        component(status, "ticker")["state"] == "stopped"
    });
    assert_eq!(component(&status, "ticker")["running"], 0);
    // What is not named stays, also whether it runs.
    push(&realm, "ticker", &ticker, &["--env", "NAME=later"]);
    assert_eq!(
        component(&realm.status("one").unwrap(), "ticker")["state"],
        "stopped"
    );
    assert!(
        !realm.log("one").contains("kind=\"started\""),
        "nothing ran so far"
    );
    push(&realm, "ticker", &ticker, &["--start", "--wait"]);
    assert_eq!(
        component(&realm.status("one").unwrap(), "ticker")["running"],
        1
    );
    push(&realm, "ticker", &ticker, &["--no-start"]);
    realm.wait_status("one", "it is stopped", |status| {
        let ticker = component(status, "ticker");
        ticker["state"] == "stopped" && ticker["running"] == 0
    });
}

#[test]
fn earlier_settings_stay_until_they_are_reset() {
    let realm = one_node();
    let dump = guest("env-dump.wasm");
    push(
        &realm,
        "env",
        &dump,
        &["--env", "KEPT=1", "--memory-max-mb", "16", "--wait"],
    );
    push(&realm, "env", &dump, &["--arg", "again", "--wait"]);
    let of =
        || component(&realm.status("one").unwrap(), "env")["cells"][0]["memory_max_bytes"].clone();
    assert_eq!(of(), 16 << 20);
    let seen = lines(&realm, "env");
    assert!(seen.contains("KEPT=1") && seen.contains("again"), "{seen}");
    push(
        &realm,
        "env",
        &dump,
        &["--reset", "--arg", "anew", "--wait"],
    );
    let seen = lines(&realm, "env");
    assert!(
        seen.contains("anew") && !seen.contains("KEPT") && !seen.contains("again"),
        "{seen}"
    );
    assert_eq!(of(), 64 << 20, "the default");
}

#[test]
fn vars_reach_the_program() {
    let realm = one_node();
    let file = realm.path().join("reader.wasm");
    fs::write(&file, wat::parse_str(READER).unwrap()).unwrap();
    let file = file.display().to_string();
    let vars = ["--var", "greeting=good day", "--var", "level=3"];
    push(&realm, "reader", &file, &[&vars[..], &["--wait"]].concat());
    let here = realm.ok(&[&["run", &file][..], &vars].concat());
    for seen in [lines(&realm, "reader"), here] {
        assert!(
            seen.contains("get: good day") && seen.contains("level=3"),
            "{seen}"
        );
    }
    assert!(realm.ok(&["run", &file]).contains("get: none"));
}

#[test]
fn a_node_is_named_by_its_key() {
    let mut realm = one_node();
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let status = realm.status("one").unwrap();
    let key = crate::picture::node(&status, "two")["key"]
        .as_str()
        .unwrap()
        .to_owned();
    push(
        &realm,
        "ticker",
        &guest("ticker.wasm"),
        &["--peer", &key, "--wait"],
    );
    let status = realm.status("one").unwrap();
    let ticker = component(&status, "ticker");
    assert_eq!(ticker["desired_nodes"], serde_json::json!(["two"]));
    assert_eq!(crate::picture::cells_on(ticker), ["two"]);
}

#[test]
fn what_is_always_restarted_is_started_again_also_after_success() {
    let realm = one_node();
    push(
        &realm,
        "hello",
        &guest("hello.wasm"),
        &["--restart", "always"],
    );
    realm.wait_status("one", "it was started again, and again", |status| {
        let restarts = &component(status, "hello")["cells"][0]["restarts"];
        restarts.as_u64().is_some_and(|restarts| restarts >= 2)
    });
    push(
        &realm,
        "hello",
        &guest("hello.wasm"),
        &["--restart", "on-failure"],
    );
    realm.wait_status("one", "success is enough now", |status| {
        component(status, "hello")["state"] == "done"
    });
}

/// Processor time that a process has used.
fn processor_time(pid: u32) -> Duration {
    // Clock ticks of Linux, for everybody who reads this file.
    const TICKS: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, which may hold anything, ends at the last bracket; utime and stime are 12 and 13 behind it.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// The share of one core that the agent's process takes, and the fuel that the cell burns, in a second.
fn taken(realm: &Cluster) -> (f64, Option<f64>) {
    const LONG: Duration = Duration::from_secs(3);
    let log = realm.log("one");
    let fuel = || {
        let page = get(http_address(&log), "/metrics", "localhost");
        let is_fuel = |line: &&str| line.starts_with("fuel_used_total{") && line.contains("spin");
        let line = page.lines().find(is_fuel)?;
        line.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    let pid = realm.pid("one");
    let (begun, time, burnt) = (Instant::now(), processor_time(pid), fuel());
    assert!(LONG < PATIENCE);
    wait_for("time to look at", || {
        (begun.elapsed() >= LONG).then_some(())
    });
    let (time, burnt_now) = (processor_time(pid) - time, fuel());
    let seconds = begun.elapsed().as_secs_f64();
    let rate = burnt
        .zip(burnt_now)
        .map(|(before, now)| (now - before) / seconds);
    (time.as_secs_f64() / seconds, rate)
}

#[test]
fn fuel_per_second_is_a_share_of_the_processor() {
    const PER_SEC: f64 = 20_000_000.0;
    let realm = one_node();
    let spin = guest("spin.wasm");
    push(
        &realm,
        "spin",
        &spin,
        &["--fuel-per-sec", "20000000", "--wait"],
    );
    let (limited, rate) = taken(&realm);
    let rate = rate.unwrap();
    assert!(
        rate > PER_SEC / 4.0 && rate < PER_SEC * 2.0,
        "{rate} a second"
    );
    push(&realm, "spin", &spin, &["--fuel-per-sec", "0", "--wait"]);
    let (free, _) = taken(&realm);
    assert!(limited < 0.4, "{limited} of a core");
    assert!(
        free > 2.0 * limited,
        "{limited} of a core with the limit, {free} without"
    );
}

#[test]
fn a_memory_limit_bounds_the_process() {
    const MIB: u64 = 1024 * 1024;
    let realm = one_node();
    let resident = || -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", realm.pid("one"))).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    // It takes all it can get, and keeps it.
    let flags = ["--arg", "hold", "--memory-max-mb", "48", "--wait"];
    push(&realm, "grow", &guest("grow.wasm"), &flags);
    let refused = wait_for("the end of its memory", || {
        let seen = lines(&realm, "grow");
        seen.contains("refused after").then_some(seen)
    });
    let after = refused.split("refused after ").nth(1).unwrap();
    let got: u64 = after.split(' ').next().unwrap().parse().unwrap();
    assert!((24..48).contains(&got), "{refused}");
    let status = realm.status("one").unwrap();
    let cell: &Value = &component(&status, "grow")["cells"][0];
    assert_eq!(cell["memory_max_bytes"], 48 * MIB);
    let told = cell["memory_bytes"].as_u64().unwrap();
    assert!(told > got * MIB && told <= 48 * MIB, "{cell}");
    let grown = resident().saturating_sub(before);
    assert!(grown > got * MIB / 2, "it is there: {grown}");
    assert!(grown < 48 * MIB + 32 * MIB, "and no more: {grown}");
}
