//! A thousand cells that sleep, of twenty programs, on one node.

use std::{
    fs,
    path::Path,
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
/// It says nothing, so that as a process of its own nobody would know when it sleeps.
const BARE: &str = "a component that is nothing but its sleep";
/// For the freed memory of compiling to be given back.
const SETTLE: Duration = Duration::from_secs(20);

pub fn run(scene: &Scene) -> Result<Measured> {
    let wasmtime = scene.peers.wasmtime()?;
    let images = if scene.quick { 2 } else { IMAGES };
    let mut figures = Vec::new();
    let dir = tempfile::tempdir()?;
    let bare = dir.path().join("idle.wasm");
    fs::write(&bare, wat::parse_str(include_str!("density/idle.wat"))?)?;
    for (kind, guest) in [
        ("a component", scene.guest("sleeper.wasm")),
        ("a module of preview 1", scene.guest("sleeper.p1.wasm")),
        (BARE, bare),
    ] {
        let Node { each, full } = filled(scene, &guest, images)?;
        let file = guest.file_name().unwrap_or_default().display();
        let command = format!(
            "realm push image-N {file} --replicas 50 --memory-max-mb 2, 20 images, on one node"
        );
        let what = format!("memory and page tables for each idle cell of {kind}");
        let mut figure = Figure::new(&what, "KB", &command, vec![each]);
        if kind != BARE {
            let command = format!("wasmtime run --allow-precompiled of {file}, compiled");
            let alone = kb(alone(&guest, &wasmtime)?);
            figure = figure.beside("one process each", &command, vec![alone]);
        }
        figures.extend([
            figure.should(Bound::AtMost(100.0), Bound::AtMost(40.0)),
            Figure::new("the agent with all of them", "MB", &command, vec![full]),
        ]);
    }
    let cells = images * CELLS_EACH;
    Ok(Measured {
        figures,
        notes: vec![format!(
            "VmRSS + VmPTE of the agent with {cells} cells, less what it had before the first, divided by the cells: the code of {images} images, logs and status are in it. One run: the values of single cells are not told apart. The node's `max_cells` is 1024, its memory for cells 4 GiB. The first two programs are `guests/sleeper`, as Rust's standard library makes it: with the adapter from preview 1 that is linked into it, the component writes to 44 KiB of its own memory before it sleeps, the module to 12 KiB. The third one writes to one page, and shows what a component costs the node itself."
        )],
        peers: vec![("wasmtime".into(), wasmtime)],
    })
}

/// What a node took that runs all cells.
struct Node {
    /// KB for each cell.
    each: f64,
    /// MB of the agent.
    full: f64,
}

fn filled(scene: &Scene, guest: &Path, images: usize) -> Result<Node> {
    let mut realm = Cluster::new(&scene.realm);
    let config = realm.path().join("agent.toml");
    fs::write(&config, CONFIG)?;
    realm.add_node_with("one", &[], &["--config", &config.display().to_string()]);
    realm.wait_ready("one");
    let (via, pid) = (realm.address("one"), realm.pid("one"));
    std::thread::sleep(SETTLE);
    let empty = taken(pid)?;
    for image in 0..images {
        let (name, file) = (
            format!("image-{image}"),
            realm.path().join(format!("{image}.wasm")),
        );
        variant(guest, &file, image)?;
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
    let full = taken(pid)?;
    Ok(Node {
        each: kb(full - empty) / (images * CELLS_EACH) as f64,
        full: kb(full) / 1000.0,
    })
}

/// A KB is 1,000 bytes.
fn kb(kib: f64) -> f64 {
    kib * 1.024
}

/// Resident memory and page tables, in KiB.
fn taken(pid: u32) -> Result<f64> {
    Ok(kib(pid, "VmRSS:")? + kib(pid, "VmPTE:")?)
}

fn alone(guest: &Path, wasmtime: &Path) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let compiled = dir.path().join("sleeper.cwasm");
    let mut compile = Command::new(wasmtime);
    compile.args(["compile", "-C", "cache=n"]).arg(guest);
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
