//! `--wait` of `drain` and `undrain`: until a node is empty, or has all that it should.

use std::time::Duration;

use realm_identity::PublicKey;
use realm_rpc::status::{CellState, NodeState, Status};

use crate::{
    commands::Session,
    connection::Connection,
    error::{CliError, ExitCode, Result},
    realms::Realm,
    survey,
};

/// Between two looks at the node.
const LOOK: Duration = Duration::from_millis(250);

/// Waits until no cell runs on the node.
pub async fn drained(
    key: &PublicKey,
    timeout: Duration,
    at: (&Connection, &Realm),
    session: &Session,
) -> Result<ExitCode> {
    let wait = Wait {
        timeout,
        done: "no cell runs there",
        late: "still there",
        help: "cells with a volume of their own stay where it is: realm status",
    };
    wait.until(|now| cells_on(key, now), at, session).await
}

/// Waits until everything runs on the node that should, as of the revision that took it up again.
pub async fn undrained(
    (key, revision): (&PublicKey, u64),
    timeout: Duration,
    at: (&Connection, &Realm),
    session: &Session,
) -> Result<ExitCode> {
    let wait = Wait {
        timeout,
        done: "all that should run there does",
        late: "not as asked",
        help: "see why: realm status",
    };
    let left = |now: &Status| missing_on(key, revision, now);
    wait.until(left, at, session).await
}

/// What is waited for, and the words for it.
struct Wait {
    timeout: Duration,
    done: &'static str,
    late: &'static str,
    help: &'static str,
}

impl Wait {
    /// Waits until nothing is `left`; afterwards says what is.
    async fn until(
        self,
        left: impl Fn(&Status) -> Vec<String>,
        (connection, realm): (&Connection, &Realm),
        session: &Session,
    ) -> Result<ExitCode> {
        let mut found = Vec::new();
        let nothing = async {
            loop {
                found = left(&survey::picture(connection, realm).await?.status);
                if found.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let done = tokio::time::timeout(self.timeout, nothing).await;
        match done {
            Ok(done) => {
                done?;
                session.output.say(format!("✓ {}", self.done));
                Ok(ExitCode::Ok)
            }
            Err(_) => {
                let timeout = humantime::format_duration(self.timeout);
                let message = format!("{} after {timeout}: {}", self.late, found.join(", "));
                Err(CliError::new(ExitCode::Partial, message).help(self.help))
            }
        }
    }
}

/// What is not yet as asked of the components that have a place on the node.
fn missing_on(key: &PublicKey, revision: u64, now: &Status) -> Vec<String> {
    let Some(node) = now.nodes.iter().find(|node| node.key == *key) else {
        return vec!["the node".to_owned()];
    };
    if now.revision < revision || node.state != NodeState::Ready {
        return vec![format!("{} is {}", node.name, node.state)];
    }
    let placed = now.components.iter().filter(|one| {
        let mut nodes = one.desired_nodes.iter();
        nodes.any(|name| *name == node.name)
    });
    let missing = placed.flat_map(|one| {
        let drift = now.drift.iter().filter(|drift| drift.component == one.name);
        drift.map(|drift| {
            let at = drift.node.as_deref().unwrap_or("no node");
            let (component, have, want) = (&drift.component, &drift.have, &drift.want);
            format!("{at}/{component}: {have}, wants {want}")
        })
    });
    missing.collect()
}

fn cells_on(key: &PublicKey, now: &Status) -> Vec<String> {
    let node = now.nodes.iter().find(|node| node.key == *key);
    let name = node.map(|node| node.name.as_str());
    if let Some(node) = node
        && node.cell_count.is_none()
        && matches!(node.state, NodeState::Ready | NodeState::Draining)
    {
        return vec![format!("what {} itself says of its cells", node.name)];
    }
    let cells = now.components.iter().flat_map(|one| &one.cells);
    cells
        .filter(|cell| Some(cell.node.as_str()) == name)
        // What runs on a node that is away is not known, and cannot be waited for.
        .filter(|cell| {
            !matches!(
                cell.state,
                None | Some(CellState::Done | CellState::Stopped)
            )
        })
        .map(|cell| cell.id.clone())
        .collect()
}
