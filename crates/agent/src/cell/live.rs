//! A cell while it runs, for measuring.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use realm_manifest::{
    Limits,
    report::{CellReport, CellState},
};
use realm_runtime::{CellHandle, CellStats, Limit, LimitHit};

use crate::{
    reason::{beside, met_reason},
    supervisor::lock,
};

/// Cheap to clone; it does not keep the cell alive.
#[derive(Debug, Clone)]
pub struct Live {
    handle: Arc<Mutex<Weak<CellHandle>>>,
    /// What earlier runs of this cell used.
    past: Arc<Mutex<Usage>>,
    limits: Limits,
    /// The one that it replaces.
    before: Option<Arc<Mutex<Weak<CellHandle>>>>,
}

/// What runs of a cell used, together.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    pub busy: Duration,
    pub fuel: u64,
    pub preemptions: u64,
    pub output_bytes: u64,
    /// Of the last run.
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub limit_hits: BTreeMap<Limit, u64>,
}

impl Usage {
    fn add(&mut self, run: &CellStats) {
        self.busy += run.busy;
        self.fuel = self.fuel.saturating_add(run.fuel_used.unwrap_or(0));
        self.preemptions += run.preemptions;
        self.output_bytes += run.output_bytes;
        self.memory_bytes = run.memory_bytes;
        self.memory_peak_bytes = self.memory_peak_bytes.max(run.memory_peak_bytes);
        for (limit, count) in &run.limit_hits {
            *self.limit_hits.entry(*limit).or_default() += count;
        }
    }
}

impl Live {
    pub fn new(limits: Limits, before: Option<&Self>) -> Self {
        Self {
            handle: Arc::default(),
            past: Arc::default(),
            limits,
            before: before.map(|before| before.handle.clone()),
        }
    }

    pub fn runs(&self, handle: &Arc<CellHandle>) {
        *lock(&self.handle) = Arc::downgrade(handle);
    }

    /// A run is over: what it used counts among the earlier ones from now on.
    pub fn is_gone(&self, run: &CellStats) {
        let mut past = lock(&self.past);
        *lock(&self.handle) = Weak::new();
        past.add(run);
    }

    /// What all runs used, the present one included.
    pub fn usage(&self) -> Usage {
        let past = lock(&self.past);
        let mut usage = past.clone();
        if let Some(handle) = lock(&self.handle).upgrade() {
            usage.add(&handle.stats());
        }
        usage
    }

    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Fills in what only a running cell can tell.
    pub fn measure(&self, report: &mut CellReport) {
        let Some(handle) = lock(&self.handle).upgrade() else {
            if report.state == CellState::Failed {
                report.memory_bytes = self.memory_before();
            }
            return;
        };
        let stats = handle.stats();
        report.memory_bytes = stats.memory_bytes;
        report.fuel_used = stats.fuel_used;
        report.preemptions = stats.preemptions;
        let hits: Vec<(LimitHit, u64)> = stats
            .limit_hits
            .iter()
            .map(|(limit, count)| (LimitHit::of(*limit, &self.limits), *count))
            .collect();
        if let Some(met) = met_reason(&hits) {
            report.reason = Some(match report.reason.take() {
                Some(why) => beside(why, &met),
                None => met,
            });
        }
    }

    /// What the one before uses, which runs on where this one could not take over.
    fn memory_before(&self) -> u64 {
        let before = self.before.as_ref();
        let handle = before.and_then(|before| lock(before).upgrade());
        handle.map_or(0, |handle| handle.stats().memory_bytes)
    }
}
