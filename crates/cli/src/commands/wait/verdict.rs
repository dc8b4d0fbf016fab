//! What a status says of a wait: that it is over, and how.

use std::time::{Duration, Instant};

use realm_planner::status::MAX_CRASHES;
use realm_rpc::status::{Cell, CellState, Component, ComponentState, Drift, NodeState, Status};

use super::Which;

/// No node may be able to take a cell for this long: nodes that came a moment ago are given no work in
/// their first ten seconds.
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
            return Some(Verdict::AsAsked);
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
