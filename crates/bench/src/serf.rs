//! Serf agents on this machine, and what each of them hears.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, SyncSender},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::process::{Held, free_port, timed, until};

const PATIENCE: Duration = Duration::from_secs(60);
/// Lines that wait to be read: far more than one round makes.
const LINES: usize = 4096;

#[derive(Debug)]
pub struct Serf {
    program: PathBuf,
    rpc: Vec<String>,
    agents: Vec<Held>,
    // Declared before the monitors: who wants to tell something then learns that nobody listens.
    heard: Receiver<Heard>,
    monitors: Vec<Monitor>,
}

/// `serf monitor` of one agent, and the thread that reads what it says.
#[derive(Debug)]
struct Monitor {
    process: Option<Held>,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Ends its output, and with it the thread.
        self.process.take();
        if let Some(reader) = self.reader.take() {
            // It only reads: there is nothing to tell of its end.
            let _ = reader.join();
        }
    }
}

/// A line that the monitor of one agent wrote.
#[derive(Debug)]
struct Heard {
    agent: usize,
    at: Instant,
    line: String,
}

impl Serf {
    /// So many agents that know each other, with Serf's own settings.
    pub fn start(program: PathBuf, count: usize) -> Result<Self> {
        let (tell, heard) = mpsc::sync_channel(LINES);
        let mut serf = Self {
            program,
            rpc: Vec::new(),
            agents: Vec::new(),
            monitors: Vec::new(),
            heard,
        };
        let mut first = None;
        for agent in 0..count {
            let bind = format!("127.0.0.1:{}", free_port()?);
            let rpc = format!("127.0.0.1:{}", free_port()?);
            let mut command = Command::new(&serf.program);
            command.args(["agent", &format!("-node=n{agent}")]);
            command.args([format!("-bind={bind}"), format!("-rpc-addr={rpc}")]);
            command.args(first.iter().map(|first| format!("-join={first}")));
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            serf.agents
                .push(Held(command.spawn().context("cannot start serf")?));
            let program = serf.program.clone();
            until("a serf agent answers", PATIENCE, || {
                members(&program, &rpc).is_ok()
            })?;
            serf.rpc.push(rpc);
            first.get_or_insert(bind);
        }
        until("serf agents know each other", PATIENCE, || {
            let all = |rpc: &String| members(&serf.program, rpc).is_ok_and(|known| known == count);
            serf.rpc.iter().all(all)
        })?;
        for (agent, rpc) in serf.rpc.iter().enumerate() {
            let mut child = Command::new(&serf.program)
                .args(["monitor", &format!("-rpc-addr={rpc}")])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?;
            let output = child.stdout.take().context("its output")?;
            serf.monitors.push(Monitor {
                process: Some(Held(child)),
                reader: Some(listen(agent, output, tell.clone())),
            });
        }
        // A monitor begins with the log so far: what is sent before it listens would be missed.
        serf.event("begin", "")?;
        Ok(serf)
    }

    /// Sends an event from the first agent; says how long it took until all agents had it.
    pub fn event(&self, name: &str, payload: &str) -> Result<Duration> {
        let began = Instant::now();
        let rpc = format!("-rpc-addr={}", self.rpc[0]);
        let mut event = Command::new(&self.program);
        timed(event.args(["event", &rpc, "-coalesce=false", name, payload]))?;
        self.all_hear(&format!("user-event: {name}"), self.rpc.len(), began)
    }

    /// Kills an agent; says how long it took until all others took it for failed.
    pub fn kill_last(&mut self) -> Result<Duration> {
        let began = Instant::now();
        drop(self.agents.pop().context("an agent is left")?);
        self.all_hear("EventMemberFailed: ", self.agents.len(), began)
    }

    fn all_hear(&self, words: &str, count: usize, began: Instant) -> Result<Duration> {
        let mut waiting: Vec<usize> = (0..count).collect();
        let mut last = began;
        while !waiting.is_empty() {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let heard = self.heard.recv_timeout(left);
            let heard = heard.with_context(|| format!("{waiting:?} did not hear {words}"))?;
            if heard.line.contains(words) && heard.at >= began {
                waiting.retain(|agent| *agent != heard.agent);
                last = last.max(heard.at);
            }
        }
        Ok(last - began)
    }
}

/// Ends with the output: when the monitor does.
fn listen(agent: usize, output: ChildStdout, tell: SyncSender<Heard>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let heard = Heard {
                agent,
                at: Instant::now(),
                line,
            };
            if tell.send(heard).is_err() {
                return;
            }
        }
    })
}

fn members(program: &Path, rpc: &str) -> Result<usize> {
    let output = Command::new(program)
        .args(["members", "-status=alive", &format!("-rpc-addr={rpc}")])
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success(), "serf members failed");
    Ok(String::from_utf8_lossy(&output.stdout).lines().count())
}
