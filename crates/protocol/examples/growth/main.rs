//! How a realm's chatter grows with its size: real nodes, a modelled network.
//!
//! `growth 8 50 300 1000` prints one JSON line for each size. Every node of the realm is a real
//! [`realm_protocol::Node`]; what is modelled is the network between them: see [`network`].

#[allow(dead_code, reason = "the tests also refuse a payload")]
#[path = "../../tests/it/fold.rs"]
mod fold;
mod network;
mod realm;
mod words;

use std::process::ExitCode;

use realm::Realm;

/// Beyond this many nodes the memory of every node's view of every other one no longer fits.
const NODES_MAX: usize = 2_000;

fn main() -> ExitCode {
    let sizes: Result<Vec<usize>, _> = std::env::args().skip(1).map(|size| size.parse()).collect();
    let sizes = match sizes {
        Ok(sizes)
            if !sizes.is_empty() && sizes.iter().all(|size| (3..=NODES_MAX).contains(size)) =>
        {
            sizes
        }
        _ => {
            eprintln!("usage: growth NODES...  each of 3 to {NODES_MAX}");
            return ExitCode::from(2);
        }
    };
    for size in sizes {
        let measured = Realm::new(size).measure();
        println!("{measured}");
    }
    ExitCode::SUCCESS
}
