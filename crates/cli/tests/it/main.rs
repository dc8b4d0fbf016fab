//! The binary as a person uses it, against real agents.
#![allow(clippy::unwrap_used)]

mod alone;
mod history;
mod realm;
mod trust;

use std::path::PathBuf;

use realm_testkit::Cluster;

fn cluster() -> Cluster {
    Cluster::new(env!("CARGO_BIN_EXE_realm"))
}

/// A program that is committed with the project.
fn guest(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../guests/prebuilt")
        .join(name);
    path.display().to_string()
}
