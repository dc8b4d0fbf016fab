//! The figures of `/metrics`, against what the status and the kernel say.

use realm_testkit::{Cluster, Metrics, wait_for};

use crate::{
    cluster, guest,
    page::{counted, http_address},
    picture::{component, node},
};

fn page(realm: &Cluster, node: &str) -> Metrics {
    let address = http_address(realm, node).parse().unwrap();
    wait_for("its figures", || Metrics::at(address))
}

/// What the kernel counts as this agent's resident memory, in bytes.
fn resident(realm: &Cluster, node: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", realm.pid(node))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    kib * 1024.0
}

fn sum(page: &Metrics, name: &str) -> f64 {
    page.values(name, "").iter().sum()
}

#[test]
fn figures_of_a_realm_are_how_many_there_are_of_each() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let (ticker, via) = (guest("ticker.wasm"), realm.address("one"));
    for name in ["first", "second"] {
        realm.ok(&["push", name, &ticker, "--wait", "--via", &via]);
    }
    realm.ok(&[
        "push", "nowhere", &ticker, "--tag", "no-node", "--via", &via,
    ]);
    for name in ["one", "two"] {
        wait_for(&format!("the figures of {name}"), || {
            let page = page(&realm, name);
            let of = |name, label| page.value(name, label);
            let nodes = page.nodes("ready") == 2 && sum(&page, "realm_nodes") == 2.0;
            let links = of("realm_links", "link=\"tcp\"") == Some(1.0);
            let running = of("realm_components", "state=\"running\"") == Some(2.0);
            let waiting = of("realm_components", "state=\"waiting\"") == Some(1.0);
            let all = sum(&page, "realm_components") == 3.0;
            (nodes && links && running && waiting && all).then_some(())
        });
    }
    realm.kill("two");
    wait_for("nobody is linked", || {
        let page = page(&realm, "one");
        let nodes = (page.nodes("ready"), page.nodes("lost")) == (1, 1);
        (nodes && sum(&page, "realm_links") == 0.0).then_some(())
    });
}

#[test]
fn figures_of_a_node_are_those_of_its_status_and_of_the_kernel() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let spin = guest("spin.wasm");
    realm.ok(&["push", "spin", &spin, "--wait", "--via", &via]);
    // A report says it of late, as the page does; both are of one report most of the time.
    let (cpu, memory, kernel) = wait_for("processor and memory of the node", || {
        let status = realm.status("one")?;
        let page = page(&realm, "one");
        let cpu = page.value("realm_node_cpu_ratio", "node=\"one\"")?;
        let memory = page.value("realm_node_memory_bytes", "node=\"one\"")?;
        let told = node(&status, "one");
        let same = (told["cpu_percent"].as_f64()? - cpu * 100.0).abs() < 0.01
            && told["memory_bytes"].as_f64()? == memory;
        // The program uses as much as it gets of a processor; other tests want some, too.
        let kernel = resident(&realm, "one");
        let near = (memory - kernel).abs() < kernel / 4.0;
        (same && near && cpu > 0.1).then_some((cpu, memory, kernel))
    });
    println!("{cpu} processors, {memory} bytes of {kernel}");
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    assert!(cpu <= cores + 1.0, "{cpu} of {cores} processors");
    let disk = page(&realm, "one").value("realm_node_artifact_bytes", "");
    let program = std::fs::metadata(&spin).unwrap().len() as f64;
    assert!(disk.unwrap() >= program, "{disk:?} bytes of {program}");
}

#[test]
fn figures_of_a_cell_are_those_of_its_status() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let of = |name: &str, component: &str| counted(&realm, "one", name, component);
    let cell = |name: &str, field: &str| {
        let status = realm.status("one")?;
        component(&status, name)["cells"][0][field].as_f64()
    };
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &via]);
    let bytes = wait_for("one memory in all figures", || {
        let now = of("mem_current_bytes", "ticker")?;
        let same = cell("ticker", "memory_bytes") == Some(now)
            && of("realm_cell_memory_bytes", "ticker") == Some(now);
        same.then_some(now)
    });
    assert!(bytes >= 65536.0, "{bytes}");
    let peak = of("mem_peak_bytes", "ticker").unwrap();
    let most = of("realm_cell_memory_max_bytes", "ticker").unwrap();
    assert!(bytes <= peak && peak <= most, "{bytes} {peak} {most}");
    assert_eq!(cell("ticker", "memory_max_bytes"), Some(most));
    assert_eq!(of("wasm_restarts_total", "ticker"), Some(0.0));

    let fails = guest("exit-code.wasm");
    realm.ok(&["push", "fails", &fails, "--arg", "3", "--via", &via]);
    wait_for("each start after the first is counted", || {
        let now = of("wasm_restarts_total", "fails").filter(|starts| *starts >= 2.0)?;
        let same = cell("fails", "restarts") == Some(now)
            && of("realm_cell_restarts_total", "fails") == Some(now);
        same.then_some(())
    });
}
