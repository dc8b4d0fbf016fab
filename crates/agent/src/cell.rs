//! One cell from pull to end, and again: pulled, compiled, started, watched, restarted.

mod live;
mod volumes;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use realm_identity::Timestamp;
use realm_manifest::{
    ComponentName, ComponentSpec, RestartPolicy,
    report::{CellReport, CellState, Reason},
};
use realm_runtime::{
    CellConfig, CellHandle, ExitStatus, Flavour, LimitHit, LogRing, LogStream, PrepareError,
    Prepared, PreparedKind, StartError, Stdio,
};
use tokio_util::sync::CancellationToken;

pub use live::Live;

use crate::{
    backoff::Backoff,
    clock,
    fold::chain,
    logs::Logs,
    reason::{
        compiling_reason, doubtful_reason, ended_reason, is_preparing, library_reason, pull_reason,
        pulling_reason, reason,
    },
    supervisor::{STOP_GRACE, Tools, lock},
};

/// Alive for this long without a health check counts as running.
const SETTLE: Duration = Duration::from_secs(1);

/// So often a node that is full is tried before it says that it cannot take the cell.
const FULL_TRIES: u32 = 4;

/// The cell that this one replaces; it runs until this one does, or until this one could start.
#[derive(Debug)]
pub struct Predecessor {
    pub cancel: CancellationToken,
    /// Cancelled once it is gone.
    pub gone: CancellationToken,
    /// There is no room for both.
    pub stop_first: bool,
}

/// Everything one cell needs.
#[derive(Debug)]
pub struct CellTask {
    pub tools: Tools,
    pub logs: Logs,
    pub key: (ComponentName, u32),
    pub spec: ComponentSpec,
    pub shared: Arc<Mutex<CellReport>>,
    pub declined: Arc<Mutex<Option<Reason>>>,
    pub cancel: CancellationToken,
    pub live: Live,
    pub predecessor: Option<Predecessor>,
    /// How often in a row there was no room.
    pub full: u32,
    /// How it ended the last time, where it is not to run again.
    pub end: Option<CellReport>,
    /// Whether an end holds also after a restart of the agent.
    pub lasting: bool,
    /// Whether it may have ended before, in a record that is lost.
    pub doubtful: bool,
}

/// What became of one attempt.
enum Outcome {
    /// Nothing more to do until the spec changes.
    Final,
    /// Try again after a wait.
    Again { ran: Duration },
}

impl CellTask {
    /// Runs until it is cancelled, or there is nothing left to do. Boxed: a future holds what it is made
    /// from and what it works on, each by itself.
    pub async fn run(mut self: Box<Self>) {
        let cancel = self.cancel.clone();
        if let Some(end) = self.end.take() {
            // It ran before the agent was started, or before it had to go: not again.
            *lock(&self.shared) = end;
            // Who asks what it wrote is told that this is gone.
            self.logs.begin(&self.key).finish();
            self.tools.changed.send_modify(|count| *count += 1);
            self.retire();
            return cancel.cancelled().await;
        }
        let mut backoff = Backoff::default();
        loop {
            let Outcome::Again { ran } = self.attempt().await else {
                break;
            };
            let wait = backoff.next(ran);
            self.waits(wait);
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            self.tries_again();
            let (component, index) = (&self.key.0, self.key.1);
            // One that was not pulled, or not compiled, has not been started either.
            let ran = lock(&self.shared).started_at.is_some();
            let kind = if ran { "restarted" } else { "retried" };
            self.event(kind, format!("{component}#{index} after {wait:?}"));
        }
        Box::pin(self.remember()).await;
        // Stays until it is told to go, so that its state is still reported.
        cancel.cancelled().await;
        // It may have been told to go before it ever ran.
        self.outlive().await;
        self.state(CellState::Stopped);
    }

    /// Keeps how it ended, where it ran and will not be run again.
    async fn remember(&self) {
        let report = lock(&self.shared).clone();
        let ran = report.started_at.is_some();
        let over = matches!(report.state, CellState::Done | CellState::Failed);
        if !self.lasting || !ran || !over {
            return;
        }
        let ended = self.tools.ended.clone();
        let put = tokio::task::spawn_blocking(move || ended.put(report)).await;
        if let Ok(Err(error)) = put {
            let (component, index) = (&self.key.0, self.key.1);
            let why = chain(&error);
            self.event(
                "alarm",
                format!("{component}#{index} has ended, and may run again after a restart: {why}"),
            );
        }
    }

    async fn attempt(&mut self) -> Outcome {
        let cancel = self.cancel.clone();
        let prepared = tokio::select! {
            () = cancel.cancelled() => return Outcome::Final,
            // A cell that runs has no more use for what this takes.
            prepared = Box::pin(self.prepare()) => prepared,
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(outcome) => return outcome,
        };
        if let PreparedKind::Library { exports } = prepared.kind() {
            self.set(CellState::Library, Some(library_reason(exports)));
            self.retire();
            return Outcome::Final;
        }
        self.launch(&prepared).await
    }

    async fn prepare(&mut self) -> Result<Prepared, Outcome> {
        if let Err(unsupported) = self.spec.unsupported() {
            self.fail(reason("unsupported", unsupported.to_string(), None));
            return Err(Outcome::Final);
        }
        self.state(CellState::Pulling);
        let artifact = self.spec.artifact;
        let told = |progress| {
            let reason = pulling_reason(progress, artifact.size);
            self.set(CellState::Pulling, Some(reason));
        };
        let path = match self.tools.fetcher.ensure(artifact, told).await {
            Ok(path) => path,
            Err(error) => {
                self.hold_back(pull_reason(&error));
                return Err(Outcome::Again {
                    ran: Duration::ZERO,
                });
            }
        };
        self.state(CellState::Compiling);
        let digest = *self.spec.artifact.sha256.as_bytes();
        let flavour = Flavour::of(&self.spec.limits);
        let told = |stage| self.set(CellState::Compiling, Some(compiling_reason(stage)));
        let prepared = self.tools.runtime.prepare_file(path, digest, flavour, told);
        prepared.await.map_err(|error| self.not_prepared(&error))
    }

    fn not_prepared(&self, error: &PrepareError) -> Outcome {
        let (component, index) = (&self.key.0, self.key.1);
        self.event("refused", format!("{component}#{index}: {}", chain(error)));
        let reason = match error {
            PrepareError::Limit(hit) => reason("limit", hit.to_string(), Some(&hit.remedy)),
            _ => reason(
                "compile",
                chain(error),
                Some("see what it needs: realm inspect FILE"),
            ),
        };
        if error.is_transient() {
            self.hold_back(reason);
            Outcome::Again {
                ran: Duration::ZERO,
            }
        } else {
            self.fail(reason);
            Outcome::Final
        }
    }

    async fn launch(&mut self, prepared: &Prepared) -> Outcome {
        self.starting();
        let mounts = match self.mounts() {
            Ok(mounts) => mounts,
            Err(reason) => return self.decline(reason),
        };
        if self.predecessor.as_ref().is_some_and(|old| old.stop_first) {
            self.outlive().await;
        }
        let ring = self.logs.begin(&self.key);
        let config = CellConfig {
            name: self.key.0.to_string(),
            limits: self.spec.limits.clone(),
            grants: self.spec.grants.clone(),
            stdio: Stdio::Log(ring.clone()),
            mounts,
        };
        let handle = match self.tools.runtime.start(prepared, config) {
            Ok(handle) => Arc::new(handle),
            Err(error @ StartError::Full { .. }) => {
                let reason = reason("full", chain(&error), Some("add a node"));
                self.full += 1;
                if self.full >= FULL_TRIES {
                    return self.decline(reason);
                }
                // While cells move there may be more than asked, for a moment.
                self.hold_back(reason);
                return Outcome::Again {
                    ran: Duration::ZERO,
                };
            }
            Err(error) => {
                self.fail(reason("start", chain(&error), None));
                return Outcome::Final;
            }
        };
        self.full = 0;
        let started = Instant::now();
        {
            let mut report = lock(&self.shared);
            if report.started_at.is_some() {
                report.restarts += 1;
            }
            report.started_at = Some(clock::wall());
            report.exit_code = None;
        }
        self.live.runs(&handle);
        let status = self.watch(&handle).await;
        self.keep_usage(&handle);
        ring.finish();
        let met = self.met(&handle);
        self.ended(status, started.elapsed(), &ring, &met)
    }

    /// The limits that the program was told of: many say no more than that something failed.
    fn met(&self, handle: &CellHandle) -> Vec<LimitHit> {
        let hits = handle.stats().limit_hits.into_iter();
        hits.filter(|(limit, _)| !limit.delays())
            .map(|(limit, _)| LimitHit::of(limit, &self.spec.limits))
            .collect()
    }

    /// Waits for the end. None when the cell was told to go.
    async fn watch(&mut self, handle: &CellHandle) -> Option<ExitStatus> {
        let cancel = self.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => {
                handle.stop(STOP_GRACE).await;
                return None;
            }
            status = handle.wait() => return Some(status),
            () = tokio::time::sleep(SETTLE) => {}
        }
        // A service that may end is in its place; a job says that this may be its second run.
        let once = self.spec.restart == RestartPolicy::Never;
        self.set(CellState::Running, self.doubt().filter(|_| once));
        self.retire();
        let (component, index) = (&self.key.0, self.key.1);
        self.event("started", format!("{component}#{index}"));
        tokio::select! {
            () = cancel.cancelled() => {
                handle.stop(STOP_GRACE).await;
                None
            }
            status = handle.wait() => Some(status),
        }
    }

    /// What the run used stays to be seen; its memory is given back.
    fn keep_usage(&self, handle: &CellHandle) {
        let stats = handle.stats();
        self.live.is_gone(&stats);
        let mut report = lock(&self.shared);
        report.fuel_used = stats.fuel_used;
        report.preemptions = stats.preemptions;
    }

    fn ended(
        &mut self,
        status: Option<ExitStatus>,
        ran: Duration,
        ring: &LogRing,
        met: &[LimitHit],
    ) -> Outcome {
        let Some(status) = status else {
            self.event("stopped", format!("{}#{}", self.key.0, self.key.1));
            return Outcome::Final;
        };
        self.retire();
        let failed = !matches!(status, ExitStatus::Exited(0));
        lock(&self.shared).exit_code = match &status {
            ExitStatus::Exited(code) => Some(*code),
            _ => None,
        };
        let why = ended_reason(&self.key.0, &status, met);
        if let Some(why) = &why {
            let kind = if matches!(status, ExitStatus::LimitHit(_)) {
                "limited"
            } else {
                "failed"
            };
            let line = format!("{}#{}: {}", self.key.0, self.key.1, why.message);
            self.event(kind, line.clone());
            // The log has the whole of it, such as where it trapped.
            let line = match &status {
                ExitStatus::Trapped { message } => message,
                _ => &line,
            };
            ring.write(LogStream::Stderr, format!("realm: {line}\n").as_bytes());
        }
        let again = match self.spec.restart {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => failed,
            RestartPolicy::Never => false,
        };
        match (again, failed) {
            (true, _) => {
                self.count_crash(ran);
                let ended = || {
                    reason(
                        "exit",
                        "ended with exit code 0, and is always started again".into(),
                        None,
                    )
                };
                self.set(CellState::Backoff, why.or_else(|| Some(ended())));
                Outcome::Again { ran }
            }
            (false, false) => {
                self.set(CellState::Done, self.doubt());
                Outcome::Final
            }
            (false, true) => {
                self.set(CellState::Failed, why);
                Outcome::Final
            }
        }
    }

    /// That it may have ended before, where that is so.
    fn doubt(&self) -> Option<Reason> {
        self.doubtful.then(|| doubtful_reason(&self.key.0))
    }

    /// This one runs, or never will: the one before it goes.
    fn retire(&mut self) {
        if let Some(predecessor) = self.predecessor.take() {
            predecessor.cancel.cancel();
        }
    }

    /// Has the one before it go, and waits until it has: [`STOP_GRACE`] and a kill at most.
    async fn outlive(&mut self) {
        if let Some(predecessor) = self.predecessor.take() {
            predecessor.cancel.cancel();
            predecessor.gone.cancelled().await;
        }
    }

    fn decline(&self, reason: Reason) -> Outcome {
        *lock(&self.declined) = Some(reason.clone());
        self.set(CellState::Failed, Some(reason));
        Outcome::Final
    }

    /// It will not run until the spec changes: whoever reads `Failed` gives its memory to others.
    fn fail(&self, reason: Reason) {
        tracing::warn!(component = %self.key.0, index = self.key.1, reason.message, "a cell failed");
        self.set(CellState::Failed, Some(reason));
    }

    /// It did not come to run, and is tried again after a wait.
    fn hold_back(&self, reason: Reason) {
        tracing::warn!(component = %self.key.0, index = self.key.1, reason.message, "a cell will be tried again");
        self.set(CellState::Backoff, Some(reason));
    }

    /// Why it ended before still holds; that it was compiled does not.
    fn starting(&self) {
        {
            let mut report = lock(&self.shared);
            report.state = CellState::Starting;
            let reason = report.reason.take();
            report.reason = reason.filter(|reason| !is_preparing(reason));
        }
        self.tools.changed.send_modify(|count| *count += 1);
    }

    /// The run before the next one ended; one that lasted is no crash in a row.
    fn count_crash(&self, ran: Duration) {
        let mut report = lock(&self.shared);
        let retry = report.retry.get_or_insert_default();
        retry.crashes = if ran < SETTLE {
            retry.crashes.saturating_add(1)
        } else {
            0
        };
    }

    fn waits(&self, wait: Duration) {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let at = Timestamp(clock::wall().0.saturating_add(wait));
        lock(&self.shared).retry.get_or_insert_default().at = Some(at);
        self.state(CellState::Backoff);
    }

    fn tries_again(&self) {
        lock(&self.shared).retry.get_or_insert_default().at = None;
    }

    fn state(&self, state: CellState) {
        lock(&self.shared).state = state;
        self.tools.changed.send_modify(|count| *count += 1);
    }

    fn set(&self, state: CellState, reason: Option<Reason>) {
        {
            let mut report = lock(&self.shared);
            report.state = state;
            report.reason = reason;
            let is_over = matches!(
                state,
                CellState::Running | CellState::Done | CellState::Failed | CellState::Library
            );
            if is_over {
                report.retry = None;
            }
        }
        self.tools.changed.send_modify(|count| *count += 1);
    }

    fn event(&self, kind: &'static str, message: String) {
        self.tools
            .events
            .record(clock::wall(), kind, self.key.0.to_string(), message);
    }
}

#[cfg(test)]
mod tests;
