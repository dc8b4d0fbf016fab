//! Fifty agents on hosts of their own: how soon they are one realm, and are it again after a cut.

use std::time::Duration;

use anyhow::{Context as _, Result};
use realm_testkit::{Bridged, Cluster};

use crate::{
    figure::{Bound, Figure},
    process::{millis, watch},
    report::Measured,
    scene::{Scene, say},
};

const HOSTS: u8 = 50;
/// Cells of the component, spread over all nodes.
const CELLS: usize = 10;
const CUTS: usize = 5;
/// Over which the idle processor time is counted.
const WATCHED: Duration = Duration::from_secs(60);

pub fn run(scene: &Scene) -> Result<Measured> {
    let mut realm = Bridged::new(Cluster::new(&scene.realm), HOSTS)
        .context("network namespaces need root, iproute2 and nftables")?;
    let all = realm.names.len();
    let (left, right) = (0..all / 2, all / 2..all);
    realm.start();
    let joined = realm.wait_ready();
    say("halves", format!("{all} agents are one realm"));
    let ticker = scene.guest("ticker.wasm").display().to_string();
    let cells = CELLS.to_string();
    realm.ok(0, &["push", "ticker", &ticker, "--replicas", &cells]);
    realm.wait_running("ticker", CELLS, 0..all);

    let (mut heads, mut ready, mut exact) = (Vec::new(), Vec::new(), Vec::new());
    for cut in 0..scene.rounds(CUTS) {
        say("halves", format!("cut {cut}"));
        realm.cut(&left, &right);
        realm.wait("each half has lost the other", |page| {
            page.nodes("ready") == all / 2
        });
        let wanted = CELLS + cut + 1;
        realm.ok(0, &["scale", &format!("ticker={wanted}")]);
        let revision = Some(2 + cut as u64);
        realm.wait_of("one half goes on alone", left.clone(), |page| {
            page.revision() == revision
        });
        realm.wait_running("ticker", wanted, left.clone());
        realm.net.heal();
        let head = realm.wait("one head everywhere", |page| page.revision() == revision);
        // What comes first is part of what comes later.
        let back = head + realm.wait_ready();
        heads.push(millis(head));
        ready.push(millis(back));
        exact.push(millis(back + realm.wait_running("ticker", wanted, 0..all)));
    }
    let pids: Vec<u32> = realm
        .names
        .iter()
        .map(|name| realm.realm.pid(name))
        .collect();
    let idle = watch(&pids, if scene.quick { WATCHED / 10 } else { WATCHED })?;
    let healed =
        "25 of 50 agents cut from the other 25 until each half has lost the other, and healed";
    Ok(Measured {
        figures: vec![
            Figure::new(
                "from the healing of a cut until all have one head",
                "ms",
                healed,
                heads,
            ),
            Figure::new(
                "until everybody is ready in the eyes of everybody",
                "ms",
                healed,
                ready,
            )
            .by_its_worst()
            .must(Bound::AtMost(10_000.0)),
            Figure::new(
                "until exactly the cells run that were asked for",
                "ms",
                healed,
                exact,
            ),
            Figure::new(
                "cold join by mDNS, from exec of all at once until all are ready for all",
                "ms",
                "realm agent --enroll-file TOKEN",
                vec![millis(joined)],
            ),
            Figure::new(
                "processor time of an idle agent among fifty, of one core",
                "%",
                "realm agent, on a host of its own",
                idle.percent,
            ),
            Figure::new(
                "resident memory of an idle agent among fifty",
                "MiB",
                "realm agent, on a host of its own",
                idle.mib,
            ),
        ],
        notes: vec![format!(
            "{HOSTS} network namespaces on one bridge, all agents on this machine's cores; each agent is asked at its `/metrics`, \
             one after the other, which is part of the time. There is no peer: the bound is absolute. Cells that both halves started go on for 10 s after a node is back, so that work does not move twice: the third figure has those in it."
        )],
        peers: Vec::new(),
    })
}
