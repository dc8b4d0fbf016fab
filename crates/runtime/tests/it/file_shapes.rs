//! Every act on files with every shape of path, by each preview: what lies outside a volume is neither read nor changed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use realm_manifest::VolumeMode;
use realm_runtime::{CellConfig, ExitStatus, LogRing, Mount, Stdio};

use crate::{
    file_acts::{Act, preview1, preview2, preview3},
    scene::{Scene, scene, wasm},
};

/// The longest path that Linux takes, and one more byte.
const PATH_MAX: usize = 4096;

/// Where a path leads, seen from the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leads {
    Inside,
    /// Its last name is a link in the volume that leads out of it: the link may be moved or read, never followed.
    Link,
    Outside,
}

/// Those that take links away are last, so that they are there for all others.
fn shapes(root: &Path) -> Vec<(Leads, String)> {
    let secret = root.join("secret").display().to_string();
    let dots = format!("{}../secret", "./".repeat(600));
    let longest = format!("{}file", "./".repeat((PATH_MAX - 4) / 2));
    let too_long = format!("{longest}x");
    let name_too_long = "n".repeat(256);
    let of = |leads, paths: &[&str]| -> Vec<(Leads, String)> {
        let shape = |path: &&str| (leads, (*path).to_owned());
        paths.iter().map(shape).collect()
    };
    let inside = [
        "file",
        "./file",
        "dir/inner",
        "dir/../file",
        "within",
        "new",
        "new/",
        "dir",
        "dir/",
        ".",
        "./",
        "empty",
        "dir//inner",
        "dir/./inner",
        "..\\secret",
        "%2e%2e/secret",
        "\u{2024}\u{2024}/secret",
        "...",
        " ../secret",
        "loop",
        "file/.",
        "file/",
        &longest,
        &too_long,
        &name_too_long,
    ];
    let outside = [
        "../secret",
        "./../secret",
        "dir/../../secret",
        "dir/../../secret/",
        "dir/./.././../secret",
        "..",
        "../",
        "../.",
        "../..",
        "../sibling/file",
        "dir/../../sibling/file",
        "parent/..",
        "parent/secret",
        "parent/../secret",
        "parent/sibling/file",
        "parent-chain/secret",
        "within/../../../secret",
        "file/../../secret",
        "nothing/../../secret",
        "//secret",
        "/secret",
        &secret,
        "/etc/passwd",
        "/",
        "",
        "/proc/self/root/etc/passwd",
        "dir/../../../../../../../../../../../etc/passwd",
        "file\0",
        "../secret\0",
        "file\0/../../secret",
        &dots,
    ];
    let links = [
        "chain",
        "dangling",
        "dir/../climbs",
        "climbs/",
        "climbs/.",
        "absolute/",
        "parent/",
        "parent/.",
        "parent",
        "parent-chain",
        "climbs",
        "absolute",
    ];
    [
        of(Leads::Inside, &inside),
        of(Leads::Outside, &outside),
        of(Leads::Link, &links),
    ]
    .concat()
}

/// What is tried with a path in a volume of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    ReadHere,
    Truncate,
    Create,
    Exclusive,
    OpenDir,
    Write,
    Mkdir,
    Rmdir,
    Unlink,
    Stat,
    StatHere,
    Touch,
    Readlink,
    SymlinkAt,
    SymlinkTo,
    LinkFrom,
    LinkTo,
    RenameFrom,
    RenameTo,
}

const ALL: [Operation; 20] = [
    Operation::Read,
    Operation::ReadHere,
    Operation::Truncate,
    Operation::Create,
    Operation::Exclusive,
    Operation::OpenDir,
    Operation::Write,
    Operation::Mkdir,
    Operation::Rmdir,
    Operation::Unlink,
    Operation::Stat,
    Operation::StatHere,
    Operation::Touch,
    Operation::Readlink,
    Operation::SymlinkAt,
    Operation::SymlinkTo,
    Operation::LinkFrom,
    Operation::LinkTo,
    Operation::RenameFrom,
    Operation::RenameTo,
];

impl Operation {
    /// What the guest does; the last one counts. `name` is a new one each time.
    fn acts<'a>(self, volume: u32, path: &'a str, name: &'a str) -> Vec<Act<'a>> {
        vec![match self {
            Self::Read => Act::Read(volume, path),
            Self::ReadHere => Act::ReadHere(volume, path),
            Self::Truncate => Act::Truncate(volume, path),
            Self::Create => Act::Create(volume, path),
            Self::Exclusive => Act::Exclusive(volume, path),
            Self::OpenDir => Act::OpenDir(volume, path),
            Self::Write => Act::Write(volume, path),
            Self::Mkdir => Act::Mkdir(volume, path),
            Self::Rmdir => Act::Rmdir(volume, path),
            Self::Unlink => Act::Unlink(volume, path),
            Self::Stat => Act::Stat(volume, path),
            Self::StatHere => Act::StatHere(volume, path),
            Self::Touch => Act::Touch(volume, path),
            Self::Readlink => Act::Readlink(volume, path),
            Self::SymlinkAt => Act::Symlink("file", volume, path),
            // Making the link may be allowed: what lies behind it is not.
            Self::SymlinkTo => {
                return vec![Act::Symlink(path, volume, name), Act::Read(volume, name)];
            }
            Self::LinkFrom => Act::Link(volume, path, volume, name),
            Self::LinkTo => Act::Link(volume, "spare", volume, path),
            Self::RenameFrom => Act::Rename(volume, path, volume, name),
            Self::RenameTo => Act::Rename(volume, "spare", volume, path),
        }]
    }

    const fn reads_only(self) -> bool {
        matches!(
            self,
            Self::Read
                | Self::ReadHere
                | Self::OpenDir
                | Self::Stat
                | Self::StatHere
                | Self::Readlink
        )
    }

    /// Whether it is about the link where the last name is one.
    const fn of_the_link(self) -> bool {
        matches!(
            self,
            Self::Unlink
                | Self::StatHere
                | Self::Readlink
                | Self::LinkFrom
                | Self::RenameFrom
                | Self::RenameTo
        )
    }

    fn may(self, leads: Leads, mode: VolumeMode) -> bool {
        let reaches = match leads {
            Leads::Inside => true,
            Leads::Link => self.of_the_link(),
            Leads::Outside => false,
        };
        reaches && (mode == VolumeMode::Rw || self.reads_only())
    }
}

/// A secret, a sibling, and two volumes for each operation.
struct Tree {
    dir: tempfile::TempDir,
    volumes: Vec<(Operation, VolumeMode)>,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("secret"), "secret").unwrap();
        fs::create_dir(root.join("sibling")).unwrap();
        fs::write(root.join("sibling/file"), "sibling").unwrap();
        let both = |operation| [(operation, VolumeMode::Ro), (operation, VolumeMode::Rw)];
        let volumes: Vec<_> = ALL.into_iter().flat_map(both).collect();
        for number in 0..volumes.len() {
            fill(&root.join(format!("v{number}")), &root.join("secret"));
        }
        Self { dir, volumes }
    }

    fn mounts(&self) -> Vec<Mount> {
        let mount = |(number, (_, mode)): (usize, &(Operation, VolumeMode))| Mount {
            host: self.dir.path().join(format!("v{number}")),
            guest: format!("/v{number}"),
            mode: *mode,
        };
        self.volumes.iter().enumerate().map(mount).collect()
    }

    /// All but what may be written: every path with its content, and what says that it was touched.
    fn sentinel(&self) -> BTreeMap<PathBuf, String> {
        let root = self.dir.path();
        let writable = |path: &Path| {
            self.volumes.iter().enumerate().any(|(number, (_, mode))| {
                *mode == VolumeMode::Rw && path == root.join(format!("v{number}"))
            })
        };
        let mut found = BTreeMap::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            if writable(&path) {
                continue;
            }
            let seen = fs::symlink_metadata(&path).unwrap();
            let content = if seen.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if seen.is_dir() {
                let entries = fs::read_dir(&path).unwrap();
                left.extend(entries.map(|entry| entry.unwrap().path()));
                String::new()
            } else {
                fs::read_to_string(&path).unwrap()
            };
            let touched = (seen.mode(), seen.nlink(), seen.mtime(), seen.mtime_nsec());
            found.insert(path, format!("{touched:?} {content}"));
        }
        found
    }
}

fn fill(volume: &Path, secret: &Path) {
    fs::create_dir_all(volume.join("dir")).unwrap();
    fs::create_dir(volume.join("empty")).unwrap();
    for name in ["file", "spare"] {
        fs::write(volume.join(name), name).unwrap();
    }
    fs::write(volume.join("dir/inner"), "inner").unwrap();
    for (link, to) in [
        ("climbs", "../secret"),
        ("parent", ".."),
        ("parent-chain", "dir/../parent"),
        ("within", "dir/inner"),
        ("chain", "climbs"),
        ("dangling", "../nothing"),
        ("loop", "loop"),
    ] {
        symlink(to, volume.join(link)).unwrap();
    }
    symlink(secret, volume.join("absolute")).unwrap();
}

/// Whether each act was done.
async fn done(scene: &Scene, tree: &Tree, text: &str, count: usize) -> Vec<bool> {
    let ring = LogRing::new();
    let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
    config.mounts = tree.mounts();
    let status = scene.run_config(&wasm(text), config).await;
    let lines: Vec<_> = ring.tail(count).into_iter().map(|line| line.text).collect();
    assert_eq!(status, ExitStatus::Exited(0), "{:?}", lines.last());
    assert_eq!((lines.len(), ring.dropped()), (count, 0));
    let done = |line: &String| line.parse::<u32>().unwrap() == 0;
    lines.iter().map(done).collect()
}

async fn nothing_outside_is_reached(by: fn(&[Act<'_>]) -> String) {
    let scene = scene();
    let tree = Tree::new();
    let before = tree.sentinel();
    let shapes = shapes(tree.dir.path());
    let names: Vec<String> = (0..shapes.len()).map(|at| format!("made-{at}")).collect();
    let mut cases = Vec::new();
    let mut acts = Vec::new();
    for (number, (operation, mode)) in tree.volumes.iter().enumerate() {
        for ((leads, path), name) in shapes.iter().zip(&names) {
            acts.extend(operation.acts(u32::try_from(number).unwrap(), path, name));
            cases.push((*operation, *mode, *leads, path, acts.len() - 1));
        }
    }
    assert!(cases.len() >= 1000, "{} cases", cases.len());
    let done = done(&scene, &tree, &by(&acts), acts.len()).await;
    let through: Vec<_> = cases
        .iter()
        .filter(|(operation, mode, leads, _, at)| done[*at] && !operation.may(*leads, *mode))
        .collect();
    assert!(through.is_empty(), "{through:?}");
    assert_eq!(tree.sentinel(), before);
    // The same guest is not refused where it may.
    for (operation, mode) in &tree.volumes {
        let any = cases
            .iter()
            .any(|(one, its, _, _, at)| one == operation && its == mode && done[*at]);
        let may = *mode == VolumeMode::Rw || operation.reads_only();
        assert_eq!(any, may, "{operation:?} in {mode:?}");
    }
}

#[tokio::test]
async fn no_shape_of_path_leaves_a_volume_in_preview_1() {
    nothing_outside_is_reached(preview1).await;
}

#[tokio::test]
async fn no_shape_of_path_leaves_a_volume_in_0_2() {
    nothing_outside_is_reached(preview2).await;
}

#[tokio::test]
async fn no_shape_of_path_leaves_a_volume_in_0_3() {
    nothing_outside_is_reached(preview3).await;
}
