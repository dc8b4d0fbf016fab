//! `--wait` of `drain` and `undrain`: until a node is empty, or has all that it should.

use std::time::Duration;

use realm_agent::status::Picture;
use realm_identity::PublicKey;
use realm_rpc::status::{CellState, NodeState, Status};

use crate::{
    commands::{Session, until::Until},
    connection::Connection,
    error::{ExitCode, Result},
    realms::Realm,
};

/// Waits until no cell runs on the node.
pub async fn drained(
    key: &PublicKey,
    timeout: Duration,
    at: (&Connection, &Realm),
    session: &Session,
) -> Result<ExitCode> {
    let wait = Until {
        timeout,
        done: "no cell runs there",
        late: "still there",
        help: "cells with a volume of their own stay where it is: realm status",
    };
    wait.nothing_is(|now| cells_on(key, &now.status), at, session)
        .await
}

/// Waits until everything runs on the node that should, as of the revision that took it up again.
pub async fn undrained(
    (key, revision): (&PublicKey, u64),
    timeout: Duration,
    at: (&Connection, &Realm),
    session: &Session,
) -> Result<ExitCode> {
    let wait = Until {
        timeout,
        done: "all that should run there does",
        late: "not as asked",
        help: "see why: realm status",
    };
    let left = |now: &Picture| missing_on(key, revision, &now.status);
    wait.nothing_is(left, at, session).await
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
        // What is on nodes that are away is not waited for.
        let away = |name: &str| {
            let mut nodes = now.nodes.iter();
            nodes.any(|node| node.name == name && node.state == NodeState::Lost)
        };
        let drift = now.drift.iter().filter(move |drift| {
            drift.component == one.name && !drift.node.as_deref().is_some_and(away)
        });
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
