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
    wait.nothing_is(|now| cells_on(key, now), at, session).await
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

fn cells_on(key: &PublicKey, now: &Picture) -> Vec<String> {
    let status = &now.status;
    let Some(node) = status.nodes.iter().find(|node| node.key == *key) else {
        return Vec::new();
    };
    if node.cell_count.is_none() && matches!(node.state, NodeState::Ready | NodeState::Draining) {
        return vec![format!("{} has not told of its cells yet", node.name)];
    }
    let cells = status.components.iter().flat_map(|one| &one.cells);
    let mut left: Vec<String> = cells
        .filter(|cell| cell.node == node.name)
        // What runs on a node that is away is not known, and cannot be waited for.
        .filter(|cell| {
            !matches!(
                cell.state,
                None | Some(CellState::Done | CellState::Stopped)
            )
        })
        .map(|cell| cell.id.clone())
        .collect();
    left.extend(removed_on(&node.name, status));
    let told = now.told.get(&node.name).and_then(Option::as_ref);
    let behind = told.and_then(|told| told.not_taken(&node.name, status.revision));
    match behind {
        // Why they are still there.
        Some(behind) if !left.is_empty() => left.insert(0, behind.message),
        _ => {}
    }
    left
}

/// Cells that still run there of components that are gone, and so are in no component of a status.
fn removed_on(node: &str, now: &Status) -> impl Iterator<Item = String> {
    let gone = now.drift.iter().filter(move |drift| {
        let mut known = now.components.iter();
        drift.node.as_deref() == Some(node) && !known.any(|one| one.name == drift.component)
    });
    let ended = [CellState::Done, CellState::Stopped].map(|state| state.to_string());
    let running = gone.filter(move |drift| !ended.contains(&drift.have));
    running.map(move |drift| {
        let index = drift.index.unwrap_or(0);
        format!("{node}/{}#{index}", drift.component)
    })
}
