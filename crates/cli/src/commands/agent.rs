//! `realm agent`: runs this machine as a node, until it is told to stop.

mod check;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use realm_agent::{Agent, Config, CoreEnded, default_listen};
use realm_manifest::{NodeName, Tag};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    commands::{Session, cell_args::LimitArgs},
    error::{CliError, Context as _, ExitCode, Result},
    token,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm agent                                a node of this machine\n  realm agent --enroll-file token --tag edge  join with an invite\n  realm agent --data n1 --listen /ip4/127.0.0.1/udp/0/quic-v1 --http 127.0.0.1:0"
)]
pub struct Args {
    /// Data directory: keys, log, artifacts, volumes.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What the node calls itself until its owner names it.
    #[arg(long)]
    pub name: Option<NodeName>,
    /// A tag of this node; repeatable.
    #[arg(long = "tag", visible_alias = "role")]
    pub tags: Vec<Tag>,
    /// Multiaddr to listen on; repeatable. Port 2020 over QUIC and TCP by default.
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Port to listen on, over QUIC and TCP, IPv4 and IPv6.
    #[arg(
        long,
        value_name = "PORT",
        conflicts_with = "listen",
        allow_negative_numbers = true
    )]
    pub port: Option<u16>,
    /// Address of the read-only HTTP endpoints.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Let everybody on this machine read logs and status over HTTP, without the token.
    #[arg(long)]
    pub http_open: bool,
    /// Multiaddr of a node to dial; repeatable.
    #[arg(long, value_name = "ADDR")]
    pub bootstrap: Vec<String>,
    /// An invite token to join with. Others on this machine can read arguments: prefer --enroll-file.
    #[arg(long, value_name = "TOKEN")]
    pub enroll: Option<String>,
    /// A file with an invite token; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "enroll")]
    pub enroll_file: Option<PathBuf>,
    /// Do not look for nodes on the local network.
    #[arg(long)]
    pub no_mdns: bool,
    /// Take the first owner key that proves itself within this time, 24h at most; closes after one.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub trust_first_use: Option<Duration>,
    /// A config file to read after the system's and the user's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A program to run on this node now, beside what the realm asks for; it gets no grants.
    #[arg(long, value_name = "FILE")]
    pub wasm: Option<PathBuf>,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Compile untrusted code although this kernel cannot sandbox the compiler.
    #[arg(long)]
    pub allow_unsandboxed_compile: bool,
    /// Traps name the source file and line, where a program carries them (DWARF).
    #[arg(long)]
    pub wasm_debug: bool,
}

pub fn run(args: &Args, session: &Session) -> Result<()> {
    // A token may come from a pipe, which a signal should be able to cut short.
    let token = token(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    // From here on a signal ends the agent in order, also one that comes while it starts.
    let signals = {
        let _inside = runtime.enter();
        Signals::new().context("cannot wait for signals")?
    };
    let config = config(args, token, session)?;
    if let Some(filter) = &config.log {
        session.log.configure(filter)?;
    }
    give_memory_back();
    runtime.block_on(serve(config, signals, session))
}

/// What tells an agent to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Has threads of the allocator return what is free within seconds, also where nothing is allocated any more.
/// Only here: other commands end soon, and the child that compiles may have no threads.
fn give_memory_back() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::warn!(%error, "memory that is free goes back to the system late");
    }
}

/// Defaults, then the system's files, the user's, the named one, then flags.
fn config(args: &Args, token: Option<String>, session: &Session) -> Result<Config> {
    let exe = std::env::current_exe().context("cannot tell where this program is")?;
    let mut config = Config::new(session.settings.data_dir(), exe);
    config.runtime_dir = runtime_dir();
    let system = session.settings.system_dir();
    let unusable = "the agent's settings cannot be used";
    config
        .read_file(&system.join("agent.toml"))
        .context_code(ExitCode::Usage, unusable)?;
    config
        .read_dir(&system.join("agent.d"))
        .context_code(ExitCode::Usage, unusable)?;
    let user = session.settings.config_dir().join("agent.toml");
    config
        .read_file(&user)
        .context_code(ExitCode::Usage, unusable)?;
    if let Some(path) = session.settings.agent_config()
        && !config
            .read_file(&path)
            .context_code(ExitCode::Usage, unusable)?
    {
        return Err(CliError::new(
            ExitCode::NotFound,
            format!("there is no file {}", path.display()),
        ));
    }
    if let Some(data) = session.settings.explicit_data_dir() {
        config.data = data;
    }
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    }
    if let Some(http) = args.http {
        config.http = http;
    }
    config.http_open |= args.http_open;
    config.name = args.name.clone().or(config.name);
    if !args.tags.is_empty() {
        config.tags.clone_from(&args.tags);
    }
    if !args.listen.is_empty() {
        config.listen.clone_from(&args.listen);
    }
    if let Some(port) = args.port {
        config.listen = default_listen(port);
    }
    if !args.bootstrap.is_empty() {
        config.bootstrap.clone_from(&args.bootstrap);
    }
    config.mdns &= !args.no_mdns;
    config.trust_first_use = args.trust_first_use;
    config.allow_unsandboxed_compile |= args.allow_unsandboxed_compile;
    config.wasm_debug |= args.wasm_debug;
    config.enroll = token;
    check::check(&config)?;
    config.local = check::local(args)?;
    Ok(config)
}

fn token(args: &Args) -> Result<Option<String>> {
    match (&args.enroll, &args.enroll_file) {
        (Some(token), _) => Ok(Some(token.clone())),
        (None, Some(path)) => token::read(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// Runs the agent until it is told to stop; again where others remember a later start than this one.
async fn serve(mut config: Config, mut signals: Signals, session: &Session) -> Result<()> {
    loop {
        let mut agent = begin(&config, session).await?;
        let ended = until_it_ends(&mut agent, &mut signals).await;
        if matches!(ended, Err(CoreEnded::LaterStart)) {
            session.output.say("starting again");
            agent.shutdown().await;
            config.step_over_later_start = false;
            continue;
        }
        return stop(agent, ended, signals, session).await;
    }
}

async fn begin(config: &Config, session: &Session) -> Result<Agent> {
    let data = &config.data;
    let started = Agent::start(config.clone()).await;
    let agent = started.map_err(|error| check::not_started(&error, data))?;
    let output = &session.output;
    output.say(format!("agent {}", agent.key));
    for address in agent.addresses().await {
        output.say(format!("  listening  {address}"));
    }
    output.say(format!("  http       http://{}/readyz", agent.http));
    output.say(format!("  data       {}", data.display()));
    if !agent.has_owner() {
        output.say("no owner yet. Next: realm invite, then realm agent --enroll-file TOKEN");
    }
    Ok(agent)
}

async fn until_it_ends(
    agent: &mut Agent,
    signals: &mut Signals,
) -> std::result::Result<(), CoreEnded> {
    // Whoever starts what needs this node finds it then.
    tokio::select! {
        () = agent.announced() => {}
        () = signals.stop() => return Ok(()),
    }
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "systemd was not told");
    }
    tokio::select! {
        () = signals.stop() => Ok(()),
        ended = agent.failed() => Err(ended),
    }
}

/// Stops the agent in order, for the reason that is handed in.
async fn stop(
    agent: Agent,
    ended: std::result::Result<(), CoreEnded>,
    mut signals: Signals,
    session: &Session,
) -> Result<()> {
    session.output.say("stopping");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Stopping]) {
        tracing::debug!(%error, "systemd was not told");
    }
    tokio::select! {
        () = agent.shutdown() => ended.context("the agent stopped by itself"),
        // The second Ctrl-C does not wait.
        _ = signals.interrupt.recv() => Err(CliError::new(ExitCode::Interrupted, "stopped at once")),
    }
}

/// Where running agents say how they are reached: `XDG_RUNTIME_DIR/realm`.
pub fn runtime_dir() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    // A relative one is not valid, as the XDG specification says.
    dir.is_absolute().then(|| dir.join("realm"))
}
