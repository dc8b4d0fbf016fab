//! What a cell notices of one beside it that takes all it can get.

use std::{sync::Arc, time::Duration};

use realm_manifest::Limits;
use realm_runtime::{CellConfig, ExitStatus, Flavour, LogRing, Prepared, Stdio};
use tokio::task::JoinSet;

use crate::{
    scene::{Scene, end, prebuilt, scene, until, wasm},
    text::{SAY, hoard},
};

/// Steps of the neighbour in one row; the 99th percentile of a row is its second worst.
const STEPS: usize = 100;
/// Pairs of rows, alone and beside the bomb, one after another: what else the machine does disturbs both. One pair that is
/// in time is enough: were it the bomb that makes the neighbour late, there would be none.
const PAIRS: usize = 6;
/// The neighbour waits so long before each step.
const PAUSE: Duration = Duration::from_millis(3);
/// A step may take half as long again as alone, or so much longer, which is more where steps are short: a bomb that has
/// just begun holds its thread until the next tick of 10 ms, and another one may be before the neighbour in the queue.
const TICKS: Duration = Duration::from_millis(20);
/// The same where each call of the bomb does much in the host, which no tick interrupts: 30 ms were seen.
const LONG_CALLS: Duration = Duration::from_millis(50);

/// Percent of the work done meanwhile that was somebody else's: from there on the machine is busy with other things, and
/// a step is held to no more than what a person notices.
const OTHERS: u64 = 10;
const BUSY: Duration = Duration::from_millis(250);

/// Waits, computes for a moment and asks the time; prints for each step how many microseconds more than the wait it took.
fn neighbour() -> String {
    format!(
        r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func $now (result i64)
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 304))) (i64.load (i32.const 304)))
    {SAY}
    (func (export "_start") (local $steps i32) (local $began i64) (local $work i32)
        (i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const {pause}))
        (loop
            (local.set $began (call $now))
            (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))
            (local.set $work (i32.const 200000))
            (loop (br_if 0 (local.tee $work (i32.sub (local.get $work) (i32.const 1)))))
            (call $say (i32.wrap_i64 (i64.div_u
                (i64.sub (i64.sub (call $now) (local.get $began)) (i64.const {pause})) (i64.const 1000))))
            (br_if 0 (i32.lt_u (local.tee $steps (i32.add (local.get $steps) (i32.const 1))) (i32.const {STEPS}))))))"#,
        pause = PAUSE.as_nanos()
    )
}

struct Bomb {
    what: &'static str,
    bytes: Arc<[u8]>,
    args: &'static [&'static str],
    /// How much longer a step may take than alone.
    more: Duration,
}

fn bombs() -> Vec<Bomb> {
    let text = |what, text: String| Bomb {
        what,
        bytes: wasm(&text),
        args: &[],
        more: TICKS,
    };
    let module = |what, fields: &str, body: &str| {
        text(
            what,
            format!(r#"(module {fields} (func (export "_start") {body}))"#),
        )
    };
    let built = |what, name, args| Bomb {
        what,
        bytes: prebuilt(name),
        args,
        more: TICKS,
    };
    vec![
        built("growing memory", "grow", &[]),
        module(
            "touching all of its memory",
            "(memory 256)",
            "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 16777216)) (br 0))",
        ),
        module(
            "growing and filling tables",
            "(table $t 1 funcref)",
            "(loop (drop (table.grow $t (ref.null func) (i32.const 1000))) (table.fill $t (i32.const 0) (ref.null func) (table.size $t)) (br 0))",
        ),
        Bomb {
            // Nothing interrupts the collection of a full heap.
            more: BUSY,
            ..module(
                "objects",
                "(type $l (struct (field (ref null $l)) (field i64)))",
                "(local (ref null $l)) (loop (local.set 0 (struct.new $l (local.get 0) (i64.const 1))) (br 0))",
            )
        },
        module(
            "recursion",
            "(func $f (param i64 i64) (result i64) (i64.add (call $f (local.get 1) (local.get 0)) (local.get 0)))",
            "(drop (call $f (i64.const 1) (i64.const 2)))",
        ),
        Bomb {
            more: LONG_CALLS,
            ..module(
                "random bytes",
                r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32))) (memory (export "memory") 2)"#,
                "(loop (drop (call $random (i32.const 0) (i32.const 65536))) (br 0))",
            )
        },
        text("handles", hoard()),
        built("pollables", "many-handles", &[]),
        built(
            "long lists of pollables",
            "many-handles",
            &["polls", "9000"],
        ),
        built(
            "sockets that are not granted",
            "net-probe",
            &["storm:127.0.0.1:1"],
        ),
    ]
}

async fn prepared(scene: &Scene, bytes: &Arc<[u8]>) -> Prepared {
    let prepared = scene.runtime.prepare(bytes.clone(), Flavour::Epoch).await;
    prepared.unwrap()
}

/// The 99th percentile of a row of steps.
async fn row(scene: &Scene, neighbour: &Prepared) -> Duration {
    let ring = LogRing::new();
    let config = CellConfig::new("neighbour", Stdio::Log(ring.clone()));
    let cell = scene.runtime.start(neighbour, config).unwrap();
    assert_eq!(end(&cell).await, ExitStatus::Exited(0));
    let lines = ring.tail(STEPS).into_iter();
    let mut took: Vec<u64> = lines.map(|line| line.text.parse().unwrap()).collect();
    assert_eq!(took.len(), STEPS);
    took.sort_unstable();
    Duration::from_micros(took[(STEPS - 1) * 99 / 100])
}

/// Begins it anew whenever it has ended, until the task is dropped. Two of them: as many as there are threads for guests.
fn at_it(scene: &Scene, bomb: &Prepared, args: &[&str]) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let (runtime, bomb) = (scene.runtime.clone(), bomb.clone());
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        tasks.spawn(async move {
            loop {
                let mut config = CellConfig::new("bomb", Stdio::Log(LogRing::new()));
                config.limits = Limits {
                    memory_max_mb: 16,
                    ..Limits::default()
                };
                config.grants.args = args.clone();
                let cell = runtime.start(&bomb, config).unwrap();
                cell.wait().await;
            }
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_gets_on_beside_one_that_takes_all_it_can_get() {
    let scene = scene();
    let neighbour = prepared(&scene, &wasm(&neighbour())).await;
    row(&scene, &neighbour).await;
    for bomb in bombs() {
        let Bomb {
            what,
            bytes,
            args,
            more,
        } = bomb;
        let bomb = prepared(&scene, &bytes).await;
        let mut pairs = Vec::new();
        let late = |(alone, beside, others): &(Duration, Duration, u64)| {
            let bound = match *others < OTHERS {
                true => (*alone * 3 / 2).max(*alone + more),
                false => BUSY,
            };
            *beside > bound
        };
        while pairs.len() < PAIRS && pairs.iter().all(late) {
            let alone = row(&scene, &neighbour).await;
            let before = processor();
            let bombs = at_it(&scene, &bomb, args);
            let beside = row(&scene, &neighbour).await;
            let after = processor();
            drop(bombs);
            until(|| scene.runtime.cells() == 0).await;
            let (all, ours) = (after.0 - before.0, after.1 - before.1);
            pairs.push((alone, beside, 100 * all.saturating_sub(ours) / all.max(1)));
        }
        println!("{what}: p99 alone and beside it, and percent of others: {pairs:?}");
        assert!(!pairs.iter().all(late), "{what}: {pairs:?}");
    }
}

/// What all processes used of the processors, and what this one did, in the kernel's ticks.
fn processor() -> (u64, u64) {
    let sum = |text: &str, from: usize, count: usize| -> u64 {
        let numbers = text.split_whitespace().skip(from).take(count);
        numbers.map(|number| number.parse::<u64>().unwrap()).sum()
    };
    let all = std::fs::read_to_string("/proc/stat").unwrap();
    // User, nice and system; behind them what waited.
    let all = sum(all.lines().next().unwrap(), 1, 3);
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, own) = own.rsplit_once(')').unwrap();
    (all, sum(own, 11, 2))
}
