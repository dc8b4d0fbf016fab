//! Compiled code that is kept: what was compiled once has to be there the next time.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use realm_manifest::{Limits, units::size_text};
use realm_runtime::Flavour;

use super::{Finding, State, places};
use crate::commands::{Session, run};

/// What group and others must not do, for code to be taken from a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What lies in a cache.
#[derive(Default)]
struct Census {
    bytes: u64,
    /// Files that are not used, since another person may have written them.
    strange: usize,
}

/// Whether a program that was compiled for a command is found the next time.
pub(super) async fn kept(session: &Session, program: &Arc<[u8]>) -> Finding {
    let dir = session.settings.state_dir().join("compiled");
    if is_there(session, program).await {
        return look(&dir, &format!("rm -r {}", dir.display()));
    }
    let found = format!(
        "what is compiled is not kept in {}: every program is compiled at each start",
        dir.display()
    );
    let help = format!(
        "free room there, or move it away, which loses nothing; or choose another place: {}",
        places::CHOOSE_STATE
    );
    Finding::new("cache", State::Warning, found).help(help)
}

/// As by another command, which could compile nothing itself.
async fn is_there(session: &Session, program: &Arc<[u8]>) -> bool {
    let compiling = run::Compiling {
        kept_only: true,
        ..run::Compiling::default()
    };
    let Ok(runtime) = run::runtime(session, compiling) else {
        return false;
    };
    let preparing = runtime.prepare(program.clone(), Flavour::of(&Limits::default()));
    let is_there = preparing.await.is_ok();
    runtime.shutdown().await;
    is_there
}

/// What an agent of this person keeps. That the directory can be used is a finding of its own.
pub(super) fn of_agent(dir: &Path) -> Option<Finding> {
    let remedy = format!(
        "stop the agent, rm -r {}, and start it again",
        dir.display()
    );
    dir.is_dir().then(|| look(dir, &remedy))
}

fn look(dir: &Path, remedy: &str) -> Finding {
    let shown = dir.display();
    match census(dir) {
        Err(error) => {
            let found = format!("{shown} cannot be read: {error}");
            Finding::new("cache", State::Warning, found).help(remedy)
        }
        Ok(Census { bytes, strange: 0 }) => {
            let found = format!("{} of compiled code in {shown}", size_text(bytes));
            Finding::new("cache", State::Ok, found)
        }
        Ok(Census { strange, .. }) => {
            let found = format!(
                "{strange} of the files in {shown} are not used: somebody else can write them"
            );
            let help = format!("all of it is made again when it is needed: {remedy}");
            Finding::new("cache", State::Warning, found).help(help)
        }
    }
}

fn census(dir: &Path) -> std::io::Result<Census> {
    let mut census = Census::default();
    // Root may look at what a service keeps.
    let owner = fs::metadata(dir)?.uid();
    for entry in fs::read_dir(dir)? {
        // It may have gone meanwhile.
        let Ok(metadata) = entry?.metadata() else {
            continue;
        };
        census.bytes += metadata.len();
        census.strange += usize::from(!is_of(owner, &metadata));
    }
    Ok(census)
}

fn is_of(owner: u32, metadata: &Metadata) -> bool {
    let is_closed = metadata.mode() & WRITABLE_BY_OTHERS == 0;
    metadata.is_file() && metadata.uid() == owner && is_closed
}
