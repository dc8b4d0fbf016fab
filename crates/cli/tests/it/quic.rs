//! What is particular to QUIC: the death of a process closes no connection.

use crate::{cluster, guest};

#[test]
fn a_killed_node_that_is_back_at_once_is_heard_again() {
    let mut realm = cluster().over_quic();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let ticker = guest("ticker.wasm");
    let push = ["push", "ticker", &ticker, "--wait", "--via", &one];
    realm.ok(&push);
    for round in 1..=3 {
        realm.kill("two");
        realm.start("two");
        let round = format!("ROUND={round}");
        // Waits until both report that they run the new one.
        realm.ok(&[&push[..], &["--env", &round]].concat());
    }
}
