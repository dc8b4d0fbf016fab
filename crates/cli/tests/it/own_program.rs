//! `realm agent --wasm`: the limits of a node's own program, by what they do to it.

use std::time::Instant;

use realm_testkit::wait_for;

use crate::{
    cluster, guest,
    trust::{get, http_address},
};

#[test]
fn memory_of_a_nodes_own_program_ends_at_its_limit() {
    let mut realm = cluster();
    let grow = guest("grow.wasm");
    realm.add_node_with("one", &[], &["--wasm", &grow, "--memory-max-mb", "16"]);
    let one = realm.address("one");
    let line = wait_for("the end of its memory", || {
        let lines = realm.run(&["logs", "local-grow", "--via", &one]).stdout;
        Some(lines.split("refused after ").nth(1)?.to_owned())
    });
    let got: u64 = line.split(' ').next().unwrap().parse().unwrap();
    assert!((4..16).contains(&got), "{got} MiB");
}

#[test]
fn a_nodes_own_program_yields_as_often_as_it_is_told() {
    // The default of 100 ms is 10 a second at most.
    const A_SECOND: f64 = 15.0;
    let mut realm = cluster();
    let spin = guest("spin.wasm");
    realm.add_node_with("one", &[], &["--wasm", &spin, "--epoch-ms", "10"]);
    let log = realm.log("one");
    let yields = || {
        let page = get(http_address(&log), "/metrics", "localhost");
        let of_it = |line: &&str| {
            line.starts_with("epoch_preemptions_total{") && line.contains("local-spin")
        };
        let line = page.lines().find(of_it)?;
        line.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    let (begun, first) = wait_for("it runs", || Some((Instant::now(), yields()?)));
    wait_for("it yields more often than by default", || {
        let seconds = begun.elapsed().as_secs_f64();
        let more = yields()? - first;
        (seconds > 2.0 && more > A_SECOND * seconds).then_some(())
    });
}
