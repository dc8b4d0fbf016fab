//! From compiled code on disk to the first output of a guest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use realm_identity::Artifact;
use realm_runtime::{
    CellConfig, CompilerConfig, ExitStatus, Flavour, LogRing, Runtime, RuntimeConfig, Stdio,
};

use crate::{
    figure::{Bound, Figure},
    process::{first_output, millis, timed},
    report::Measured,
    scene::{Scene, say},
};

const ROUNDS: usize = 100;
/// Compiling takes longer.
const ROUNDS_COLD: usize = 15;

pub fn run(scene: &Scene) -> Result<Measured> {
    let wasmtime = scene.peers.wasmtime()?;
    let dir = tempfile::tempdir()?;
    let guest = scene.guest("hello.wasm");
    let compiled = dir.path().join("hello.cwasm");
    timed(
        Command::new(&wasmtime)
            .args(["compile", "-C", "cache=n"])
            .arg(&guest)
            .arg("-o")
            .arg(&compiled),
    )?;
    let precompiled = || {
        let mut run = Command::new(&wasmtime);
        run.args(["run", "--allow-precompiled"]).arg(&compiled);
        run
    };
    let (mut agent, mut process) = (Vec::new(), Vec::new());
    let node = Node::start(scene, dir.path(), &guest)?;
    for _ in 0..scene.rounds(ROUNDS) {
        agent.push(millis(node.first_line()?));
        process.push(millis(first_output(&mut precompiled())?));
    }
    drop(node);
    say("cold", "realm run, warm");
    let programs = Programs {
        scene,
        wasmtime: &wasmtime,
        dir: dir.path(),
        guest: &guest,
    };
    let (warm, warm_peer) = programs.compare(scene.rounds(ROUNDS), false)?;
    say("cold", "realm run, cold");
    let (cold, cold_peer) = programs.compare(scene.rounds(ROUNDS_COLD), true)?;
    let in_agent =
        "Runtime::prepare_file + Runtime::start in a running process, until LogRing has a line";
    Ok(Measured {
        figures: vec![
            Figure::new("in a running agent, code not loaded", "ms", in_agent, agent)
                .beside(
                    "wasmtime as a process",
                    "wasmtime run --allow-precompiled hello.cwasm",
                    process,
                )
                .should(Bound::RatioAtMost(0.2), Bound::RatioAtMost(0.05)),
            Figure::new(
                "`realm run`, cache warm",
                "ms",
                "realm run hello.wasm",
                warm,
            )
            .beside(
                "wasmtime run, cache warm",
                "wasmtime run -C cache=y hello.wasm",
                warm_peer,
            ),
            Figure::new(
                "`realm run`, cache cold",
                "ms",
                "realm run hello.wasm, its cache emptied",
                cold,
            )
            .beside(
                "wasmtime run without cache",
                "wasmtime run -C cache=n hello.wasm",
                cold_peer,
            ),
        ],
        notes: vec![format!(
            "The program is `guests/prebuilt/hello.wasm`, {} bytes. In an agent, code that no cell uses is dropped; each round checks the cache's MAC, maps the code, links, instantiates and runs until the line is in the log. `realm run` compiles in a confined child process that it starts twice, once to read what the program is.",
            fs::metadata(&guest)?.len()
        )],
        peers: vec![("wasmtime".into(), wasmtime)],
    })
}

/// The part of an agent that runs cells.
struct Node {
    executor: tokio::runtime::Runtime,
    runtime: Runtime,
    file: PathBuf,
    digest: [u8; 32],
}

impl Node {
    fn start(scene: &Scene, dir: &Path, guest: &Path) -> Result<Self> {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let compiler = CompilerConfig::new(scene.realm.clone(), vec!["__compile".into()]);
        let runtime = {
            let _inside = executor.enter();
            Runtime::new(RuntimeConfig::new(dir.join("cache"), [7; 32], compiler))?
        };
        let wasm = fs::read(guest).with_context(|| guest.display().to_string())?;
        let node = Self {
            digest: *Artifact::of(&wasm).sha256.as_bytes(),
            file: guest.to_owned(),
            executor,
            runtime,
        };
        // Compiled once: from here on the code is on disk.
        node.first_line()?;
        Ok(node)
    }

    /// The code is loaded for this and dropped afterwards, as that of a cell that is alone in using it.
    fn first_line(&self) -> Result<Duration> {
        self.executor.block_on(async {
            let began = Instant::now();
            let prepared =
                self.runtime
                    .prepare_file(self.file.clone(), self.digest, Flavour::Epoch, |_| {});
            let prepared = prepared.await?;
            let ring = LogRing::new();
            let cell = self.runtime.start(
                &prepared,
                CellConfig::new("hello", Stdio::Log(ring.clone())),
            )?;
            let lines = ring.follow(0).next(1).await;
            let took = began.elapsed();
            let said = lines.context("it wrote nothing")?;
            ensure!(said[0].text == "hello", "it said {:?}", said[0].text);
            ensure!(cell.wait().await == ExitStatus::Exited(0), "it failed");
            Ok(took)
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.executor.block_on(self.runtime.shutdown());
    }
}

/// Both command lines.
struct Programs<'a> {
    scene: &'a Scene,
    wasmtime: &'a Path,
    dir: &'a Path,
    guest: &'a Path,
}

impl Programs<'_> {
    /// Times until the first output of `realm run` and of `wasmtime run`.
    fn compare(&self, rounds: usize, cold: bool) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        if !cold {
            first_output(&mut self.realm())?;
            first_output(&mut self.wasmtime(cold)?)?;
        }
        for _ in 0..rounds {
            if cold {
                // The key stays: it is made once for a person.
                let kept = self.dir.join("state/compiled");
                if kept.exists() {
                    fs::remove_dir_all(kept)?;
                }
            }
            own.push(millis(first_output(&mut self.realm())?));
            other.push(millis(first_output(&mut self.wasmtime(cold)?)?));
        }
        Ok((own, other))
    }

    fn realm(&self) -> Command {
        let mut run = Command::new(&self.scene.realm);
        run.env("HOME", self.dir)
            .env("REALM_STATE_DIR", self.dir.join("state"));
        run.env("REALM_CONFIG_DIR", self.dir.join("config"))
            .arg("run")
            .arg(self.guest);
        run
    }

    fn wasmtime(&self, cold: bool) -> Result<Command> {
        let mut run = Command::new(self.wasmtime);
        run.env("HOME", self.dir).args(["run", "-C"]);
        run.arg(if cold { "cache=n" } else { "cache=y" });
        if !cold {
            let config = self.dir.join("wasmtime.toml");
            fs::write(
                &config,
                format!(
                    "[cache]\ndirectory = {:?}\n",
                    self.dir.join("wasmtime-cache")
                ),
            )?;
            run.arg("-C")
                .arg(format!("cache-config={}", config.display()));
        }
        run.arg(self.guest);
        Ok(run)
    }
}
