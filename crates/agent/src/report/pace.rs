//! When a report says something new, and when it is time for the next one.

use realm_identity::Timestamp;
use realm_manifest::report::NodeReport;
use realm_protocol::report_every_ms;

/// A report of more cells is large: every node of the realm pulls it, at some 80 bytes a cell.
const LARGE_CELLS: usize = 100;

/// News is said a second time after this, in milliseconds, however large the realm is.
const REPEAT_MS: u64 = 5_000;
/// In a realm of more nodes not if all that is new is where the node's log stands: every intent is that to each
/// node, and all the others hear it.
const REPEATS_HEADS: usize = 20;

/// How often reports are made, in milliseconds.
struct Pace {
    /// Between two reports that differ in what others act on.
    changed: u64,
    /// At least, between two that differ in nothing but numbers, such as memory.
    calm: u64,
}

const SMALL: Pace = Pace {
    changed: 0,
    calm: 0,
};
const LARGE: Pace = Pace {
    changed: 1_000,
    calm: 30_000,
};

/// How long after a report of a calm node the next one is due, in milliseconds.
pub fn calm_ms(said_news: bool, nodes: usize) -> u64 {
    if said_news {
        REPEAT_MS
    } else {
        report_every_ms(nodes)
    }
}

/// Whether what is new is soon said again: gossip may have lost it.
pub fn is_said_again(last: &NodeReport, next: &NodeReport, nodes: usize) -> bool {
    let is_head = nodes <= REPEATS_HEADS && head(last) != head(next);
    is_head || essence(last) != essence(next)
}

/// Whether it is time for the next report.
pub fn is_due(last: &NodeReport, next: &NodeReport, calm: u64, now: Timestamp) -> bool {
    let pace = if next.cells.len() > LARGE_CELLS {
        LARGE
    } else {
        SMALL
    };
    let age = now.millis_since(last.at);
    // A clock that was set back says nothing about how old the last one is.
    last.at > now || age >= calm.max(pace.calm) || (age >= pace.changed && differs(last, next))
}

/// Whether two reports differ in what others act on.
fn differs(last: &NodeReport, next: &NodeReport) -> bool {
    head(last) != head(next) || essence(last) != essence(next)
}

/// Where the node's log stands.
fn head(report: &NodeReport) -> impl PartialEq + use<> {
    (report.realm, report.revision, report.head)
}

/// What else others act on; numbers that always move do not count.
fn essence(report: &NodeReport) -> impl PartialEq + use<> {
    let cells: Vec<_> = report
        .cells
        .iter()
        .map(|cell| {
            let reason = cell.reason.as_ref().map(|reason| reason.code.clone());
            let id = (
                cell.component.clone(),
                cell.index,
                cell.spec,
                cell.generation,
            );
            (id, cell.state, cell.restarts, cell.exit_code, reason)
        })
        .collect();
    let holds = report.holds.clone();
    let declined = report.declined.clone();
    let told = (report.addresses.clone(), report.problems.clone());
    (report.state, cells, declined, holds, told)
}
