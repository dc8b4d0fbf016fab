//! How much a program may write: by bytes that the node counts, and bytes that it keeps.

use std::time::{Duration, Instant};

use realm_testkit::wait_for;
use serde_json::Value;

use crate::{cluster, guest, page::counted};

const MIB: f64 = 1024.0 * 1024.0;

#[test]
fn a_program_that_never_stops_writing_is_paced_and_its_log_stays_small() {
    // Without a setting it is 1 MiB a second, and a quarter of that at once.
    const LONG: Duration = Duration::from_secs(4);
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let flood = guest("flood.wasm");
    realm.ok(&["push", "loud", &flood, "--wait", "--via", &via]);
    let written = || counted(&realm, "one", "realm_cell_output_bytes_total", "loud");
    let (begun, before) = wait_for("it writes", || Some((Instant::now(), written()?)));
    let after = wait_for("a while of it", || {
        let now = written()?;
        (begun.elapsed() >= LONG && now > before).then_some(now)
    });
    // What was counted before this began, and a first gulp, come on top.
    let most = MIB * (begun.elapsed().as_secs_f64() + 0.5);
    assert!(after - before < most, "{} of {most}", after - before);

    // More than the log holds was written by then: the oldest lines are gone.
    wait_for("more than the log holds", || {
        written().filter(|all| *all > 2.0 * MIB)
    });
    let tail = ["logs", "loud", "--tail", "10000", "-o", "json"];
    let lines = realm.ok(&[&tail[..], &["--via", &via]].concat());
    let kept: usize = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|line| line["text"].as_str().map_or(0, str::len))
        .sum();
    let kept = kept as f64;
    // What is written while it is read comes on top.
    let most = 1.5 * MIB;
    assert!(kept > 0.1 * MIB && kept <= most, "{kept} bytes are kept");
}
