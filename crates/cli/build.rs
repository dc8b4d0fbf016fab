//! Links the program with packed relocations where the C library of this machine can unpack them: two megabytes
//! that an agent would read, and keep resident, at every start.

use std::{env, path::Path, process::Command};

/// Since then glibc's loader, and its start of static programs, know DT_RELR.
const GLIBC: (u32, u32) = (2, 36);
const GETCONF: &str = "/usr/bin/getconf";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // It comes with the C library, which may be another one next time.
    if Path::new(GETCONF).exists() {
        println!("cargo::rerun-if-changed={GETCONF}");
    }
    let of = |name: &str| env::var(name).unwrap_or_default();
    let is_gnu = of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu";
    let is_here = of("CARGO_CFG_TARGET_ARCH") == env::consts::ARCH;
    if is_gnu && is_here && glibc().is_some_and(|version| version >= GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// What this machine runs programs with, such as "glibc 2.36".
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new(GETCONF).arg("GNU_LIBC_VERSION").output();
    let said = String::from_utf8(output.ok()?.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
