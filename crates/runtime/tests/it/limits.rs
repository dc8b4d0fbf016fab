//! Each limit has a guest that meets it.

use std::time::{Duration, Instant};

use realm_manifest::Limits;
use realm_runtime::{
    CellConfig, CellHandle, ExitStatus, Limit, LogRing, PrepareError, PreparedKind, StartError,
    Stdio,
};

use crate::scene::{end, rss, scene, until};

const MIB: u64 = 1024 * 1024;
const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop br 0)))"#;
const HELLO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\06\00\00\00")
    (data (i32.const 16) "hello\n")
    (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
const FLOOD: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\00\10\00\00")
    (func (export "_start")
        (memory.fill (i32.const 16) (i32.const 10) (i32.const 4096))
        (loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))))"#;
/// Waits `ns` nanoseconds by poll_oneoff, `times` times, and writes a line after each.
fn sleeper(ns: u64, times: u32) -> String {
    format!(
        r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\05\00\00\00")
    (data (i32.const 16) "woke\n")
    (global $left (mut i32) (i32.const {times}))
    (func (export "_start")
        (i32.store (i32.const 80) (i32.const 1))
        (i64.store (i32.const 88) (i64.const {ns}))
        (loop
            (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (global.set $left (i32.sub (global.get $left) (i32.const 1)))
            (br_if 0 (global.get $left)))))"#
    )
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn hit(status: &ExitStatus) -> Option<(Limit, u64)> {
    match status {
        ExitStatus::LimitHit(hit) => Some((hit.which, hit.value)),
        _ => None,
    }
}

#[tokio::test]
async fn output_reaches_the_log_and_the_code_is_zero() {
    let scene = scene();
    let (cell, ring) = scene.start(HELLO, Limits::default()).await;
    assert_eq!(end(&cell).await, ExitStatus::Exited(0));
    assert_eq!(ring.tail(9)[0].text, "hello");
    assert_eq!(cell.stats().output_bytes, 6);
}

#[tokio::test]
async fn exit_codes_survive() {
    let scene = scene();
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 42))))"#;
    assert_eq!(
        scene.run(text, Limits::default()).await,
        ExitStatus::Exited(42)
    );
}

#[tokio::test]
async fn components_with_a_bare_run_return_their_result() {
    let scene = scene();
    let component = |core: &str, ty: &str| {
        format!(
            r#"(component (core module $m (func (export "run") {core})) (core instance $i (instantiate $m))
            (func (export "run") {ty} (canon lift (core func $i "run"))))"#
        )
    };
    let ok = component("", "");
    assert_eq!(
        scene.run(&ok, Limits::default()).await,
        ExitStatus::Exited(0)
    );
    let failed = component("(result i32) (i32.const 1)", "(result (result))");
    assert_eq!(
        scene.run(&failed, Limits::default()).await,
        ExitStatus::Exited(1)
    );
}

#[tokio::test]
async fn a_spinning_cell_is_killed_at_once_and_counted() {
    let scene = scene();
    let (cell, _) = scene.start(SPIN, Limits::default()).await;
    until(|| cell.stats().preemptions > 2).await;
    let asked = Instant::now();
    assert_eq!(cell.stop(Duration::from_secs(10)).await, ExitStatus::Killed);
    assert!(
        asked.elapsed() < Duration::from_millis(500),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(cell.stats().memory_bytes, 0);
    assert_eq!(scene.runtime.cells(), 0);
}

#[tokio::test]
async fn a_loop_in_a_start_function_meets_the_deadline() {
    let scene = scene();
    let text = r#"(module (func $spin (loop br 0)) (start $spin) (func (export "_start")))"#;
    let status = scene
        .run(text, limits(|limits| limits.deadline_ms = Some(100)))
        .await;
    assert_eq!(hit(&status), Some((Limit::Deadline, 100)));
}

#[tokio::test]
async fn a_sleeping_cell_meets_the_deadline_and_the_kill() {
    let scene = scene();
    let forever = sleeper(3_600_000_000_000, 1);
    let began = Instant::now();
    let status = scene
        .run(&forever, limits(|limits| limits.deadline_ms = Some(150)))
        .await;
    assert_eq!(hit(&status), Some((Limit::Deadline, 150)));
    assert!(began.elapsed() < Duration::from_secs(5));
    let (cell, _) = scene.start(&forever, Limits::default()).await;
    assert_eq!(cell.stop(Duration::from_secs(10)).await, ExitStatus::Killed);
}

#[tokio::test]
async fn growing_memory_stops_at_the_limit() {
    let scene = scene();
    let text = r#"(module (memory (export "memory") 1)
        (func (export "_start")
            (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
            (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))
            unreachable))"#;
    let before = rss();
    let (cell, _) = scene
        .start(text, limits(|limits| limits.memory_max_mb = 32))
        .await;
    let status = end(&cell).await;
    assert_eq!(hit(&status), Some((Limit::Memory, 32 * MIB)));
    let stats = cell.stats();
    assert!(
        stats.memory_peak_bytes <= 32 * MIB && stats.memory_peak_bytes > 30 * MIB,
        "{stats:?}"
    );
    assert!(stats.limit_hits.contains(&(Limit::Memory, 1)));
    assert!(
        rss() < before + 128 * MIB,
        "the process grew by {}",
        rss() - before
    );
}

#[tokio::test]
async fn memories_count_together() {
    let scene = scene();
    let text =
        r#"(module (memory 320) (memory 320) (memory 320) (memory 320) (func (export "_start")))"#;
    assert_eq!(
        hit(&scene.run(text, Limits::default()).await),
        Some((Limit::Memory, 64 * MIB))
    );
}

#[tokio::test]
async fn many_memories_and_instances_are_refused() {
    let scene = scene();
    let memories = format!(
        "(module {} (func (export \"_start\")))",
        "(memory 1)".repeat(10_000)
    );
    let refused = scene
        .prepare(&memories, &Limits::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, PrepareError::Inspect(_)), "{refused}");
    let few = format!(
        "(module {} (func (export \"_start\")))",
        "(memory 1)".repeat(5)
    );
    assert!(scene.prepare(&few, &Limits::default()).await.is_err());
    let instances = format!(
        r#"(component (core module $m (memory 1) (func (export "run"))) {} (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "run"))))"#,
        "(core instance (instantiate $m))".repeat(900)
    );
    assert!(scene.prepare(&instances, &Limits::default()).await.is_err());
}

#[tokio::test]
async fn huge_tables_are_refused() {
    let scene = scene();
    let text = r#"(module (table 10 funcref) (func (export "_start")
        (if (i32.eq (table.grow (ref.null func) (i32.const 1000000)) (i32.const -1)) (then unreachable))))"#;
    assert_eq!(
        hit(&scene.run(text, Limits::default()).await),
        Some((Limit::TableElements, 100_000))
    );
}

#[tokio::test]
async fn deep_recursion_meets_the_stack() {
    let scene = scene();
    let text = r#"(module (func $f (param i64) (result i64)
        (i64.add (call $f (i64.add (local.get 0) (i64.const 1))) (local.get 0)))
        (func (export "_start") (drop (call $f (i64.const 0)))))"#;
    assert_eq!(
        hit(&scene.run(text, Limits::default()).await).map(|(which, _)| which),
        Some(Limit::Stack)
    );
}

#[tokio::test]
async fn a_flood_of_output_is_paced() {
    let scene = scene();
    let rate = 256 * 1024;
    let began = Instant::now();
    let (cell, ring) = scene
        .start(FLOOD, limits(|limits| limits.output_bytes_per_sec = rate))
        .await;
    until(|| began.elapsed() > Duration::from_secs(1) && cell.stats().output_bytes > 0).await;
    cell.stop(Duration::from_secs(10)).await;
    let most = rate as f64 * (began.elapsed().as_secs_f64() + 0.5);
    let written = cell.stats().output_bytes as f64;
    assert!(
        written < most && written > 0.3 * most,
        "{written} of {most}"
    );
    assert!(
        cell.stats()
            .limit_hits
            .iter()
            .any(|(limit, _)| *limit == Limit::Output)
    );
    assert!(ring.dropped() > 0, "the ring is bounded");
}

#[tokio::test]
async fn fuel_in_total_ends_the_cell() {
    let scene = scene();
    let status = scene
        .run(SPIN, limits(|limits| limits.fuel = 5_000_000))
        .await;
    assert_eq!(hit(&status), Some((Limit::Fuel, 5_000_000)));
}

/// How far the rate may be off over the window below: a tenth.
const RATE_TOLERANCE: f64 = 0.1;
/// The window is at least so long, many times what the bucket can save up, and the bucket runs dry so often in it.
const WINDOW: Duration = Duration::from_secs(3);
const DRY_TIMES: usize = 8;

/// What the cell has used at each moment that this changes.
async fn fuel_steps(cell: &CellHandle, count: usize, window: Duration) -> Vec<(Instant, u64)> {
    let mut steps: Vec<(Instant, u64)> = Vec::new();
    until(|| {
        let used = cell.stats().fuel_used.unwrap();
        if steps.last().is_none_or(|(_, last)| *last < used) {
            steps.push((Instant::now(), used));
        }
        steps.len() > count && steps[steps.len() - 1].0 - steps[0].0 > window
    })
    .await;
    steps
}

#[tokio::test]
async fn fuel_per_second_is_kept_on_average_and_suspends() {
    let scene = scene();
    // What this machine does now without a rate: counted, never suspended.
    let (free, _) = scene
        .start(SPIN, limits(|limits| limits.fuel = u64::MAX))
        .await;
    let steps = fuel_steps(&free, 20, Duration::ZERO).await;
    let (first, last) = (steps[0], steps[20]);
    let unlimited = (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64();
    free.stop(Duration::from_secs(10)).await;
    let rate = (unlimited / 10.0) as u64;
    // Two others want the same threads all the time.
    let spinners = [
        scene.start(SPIN, Limits::default()).await,
        scene.start(SPIN, Limits::default()).await,
    ];
    let (cell, _) = scene
        .start(SPIN, limits(|limits| limits.fuel_per_sec = rate))
        .await;
    let steps = fuel_steps(&cell, DRY_TIMES, WINDOW).await;
    // Each step is a debt, paid by the time of the next: what was paid for, over the time that paid. How fast the
    // guest computes in between, and how late it is woken, is not in it.
    let end = steps.len() - 1;
    let paid = steps[end - 1].1 - steps[0].1;
    let time = (steps[end].0 - steps[1].0).as_secs_f64();
    let kept = paid as f64 / time / rate as f64;
    assert!(
        (kept - 1.0).abs() < RATE_TOLERANCE,
        "{kept} of {rate} a second, over {time} s; {unlimited} without"
    );
    let suspended = |(limit, count): &(Limit, u64)| *limit == Limit::FuelPerSec && *count > 1;
    assert!(cell.stats().limit_hits.iter().any(suspended));
    assert!(cell.exit_status().is_none(), "it never traps");
    assert_eq!(cell.stop(Duration::from_secs(10)).await, ExitStatus::Killed);
    drop(spinners);
}

#[tokio::test]
async fn spinners_do_not_starve_a_cell_that_wakes() {
    let scene = scene();
    let mut spinners = Vec::new();
    for _ in 0..8 {
        spinners.push(scene.start(SPIN, Limits::default()).await.0);
    }
    until(|| spinners.iter().all(|cell| cell.stats().demoted)).await;
    let (waker, ring) = scene
        .start(&sleeper(10_000_000, 100), Limits::default())
        .await;
    assert_eq!(end(&waker).await, ExitStatus::Exited(0));
    let times: Vec<_> = ring.tail(100).into_iter().map(|line| line.at).collect();
    let mut gaps: Vec<_> = times
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]).unwrap_or_default())
        .collect();
    gaps.sort_unstable();
    assert_eq!(gaps.len(), 99);
    assert!(
        gaps[49] < Duration::from_millis(40),
        "median {:?}",
        gaps[49]
    );
    assert!(!waker.stats().demoted);
    assert!(spinners.iter().all(|cell| cell.stats().preemptions > 0));
}

#[tokio::test]
async fn libraries_are_listed_and_not_started() {
    let scene = scene();
    let prepared = scene
        .prepare(r#"(module (func (export "add")))"#, &Limits::default())
        .await
        .unwrap();
    assert_eq!(
        prepared.kind(),
        &PreparedKind::Library {
            exports: vec!["add".into()]
        }
    );
    let config = CellConfig::new("library", Stdio::Log(LogRing::new()));
    let refused = scene.runtime.start(&prepared, config).unwrap_err();
    assert!(matches!(refused, StartError::Library { .. }));
    assert_eq!(scene.runtime.cells(), 0);
}

#[tokio::test]
async fn everything_missing_is_listed() {
    let scene = scene();
    let text =
        r#"(module (import "a" "x" (func)) (import "b" "y" (func)) (func (export "_start")))"#;
    let Err(PrepareError::Missing { missing }) = scene.prepare(text, &Limits::default()).await
    else {
        panic!()
    };
    assert_eq!(missing, ["a/x", "b/y"]);
}

#[tokio::test]
async fn shutdown_ends_every_cell() {
    let scene = scene();
    let (first, _) = scene.start(SPIN, Limits::default()).await;
    let (second, _) = scene
        .start(&sleeper(3_600_000_000_000, 1), Limits::default())
        .await;
    scene.runtime.shutdown().await;
    assert_eq!(
        (first.exit_status(), second.exit_status()),
        (Some(ExitStatus::Killed), Some(ExitStatus::Killed))
    );
    assert_eq!(scene.runtime.cells(), 0);
}

#[tokio::test]
async fn a_dropped_handle_kills_its_cell() {
    let scene = scene();
    let (cell, _) = scene.start(SPIN, Limits::default()).await;
    drop(cell);
    until(|| scene.runtime.cells() == 0).await;
}

/// Many short-lived objects, of which one at a time is held.
const GARBAGE: &str = r#"(module
    (type $s (struct (field i64) (field i64)))
    (func (export "_start") (local $i i32) (local $r (ref null $s))
        (loop $more
            (local.set $r (struct.new $s (i64.const 1) (i64.const 2)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 1000000))))))"#;

#[tokio::test]
async fn garbage_is_collected_within_the_limit() {
    let scene = scene();
    let limits = Limits {
        memory_max_mb: 8,
        ..Limits::default()
    };
    // 16 bytes of fields each: all together are more than the cell may have.
    assert_eq!(scene.run(GARBAGE, limits).await, ExitStatus::Exited(0));
}

#[tokio::test]
async fn memories_shared_between_threads_are_refused_by_name() {
    let scene = scene();
    let text = r#"(module (memory 1 2 shared) (func (export "_start")))"#;
    let error = scene.prepare(text, &Limits::default()).await.unwrap_err();
    assert!(matches!(error, PrepareError::NotYet { .. }), "{error}");
    assert!(error.to_string().contains("without threads"), "{error}");
}
