//! A realm of many nodes that comes up at once, and one half of it cut from the other.

use std::path::Path;

use realm_testkit::Bridged;

use super::scene::{self, figure};
use crate::{guest, history::copy_dir};

/// Cells of the component, spread over all nodes.
const CELLS: usize = 10;

#[test]
fn many_nodes_find_each_other_and_a_cut_through_their_middle_heals() {
    let Some(mut scene) = scene::of_many() else {
        return;
    };
    let all = scene.names.len();
    let (left, right) = (0..all / 2, all / 2..all);
    scene.start();
    let ready = scene.wait_ready();
    figure(
        "cold join by mDNS alone, all ready in the eyes of all",
        ready,
    );
    let cells = format!("{CELLS}");
    let (ticker, push) = (guest("ticker.wasm"), ["push", "ticker"]);
    scene.ok(0, &[&push[..], &[&ticker, "--replicas", &cells]].concat());
    scene.wait_running("ticker", CELLS, 0..all);

    scene.cut(&left, &right);
    scene.wait("each half has lost the other", |page| {
        page.nodes("ready") <= all - all / 2
    });
    for more in 1..=5 {
        scene.ok(0, &["scale", &format!("ticker={}", CELLS + more)]);
    }
    scene.wait_of("one half goes on alone", left.clone(), |page| {
        page.revision() == Some(6)
    });
    scene.wait_running("ticker", CELLS + 5, left.clone());
    scene.wait_of("the other one is not told", right.clone(), |page| {
        page.revision() == Some(1) && !page.is_forked()
    });
    scene.wait_running("ticker", CELLS, right.clone());

    scene.net.heal();
    let heads = scene.wait("one head everywhere", |page| page.revision() == Some(6));
    figure("equal heads after the cut healed", heads);
    let ready = scene.wait("every node is back", |page| page.nodes("ready") == all);
    figure("and then all ready in the eyes of all", ready);
    let exact = scene.wait_running("ticker", CELLS + 5, 0..all);
    figure("and then exactly the cells that were asked for", exact);

    both_sides_sign(&mut scene);
}

/// The owner signs on both sides of a cut: everybody says so, what ran runs on, and a merge ends it.
fn both_sides_sign(scene: &mut Bridged) {
    let all = scene.names.len();
    let (left, right) = (0..all / 2, all / 2..all);
    let other = scene.realm.path().join("other-state");
    copy_dir(&scene.realm.path().join("state"), &other);
    scene.cut(&left, &right);
    scene.wait("each half has lost the other", |page| {
        page.nodes("ready") <= all - all / 2
    });
    scene.ok(0, &["scale", "ticker=20"]);
    scene.ok(
        all - 1,
        &["scale", "ticker=7", "--state-dir", as_str(&other)],
    );
    scene.wait("both sides go on", |page| page.revision() == Some(7));
    scene.net.heal();
    let forked = scene.wait("the fork is known everywhere", |page| page.is_forked());
    figure("a fork is an alarm everywhere after the cut healed", forked);
    scene.wait("every node is back", |page| page.nodes("ready") == all);
    // The last agreed state.
    scene.wait_running("ticker", CELLS + 5, 0..all);
    scene.ok(0, &["history", "merge", "--yes"]);
    let merged = scene.wait("the merge is known everywhere", |page| {
        page.revision() == Some(8) && !page.is_forked()
    });
    figure("a merge is known everywhere", merged);
    scene.ok(0, &["scale", "ticker=3"]);
    scene.wait_running("ticker", 3, 0..all);
}

fn as_str(path: &Path) -> &str {
    path.to_str().unwrap()
}
