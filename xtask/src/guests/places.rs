//! Finds directories of the build machine in a guest.
//!
//! A panic message names its source file. A guest that names the machine's directories tells
//! who built it, and is another guest when someone else builds it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where machines keep homes, sources and caches. Guests for tests name none of these.
const PLACES: &[&str] = &[
    "/root/",
    "/home/",
    "/Users/",
    "/usr/",
    "/tmp/",
    "/build/",
    "/opt/",
    "/mnt/",
    "/srv/",
    "/var/",
    ".cargo/",
    "registry/src",
];

/// Longest part of a found path that is shown, in bytes.
const SHOWN: usize = 80;

/// Every such path, as far as it is text, each once. `root` is the project on this machine.
pub(super) fn of_machine(wasm: &[u8], root: &Path) -> Vec<String> {
    // A short one, such as `/src`, is a part of other paths too.
    let own = (root.components().count() > 2).then(|| root.to_string_lossy());
    let mut found = Vec::new();
    for place in PLACES.iter().copied().chain(own.as_deref()) {
        let mut from = 0;
        while let Some(at) = find(&wasm[from..], place.as_bytes()) {
            let start = from + at;
            let path: String = wasm[start..]
                .iter()
                .take(SHOWN)
                .take_while(|byte| byte.is_ascii_graphic())
                .map(|byte| char::from(*byte))
                .collect();
            if !found.contains(&path) {
                found.push(path);
            }
            from = start + place.len();
        }
    }
    found
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|it| it == wanted)
}

/// Flags that replace the directories of this machine, each by a name that is the same on all.
/// The last that fits a path wins, so that inner directories come last.
pub(super) fn remap_flags(
    root: &Path,
    target_dir: &Path,
    sysroot: &Path,
    cargo_home: &Path,
) -> Result<Vec<String>> {
    let library = sysroot.join("lib/rustlib/src/rust");
    let mut flags = vec![
        flag(root, "/realm"),
        flag(target_dir, "/target"),
        flag(&library, "/rustc"),
    ];
    let sources = cargo_home.join("registry/src");
    let registries = std::fs::read_dir(&sources).with_context(|| {
        format!(
            "cannot list {}, where cargo fetch unpacks",
            sources.display()
        )
    })?;
    for registry in registries {
        flags.push(flag(&registry?.path(), "/deps"));
    }
    Ok(flags)
}

fn flag(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

pub(super) fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_machine_is_found_anywhere() {
        let wasm = b"\0asm overflow/home/ann/x.rs\0/home/ann/x.rs\0text/root/.cargo/y.rs\x01";
        assert_eq!(
            of_machine(wasm, Path::new("/r/realm")),
            ["/root/.cargo/y.rs", "/home/ann/x.rs", ".cargo/y.rs"]
        );
    }

    #[test]
    fn what_a_path_was_replaced_by_is_no_path_of_the_machine() {
        let wasm = b"/deps/a-1.0.0/src/lib.rs /rustc/1.96.0/library /realm/x.rs /etc/passwd";
        assert!(of_machine(wasm, Path::new("/r/realm")).is_empty());
        assert_eq!(of_machine(b"/r/realm/x.rs", Path::new("/r/realm")).len(), 1);
        assert!(of_machine(b"/deps/a-1.0.0/src/lib.rs", Path::new("/src")).is_empty());
    }

    #[test]
    fn inner_directories_are_replaced_last() -> Result<()> {
        let home = tempfile::tempdir()?;
        let registry = home.path().join("registry/src/some-registry");
        std::fs::create_dir_all(&registry)?;
        let [root, sysroot] = ["/r", "/s"].map(Path::new);
        let flags = remap_flags(root, &root.join("target"), sysroot, home.path())?;
        assert_eq!(
            flags,
            [
                flag(root, "/realm"),
                flag(&root.join("target"), "/target"),
                flag(&sysroot.join("lib/rustlib/src/rust"), "/rustc"),
                flag(&registry, "/deps"),
            ]
        );
        Ok(())
    }
}
