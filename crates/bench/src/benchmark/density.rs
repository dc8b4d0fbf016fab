//! A thousand cells that sleep, of twenty programs, on one node.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;
use realm_testkit::Cluster;

use crate::{
    figure::{Bound, Figure},
    process::{Held, kib, timed},
    report::Measured,
    scene::{Scene, say, variant},
};

const IMAGES: usize = 20;
const CELLS_EACH: usize = 50;
/// A sleeping guest needs 17 pages of 64 KiB; the node reserves this much for each cell.
const CELL_MEMORY: &str = "2";
/// Room for all of them, which the node's default of half of a small machine's memory may not have.
const CONFIG: &str = "max_cells = 1024\nmemory_mb = 4096\n";
/// For the freed memory of compiling to be given back.
const SETTLE: Duration = Duration::from_secs(20);

pub fn run(scene: &Scene) -> Result<Measured> {
    let guest = scene.guest("sleeper.wasm");
    let wasmtime = scene.peers.wasmtime()?;
    let mut realm = Cluster::new(&scene.realm);
    let config = realm.path().join("agent.toml");
    fs::write(&config, CONFIG)?;
    realm.add_node_with("one", &[], &["--config", &config.display().to_string()]);
    realm.wait_ready("one");
    let (via, pid) = (realm.address("one"), realm.pid("one"));
    std::thread::sleep(SETTLE);
    let empty = taken(pid)?;
    let images = if scene.quick { 2 } else { IMAGES };
    for image in 0..images {
        let (name, file) = (
            format!("image-{image}"),
            realm.path().join(format!("{image}.wasm")),
        );
        variant(&guest, &file, image)?;
        let each = CELLS_EACH.to_string();
        let file = file.display().to_string();
        let push = [
            "push",
            &name,
            &file,
            "--replicas",
            &each,
            "--memory-max-mb",
            CELL_MEMORY,
        ];
        realm.ok(&[&push[..], &["--wait", "--via", &via]].concat());
        say(
            "density",
            format!("{} cells, {:.0} KiB", (image + 1) * CELLS_EACH, taken(pid)?),
        );
    }
    std::thread::sleep(SETTLE);
    let cells = (images * CELLS_EACH) as f64;
    // A KB is 1,000 bytes: the figures of the issue are.
    let kb = |kib: f64| kib * 1.024;
    let full = taken(pid)?;
    let each = kb(full - empty) / cells;
    let alone = alone(scene, &wasmtime)?;
    let command =
        "realm push image-N sleeper.wasm --replicas 50 --memory-max-mb 2, 20 images, on one node";
    Ok(Measured {
        figures: vec![
            Figure::new(
                "memory and page tables for each idle cell",
                "KB",
                command,
                vec![each],
            )
            .beside(
                "one process each",
                "wasmtime run --allow-precompiled sleeper.cwasm",
                vec![kb(alone)],
            )
            .should(Bound::AtMost(100.0), Bound::AtMost(40.0)),
            Figure::new(
                "the agent with all of them",
                "MB",
                command,
                vec![kb(full) / 1000.0],
            ),
        ],
        notes: vec![format!(
            "VmRSS + VmPTE of the agent with {cells} cells, less what it had before the first, divided by the cells: the code of {images} images, logs and status are in it. One run: the values of single cells are not told apart. The node's `max_cells` is 1024, its memory for cells 4 GiB."
        )],
        peers: vec![("wasmtime".into(), wasmtime)],
    })
}

/// Resident memory and page tables, in KiB.
fn taken(pid: u32) -> Result<f64> {
    Ok(kib(pid, "VmRSS:")? + kib(pid, "VmPTE:")?)
}

fn alone(scene: &Scene, wasmtime: &std::path::Path) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let compiled = dir.path().join("sleeper.cwasm");
    let mut compile = Command::new(wasmtime);
    compile
        .args(["compile", "-C", "cache=n"])
        .arg(scene.guest("sleeper.wasm"));
    timed(compile.arg("-o").arg(&compiled))?;
    let mut run = Command::new(wasmtime);
    run.args(["run", "--allow-precompiled"]).arg(&compiled);
    let mut process = Held(run.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    if let Some(output) = &mut process.0.stdout {
        // Its first byte says that it sleeps from now on.
        std::io::Read::read_exact(output, &mut [0])?;
    }
    taken(process.0.id())
}
