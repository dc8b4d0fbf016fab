//! How soon a cell is gone that is stopped or past its deadline, alone and beside eight that compute without end.

use std::time::{Duration, Instant};

use realm_manifest::Limits;
use realm_runtime::{ExitStatus, Limit};

use crate::scene::{Scene, scene, until};

/// From the deadline, or from the kill, until the cell's memory is free.
const LATE_MAX: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_millis(50);
/// Of each kind, ended in each way.
const ENDS: usize = 10;
const SPINNERS: usize = 8;

const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop br 0)))"#;
/// Interrupted between two operations only, each of them some milliseconds long.
const FILL: &str = r#"(module (memory (export "memory") 512) (func (export "_start")
    (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 33554432)) (br 0))))"#;
/// Waits in the host for an hour.
const SLEEP: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const 3600000000000))
        (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))))"#;
const KINDS: [(&str, &str); 3] = [("spin", SPIN), ("fill", FILL), ("sleep", SLEEP)];

/// How late each end was, by the deadline.
async fn deadlines(scene: &Scene, text: &str) -> Vec<Duration> {
    let mut late = Vec::new();
    for _ in 0..ENDS {
        let limits = Limits {
            deadline_ms: u64::try_from(DEADLINE.as_millis()).ok(),
            ..Limits::default()
        };
        let (cell, _ring) = scene.start(text, limits).await;
        let began = Instant::now();
        let status = cell.wait().await;
        late.push(began.elapsed().saturating_sub(DEADLINE));
        let ExitStatus::LimitHit(hit) = status else {
            panic!("{status}")
        };
        assert_eq!(hit.which, Limit::Deadline);
    }
    late
}

/// How late each end was, of a cell that is stopped while it is at it.
async fn kills(scene: &Scene, text: &str) -> Vec<Duration> {
    let mut late = Vec::new();
    for _ in 0..ENDS {
        let (cell, _ring) = scene.start(text, Limits::default()).await;
        until(|| cell.stats().busy > Duration::ZERO).await;
        let asked = Instant::now();
        assert_eq!(cell.stop(LATE_MAX * 100).await, ExitStatus::Killed);
        late.push(asked.elapsed());
    }
    late
}

async fn ends(scene: &Scene, beside: &str) {
    let mut all = Vec::new();
    for (kind, text) in KINDS {
        for (way, mut late) in [
            ("deadline", deadlines(scene, text).await),
            ("stopped", kills(scene, text).await),
        ] {
            late.sort_unstable();
            println!("{beside}, {kind}, {way}: {late:?}");
            all.extend(late);
        }
    }
    all.sort_unstable();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    let (p50, p99, max) = (at(50), at(99), at(100));
    println!(
        "{beside}: {} ends, p50 {p50:?}, p99 {p99:?}, max {max:?}",
        all.len()
    );
    assert!(all.len() >= 50 && p99 <= LATE_MAX, "{beside}: p99 {p99:?}");
}

#[tokio::test]
async fn a_cell_is_gone_soon_after_its_end() {
    let scene = scene();
    ends(&scene, "alone").await;
    let mut spinners = Vec::new();
    for _ in 0..SPINNERS {
        spinners.push(scene.start(SPIN, Limits::default()).await);
    }
    ends(&scene, "beside 8 spinners").await;
    // They were at it all the time.
    for (spinner, _) in &spinners {
        assert_eq!(spinner.exit_status(), None);
        assert!(spinner.stats().preemptions > 0, "{:?}", spinner.stats());
    }
}
