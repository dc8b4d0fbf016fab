//! What a realm costs each node as it grows, in a simulated network of real protocol nodes.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    figure::Figure,
    plot::{self, Chart},
    report::Measured,
    scene::{Scene, say},
};

const SIZES: [&str; 4] = ["8", "50", "300", "1000"];
/// How many of them; and of a run that is not to take so long.
const FEW: usize = 2;
const MOST: usize = 3;

struct Quantity {
    field: &'static str,
    what: &'static str,
    unit: &'static str,
    /// Of what is told, so much is one of the unit.
    per_unit: f64,
}

const QUANTITIES: [Quantity; 5] = [
    Quantity {
        field: "bytes_in_per_node_s",
        what: "heard by a node in a second while nothing happens",
        unit: "KB",
        per_unit: 1_000.0,
    },
    Quantity {
        field: "cpu_us_per_node_s",
        what: "processor time of a node's protocol in such a second",
        unit: "ms",
        per_unit: 1_000.0,
    },
    Quantity {
        field: "intent_ms_p99",
        what: "from an intent's arrival at one node until 99 of 100 nodes have it",
        unit: "ms",
        per_unit: 1.0,
    },
    Quantity {
        field: "intent_bytes_per_node",
        what: "heard by a node for one intent",
        unit: "KB",
        per_unit: 1_000.0,
    },
    Quantity {
        field: "heal_ms",
        what: "from the healing of a cut in halves until all have one head",
        unit: "ms",
        per_unit: 1.0,
    },
];

pub fn run(scene: &Scene) -> Result<Measured> {
    let sizes = match (scene.quick, scene.long) {
        (true, _) => FEW,
        (false, false) => MOST,
        (false, true) => SIZES.len(),
    };
    let mut told = Vec::new();
    for size in SIZES.iter().take(sizes) {
        say("growth", format!("{size} nodes"));
        let line = simulated(scene, size)?;
        // The last size takes many minutes: what there is by then is not only in the page.
        say("growth", &line);
        told.push((*size, line));
    }
    let (mut figures, mut charts) = (Vec::new(), Vec::new());
    for quantity in &QUANTITIES {
        let mut points = Vec::new();
        for (size, line) in &told {
            let value = line[quantity.field]
                .as_f64()
                .with_context(|| format!("the simulation tells no {}", quantity.field))?;
            // The axes of the plot have no place for it.
            ensure!(
                value > 0.0,
                "the simulation tells {value} for {}",
                quantity.field
            );
            let value = value / quantity.per_unit;
            points.push((size.parse()?, value));
            let what = format!("{size} nodes: {}", quantity.what);
            let command =
                format!("cargo run --release -p realm-protocol --example growth -- {size}");
            figures.push(Figure::new(&what, quantity.unit, &command, vec![value]));
        }
        let title = format!("{}, {}", quantity.what, quantity.unit);
        charts.push(Chart { title, points });
    }
    let dir = scene.out.join("benchmarks");
    fs::create_dir_all(&dir)?;
    let path = dir.join("growth.svg");
    fs::write(&path, plot::svg(&charts, "nodes")).with_context(|| path.display().to_string())?;
    Ok(Measured {
        figures,
        notes: vec![
            "![As the realm grows](benchmarks/growth.svg)".into(),
            "Every node is the real protocol code with the real signatures; the network between them is modelled, with a gossip mesh \
             of 6 and links of some milliseconds, so that bytes are those of messages without the network's own framing and encryption. \
             Times are simulated, processor time is real. 1,000 nodes take some half an hour of a processor: `make bench ONLY=\"--long growth\"`. Above that the memory of every node's view of every other one does not \
             fit into one machine, and a realm has at most 4,096 nodes: 10,000 are not simulated."
                .into(),
        ],
        peers: Vec::new(),
    })
}

/// What the simulation of so many nodes prints.
fn simulated(scene: &Scene, size: &str) -> Result<Value> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(&scene.root)
        .args(["run", "--quiet", "--locked", "--release"])
        .args(["-p", "realm-protocol", "--example", "growth", "--", size]);
    let output = cargo.output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "growth {size}: {}", said.trim());
    serde_json::from_slice(&output.stdout).context("what the simulation printed")
}
