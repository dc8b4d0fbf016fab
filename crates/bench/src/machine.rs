//! The machine that figures come from.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    /// Mean numbers of processes that ran or wanted to, over 1, 5 and 15 minutes before.
    pub load_before: String,
    pub date: String,
    pub realm: String,
}

impl Machine {
    /// As it is now, with the version of `realm` that lies in `root`.
    pub fn now(root: &Path, realm: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let processors = read("/proc/cpuinfo")?;
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo")?, "MemTotal").unwrap_or_default();
        let kib = memory
            .split(' ')
            .next()
            .and_then(|kib| kib.parse::<u64>().ok());
        let load = read("/proc/loadavg")?;
        Ok(Self {
            processor: field(&processors, "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: kib.context("/proc/meminfo tells no MemTotal")? / 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().into(),
            load_before: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%d %H:%M UTC")
                .to_string(),
            realm: format!("{}, {}", said(realm, &["--version"])?, commit(root)),
        })
    }
}

/// What a program prints of itself: its first line.
pub fn said(program: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The revision that was built, and whether files were changed since.
fn commit(root: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .current_dir(root)
            .args(args)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "revision unknown".into();
    };
    // What earlier benchmarks wrote is no change of what is measured.
    let changed = git(&["status", "--porcelain", "--", ":!docs/benchmarks*"]);
    match changed.is_some_and(|changed| !changed.is_empty()) {
        true => format!("{commit} with changes"),
        false => commit,
    }
}
