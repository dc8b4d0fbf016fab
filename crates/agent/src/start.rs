//! Building the agent from its parts, and stopping it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use realm_identity::{InviteToken, ParseTokenError, PublicKey, Signed, Timestamp};
use realm_manifest::{
    NodeName,
    report::{Capacity, NodeReport},
};
use realm_p2p::{Network, RpcServe, Services};
use realm_protocol::Node;
use realm_runtime::{CompilerConfig, Runtime, RuntimeConfig, RuntimeError};
use realm_store::{
    BlobError, Blobs, DataDir, DirError, Ledger, LedgerContents, LedgerError, StateFileError,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, VERSION,
    agent_file::AgentFile,
    clock::Clock,
    control::{Artifacts, Server, Shared},
    core::{Core, Inputs, Seen, View},
    desk::Desk,
    ended::Ended,
    events::Events,
    fetch::Fetcher,
    fold::PlannerFold,
    http::{BindError, HttpServer, Web, host},
    ledger::{self, LedgerTask},
    local::LocalError,
    logs::Logs,
    offenders::Offenders,
    report::Reporter,
    sealing::Sealing,
    supervisor::{Supervisor, Tools},
    trust::{self, Trust, TrustError},
    volumes::Volumes,
};

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
    network: realm_p2p::NetworkHandle,
    cancel: CancellationToken,
    /// None once it has ended by itself.
    core: Option<JoinHandle<()>>,
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
        raise_file_limit();
        let clock = Clock::default();
        let dir = DataDir::open(&config.data)?;
        let key = trust::node_key(&dir)?;
        let sealing = Sealing::load(&dir, &key)?;
        let mut trust = Trust::load(&dir)?;
        let ledger = Ledger::open(&dir.path().join("ledger.redb"))?;
        let contents = ledger.load()?;
        if contents.genesis.is_some() || contents.checkpoint.is_some() {
            trust.check_pin("ledger.redb")?;
        }
        if let Some(window) = config.trust_first_use {
            trust.open_window(window)?;
        }
        if let Some(token) = &config.enroll {
            enroll(&mut trust, token, &key)?;
        }

        let seen = reports(&contents);
        let reported = seen.get(&key.public()).map(|own| own.report.boot_id);
        let boot_id = trust::next_boot(&dir, reported)?;
        let pinned = trust.pin().owner().is_some();
        let node = restore(&trust, &key, boot_id, &contents, &clock)?;
        let (ledger, written) = LedgerTask::start(ledger).map_err(StartError::Thread)?;

        let blobs = Arc::new(Blobs::open(dir.path(), config.artifact_bytes)?);
        let local = match config.local.clone() {
            Some(local) => Some(local.take_in(&blobs)?),
            None => None,
        };
        let runtime = runtime(&config, &dir)?;
        let events = Events::default();
        if sealing.renewed {
            let message = "its sealing key was lost, and another one was made: what was sealed for it before cannot be opened here".to_owned();
            let subject = sealing.certificate.key.to_string();
            events.record(clock.now().wall, "alarm", subject, message);
        }
        let (view_sender, view) = watch::channel(View {
            realm: None,
            realm_name: None,
            owners: Vec::new(),
            window: false,
            pinned: None,
            name: String::new(),
            epoch: 0,
            approved: std::collections::HashSet::new(),
        });
        let (sources_sender, sources) = watch::channel(Vec::new());
        let (readiness_sender, readiness) = watch::channel(Some("starting".to_owned()));
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let (changed, cells) = watch::channel(0);
        let network_cell = Arc::new(OnceLock::new());

        // The logs are the supervisor's, which needs the network for pulls, whose RPC server
        // reads the logs: the server finds the network through a cell that is filled last.
        let peers_file = dir.state_file("peers");
        let saved_peers = saved_peers(&peers_file)?;
        let cancel = CancellationToken::new();
        let logs = Logs::default();
        let shared = Shared {
            key: key.public(),
            commands,
            view: view.clone(),
            logs: logs.clone(),
            events: events.clone(),
            desk: Desk::default(),
            blobs: blobs.clone(),
            network: network_cell.clone(),
            data: dir.path().to_owned(),
        };
        let token = match config.http_open {
            true => None,
            false => Some(token(dir.path())?),
        };
        let web = Web::new(shared.clone(), token, boot_id, cancel.child_token());
        let services = Services {
            blobs: Some(Arc::new(Artifacts {
                blobs: blobs.clone(),
                view: view.clone(),
            })),
            rpc: Some(Box::new(move || {
                Rc::new(Server(shared)) as Rc<dyn RpcServe>
            })),
        };
        let mut net = realm_p2p::Config::new(key.clone());
        net.realm = node
            .log()
            .map(realm_protocol::Log::realm)
            .or(trust.pin().realm());
        net.listen = config.listen.clone();
        net.bootstrap = config
            .bootstrap
            .iter()
            .chain(&saved_peers)
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
        let (network, network_events) = Network::start(net, services).await?;
        // Filled once, here.
        let _ = network_cell.set(network.clone());

        let server = HttpServer::start(
            config.http,
            readiness.clone(),
            web.routes(),
            cancel.child_token(),
        )
        .await?;
        let volumes = dir.subdir("volumes")?;
        let held = Volumes::open(volumes.clone()).map_err(|source| StartError::Volumes {
            path: volumes.clone(),
            source,
        })?;
        let tools = Tools {
            runtime: runtime.clone(),
            fetcher: Fetcher::new(blobs.clone(), network.clone(), sources),
            events: events.clone(),
            ended: Ended::open(dir.state_file("ended"))?,
            volumes,
            volume_prefixes: config.volume_prefixes.clone(),
            changed: Arc::new(changed),
        };
        let capacity = Capacity {
            memory_mb: config.memory_mb,
            cells: config.max_cells,
        };
        let name = config
            .name
            .clone()
            .unwrap_or_else(|| default_name(&key.public()));
        let core = Core {
            agent_file: AgentFile::new(key.public(), dir.path(), config.runtime_dir.as_deref()),
            reporter: Reporter::new(name, config.tags.clone(), capacity, boot_id),
            supervisor: Supervisor::new(tools, logs, held, local),
            key: key.clone(),
            sealing: sealing.certificate.to_wire(),
            started_mono: clock.now().mono,
            member_since: clock.now().mono,
            clock,
            node,
            network: network.clone(),
            ledger,
            trust,
            blobs,
            events,
            view: view_sender,
            sources: sources_sender,
            readiness: readiness_sender,
            peers_file,
            state: None,
            claims: Vec::new(),
            approved: BTreeMap::new(),
            reports: seen,
            submits: HashMap::new(),
            claimants: Vec::new(),
            adopters: Vec::new(),
            pending_since: BTreeMap::new(),
            offenders: Offenders::default(),
            alarms_told: Vec::new(),
            refused_claims: BTreeSet::new(),
            forked: false,
            incompatible: None,
            addresses: Vec::new(),
            begun: false,
            neighbours: BTreeSet::new(),
            mdns: config.mdns,
            private: false,
            relays_asked: BTreeMap::new(),
            saved_peers,
            dials: JoinSet::new(),
            next_token: 1,
            replan: true,
        };
        let inputs = Inputs {
            network: network_events,
            written,
            commands: command_queue,
            cells,
            cancel: cancel.clone(),
        };
        let core = tokio::spawn(core.run(inputs));
        Ok(Self {
            key: key.public(),
            http: server.address,
            pinned,
            readiness,
            network,
            cancel,
            core: Some(core),
            server,
            runtime,
            dir,
        })
    }

    /// Multiaddrs at which this node can be dialled.
    pub async fn addresses(&self) -> Vec<String> {
        self.network.listen_addresses().await.unwrap_or_default()
    }

    /// Waits until the node is in a realm and approved; false where the core ended before that.
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
            Ok(()) => CoreEnded::Alone,
            Err(error) => CoreEnded::Panicked(error),
        }
    }

    /// Whether this node knows whom to trust.
    pub fn has_owner(&self) -> bool {
        self.pinned
    }

    /// Stops everything in order: no new work, the cells, the disk, the network.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        if let Some(core) = self.core
            && let Err(error) = core.await
        {
            tracing::error!(%error, "the core panicked");
        }
        // A core that did not end in order has left it open.
        self.network.shutdown().await;
        self.runtime.shutdown().await;
        self.server.stopped().await;
        drop(self.dir);
    }
}

fn enroll(
    trust: &mut Trust,
    token: &str,
    key: &realm_identity::SecretKey,
) -> Result<(), StartError> {
    let token: InviteToken = token.trim().parse()?;
    // A restart with the same flag finds the invite taken up already.
    if trust
        .claim()?
        .is_some_and(|claim| claim.key == token.secret().public())
    {
        return Ok(());
    }
    trust.enroll(&token, key)?;
    Ok(())
}

fn token(dir: &std::path::Path) -> Result<Arc<str>, StartError> {
    host::token(dir, trust::random).map_err(|source| StartError::HttpToken {
        path: dir.join(host::TOKEN_FILE),
        source,
    })
}

fn restore(
    trust: &Trust,
    key: &realm_identity::SecretKey,
    boot_id: u64,
    contents: &LedgerContents,
    clock: &Clock,
) -> Result<Node<PlannerFold>, StartError> {
    let pin = trust.pin();
    let config = realm_protocol::Config {
        key: key.clone(),
        realm: pin.realm(),
        pins: pin.owner().into_iter().collect(),
        boot_id,
        seed: trust::random_u64()?,
        mutation: None,
    };
    Ok(Node::new(
        config,
        PlannerFold,
        ledger::restored(contents),
        clock.now(),
    )?)
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
    Ok(Runtime::new(runtime)?)
}

/// Cells and connections hold many files: the soft limit, which is for programs that cannot
/// handle many, goes up to the hard one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn saved_peers(file: &realm_store::StateFile) -> Result<Vec<String>, StartError> {
    let loss = "addresses of peers that were saved here";
    let bytes = file.read_or_lose(loss, Some)?;
    Ok(String::from_utf8_lossy(&bytes.known().unwrap_or_default())
        .lines()
        .map(str::to_owned)
        .collect())
}

fn reports(contents: &LedgerContents) -> BTreeMap<PublicKey, Seen> {
    let read = |(_, seen_ms, wire): &([u8; 32], u64, Vec<u8>)| {
        let report = Signed::<NodeReport>::from_wire(wire).ok()?;
        Some((report.node, Seen::new(report, Timestamp(*seen_ms))))
    };
    contents.reports.iter().filter_map(read).collect()
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
