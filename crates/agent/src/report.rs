//! What this node says of itself: a signed report, and the digest of it that is gossiped.

use std::collections::HashSet;

use realm_identity::{
    Hash, MAX_SIGNED_BYTES, PublicKey, RealmId, SecretKey, Signed, Timestamp, canonical,
};
use realm_manifest::{
    NodeName, Tag,
    report::{
        Capacity, CellReport, CellState, Declined, Held, NodeReport, NodeState, StatusDigest,
    },
};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::{VERSION, config::MAX_CELLS, metrics::Process};

/// A report that says nothing new is made this seldom; numbers such as memory wait for it.
const CALM_MS: u64 = 5_000;
/// Codes of the worst problems in the digest.
const MAX_PROBLEMS: usize = 4;

/// A signed report is at most so long; the signature and the envelope need the rest.
const MAX_BYTES: usize = MAX_SIGNED_BYTES - 512;
/// Letters of a message where there are too many.
const SHORT_CHARS: usize = 40;

/// What changes from report to report.
#[derive(Debug)]
pub struct Facts {
    pub realm: RealmId,
    pub revision: u64,
    pub head: Hash,
    pub approved: bool,
    pub incompatible: bool,
    pub addresses: Vec<String>,
    pub cells: Vec<CellReport>,
    pub declined: Vec<Declined>,
    /// Components with data on this node, sorted.
    pub holds: Vec<Held>,
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
    /// Nodes that were lost at least once since the start.
    lost: HashSet<PublicKey>,
    /// None where the system does not tell.
    system: Option<System>,
}

impl Reporter {
    pub fn new(name: NodeName, tags: Vec<Tag>, capacity: Capacity, boot_id: u64) -> Self {
        let (last, lost) = (None, HashSet::new());
        Self {
            name,
            tags,
            capacity,
            boot_id,
            seq: 0,
            last,
            lost,
            system: System::new().ok(),
        }
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

    pub fn node_lost(&mut self, node: PublicKey) {
        self.lost.insert(node);
    }

    pub fn lost(&self) -> &HashSet<PublicKey> {
        &self.lost
    }

    /// A new report with its signed digest; None when there is nothing new to say.
    pub fn make(
        &mut self,
        key: &SecretKey,
        facts: Facts,
        now: Timestamp,
        anyway: bool,
    ) -> Option<(Signed<NodeReport>, Vec<u8>)> {
        let mut report = self.report(key.public(), facts, now);
        let due = self.last.as_ref().is_none_or(|last| {
            now.millis_since(last.at) >= CALM_MS || last.at > now || differs(last, &report)
        });
        if !due && !anyway {
            return None;
        }
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
        }
    }

    fn digest(&self, report: &NodeReport) -> StatusDigest {
        let running = report
            .cells
            .iter()
            .filter(|cell| cell.state == CellState::Running)
            .count();
        let mut problems: Vec<String> = report
            .cells
            .iter()
            .filter(|cell| matches!(cell.state, CellState::Failed | CellState::Backoff))
            .filter_map(|cell| cell.reason.as_ref().map(|reason| reason.code.clone()))
            .collect();
        problems.sort();
        problems.dedup();
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

/// Whether two reports differ in what others act on; numbers that always move do not count.
fn differs(last: &NodeReport, next: &NodeReport) -> bool {
    let essence = |report: &NodeReport| {
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
        let at = (report.realm, report.revision, report.head, report.state);
        let holds = report.holds.clone();
        let declined = report.declined.clone();
        (at, cells, declined, holds, report.addresses.clone())
    };
    essence(last) != essence(next)
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
    let mut left_out = 0;
    while too_large(report) && (report.declined.pop().is_some() || report.cells.pop().is_some()) {
        left_out += 1;
    }
    if left_out > 0 {
        tracing::error!(left_out, "a report is too large even without reasons");
    }
}

#[cfg(test)]
mod tests {
    use realm_manifest::report::Reason;

    use super::*;

    #[test]
    fn a_report_is_sent_whatever_its_cells_have_to_say() {
        let key = SecretKey::from_seed(&[1; 32]);
        let name: NodeName = "one".parse().expect("a name");
        let mut reporter = Reporter::new(name, Vec::new(), Capacity::default(), 1);
        let cell = |index| CellReport {
            component: "a-component-with-a-rather-long-name"
                .parse()
                .expect("a name"),
            index,
            spec: Hash::of(b"spec"),
            generation: 1,
            state: CellState::Failed,
            reason: Some(Reason {
                code: "trap".into(),
                message: "m".repeat(700),
                help: Some("h".repeat(700)),
            }),
            restarts: 3,
            memory_bytes: 1 << 20,
            fuel_used: Some(7),
            preemptions: 9,
            started_at: Some(Timestamp(1)),
            exit_code: Some(1),
        };
        let facts = Facts {
            realm: Hash::of(b"realm"),
            revision: 1,
            head: Hash::of(b"head"),
            approved: true,
            incompatible: false,
            addresses: Vec::new(),
            cells: (0..MAX_CELLS).map(cell).collect(),
            declined: Vec::new(),
            holds: Vec::new(),
        };
        let (report, _) = reporter
            .make(&key, facts, Timestamp(5), true)
            .expect("a report");
        assert!(report.to_wire().len() <= MAX_SIGNED_BYTES);
        assert_eq!(
            report.cells.len(),
            MAX_CELLS as usize,
            "no cell is left out"
        );
        let read = Signed::<NodeReport>::from_wire(&report.to_wire());
        assert!(read.is_ok(), "and it can be read");
    }
}
