//! Programs that want the whole machine, and what that does to the agent beside them.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use realm_identity::Signed;
use realm_manifest::report::NodeReport;
use realm_testkit::Cluster;

use super::{MIB, RESIDENT_MAX, scene::Gauge};
use crate::{cluster, guest, liar::as_owner, picture::component};

/// Calls in a row, and how many such rows. The best row counts: what disturbs one of them is not always ours.
const CALLS: usize = 150;
const ROWS: usize = 4;
const PACE: Duration = Duration::from_millis(10);
/// Below this a call counts as quick, whatever it was before: some slices of a busy processor.
const QUICK: Duration = Duration::from_millis(20);
/// A calm node reports every five seconds.
const FRESH: Duration = Duration::from_secs(7);
const SPINNERS: usize = 8;

/// Writes a file, closes it, removes it, over and over.
const FILES: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
    (memory (export "memory") 16)
    (data (i32.const 1024) "file")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const 524288))
        (loop
            (drop (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 9) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32)))
            (drop (call $write (i32.load (i32.const 32)) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $close (i32.load (i32.const 32))))
            (drop (call $unlink (i32.const 3) (i32.const 1024) (i32.const 4)))
            (br 0))))"#;

/// What the owner saw of the node.
#[derive(Debug)]
struct Seen {
    /// The 99th percentile of the best row.
    p99: Duration,
    /// Of the newest report, at most.
    age: Duration,
}

fn look(realm: &Cluster) -> Seen {
    let mut age = Duration::ZERO;
    let rows = as_owner(realm, &realm.address("one"), async |_, _, operator| {
        let mut rows = Vec::new();
        let mut pace = tokio::time::interval(PACE);
        for _ in 0..ROWS {
            let mut row = Vec::new();
            for _ in 0..CALLS {
                pace.tick().await;
                let began = Instant::now();
                let survey = operator.survey().await.unwrap();
                row.push(began.elapsed());
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let sighting = survey.nodes.values().next().unwrap();
                // It may not have said anything yet.
                let Some(report) = sighting.report.as_ref() else {
                    continue;
                };
                let report = Signed::<NodeReport>::from_wire(report)
                    .unwrap()
                    .into_inner();
                let at = Duration::from_millis(report.at.as_millis());
                age = age.max(now.saturating_sub(at));
            }
            row.sort_unstable();
            rows.push(row[CALLS * 99 / 100]);
        }
        rows
    });
    println!("p99 of each row: {rows:?}; the newest report is {age:?} old at most");
    let p99 = rows.into_iter().min().unwrap();
    Seen { p99, age }
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// `_start` with blocks within blocks: small, and long to compile. Each depth is another program.
fn compile_bomb(depth: usize) -> Vec<u8> {
    let body = [
        &[0][..],
        &b"\x02\x40".repeat(depth),
        &b"\x0b".repeat(depth + 1),
    ]
    .concat();
    let code = [&[1][..], &leb(body.len()), &body].concat();
    let section = |id: u8, content: &[u8]| [&[id], leb(content.len()).as_slice(), content].concat();
    let sections = [
        section(1, b"\x01\x60\x00\x00"),
        section(3, b"\x01\x00"),
        section(7, b"\x01\x06_start\x00\x00"),
        section(10, &code),
    ];
    [&b"\0asm\x01\0\0\0"[..], &sections.concat()].concat()
}

#[test]
fn programs_that_want_everything_do_not_slow_the_agent_down() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let file = |name: &str, bytes: &[u8]| {
        let path = realm.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let before = look(&realm);

    let push = |name: &str, program: &str, flags: &[&str]| {
        let memory = ["--memory-max-mb", "16", "--via", &via];
        realm.ok(&[&["push", name, program][..], &memory, flags].concat());
    };
    let spinners = SPINNERS.to_string();
    push("spin", &guest("spin.wasm"), &["--replicas", &spinners]);
    push("flood", &guest("flood.wasm"), &[]);
    let again = ["--restart", "always"];
    push("grow", &guest("grow.wasm"), &again);
    push("handles", &guest("many-handles.wasm"), &again);
    push(
        "nothing",
        &guest("many-handles.wasm"),
        &["--arg", "nothing"],
    );
    // Nobody listens there any more: each connection is refused at once, and the next one begins.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = nobody.local_addr().unwrap();
    let allow = format!("tcp://{nobody}");
    let storm = format!("storm:{nobody}");
    push(
        "storm",
        &guest("net-probe.wasm"),
        &["--allow", &allow, "--arg", &storm],
    );
    let files = file("files.wasm", &wat::parse_str(FILES).unwrap());
    push("files", &files, &["--volume", "data:/data"]);
    for bomb in 0..3 {
        let program = file(&format!("bomb-{bomb}"), &compile_bomb(1_000_000 + bomb));
        push(&format!("bomb-{bomb}"), &program, &[]);
    }
    let at_work = |status: &serde_json::Value| {
        let compiling = &component(status, "bomb-0")["cells"][0]["state"];
        let running = |name| component(status, name)["running"] == 1;
        component(status, "spin")["running"] == SPINNERS
            && ["flood", "nothing", "storm", "files"]
                .into_iter()
                .all(running)
            && *compiling == "compiling"
    };
    realm.wait_status("one", "all of them at work", at_work);

    let during = look(&realm);
    let resident = Gauge::of(realm.pid("one")).resident;
    println!(
        "before: {before:?}; beside them: {during:?}; {} MiB",
        resident / MIB
    );
    let bound = (before.p99 * 2).max(QUICK);
    assert!(during.p99 <= bound, "{:?} of {bound:?}", during.p99);
    let bound = (before.age * 2).max(FRESH);
    assert!(during.age <= bound, "{:?} of {bound:?}", during.age);
    assert!(resident <= RESIDENT_MAX, "{} MiB", resident / MIB);
    // And the agent still does what it is told.
    realm.ok(&["stop", "spin", "--via", &via]);
    realm.wait_status("one", "the spinners are gone", |status| {
        component(status, "spin")["running"] == 0
    });
}
