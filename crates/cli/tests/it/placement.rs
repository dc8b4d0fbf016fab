//! Where cells run, and where they do not.

use realm_testkit::wait_for;
use serde_json::Value;

use crate::{
    cluster, guest,
    picture::{cells_on, component, node},
    three_nodes,
};

#[test]
fn placement_follows_tags_and_names() {
    let mut realm = cluster();
    realm.add_node("one", &["edge"]);
    realm.add_node("two", &["core"]);
    realm.wait_ready("one");
    let one = realm.address("one");
    realm.ok(&[
        "push",
        "tagged",
        &guest("ticker.wasm"),
        "--tag",
        "core",
        "--wait",
        "--via",
        &one,
    ]);
    realm.ok(&[
        "push",
        "named",
        &guest("ticker.wasm"),
        "--peer",
        "one",
        "--wait",
        "--via",
        &one,
    ]);
    let status = realm.status("one").unwrap();
    assert_eq!(cells_on(component(&status, "tagged")), ["two"]);
    assert_eq!(cells_on(component(&status, "named")), ["one"]);
    realm.ok(&[
        "push",
        "nowhere",
        &guest("ticker.wasm"),
        "--tag",
        "moon",
        "--via",
        &one,
    ]);
    let status = realm.wait_status("one", "waiting", |status| {
        component(status, "nowhere")["state"] == "waiting"
    });
    assert!(component(&status, "nowhere")["reason"]["help"].is_string());
}

#[test]
fn a_restart_of_one_node_leaves_the_cells_of_others_alone() {
    let realm = three_nodes();
    let via = realm.address("one");
    let ok = |args: &[&str]| realm.ok(&[args, &["--via", &via]].concat());
    ok(&["push", "ticker", &guest("ticker.wasm"), "--wait"]);
    ok(&[
        "push",
        "named",
        &guest("ticker.wasm"),
        "--peer",
        "one",
        "--wait",
    ]);
    let started = || {
        let status = realm.status("one").unwrap();
        let cells = component(&status, "ticker")["cells"]
            .as_array()
            .unwrap()
            .clone();
        let mut started: Vec<_> = cells
            .iter()
            .map(|cell| (cell["node"].to_string(), cell["started_at"].to_string()))
            .collect();
        started.sort();
        started
    };
    let before = started();
    ok(&["restart", "ticker", "--nodes", "two", "--wait"]);
    let after = started();
    let changed: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .map(|(before, _)| before.0.as_str())
        .collect();
    assert_eq!(changed, ["\"two\""], "{before:?} {after:?}");
    let said = ok(&["history"]);
    assert!(
        said.contains("restart") && said.contains("ticker on "),
        "{said}"
    );
    // A node that has none of it would be nothing restarted.
    let none = realm.run(&["restart", "named", "--node", "two", "--via", &via]);
    assert_eq!(none.code, 5, "{}", none.stderr);
    assert!(
        none.stderr.contains("named has no cell on two"),
        "{}",
        none.stderr
    );
    let unknown = realm.run(&["restart", "nothing", "--node", "two", "--via", &via]);
    assert_eq!(unknown.code, 5, "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("no component nothing"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn a_drained_node_gives_its_cells_away_and_a_removed_one_is_gone() {
    let realm = three_nodes();
    let one = realm.address("one");
    let ok = |args: &[&str]| realm.ok(&[args, &["--via", &one]].concat());
    let ticker = guest("ticker.wasm");
    ok(&["push", "ticker", &ticker, "--replicas", "3", "--wait"]);
    ok(&["push", "each", &ticker, "--wait"]);
    ok(&["push", "only", &ticker, "--peer", "two", "--wait"]);
    let drain = [
        "nodes", "drain", "two", "--wait", "-m", "new disk", "--via", &one,
    ];
    let drained = realm.run(&drain);
    assert_eq!(drained.code, 0, "{}", drained.stderr);
    let history = realm.ok(&["history", "--via", &one]);
    let last = history.lines().last().unwrap();
    assert!(
        last.contains("two ") && last.contains(", drained"),
        "{history}"
    );
    let mut words = drained.stderr.lines();
    let only = words.find(|line| line.starts_with("warning: only has nowhere to run then"));
    let only = only.unwrap_or_else(|| panic!("{}", drained.stderr));
    assert!(only.contains("drains. Next: take a node up"), "{only}");
    assert!(
        !drained.stderr.contains("warning: ticker"),
        "{}",
        drained.stderr
    );
    let status = realm.wait_status("one", "all work elsewhere", |status| {
        component(status, "ticker")["running"] == 3 && component(status, "each")["running"] == 2
    });
    assert_eq!(node(&status, "two")["state"], "draining");
    let only = component(&status, "only");
    assert_eq!(only["state"], "waiting");
    assert_eq!(only["reason"]["code"], "draining");
    let mut on = cells_on(component(&status, "ticker"));
    on.sort_unstable();
    assert!(!on.contains(&"two".to_owned()), "{on:?}");
    // It stays drained whatever else is said of it.
    ok(&["nodes", "tag", "two", "edge"]);
    assert_eq!(
        node(&realm.status("one").unwrap(), "two")["state"],
        "draining"
    );
    ok(&["nodes", "undrain", "two", "--wait"]);
    let status = realm.status("one").unwrap();
    assert_eq!(component(&status, "each")["running"], 3);
    assert_eq!(component(&status, "ticker")["running"], 3);
    assert!(cells_on(component(&status, "ticker")).contains(&"two".to_owned()));

    let asked = realm.run(&["nodes", "rm", "three", "--via", &one]);
    assert_eq!(asked.code, 2, "{}", asked.stderr);
    let key = node(&status, "three")["key"].as_str().unwrap().to_owned();
    let removed = realm.run(&["nodes", "rm", "three", "--yes", "--via", &one]);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert!(removed.stderr.contains(" of 2\n"), "{}", removed.stderr);
    let status = realm.wait_status("one", "its work is elsewhere", |status| {
        component(status, "ticker")["running"] == 3
            && !cells_on(component(status, "ticker")).contains(&"three".to_owned())
    });
    // It may have asked to come back already.
    let state = &node(&status, "three")["state"];
    assert!(state.is_null() || state == "pending", "it is gone: {state}");
    wait_for("it asks to come back", || {
        let nodes = realm.run(&["nodes", "ls", "--via", &one]);
        nodes.stderr.contains(&key).then_some(())
    });
    ok(&["nodes", "approve", &key, "--name", "three"]);
    realm.wait_ready("one");
    ok(&["push", "each", &ticker, "--wait"]);
}

#[test]
fn a_lost_node_moves_no_cell_of_the_others() {
    let mut realm = cluster();
    for name in ["one", "two", "three", "four"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let ticker = guest("ticker.wasm");
    let one = realm.address("one");
    for (name, replicas) in [("a", "2"), ("b", "3"), ("c", "5")] {
        realm.ok(&[
            "push",
            name,
            &ticker,
            "--replicas",
            replicas,
            "--wait",
            "--via",
            &one,
        ]);
    }
    let cells = |status: &Value| -> std::collections::BTreeMap<String, Value> {
        ["a", "b", "c"]
            .iter()
            .flat_map(|name| component(status, name)["cells"].as_array().unwrap().clone())
            .filter(|cell| cell["state"] == "running")
            .map(|cell| {
                (
                    cell["id"].as_str().unwrap().to_owned(),
                    cell["started_at"].clone(),
                )
            })
            .collect()
    };
    let asked = |status: &Value| {
        [("a", 2), ("b", 3), ("c", 5)]
            .iter()
            .all(|(name, count)| component(status, name)["running"] == *count)
    };
    let before = cells(&realm.wait_status("one", "ten cells", asked));
    assert_eq!(before.len(), 10);
    realm.kill("four");
    let after = cells(
        &realm.wait_status("one", "ten cells on three nodes", |status| {
            node(status, "four")["state"] == "lost" && asked(status)
        }),
    );
    for (id, started) in before.iter().filter(|(id, _)| !id.starts_with("four/")) {
        assert_eq!(after.get(id), Some(started), "{id} was not touched");
    }
    realm.start("four");
    let again = cells(
        &realm.wait_status("one", "every cell where it was", |status| {
            asked(status) && cells(status).keys().eq(before.keys())
        }),
    );
    for (id, started) in before.iter().filter(|(id, _)| !id.starts_with("four/")) {
        assert_eq!(again.get(id), Some(started), "{id} was not touched");
    }
}

#[test]
fn a_volume_keeps_its_data_and_its_cell() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let counter = guest("counter-volume.wasm");
    let push = [
        "push",
        "counter",
        &counter,
        "--volume",
        "counts:/data:rw",
        "--replicas",
        "1",
    ];
    realm.ok(&[&push[..], &["--wait", "--via", &one]].concat());
    let logs = |realm: &realm_testkit::Cluster, via: &str| {
        let mut lines = realm.run(&["logs", "counter", "--via", via]).stdout;
        lines += &realm
            .run(&["logs", "counter", "--previous", "--via", via])
            .stdout;
        lines
    };
    wait_for("it counts", || {
        logs(&realm, &one).contains("count 2").then_some(())
    });
    realm.ok(&["restart", "counter", "--wait", "--via", &one]);
    wait_for("it goes on", || {
        let lines = logs(&realm, &one);
        let from = lines
            .lines()
            .filter_map(|line| line.split("starting from ").nth(1));
        from.filter_map(|count| count.trim().parse::<u64>().ok())
            .any(|count| count >= 2)
            .then_some(())
    });
    // Its node is lost: the data is there, so the cell is not started elsewhere.
    let status = realm.status("one").unwrap();
    let holder = cells_on(component(&status, "counter"))[0].clone();
    let other = if holder == "one" { "two" } else { "one" };
    realm.kill(&holder);
    let status = realm.wait_status(other, "drift says where the data is", |status| {
        node(status, &holder)["state"] == "lost" && !status["drift"].as_array().unwrap().is_empty()
    });
    assert!(cells_on(component(&status, "counter")).is_empty());
    let why = &status["drift"][0]["reason"]["message"];
    assert!(why.as_str().unwrap().contains("data"), "{status:#}");
    assert_eq!(status["drift"][0]["have"], "lost");
    let cell = &component(&status, "counter")["cells"][0];
    assert_eq!(cell["state"], Value::Null, "nobody knows: {cell}");
    realm.start(&holder);
    realm.wait_status(other, "it runs there again", |status| {
        cells_on(component(status, "counter")) == [holder.clone()]
    });
}

#[test]
fn an_address_is_reached_only_where_it_was_allowed() {
    use std::io::{Read as _, Write as _};

    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            stream.write_all(answer).unwrap();
        }
    });
    let check = guest("http-check.wasm");
    let page = format!("http://127.0.0.1:{port}/");
    let push = [
        "push",
        "check",
        &check,
        "--arg",
        &page,
        "--restart",
        "never",
    ];
    realm.ok(&[&push[..], &["--via", &one]].concat());
    let status = realm.wait_status("one", "it is refused", |status| {
        component(status, "check")["state"] == "failed"
    });
    assert_eq!(component(&status, "check")["cells"][0]["exit_code"], 1);
    let allow = format!("tcp://127.0.0.1:{port}");
    realm.ok(&[&push[..], &["--allow", &allow, "--wait", "--via", &one]].concat());
    let status = realm.status("one").unwrap();
    assert_eq!(component(&status, "check")["state"], "done");
}

#[test]
fn a_newcomer_starts_its_share_and_not_what_others_run() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let one = realm.address("one");
    // Of so many the third node gets none once in three thousand times.
    let names: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    for name in &names {
        let push = ["push", name, &guest("sleeper.wasm"), "--replicas", "1"];
        realm.ok(&[&push[..], &["--via", &one]].concat());
    }
    let all_run = |status: &Value| {
        let components = status["components"].as_array().unwrap();
        components.len() == names.len() && components.iter().all(|one| one["running"] == 1)
    };
    realm.wait_status("one", "all run", all_run);
    realm.add_node("three", &[]);
    realm.wait_ready("one");
    let cells = |status: &Value, name: &str| node(status, name)["cell_count"].as_u64();
    let status = realm.wait_status("three", "the newcomer has its share", |status| {
        let shares = ["one", "two", "three"].map(|name| cells(status, name).unwrap_or(0));
        all_run(status) && shares.iter().sum::<u64>() == names.len() as u64 && shares[2] > 0
    });
    let started = realm.log("three").matches("starting a cell").count() as u64;
    assert_eq!(Some(started), cells(&status, "three"));
}
