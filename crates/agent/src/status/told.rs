//! What a node says of its cells, and how far it has followed the log.

use std::collections::{BTreeMap, BTreeSet};

use realm_manifest::{
    ComponentName,
    report::{NodeReport, NodeState, Reason},
};

use super::Scene;
use crate::reason::reason;

/// A node's word of its cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The revision that it has folded.
    pub revision: u64,
    /// Components that it has cells of.
    pub components: BTreeSet<ComponentName>,
    /// What keeps it from doing its part.
    pub problem: Option<Reason>,
    /// Whether its version does not understand what comes after its revision.
    pub incompatible: bool,
}

impl Told {
    pub(super) fn of(report: &NodeReport) -> Self {
        let cells = report.cells.iter();
        Self {
            revision: report.revision,
            components: cells.map(|cell| cell.component.clone()).collect(),
            problem: report.problems.first().cloned(),
            incompatible: report.state == NodeState::Incompatible,
        }
    }

    /// That the node called `name` does not know of a revision yet, and why, where it says so.
    pub fn not_taken(&self, name: &str, revision: u64) -> Option<Reason> {
        let at = self.revision;
        if at >= revision {
            return None;
        }
        let mut message =
            format!("{name} is at revision {at}, and has not taken revision {revision} yet");
        if self.incompatible {
            message.push_str(": its version of realm does not understand it");
            let help = "install the version there that signed it: see docs/operating/upgrade.md";
            return Some(reason("incompatible", message, Some(help)));
        }
        let Some(problem) = &self.problem else {
            let help = format!("see the node: realm nodes show {name}");
            return Some(reason("behind", message, Some(&help)));
        };
        message = format!("{message}: {}", problem.message);
        Some(reason("behind", message, problem.help.as_deref()))
    }
}

impl Scene<'_> {
    pub(super) fn told(&self) -> BTreeMap<String, Option<Told>> {
        let here = self.approved.keys().filter(|key| self.is_here(key));
        let told = here.map(|key| (self.name(key), self.report(key).map(Told::of)));
        told.collect()
    }
}
