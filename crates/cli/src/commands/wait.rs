//! `--wait`: until a component is everywhere as asked, or a reason why not.

use std::{ops::ControlFlow, time::Duration};

use realm_manifest::ComponentName;
use realm_rpc::status::{Cell, CellState, Component, ComponentState, NodeState, Status};

use crate::{
    commands::Session,
    connection::Connection,
    error::{CliError, ExitCode, Result},
    intent::Durable,
    realms::Realm,
    survey::Follower,
};

/// Cells that are missing, of those that an error names.
const MAX_CAUSES: usize = 10;

#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Return once it is everywhere as asked; `all` counts lost nodes too.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "present", value_name = "present|all")]
    pub wait: Option<Which>,
    /// How long to wait, such as 30s.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// Nodes that are present.
    Present,
    /// Every node, also those that are lost.
    All,
}

impl Args {
    /// Where the intent must be on disk before the wait begins.
    pub const fn durable(&self) -> Durable {
        match self.wait {
            Some(_) => Durable::OnTwo(self.timeout),
            None => Durable::OnOne,
        }
    }
}

/// Waits if that was asked; otherwise says what to do next.
pub async fn finish(
    args: &Args,
    (connection, realm): (&Connection, &Realm),
    name: &ComponentName,
    revision: u64,
    session: &Session,
) -> Result<ExitCode> {
    let Some(which) = args.wait else {
        session.output.say(format!(
            "Next: realm status {name}, or realm logs {name} -f"
        ));
        return Ok(ExitCode::Ok);
    };
    let mut last = None;
    let mut follower = Follower::new(session, realm, connection, args.timeout);
    let watched = watch(&mut follower, name, revision, which, session, &mut last);
    match tokio::time::timeout(args.timeout, watched).await {
        Ok(done) => done,
        Err(_) => Err(follower
            .gone()
            .map_or_else(|| late(name, args.timeout, last), no_node)),
    }
}

async fn watch(
    follower: &mut Follower<'_>,
    name: &ComponentName,
    revision: u64,
    which: Which,
    session: &Session,
    last: &mut Option<Status>,
) -> Result<ExitCode> {
    let mut said = String::new();
    let look = |status: Status| {
        let component = status
            .components
            .iter()
            .find(|one| one.name == name.as_str())
            .filter(|_| status.revision >= revision);
        if let Some(component) = component {
            let line = line(component);
            if line != said {
                session.output.say(&line);
                said = line;
            }
            match verdict(&status, component, which) {
                Some(ExitCode::Ok) => {
                    done(name, &status, which, session);
                    return Ok(ControlFlow::Break(ExitCode::Ok));
                }
                Some(code) => return Err(missing(code, &status, component)),
                None => {}
            }
        }
        *last = Some(status);
        Ok(ControlFlow::Continue(()))
    };
    follower.follow(look).await
}

fn done(name: &ComponentName, status: &Status, which: Which, session: &Session) {
    session.output.say(format!("✓ {name} is as asked"));
    let lost = lost_nodes(status);
    if which == Which::Present && !lost.is_empty() {
        session.output.say(format!(
            "not counted, for they are lost: {}",
            lost.join(", ")
        ));
    }
}

/// The time is over, and no node was left to ask.
fn no_node(mut gone: CliError) -> CliError {
    gone.code = ExitCode::NoAgent;
    gone.message = format!(
        "{}, and no other node could be reached in time",
        gone.message
    );
    gone.help("what was asked goes on: look again with realm status --via ADDR")
}

/// Whether the wait is over, and how.
fn verdict(status: &Status, component: &Component, which: Which) -> Option<ExitCode> {
    let is_coming = |cell: &Cell| {
        matches!(
            cell.state,
            Some(CellState::Pulling | CellState::Compiling | CellState::Starting)
        )
    };
    let coming = component.cells.iter().any(is_coming);
    if component.state == ComponentState::Failed && !coming {
        return Some(if component.running > 0 {
            ExitCode::Partial
        } else {
            ExitCode::Failed
        });
    }
    let stopped =
        component.state == ComponentState::Stopped && !component.cells.iter().any(is_live);
    let waits_for_lost = which == Which::Present
        && component.running > 0
        && drift(status, component).all(|node| node.is_some_and(|node| is_lost(status, node)));
    let as_asked = component.running >= component.desired && component.desired > 0;
    let complete = which == Which::Present || drift(status, component).next().is_none();
    (stopped || (as_asked && complete) || waits_for_lost).then_some(ExitCode::Ok)
}

fn drift<'a>(
    status: &'a Status,
    component: &'a Component,
) -> impl Iterator<Item = Option<&'a str>> {
    let of_this = status
        .drift
        .iter()
        .filter(|drift| drift.component == component.name);
    of_this.map(|drift| drift.node.as_deref())
}

/// Whether a cell may still be running; of one on a lost node nobody knows, and nobody waits for it.
fn is_live(cell: &Cell) -> bool {
    !matches!(
        cell.state,
        None | Some(CellState::Done | CellState::Failed | CellState::Stopped)
    )
}

fn lost_nodes(status: &Status) -> Vec<&str> {
    let nodes = status.nodes.iter();
    nodes
        .filter(|node| node.state == NodeState::Lost)
        .map(|node| node.name.as_str())
        .collect()
}

fn is_lost(status: &Status, name: &str) -> bool {
    status
        .nodes
        .iter()
        .any(|node| node.name == name && node.state == NodeState::Lost)
}

fn line(component: &Component) -> String {
    let mut line = format!(
        "{}  {}  {}/{}",
        component.name, component.state, component.running, component.desired
    );
    if let Some(reason) = &component.reason {
        line.push_str(&format!("  {}", reason.message));
    }
    line
}

/// Who is missing, and why.
fn missing(code: ExitCode, status: &Status, component: &Component) -> CliError {
    let mut error = CliError::new(code, line(component));
    let of_this = status
        .drift
        .iter()
        .filter(|drift| drift.component == component.name);
    let more = of_this.clone().count().saturating_sub(MAX_CAUSES);
    for drift in of_this.take(MAX_CAUSES) {
        let node = drift.node.as_deref().unwrap_or("no node");
        // Without a reason it is on its way: what it has says how far.
        let reason = drift.reason.as_ref();
        let reason = reason.map_or(String::new(), |reason| format!(": {}", reason.message));
        error.causes.push(format!(
            "{node}: {}, wants {}{reason}",
            drift.have, drift.want
        ));
    }
    if more > 0 {
        let all = format!("and {more} more: realm status {}", component.name);
        error.causes.push(all);
    }
    let help = component
        .reason
        .as_ref()
        .and_then(|reason| reason.help.clone());
    error.help(help.unwrap_or_else(|| format!("see more: realm logs {}", component.name)))
}

fn late(name: &ComponentName, timeout: Duration, last: Option<Status>) -> CliError {
    let found = last.as_ref().and_then(|status| {
        let component = status
            .components
            .iter()
            .find(|one| one.name == name.as_str())?;
        Some(missing(ExitCode::Partial, status, component))
    });
    let timeout = humantime::format_duration(timeout);
    match found {
        Some(mut error) => {
            error.message = format!("not as asked after {timeout}: {}", error.message);
            error
        }
        None => CliError::new(
            ExitCode::Partial,
            format!("{name} did not appear in the status within {timeout}"),
        )
        .help("look again: realm status"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_names_some_of_the_missing_and_counts_the_rest() {
        let component = json!({
            "name": "web", "digest": "00".repeat(32), "desired": 30, "running": 0,
            "state": "pending", "reason": null, "set_by": { "by": "push", "revision": 1 },
            "desired_nodes": [], "cells": [],
        });
        let drift = |index| {
            json!({
                "component": if index % 2 == 0 { "web" } else { "other" }, "node": "one",
                "index": index, "want": "running", "have": "nothing", "reason": null,
            })
        };
        let status: Status = serde_json::from_value(json!({
            "apiVersion": "realm/v1", "realm": { "id": "00".repeat(32), "name": "home" },
            "revision": 1, "forked": false, "nodes": [], "components": [component],
            "drift": (0..60).map(drift).collect::<Vec<_>>(),
        }))
        .unwrap();
        let error = missing(ExitCode::Partial, &status, &status.components[0]);
        assert_eq!(error.causes.len(), MAX_CAUSES + 1);
        assert_eq!(error.causes[MAX_CAUSES], "and 20 more: realm status web");
    }
}
