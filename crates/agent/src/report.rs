//! What this node says of itself: a signed report, and the digest of it that is gossiped.

use realm_identity::{Hash, PublicKey, RealmId, SecretKey, Signed, Timestamp, canonical};
use realm_manifest::{
    NodeName, Tag,
    report::{
        Capacity, CellReport, CellState, Declined, Held, MAX_CELLS, MAX_PROBLEMS, MAX_REPORT_BYTES,
        NodeReport, NodeState, Reason, StatusDigest,
    },
};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

mod pace;

use crate::VERSION;
use crate::metrics::Process;

/// A signed report is at most so long; the signature and the envelope need the rest.
const MAX_BYTES: usize = MAX_REPORT_BYTES - 512;
/// Letters of a message where there are too many.
const SHORT_CHARS: usize = 40;

/// What changes from report to report.
#[derive(Debug)]
pub struct Facts {
    pub realm: RealmId,
    pub revision: u64,
    pub head: Hash,
    pub approved: bool,
    /// Approved nodes of the realm.
    pub nodes: usize,
    pub incompatible: bool,
    pub addresses: Vec<String>,
    pub cells: Vec<CellReport>,
    pub declined: Vec<Declined>,
    /// Components with data on this node, sorted.
    pub holds: Vec<Held>,
    /// The certificate of the node's sealing key, as on the wire.
    pub sealing: Vec<u8>,
    /// Of the node itself, the worst first.
    pub problems: Vec<Reason>,
}

/// Makes reports, each with a higher sequence number than the one before.
#[derive(Debug)]
pub struct Reporter {
    name: NodeName,
    tags: Vec<Tag>,
    capacity: Capacity,
    boot_id: u64,
    seq: u64,
    last: Option<NodeReport>,
    /// The last report said something new: gossip may have lost it, so that it is soon said again.
    news: bool,
    /// None where the system does not tell.
    system: Option<System>,
}

impl Reporter {
    pub fn new(name: NodeName, tags: Vec<Tag>, capacity: Capacity, boot_id: u64) -> Self {
        Self {
            name,
            tags,
            capacity,
            boot_id,
            seq: 0,
            last: None,
            news: false,
            system: System::new().ok(),
        }
    }

    /// Number of this start.
    pub const fn boot_id(&self) -> u64 {
        self.boot_id
    }

    pub fn name(&self) -> String {
        self.name.to_string()
    }

    pub fn node_name(&self) -> NodeName {
        self.name.clone()
    }

    pub fn tags(&self) -> Vec<String> {
        self.tags.iter().map(ToString::to_string).collect()
    }

    /// This process as the last report had it.
    pub fn process(&self) -> Process {
        let last = self.last.as_ref();
        let hundredths = last.and_then(|last| last.cpu_hundredths);
        Process {
            // Hundredths of a per cent of one core.
            cpu_ratio: hundredths.map(|hundredths| f64::from(hundredths) / 10_000.0),
            resident_bytes: last.and_then(|last| last.memory_bytes),
        }
    }

    /// A new report with its signed digest; None when there is nothing new to say.
    pub fn make(
        &mut self,
        key: &SecretKey,
        facts: Facts,
        now: Timestamp,
        anyway: bool,
    ) -> Option<(Signed<NodeReport>, Vec<u8>)> {
        let nodes = facts.nodes;
        let calm = pace::calm_ms(self.news, nodes);
        let mut report = self.report(key.public(), facts, now);
        let due = |last| pace::is_due(last, &report, calm, now);
        if !anyway && !self.last.as_ref().is_none_or(due) {
            return None;
        }
        let last = self.last.as_ref();
        self.news = last.is_none_or(|last| pace::is_said_again(last, &report, nodes));
        self.seq += 1;
        report.seq = self.seq;
        (report.cpu_hundredths, report.memory_bytes) = self.measure();
        fit(&mut report);
        self.last = Some(report.clone());
        let digest = self.digest(&report);
        let report = Signed::sign(report, key).unwrap_or_else(|never| match never {});
        let digest = StatusDigest {
            report: report.hash(),
            ..digest
        };
        let digest = Signed::sign(digest, key).unwrap_or_else(|never| match never {});
        Some((report, digest.to_wire()))
    }

    fn report(&self, node: PublicKey, facts: Facts, now: Timestamp) -> NodeReport {
        let state = if facts.incompatible {
            NodeState::Incompatible
        } else if facts.approved {
            NodeState::Ready
        } else {
            NodeState::Pending
        };
        let mut cells = facts.cells;
        if cells.len() > MAX_CELLS as usize {
            tracing::warn!(cells = cells.len(), "more cells than one report holds");
            cells.truncate(MAX_CELLS as usize);
        }
        NodeReport {
            node,
            realm: facts.realm,
            boot_id: self.boot_id,
            seq: self.seq,
            at: now,
            revision: facts.revision,
            head: facts.head,
            state,
            name: self.name.clone(),
            tags: self.tags.clone(),
            version: VERSION.to_owned(),
            addresses: facts.addresses,
            cpu_hundredths: None,
            memory_bytes: None,
            capacity: self.capacity,
            cells,
            declined: facts.declined,
            holds: facts.holds,
            sealing: Some(facts.sealing.into()),
            problems: facts.problems,
        }
    }

    fn digest(&self, report: &NodeReport) -> StatusDigest {
        let running = report
            .cells
            .iter()
            .filter(|cell| cell.state == CellState::Running)
            .count();
        let own = report.problems.iter().map(|problem| problem.code.clone());
        let mut problems: Vec<String> = report
            .cells
            .iter()
            .filter(|cell| matches!(cell.state, CellState::Failed | CellState::Backoff))
            .filter_map(|cell| cell.reason.as_ref().map(|reason| reason.code.clone()))
            .collect();
        problems.sort();
        problems.dedup();
        problems.splice(0..0, own);
        problems.truncate(MAX_PROBLEMS);
        StatusDigest {
            node: report.node,
            realm: report.realm,
            boot_id: report.boot_id,
            seq: report.seq,
            at: report.at,
            revision: report.revision,
            head: report.head,
            state: report.state,
            report: Hash::of(&[]),
            cells_running: u32::try_from(running).unwrap_or(u32::MAX),
            cells_wanted: u32::try_from(report.cells.len()).unwrap_or(u32::MAX),
            problems,
        }
    }

    /// CPU in hundredths of a per cent of one core, and resident memory, of this process.
    fn measure(&mut self) -> (Option<u32>, Option<u64>) {
        let (Some(system), Ok(pid)) = (&mut self.system, sysinfo::get_current_pid()) else {
            return (None, None);
        };
        let wanted = ProcessRefreshKind::nothing().with_cpu().with_memory();
        let pids: [Pid; 1] = [pid];
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&pids), false, wanted);
        match system.process(pid) {
            Some(process) => {
                let cpu = (process.cpu_usage() * 100.0).max(0.0) as u32;
                (Some(cpu), Some(process.memory()))
            }
            None => (None, None),
        }
    }
}

/// Leaves out what is least needed until the report may be sent: others must hear of this node
/// whatever its cells have to tell.
fn fit(report: &mut NodeReport) {
    const STEPS: [fn(&mut CellReport); 3] = [
        |cell| {
            if let Some(reason) = &mut cell.reason {
                reason.help = None;
            }
        },
        |cell| {
            if let Some(reason) = &mut cell.reason {
                reason.message = reason.message.chars().take(SHORT_CHARS).collect();
            }
        },
        |cell| cell.reason = None,
    ];
    let too_large = |report: &NodeReport| canonical::encode(report).len() > MAX_BYTES;
    for step in STEPS {
        if !too_large(report) {
            return;
        }
        report.cells.iter_mut().for_each(step);
    }
    for declined in &mut report.declined {
        declined.reason.message.clear();
        declined.reason.help = None;
    }
    let all = report.cells.len() + report.declined.len();
    while too_large(report) && all > 0 {
        // An eighth at a time, since each look costs as much as the report is long.
        let fewer = |length: usize| length - length.div_ceil(8);
        if report.declined.is_empty() {
            report.cells.truncate(fewer(report.cells.len()));
        } else {
            report.declined.truncate(fewer(report.declined.len()));
        }
    }
    let left_out = all - report.cells.len() - report.declined.len();
    if left_out > 0 {
        tracing::error!(left_out, "a report is too large even without reasons");
    }
}

#[cfg(test)]
mod tests {
    use realm_manifest::report::Retry;

    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn reporter() -> Reporter {
        let name: NodeName = "one".parse().expect("a name");
        Reporter::new(name, Vec::new(), Capacity::default(), 1)
    }

    fn facts(cells: Vec<CellReport>) -> Facts {
        Facts {
            realm: Hash::of(b"realm"),
            revision: 1,
            head: Hash::of(b"head"),
            approved: true,
            nodes: 1,
            incompatible: false,
            addresses: Vec::new(),
            cells,
            declined: Vec::new(),
            holds: Vec::new(),
            sealing: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn calm(component: &str, index: u32) -> CellReport {
        CellReport {
            component: component.parse().expect("a name"),
            index,
            spec: Hash::of(b"spec"),
            generation: 1,
            state: CellState::Running,
            reason: None,
            restarts: 0,
            memory_bytes: 9 << 20,
            fuel_used: None,
            preemptions: 70_000,
            started_at: Some(START),
            exit_code: None,
            retry: None,
        }
    }

    fn key() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    #[test]
    fn a_report_is_sent_whatever_its_cells_have_to_say() {
        let longest = "n".repeat(63);
        let failed = |index| CellReport {
            state: CellState::Failed,
            reason: Some(Reason {
                code: "trap".into(),
                message: "m".repeat(700),
                help: Some("h".repeat(700)),
            }),
            restarts: u32::MAX,
            memory_bytes: u64::MAX,
            fuel_used: Some(u64::MAX),
            preemptions: u64::MAX,
            exit_code: Some(i32::MIN),
            retry: Some(Retry {
                crashes: u32::MAX,
                at: Some(START),
            }),
            ..calm(&longest, index)
        };
        let facts = facts((0..MAX_CELLS).map(failed).collect());
        let (report, _) = reporter()
            .make(&key(), facts, START, true)
            .expect("a report");
        assert!(report.to_wire().len() <= MAX_REPORT_BYTES);
        assert_eq!(
            report.cells.len(),
            MAX_CELLS as usize,
            "no cell is left out"
        );
        let read = Signed::<NodeReport>::from_wire(&report.to_wire());
        assert!(read.is_ok(), "and it can be read");
    }

    #[test]
    fn what_is_left_out_of_a_report_that_is_too_long_is_no_more_than_needed() {
        let mut facts = facts((0..MAX_CELLS).map(|index| calm("web", index)).collect());
        facts.declined = (0..20_000)
            .map(|n| Declined {
                component: format!("component-{n}").parse().expect("a name"),
                spec: Hash::of(b"spec"),
                reason: Reason {
                    code: "no-room".into(),
                    message: "m".repeat(100),
                    help: None,
                },
            })
            .collect();
        let (report, _) = reporter()
            .make(&key(), facts, START, true)
            .expect("a report");
        let bytes = report.to_wire().len();
        assert!(bytes <= MAX_REPORT_BYTES && bytes > MAX_REPORT_BYTES * 3 / 4);
        assert_eq!(report.cells.len(), MAX_CELLS as usize, "cells go last");
    }

    #[test]
    fn a_calm_cell_takes_few_bytes_of_a_report() {
        let cells = (0..1000).map(|index| calm("a-component-of-mine", index));
        let (report, _) = reporter()
            .make(&key(), facts(cells.collect()), START, true)
            .expect("a report");
        let bytes = report.to_wire().len();
        assert!(bytes <= 1000 * 100, "{bytes} bytes");
    }

    #[test]
    fn a_large_report_waits_with_its_numbers_and_gathers_changes() {
        let cases = [
            (10, 1, 0, 5_000, 10_000),
            (10, 50, 0, 5_000, 25_000),
            (1_000, 300, 1_000, 30_000, 60_000),
        ];
        for (count, nodes, changed, again, calm) in cases {
            let cells = |count: u32, generation| {
                let of = |index| CellReport {
                    generation,
                    ..super::tests::calm("web", index)
                };
                let cells = (0..count).map(of).collect();
                Facts {
                    nodes,
                    ..facts(cells)
                }
            };
            let mut reporter = reporter();
            let mut made = |facts, after| {
                let at = START.plus_millis(after);
                reporter.make(&key(), facts, at, false).is_some()
            };
            assert!(made(cells(count, 1), 0), "the first one goes at once");
            assert!(!made(cells(count, 1), again - 1), "nothing new");
            assert!(made(cells(count, 1), again), "news is said again");
            assert!(!made(cells(count, 1), again + calm - 1), "nothing new");
            if changed > 0 {
                assert!(!made(cells(count, 2), again + changed - 1), "too soon");
            }
            assert!(made(cells(count, 2), again + changed), "a change");
            assert!(made(cells(count, 2), changed + 2 * again), "is said again");
            assert!(made(cells(count, 2), changed + 2 * again + calm), "numbers");
            assert!(made(cells(count, 2), 0), "a clock that was set back");
        }
    }

    #[test]
    fn in_a_large_realm_where_the_log_stands_is_said_once() {
        for (nodes, again) in [(20, true), (21, false)] {
            let at = |revision, cells| Facts {
                nodes,
                revision,
                ..facts(cells)
            };
            let mut reporter = reporter();
            let mut made = |facts, after| {
                let at = START.plus_millis(after);
                reporter.make(&key(), facts, at, false).is_some()
            };
            assert!(made(at(1, vec![]), 0));
            assert!(made(at(2, vec![]), 1), "at once in any realm");
            assert_eq!(made(at(2, vec![]), 5_001), again);
            assert!(made(at(3, vec![calm("web", 0)]), 5_002));
            assert!(made(at(3, vec![calm("web", 0)]), 10_002), "a cell is new");
        }
    }
}
