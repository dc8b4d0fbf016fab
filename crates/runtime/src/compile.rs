//! Reads and compiles in a child process: what the bytes do to a parser or the compiler, they do to the child.

use std::{
    ffi::OsString, io, os::unix::process::ExitStatusExt, path::PathBuf, process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
};

use crate::{
    Flavour, InspectError, Kind,
    compile_child::{self, Outcome},
    inspect::Facts,
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
/// Compiling takes a core and up to the memory limit each.
const AT_ONCE: usize = 2;

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
    #[error("compiling took longer than {0:?}")]
    TimedOut(Duration),
    #[error("compiling needs more than {} MiB", .0 / MIB)]
    OutOfMemory(u64),
    #[error("the compiler crashed: {0}")]
    Crashed(String),
    #[error(
        "this machine cannot confine the compiler ({0}); allow it in the node's config if you trust what you push"
    )]
    Unconfined(String),
    #[error("the compiler could not be run")]
    Spawn(#[source] io::Error),
}

impl CompileError {
    /// Whether trying again (later, with backoff) makes sense.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::TimedOut(_) | Self::OutOfMemory(_) | Self::Crashed(_) | Self::Spawn(_)
        )
    }
}

pub(crate) struct Job<'a> {
    pub(crate) wasm: &'a [u8],
    pub(crate) flavour: Flavour,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) struct Compiler {
    config: CompilerConfig,
    turns: Semaphore,
}

impl Compiler {
    pub(crate) const fn new(config: CompilerConfig) -> Self {
        Self {
            config,
            turns: Semaphore::const_new(AT_ONCE),
        }
    }

    /// What the artifact is, told by a child: validating takes memory and time too.
    pub(crate) async fn facts(
        &self,
        wasm: &[u8],
    ) -> Result<Result<Facts, InspectError>, CompileError> {
        let told = self
            .run(Task {
                wasm,
                flavour: Flavour::Epoch,
                kind: compile_child::FACTS,
                cpu: self.config.cpu,
                memory: self.config.memory_bytes,
                output_max: FACTS_BYTES,
            })
            .await?;
        serde_json::from_slice(&told)
            .map_err(|error| CompileError::Crashed(format!("it told nothing readable: {error}")))
    }

    pub(crate) async fn compile(&self, job: Job<'_>) -> Result<Vec<u8>, CompileError> {
        let size = job.wasm.len() as u64;
        let scale = size.div_ceil(PLAIN_INPUT_BYTES).max(1);
        self.run(Task {
            wasm: job.wasm,
            flavour: job.flavour,
            kind: job.kind.as_str(),
            cpu: self
                .config
                .cpu
                .saturating_mul(u32::try_from(scale).unwrap_or(u32::MAX)),
            memory: self.config.memory_bytes.saturating_mul(scale),
            output_max: size
                .saturating_mul(OUTPUT_FACTOR)
                .saturating_add(OUTPUT_SPARE),
        })
        .await
    }

    /// Runs one child to its end. May be dropped midway: the child is killed.
    async fn run(&self, task: Task<'_>) -> Result<Vec<u8>, CompileError> {
        // The semaphore is never closed.
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| CompileError::Crashed("the runtime is stopping".into()))?;
        let mut child = self.spawn(&task).map_err(CompileError::Spawn)?;
        let wall = task.cpu.saturating_mul(WALL_FACTOR);
        let talked = talk(&mut child, task.wasm, task.output_max);
        let (status, made, message) = match tokio::time::timeout(wall, talked).await {
            Ok(talked) => talked.map_err(CompileError::Spawn)?,
            // Dropping the child kills it.
            Err(_) => return Err(CompileError::TimedOut(wall)),
        };
        judge(status, made, message, task.cpu, task.memory)
    }

    fn spawn(&self, task: &Task<'_>) -> io::Result<Child> {
        let mut command = Command::new(&self.config.child);
        command
            .args(&self.config.args)
            .args([task.flavour.as_str(), task.kind])
            .arg(task.cpu.as_secs().max(1).to_string())
            .arg(task.memory.to_string());
        if self.config.allow_unsandboxed {
            command.arg("--allow-unsandboxed");
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
struct Task<'a> {
    wasm: &'a [u8],
    flavour: Flavour,
    /// What it is, or [`compile_child::FACTS`].
    kind: &'static str,
    cpu: Duration,
    memory: u64,
    output_max: u64,
}

type Talked = (std::process::ExitStatus, Vec<u8>, String);

/// Hands the bytes over and takes the answer, both at once, neither without bound.
async fn talk(child: &mut Child, wasm: &[u8], output_max: u64) -> io::Result<Talked> {
    let missing = || io::Error::other("the child has no pipe");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let give = async {
        // A child that refuses early closes its end: its answer says why.
        let _ = stdin.write_all(wasm).await;
        drop(stdin);
        Ok::<_, io::Error>(())
    };
    let ((), code, message) =
        tokio::try_join!(give, take(stdout, output_max), take(stderr, MESSAGE_BYTES))?;
    let status = child.wait().await?;
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
