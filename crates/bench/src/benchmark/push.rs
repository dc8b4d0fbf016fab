//! From `realm push` to running on eight agents, compilation included.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;

use crate::{
    figure::{Bound, Figure},
    process::millis,
    report::Measured,
    scene::{Scene, events, last_of_first, say, variant, wrote},
    serf::Serf,
};

const NODES: [&str; 8] = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"];
/// So many that one in a hundred is one of them.
const ROUNDS: usize = 100;
/// So many of the peer's compilations run side by side.
const SIDE_BY_SIDE: usize = 2;

pub fn run(scene: &Scene) -> Result<Measured> {
    let guest = scene.guest("worker.wasm");
    let wasmtime = scene.peers.wasmtime()?;
    let serf = Serf::start(scene.peers.serf()?, NODES.len())?;
    let realm = scene.realm_of(&NODES);
    let via = realm.address(NODES[0]);
    let file = realm.path().join("worker.wasm");
    let name = file.display().to_string();
    let (mut said, mut runs, mut waited, mut peer) = (vec![], vec![], vec![], vec![]);
    let (mut event, mut compiling) = (vec![], vec![]);
    for round in 0..scene.rounds(ROUNDS) {
        variant(&guest, &file, round)?;
        let began = SystemTime::now();
        realm.ok(&["push", "worker", &name, "--wait", "--via", &via]);
        waited.push(millis(began.elapsed()?));
        said.push(last_of_first(
            &wrote(&realm, &via, "worker", began)?,
            NODES.len(),
        )?);
        runs.push(last_of_first(
            &events(&realm, &via, "started", began)?,
            NODES.len(),
        )?);
        let heard = serf.event(&format!("push-{round}"), "worker")?;
        let compiled = compile(&wasmtime, &file)?;
        event.push(millis(heard));
        compiling.push(millis(compiled));
        peer.push(millis(heard + compiled));
        realm.ok(&["rm", "worker", "--wait", "--via", &via]);
        let (said, peer) = (said[round], peer[round]);
        say(
            "push",
            format!(
                "round {round}: first output of the last {said:.0} ms, serf and wasmtime {peer:.0} ms"
            ),
        );
    }
    let push = "realm push worker worker.wasm --wait";
    let other =
        "serf event, until 8 monitors heard it; then 8 x wasmtime compile -C cache=n, 2 at a time";
    let figure = |what: &str, rounds| {
        Figure::new(what, "ms", push, rounds).beside(
            "serf event + 8 compilations",
            other,
            peer.clone(),
        )
    };
    let (first, aim) = (Bound::RatioAtMost(3.0), Bound::RatioAtMost(1.0));
    let size = fs::metadata(&guest)?.len();
    Ok(Measured {
        figures: vec![
            figure("until the last of 8 wrote its first line", said).should(first, aim),
            figure("until the last of 8 is `running`, which is 1 s after its start", runs).should(first, aim),
            figure("until `--wait` returns", waited),
            Figure::new("of the peer: the event", "ms", "serf event", event),
            Figure::new("of the peer: the compilations", "ms", "wasmtime compile", compiling),
        ],
        notes: vec![
            format!("The component is `guests/prebuilt/worker.wasm`, {size} bytes; each round changes a custom section, so that each agent compiles it anew. All programs, the command line among them, share the machine's cores."),
            "Serf runs with its default settings (those for a local network). A cell counts as `running` when it has lived for a second: that second is in the figure.".into(),
        ],
        peers: vec![("serf".into(), scene.peers.serf()?), ("wasmtime".into(), wasmtime)],
    })
}

/// As many compilations of the file as there are agents.
fn compile(wasmtime: &Path, file: &Path) -> Result<Duration> {
    let began = Instant::now();
    let work = || -> Result<()> {
        for _ in 0..NODES.len() / SIDE_BY_SIDE {
            let made = tempfile::NamedTempFile::new()?;
            let mut command = Command::new(wasmtime);
            command
                .args(["compile", "-C", "cache=n"])
                .arg(file)
                .arg("-o")
                .arg(made.path());
            crate::process::timed(&mut command)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok(done) => done,
                Err(_) => Err(anyhow::anyhow!("a thread panicked")),
            })
    })?;
    Ok(began.elapsed())
}
