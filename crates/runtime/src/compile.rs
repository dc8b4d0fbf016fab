//! Reads and compiles in a child process: what the bytes do to a parser or the compiler, they do to the child.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

use crate::{
    Flavour, InspectError, Kind, Stage,
    artifact::Artifact,
    compile_child::{self, Outcome},
    inspect::Facts,
    turns::{Turn, Turns},
};

const MIB: u64 = 1024 * 1024;
/// Up to this many bytes of input the plain limits hold; beyond, they grow in proportion.
const PLAIN_INPUT_BYTES: u64 = 16 * MIB;
/// Wall clock, as a multiple of the processor limit: the child may have to share its core.
const WALL_FACTOR: u32 = 4;
/// Compiled code is a few times the size of the input; more than this is not an artifact.
const OUTPUT_FACTOR: u64 = 32;
const OUTPUT_SPARE: u64 = 64 * MIB;
const MESSAGE_BYTES: u64 = 16 * 1024;
/// What a child tells of an artifact: names and types have bounds that stay below.
const FACTS_BYTES: u64 = 64 * MIB;

/// The child that compiles, and its bounds.
#[derive(Debug, Clone)]
pub struct CompilerConfig {
    /// Usually this very binary. The child must call [`crate::compile_child::main`].
    pub child: PathBuf,
    /// Arguments in front of the ones the compiler adds, such as the hidden subcommand.
    pub args: Vec<OsString>,
    /// Compile even where Landlock or seccomp is missing. Off unless the node's owner says so.
    pub allow_unsandboxed: bool,
    pub cpu: Duration,
    pub memory_bytes: u64,
}

impl CompilerConfig {
    const CPU: Duration = Duration::from_secs(120);
    const MEMORY_BYTES: u64 = 2048 * MIB;

    pub fn new(child: PathBuf, args: Vec<OsString>) -> Self {
        Self {
            child,
            args,
            allow_unsandboxed: false,
            cpu: Self::CPU,
            memory_bytes: Self::MEMORY_BYTES,
        }
    }
}

/// Why there is no compiled code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The bytes are at fault: the same ones will fail again.
    #[error("it does not compile: {message}")]
    Bad { message: String },
    #[error(
        "compiling took longer than {0:?}, all that an artifact of its size gets: build it with smaller functions, or fewer"
    )]
    TimedOut(Duration),
    #[error(
        "compiling needs more than {} MiB, all that an artifact of its size gets: build it with smaller functions, or fewer",
        .0 / MIB
    )]
    OutOfMemory(u64),
    #[error("the compiler crashed: {0}")]
    Crashed(String),
    #[error(
        "this machine cannot confine the compiler ({0}); allow it in the node's config if you trust what you push"
    )]
    Unconfined(String),
    #[error("the compiler could not be run")]
    Spawn(#[source] io::Error),
    #[error("the artifact could not be read")]
    Read(#[source] io::Error),
    #[error("the file of the artifact has other bytes than its digest says")]
    Changed,
}

impl CompileError {
    /// Whether trying again (later, with backoff) makes sense.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::TimedOut(_)
                | Self::OutOfMemory(_)
                | Self::Crashed(_)
                | Self::Spawn(_)
                | Self::Read(_)
                | Self::Changed
        )
    }
}

#[derive(Debug)]
pub(crate) struct Compiler {
    config: CompilerConfig,
    wasm_debug: bool,
    turns: Turns,
}

/// Runs the children for one artifact, from the moment on at which it is its turn.
pub(crate) struct Seat<'a> {
    compiler: &'a Compiler,
    artifact: &'a Artifact,
    told: &'a (dyn Fn(Stage) + Send + Sync),
    /// Kept from the first child to the last: an artifact waits once.
    turn: Option<Turn<'a>>,
}

impl Compiler {
    pub(crate) fn new(config: CompilerConfig, wasm_debug: bool) -> Self {
        Self {
            config,
            wasm_debug,
            turns: Turns::default(),
        }
    }

    /// `told` hears of waiting and of compiling, once either is needed.
    pub(crate) fn seat<'a>(
        &'a self,
        artifact: &'a Artifact,
        told: &'a (dyn Fn(Stage) + Send + Sync),
    ) -> Seat<'a> {
        Seat {
            compiler: self,
            artifact,
            told,
            turn: None,
        }
    }
}

impl Seat<'_> {
    /// What the artifact is, told by a child: validating takes memory and time too.
    pub(crate) async fn facts(&mut self) -> Result<Result<Facts, InspectError>, CompileError> {
        let config = &self.compiler.config;
        let task = Task {
            flavour: Flavour::Epoch,
            kind: compile_child::FACTS,
            cpu: config.cpu,
            memory: config.memory_bytes,
            output_max: FACTS_BYTES,
        };
        let told = self.run(task).await?;
        serde_json::from_slice(&told)
            .map_err(|error| CompileError::Crashed(format!("it told nothing readable: {error}")))
    }

    pub(crate) async fn compile(
        &mut self,
        flavour: Flavour,
        kind: Kind,
    ) -> Result<Vec<u8>, CompileError> {
        let (config, size) = (&self.compiler.config, self.artifact.size());
        let scale = size.div_ceil(PLAIN_INPUT_BYTES).max(1);
        let times = u32::try_from(scale).unwrap_or(u32::MAX);
        let task = Task {
            flavour,
            kind: kind.as_str(),
            cpu: config.cpu.saturating_mul(times),
            memory: config.memory_bytes.saturating_mul(scale),
            output_max: size
                .saturating_mul(OUTPUT_FACTOR)
                .saturating_add(OUTPUT_SPARE),
        };
        self.run(task).await
    }

    /// Runs one child to its end. May be dropped midway: the child is killed.
    async fn run(&mut self, task: Task) -> Result<Vec<u8>, CompileError> {
        self.sit_down().await;
        let mut child = self.compiler.spawn(&task).map_err(CompileError::Spawn)?;
        let wall = task.cpu.saturating_mul(WALL_FACTOR);
        let talked = talk(&mut child, self.artifact, task.output_max);
        let (status, made, message) = match tokio::time::timeout(wall, talked).await {
            Ok(talked) => talked?,
            // Dropping the child kills it.
            Err(_) => return Err(CompileError::TimedOut(wall)),
        };
        judge(status, made, message, task.cpu, task.memory)
    }

    async fn sit_down(&mut self) {
        if self.turn.is_some() {
            return;
        }
        let (bytes, told) = (self.artifact.size(), self.told);
        let waits = |ahead| told(Stage::Waiting { ahead });
        self.turn = Some(self.compiler.turns.take(bytes, waits).await);
        told(Stage::Compiling {
            since: SystemTime::now(),
            bytes,
        });
    }
}

impl Compiler {
    fn spawn(&self, task: &Task) -> io::Result<Child> {
        let mut command = Command::new(&self.config.child);
        command
            .args(&self.config.args)
            .args([task.flavour.as_str(), task.kind])
            .arg(task.cpu.as_secs().max(1).to_string())
            .arg(task.memory.to_string());
        if self.config.allow_unsandboxed {
            command.arg("--allow-unsandboxed");
        }
        if self.wasm_debug {
            command.arg(compile_child::DEBUG);
        }
        command
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// One run of the child.
struct Task {
    flavour: Flavour,
    /// What it is, or [`compile_child::FACTS`].
    kind: &'static str,
    cpu: Duration,
    memory: u64,
    output_max: u64,
}

type Talked = (std::process::ExitStatus, Vec<u8>, String);

/// Hands the bytes over and takes the answer, both at once, neither without bound.
async fn talk(
    child: &mut Child,
    artifact: &Artifact,
    output_max: u64,
) -> Result<Talked, CompileError> {
    let missing = || CompileError::Spawn(io::Error::other("the child has no pipe"));
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let answer = async {
        let answer = tokio::try_join!(take(stdout, output_max), take(stderr, MESSAGE_BYTES));
        answer.map_err(CompileError::Spawn)
    };
    let ((), (code, message)) = tokio::try_join!(artifact.feed(stdin), answer)?;
    let status = child.wait().await.map_err(CompileError::Spawn)?;
    Ok((
        status,
        code,
        String::from_utf8_lossy(&message).trim().to_owned(),
    ))
}

/// Reads at most `max`; what is more is left, and the writer meets a closed pipe.
async fn take(pipe: impl AsyncRead + Unpin, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(max).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn judge(
    status: std::process::ExitStatus,
    code: Vec<u8>,
    message: String,
    cpu: Duration,
    memory: u64,
) -> Result<Vec<u8>, CompileError> {
    use rustix::process::Signal;
    if let Some(signal) = status.signal() {
        return Err(
            if signal == Signal::XCPU.as_raw() || signal == Signal::KILL.as_raw() {
                CompileError::TimedOut(cpu)
            } else if message.contains("memory allocation of") {
                CompileError::OutOfMemory(memory)
            } else {
                CompileError::Crashed(format!(
                    "signal {signal}{}{message}",
                    if message.is_empty() { "" } else { ": " }
                ))
            },
        );
    }
    Err(match Outcome::of(status.code()) {
        Some(Outcome::Compiled) => return Ok(code),
        Some(Outcome::Bad) => CompileError::Bad { message },
        Some(Outcome::Memory) => CompileError::OutOfMemory(memory),
        Some(Outcome::Unconfined) => CompileError::Unconfined(message),
        Some(Outcome::Usage) | None => CompileError::Crashed(message),
    })
}
