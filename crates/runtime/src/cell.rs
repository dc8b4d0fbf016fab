//! One running instance of an artifact, as its holder sees it.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use realm_manifest::{Grants, Limits, VolumeMode};
use tokio::sync::watch;

use crate::{ExitStatus, Limit, Stdio, guest::Shared};

/// What a cell is started with.
#[derive(Debug, Clone)]
pub struct CellConfig {
    /// The program's name: its first argument, and its name in messages.
    pub name: String,
    pub limits: Limits,
    /// `volumes` of the grants are for the caller, who resolves them to `mounts`.
    pub grants: Grants,
    pub stdio: Stdio,
    pub mounts: Vec<Mount>,
}

impl CellConfig {
    pub fn new(name: impl Into<String>, stdio: Stdio) -> Self {
        Self {
            name: name.into(),
            limits: Limits::default(),
            grants: Grants::default(),
            stdio,
            mounts: Vec::new(),
        }
    }
}

/// A directory of the host that a cell may open, already resolved and allowed.
#[derive(Debug, Clone)]
pub struct Mount {
    pub host: PathBuf,
    pub guest: String,
    pub mode: VolumeMode,
}

/// Why a cell did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a library has no entry point to start; it exports {}", .exports.join(", "))]
    Library { exports: Vec<String> },
    #[error("the limits ask for fuel counting, but the artifact was prepared without")]
    Flavour,
    #[error("grant `{grant}` is not supported by this version of realm")]
    Unsupported { grant: &'static str },
    #[error("volume {guest} could not be opened at {}", .host.display())]
    Mount {
        guest: String,
        host: PathBuf,
        #[source]
        source: anyhow::Error,
    },
    #[error("the node runs {max} cells already")]
    Full { max: u32 },
    #[error("the runtime is stopping")]
    Stopping,
}

/// Holds a cell. Dropping the handle kills the cell.
#[derive(Debug)]
pub struct CellHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) exit: watch::Receiver<Option<ExitStatus>>,
}

impl CellHandle {
    /// Ends the cell and waits, for at most `grace`, until its memory is free. WASI has no signal that would ask a
    /// guest to end by itself. May be dropped midway; the cell ends anyway.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.kill();
        tokio::time::timeout(grace, self.wait())
            .await
            .unwrap_or(ExitStatus::Killed)
    }

    /// Ends the cell now; [`CellHandle::wait`] tells when it is gone.
    pub fn kill(&self) {
        self.shared.kill();
    }

    /// Waits for the end; the cell's memory is free when this returns. May be dropped midway and called again.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await;
        match ended.map(|status| status.clone()) {
            Ok(Some(status)) => status,
            // The task is gone without a word: the runtime was dropped.
            Ok(None) | Err(_) => ExitStatus::Killed,
        }
    }

    /// The status if the cell has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.exit.borrow().clone()
    }

    pub fn stats(&self) -> CellStats {
        self.shared.stats()
    }
}

impl Drop for CellHandle {
    fn drop(&mut self) {
        self.shared.kill();
    }
}

/// What a cell has used so far.
#[derive(Debug, Clone)]
pub struct CellStats {
    pub started_at: SystemTime,
    /// Linear memories and tables now; 0 once the cell has ended.
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub memory_max_bytes: u64,
    /// Counted only with a fuel limit.
    pub fuel_used: Option<u64>,
    /// How long its code was being executed.
    pub busy: Duration,
    /// Slices (`epoch_ms`) that the cell used to the end.
    pub preemptions: u64,
    /// Whether it runs in the pool of lower priority now.
    pub demoted: bool,
    pub output_bytes: u64,
    /// How often each limit was met.
    pub limit_hits: Vec<(Limit, u64)>,
}
