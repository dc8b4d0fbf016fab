//! The benchmarks, in the order in which they are run.

use anyhow::Result;

use crate::{report::Measured, scene::Scene};

mod cold;
mod density;
mod failover;
mod growth;
mod halves;
mod idle;
mod neighbour;
mod pull;
mod push;

pub struct Benchmark {
    pub name: &'static str,
    pub title: &'static str,
    pub run: fn(&Scene) -> Result<Measured>,
}

pub const ALL: &[Benchmark] = &[
    Benchmark {
        name: "cold",
        title: "Cold start: from disk to the first output",
        run: cold::run,
    },
    Benchmark {
        name: "idle",
        title: "An idle agent among eight",
        run: idle::run,
    },
    Benchmark {
        name: "density",
        title: "A thousand idle cells on one node",
        run: density::run,
    },
    Benchmark {
        name: "push",
        title: "Push to running on eight agents",
        run: push::run,
    },
    Benchmark {
        name: "failover",
        title: "A killed node's work runs elsewhere",
        run: failover::run,
    },
    Benchmark {
        name: "halves",
        title: "Fifty agents, one half cut from the other",
        run: halves::run,
    },
    Benchmark {
        name: "pull",
        title: "An artifact of 256 MB from node to node",
        run: pull::run,
    },
    Benchmark {
        name: "neighbour",
        title: "Spinning neighbours, and deadlines among them",
        run: neighbour::run,
    },
    Benchmark {
        name: "growth",
        title: "A realm that grows",
        run: growth::run,
    },
];
