//! Measures Realm beside programs of others, in one run on one machine: `make bench`.
//!
//! Each benchmark makes its own scene of optimised agents, measures subject and peer in turns, and leaves
//! its raw values in `docs/benchmarks/`; the page `docs/benchmarks.md` is made of these. Nothing here decides
//! whether a change may go in: it reports. Nothing that ships imports this crate.

mod benchmark;
mod figure;
mod machine;
mod page;
mod peers;
mod plot;
mod process;
mod report;
mod scene;
mod serf;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    benchmark::{ALL, Benchmark},
    machine::{Machine, said},
    peers::Peers,
    report::Report,
    scene::Scene,
};

const USAGE: &str = "\
usage: realm-bench [--quick | --long] [--realm PROGRAM] [--out DIR] [NAME...]

Runs all benchmarks, or those that are named, and writes docs/benchmarks.md.
  --quick          3 rounds each, to see that they work
  --long           growth up to 1,000 nodes, which takes more than half an hour of a processor
  --realm PROGRAM  measure this binary instead of the one beside this program
  --out DIR        write the page and the raw values here instead of docs/
  --page           measure nothing: write the page anew from the raw values";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let here = std::env::current_exe()?;
    let built = here.parent().context("this program lies in a directory")?;
    let (mut realm, mut out) = (built.join("realm"), root.join("docs"));
    let (mut quick, mut long, mut names, mut only_page) = (false, false, Vec::new(), false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .with_context(|| format!("{arg} needs a value\n{USAGE}"))
        };
        match arg.as_str() {
            "--quick" => quick = true,
            "--long" => long = true,
            "--page" => only_page = true,
            "--realm" => realm = PathBuf::from(value()?),
            "--out" => out = PathBuf::from(value()?),
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            name if ALL.iter().any(|one| one.name == name) => names.push(arg),
            _ => {
                let known: Vec<&str> = ALL.iter().map(|one| one.name).collect();
                bail!(
                    "there is no benchmark {arg}; there are {}\n{USAGE}",
                    known.join(", ")
                );
            }
        }
    }
    if only_page {
        return page::write(&out);
    }
    ensure!(
        process::is_program(&realm),
        "{} is missing: cargo build --locked --release -p realm",
        realm.display()
    );
    let scene = Scene {
        root,
        out: out.clone(),
        realm: realm.canonicalize()?,
        peers: Peers::new(built.join("../bench-peers")),
        quick,
        long,
    };
    let mut failed = Vec::new();
    for one in ALL
        .iter()
        .filter(|one| names.is_empty() || names.iter().any(|name| name == one.name))
    {
        if let Err(error) = measure(one, &scene, &out) {
            eprintln!("bench: {}: not measured: {error:#}", one.name);
            failed.push(one.name);
        }
        // After each, so that an interrupted run leaves what it found.
        page::write(&out)?;
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

fn measure(one: &Benchmark, scene: &Scene, out: &Path) -> Result<()> {
    let machine = Machine::now(&scene.root, &scene.realm)?;
    scene::say(
        one.name,
        format!("{}; load before {}", one.title, machine.load_before),
    );
    // The test kit says by a panic that a scene did not come about: the other benchmarks go on.
    let measured = catch_unwind(AssertUnwindSafe(|| (one.run)(scene)));
    let Ok(measured) = measured else {
        bail!("its scene did not come about: see above");
    };
    let measured = measured?;
    let version = |(name, program): &(String, PathBuf)| {
        let asked = if name == "nginx" { "-v" } else { "--version" };
        Ok(format!("{name}: {}", said(program, &[asked])?))
    };
    let report = Report {
        benchmark: one.name.into(),
        title: one.title.into(),
        machine,
        versions: measured.peers.iter().map(version).collect::<Result<_>>()?,
        figures: measured.figures,
        notes: measured.notes,
    };
    report.save(&out.join("benchmarks"))?;
    eprintln!("{}", page::table(&report));
    Ok(())
}
