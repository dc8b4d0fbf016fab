//! Prepares artifacts and starts cells.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    CellConfig, CellHandle, CompilerConfig, Flavour, Inspection, PrepareError, Prepared,
    PreparedKind, Stage, StartError, Stdio,
    artifact::Named,
    cache::Cache,
    compile::Compiler,
    engine,
    flight::{Flights, Version},
    grants,
    guest::{self, Run, Shared},
    inspect,
    linker::Linked,
    pace,
    pool::GuestPools,
    prepared::{self, Inner},
    ticker::{Pulse, Ticker},
};

/// Cells of one node unless told otherwise. The pools reserve address space for it, not memory.
const CELLS: u32 = 1000;
/// Compiled code kept on disk unless told otherwise: some hundred programs of usual size.
const CACHE_BYTES: u64 = 1024 * 1024 * 1024;
/// Guest threads of each pool unless told otherwise: as many as there are cores, few enough for a small machine.
const THREADS_MAX: usize = 8;

#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Where compiled code is kept. Private to this node.
    pub cache_dir: PathBuf,
    /// Proves that compiled code was made here. Random, kept beside the node's keys.
    pub cache_key: [u8; 32],
    /// Bytes of compiled code kept on disk. What is in use stays, even beyond.
    pub cache_bytes: u64,
    pub compiler: CompilerConfig,
    pub max_cells: u32,
    /// Traps name the source file and line, where a guest carries them (DWARF). Reading that is work
    /// whose size the guest decides, so it is off unless asked for.
    pub wasm_debug: bool,
    /// Threads in each of the two pools.
    pub guest_threads: usize,
}

impl RuntimeConfig {
    pub fn new(cache_dir: PathBuf, cache_key: [u8; 32], compiler: CompilerConfig) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            cache_dir,
            cache_key,
            cache_bytes: CACHE_BYTES,
            compiler,
            max_cells: CELLS,
            wasm_debug: false,
            guest_threads: cores.min(THREADS_MAX),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("wasmtime could not start")]
    Engine(#[source] anyhow::Error),
    #[error("threads for guests could not start")]
    Threads(#[source] std::io::Error),
    #[error("the cache of compiled code at {} cannot be used", .path.display())]
    Cache {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Runs cells. Cheap to clone; the last clone stops the threads, and with them what still runs.
#[derive(Debug, Clone)]
pub struct Runtime(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    epoch: Linked,
    fuel: Linked,
    cache: Cache,
    compiler: Compiler,
    prepared: Mutex<HashMap<Version, Weak<Inner>>>,
    flights: Flights,
    cells: Arc<AtomicU32>,
    max_cells: u32,
    tasks: TaskTracker,
    stopping: CancellationToken,
    pools: GuestPools,
    pulse: Pulse,
    _ticker: Ticker,
}

impl Runtime {
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let engine = |flavour| {
            engine::pooling(flavour, config.wasm_debug, config.max_cells)
                .map_err(|error| RuntimeError::Engine(error.into()))
        };
        let (epoch, fuel) = (engine(Flavour::Epoch)?, engine(Flavour::Fuel)?);
        let cache = Cache::open(
            config.cache_dir.clone(),
            config.cache_key,
            config.cache_bytes,
        )
        .map_err(|source| RuntimeError::Cache {
            path: config.cache_dir,
            source,
        })?;
        let (ticker, pulse) =
            Ticker::start(vec![epoch.clone(), fuel.clone()]).map_err(RuntimeError::Threads)?;
        Ok(Self(Arc::new(Parts {
            pulse,
            _ticker: ticker,
            pools: GuestPools::new(config.guest_threads).map_err(RuntimeError::Threads)?,
            epoch: Linked::new(epoch),
            fuel: Linked::new(fuel),
            cache,
            compiler: Compiler::new(config.compiler, config.wasm_debug),
            prepared: Mutex::default(),
            flights: Flights::default(),
            cells: Arc::default(),
            max_cells: config.max_cells,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })))
    }

    /// Checks, compiles (unless the cache has it) and links an artifact. May be dropped midway: a compile under way is killed.
    pub async fn prepare(
        &self,
        wasm: Arc<[u8]>,
        flavour: Flavour,
    ) -> Result<Prepared, PrepareError> {
        inspect::check_head(&wasm)?;
        let bytes = wasm.clone();
        // Too long for a thread that does IO.
        let digest = tokio::task::spawn_blocking(move || Sha256::digest(&bytes).into())
            .await
            .map_err(|error| PrepareError::Load(error.into()))?;
        self.prepare_artifact(Named::in_memory(wasm, digest), flavour, &|_| {})
            .await
    }

    /// As [`Runtime::prepare`], with the bytes of a file, which is read only if the cache does not know its digest.
    /// `told` hears what it waits for. May be dropped midway, too; who waits for the same artifact then goes on.
    pub async fn prepare_file(
        &self,
        path: PathBuf,
        digest: [u8; 32],
        flavour: Flavour,
        told: impl Fn(Stage) + Send + Sync,
    ) -> Result<Prepared, PrepareError> {
        if let Some(inner) = self.known(&(digest, flavour)) {
            return Ok(Prepared(inner));
        }
        self.prepare_artifact(Named::in_file(path, digest), flavour, &told)
            .await
    }

    /// One at a time for each version: the others find what the first one made.
    async fn prepare_artifact(
        &self,
        named: Named,
        flavour: Flavour,
        told: &(dyn Fn(Stage) + Send + Sync),
    ) -> Result<Prepared, PrepareError> {
        let version = (*named.digest(), flavour);
        let flight = self.0.flights.join(version);
        let work = async {
            let _pilot = flight.pilot.lock().await;
            if let Some(inner) = self.known(&version) {
                return Ok(Prepared(inner));
            }
            let at = |stage| flight.at(stage);
            let inner = Arc::new(self.make(named, flavour, &at).await?);
            self.know(version, &inner);
            Ok(Prepared(inner))
        };
        flight.aboard(work, told).await
    }

    async fn make(
        &self,
        named: Named,
        flavour: Flavour,
        told: &(dyn Fn(Stage) + Send + Sync),
    ) -> Result<Inner, PrepareError> {
        let cache = &self.0.cache;
        let linked = self.linked(flavour);
        let engine = &linked.engine;
        let held = cache.hold(named.digest(), flavour, engine);
        let known = cache.known(&held, engine, named).await?;
        let artifact = known.artifact;
        let mut seat = self.0.compiler.seat(&artifact, told);
        let (facts, code) = match known.facts {
            Some(facts) => (facts, known.code),
            None => cache.told(&held, engine, &mut seat).await?,
        };
        let inspection = Inspection::new(facts, artifact.digest(), artifact.size());
        prepared::check(&inspection)?;
        let kind = match inspection.entry {
            Some(_) => PreparedKind::Program,
            None => PreparedKind::Library {
                exports: inspection
                    .exports
                    .iter()
                    .map(|item| item.name.clone())
                    .collect(),
            },
        };
        let program = match inspection.entry {
            Some(entry) => {
                let code = match code {
                    Some(code) => code,
                    None => {
                        let kind = inspection.kind;
                        cache
                            .compiled(&held, engine, flavour, kind, &mut seat)
                            .await?
                    }
                };
                Some(prepared::link(linked, entry, code)?)
            }
            None => None,
        };
        Ok(Inner {
            inspection,
            flavour,
            kind,
            program,
        })
    }

    /// Starts a cell on the guest threads.
    pub fn start(&self, prepared: &Prepared, config: CellConfig) -> Result<CellHandle, StartError> {
        let ready = match (&prepared.0.program, &prepared.0.kind) {
            (Some(ready), _) => ready.clone(),
            (None, PreparedKind::Library { exports }) => {
                return Err(StartError::Library {
                    exports: exports.clone(),
                });
            }
            (None, PreparedKind::Program) => {
                return Err(StartError::Library {
                    exports: Vec::new(),
                });
            }
        };
        if config.limits.counts_fuel() && prepared.flavour() != Flavour::Fuel {
            return Err(StartError::Flavour);
        }
        if self.0.stopping.is_cancelled() {
            return Err(StartError::Stopping);
        }
        let slot = self.slot()?;
        let shared = Arc::new(Shared::new(config.limits.clone()));
        let run = Run {
            ready,
            flavour: prepared.flavour(),
            granted: grants::open(&config, &shared)?,
            shared: shared.clone(),
        };
        Ok(self.spawn(run, shared, config.stdio, slot))
    }

    /// How many cells run now.
    pub fn cells(&self) -> u32 {
        self.0.cells.load(Ordering::Relaxed)
    }

    /// Kills every cell and waits until all are gone. May be dropped midway; the kill stands.
    pub async fn shutdown(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn spawn(&self, run: Run, shared: Arc<Shared>, stdio: Stdio, slot: Slot) -> CellHandle {
        let (ended, exit) = watch::channel(None);
        let pools = self.0.pools.handles().clone();
        let pulse = self.0.pulse.clone();
        let handle = pools.normal.clone();
        let stopping = self.0.stopping.clone();
        let cell = CellHandle {
            shared: shared.clone(),
            exit,
        };
        let task = self.0.tasks.track_future(async move {
            let paced = pace::run(guest::run(run), shared.clone(), pools, pulse);
            tokio::pin!(paced);
            let status = tokio::select! {
                status = &mut paced => status,
                () = stopping.cancelled() => {
                    shared.kill();
                    paced.await
                }
            };
            if let Stdio::Log(ring) = &stdio {
                ring.finish();
            }
            drop(slot);
            tracing::debug!(%status, "cell ended");
            ended.send_replace(Some(status));
        });
        // Kept by the tracker, ended by `shared.kill` and `stopping`.
        drop(handle.spawn(task));
        cell
    }

    fn slot(&self) -> Result<Slot, StartError> {
        let max = self.0.max_cells;
        let taken = self
            .0
            .cells
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now < max).then_some(now + 1)
            });
        taken
            .map(|_| Slot(self.0.cells.clone()))
            .map_err(|_| StartError::Full { max })
    }

    fn known(&self, version: &Version) -> Option<Arc<Inner>> {
        self.prepared().get(version)?.upgrade()
    }

    fn know(&self, version: Version, inner: &Arc<Inner>) {
        let mut prepared = self.prepared();
        prepared.retain(|_, weak| weak.strong_count() > 0);
        prepared.insert(version, Arc::downgrade(inner));
    }

    fn prepared(&self) -> MutexGuard<'_, HashMap<Version, Weak<Inner>>> {
        // Whole between any two statements, also after a panic elsewhere.
        self.0
            .prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn linked(&self, flavour: Flavour) -> &Linked {
        match flavour {
            Flavour::Epoch => &self.0.epoch,
            Flavour::Fuel => &self.0.fuel,
        }
    }
}

/// One place among the node's cells.
struct Slot(Arc<AtomicU32>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
