//! `make demo`, but for the building: the script itself, with the binary that is tested.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use realm_testkit::wait_for;

/// Ends in order also when the test fails: its agents are in sessions of their own.
struct Demo(Child);

impl Demo {
    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.0.id());
        let sent = Command::new("kill").args([signal, "--", &group]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.signal("-TERM");
            self.0.wait().unwrap();
        }
    }
}

#[test]
fn the_demo_shows_a_realm_of_two_and_ends_with_ctrl_c() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for made in ["scripts", "bin", "built/debug"] {
        fs::create_dir_all(at(made)).unwrap();
    }
    symlink(project.join("guests").canonicalize().unwrap(), at("guests")).unwrap();
    symlink(env!("CARGO_BIN_EXE_realm"), at("built/debug/realm")).unwrap();
    fs::copy(project.join("scripts/demo.sh"), at("scripts/demo.sh")).unwrap();
    // What it would build is here already.
    fs::write(at("bin/cargo"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("bin/cargo"), fs::Permissions::from_mode(0o755)).unwrap();

    let printed = File::create(at("printed")).unwrap();
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let mut demo = Command::new("bash");
    let demo = demo
        .arg(at("scripts/demo.sh"))
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", at("built"))
        .stdin(Stdio::null())
        .stdout(printed.try_clone().unwrap())
        .stderr(printed)
        // As a terminal has it, which sends Ctrl-C to all of it.
        .process_group(0)
        .spawn()
        .unwrap();
    let mut demo = Demo(demo);
    let said = || fs::read_to_string(at("printed")).unwrap();
    for words in ["running  2/2", "one/ticker#0 out", "two/ticker#0 out"] {
        wait_for(&format!("{words:?} of the demo"), || {
            let ended = demo.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", said());
            let seen = said().split_whitespace().collect::<Vec<_>>().join(" ");
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
            seen.contains(&words).then_some(())
        });
    }
    demo.signal("-INT");
    assert!(demo.0.wait().unwrap().success(), "{}", said());
    assert!(said().contains("Both have stopped."), "{}", said());
    for agent in ["one", "two"] {
        let left = at("target/demo").join(agent).join("agent.json");
        assert!(!left.exists(), "{agent} did not end by itself");
    }
}
