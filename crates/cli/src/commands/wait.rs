//! `--wait`: until a component is everywhere as asked, or a reason why not.

mod verdict;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use realm_agent::status::Picture;
use realm_manifest::ComponentName;
use realm_rpc::status::{Cell, CellState, Component, NodeState, Status};

use crate::{
    commands::Session,
    connection::Connection,
    error::{CliError, ExitCode, Result},
    intent::Durable,
    output::Output,
    realms::Realm,
    survey::Follower,
};
use verdict::{Judge, Verdict};

/// How long another node is looked for when the one that was asked is gone: an agent that was started
/// again is there sooner.
const PATIENCE: Duration = Duration::from_secs(10);
const GOES_ON: &str = "start an agent again, or reach another node: what was asked for goes on where nodes run; \
    look with realm status --via ADDR";
/// Cells that are missing, of those that an error names.
const MAX_CAUSES: usize = 10;
/// No cell waits longer for its next start: a time further away is that of another clock.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Return once it is everywhere as asked; `all` counts lost nodes too. It gives up, with exit code 6, when a cell
    /// has ended 3 times in a row without having run for a second, when what failed is not tried again, and (not with
    /// `all`) when no node could take it for 20s.
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
    let patience = args.timeout.min(PATIENCE);
    let mut follower = Follower::new(session, realm, connection, patience);
    let watched = watch(&mut follower, name, revision, which, session, &mut last);
    match tokio::time::timeout(args.timeout, watched).await {
        Ok(Err(error)) if error.code == ExitCode::NoAgent => Err(error.help(GOES_ON)),
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
    let mut judge = Judge::new(which);
    let mut progress = Progress::default();
    let look = |Picture { status, .. }: Picture| {
        let component = status
            .components
            .iter()
            .find(|one| one.name == name.as_str())
            .filter(|_| status.revision >= revision);
        if let Some(component) = component {
            progress.show(&status, component, &session.output);
            match judge.verdict(&status, component, Instant::now()) {
                Some(Verdict::AsAsked) => {
                    done(name, &status, which, session);
                    return Ok(ControlFlow::Break(ExitCode::Ok));
                }
                Some(Verdict::Hopeless(why)) => {
                    let mut error = missing(&status, component);
                    error.message = format!("{}: {why}", error.message);
                    return Err(error);
                }
                None => {}
            }
        }
        *last = Some(status);
        Ok(ControlFlow::Continue(()))
    };
    follower.follow(look).await
}

/// What was said of the progress, so that nothing is said twice.
#[derive(Debug, Default)]
struct Progress {
    line: String,
    /// What was told last of each cell.
    tries: BTreeMap<String, Try>,
}

impl Progress {
    fn show(&mut self, status: &Status, component: &Component, output: &Output) {
        let line = line(status, component);
        if line != self.line {
            output.say(&line);
            self.line = line;
        }
        for (_, cell) in verdict::failing_cells(status, component) {
            let told = self.tries.entry(cell.id.clone()).or_default();
            let Some((failed, words)) = failed(cell) else {
                continue;
            };
            if failed > *told {
                *told = failed;
                output.say(words);
            }
        }
    }
}

/// Whether a cell has ever started, and the number of its next restart, or of the last one while that is
/// on its way.
type Try = (bool, u64);

/// What is tried again, and what led to it. None on its first way up, be it started already: nothing
/// has failed yet.
fn failed(cell: &Cell) -> Option<(Try, String)> {
    let waits = cell.state == Some(CellState::Backoff);
    let started = cell.started_at.is_some();
    let restart = cell.restarts + u64::from(waits);
    if restart == 0 {
        return None;
    }
    let what = if cell.crashes > 0 || cell.exit_code.is_some() {
        "crashed"
    } else {
        "failed"
    };
    let again = match started {
        true => format!("restart {restart}"),
        // It is still to be pulled or compiled: there is nothing to restart.
        false => "tried again".to_owned(),
    };
    let why = cell.reason.as_ref();
    let why = why.map_or(String::new(), |reason| format!(" ({})", reason.message));
    let wait = cell.restart_at.filter(|_| waits).and_then(until);
    let wait = wait.map_or(String::new(), |wait| {
        format!(" in {}", humantime::format_duration(wait))
    });
    let words = format!("{} {what}{why}, {again}{wait}", cell.id);
    Some(((started, restart), words))
}

/// How long it is until a time of a node's clock. None where that clock is another one than ours.
fn until(at: jiff::Timestamp) -> Option<Duration> {
    let wait = at.duration_since(jiff::Timestamp::now());
    let millis = u64::try_from(wait.as_millis()).ok()?;
    let rounded = Duration::from_millis(millis.next_multiple_of(100));
    (rounded <= LONGEST_BACKOFF).then_some(rounded)
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
pub fn no_node(mut gone: CliError) -> CliError {
    gone.code = ExitCode::NoAgent;
    gone.message = format!(
        "{}, and no other node could be reached in time",
        gone.message
    );
    gone.help(GOES_ON)
}

fn lost_nodes(status: &Status) -> Vec<&str> {
    let nodes = status.nodes.iter();
    nodes
        .filter(|node| node.state == NodeState::Lost)
        .map(|node| node.name.as_str())
        .collect()
}

fn line(status: &Status, component: &Component) -> String {
    let mut line = format!(
        "{}  {}  {}/{}",
        component.name, component.state, component.running, component.desired
    );
    let surplus = verdict::surplus(status, component);
    if surplus > 0 {
        line.push_str(&format!(", and {surplus} more than asked"));
    }
    if let Some(reason) = &component.reason {
        line.push_str(&format!("  {}", reason.message));
    }
    line
}

/// Who is missing, and why.
fn missing(status: &Status, component: &Component) -> CliError {
    let mut error = CliError::new(ExitCode::Partial, line(status, component));
    let count = verdict::all_drift(status, component).count();
    let more = count.saturating_sub(MAX_CAUSES);
    for drift in verdict::all_drift(status, component).take(MAX_CAUSES) {
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
        Some(missing(status, component))
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
        let error = missing(&status, &status.components[0]);
        assert_eq!(error.causes.len(), MAX_CAUSES + 1);
        assert_eq!(error.causes[MAX_CAUSES], "and 20 more: realm status web");
    }

    #[test]
    fn what_failed_is_said_by_whether_it_ever_ran() {
        let words = |state: &str, crashes: u64, restarts: u64, started: bool, exit: Option<i32>| {
            let cell: Cell = serde_json::from_value(json!({
                "id": "one/web#0", "node": "one", "index": 0, "state": state,
                "reason": { "code": "x", "message": "no such file", "help": null },
                "restarts": restarts, "crashes": crashes, "memory_bytes": null,
                "memory_max_bytes": 1, "fuel_used": null, "preemptions": 0,
                "started_at": started.then_some("2026-01-02T03:04:05Z"), "exit_code": exit,
            }))
            .unwrap();
            failed(&cell).map(|(told, words)| (told.1, words))
        };
        let is = |number: u64, words: &str| Some((number, format!("one/web#0 {words}")));
        // It waits for its first restart, and then is on its way.
        let crashed = is(1, "crashed (no such file), restart 1");
        assert_eq!(words("backoff", 1, 0, true, Some(1)), crashed);
        assert_eq!(
            words("starting", 1, 1, true, Some(1)),
            crashed,
            "nothing new"
        );
        assert_eq!(
            words("backoff", 2, 1, true, Some(1)),
            is(2, "crashed (no such file), restart 2")
        );
        // What could not be pulled or compiled never ran: nothing is restarted.
        assert_eq!(
            words("backoff", 0, 0, false, None),
            is(1, "failed (no such file), tried again")
        );
        // On its first way up nothing has failed, neither before it started nor just after.
        for started in [false, true] {
            assert_eq!(words("starting", 0, 0, started, None), None);
        }
    }
}
