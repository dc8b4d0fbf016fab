//! Chores of the project that need logic: guests, layers, coverage, tidiness, fuzzing.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

mod coverage;
mod fuzz;
mod guests;
mod layers;
mod tidy;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  guests [--check]   build guests/prebuilt, or check its record against the sources
  capnp              generate the Cap'n Proto code again (needs capnp)
  layers             check which crate names which
  coverage           check that every test in docs/coverage.md exists
  tidy               check files, words and habits
  check              all checks
  fuzz [TARGET...]   run the fuzzer, FUZZ_SECONDS (600) for each target
  fuzz-record REALM  add what a realm of that program writes and says to the corpora
  fuzz-merge [...]   make the committed corpora anew of all that was found";

fn main() -> ExitCode {
    if std::env::var_os(fuzz::WRAPPER).is_some() {
        return compile();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// In the compiler's place: its exit code is what cargo looks at.
fn compile() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match fuzz::compile(&args) {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    let root = root()?;
    match args {
        ["guests"] => guests::build(&root),
        ["guests", "--check"] => guests::check(&root),
        ["capnp"] => {
            let mut cargo = Command::new(cargo());
            cargo.args(["run", "--quiet", "-p", "realm-rpc", "--example", "generate"]);
            succeed(cargo.current_dir(&root))
        }
        ["layers"] => layers::check(&root),
        ["coverage"] => coverage::check(&root),
        ["tidy"] => tidy::check(&root),
        ["check"] => {
            guests::check(&root)?;
            layers::check(&root)?;
            coverage::check(&root)?;
            tidy::check(&root)
        }
        ["fuzz", names @ ..] => fuzz::run(&root, names),
        ["fuzz-record", realm] => fuzz::record(&root, realm),
        ["fuzz-merge", names @ ..] => fuzz::merge(&root, names),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("unknown command\n{USAGE}"),
    }
}

/// The project's directory.
fn root() -> Result<PathBuf> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(parent.context("xtask lies in the project")?.to_owned())
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Every file below `dir` with one of the extensions, sorted.
fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        let entries =
            std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    waiting.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|it| extensions.iter().any(|wanted| it == *wanted))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Fails with all problems at once, so that one run is enough to see them.
fn verdict(what: &str, problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{what}:\n  {}", problems.join("\n  "))
}
