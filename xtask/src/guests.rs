//! Builds the guests and keeps a record of what they were built from.
//!
//! The results are committed, so that building Realm needs no WebAssembly target. The
//! record lets a test say, without such a target, that they belong to the sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{cargo, files, read, succeed, verdict};

const WASIP1: &str = "wasm32-wasip1";
const WASIP2: &str = "wasm32-wasip2";
const TARGETS: [&str; 2] = [WASIP2, WASIP1];

#[derive(Debug, Deserialize, Serialize)]
struct Record {
    /// The compiler, as it names itself.
    toolchain: String,
    guest: BTreeMap<String, Built>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
struct Built {
    wasm: String,
    sources: String,
}

/// One file of `prebuilt/`: a package built for one target.
#[derive(Debug)]
struct Guest {
    package: String,
    target: &'static str,
    library: bool,
}

impl Guest {
    fn file(&self) -> String {
        match self.target {
            WASIP1 => format!("{}.p1.wasm", self.package),
            _ => format!("{}.wasm", self.package),
        }
    }

    /// The name that Cargo gives the artifact.
    fn artifact(&self) -> String {
        match self.library {
            true => format!("{}.wasm", self.package.replace('-', "_")),
            false => format!("{}.wasm", self.package),
        }
    }
}

pub fn build(root: &Path) -> Result<()> {
    let dir = root.join("guests");
    let target_dir = root.join("target/guests");
    let guests = list(&dir)?;
    let compiler = compiler(root)?;
    for target in TARGETS {
        let mut cargo = Command::new(cargo());
        cargo
            .current_dir(&dir)
            .args(["build", "--release", "--locked", "--target", target])
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("RUSTFLAGS", remap(&dir)?);
        if let Compiler::At(rustc) = &compiler {
            cargo.env("RUSTC", rustc);
        }
        for guest in guests.iter().filter(|guest| guest.target == target) {
            cargo.args(["-p", &guest.package]);
        }
        succeed(&mut cargo)?;
    }
    let prebuilt = dir.join("prebuilt");
    std::fs::create_dir_all(&prebuilt)?;
    let mut record = Record {
        toolchain: version(&compiler)?,
        guest: BTreeMap::new(),
    };
    for guest in &guests {
        let from = target_dir
            .join(guest.target)
            .join("release")
            .join(guest.artifact());
        let bytes =
            std::fs::read(&from).with_context(|| format!("{} was not built", from.display()))?;
        std::fs::write(prebuilt.join(guest.file()), &bytes)?;
        let built = Built {
            wasm: hex::encode(Sha256::digest(&bytes)),
            sources: sources(&dir, guest, &record.toolchain)?,
        };
        println!("{:8} {}", bytes.len(), guest.file());
        record.guest.insert(guest.file(), built);
    }
    let text = toml::to_string(&record).context("cannot write the record")?;
    std::fs::write(prebuilt.join("RECORD.toml"), text)?;
    Ok(())
}

/// Compares the committed files with the record, and the record with the sources.
pub fn check(root: &Path) -> Result<()> {
    let dir = root.join("guests");
    let prebuilt = dir.join("prebuilt");
    let record: Record = toml::from_str(&read(&prebuilt.join("RECORD.toml"))?)
        .context("guests/prebuilt/RECORD.toml is not a record")?;
    let mut problems = Vec::new();
    let mut known = BTreeMap::new();
    for guest in list(&dir)? {
        known.insert(guest.file(), ());
        let Some(built) = record.guest.get(&guest.file()) else {
            problems.push(format!("{} is not in the record", guest.file()));
            continue;
        };
        let now = sources(&dir, &guest, &record.toolchain)?;
        if built.sources != now {
            problems.push(format!("{} is older than its sources", guest.file()));
        }
        match std::fs::read(prebuilt.join(guest.file())) {
            Ok(bytes) if hex::encode(Sha256::digest(&bytes)) == built.wasm => {}
            Ok(_) => problems.push(format!("{} is not what was recorded", guest.file())),
            Err(error) => problems.push(format!("{}: {error}", guest.file())),
        }
    }
    for file in record
        .guest
        .keys()
        .filter(|file| !known.contains_key(*file))
    {
        problems.push(format!("{file} is recorded but has no sources"));
    }
    verdict("run `cargo xtask guests`", &problems)
}

/// Every package says in its own `Cargo.toml` what it is built for.
fn list(dir: &Path) -> Result<Vec<Guest>> {
    let workspace: toml::Table = toml::from_str(&read(&dir.join("Cargo.toml"))?)?;
    let members = workspace["workspace"]["members"]
        .as_array()
        .context("guests have members")?;
    let mut guests = Vec::new();
    for member in members {
        let package = member.as_str().context("a member is a name")?;
        let manifest: toml::Table = toml::from_str(&read(&dir.join(package).join("Cargo.toml"))?)?;
        let wanted = manifest["package"]["metadata"]["guest"]["targets"]
            .as_array()
            .with_context(|| format!("{package} names no targets"))?;
        for wanted in wanted {
            let target = TARGETS
                .into_iter()
                .find(|target| wanted.as_str() == Some(target));
            guests.push(Guest {
                package: package.to_owned(),
                target: target.with_context(|| format!("{package}: unknown target {wanted}"))?,
                library: manifest.contains_key("lib"),
            });
        }
    }
    Ok(guests)
}

/// Digest over all that decides a guest's bytes. Each part is framed by its length.
fn sources(dir: &Path, guest: &Guest, toolchain: &str) -> Result<String> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(toolchain.as_bytes());
    part(guest.target.as_bytes());
    let mut paths: Vec<PathBuf> = files(&dir.join(&guest.package), &["rs", "toml", "wit"])?;
    paths.push(dir.join("Cargo.toml"));
    paths.push(dir.join("Cargo.lock"));
    for path in paths {
        part(path.strip_prefix(dir)?.as_os_str().as_encoded_bytes());
        part(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(hex::encode(hash.finalize()))
}

enum Compiler {
    /// The active toolchain has the targets.
    Active,
    At(PathBuf),
}

fn compiler(root: &Path) -> Result<Compiler> {
    if installed() {
        return Ok(Compiler::Active);
    }
    let debian = std::env::var("REALM_GUEST_TOOLCHAIN").is_ok_and(|route| route == "debian");
    if !debian {
        let added = Command::new("rustup")
            .args(["target", "add"])
            .args(TARGETS)
            .status();
        if added.is_ok_and(|status| status.success()) {
            return Ok(Compiler::Active);
        }
        eprintln!(
            "xtask: rustup has no {}: trying Debian's compiler",
            TARGETS.join(" or ")
        );
    }
    let output = Command::new(root.join("guests/toolchain"))
        .args(TARGETS)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start guests/toolchain")?;
    if !output.status.success() {
        bail!("no compiler for guests: guests/toolchain failed");
    }
    Ok(Compiler::At(
        String::from_utf8(output.stdout)?.trim_end().into(),
    ))
}

fn installed() -> bool {
    let Ok(output) = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output()
    else {
        return false;
    };
    let list = String::from_utf8_lossy(&output.stdout);
    output.status.success()
        && TARGETS
            .iter()
            .all(|target| list.lines().any(|it| it == *target))
}

fn version(compiler: &Compiler) -> Result<String> {
    let rustc = match compiler {
        Compiler::Active => Path::new("rustc"),
        Compiler::At(path) => path,
    };
    let output = Command::new(rustc)
        .arg("-V")
        .output()
        .context("cannot ask the compiler")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Panic messages name source files; without this they would name this machine's directories.
fn remap(dir: &Path) -> Result<String> {
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let mut flags = vec![format!("--remap-path-prefix={}=/guests", dir.display())];
    if let Ok(registries) = std::fs::read_dir(Path::new(&home).join("registry/src")) {
        for registry in registries {
            flags.push(format!(
                "--remap-path-prefix={}=/deps",
                registry?.path().display()
            ));
        }
    }
    Ok(flags.join(" "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn prebuilt_guests_match_their_sources() -> anyhow::Result<()> {
        super::check(&crate::root()?)
    }
}
