//! What an agent costs while nothing happens, and how soon it is ready.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Result;
use realm_testkit::Cluster;

use crate::{
    figure::{Bound, Figure},
    process::{Held, answers, free_port, millis, until, watch},
    report::Measured,
    scene::{Scene, say},
};

const NODES: [&str; 8] = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"];
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const STARTS: usize = 20;
/// Over which the idle processor time is counted. Longer than any regular chore of an agent.
const WATCHED: Duration = Duration::from_secs(90);
/// For those who just met to have said all.
const SETTLE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(scene: &Scene) -> Result<Measured> {
    let mut realm = Cluster::new(&scene.realm);
    for node in NODES {
        // Beside the TCP address that every node of the kit has: as an agent listens by default.
        realm.add_node_with(node, &[], &["--listen", QUIC]);
    }
    realm.wait_ready(NODES[0]);
    let watched = if scene.quick { WATCHED / 9 } else { WATCHED };
    say(
        "idle",
        format!("watching {} agents for {watched:?}", NODES.len()),
    );
    std::thread::sleep(SETTLE.min(watched));
    let pids: Vec<u32> = NODES.iter().map(|node| realm.pid(node)).collect();
    let idle = watch(&pids, watched)?;
    let ready = ready(&mut realm, scene)?;
    let agent = "realm agent, 8 of one realm on this machine, no cells";
    Ok(Measured {
        figures: vec![
            Figure::new("resident memory of an agent", "MiB", agent, idle.mib)
                .by_its_worst()
                .must(Bound::AtMost(40.0)),
            Figure::new(
                "processor time of an agent, of one core",
                "%",
                agent,
                idle.percent,
            )
            .by_its_worst()
            .must(Bound::AtMost(0.5)),
            Figure::new(
                "from exec until `/readyz` says ready",
                "ms",
                "realm agent, with its realm on disk",
                ready,
            )
            .must(Bound::AtMost(300.0)),
        ],
        notes: vec![format!(
            "Memory and processor time have one value for each agent, over {watched:?} after they had met. There is no peer: these bounds are absolute."
        )],
        peers: Vec::new(),
    })
}

/// Starts one of the agents again and again.
fn ready(realm: &mut Cluster, scene: &Scene) -> Result<Vec<f64>> {
    let last = NODES[NODES.len() - 1];
    let mut took = Vec::new();
    realm.stop(last);
    for round in 0..scene.rounds(STARTS) {
        say("idle", format!("start {round}"));
        let http = format!("127.0.0.1:{}", free_port()?);
        let address = realm.address(last);
        let listen = address.split("/p2p/").next().unwrap_or(&address);
        let mut command = realm.command();
        command.args([
            "agent",
            "--no-mdns",
            "--http",
            &http,
            "--listen",
            listen,
            "--data",
        ]);
        command
            .arg(realm.data(last))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let began = Instant::now();
        let mut agent = Held(command.spawn()?);
        until("the agent is ready", PATIENCE, || answers(&http, "/readyz"))?;
        took.push(millis(began.elapsed()));
        stop(&mut agent)?;
    }
    Ok(took)
}

/// In order, so that the next start finds what an orderly one leaves.
fn stop(agent: &mut Held) -> Result<()> {
    let pid = agent.0.id().to_string();
    std::process::Command::new("kill")
        .args(["-s", "TERM", &pid])
        .status()?;
    until("the agent ends", PATIENCE, || {
        matches!(agent.0.try_wait(), Ok(Some(_)))
    })?;
    Ok(())
}
