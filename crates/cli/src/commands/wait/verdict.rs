//! What a status says of a wait: that it is over, and how.

use std::time::{Duration, Instant};

use realm_planner::status::MAX_CRASHES;
use realm_rpc::status::{Cell, CellState, Component, ComponentState, Drift, NodeState, Status};

use super::Which;

/// No node may be able to take a cell for this long: one that is started again, or tells late what
/// room it has, is there sooner.
pub const PLACED_WITHIN: Duration = Duration::from_secs(20);

/// How a wait ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    AsAsked,
    /// It will not be, for this reason.
    Hopeless(String),
}

/// Judges one status after the other.
#[derive(Debug)]
pub struct Judge {
    which: Which,
    /// Since when no node can take one of its cells.
    nowhere: Option<Instant>,
}

impl Judge {
    pub const fn new(which: Which) -> Self {
        Self {
            which,
            nowhere: None,
        }
    }

    /// None while it goes on.
    pub fn verdict(
        &mut self,
        status: &Status,
        component: &Component,
        now: Instant,
    ) -> Option<Verdict> {
        if is_as_asked(status, component, self.which) {
            // It is enough, and what is too much is about to stop.
            let is_exact = surplus(status, component) == 0;
            return is_exact.then_some(Verdict::AsAsked);
        }
        let hopeless = crashing(status, component)
            .or_else(|| given_up(status, component))
            .or_else(|| self.nowhere(status, component, now));
        hopeless.map(Verdict::Hopeless)
    }

    /// Whoever counts lost nodes waits for nodes to come.
    fn nowhere(&mut self, status: &Status, component: &Component, now: Instant) -> Option<String> {
        let is_placed = wanted(status, component).all(|drift| !has_no_place(status, drift));
        if self.which == Which::All || (is_placed && component.state != ComponentState::Waiting) {
            self.nowhere = None;
            return None;
        }
        let since = *self.nowhere.get_or_insert(now);
        (now.duration_since(since) >= PLACED_WITHIN).then(|| {
            let within = humantime::format_duration(PLACED_WITHIN);
            format!("no node could take it for {within}")
        })
    }
}

fn is_as_asked(status: &Status, component: &Component, which: Which) -> bool {
    let stopped =
        component.state == ComponentState::Stopped && !component.cells.iter().any(is_live);
    let drift = || all_drift(status, component);
    let is_lost = |drift: &Drift| {
        let node = drift.node.as_deref();
        node.is_some_and(|node| is_lost(status, node))
    };
    let waits_for_lost = which == Which::Present && component.running > 0 && drift().all(is_lost);
    let running = component.running >= component.desired && component.desired > 0;
    let complete = which == Which::Present || drift().next().is_none();
    stopped || (running && complete) || waits_for_lost
}

/// Cells beyond what is asked that still run and are about to stop: enough run without them. One that
/// runs in the place of a missing one is none of them, nor one of a node whose version does not
/// understand what is asked.
pub fn surplus(status: &Status, component: &Component) -> usize {
    let is_enough =
        component.running > component.desired || wanted(status, component).next().is_none();
    if !is_enough {
        return 0;
    }
    let unwanted = all_drift(status, component).filter(|drift| drift.want == "stopped");
    let acts = |name: &str| {
        let mut nodes = status.nodes.iter();
        nodes.any(|node| {
            node.name == name && !matches!(node.state, NodeState::Lost | NodeState::Incompatible)
        })
    };
    unwanted
        .filter(|drift| drift.node.as_deref().is_some_and(acts))
        .filter(|drift| runs(&drift.have))
        .count()
}

/// Whether a cell of this state is at work, or will be.
fn runs(state: &str) -> bool {
    let states = [
        CellState::Pulling,
        CellState::Compiling,
        CellState::Starting,
        CellState::Running,
        CellState::Backoff,
    ];
    states.iter().any(|one| one.to_string() == state)
}

/// A cell of what is asked now that keeps crashing, whatever it is doing at the moment.
fn crashing(status: &Status, component: &Component) -> Option<String> {
    let mut cells = failing_cells(status, component).map(|(_, cell)| cell);
    let cell = cells.find(|cell| cell.crashes >= u64::from(MAX_CRASHES))?;
    Some(format!(
        "{} ended {} times in a row without having run for a second",
        cell.id, cell.crashes
    ))
}

/// Something failed that is not tried again, and nothing is on its way any more.
fn given_up(status: &Status, component: &Component) -> Option<String> {
    let is_coming = |cell: &Cell| {
        matches!(
            cell.state,
            Some(CellState::Pulling | CellState::Compiling | CellState::Starting)
        )
    };
    let failed = |drift: &Drift| drift.have == CellState::Failed.to_string();
    let over = component.state == ComponentState::Failed || wanted(status, component).any(failed);
    (over && !component.cells.iter().any(is_coming))
        .then(|| "it failed, and is not tried again".to_owned())
}

/// Cells of what is asked now that are to run and do not, with what is missing.
pub fn failing_cells<'a>(
    status: &'a Status,
    component: &'a Component,
) -> impl Iterator<Item = (&'a Drift, &'a Cell)> {
    let is_this = |drift: &Drift| {
        // One of an earlier version says nothing of this one.
        let mut reasons = drift.reason.iter();
        drift.have != "nothing" && !reasons.any(|reason| reason.code == "replacing")
    };
    let drift = wanted(status, component).filter(move |drift| is_this(drift));
    drift.filter_map(|drift| {
        let mut cells = component.cells.iter();
        let cell = cells.find(|cell| {
            Some(cell.node.as_str()) == drift.node.as_deref() && Some(cell.index) == drift.index
        })?;
        Some((drift, cell))
    })
}

/// What should run, where somebody is there to run it.
fn wanted<'a>(status: &'a Status, component: &'a Component) -> impl Iterator<Item = &'a Drift> {
    let drift = all_drift(status, component).filter(|drift| drift.want == "running");
    drift.filter(|drift| {
        let node = drift.node.as_deref();
        node.is_none_or(|node| !is_lost(status, node))
    })
}

fn has_no_place(status: &Status, drift: &Drift) -> bool {
    let Some(node) = &drift.node else { return true };
    let refuses = |code: &str| matches!(code, "no-room" | "draining" | "incompatible");
    let mut reasons = drift.reason.iter();
    !is_lost(status, node) && reasons.any(|reason| refuses(&reason.code))
}

/// Everything in which a component differs from what is asked.
pub fn all_drift<'a>(
    status: &'a Status,
    component: &'a Component,
) -> impl Iterator<Item = &'a Drift> {
    let drift = status.drift.iter();
    drift.filter(|drift| drift.component == component.name)
}

/// Whether a cell may still be running; of one on a lost node nobody knows, and nobody waits for it.
pub fn is_live(cell: &Cell) -> bool {
    !matches!(
        cell.state,
        None | Some(CellState::Done | CellState::Failed | CellState::Stopped)
    )
}

fn is_lost(status: &Status, name: &str) -> bool {
    status
        .nodes
        .iter()
        .any(|node| node.name == name && node.state == NodeState::Lost)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    /// A component of one cell that is in this state, and the drift that this makes.
    fn scene(state: &str, have: &str, cell: Value, reason: &Value) -> Status {
        let zeros = "00".repeat(32);
        let drift = json!([{
            "component": "web", "node": "one", "index": 0, "want": "running", "have": have,
            "reason": reason,
        }]);
        let component = json!({
            "name": "web", "digest": zeros, "desired": 1, "running": 0, "state": state,
            "reason": null, "set_by": { "by": "push", "revision": 1 },
            "desired_nodes": ["one"], "cells": cell.as_object().map(|_| vec![cell.clone()]).unwrap_or_default(),
        });
        serde_json::from_value(json!({
            "apiVersion": "realm/v1", "realm": { "id": zeros, "name": "home" }, "revision": 1,
            "forked": false, "nodes": [], "components": [component], "drift": drift,
        }))
        .unwrap()
    }

    fn cell(state: &str, crashes: u64) -> Value {
        json!({
            "id": "one/web#0", "node": "one", "index": 0, "state": state, "reason": null,
            "restarts": crashes, "crashes": crashes, "memory_bytes": 1, "memory_max_bytes": 1,
            "fuel_used": null, "preemptions": 0, "started_at": null, "exit_code": 1,
        })
    }

    fn judged(status: &Status) -> Option<Verdict> {
        let mut judge = Judge::new(Which::Present);
        judge.verdict(status, &status.components[0], Instant::now())
    }

    #[test]
    fn what_crashed_twice_is_waited_for_and_three_times_is_not() {
        for state in ["backoff", "starting"] {
            let twice = scene("starting", state, cell(state, 2), &Value::Null);
            assert_eq!(judged(&twice), None, "{state}");
            let thrice = scene("failed", state, cell(state, 3), &Value::Null);
            let Some(Verdict::Hopeless(why)) = judged(&thrice) else {
                panic!("it goes on while {state}");
            };
            assert!(why.contains("one/web#0 ended 3 times"), "{why}");
        }
    }

    #[test]
    fn crashes_of_the_version_before_do_not_count() {
        let replacing = json!({ "code": "replacing", "message": "", "help": null });
        let starting = scene("starting", "starting", cell("starting", 9), &replacing);
        assert_eq!(judged(&starting), None);
        let backoff = scene("pending", "nothing", cell("backoff", 9), &Value::Null);
        assert_eq!(judged(&backoff), None);
    }

    #[test]
    fn what_failed_for_good_is_given_up_at_once() {
        let failed = scene("failed", "failed", cell("failed", 0), &Value::Null);
        assert!(matches!(judged(&failed), Some(Verdict::Hopeless(_))));
    }

    /// A component of one cell that runs, and another one beyond it.
    fn with_surplus(have: &str, node: &str, running: u64) -> Status {
        let mut status = scene("running", have, cell("running", 0), &Value::Null);
        status.components[0].running = running;
        status.drift[0].want = "stopped".to_owned();
        let key = realm_identity::SecretKey::from_seed(&[1; 32]).public();
        status.nodes = serde_json::from_value(json!([{
            "name": "one", "key": key, "state": node, "version": "0", "tags": [],
            "address": null, "link": "self", "rtt_ms": null, "cpu_percent": null,
            "memory_bytes": null, "cell_count": 1, "last_seen": null,
        }]))
        .unwrap();
        status
    }

    #[test]
    fn what_runs_beyond_what_is_asked_is_waited_for_until_it_stops() {
        for have in ["running", "starting", "backoff"] {
            let status = with_surplus(have, "ready", 2);
            assert_eq!(surplus(&status, &status.components[0]), 1);
            assert_eq!(judged(&status), None, "{have}");
        }
        // A cell of an earlier version is not among those that run as asked.
        assert_eq!(judged(&with_surplus("running", "ready", 1)), None);
        for (have, node) in [
            ("done", "ready"),
            ("running", "lost"),
            ("running", "incompatible"),
        ] {
            let status = with_surplus(have, node, 2);
            assert_eq!(judged(&status), Some(Verdict::AsAsked), "{have} on {node}");
        }
    }

    #[test]
    fn a_cell_that_runs_for_one_that_has_no_place_is_not_too_much() {
        let mut status = with_surplus("running", "ready", 1);
        let mut missing = status.drift[0].clone();
        (missing.node, missing.want) = (None, "running".to_owned());
        status.drift.push(missing);
        assert_eq!(judged(&status), Some(Verdict::AsAsked));
    }

    #[test]
    fn a_place_is_looked_for_only_for_a_while_unless_lost_nodes_count() {
        let no_room = json!({ "code": "no-room", "message": "", "help": null });
        let status = scene("pending", "nothing", Value::Null, &no_room);
        let start = Instant::now();
        for which in [Which::Present, Which::All] {
            let mut judge = Judge::new(which);
            let mut at = |after| judge.verdict(&status, &status.components[0], start + after);
            assert_eq!(at(Duration::ZERO), None);
            assert_eq!(at(PLACED_WITHIN / 2), None);
            let late = at(PLACED_WITHIN);
            assert_eq!(late.is_some(), which == Which::Present);
        }
    }
}
