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

/// Calls in a row, rows in a look, and looks at a calm node and at a busy one, in turns: what else the machine does
/// disturbs both, and of all rows of a kind the one in the middle counts.
const CALLS: usize = 150;
const ROWS: usize = 3;
const TURNS: usize = 3;
const PACE: Duration = Duration::from_millis(10);
/// Below this a call counts as quick, whatever it was before: a few slices of a busy processor.
const QUICK: Duration = Duration::from_millis(15);
/// A calm node reports every five seconds.
const FRESH: Duration = Duration::from_secs(7);
const SPINNERS: usize = 8;
/// Programs that go on, and new ones in each turn that take long to compile.
const PROGRAMS: [&str; 7] = [
    "spin", "flood", "grow", "handles", "nothing", "storm", "files",
];
const BOMBS: usize = 3;

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
#[derive(Debug, Default)]
struct Seen {
    /// The 99th percentile of each row.
    p99s: Vec<Duration>,
    /// Of the newest report, at most.
    age: Duration,
}

impl Seen {
    fn p99(&self) -> Duration {
        let mut rows = self.p99s.clone();
        rows.sort_unstable();
        rows[rows.len() / 2]
    }

    fn look(&mut self, realm: &Cluster) {
        as_owner(realm, &realm.address("one"), async |_, _, operator| {
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
                    self.age = self.age.max(now.saturating_sub(at));
                }
                row.sort_unstable();
                self.p99s.push(row[CALLS * 99 / 100]);
            }
        });
    }
}

/// As WebAssembly writes a number.
pub fn leb(mut number: usize) -> Vec<u8> {
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
    let push = |name: &str, program: &str, flags: &[&str]| {
        let memory = ["--memory-max-mb", "16", "--via", &via];
        realm.ok(&[&["push", name, program][..], &memory, flags].concat());
    };
    let spinners = SPINNERS.to_string();
    // Nobody listens there any more: each connection is refused at once, and the next one begins.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = nobody.local_addr().unwrap();
    let allow = format!("tcp://{nobody}");
    let storm = format!("storm:{nobody}");
    let files = file("files.wasm", &wat::parse_str(FILES).unwrap());
    let begin = || {
        push("spin", &guest("spin.wasm"), &["--replicas", &spinners]);
        push("flood", &guest("flood.wasm"), &[]);
        let again = ["--restart", "always"];
        push("grow", &guest("grow.wasm"), &again);
        push("handles", &guest("many-handles.wasm"), &again);
        let nothing = ["--arg", "nothing"];
        push("nothing", &guest("many-handles.wasm"), &nothing);
        let probe = guest("net-probe.wasm");
        push("storm", &probe, &["--allow", &allow, "--arg", &storm]);
        push("files", &files, &["--volume", "data:/data"]);
    };

    let (mut calm, mut beside) = (Seen::default(), Seen::default());
    let mut resident = 0;
    for turn in 0..TURNS {
        calm.look(&realm);
        let mut names: Vec<_> = PROGRAMS.map(str::to_owned).into();
        match turn {
            0 => begin(),
            _ => PROGRAMS
                .iter()
                .for_each(|name| drop(realm.ok(&["start", name, "--via", &via]))),
        }
        for bomb in 0..BOMBS {
            let number = turn * BOMBS + bomb;
            let name = format!("bomb-{number}");
            let program = file(&name, &compile_bomb(1_000_000 + number));
            push(&name, &program, &[]);
            names.push(name);
        }
        let at_work = |status: &serde_json::Value| {
            let compiling = |name: &String| {
                name.starts_with("bomb-")
                    && component(status, name)["cells"][0]["state"] == "compiling"
            };
            let running = |name| component(status, name)["running"] == 1;
            component(status, "spin")["running"] == SPINNERS
                && ["flood", "nothing", "storm", "files"]
                    .into_iter()
                    .all(running)
                && names.iter().any(compiling)
        };
        realm.wait_status("one", "all of them at work", at_work);
        beside.look(&realm);
        resident = resident.max(Gauge::of(realm.pid("one")).resident);
        // And the agent still does what it is told.
        for name in &names {
            realm.ok(&["stop", name, "--via", &via]);
        }
        realm.wait_status("one", "all of them are gone", |status| {
            let stopped = |name: &String| component(status, name)["state"] == "stopped";
            names.iter().all(stopped)
        });
    }

    let (alone, with) = (calm.p99(), beside.p99());
    println!("calm: {calm:?}; beside them: {beside:?}");
    println!(
        "p99 {alone:?} in a calm, {with:?} beside them: {:.1} times; reports {:?} and {:?} old at most; {} MiB",
        with.as_secs_f64() / alone.as_secs_f64(),
        calm.age,
        beside.age,
        resident / MIB
    );
    let bound = (alone * 2).max(QUICK);
    assert!(with <= bound, "{with:?} of {bound:?}");
    let bound = (calm.age * 2).max(FRESH);
    assert!(beside.age <= bound, "{:?} of {bound:?}", beside.age);
    assert!(resident <= RESIDENT_MAX, "{} MiB", resident / MIB);
}
