//! Builds the fuzzer and lets it run, target by target: `make fuzz`.
//!
//! Everything but this project's crates and what they read bytes with is taken as the tests built it:
//! `cargo` calls this program in the compiler's place, which tells those crates to count what they
//! run through. They have settings of their own, so that they do not mix with those of the tests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{cargo, succeed};

/// Says that this program is called in the compiler's place.
pub const WRAPPER: &str = "REALM_XTASK_COMPILES";

/// Every target, and the most bytes of its inputs: longer ones find nothing more, and each takes longer.
/// A test compares the names with those of `crates/fuzzing`.
const TARGETS: [(&str, usize); 10] = [
    ("config", 8 * 1024),
    ("frames", 32 * 1024),
    ("gossip", 16 * 1024),
    ("inspection", 64 * 1024),
    ("intents", 16 * 1024),
    ("logs", 32 * 1024),
    ("sessions", 32 * 1024),
    ("state", 16 * 1024),
    ("texts", 2 * 1024),
    ("tokens", 8 * 1024),
];

/// Seconds for each target where `FUZZ_SECONDS` says nothing.
const SECONDS: u64 = 600;
/// Targets at once; each needs a processor, and memory up to the next bound.
const JOBS: usize = 2;
/// MiB that a target may take; what one input may ask for at once is bounded by its program.
const RSS_LIMIT_MB: u32 = 1024;
/// Seconds that one input may take. Most take less than a millisecond; machines of CI are slow and shared.
const TIMEOUT_SECONDS: u32 = 10;
/// A larger input that was found is not committed: most of what it reaches others do too. What was
/// recorded may be larger.
const MAX_KEPT_BYTES: u64 = 2 * 1024;
/// Lines of the fuzzer's log that are shown when it ends early: the panic with its stack.
const SHOWN_LINES: usize = 60;

/// Packages that count what they run through: those whose readers of bytes are asked.
const INSTRUMENTED: &[&str] = &[
    "bech32",
    "bytesize",
    "capnp",
    "capnp-futures",
    "capnp-rpc",
    "foca",
    "humantime",
    "minicbor",
    "realm",
    "realm-agent",
    "realm-fuzzing",
    "realm-identity",
    "realm-manifest",
    "realm-p2p",
    "realm-planner",
    "realm-protocol",
    "realm-rpc",
    "realm-runtime",
    "realm-store",
    "redb",
    "ssh-encoding",
    "ssh-key",
    "toml",
    "toml_parser",
    "winnow",
];

/// Those of which little is run here and much would have to be optimised.
const LARGE: &[&str] = &["realm", "realm-agent", "realm-p2p", "realm-runtime"];

/// What makes the compiler count, and compare what is compared: stable flags of a stable compiler.
const FLAGS: &[&str] = &[
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Calls the compiler, `args[0]`, as cargo would have, with the flags where they belong.
pub fn compile(args: &[OsString]) -> Result<ExitStatus> {
    let (compiler, args) = args.split_first().context("no compiler is named")?;
    let mut command = Command::new(compiler);
    command.args(args);
    let told: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let name = told
        .iter()
        .position(|arg| arg == "--crate-name")
        .and_then(|at| told.get(at + 1));
    if name.is_some_and(|name| is_instrumented(name)) {
        command.args(FLAGS);
    }
    let status = command.status();
    status.with_context(|| format!("cannot start {}", compiler.display()))
}

fn is_instrumented(crate_name: &str) -> bool {
    crate_name == "realm_fuzz"
        || INSTRUMENTED
            .iter()
            .any(|package| package.replace('-', "_") == crate_name)
}

/// Runs the named targets, or all of them.
pub fn run(root: &Path, names: &[&str]) -> Result<()> {
    let seconds = match std::env::var("FUZZ_SECONDS") {
        Ok(text) => text.parse().context("FUZZ_SECONDS is not a number")?,
        Err(_) => SECONDS,
    };
    let names = chosen(names)?;
    let fuzzer = Fuzzer::build(root)?;
    let jobs = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(JOBS));
    let mut waiting = names.into_iter();
    let mut running: Vec<(&str, Child)> = Vec::new();
    loop {
        while running.len() < jobs
            && let Some(name) = waiting.next()
        {
            running.push((name, fuzzer.start(name, seconds)?));
        }
        let Some(ended) = wait_for_any(&mut running)? else {
            return Ok(());
        };
        let (name, status) = ended;
        println!("{}", fuzzer.summary(name)?);
        if !status.success() {
            for (_, child) in &mut running {
                child.kill().context("cannot stop another target")?;
                child.wait()?;
            }
            bail!("{}", fuzzer.advice(name)?);
        }
        if Reached::of(&fuzzer.said(name)?).is_none_or(|reached| reached.edges[0] == 0) {
            bail!(
                "{name} saw nothing of the code that it ran: it was built without instrumentation"
            );
        }
    }
}

/// Replaces the committed corpora by the smallest ones that reach as much: what was found meanwhile
/// comes in, what adds nothing goes.
pub fn merge(root: &Path, names: &[&str]) -> Result<()> {
    let names = chosen(names)?;
    let fuzzer = Fuzzer::build(root)?;
    for name in names {
        let kept = fuzzer.corpus(name);
        let new = fuzzer.work.join("new");
        empty(&new)?;
        let mut command = fuzzer.command(name);
        // By edges alone: how often each was passed is what the next campaign finds again by itself.
        command
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .arg(&new);
        std::fs::create_dir_all(&kept)?;
        let small = fuzzer.small(name)?;
        succeed(command.arg(&kept).arg(&small))?;
        empty(&kept)?;
        for entry in std::fs::read_dir(&new)? {
            let entry = entry?;
            std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Makes the directory, with nothing in it: a run that was ended may have left something.
fn empty(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Adds what a real realm writes and says to the corpora. `realm` is the program to record.
pub fn record(root: &Path, realm: &str) -> Result<()> {
    let fuzzer = Fuzzer::build(root)?;
    let realm = std::fs::canonicalize(realm).with_context(|| format!("there is no {realm}"))?;
    let corpora = root.join("crates/fuzzing/corpus");
    let asked = format!("{}\n{}", realm.display(), corpora.display());
    succeed(Command::new(&fuzzer.program).env("REALM_FUZZ_RECORD", asked))
}

fn chosen<'n>(names: &[&'n str]) -> Result<Vec<&'n str>> {
    let all = TARGETS.map(|(name, _)| name);
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("no target {unknown}; there are {}", all.join(", "));
    }
    Ok(match names {
        [] => all.to_vec(),
        names => names.to_vec(),
    })
}

/// The program and where it keeps things.
struct Fuzzer {
    program: PathBuf,
    /// Inputs and logs of this machine.
    work: PathBuf,
    root: PathBuf,
}

impl Fuzzer {
    fn build(root: &Path) -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR");
        let target = target.map_or_else(|| root.join("target"), PathBuf::from);
        let mut build = Command::new(cargo());
        build.current_dir(root);
        build.args(["build", "--locked", "--workspace", "--bin", "realm-fuzz"]);
        build.args(["--features", "realm-fuzzing/libfuzzer"]);
        for package in INSTRUMENTED {
            let setting = match LARGE.contains(package) {
                true => "codegen-units=1",
                false => "opt-level=2",
            };
            let setting = format!("profile.dev.package.{package}.{setting}");
            build.args(["--config", &setting]);
        }
        // What `cargo xtask` says of xtask is none of their business, and some look at it.
        for (name, _) in std::env::vars_os() {
            let told = name.to_string_lossy();
            if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        // Not by the variable: scripts that build C look at that, and everything would be built anew.
        let wrapper = toml::Value::from(std::env::current_exe()?.display().to_string());
        let wrapper = format!("build.rustc-wrapper={wrapper}");
        build
            .args(["--config", &wrapper])
            // Another wrapper would win, and nothing be instrumented.
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env(WRAPPER, "1");
        succeed(&mut build)?;
        let work = target.join("fuzz");
        std::fs::create_dir_all(&work)?;
        Ok(Self {
            program: target.join("debug/realm-fuzz"),
            work,
            root: root.to_owned(),
        })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("REALM_FUZZ_TARGET", name);
        let longest = TARGETS.iter().find(|(target, _)| *target == name);
        command.args([
            format!("-max_len={}", longest.map_or(0, |(_, bytes)| *bytes)),
            format!("-rss_limit_mb={RSS_LIMIT_MB}"),
            format!("-timeout={TIMEOUT_SECONDS}"),
            format!("-artifact_prefix={}/{name}-", self.work.display()),
        ]);
        command
    }

    fn start(&self, name: &str, seconds: u64) -> Result<Child> {
        let log = std::fs::File::create(self.log(name))?;
        let mut command = self.command(name);
        command.arg(format!("-max_total_time={seconds}"));
        command.args(["-print_final_stats=1", "-use_value_profile=1"]);
        // What is found goes to the first one; the others are only read.
        let mut dirs = vec![self.found(name), self.corpus(name), self.regressions(name)];
        if name == "inspection" {
            dirs.push(self.root.join("guests/prebuilt"));
        }
        for dir in dirs {
            std::fs::create_dir_all(&dir)?;
            command.arg(dir);
        }
        command.stdout(log.try_clone()?).stderr(log);
        command.stdin(Stdio::null());
        println!("{name}: {seconds} s");
        command.spawn().context("cannot start the fuzzer")
    }

    fn found(&self, name: &str) -> PathBuf {
        self.work.join("corpus").join(name)
    }

    /// A copy of what was found, without what is too large to be committed.
    fn small(&self, name: &str) -> Result<PathBuf> {
        let (found, small) = (self.found(name), self.work.join("small"));
        std::fs::create_dir_all(&found)?;
        empty(&small)?;
        for entry in std::fs::read_dir(&found)? {
            let entry = entry?;
            if entry.metadata()?.len() <= MAX_KEPT_BYTES {
                std::fs::copy(entry.path(), small.join(entry.file_name()))?;
            }
        }
        Ok(small)
    }

    fn corpus(&self, name: &str) -> PathBuf {
        self.root.join("crates/fuzzing/corpus").join(name)
    }

    fn regressions(&self, name: &str) -> PathBuf {
        self.root.join("crates/fuzzing/regressions").join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    fn said(&self, name: &str) -> Result<String> {
        let path = self.log(name);
        let said =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    fn summary(&self, name: &str) -> Result<String> {
        let said = self.said(name)?;
        Ok(match Reached::of(&said) {
            Some(reached) => format!("{name}: {reached}"),
            None => format!("{name}: ended at what was there before"),
        })
    }

    /// What broke, with everything that is needed to see it again elsewhere.
    fn advice(&self, name: &str) -> Result<String> {
        let said = self.said(name)?;
        let lines: Vec<&str> = said.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        let written = lines
            .iter()
            .rfind(|line| line.contains("Test unit written"));
        let Some(input) = written.and_then(|line| line.split_whitespace().last()) else {
            return Ok(format!("{shown}\n{name} ended early and kept no input"));
        };
        let bytes = std::fs::read(input).with_context(|| format!("cannot read {input}"))?;
        let kept = self.regressions(name).join("WHAT-IT-BROKE");
        Ok(format!(
            "{shown}\n\n\
             {name} broke with {input}\n\
             in hexadecimal: {}\n\
             make it a test: cp {input} {}\n\
             see it fail:    cargo test -p realm-fuzzing {name}",
            hex::encode(bytes),
            kept.display()
        ))
    }
}

/// What one run of a target reached, as its last lines tell.
#[derive(Debug, PartialEq, Eq)]
struct Reached {
    /// Edges of the corpora, and with what was found.
    edges: [u64; 2],
    found: u64,
    inputs: u64,
    per_second: u64,
    peak_mb: u64,
}

impl Reached {
    fn of(said: &str) -> Option<Self> {
        let behind = |line: &str, word: &str| {
            let rest = line.split_once(word)?.1;
            rest.split_whitespace().next()?.parse().ok()
        };
        let edges = |line: &str| behind(line, " cov: ");
        let last = |word: &str| {
            let line = said.lines().rfind(|line| line.starts_with(word))?;
            behind(line, word)
        };
        Some(Self {
            edges: [
                edges(said.lines().find(|line| line.contains("INITED"))?)?,
                said.lines().filter_map(edges).max()?,
            ],
            found: last("stat::new_units_added:")?,
            inputs: last("stat::number_of_executed_units:")?,
            per_second: last("stat::average_exec_per_sec:")?,
            peak_mb: last("stat::peak_rss_mb:")?,
        })
    }
}

impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [before, after] = self.edges;
        write!(
            f,
            "{} inputs ({} a second), edges {before} -> {after}, {} inputs found, at most {} MiB",
            self.inputs, self.per_second, self.found, self.peak_mb
        )
    }
}

/// The next of them that ends.
fn wait_for_any<'n>(running: &mut Vec<(&'n str, Child)>) -> Result<Option<(&'n str, ExitStatus)>> {
    const LOOK: Duration = Duration::from_millis(200);
    while !running.is_empty() {
        for at in 0..running.len() {
            if let Some(status) = running[at].1.try_wait()? {
                let (name, _) = running.swap_remove(at);
                return Ok(Some((name, status)));
            }
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_are_those_of_the_crate() -> Result<()> {
        let source = crate::read(&crate::root()?.join("crates/fuzzing/src/lib.rs"))?;
        let table = source
            .split_once("pub const TARGETS")
            .context("no table of targets")?
            .1;
        let names: Vec<&str> = table
            .split("name: \"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert_eq!(names, TARGETS.map(|(name, _)| name));
        Ok(())
    }

    #[test]
    fn what_was_reached_is_told() {
        let said = "#2 INITED cov: 12 ft: 20 corp: 3/9b exec/s: 0 rss: 40Mb\n\
                    #9 NEW    cov: 15 ft: 30 corp: 4/9b exec/s: 0 rss: 40Mb\n\
                    stat::number_of_executed_units: 9\n\
                    stat::average_exec_per_sec:     4\n\
                    stat::new_units_added:          1\n\
                    stat::peak_rss_mb:              41\n";
        let reached = Reached::of(said).map(|reached| reached.to_string());
        let told = "9 inputs (4 a second), edges 12 -> 15, 1 inputs found, at most 41 MiB";
        assert_eq!(reached.as_deref(), Some(told));
        assert_eq!(Reached::of("it broke"), None);
    }

    #[test]
    fn only_what_reads_bytes_is_instrumented() {
        assert!(is_instrumented("realm_fuzz") && is_instrumented("capnp_rpc"));
        assert!(!is_instrumented("libp2p") && !is_instrumented("build_script_build"));
    }
}
