//! Volumes in each preview: what is granted works, and nothing outside is read or changed.

use std::{collections::BTreeMap, os::unix::fs::symlink, path::PathBuf, sync::Arc};

use realm_manifest::VolumeMode;
use realm_runtime::{CellConfig, ExitStatus, LogRing, Mount, Stdio};

use crate::{
    file_acts::{Act, preview1, preview3},
    scene::{Scene, prebuilt, scene, wasm},
};

/// The volumes, in the order of their mounts.
const RO: u32 = 0;
const RW: u32 = 1;

/// A directory with a secret in it, and two volumes beside the secret.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::write(root.join("secret"), "secret").unwrap();
        for volume in ["ro", "rw"] {
            let volume = root.join(volume);
            std::fs::create_dir_all(volume.join("dir")).unwrap();
            std::fs::write(volume.join("file"), "content").unwrap();
            std::fs::write(volume.join("dir/inner"), "inner").unwrap();
            symlink("../secret", volume.join("climbs")).unwrap();
            symlink(root.join("secret"), volume.join("absolute")).unwrap();
            symlink("..", volume.join("parent")).unwrap();
            symlink("dir/inner", volume.join("within")).unwrap();
        }
        Self { dir }
    }

    fn mounts(&self) -> Vec<Mount> {
        let mount = |name: &str, mode| Mount {
            host: self.dir.path().join(name),
            guest: format!("/{name}"),
            mode,
        };
        vec![mount("ro", VolumeMode::Ro), mount("rw", VolumeMode::Rw)]
    }

    /// Every path with what it holds.
    fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.dir.path().to_owned()];
        while let Some(path) = left.pop() {
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            let holds = if kind.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                left.extend(
                    std::fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                "directory".to_owned()
            } else {
                std::fs::read_to_string(&path).unwrap()
            };
            found.insert(path, holds);
        }
        found
    }

    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.path().join(path)).ok()
    }

    async fn run(&self, scene: &Scene, wasm: &Arc<[u8]>, args: &[String]) -> Vec<String> {
        let ring = LogRing::new();
        let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
        config.mounts = self.mounts();
        config.grants.args = args.to_vec();
        let status = scene.run_config(wasm, config).await;
        let lines: Vec<_> = ring.tail(1000).into_iter().map(|line| line.text).collect();
        assert_eq!(status, ExitStatus::Exited(0), "{lines:?}");
        lines
    }
}

/// Runs the acts and tells for each whether it was done.
async fn done(
    scene: &Scene,
    tree: &Tree,
    acts: &[Act<'_>],
    text: fn(&[Act<'_>]) -> String,
) -> Vec<bool> {
    let lines = tree.run(scene, &wasm(&text(acts)), &[]).await;
    assert_eq!(lines.len(), acts.len(), "{lines:?}");
    lines
        .iter()
        .map(|line| line.parse::<u32>().unwrap() == 0)
        .collect()
}

/// Acts that nobody may do, whatever the volume is.
fn escapes<'a>(volume: u32, secret: &'a str) -> Vec<Act<'a>> {
    let mut acts = Vec::new();
    for path in [
        "../secret",
        "./../secret",
        "dir/../../secret",
        "dir/../../secret/",
        "../ro/file",
        "..",
        "../",
        "parent",
        "parent/secret",
        "parent/../secret",
        "climbs",
        "climbs/",
        "absolute",
        "dir/../climbs",
        "//secret",
        secret,
        "/etc/passwd",
        "/",
        "",
        "dir/../../../../../../../../etc/passwd",
        "within/../../../secret",
    ] {
        acts.extend([
            Act::Read(volume, path),
            Act::Write(volume, path),
            Act::Truncate(volume, path),
        ]);
    }
    for path in [
        "../new",
        "parent/new",
        "/new",
        "dir/../../new",
        "../new/",
        "parent/../new",
    ] {
        acts.extend([
            Act::Create(volume, path),
            Act::Mkdir(volume, path),
            Act::Symlink("x", volume, path),
            Act::Link(volume, "file", volume, path),
            Act::Rename(volume, "file", volume, path),
        ]);
    }
    for path in ["../secret", "parent/secret", secret, "../rw/file"] {
        acts.extend([
            Act::Unlink(volume, path),
            Act::Link(volume, path, RW, "taken"),
            Act::Rename(volume, path, RW, "taken"),
        ]);
    }
    acts.extend([
        Act::Symlink("/etc/passwd", volume, "pointer"),
        // One volume is no way into the other.
        Act::Link(RO, "file", RW, "taken"),
        Act::Rename(RO, "file", RW, "taken"),
        Act::Rename(RW, "file", RO, "given"),
        Act::Link(RW, "file", RO, "given"),
    ]);
    acts
}

#[tokio::test]
async fn nothing_outside_a_volume_is_reached() {
    let scene = scene();
    let tree = Tree::new();
    let before = tree.snapshot();
    let secret = tree.dir.path().join("secret");
    for text in [preview1, preview3] {
        for volume in [RO, RW] {
            let acts = escapes(volume, secret.to_str().unwrap());
            let done = done(&scene, &tree, &acts, text).await;
            let through: Vec<_> = acts.iter().zip(done).filter(|(_, done)| *done).collect();
            assert!(through.is_empty(), "{through:?}");
            assert_eq!(tree.snapshot(), before);
        }
    }
}

#[tokio::test]
async fn a_read_only_volume_is_read_and_not_written() {
    let scene = scene();
    let tree = Tree::new();
    let before = tree.snapshot();
    let reads = ["file", "dir/inner", "within", "dir/../file"].map(|path| Act::Read(RO, path));
    let writes = [
        Act::Write(RO, "file"),
        Act::Truncate(RO, "file"),
        Act::Truncate(RO, "within"),
        Act::Create(RO, "new"),
        Act::Create(RO, "dir/new"),
        Act::Mkdir(RO, "new"),
        Act::Unlink(RO, "file"),
        Act::Symlink("file", RO, "new"),
        Act::Link(RO, "file", RO, "new"),
        Act::Rename(RO, "file", RO, "new"),
    ];
    for text in [preview1, preview3] {
        assert_eq!(done(&scene, &tree, &reads, text).await, [true; 4]);
        assert_eq!(done(&scene, &tree, &writes, text).await, [false; 10]);
        assert_eq!(tree.snapshot(), before);
    }
    let args = [
        "read:/ro/file",
        "read:/ro/within",
        "list:/ro/dir",
        "write:/ro/file",
        "write:/ro/new",
        "remove:/ro/file",
        "link:file=/ro/new",
    ];
    let lines = tree
        .run(&scene, &prebuilt("fs-probe"), &args.map(str::to_owned))
        .await;
    assert_eq!(
        lines[..3],
        [
            "read /ro/file: ok content",
            "read /ro/within: ok inner",
            "list /ro/dir: ok inner"
        ]
    );
    assert!(
        lines[3..].iter().all(|line| line.contains(": error: ")),
        "{lines:?}"
    );
    assert_eq!(tree.snapshot(), before);
}

#[tokio::test]
async fn a_writable_volume_is_written() {
    let scene = scene();
    for text in [preview1, preview3] {
        let tree = Tree::new();
        let acts = [
            Act::Read(RW, "file"),
            Act::Write(RW, "file"),
            Act::Create(RW, "new"),
            Act::Mkdir(RW, "dir/more"),
            Act::Rename(RW, "dir/inner", RW, "dir/more/moved"),
            Act::Link(RW, "file", RW, "again"),
            Act::Symlink("dir/more/moved", RW, "pointer"),
            Act::Read(RW, "pointer"),
            Act::Unlink(RW, "climbs"),
        ];
        assert_eq!(done(&scene, &tree, &acts, text).await, [true; 9]);
        assert_eq!(tree.text("rw/file").as_deref(), Some("con"));
        assert_eq!(tree.text("rw/again").as_deref(), Some("con"));
        assert_eq!(tree.text("rw/new").as_deref(), Some(""));
        assert_eq!(tree.text("rw/pointer").as_deref(), Some("inner"));
        assert!(std::fs::symlink_metadata(tree.dir.path().join("rw/climbs")).is_err());
        assert_eq!(tree.text("secret").as_deref(), Some("secret"));
    }
    let tree = Tree::new();
    let args = ["write:/rw/new", "read:/rw/new", "remove:/rw/file"].map(str::to_owned);
    let lines = tree.run(&scene, &prebuilt("fs-probe"), &args).await;
    assert_eq!(
        lines,
        [
            "write /rw/new: ok ",
            "read /rw/new: ok written by fs-probe",
            "remove /rw/file: ok "
        ]
    );
    assert_eq!(
        tree.text("rw/new").as_deref(),
        Some("written by fs-probe\n")
    );
    assert_eq!(tree.text("rw/file"), None);
}

#[tokio::test]
async fn links_that_a_guest_makes_lead_nowhere_outside() {
    let scene = scene();
    let tree = Tree::new();
    // Making such a link may be allowed: it is what lies behind it that is not.
    for text in [preview1, preview3] {
        let acts = [
            Act::Symlink("../secret", RW, "mine"),
            Act::Read(RW, "mine"),
            Act::Write(RW, "mine"),
            Act::Truncate(RW, "mine"),
            Act::Symlink("dir/../..", RW, "up"),
            Act::Read(RW, "up/secret"),
            Act::Create(RW, "up/new"),
            Act::Unlink(RW, "up/secret"),
            Act::Rename(RW, "up/secret", RW, "taken"),
        ];
        let done = done(&scene, &tree, &acts, text).await;
        assert_eq!(done[1..4], [false; 3]);
        assert_eq!(done[5..], [false; 4]);
        for link in ["rw/mine", "rw/up"] {
            // It may not be there.
            let _ = std::fs::remove_file(tree.dir.path().join(link));
        }
    }
    let before = tree.snapshot();
    let args = [
        "escape:/rw",
        "escape:/ro",
        "read:/etc/passwd",
        "read:secret",
        "read:/secret",
        "list:/",
        "write:/new",
    ];
    let lines = tree
        .run(&scene, &prebuilt("fs-probe"), &args.map(str::to_owned))
        .await;
    assert!(lines.len() > 12, "{lines:?}");
    assert!(
        lines.iter().all(|line| line.contains(": error: ")),
        "{lines:?}"
    );
    assert_eq!(tree.snapshot(), before);
}

#[tokio::test]
async fn without_a_volume_there_are_no_files() {
    let scene = scene();
    let args = ["read:/etc/passwd", "list:/", "list:.", "write:/tmp/x"];
    let grants = realm_manifest::Grants {
        args: args.map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let (_, lines) = scene.run_granted(&prebuilt("fs-probe"), grants).await;
    assert!(
        lines.len() == 4 && lines.iter().all(|line| line.contains(": error: ")),
        "{lines:?}"
    );
    // The first descriptor after the three streams does not exist.
    let (_, lines) = scene
        .run_granted(
            &wasm(&preview1(&[Act::Read(0, "."), Act::Create(0, "x")])),
            Default::default(),
        )
        .await;
    const BAD_DESCRIPTOR: &str = "08";
    assert_eq!(lines, [BAD_DESCRIPTOR; 2]);
}
