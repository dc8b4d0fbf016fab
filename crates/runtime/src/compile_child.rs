//! The process that reads or compiles: confined before it reads a byte, gone after one artifact.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    process::ExitCode,
};

use wasmtime::Engine;

use crate::{Flavour, Kind, engine::base_config, inspect, sandbox};

/// How the child ends, in its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Compiled = 0,
    /// The child was called wrongly.
    Usage = 2,
    Bad = 10,
    Unconfined = 11,
    Memory = 12,
}

impl Outcome {
    pub(crate) fn of(code: Option<i32>) -> Option<Self> {
        let all = [
            Self::Compiled,
            Self::Usage,
            Self::Bad,
            Self::Unconfined,
            Self::Memory,
        ];
        all.into_iter()
            .find(|outcome| Some(*outcome as i32) == code)
    }
}

struct Failure(Outcome, String);

/// How far compiling stands back behind cells and the agent.
const NICENESS: i32 = 10;

/// In the place of a kind: read what the artifact is, and compile nothing.
pub(crate) const FACTS: &str = "facts";
/// Keep what the guest says of its source files.
pub(crate) const DEBUG: &str = "--wasm-debug";

enum Work {
    Facts,
    Compile(Compile),
}

struct Compile {
    flavour: Flavour,
    kind: Kind,
    debug: bool,
}

/// Runs the child. `args` are those after the hidden subcommand. Must be called before the process has any other thread.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let outcome = match run(&args) {
        Ok(()) => Outcome::Compiled,
        Err(Failure(outcome, message)) => {
            // Nobody is left to tell if this fails; the code says enough.
            let _ = writeln!(io::stderr(), "{message}");
            outcome
        }
    };
    ExitCode::from(outcome as u8)
}

fn run(args: &[String]) -> Result<(), Failure> {
    let usage = || {
        Failure(
            Outcome::Usage,
            "usage: FLAVOUR KIND CPU_SECONDS MEMORY_BYTES [--allow-unsandboxed] [--wasm-debug]"
                .into(),
        )
    };
    let [flavour, kind, cpu, memory, flags @ ..] = args else {
        return Err(usage());
    };
    let flavour = match flavour.as_str() {
        "epoch" => Flavour::Epoch,
        "fuel" => Flavour::Fuel,
        _ => return Err(usage()),
    };
    let compile = |kind| {
        Work::Compile(Compile {
            flavour,
            kind,
            debug: flags.iter().any(|flag| flag == DEBUG),
        })
    };
    let work = match kind.as_str() {
        FACTS => Work::Facts,
        "module" => compile(Kind::Module),
        "component" => compile(Kind::Component),
        _ => return Err(usage()),
    };
    let cpu = cpu.parse().map_err(|_| usage())?;
    let memory = memory.parse().map_err(|_| usage())?;
    let allowed = flags.iter().any(|flag| flag == "--allow-unsandboxed");
    follow_parent().map_err(|error| Failure(Outcome::Unconfined, error.to_string()))?;
    confine(cpu, memory, allowed)?;
    if let Some(probe) = flags.iter().find_map(|flag| flag.strip_prefix("--probe=")) {
        return sandbox::probe(probe).map_err(|message| Failure(Outcome::Bad, message));
    }
    work.run()
}

/// Dies with the process that asked for this work, and leaves the processor to whoever is in a hurry.
fn follow_parent() -> io::Result<()> {
    use rustix::process::{Signal, nice, set_parent_process_death_signal};

    set_parent_process_death_signal(Some(Signal::KILL))?;
    nice(NICENESS)?;
    Ok(())
}

fn confine(cpu: u64, memory: u64, allowed: bool) -> Result<(), Failure> {
    match sandbox::enter(cpu, memory) {
        Ok(()) => Ok(()),
        Err(_) if allowed => Ok(()),
        Err(error) => Err(Failure(Outcome::Unconfined, error.to_string())),
    }
}

impl Work {
    fn run(self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure(Outcome::Usage, error.to_string());
        let mut wasm = Vec::new();
        io::stdin().lock().read_to_end(&mut wasm).map_err(failed)?;
        let made = match self {
            Self::Facts => serde_json::to_vec(&inspect::facts(&wasm))
                .map_err(|error| Failure(Outcome::Usage, error.to_string()))?,
            Self::Compile(asked) => compile(&asked, &wasm)?,
        };
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(&made)
            .and_then(|()| stdout.flush())
            .map_err(failed)
    }
}

fn compile(asked: &Compile, wasm: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut config = base_config(asked.flavour, asked.debug);
    config.parallel_compilation(false);
    let engine =
        Engine::new(&config).map_err(|error| Failure(Outcome::Usage, format!("{error:#}")))?;
    let code = match asked.kind {
        Kind::Module => engine.precompile_module(wasm),
        Kind::Component => engine.precompile_component(wasm),
    };
    code.map_err(|error| match format!("{error:#}") {
        text if text.contains("Cannot allocate memory") || text.contains("out of memory") => {
            Failure(Outcome::Memory, text)
        }
        text => Failure(Outcome::Bad, text),
    })
}
