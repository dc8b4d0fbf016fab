//! A realm of several agents for tests: processes of the real binary, or agents in this process, on loopback.
//!
//! Everything lives in one temporary directory, ports are ephemeral, and every process is
//! killed when the [`Cluster`] is dropped. Waiting is always for a condition, with a deadline.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set its scene should say so and stop"
)]

mod bridged;
mod here;
mod metrics;
mod net;
mod relay;
mod skipped;
pub mod strace;
pub mod synced;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub use bridged::Bridged;
pub use metrics::Metrics;
pub use net::{Host, Net};
pub use relay::{Faults, Kind, Relay};
pub use skipped::skipped;

use here::Here;

/// Long enough for a loaded machine of two cores; a healthy one needs a fraction.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// A person with an owner key, and the agents of that person's realm.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    realm: PathBuf,
    nodes: Vec<NodeProcess>,
    here: Option<Here>,
    /// Where a node listens at its first start.
    listen: &'static str,
}

#[derive(Debug)]
struct NodeProcess {
    name: String,
    /// Fixed after the first start, so that others find the node again.
    listen: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// None is this machine itself, on loopback.
    host: Option<Host>,
    child: Option<Child>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Printed {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Cluster {
    /// A new owner key and realm; `realm` is the binary under test.
    pub fn new(realm: impl Into<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Self {
            dir,
            realm: realm.into(),
            nodes: Vec::new(),
            here: None,
            listen: "/ip4/127.0.0.1/tcp/0",
        };
        cluster.ok(&["init", "--name", "test"]);
        cluster
    }

    /// Nodes listen over QUIC alone from now on.
    #[must_use]
    pub fn over_quic(mut self) -> Self {
        self.listen = "/ip4/127.0.0.1/udp/0/quic-v1";
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The node's data directory.
    pub fn data(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// `realm` with this person's directories, to be started by the test.
    pub fn command(&self) -> Command {
        self.command_on(None)
    }

    /// The same as on a node's machine.
    pub fn command_at(&self, name: &str) -> Command {
        self.command_on(self.node(name).host.as_ref())
    }

    fn command_on(&self, host: Option<&Host>) -> Command {
        let mut command = match host {
            Some(host) => host.command(&self.realm),
            None => Command::new(&self.realm),
        };
        // What a machine's own agent leaves for commands on that machine.
        let run = match host {
            Some(host) => format!("run-{}", host.v4()),
            None => "run".into(),
        };
        command
            .env("HOME", self.path())
            .env("XDG_RUNTIME_DIR", self.path().join(run))
            .env("REALM_CONFIG_DIR", self.path().join("config"))
            .env("REALM_STATE_DIR", self.path().join("state"))
            .env("NO_COLOR", "1")
            .env_remove("REALM_VIA")
            .env_remove("REALM_REALM")
            .env_remove("REALM_KEY")
            .env_remove("REALM_PASSPHRASE_FILE")
            .env_remove("REALM_AGENT_CONFIG")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }

    /// Runs `realm` with these arguments.
    pub fn run(&self, args: &[&str]) -> Printed {
        self.run_with(args, &[])
    }

    /// Runs `realm` with these arguments and environment variables.
    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Printed {
        let mut command = self.command();
        printed(command.args(args).envs(env.iter().copied()))
    }

    /// Runs `realm` with these arguments on a node's machine, and asks its agent.
    pub fn run_at(&self, name: &str, args: &[&str]) -> Printed {
        let mut command = self.command_at(name);
        printed(command.args(args).args(["--via", &self.address(name)]))
    }

    /// Runs `realm`, which must succeed; answers with its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let printed = self.run(args);
        assert_eq!(
            printed.code, 0,
            "realm {args:?}: {}{}",
            printed.stdout, printed.stderr
        );
        printed.stdout
    }

    /// Starts a node in this process, with an invite of its own. Its cells run in this process too.
    pub fn add_node_here(&mut self, name: &str) {
        let mut invite = vec!["invite", "--quiet", "--name", name];
        let bootstrap = self.nodes.first().map(|first| first.listen[0].clone());
        invite.extend(bootstrap.iter().flat_map(|at| ["--bootstrap", at]));
        let token = self.ok(&invite);
        let mut config = realm_agent::Config::new(self.data(name), self.realm.clone());
        config.enroll = Some(token.trim().to_owned());
        config.mdns = false;
        // All agents here share one address space, of which a cell's memories take 16 GiB.
        config.max_cells = 64;
        config.http = "127.0.0.1:0".parse().unwrap();
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
        let here = self.here.get_or_insert_with(Here::new);
        let listen = here.start(name, config);
        self.nodes.push(NodeProcess {
            name: name.into(),
            listen,
            args: Vec::new(),
            env: Vec::new(),
            host: None,
            child: None,
        });
    }

    /// Stops a node of this process, in order.
    pub fn stop_here(&mut self, name: &str) {
        self.here.as_mut().unwrap().stop(name);
    }

    /// Starts a node with an invite of its own; the first node has nobody to ask.
    pub fn add_node(&mut self, name: &str, tags: &[&str]) {
        self.add_node_with(name, tags, &[]);
    }

    /// Like [`Cluster::add_node`], with more arguments for `realm agent`.
    pub fn add_node_with(&mut self, name: &str, tags: &[&str], more: &[&str]) {
        let mut invite = vec!["invite", "--quiet", "--name", name];
        for tag in tags {
            invite.extend(["--tag", tag]);
        }
        let bootstrap = self.nodes.first().map(|first| first.listen[0].clone());
        if let Some(bootstrap) = &bootstrap {
            invite.extend(["--bootstrap", bootstrap]);
        }
        let token = self.ok(&invite);
        let token_file = self.path().join(format!("{name}.token"));
        fs::write(&token_file, token).unwrap();
        let mut args = vec!["--enroll-file".into(), token_file.display().to_string()];
        args.extend(more.iter().map(ToString::to_string));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.add_agent(name, &args);
    }

    /// Starts an agent with exactly these arguments beside those for its addresses and its data.
    pub fn add_agent(&mut self, name: &str, args: &[&str]) {
        self.keep(name, None, args);
        self.start(name);
    }

    /// An agent on a host of its own, which listens and looks for others as an agent does by
    /// default. It is not started, for many are to start at once.
    pub fn add_agent_on(&mut self, host: &Host, name: &str, args: &[&str]) {
        self.keep(name, Some(host.clone()), args);
    }

    fn keep(&mut self, name: &str, host: Option<Host>, args: &[&str]) {
        self.nodes.push(NodeProcess {
            name: name.into(),
            listen: Vec::new(),
            args: args.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            host,
            child: None,
        });
    }

    fn node(&self, name: &str) -> &NodeProcess {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }

    fn node_mut(&mut self, name: &str) -> &mut NodeProcess {
        let mut nodes = self.nodes.iter_mut();
        nodes.find(|node| node.name == name).unwrap()
    }

    /// Starts a node's agent where it ran before, with other arguments than its first ones.
    pub fn start_with(&mut self, name: &str, args: &[&str]) {
        let node = self.node_mut(name);
        node.args = args.iter().map(ToString::to_string).collect();
        self.start(name);
    }

    /// Environment variables of a node's agent, from its next start on.
    pub fn set_env(&mut self, name: &str, env: &[(&str, &str)]) {
        let node = self.node_mut(name);
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        node.env = env.iter().map(owned).collect();
    }

    /// Starts a node's agent, again where it ran before.
    pub fn start(&mut self, name: &str) {
        self.spawn(name);
        self.wait_listens(name);
    }

    /// Starts a node's agent, and waits for nothing.
    pub fn spawn(&mut self, name: &str) {
        self.spawn_as(name, |plain| plain);
    }

    fn spawn_as(&mut self, name: &str, make: impl FnOnce(Command) -> Command) {
        let data = self.data(name);
        // What a killed agent left would be taken for the new one's.
        let _ = fs::remove_file(data.join("agent.json"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path().join(format!("{name}.log")))
            .unwrap();
        let node = self.node(name);
        let mut command = make(self.command_on(node.host.as_ref()));
        command.args(["agent", "--data"]).arg(&data);
        if node.host.is_none() {
            command.args(["--no-mdns", "--http", "127.0.0.1:0"]);
            if node.listen.is_empty() {
                command.args(["--listen", self.listen]);
            }
            for address in &node.listen {
                let address = address.split("/p2p/").next().unwrap();
                command.args(["--listen", address]);
            }
        }
        command.args(&node.args).envs(node.env.iter().cloned());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.node_mut(name).child = Some(command.spawn().unwrap());
    }

    /// Waits until an agent that was started says where it listens.
    pub fn wait_listens(&mut self, name: &str) {
        let info = self.data(name).join("agent.json");
        let child = self.node_mut(name).child.as_mut().unwrap();
        let listen = wait_for(&format!("{name} listens"), || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the agent of {name} ended at once: {status}");
            }
            let info: Value = serde_json::from_slice(&fs::read(&info).ok()?).ok()?;
            let addresses: Vec<String> = info["addresses"]
                .as_array()?
                .iter()
                .filter_map(|address| Some(address.as_str()?.to_owned()))
                .collect();
            (!addresses.is_empty()).then_some(addresses)
        });
        self.node_mut(name).listen = listen;
    }

    /// Starts a node's agent where it ran before, below strace, which kills it or lets its disk fail at
    /// one call. Whether it comes so far as to listen is the test's business.
    pub fn start_at(&mut self, name: &str, point: &strace::Point<'_>) {
        self.spawn_as(name, |plain| below(&plain, point));
    }

    /// Starts a node's agent where it ran before, below strace, which writes what it does to the disk to `trace`.
    pub fn start_traced(&mut self, name: &str, trace: &Path) {
        let below =
            |plain: Command| with_env(&plain, synced::traced_child(plain.get_program(), trace));
        self.spawn_as(name, below);
        self.wait_listens(name);
    }

    /// Whether the process of a node that was started has ended by itself.
    pub fn has_ended(&mut self, name: &str) -> bool {
        let child = self.node_mut(name).child.as_mut().unwrap();
        child.try_wait().unwrap().is_some()
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) {
        let node = self.node_mut(name);
        let mut child = node.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a running agent a signal, such as `STOP` or `CONT`.
    pub fn signal(&self, name: &str, signal: &str) {
        let pid = self.pid(name).to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// The process of an agent that runs.
    pub fn pid(&self, name: &str) -> u32 {
        self.node(name).child.as_ref().unwrap().id()
    }

    /// SIGTERM, and waits for the orderly end; answers with the exit code.
    pub fn stop(&mut self, name: &str) -> i32 {
        self.signal(name, "TERM");
        let node = self.node_mut(name);
        let mut child = node.child.take().unwrap();
        let status = wait_for(&format!("{name} stops"), || child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// An address of a running node.
    pub fn address(&self, name: &str) -> String {
        self.node(name).listen[0].clone()
    }

    /// What the node's agent wrote, for failures.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// The status as `name` sees it.
    pub fn status(&self, name: &str) -> Option<Value> {
        let printed = self.run_at(name, &["status", "-o", "json"]);
        (printed.code == 0).then(|| serde_json::from_str(&printed.stdout).unwrap())
    }

    /// Waits until the status that `name` gives is as `wanted`; prints everything if it never is.
    pub fn wait_status(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let status = self.status(name);
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            if started.elapsed() > PATIENCE {
                panic!("{what} did not come true; the last status was {status:#?}");
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until every node is ready in the eyes of `name`, and has told it of itself.
    pub fn wait_ready(&self, name: &str) {
        let count = self.nodes.len();
        self.wait_status(name, "every node ready", |status| {
            let mut nodes = status["nodes"].as_array().unwrap().iter();
            let is_ready = |node: &Value| node["state"] == "ready" && node["version"].is_string();
            nodes.len() == count && nodes.all(is_ready)
        });
    }
}

/// `plain` with its environment below strace; its arguments are added by the caller.
pub fn below(plain: &Command, point: &strace::Point<'_>) -> Command {
    with_env(plain, strace::strace(plain.get_program(), point))
}

/// `plain` with its environment below strace, which writes what it does on the disk to `trace`; its
/// arguments are added by the caller.
pub fn traced(plain: &Command, trace: &Path) -> Command {
    with_env(plain, synced::traced(plain.get_program(), trace))
}

/// `command` with the environment of `plain`.
fn with_env(plain: &Command, mut command: Command) -> Command {
    for (key, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.stdin(Stdio::null());
    command
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- {}\n{}", node.name, self.log(&node.name));
            }
        }
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // It may be gone already, which is as good.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn printed(command: &mut Command) -> Printed {
    let output = command.output().unwrap();
    Printed {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Looks until there is an answer, or patience ends.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look)
}

/// Looks until there is an answer, at most for so long.
pub fn wait_within<T>(time: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < time, "{what}: not within {time:?}");
        std::thread::sleep(LOOK);
    }
}
