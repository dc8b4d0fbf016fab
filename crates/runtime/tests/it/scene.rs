//! A runtime of its own for each test, and guests written as text.

use std::{path::PathBuf, sync::Arc, time::Duration};

use realm_manifest::{Grants, Limits};
use realm_runtime::{
    CellConfig, CellHandle, CompilerConfig, ExitStatus, Flavour, LogRing, PrepareError, Prepared,
    Runtime, RuntimeConfig, Stdio,
};

const CELLS: u32 = 64;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Scene {
    pub runtime: Runtime,
    /// Holds the cache for as long as the runtime needs it.
    _dir: tempfile::TempDir,
}

pub fn child() -> PathBuf {
    env!("CARGO_BIN_EXE_realm-compile-child").into()
}

pub fn scene() -> Scene {
    scene_of(CELLS)
}

/// With room for so many cells.
pub fn scene_of(cells: u32) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    Scene {
        runtime: runtime_of(&dir, cells),
        _dir: dir,
    }
}

pub fn runtime(dir: &tempfile::TempDir) -> Runtime {
    runtime_of(dir, CELLS)
}

fn runtime_of(dir: &tempfile::TempDir, cells: u32) -> Runtime {
    let mut config = RuntimeConfig::new(
        dir.path().into(),
        [7; 32],
        CompilerConfig::new(child(), Vec::new()),
    );
    config.max_cells = cells;
    config.guest_threads = 2;
    Runtime::new(config).unwrap()
}

pub fn wasm(text: &str) -> Arc<[u8]> {
    wat::parse_str(text).unwrap().into()
}

/// A guest as a toolchain built it.
pub fn prebuilt(name: &str) -> Arc<[u8]> {
    let path = format!(
        "{}/../../guests/prebuilt/{name}.wasm",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap().into()
}

impl Scene {
    pub async fn prepare(&self, text: &str, limits: &Limits) -> Result<Prepared, PrepareError> {
        self.runtime.prepare(wasm(text), Flavour::of(limits)).await
    }

    pub async fn start(&self, text: &str, limits: Limits) -> (CellHandle, LogRing) {
        let prepared = self.prepare(text, &limits).await.unwrap();
        let ring = LogRing::new();
        let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
        config.limits = limits;
        (self.runtime.start(&prepared, config).unwrap(), ring)
    }

    /// Runs with grants; the status, and the lines of both streams.
    pub async fn run_granted(&self, wasm: &Arc<[u8]>, grants: Grants) -> (ExitStatus, Vec<String>) {
        let ring = LogRing::new();
        let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
        config.grants = grants;
        let status = self.run_config(wasm, config).await;
        let lines = ring.tail(1000).into_iter().map(|line| line.text).collect();
        (status, lines)
    }

    pub async fn run_config(&self, wasm: &Arc<[u8]>, config: CellConfig) -> ExitStatus {
        let flavour = Flavour::of(&config.limits);
        let prepared = self.runtime.prepare(wasm.clone(), flavour).await.unwrap();
        end(&self.runtime.start(&prepared, config).unwrap()).await
    }

    pub async fn run(&self, text: &str, limits: Limits) -> ExitStatus {
        let (cell, _) = self.start(text, limits).await;
        end(&cell).await
    }
}

pub async fn end(cell: &CellHandle) -> ExitStatus {
    tokio::time::timeout(PATIENCE, cell.wait())
        .await
        .expect("the cell ends")
}

/// Looks until it holds; the bound is only for a broken build.
pub async fn until(mut holds: impl FnMut() -> bool) {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll)
        .await
        .expect("it happens in time");
}

/// Resident memory of this process.
pub fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// The most that it ever was.
pub fn rss_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}
