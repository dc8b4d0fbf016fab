//! From the end of a node to its work running elsewhere.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use realm_testkit::{Cluster, wait_for};

use crate::{
    figure::{Bound, Figure},
    process::millis,
    report::Measured,
    scene::{Happened, Scene, events, say, wrote},
    serf::Serf,
};

const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
const ROUNDS: usize = 12;
/// Serf needs seconds for each.
const ROUNDS_PEER: usize = 4;

pub fn run(scene: &Scene) -> Result<Measured> {
    let mut realm = scene.realm_of(&NODES);
    let via = realm.address("n1");
    let guest = scene.guest("sleeper.wasm").display().to_string();
    let count = NODES.len().to_string();
    realm.ok(&[
        "push",
        "sleeper",
        &guest,
        "--replicas",
        &count,
        "--wait",
        "--via",
        &via,
    ]);
    let (mut lost, mut said, mut runs) = (vec![], vec![], vec![]);
    for round in 0..scene.rounds(ROUNDS) {
        // The first one is asked, so it stays.
        let victim = NODES[1 + round % (NODES.len() - 1)];
        spread(&realm);
        let began = SystemTime::now();
        realm.kill(victim);
        let moved = wait_for("the cell runs elsewhere", || {
            events(&realm, &via, "started", began)
                .ok()?
                .first()
                .cloned()
        });
        let seen = |all: Vec<Happened>| {
            let times = all
                .into_iter()
                .filter(|one| one.node == moved.node)
                .map(|one| one.at);
            times
                .reduce(f64::min)
                .context("the node that took over said nothing of it")
        };
        lost.push(seen(events(&realm, &via, "lost", began)?)?);
        said.push(seen(wrote(&realm, &via, "sleeper", began)?)?);
        runs.push(moved.at);
        say(
            "failover",
            format!(
                "round {round}: lost {:.0}, writes {:.0}, running {:.0} ms",
                lost[round], said[round], runs[round]
            ),
        );
        realm.start(victim);
        realm.wait_ready("n1");
    }
    drop(realm);
    let failed = serf_failed(scene)?;
    let kill = "kill -9 of one of 5 agents";
    let beside = |what: &str, rounds| {
        Figure::new(what, "ms", kill, rounds).beside(
            "serf: the last of 4 agents takes it for failed",
            "kill -9 of one of 5 serf agents",
            failed.clone(),
        )
    };
    Ok(Measured {
        figures: vec![
            beside("until the node that takes over sees the loss", lost),
            beside("until the cell wrote its first line elsewhere", said).should(Bound::AtMost(2000.0), Bound::AtMost(400.0)),
            beside("until it is `running` there, 1 s after its start", runs),
        ],
        notes: vec!["5 nodes with one cell each; the killed node's cell starts on one of the others, where its code is compiled and loaded already. Serf runs with its default settings; it only notices, and starts nothing.".into()],
        peers: vec![("serf".into(), scene.peers.serf()?)],
    })
}

/// Waits until each node has one cell: who was away is given its work back.
fn spread(realm: &Cluster) {
    let has_one = |cells: &[serde_json::Value], node: &str| {
        cells
            .iter()
            .filter(|cell| cell["node"] == node && cell["state"] == "running")
            .count()
            == 1
    };
    realm.wait_status("n1", "one cell on each node", |status| {
        let cells = status["components"][0]["cells"].as_array();
        cells.is_some_and(|cells| {
            cells.len() == NODES.len() && NODES.iter().all(|node| has_one(cells, node))
        })
    });
}

fn serf_failed(scene: &Scene) -> Result<Vec<f64>> {
    let rounds = if scene.quick { 1 } else { ROUNDS_PEER };
    let failed = (0..rounds).map(|round| {
        say("failover", format!("serf, round {round}"));
        let mut serf = Serf::start(scene.peers.serf()?, NODES.len())?;
        let took = serf.kill_last()?;
        ensure!(took > Duration::ZERO, "serf knew before it happened");
        Ok(millis(took))
    });
    failed.collect()
}
