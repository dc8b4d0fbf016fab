//! What a guest makes the host keep: this process grows by the guest's own limit and little more, whatever is asked of it.

use std::{path::Path, sync::Arc, time::Duration};

use realm_manifest::{Limits, VolumeMode};
use realm_runtime::{
    CellConfig, CellHandle, ExitStatus, Flavour, Limit, LogLine, LogRing, Mount, Stdio,
};

use crate::scene::{Scene, prebuilt, rss, rss_peak, scene, until, wasm};

const MIB: u64 = 1024 * 1024;
/// On top of the guest's limit.
const SPARE: u64 = 32 * MIB;
const GUEST_MIB: u32 = 16;
/// A bomb has so long to do its worst.
const LONG: Duration = Duration::from_secs(3);
/// For what meets another limit first, however busy the machine is.
const AMPLE: Duration = Duration::from_secs(40);
/// Long names, and enough of them that each listing is 3 MiB.
const FILES: usize = 10_000;

/// Directories that guests get: one with many names, one with a large file.
struct Volumes {
    dir: tempfile::TempDir,
}

impl Volumes {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("many")).unwrap();
        for number in 0..FILES {
            let name = format!("many/{number:0240}");
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("one")).unwrap();
        std::fs::write(dir.path().join("one/big"), vec![1; 16 * MIB as usize]).unwrap();
        Self { dir }
    }

    fn mount(&self, name: &str) -> Mount {
        Mount {
            host: self.dir.path().join(name),
            guest: "/v".into(),
            mode: VolumeMode::Rw,
        }
    }
}

struct Ran {
    status: ExitStatus,
    last: String,
    hits: Vec<Limit>,
}

async fn start(
    scene: &Scene,
    bytes: &Arc<[u8]>,
    args: &[&str],
    mount: Mount,
    deadline: Option<Duration>,
) -> (CellHandle, LogRing) {
    let prepared = scene.runtime.prepare(bytes.clone(), Flavour::Epoch).await;
    let prepared = prepared.unwrap();
    let ring = LogRing::new();
    let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
    config.limits = Limits {
        memory_max_mb: GUEST_MIB,
        deadline_ms: deadline.map(|deadline| deadline.as_millis() as u64),
        ..Limits::default()
    };
    config.grants.args = args.iter().map(ToString::to_string).collect();
    config.mounts = vec![mount];
    (scene.runtime.start(&prepared, config).unwrap(), ring)
}

async fn ran(scene: &Scene, bytes: &Arc<[u8]>, args: &[&str], mount: Mount, time: Duration) -> Ran {
    let (cell, ring) = start(scene, bytes, args, mount, Some(time)).await;
    let status = cell.wait().await;
    let hits = cell.stats().limit_hits;
    Ran {
        status,
        last: ring.tail(1).pop().map_or(String::new(), short),
        hits: hits.into_iter().map(|(limit, _)| limit).collect(),
    }
}

/// Runs it and looks how far this process grew, at its peak. What a guest left behind in the allocator is not seen again,
/// so each bomb has a test, and with it a process, of its own.
async fn bomb(bytes: Arc<[u8]>, args: &[&str], volume: &str) -> Ran {
    bomb_for(AMPLE, bytes, args, volume).await
}

async fn bomb_for(time: Duration, bytes: Arc<[u8]>, args: &[&str], volume: &str) -> Ran {
    let scene = scene();
    let volumes = Volumes::new();
    // Compiled before the measurement begins.
    let prepared = scene.runtime.prepare(bytes.clone(), Flavour::Epoch).await;
    assert!(prepared.is_ok(), "{prepared:?}");
    // From now on the peak is that of what follows.
    std::fs::write(Path::new("/proc/self/clear_refs"), "5").unwrap();
    let before = rss();
    let ran = ran(&scene, &bytes, args, volumes.mount(volume), time).await;
    let grown = rss_peak().saturating_sub(before);
    let most = u64::from(GUEST_MIB) * MIB + SPARE;
    println!(
        "{args:?}: {} KiB; {}; {}",
        grown / 1024,
        ran.status,
        ran.last
    );
    assert!(grown <= most, "{grown} bytes of at most {most}");
    ran
}

/// Some guests write lines without end.
fn short(line: LogLine) -> String {
    line.text.chars().take(100).collect()
}

fn met(ran: &Ran) -> Option<Limit> {
    match &ran.status {
        ExitStatus::LimitHit(hit) => Some(hit.which),
        _ => None,
    }
}

/// Reads the whole of `big` into a buffer as large as the guest may have, over and over.
const READS: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_pread" (func $pread (param i32 i32 i32 i64 i32) (result i32)))
    (memory (export "memory") 250)
    (data (i32.const 1024) "big")
    (func (export "_start") (local i32)
        (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 16252928))
        (loop
            (drop (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 3) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
            (drop (call $read (i32.load (i32.const 32)) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $pread (i32.load (i32.const 32)) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 8)))
            (i32.store (i32.const 4) (i32.sub (i32.load (i32.const 4)) (i32.const 65536)))
            (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 200))))))"#;

/// Lists the directory with a buffer of a few bytes, over and over.
const LISTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_readdir" (func $list (param i32 i32 i32 i64 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (loop (drop (call $list (i32.const 3) (i32.const 64) (i32.const 64) (i64.const 0) (i32.const 0))) (br 0))))"#;

/// Many small objects, all of them kept.
const OBJECTS: &str = r#"(module
    (type $l (struct (field (ref null $l)) (field i64)))
    (func (export "_start") (local (ref null $l))
        (loop (local.set 0 (struct.new $l (local.get 0) (i64.const 1))) (br 0))))"#;

#[tokio::test]
async fn memory_and_objects() {
    let grown = bomb(prebuilt("grow"), &[], "one").await;
    assert_eq!(grown.last, "refused after 14 MiB");
    let objects = bomb(wasm(OBJECTS), &[], "one").await;
    assert_eq!(met(&objects), Some(Limit::Memory));
}

#[tokio::test]
async fn pollables_and_long_lists_of_them() {
    let held = bomb(prebuilt("many-handles"), &[], "one").await;
    assert_eq!(met(&held), Some(Limit::Resources));
    let list = bomb(prebuilt("many-handles"), &["polls", "9000"], "one").await;
    assert_eq!(list.last, "9000 of 9000 ready");
    // What is lent counts as a handle until the call ends, and a list is read at all up to a size.
    for (count, limit) in [
        ("200000", Limit::Handles),
        ("1000000", Limit::HostcallBytes),
    ] {
        let list = bomb(prebuilt("many-handles"), &["polls", count], "one").await;
        assert_eq!(met(&list), Some(limit));
    }
}

#[tokio::test]
async fn output_without_end() {
    let flood = bomb_for(LONG, prebuilt("flood"), &[], "one").await;
    assert_eq!(met(&flood), Some(Limit::Deadline));
}

/// Each was noted in a queue, however full the stream was: 50 MiB in four seconds, with an unoptimised host.
#[tokio::test]
async fn writes_of_nothing() {
    let nothing = bomb_for(LONG, prebuilt("many-handles"), &["nothing"], "one").await;
    assert_eq!(met(&nothing), Some(Limit::Deadline));
}

/// Each held 64 KiB: 256 MiB in all.
#[tokio::test]
async fn reads_that_are_never_fetched() {
    let reads = bomb(prebuilt("many-handles"), &["reads"], "one").await;
    assert_eq!(met(&reads), Some(Limit::Resources));
}

#[tokio::test]
async fn writes_that_are_not_done_yet() {
    let writes = bomb(prebuilt("many-handles"), &["writes"], "one").await;
    assert_eq!(met(&writes), Some(Limit::Resources));
}

#[tokio::test]
async fn reads_of_a_large_file_in_preview_1() {
    let reads = bomb(wasm(READS), &[], "one").await;
    assert_eq!(reads.status, ExitStatus::Exited(0));
}

/// All names at once, but for one call only; SECURITY.md says what remains.
#[tokio::test]
async fn directories_in_preview_1() {
    let lists = bomb_for(LONG, wasm(LISTS), &[], "many").await;
    assert_eq!(met(&lists), Some(Limit::Deadline));
}

/// Each held every name: 3 MiB, and as many as there are resources.
#[tokio::test]
async fn directories_in_0_2() {
    let listings = bomb(prebuilt("many-handles"), &["listings"], "many").await;
    assert_eq!(listings.last, "refused after 64: insufficient-memory");
    assert_eq!(listings.hits, [Limit::Listings]);
}

#[tokio::test]
async fn files_in_0_3() {
    let reads = bomb(prebuilt("many-streams"), &["reads", "1024"], "one").await;
    assert_eq!(reads.status, ExitStatus::Exited(0));
    let more = bomb(prebuilt("many-streams"), &["reads", "1025"], "one").await;
    assert_eq!(more.status, ExitStatus::Exited(1));
    assert_eq!(more.hits, [Limit::FileStreams]);
}

/// Each took a thread for as long as it was held: 128 of them took all, and nobody's files could be read.
#[tokio::test]
async fn directories_in_0_3() {
    let listings = bomb(prebuilt("many-streams"), &["listings", "64"], "many").await;
    assert_eq!(listings.status, ExitStatus::Exited(0));
    let more = bomb(prebuilt("many-streams"), &["listings", "65"], "many").await;
    assert_eq!(more.status, ExitStatus::Exited(1));
    assert_eq!(more.hits, [Limit::Listings]);
}

#[tokio::test]
async fn directories_that_are_held_are_in_nobodys_way() {
    let scene = scene();
    let volumes = Volumes::new();
    let mut holders = Vec::new();
    for _ in 0..3 {
        let args = ["listings", "65", "hold"];
        let mount = volumes.mount("many");
        let (cell, _ring) = start(&scene, &prebuilt("many-streams"), &args, mount, None).await;
        until(|| {
            cell.stats()
                .limit_hits
                .iter()
                .any(|(limit, _)| *limit == Limit::Listings)
        })
        .await;
        holders.push(cell);
    }
    let args = ["list:/v", "read:/v/big"];
    std::fs::write(volumes.dir.path().join("one/big"), "small").unwrap();
    let near = ran(
        &scene,
        &prebuilt("fs-probe"),
        &args,
        volumes.mount("one"),
        AMPLE,
    )
    .await;
    assert_eq!(near.last, "read /v/big: ok small");
    assert!(holders.iter().all(|cell| cell.exit_status().is_none()));
}
