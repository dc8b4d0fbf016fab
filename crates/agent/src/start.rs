//! Building the agent from its parts, and stopping it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use realm_identity::{ParseTokenError, PublicKey, SecretKey, Signed};
use realm_manifest::{NodeName, report::Capacity};
use realm_p2p::{Network, RpcServe, Services};
use realm_protocol::Node;
use realm_runtime::{CompilerConfig, Runtime, RuntimeConfig, RuntimeError};
use realm_store::{BlobError, Blobs, DataDir, DirError, LedgerError, StateFileError};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    Config, VERSION,
    agent_file::AgentFile,
    approvals::Checked,
    clock::Clock,
    control::{Artifacts, Server, Shared},
    core::{Command, Core, End, Inputs, LaterStart, View, Vouching},
    desk::Desk,
    ended::Ended,
    events::Events,
    fetch::Fetcher,
    fold::PlannerFold,
    http::{BindError, HttpServer, Readiness, Web, host},
    ledger::LedgerTask,
    local::LocalError,
    logs::Logs,
    offenders::Offenders,
    presence::Presence,
    report::Reporter,
    sealing::Sealing,
    supervisor::{Supervisor, Tools},
    trust::{self, Trust, TrustError},
    twins::Twins,
    volumes::Volumes,
};

mod file_limit;
mod kept;

use kept::{Kept, Past};

/// Questions of operators that wait for the core.
const COMMANDS: usize = 256;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    pub key: PublicKey,
    /// Where the HTTP endpoint was bound.
    pub http: SocketAddr,
    pinned: bool,
    readiness: watch::Receiver<Option<String>>,
    announced: watch::Receiver<Option<usize>>,
    network: realm_p2p::NetworkHandle,
    cancel: CancellationToken,
    /// None once it has ended by itself.
    core: Option<AbortOnDropHandle<End>>,
    server: HttpServer,
    runtime: Runtime,
    /// Locked until the agent is gone.
    dir: DataDir,
}

/// Why an agent stopped working although nobody told it to.
#[derive(Debug, thiserror::Error)]
pub enum CoreEnded {
    #[error("the agent's core panicked: report this with the agent's log, and start it again")]
    Panicked(#[source] JoinError),
    #[error("the agent's core ended, as it does when the network's thread is gone: see the log")]
    Alone,
    /// It is to be started again at once, with a higher number.
    #[error("others remember a later start of this node than this one: start it again")]
    LaterStart,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the invite token is not usable")]
    Invite(#[from] ParseTokenError),
    #[error("the invite was not taken up")]
    Enroll(#[source] TrustError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the stored log cannot be used")]
    Restore(#[from] realm_protocol::RestoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error("cannot start the runtime")]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Network(#[from] realm_p2p::StartError),
    #[error(transparent)]
    Http(#[from] BindError),
    #[error("cannot see whose data is in {path}: repair the directory, or move it away")]
    Volumes {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot keep the token of the http endpoints in {path}")]
    HttpToken {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl Agent {
    /// Opens the data directory, builds every part and starts them. When this returns the
    /// agent listens.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        realm_p2p::install_crypto_provider();
        file_limit::raise();
        let clock = Clock::default();
        let kept = Kept::open(&config)?;
        let past = Past::read(&kept, &clock)?;
        let pinned = kept.trust.pin().owner().is_some();
        let (ledger, written) = LedgerTask::start(kept.ledger, kept.dir.path().to_owned())
            .map_err(StartError::Thread)?;

        let blobs = Arc::new(Blobs::open(kept.dir.path(), config.artifact_bytes)?);
        let local = match config.local.clone() {
            Some(local) => Some(local.take_in(&blobs)?),
            None => None,
        };
        let runtime = runtime(&config, &kept.dir)?;
        let events = Events::default();
        tell_renewed(&kept.sealing, &events, &clock);

        let wires = Wires::default();
        let peers_file = kept.dir.state_file("peers");
        let saved_peers = saved_peers(&peers_file)?;
        let cancel = CancellationToken::new();
        let logs = Logs::default();
        // The logs are the supervisor's, which needs the network for pulls, whose RPC server
        // reads the logs: the server finds the network through a cell that is filled last.
        let shared = Shared {
            key: kept.key.public(),
            commands: wires.commands.0,
            view: wires.view.1.clone(),
            logs: logs.clone(),
            events: events.clone(),
            desk: Desk::default(),
            blobs: blobs.clone(),
            network: Arc::new(OnceLock::new()),
            data: kept.dir.path().to_owned(),
        };
        let token = match config.http_open {
            true => None,
            false => Some(token(kept.dir.path())?),
        };
        let web = Web::new(shared.clone(), token, past.boot_id, cancel.child_token());
        let mut net = net(&config, &kept.key, &kept.trust, &past.node, &saved_peers)?;
        net.run = Some(past.boot_id);
        let network_cell = shared.network.clone();
        let (network, network_events) = Network::start(net, services(shared)).await?;
        // Filled once, here.
        let _ = network_cell.set(network.clone());

        let readiness = wires.readiness.1;
        let server = HttpServer::start(
            config.http,
            readiness.clone(),
            web.routes(),
            cancel.child_token(),
        )
        .await?;
        if let Some(open) = who_reads(server.address, config.http_open) {
            tracing::warn!(address = %server.address, "http is not on loopback: {open}");
        }
        let volumes = kept.dir.subdir("volumes")?;
        let held = Volumes::open(volumes.clone()).map_err(|source| StartError::Volumes {
            path: volumes.clone(),
            source,
        })?;
        let tools = Tools {
            runtime: runtime.clone(),
            fetcher: Fetcher::new(
                blobs.clone(),
                network.clone(),
                wires.sources.1,
                events.clone(),
            ),
            events: events.clone(),
            ended: Ended::open(kept.dir.state_file("ended"))?,
            volumes,
            volume_prefixes: config.volume_prefixes.clone(),
            tasks: Handle::current(),
            changed: Arc::new(wires.cells.0),
        };
        let key = kept.key.public();
        let core = Core {
            agent_file: AgentFile::new(key, kept.dir.path(), config.runtime_dir.as_deref()),
            reporter: reporter(&config, &key, past.boot_id),
            supervisor: Supervisor::new(tools, logs, held, local),
            key: kept.key,
            sealing: kept.sealing.certificate.to_wire(),
            started_mono: clock.now().mono,
            member_since: clock.now().mono,
            clock,
            node: past.node,
            network: network.clone(),
            ledger,
            trust: kept.trust,
            blobs,
            events,
            view: wires.view.0,
            sources: wires.sources.0,
            readiness: wires.readiness.0,
            announced: wires.announced.0,
            peers_file,
            boot_file: trust::boot_file(&kept.dir),
            later_start: LaterStart::new(config.step_over_later_start),
            state: None,
            claims: Vec::new(),
            checked: Checked::default(),
            approved: BTreeMap::new(),
            reports: past.reports,
            submits: HashMap::new(),
            claimants: Vec::new(),
            vouching: Vouching::default(),
            adopters: Vec::new(),
            pending_since: BTreeMap::new(),
            offenders: Offenders::default(),
            presence: Presence::default(),
            twins: Twins::default(),
            alarms_told: Vec::new(),
            refused_claims: BTreeSet::new(),
            forked: false,
            incompatible: None,
            addresses: Vec::new(),
            asked_to_join: false,
            begun: false,
            neighbours: BTreeSet::new(),
            mdns: config.mdns,
            reached: None,
            relays_asked: BTreeMap::new(),
            saved_peers,
            dials: JoinSet::new(),
            writes: JoinSet::new(),
            loosened: false,
            next_token: 1,
            problems: Vec::new(),
            replan: true,
            claims_came: false,
        };
        let inputs = Inputs {
            network: network_events,
            written,
            commands: wires.commands.1,
            cells: wires.cells.1,
            cancel: cancel.clone(),
        };
        Ok(Self {
            key,
            http: server.address,
            pinned,
            readiness,
            announced: wires.announced.1,
            cancel,
            core: Some(AbortOnDropHandle::new(network.spawn(core.run(inputs)))),
            network,
            server,
            runtime,
            dir: kept.dir,
        })
    }

    /// Multiaddrs at which this node can be dialled.
    pub async fn addresses(&self) -> Vec<String> {
        self.network.listen_addresses().await.unwrap_or_default()
    }

    /// Waits until commands of this machine find the agent by its file, at an address if it has any; a file
    /// that cannot be written is waited for no longer than its warning. May be dropped midway.
    pub async fn announced(&self) {
        let some = !self.addresses().await.is_empty();
        let mut announced = self.announced.clone();
        let found = |count: &Option<usize>| count.is_some_and(|count| count > 0 || !some);
        // The sender is the core's: where that has ended, whoever waits hears it by `failed`.
        if announced.wait_for(found).await.is_err() {
            tracing::debug!("the core ended before commands were told");
        }
    }

    /// Waits until the node gets work: it is in a realm, approved, knows the log, and its disk takes
    /// writes. False where the core ended before that.
    pub async fn ready(&self) -> bool {
        let mut readiness = self.readiness.clone();
        // The sender is the core's.
        readiness.wait_for(Option::is_none).await.is_ok()
    }

    /// Waits until the core ends although nobody told it to: from then on the node does nothing.
    /// May be dropped midway; told once.
    pub async fn failed(&mut self) -> CoreEnded {
        let Some(core) = &mut self.core else {
            return std::future::pending().await;
        };
        let ended = core.await;
        self.core = None;
        match ended {
            Err(error) if error.is_panic() => CoreEnded::Panicked(error),
            Ok(End::Again) => CoreEnded::LaterStart,
            // Cancelled is what the end of the network's thread leaves.
            Ok(End::Stopped) | Err(_) => CoreEnded::Alone,
        }
    }

    /// Whether this node knows whom to trust.
    pub fn has_owner(&self) -> bool {
        self.pinned
    }

    /// Stops everything in order: no new work, the cells, the disk, the network.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        // A core that was cancelled went with the network's thread, which has told why.
        if let Some(core) = self.core
            && let Err(error) = core.await
            && error.is_panic()
        {
            tracing::error!(%error, "the core panicked");
        }
        self.network.shutdown().await;
        self.runtime.shutdown().await;
        self.server.stopped().await;
        drop(self.dir);
    }
}

/// Both ends of what the parts speak through.
struct Wires {
    view: (watch::Sender<View>, watch::Receiver<View>),
    sources: (
        watch::Sender<Vec<PublicKey>>,
        watch::Receiver<Vec<PublicKey>>,
    ),
    readiness: (watch::Sender<Option<String>>, Readiness),
    announced: (watch::Sender<Option<usize>>, watch::Receiver<Option<usize>>),
    commands: (mpsc::Sender<Command>, mpsc::Receiver<Command>),
    /// Rises whenever a cell changed.
    cells: (watch::Sender<u64>, watch::Receiver<u64>),
}

impl Default for Wires {
    fn default() -> Self {
        Self {
            view: watch::channel(View::default()),
            sources: watch::channel(Vec::new()),
            readiness: watch::channel(Some("starting".to_owned())),
            announced: watch::channel(None),
            commands: mpsc::channel(COMMANDS),
            cells: watch::channel(0),
        }
    }
}

/// To whom the http endpoint is open beyond this machine; None where to nobody.
fn who_reads(address: SocketAddr, open: bool) -> Option<&'static str> {
    let beyond = !address.ip().is_loopback();
    beyond.then_some(match open {
        true => "health, metrics, status and logs are open to everybody who reaches it: --http-open drops the token",
        false => "health and metrics are open to everybody who reaches it, status and logs to who has the token of the data directory",
    })
}

fn tell_renewed(sealing: &Sealing, events: &Events, clock: &Clock) {
    if sealing.renewed {
        let message = "its sealing key was lost, and another one was made: what was sealed for it before cannot be opened here".to_owned();
        let subject = sealing.certificate.key.to_string();
        events.record(clock.now().wall, "alarm", subject, message);
    }
}

/// What peers may ask of this node.
fn services(shared: Shared) -> Services {
    Services {
        blobs: Some(Arc::new(Artifacts {
            blobs: shared.blobs.clone(),
            view: shared.view.clone(),
        })),
        rpc: Some(Box::new(move || {
            Rc::new(Server(shared)) as Rc<dyn RpcServe>
        })),
    }
}

fn net(
    config: &Config,
    key: &SecretKey,
    trust: &Trust,
    node: &Node<PlannerFold>,
    saved_peers: &[String],
) -> Result<realm_p2p::Config, StartError> {
    let mut net = realm_p2p::Config::new(key.clone());
    net.realm = node
        .log()
        .map(realm_protocol::Log::realm)
        .or(trust.pin().realm());
    net.listen = config.listen.clone();
    net.bootstrap = config
        .bootstrap
        .iter()
        .chain(saved_peers)
        .cloned()
        .collect();
    // The invite says where the realm is; that holds after a restart, too.
    if let Some(claim) = trust.claim()?
        && let Ok(invite) = Signed::<realm_identity::Invite>::from_wire(&claim.invite)
    {
        net.bootstrap.extend(invite.addresses.iter().cloned());
    }
    net.mdns = config.mdns;
    net.agent_version = VERSION.to_owned();
    net.tags = config.tags.iter().map(ToString::to_string).collect();
    Ok(net)
}

fn reporter(config: &Config, key: &PublicKey, boot_id: u64) -> Reporter {
    let capacity = Capacity {
        memory_mb: config.memory_mb,
        cells: config.max_cells,
    };
    let name = config.name.clone().unwrap_or_else(|| default_name(key));
    Reporter::new(name, config.tags.clone(), capacity, boot_id)
}

fn token(dir: &std::path::Path) -> Result<Arc<str>, StartError> {
    host::token(dir, trust::random).map_err(|source| StartError::HttpToken {
        path: dir.join(host::TOKEN_FILE),
        source,
    })
}

fn runtime(config: &Config, dir: &DataDir) -> Result<Runtime, StartError> {
    let (child, args) = config.compile_child.clone();
    let mut compiler = CompilerConfig::new(
        child,
        args.into_iter().map(std::ffi::OsString::from).collect(),
    );
    compiler.allow_unsandboxed = config.allow_unsandboxed_compile;
    let cache_key = trust::secret(dir, "cache.key")?;
    let mut runtime = RuntimeConfig::new(dir.subdir("compiled")?, cache_key, compiler);
    runtime.max_cells = config.max_cells;
    runtime.cache_bytes = config.cache_bytes;
    runtime.wasm_debug = config.wasm_debug;
    Ok(Runtime::new(runtime)?)
}

pub(crate) fn saved_peers(file: &realm_store::StateFile) -> Result<Vec<String>, StartError> {
    let loss = "addresses of peers that were saved here";
    let bytes = file.read_or_lose(loss, Some)?;
    Ok(String::from_utf8_lossy(&bytes.known().unwrap_or_default())
        .lines()
        .map(str::to_owned)
        .collect())
}

/// `node-` and the start of the key, in the letters that names have.
fn default_name(key: &PublicKey) -> NodeName {
    let digits: String = key.as_bytes()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    NodeName::new(format!("node-{digits}")).expect("hexadecimal digits are allowed in names")
}

#[cfg(test)]
mod tests;
