//! Builds the guests and keeps a record of what they were built from.
//!
//! The results are committed, so that building Realm needs no WebAssembly target. The
//! record lets a test say, without such a target, that they belong to the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use self::toolchain::{Search, Toolchain};
use crate::{cargo, files, read, succeed, verdict};

mod places;
mod toolchain;

const WASIP1: &str = "wasm32-wasip1";
const WASIP2: &str = "wasm32-wasip2";
const TARGETS: [&str; 2] = [WASIP2, WASIP1];

#[derive(Debug, Deserialize, Serialize)]
struct Record {
    /// The compiler, as it names itself.
    toolchain: String,
    /// Whether `guests/toolchain` built the standard library.
    debian: bool,
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
    /// The package's directory, seen from the project.
    dir: PathBuf,
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
    let guests = list(root)?;
    step("looking for a compiler");
    let toolchain = Search::new(root).find()?;
    let version = toolchain.says(&["-V"])?;
    step(&format!("fetching dependencies for {version}"));
    let mut fetch = Command::new(cargo());
    fetch.args(["fetch", "--quiet", "--locked"]);
    // Fetched first: what is unpacked decides which directories have to be replaced.
    succeed(fetch.current_dir(&dir).env("RUSTC", toolchain.rustc()))?;
    let sysroot = toolchain.says(&["--print", "sysroot"])?;
    let flags = places::remap_flags(
        root,
        &target_dir,
        Path::new(&sysroot),
        &places::cargo_home()?,
    )?;
    for target in TARGETS {
        step(&format!("building for {target}"));
        let mut cargo = Command::new(cargo());
        cargo
            .current_dir(&dir)
            .args(["build", "--release", "--locked", "--target", target])
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("RUSTC", toolchain.rustc());
        for guest in guests.iter().filter(|guest| guest.target == target) {
            cargo.args(["-p", &guest.package]);
        }
        succeed(&mut cargo)?;
    }
    step("writing guests/prebuilt");
    let mut record = Record {
        toolchain: version,
        debian: matches!(toolchain, Toolchain::Debian(_)),
        guest: BTreeMap::new(),
    };
    let mut problems = Vec::new();
    for guest in &guests {
        let from = target_dir.join(guest.target).join("release");
        let from = from.join(guest.artifact());
        let bytes =
            std::fs::read(&from).with_context(|| format!("{} was not built", from.display()))?;
        println!("{:8} {}", bytes.len(), guest.file());
        problems.extend(named_places(guest, &bytes, root));
        let built = Built {
            wasm: hex::encode(Sha256::digest(&bytes)),
            sources: sources(root, guest, &record)?,
        };
        record.guest.insert(guest.file(), built);
        std::fs::write(dir.join("prebuilt").join(guest.file()), &bytes)?;
    }
    let text = toml::to_string(&record).context("cannot write the record")?;
    std::fs::write(dir.join("prebuilt/RECORD.toml"), text)?;
    verdict("guests were built, but not fit to commit", &problems)
}

fn step(what: &str) {
    eprintln!("xtask: {what}");
}

/// Compares the committed files with the record, and the record with the sources.
pub fn check(root: &Path) -> Result<()> {
    verdict("run `cargo xtask guests`", &problems(root)?)
}

fn problems(root: &Path) -> Result<Vec<String>> {
    let prebuilt = root.join("guests/prebuilt");
    let record: Record = toml::from_str(&read(&prebuilt.join("RECORD.toml"))?)
        .context("guests/prebuilt/RECORD.toml is not a record")?;
    let mut problems = Vec::new();
    let mut known = BTreeSet::new();
    for guest in list(root)? {
        known.insert(guest.file());
        let Some(built) = record.guest.get(&guest.file()) else {
            problems.push(format!("{} is not in the record", guest.file()));
            continue;
        };
        let now = sources(root, &guest, &record)?;
        if built.sources != now {
            problems.push(format!("{} is older than its sources", guest.file()));
        }
        match std::fs::read(prebuilt.join(guest.file())) {
            Ok(bytes) => {
                if hex::encode(Sha256::digest(&bytes)) != built.wasm {
                    problems.push(format!("{} is not what was recorded", guest.file()));
                }
                problems.extend(named_places(&guest, &bytes, root));
            }
            Err(error) => problems.push(format!("{}: {error}", guest.file())),
        }
    }
    for file in record.guest.keys().filter(|file| !known.contains(*file)) {
        problems.push(format!("{file} is recorded but has no sources"));
    }
    for path in files(&prebuilt, &["wasm"])? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !record.guest.contains_key(name.as_ref()) {
            problems.push(format!("{name} is not in the record; remove it"));
        }
    }
    Ok(problems)
}

fn named_places(guest: &Guest, wasm: &[u8], root: &Path) -> Vec<String> {
    places::of_machine(wasm, root)
        .into_iter()
        .map(|place| format!("{} names a directory of its builder: {place}", guest.file()))
        .collect()
}

/// Every package says in its own `Cargo.toml` what it is built for.
fn list(root: &Path) -> Result<Vec<Guest>> {
    let workspace: toml::Table = toml::from_str(&read(&root.join("guests/Cargo.toml"))?)?;
    let members = workspace["workspace"]["members"]
        .as_array()
        .context("guests have members")?;
    let mut guests = Vec::new();
    for member in members {
        let member = member.as_str().context("a member is a path")?;
        let dir = Path::new("guests").join(member);
        let manifest: toml::Table = toml::from_str(&read(&root.join(&dir).join("Cargo.toml"))?)?;
        let package = manifest["package"]["name"]
            .as_str()
            .with_context(|| format!("{member} has no name"))?;
        let wanted = manifest["package"]["metadata"]["guest"]["targets"]
            .as_array()
            .with_context(|| format!("{member} names no targets"))?;
        for wanted in wanted {
            let target = TARGETS
                .into_iter()
                .find(|target| wanted.as_str() == Some(target));
            guests.push(Guest {
                package: package.to_owned(),
                dir: dir.clone(),
                target: target.with_context(|| format!("{member}: unknown target {wanted}"))?,
                library: manifest.contains_key("lib"),
            });
        }
    }
    Ok(guests)
}

/// Digest over all that decides a guest's bytes. Each part is framed by its length.
fn sources(root: &Path, guest: &Guest, record: &Record) -> Result<String> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(record.toolchain.as_bytes());
    part(guest.target.as_bytes());
    let mut paths: Vec<PathBuf> = files(&root.join(&guest.dir), &["rs", "toml", "wit"])?;
    paths.push(root.join("guests/Cargo.toml"));
    paths.push(root.join("guests/Cargo.lock"));
    if record.debian {
        paths.push(root.join("guests/toolchain"));
        paths.extend(files(&root.join("guests/toolchain.d"), &["rs"])?);
    }
    for path in paths {
        part(path.strip_prefix(root)?.as_os_str().as_encoded_bytes());
        part(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prebuilt_guests_match_their_sources() -> Result<()> {
        check(&crate::root()?)
    }

    /// A project with one guest, recorded as it is.
    fn project(wasm: &[u8]) -> Result<tempfile::TempDir> {
        let dir = tempfile::tempdir()?;
        let root = dir.path();
        for (name, text) in [
            ("guests/Cargo.toml", "[workspace]\nmembers = [\"a\"]\n"),
            ("guests/Cargo.lock", ""),
            ("guests/a/src/main.rs", "fn main() {}\n"),
            (
                "guests/a/Cargo.toml",
                "[package]\nname = \"a\"\nmetadata.guest.targets = [\"wasm32-wasip1\"]\n",
            ),
        ] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().context("it has a folder")?)?;
            std::fs::write(path, text)?;
        }
        std::fs::create_dir(root.join("guests/prebuilt"))?;
        std::fs::write(root.join("guests/prebuilt/a.p1.wasm"), wasm)?;
        let mut record = Record {
            toolchain: "some rustc".to_owned(),
            debian: false,
            guest: BTreeMap::new(),
        };
        let guest = list(root)?.pop().context("there is a guest")?;
        let built = Built {
            wasm: hex::encode(Sha256::digest(wasm)),
            sources: sources(root, &guest, &record)?,
        };
        record.guest.insert(guest.file(), built);
        let text = toml::to_string(&record)?;
        std::fs::write(root.join("guests/prebuilt/RECORD.toml"), text)?;
        Ok(dir)
    }

    #[test]
    fn a_guest_that_changed_since_its_record_is_found() -> Result<()> {
        let project = project(b"wasm")?;
        let prebuilt = project.path().join("guests/prebuilt");
        assert!(problems(project.path())?.is_empty());
        std::fs::write(prebuilt.join("a.p1.wasm"), "other")?;
        assert_eq!(
            problems(project.path())?,
            ["a.p1.wasm is not what was recorded"]
        );
        std::fs::remove_file(prebuilt.join("a.p1.wasm"))?;
        std::fs::write(prebuilt.join("b.wasm"), "stray")?;
        std::fs::write(project.path().join("guests/a/src/main.rs"), "fn main() { }")?;
        let found = problems(project.path())?;
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "a.p1.wasm is older than its sources");
        assert!(found[1].starts_with("a.p1.wasm: "), "{found:?}");
        assert_eq!(found[2], "b.wasm is not in the record; remove it");
        Ok(())
    }

    #[test]
    fn a_guest_that_names_its_builders_directory_is_found() -> Result<()> {
        let project = project(b"panicked at /tmp/x/a.rs")?;
        assert_eq!(
            problems(project.path())?,
            ["a.p1.wasm names a directory of its builder: /tmp/x/a.rs"]
        );
        Ok(())
    }
}
