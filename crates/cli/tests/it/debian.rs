//! Programs of Debian's packages, unpacked beside the tests: nothing is installed, no service is started.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

/// Tests of one process wait for each other here; several processes may each fetch it once.
static FETCHING: Mutex<()> = Mutex::new(());

/// The program at `path` within `package`. None, said aloud, where no package can be fetched.
pub fn program(package: &str, path: &str) -> Option<PathBuf> {
    let _turn = FETCHING.lock().unwrap();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    let (kept, found) = (root.join(package), root.join(package).join(path));
    if found.exists() {
        return Some(found);
    }
    std::fs::create_dir_all(&root).unwrap();
    let dir = tempfile::tempdir_in(&root).unwrap();
    let fetched = Command::new("apt-get")
        .args(["download", "--quiet", package])
        .current_dir(&dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !fetched.is_ok_and(|status| status.success()) {
        realm_testkit::skipped(&format!("apt-get download {package} did not work here"));
        return None;
    }
    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap();
    let unpacked = dir.path().join("unpacked");
    let status = Command::new("dpkg-deb")
        .arg("-x")
        .args([file.path(), unpacked.clone()])
        .status();
    assert!(status.unwrap().success());
    // Another process may have been faster; its files are the same.
    if std::fs::rename(&unpacked, &kept).is_err() {
        assert!(found.exists(), "{package} has no {path}");
    }
    Some(found)
}
