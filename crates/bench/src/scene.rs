//! What all benchmarks need: the programs, a realm of agents, and what it says of itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use realm_testkit::Cluster;
use serde_json::Value;

use crate::{peers::Peers, process};

/// A run of benchmarks.
#[derive(Debug)]
pub struct Scene {
    /// The project's directory.
    pub root: PathBuf,
    /// Where the page and what belongs to it is written.
    pub out: PathBuf,
    /// The optimised binary.
    pub realm: PathBuf,
    pub peers: Peers,
    /// Few rounds, to see that everything works: no figures to keep.
    pub quick: bool,
    /// Also what takes more than half an hour.
    pub long: bool,
}

impl Scene {
    /// So many rounds, or as many as are enough to see that it works.
    pub const fn rounds(&self, many: usize) -> usize {
        if self.quick { 3 } else { many }
    }

    pub fn guest(&self, name: &str) -> PathBuf {
        self.root.join("guests/prebuilt").join(name)
    }

    pub fn realm_of(&self, nodes: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(&self.realm);
        for node in nodes {
            cluster.add_node(node, &[]);
        }
        cluster.wait_ready(nodes[0]);
        cluster
    }
}

/// Says what goes on.
pub fn say(benchmark: &str, what: impl std::fmt::Display) {
    eprintln!("bench: {benchmark}: {what}");
}

/// Writes a copy of a component that does the same and has other bytes: no cache knows it.
pub fn variant(guest: &Path, to: &Path, number: usize) -> Result<()> {
    let mut bytes = fs::read(guest).with_context(|| guest.display().to_string())?;
    let name = b"variant";
    let number = format!("{number:016}");
    // A custom section: 0, its length, the length of its name, the name, what is in it.
    bytes.extend([0, (1 + name.len() + number.len()) as u8, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(number.bytes());
    Ok(fs::write(to, bytes)?)
}

/// Text that a command printed as lines of JSON.
fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// When something happened, by the machine's clock.
#[derive(Debug, Clone)]
pub struct Happened {
    pub node: String,
    /// Milliseconds since the round began.
    pub at: f64,
    pub message: String,
}

/// Events of this kind that are not older than `start`, as all nodes that are there tell them.
pub fn events(
    cluster: &Cluster,
    via: &str,
    kind: &str,
    start: SystemTime,
) -> Result<Vec<Happened>> {
    // A node that was killed makes the command end with 6: its events are not asked for here.
    let printed = cluster.run(&["events", "--since", "5m", "-o", "json", "--via", via]);
    let events = lines(&printed.stdout).into_iter();
    let events = events.filter(|event| event["kind"] == kind);
    happened(events, |event| text(&event["message"]).to_owned(), start)
}

/// What a component wrote since `start`.
pub fn wrote(
    cluster: &Cluster,
    via: &str,
    component: &str,
    start: SystemTime,
) -> Result<Vec<Happened>> {
    let printed = cluster.run(&["logs", component, "-o", "json", "--via", via]);
    let lines = lines(&printed.stdout).into_iter();
    happened(lines, |line| text(&line["text"]).to_owned(), start)
}

fn happened(
    values: impl Iterator<Item = Value>,
    message: impl Fn(&Value) -> String,
    start: SystemTime,
) -> Result<Vec<Happened>> {
    let mut all = Vec::new();
    for value in values {
        let time: jiff::Timestamp = text(&value["time"])
            .parse()
            .context("the time of an event")?;
        let at = process::since(start, time)?;
        if at >= 0.0 {
            all.push(Happened {
                node: text(&value["node"]).to_owned(),
                at,
                message: message(&value),
            });
        }
    }
    Ok(all)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The last of the times at which each of so many nodes did it first.
pub fn last_of_first(all: &[Happened], nodes: usize) -> Result<f64> {
    let mut first = std::collections::BTreeMap::new();
    for one in all {
        let at = first.entry(&one.node).or_insert(one.at);
        *at = one.at.min(*at);
    }
    anyhow::ensure!(
        first.len() == nodes,
        "{} of {nodes} nodes did it",
        first.len()
    );
    Ok(first.into_values().fold(0.0, f64::max))
}
