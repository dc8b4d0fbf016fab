//! One run of a guest: its store, its limits, its end.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt, future::BoxFuture};
use realm_manifest::Limits;
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, StoreContextMut, UpdateDeadline, component::Val};
use wasmtime_wasi::{WasiCtxView, WasiView, p1::WasiP1Ctx};
use wasmtime_wasi_config::WasiConfigVariables;

use crate::{
    CellStats, ExitStatus, Flavour, Limit,
    dns::Lookup,
    ending::{DeadlinePassed, deadline_hit, explain},
    engine::{CONCURRENT_MAX, HANDLES_MAX, HOSTCALL_BYTES, RESOURCES_MAX},
    files_p3::FILE_STREAMS_MAX,
    grants::Granted,
    limiter::CellLimiter,
    listing::LISTINGS_MAX,
    network::Network,
    output::Bucket,
    places::{Place, Places},
    prepared::{Program, Ready},
};

/// The part of a second's fuel after which a guest yields, so that what it used is seen.
const FUEL_SLICES_PER_SEC: u64 = 1000;
/// The part of a second's fuel that is saved up for a cell whose turn comes late, so that it keeps its rate among others.
const FUEL_BURST_DIVISOR: u64 = 10;
/// How often a guest that is only counted yields: some milliseconds of computing.
const FUEL_COUNT_SLICE: u64 = 10_000_000;

/// What a store holds.
pub(crate) struct CellState {
    /// Serves preview 1 as well as components: it has a table and a context of its own.
    pub(crate) wasi: WasiP1Ctx,
    limiter: CellLimiter,
    pub(crate) shared: Arc<Shared>,
    pub(crate) network: Arc<Network>,
    pub(crate) vars: WasiConfigVariables,
    /// Lookups of 0.2 that are under way, by their resource.
    pub(crate) lookups: HashMap<u32, Lookup>,
    /// The places of TCP sockets of 0.3, by their resource.
    pub(crate) tcp_p3: HashMap<u32, Arc<Place>>,
    pub(crate) listings: Places,
    /// Streams of files of 0.3; those of 0.2 are resources.
    pub(crate) file_streams: Places,
}

impl WasiView for CellState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// What a cell's holder and its task both see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    started_at: SystemTime,
    kill: CancellationToken,
    pub(crate) usage: Usage,
    hits: [AtomicU64; Limit::ALL.len()],
}

/// Counters of one cell.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    memory: AtomicU64,
    memory_peak: AtomicU64,
    fuel: AtomicU64,
    output: AtomicU64,
    /// Nanoseconds.
    busy: AtomicU64,
    pub(crate) preemptions: AtomicU64,
    pub(crate) demoted: AtomicBool,
}

impl Usage {
    /// Adds to the running sum unless it would pass `max`.
    pub(crate) fn charge_memory(&self, bytes: u64, max: u64) -> bool {
        let sum = self.memory.load(Ordering::Relaxed).saturating_add(bytes);
        if sum > max {
            return false;
        }
        self.memory.store(sum, Ordering::Relaxed);
        self.memory_peak.fetch_max(sum, Ordering::Relaxed);
        true
    }

    pub(crate) fn release_memory(&self, bytes: u64) {
        let sum = self.memory.load(Ordering::Relaxed);
        self.memory
            .store(sum.saturating_sub(bytes), Ordering::Relaxed);
    }

    pub(crate) fn count_busy(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.busy.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn count_output(&self, bytes: u64) {
        self.output.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            started_at: SystemTime::now(),
            kill: CancellationToken::new(),
            usage: Usage::default(),
            hits: Default::default(),
        }
    }

    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    pub(crate) fn hit(&self, limit: Limit) {
        self.hits[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn was_hit(&self, limit: Limit) -> bool {
        self.hits[limit as usize].load(Ordering::Relaxed) > 0
    }

    pub(crate) fn stats(&self) -> CellStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let hits = Limit::ALL
            .into_iter()
            .map(|limit| (limit, load(&self.hits[limit as usize])));
        CellStats {
            started_at: self.started_at,
            memory_bytes: load(&self.usage.memory),
            memory_peak_bytes: load(&self.usage.memory_peak),
            memory_max_bytes: self.limits.memory_max_bytes(),
            fuel_used: self.limits.counts_fuel().then(|| load(&self.usage.fuel)),
            busy: Duration::from_nanos(load(&self.usage.busy)),
            preemptions: load(&self.usage.preemptions),
            demoted: self.usage.demoted.load(Ordering::Relaxed),
            output_bytes: load(&self.usage.output),
            limit_hits: hits.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// What a run needs, gathered before it is handed to its task.
pub(crate) struct Run {
    pub(crate) ready: Ready,
    pub(crate) flavour: Flavour,
    pub(crate) granted: Granted,
    pub(crate) shared: Arc<Shared>,
}

/// Runs to the end, the deadline or the kill, whichever is first. The store is gone when this is done.
pub(crate) fn run(run: Run) -> BoxFuture<'static, ExitStatus> {
    let shared = run.shared.clone();
    // Made out here: what goes into the store would else be kept twice, by the store and by the future.
    let store = store(&run.ready, run.granted, &shared);
    let (ready, flavour) = (run.ready, run.flavour);
    async move {
        let kill = shared.kill.clone();
        let deadline = shared.limits.deadline_ms.map(Duration::from_millis);
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline).await,
                None => std::future::pending().await,
            }
        };
        let status = tokio::select! {
            biased;
            () = kill.cancelled() => ExitStatus::Killed,
            () = late => deadline_hit(&shared),
            status = invoke(store, ready, flavour, &shared) => status,
        };
        shared.usage.memory.store(0, Ordering::Relaxed);
        status
    }
    .boxed()
}

fn store(ready: &Ready, granted: Granted, shared: &Arc<Shared>) -> Store<CellState> {
    Store::new(
        &ready.engine,
        CellState {
            wasi: granted.wasi,
            limiter: CellLimiter::new(shared.clone()),
            shared: shared.clone(),
            network: granted.network,
            vars: granted.vars,
            lookups: HashMap::new(),
            tcp_p3: HashMap::new(),
            listings: Places::new(LISTINGS_MAX),
            file_streams: Places::new(FILE_STREAMS_MAX),
        },
    )
}

async fn invoke(
    mut store: Store<CellState>,
    ready: Ready,
    flavour: Flavour,
    shared: &Shared,
) -> ExitStatus {
    let ended = match configure(&mut store, flavour) {
        Ok(()) => call(&mut store, &ready.program).await,
        Err(error) => Err(error),
    };
    if let Ok(left) = store.get_fuel() {
        shared.usage.fuel.store(
            fuel_total(&shared.limits).saturating_sub(left),
            Ordering::Relaxed,
        );
    }
    match ended {
        Ok(code) => ExitStatus::Exited(code),
        Err(error) => explain(shared, &error),
    }
}

fn configure(store: &mut Store<CellState>, flavour: Flavour) -> wasmtime::Result<()> {
    let shared = store.data().shared.clone();
    store.data_mut().ctx().table.set_max_capacity(RESOURCES_MAX);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(HANDLES_MAX);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(CONCURRENT_MAX);
    }
    if flavour == Flavour::Fuel {
        store.set_fuel(fuel_total(&shared.limits))?;
        let slice = match shared.limits.fuel_per_sec {
            0 => FUEL_COUNT_SLICE,
            rate => (rate / FUEL_SLICES_PER_SEC).max(1),
        };
        store.fuel_async_yield_interval(Some(slice))?;
    }
    store.set_epoch_deadline(1);
    let mut tick = Tick::new(shared, flavour);
    store.epoch_deadline_callback(move |store| tick.update(&store));
    Ok(())
}

const fn fuel_total(limits: &Limits) -> u64 {
    if limits.fuel == 0 {
        u64::MAX
    } else {
        limits.fuel
    }
}

/// What happens each time the epoch passes while the guest computes.
struct Tick {
    shared: Arc<Shared>,
    counts: bool,
    fuel_seen: u64,
    bucket: Option<Bucket>,
    deadline: Option<Instant>,
}

impl Tick {
    fn new(shared: Arc<Shared>, flavour: Flavour) -> Self {
        let rate = shared.limits.fuel_per_sec;
        let deadline = shared
            .limits
            .deadline_ms
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        Self {
            counts: flavour == Flavour::Fuel,
            fuel_seen: 0,
            bucket: (rate > 0).then(|| Bucket::new(rate, rate / FUEL_BURST_DIVISOR)),
            deadline,
            shared,
        }
    }

    fn update(
        &mut self,
        store: &StoreContextMut<'_, CellState>,
    ) -> wasmtime::Result<UpdateDeadline> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(wasmtime::Error::new(DeadlinePassed));
        }
        if self.counts {
            let used = fuel_total(&self.shared.limits).saturating_sub(store.get_fuel()?);
            self.shared.usage.fuel.store(used, Ordering::Relaxed);
            let fresh = used.saturating_sub(self.fuel_seen);
            self.fuel_seen = used;
            if let Some(wait) = self.bucket.as_ref().and_then(|bucket| bucket.charge(fresh)) {
                self.shared.hit(Limit::FuelPerSec);
                return Ok(UpdateDeadline::YieldCustom(
                    1,
                    Box::pin(tokio::time::sleep(wait)),
                ));
            }
        }
        Ok(UpdateDeadline::Yield(1))
    }
}

/// Instantiates and runs the entry; the code is what the guest says it is.
async fn call(store: &mut Store<CellState>, program: &Program) -> wasmtime::Result<i32> {
    let outcome = match program {
        Program::Preview1(pre) => {
            let instance = pre.instantiate_async(&mut *store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
            start.call_async(&mut *store, ()).await?;
            Ok(())
        }
        Program::CliP2(pre) => {
            let command = pre.instantiate_async(&mut *store).await?;
            command.wasi_cli_run().call_run(&mut *store).await?
        }
        Program::CliP3(pre) => {
            let command = pre.instantiate_async(&mut *store).await?;
            store
                .run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await)
                .await??
        }
        Program::Bare(pre) => {
            let instance = pre.instantiate_async(&mut *store).await?;
            let run = instance
                .get_func(&mut *store, "run")
                .ok_or_else(|| wasmtime::Error::msg("the export `run` is not a function"))?;
            let mut results = vec![Val::Bool(false); run.ty(&*store).results().len()];
            run.call_async(&mut *store, &[], &mut results).await?;
            if matches!(results.first(), Some(Val::Result(Err(_)))) {
                Err(())
            } else {
                Ok(())
            }
        }
    };
    Ok(i32::from(outcome.is_err()))
}
