//! The cells of this node: carries out the planner's steps, one task for each cell.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use realm_identity::{Hash, PublicKey, Timestamp};
use realm_manifest::{
    ComponentName, ComponentSpec, RestartPolicy,
    report::{CellReport, CellState, Declined, Held, Reason},
};
use realm_planner::{OwnCell, State, Step, StopReason, cell_digest};
use realm_runtime::Runtime;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cell, clock,
    ended::{Ended, Version},
    events::Events,
    fetch::Fetcher,
    fold::chain,
    local::Ready,
    logs::Logs,
    metrics, status,
    volumes::Volumes,
};

/// How long a cell may take to end by itself before it is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(2);

/// Between two tries to write the ends that could not be written.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Components that one message names.
const MAX_NAMED: usize = 16;

/// A cell of this node: its component, and which of its cells here.
pub(crate) type Key = (ComponentName, u32);

/// What every cell's task needs.
#[derive(Debug, Clone)]
pub struct Tools {
    pub runtime: Runtime,
    pub fetcher: Fetcher,
    pub events: Events,
    pub ended: Ended,
    /// Named volumes live below it.
    pub volumes: PathBuf,
    /// Host directories that volumes may come from.
    pub volume_prefixes: Vec<PathBuf>,
    /// Rises whenever a cell changed.
    pub changed: Arc<watch::Sender<u64>>,
    /// Where cells' tasks run: not on the core's thread.
    pub tasks: Handle,
}

/// Owns every cell's task.
#[derive(Debug)]
pub struct Supervisor {
    tools: Tools,
    cells: BTreeMap<Key, Slot>,
    /// Cells that are on their way out; they hold memory until they are gone.
    stopping: Vec<Slot>,
    logs: Logs,
    /// The node's own program: no part of what is planned or reported.
    local: Option<(Hash, Key, Slot)>,
    held: Volumes,
    /// Ends that were forgotten, on their way to the disk: at most one for each cell there was.
    writes: JoinSet<()>,
    /// When ends that could not be written were last tried again.
    kept: Option<Instant>,
}

/// One cell: its task, and what it says of itself.
#[derive(Debug)]
pub struct Slot {
    pub(crate) shared: Arc<Mutex<CellReport>>,
    pub(crate) declined: Arc<Mutex<Option<Reason>>>,
    cancel: CancellationToken,
    /// Cancelled once its task is over, and those it replaced are gone too.
    gone: CancellationToken,
    task: JoinHandle<()>,
    handle: cell::Live,
    /// Whether it writes a named volume.
    writes: bool,
}

impl Supervisor {
    /// Starts the node's own program at once, if it has one.
    pub fn new(tools: Tools, logs: Logs, held: Volumes, local: Option<Ready>) -> Self {
        let mut supervisor = Self {
            tools,
            held,
            cells: BTreeMap::new(),
            stopping: Vec::new(),
            logs,
            local: None,
            writes: JoinSet::new(),
            kept: None,
        };
        if let Some(Ready { name, spec }) = local {
            tracing::info!(component = %name, "starting this node's own program");
            let digest = spec.artifact.sha256;
            let key = (name, 0);
            let slot = supervisor.spawn(key.clone(), spec, 0, None, false, false);
            supervisor.local = Some((digest, key, slot));
        }
        supervisor
    }

    /// Digest of the node's own program, which must stay on disk.
    pub fn local_artifact(&self) -> Option<Hash> {
        self.local.as_ref().map(|(digest, ..)| *digest)
    }

    /// The cells as the planner knows them.
    pub fn own_cells(&self) -> Vec<OwnCell> {
        self.cells
            .iter()
            .map(|((component, index), slot)| {
                let report = lock(&slot.shared);
                OwnCell {
                    component: component.clone(),
                    index: *index,
                    spec: report.spec,
                    generation: report.generation,
                    memory_max_mb: slot.handle.limits().memory_max_mb,
                }
            })
            .collect()
    }

    /// The cells as the node reports them.
    pub fn reports(&self) -> Vec<CellReport> {
        self.cells
            .values()
            .map(|slot| {
                let mut report = lock(&slot.shared).clone();
                slot.handle.measure(&mut report);
                report
            })
            .collect()
    }

    /// The agent was started with these components asked of it: what they wrote before is gone.
    pub fn forget_lines(&self, state: Option<&State>, started: Timestamp) {
        let components = state.into_iter().flat_map(|state| state.components.keys());
        self.logs.started(started, components.cloned().collect());
    }

    /// Where the record of what ended here was damaged: what of the realm may run once more is
    /// said by an event now, and by each such cell when it runs.
    pub fn doubt_ends(&self, state: Option<&State>, me: &PublicKey) {
        let Some(aside) = self.tools.ended.lost() else {
            return;
        };
        let components = state.into_iter().flat_map(|state| &state.components);
        let may_end = components.filter(|(_, component)| {
            component.run && component.spec.restart != RestartPolicy::Always
        });
        let versions: BTreeSet<Version> = may_end
            .map(|(name, component)| {
                let spec = cell_digest(&component.spec);
                (name.clone(), spec, component.generation_on(me))
            })
            .collect();
        let mut names: Vec<&str> = versions.iter().map(|(name, ..)| name.as_str()).collect();
        let more = names.len().saturating_sub(MAX_NAMED);
        names.truncate(MAX_NAMED);
        let list = match (names.is_empty(), more) {
            (true, _) => "nothing that is asked now".to_owned(),
            (false, 0) => names.join(", "),
            (false, more) => format!("{} and {more} more", names.join(", ")),
        };
        let message = format!(
            "the record of what ended on this node was damaged, and is kept as {}: what has ended may run once more: {list}",
            aside.display()
        );
        let subject = "ended".to_owned();
        self.tools
            .events
            .record(clock::wall(), "alarm", subject, message);
        self.tools.ended.doubt(versions);
    }

    /// What the cells used, the node's own program among them, for who counts it.
    pub fn metrics(&self) -> Vec<metrics::Cell> {
        let local = self.local.iter().map(|(_, key, slot)| (key, slot));
        let cells = self.cells.iter().chain(local);
        cells
            .map(|(key, slot)| {
                let (state, restarts) = {
                    let report = lock(&slot.shared);
                    (report.state, report.restarts)
                };
                let usage = slot.handle.usage();
                let hits = usage.limit_hits.into_iter();
                metrics::Cell {
                    component: key.0.to_string(),
                    replica: key.1.to_string(),
                    state: status::cell_state(state).to_string(),
                    busy_seconds: usage.busy.as_secs_f64(),
                    restarts: u64::from(restarts),
                    fuel: usage.fuel,
                    preemptions: usage.preemptions,
                    memory_bytes: usage.memory_bytes,
                    memory_peak_bytes: usage.memory_peak_bytes,
                    memory_max_bytes: slot.handle.limits().memory_max_bytes(),
                    output_bytes: usage.output_bytes,
                    log_lines_dropped: self.logs.dropped(key),
                    limit_hits: hits
                        .map(|(limit, count)| (limit.to_string(), count))
                        .collect(),
                }
            })
            .collect()
    }

    /// What this node cannot take, with the spec it is about.
    pub fn declined(&self) -> Vec<Declined> {
        self.cells
            .iter()
            .filter_map(|((component, _), slot)| {
                let reason = lock(&slot.declined).clone()?;
                let spec = lock(&slot.shared).spec;
                Some(Declined {
                    component: component.clone(),
                    spec,
                    reason,
                })
            })
            .collect()
    }

    /// Components whose data is on this node, whether they run or not.
    pub fn holds(&mut self) -> Vec<Held> {
        self.note_data();
        let held = self.held.held();
        held.map(|(component, cells)| Held {
            component: component.clone(),
            cells,
        })
        .collect()
    }

    /// A cell that has started may have written.
    fn note_data(&mut self) {
        for ((component, index), slot) in &self.cells {
            if slot.writes
                && lock(&slot.shared).started_at.is_some()
                && let Err(error) = self.held.note(component, *index)
            {
                tracing::error!(%component, index, %error, "cannot note whose data is here");
            }
        }
    }

    /// A surplus cell is gone for good; what is stopped, removed or drained may come back.
    fn forget_data(&mut self, component: &ComponentName, index: u32, why: StopReason) {
        if matches!(why, StopReason::Moved | StopReason::NotWanted)
            && let Err(error) = self.held.forget(component, index)
        {
            tracing::error!(%component, index, %error, "cannot note whose data is here");
        }
    }

    pub fn apply(&mut self, step: Step) {
        self.stopping.retain(|slot| !slot.task.is_finished());
        self.note_data();
        match step {
            Step::Start {
                component,
                index,
                spec,
                generation,
            } => {
                // Never the spec: it holds values of env.
                tracing::info!(%component, index, "starting a cell");
                self.start((component, index), *spec, generation, None, false);
            }
            Step::Replace {
                component,
                index,
                spec,
                generation,
                stop_first,
            } => {
                tracing::info!(%component, index, generation, stop_first, "replacing a cell");
                let old = self.cells.remove(&(component.clone(), index));
                self.start((component, index), *spec, generation, old, stop_first);
            }
            Step::Stop {
                component,
                index,
                why,
            } => {
                tracing::info!(%component, index, ?why, "stopping a cell");
                if let Some(slot) = self.cells.remove(&(component.clone(), index)) {
                    slot.cancel.cancel();
                    self.stopping.push(slot);
                }
                self.forget_data(&component, index, why);
                let key = (component, index);
                self.logs.forget(&key);
                if matches!(why, StopReason::Removed | StopReason::Stopped) {
                    self.forget_end(key);
                }
            }
        }
        self.tools.changed.send_modify(|count| *count += 1);
    }

    fn start(
        &mut self,
        key: Key,
        spec: ComponentSpec,
        generation: u64,
        old: Option<Slot>,
        stop_first: bool,
    ) {
        let slot = self.spawn(key.clone(), spec, generation, old, stop_first, true);
        self.cells.insert(key, slot);
    }

    fn spawn(
        &mut self,
        key: Key,
        spec: ComponentSpec,
        generation: u64,
        old: Option<Slot>,
        stop_first: bool,
        lasting: bool,
    ) -> Slot {
        let digest = cell_digest(&spec);
        let shared = Arc::new(Mutex::new(new_report(&key, digest, generation)));
        let end = lasting
            .then(|| self.tools.ended.of(&key, &digest, generation))
            .flatten();
        let version = (key.0.clone(), digest, generation);
        let doubtful = lasting && end.is_none() && self.tools.ended.is_doubtful(&version);
        let declined = Arc::new(Mutex::new(None));
        let (cancel, gone) = (CancellationToken::new(), CancellationToken::new());
        let handle = cell::Live::new(spec.limits.clone(), old.as_ref().map(|slot| &slot.handle));
        let writes = spec.writes_named_volume();
        let predecessor = old.map(|slot| {
            let predecessor = cell::Predecessor {
                cancel: slot.cancel.clone(),
                gone: slot.gone.clone(),
                stop_first,
            };
            self.stopping.push(slot);
            predecessor
        });
        let task = Box::new(cell::CellTask {
            tools: self.tools.clone(),
            logs: self.logs.clone(),
            key,
            spec,
            shared: shared.clone(),
            declined: declined.clone(),
            cancel: cancel.clone(),
            live: handle.clone(),
            predecessor,
            full: 0,
            end,
            lasting,
            doubtful,
        });
        let guard = gone.clone().drop_guard();
        let task = self.tools.tasks.spawn(async move {
            // Also when the task panics: nobody may wait for it in vain.
            let _gone = guard;
            task.run().await;
        });
        Slot {
            shared,
            declined,
            cancel,
            gone,
            task,
            handle,
            writes,
        }
    }

    /// Tries again to write what the disk did not take of the ends, now that it takes writes: what
    /// has ended would run again after a restart, and what was forgotten never.
    pub fn keep_ends(&mut self) {
        self.join_writes();
        let soon = self.kept.is_some_and(|kept| kept.elapsed() < KEEP_EVERY);
        if soon || !self.writes.is_empty() || !self.tools.ended.is_unwritten() {
            return;
        }
        self.kept = Some(Instant::now());
        let ended = self.tools.ended.clone();
        self.writes.spawn_blocking(move || match ended.keep() {
            Ok(()) => tracing::info!("what has ended here is on disk after all"),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "what has ended here may run again after a restart");
            }
        });
    }

    /// What was written is over, and said so itself where it failed.
    fn join_writes(&mut self) {
        while self.writes.try_join_next().is_some() {}
    }

    fn forget_end(&mut self, key: Key) {
        self.join_writes();
        if self.tools.ended.forget(&key) {
            let ended = self.tools.ended.clone();
            self.writes.spawn_blocking(move || {
                if let Err(error) = ended.keep() {
                    tracing::error!(component = %key.0, %error, "a cell may be taken for one that has ended");
                }
            });
        }
    }

    /// Stops every cell and waits until the last is gone.
    pub async fn shutdown(mut self) {
        let mut slots: Vec<Slot> = std::mem::take(&mut self.cells).into_values().collect();
        slots.extend(self.local.take().map(|(.., slot)| slot));
        for slot in &slots {
            slot.cancel.cancel();
        }
        for slot in slots.into_iter().chain(std::mem::take(&mut self.stopping)) {
            // A panic was printed by the task; its cell died with it.
            let _ = slot.task.await;
        }
        while self.writes.join_next().await.is_some() {}
        // The last time that it can be said.
        self.kept = None;
        self.keep_ends();
        while self.writes.join_next().await.is_some() {}
    }
}

pub(crate) fn new_report(key: &Key, spec: Hash, generation: u64) -> CellReport {
    CellReport {
        component: key.0.clone(),
        index: key.1,
        spec,
        generation,
        state: CellState::Pulling,
        reason: None,
        restarts: 0,
        memory_bytes: 0,
        fuel_used: None,
        preemptions: 0,
        started_at: None,
        exit_code: None,
        retry: None,
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these hold is whole between any two statements, also after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
