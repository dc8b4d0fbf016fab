//! Guests that never end, each in another place: all meet their deadline, soon after it, and leave nothing behind.

use std::time::{Duration, Instant};

use realm_manifest::Limits;
use realm_runtime::{ExitStatus, Limit};

use crate::{
    scene::{Scene, scene},
    text::{Text, component},
};

const DEADLINE: Duration = Duration::from_millis(200);
/// How late an end may be. Of some tries the best counts: a machine that has something else to do ends one late now and
/// then, a fault of ours all of them.
const LATE: Duration = Duration::from_millis(100);
const TRIES: usize = 3;

/// Runs it with a deadline; how long after that it was gone.
async fn late(scene: &Scene, name: &str, text: &str) -> Duration {
    let limits = Limits {
        deadline_ms: u64::try_from(DEADLINE.as_millis()).ok(),
        ..Limits::default()
    };
    let (cell, _ring) = scene.start(text, limits).await;
    let began = Instant::now();
    let status = tokio::time::timeout(Duration::from_secs(30), cell.wait()).await;
    let took = began.elapsed();
    let Ok(ExitStatus::LimitHit(hit)) = &status else {
        panic!("{name}: {status:?}")
    };
    assert_eq!(hit.which, Limit::Deadline, "{name}");
    took.saturating_sub(DEADLINE)
}

/// A module whose `_start` has this body, with two memories' worth of room and a table.
fn module(fields: &str, body: &str) -> String {
    format!(
        r#"(module {fields} (memory (export "memory") 512) (table $t 100000 funcref) (func (export "_start") {body}))"#
    )
}

/// A component that runs a core `run` of its own, with these core fields beside it.
fn lifted(core: &str, result: &str, options: &str) -> String {
    format!(
        r#"(component (core module $m {core}) (core instance $i (instantiate $m))
        (func (export "run") {result} (canon lift (core func $i "run") {options})))"#
    )
}

const PREVIEW1: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))"#;

fn forever(step: &str) -> String {
    format!("(loop {step} (br 0))")
}

/// Computing, in every place that a guest's code runs in.
fn computing() -> Vec<(&'static str, String)> {
    let spin = "(func $spin (export \"spin\") (loop br 0))";
    vec![
        ("a loop", module("", &forever(""))),
        (
            "a loop of calls",
            module("(func $f)", &forever("(call $f)")),
        ),
        (
            "indirect calls",
            module(
                "(type $v (func)) (func $f) (elem declare func $f)",
                &format!(
                    "(table.set $t (i32.const 0) (ref.func $f)) {}",
                    forever("(call_indirect $t (type $v) (i32.const 0))")
                ),
            ),
        ),
        (
            "tail calls",
            module("(func $f (return_call $f))", "(call $f)"),
        ),
        (
            "branching back and forth",
            module(
                "",
                "(local i32) (loop $a (loop $b (br_if $a (local.tee 0 (i32.eqz (local.get 0)))) (br $b)))",
            ),
        ),
        (
            "filling memory",
            module(
                "",
                &forever("(memory.fill (i32.const 0) (i32.const 1) (i32.const 33554432))"),
            ),
        ),
        (
            "copying memory",
            module(
                "",
                &forever("(memory.copy (i32.const 0) (i32.const 1) (i32.const 33554431))"),
            ),
        ),
        (
            "filling a table",
            module(
                "",
                &forever("(table.fill $t (i32.const 0) (ref.null func) (i32.const 100000))"),
            ),
        ),
        (
            "growing in vain",
            module("", &forever("(drop (memory.grow (i32.const 65535)))")),
        ),
        (
            "garbage",
            module(
                "(type $a (array (mut i64)))",
                &forever("(drop (array.new $a (i64.const 1) (i32.const 1000)))"),
            ),
        ),
        (
            "exceptions",
            module(
                "(tag $e)",
                &forever("(block (try_table (catch $e 0) (throw $e)))"),
            ),
        ),
        (
            "the start function",
            "(module (func $s (loop br 0)) (start $s) (func (export \"_start\")))".to_owned(),
        ),
        (
            "a start function of a component's second instance",
            r#"(component (core module $a (func (export "run"))) (core module $b (func $s (loop br 0)) (start $s))
                (core instance $i (instantiate $a)) (core instance (instantiate $b))
                (func (export "run") (canon lift (core func $i "run"))))"#
                .to_owned(),
        ),
        (
            "post-return",
            lifted(
                &format!("{spin} (func (export \"run\"))"),
                "",
                "(post-return (core func $i \"spin\"))",
            ),
        ),
        (
            "realloc",
            component(&Text {
                // The host asks for room for random bytes, and the guest never gives it.
                imports: r#"(import "wasi:random/random@0.2.0" (instance $random
                    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
                    (core module $endless (func (export "realloc") (param i32 i32 i32 i32) (result i32) (loop br 0) unreachable))
                    (core instance $endless (instantiate $endless))
                    (alias core export $endless "realloc" (core func $never))"#,
                calls: &[(
                    "random",
                    r#"(canon lower (func $random "get-random-bytes") (memory $memory) (realloc $never))"#,
                    "(param i64 i32)",
                )],
                body: "(call $random (i64.const 16) (i32.const 2048))",
                ..Text::default()
            }),
        ),
        (
            "a destructor",
            component(&Text {
                imports: r#"(core module $endless (func (export "drop") (param i32) (loop br 0)))
                    (core instance $endless (instantiate $endless))
                    (alias core export $endless "drop" (core func $destroy))
                    (type $mine (resource (rep i32) (dtor (core func $destroy))))"#,
                calls: &[
                    ("new", "(canon resource.new $mine)", "(param i32) (result i32)"),
                    ("drop", "(canon resource.drop $mine)", "(param i32)"),
                ],
                body: "(call $drop (call $new (i32.const 0)))",
                ..Text::default()
            }),
        ),
    ]
}

/// Calls of the host: those that wait, and those that return at once and are made again.
fn calling() -> Vec<(&'static str, String)> {
    let vectors = r#"(data (i32.const 0) "\10\00\00\00\00\10\00\00")"#;
    let fields = format!("{PREVIEW1} {vectors}");
    // One clock subscription of an hour at 64.
    let sleep = "(i64.store (i32.const 88) (i64.const 3600000000000)) (i32.store (i32.const 80) (i32.const 1))";
    let many = "(local i32) (loop (i64.store offset=24 (local.get 0) (i64.const 3600000000000)) (i32.store offset=16 (local.get 0) (i32.const 1))
        (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 48))) (i32.const 48000))))";
    let call = |body: &str| module(&fields, body);
    let p2 = |imports: &str, calls: &[(&str, &str, &str)], body: &str| {
        component(&Text {
            imports,
            calls,
            body,
            ..Text::default()
        })
    };
    let poll = r#"(import "wasi:io/poll@0.2.0" (instance $poll
            (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))
            (export "[method]pollable.block" (func (param "self" (borrow $p))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
            (alias outer 1 $pollable (type $outer)) (export "pollable" (type $p (eq $outer)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))"#;
    let poll_calls = [
        (
            "subscribe",
            r#"(canon lower (func $clock "subscribe-duration"))"#,
            "(param i64) (result i32)",
        ),
        (
            "block",
            r#"(canon lower (func $poll "[method]pollable.block"))"#,
            "(param i32)",
        ),
        (
            "ready",
            r#"(canon lower (func $poll "[method]pollable.ready"))"#,
            "(param i32) (result i32)",
        ),
        ("drop", "(canon resource.drop $pollable)", "(param i32)"),
    ];
    let wait = r#"(import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
            (export "wait-for" (func async (param "how-long" u64)))))"#;
    let wait_calls = [
        (
            "wait",
            r#"(canon lower (func $clock "wait-for"))"#,
            "(param i64)",
        ),
        ("set-new", "(canon waitable-set.new)", "(result i32)"),
        (
            "set-poll",
            "(canon waitable-set.poll (memory $memory))",
            "(param i32 i32) (result i32)",
        ),
    ];
    let random = r#"(import "wasi:random/random@0.2.0" (instance $random
            (export "get-random-u64" (func (result u64)))))"#;
    let random_calls = [(
        "number",
        r#"(canon lower (func $random "get-random-u64"))"#,
        "(result i64)",
    )];
    vec![
        (
            "sleeping in preview 1",
            call(&format!(
                "{sleep} (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))"
            )),
        ),
        (
            "a thousand timers in preview 1",
            call(&format!(
                "{many} (drop (call $poll (i32.const 0) (i32.const 65536) (i32.const 1000) (i32.const 192)))"
            )),
        ),
        (
            "reading an input that is empty",
            call(&forever(
                "(drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))",
            )),
        ),
        (
            "writing without end",
            call(&forever(
                "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))",
            )),
        ),
        ("yielding", call(&forever("(drop (call $yield))"))),
        (
            "random bytes",
            call(&forever(
                "(drop (call $random (i32.const 0) (i32.const 65536)))",
            )),
        ),
        (
            "the time",
            call(&forever(
                "(drop (call $clock (i32.const 0) (i64.const 0) (i32.const 64)))",
            )),
        ),
        (
            "errors",
            call(&forever(
                "(drop (call $prestat (i32.const 99) (i32.const 64)))",
            )),
        ),
        (
            "a pollable in 0.2",
            p2(
                poll,
                &poll_calls,
                "(call $block (call $subscribe (i64.const 3600000000000)))",
            ),
        ),
        (
            "asking a pollable",
            p2(
                poll,
                &poll_calls,
                "(local i32) (local.set 0 (call $subscribe (i64.const 3600000000000))) (loop (drop (call $ready (local.get 0))) (br 0))",
            ),
        ),
        (
            "making pollables",
            p2(
                poll,
                &poll_calls,
                &forever("(call $drop (call $subscribe (i64.const 0)))"),
            ),
        ),
        (
            "waiting in 0.3",
            p2(wait, &wait_calls, "(call $wait (i64.const 3600000000000))"),
        ),
        (
            "asking a set in 0.3",
            p2(
                wait,
                &wait_calls,
                "(local i32) (local.set 0 (call $set-new)) (loop (drop (call $set-poll (local.get 0) (i32.const 2048))) (br 0))",
            ),
        ),
        (
            "waits of no length in 0.3",
            p2(wait, &wait_calls, &forever("(call $wait (i64.const 0))")),
        ),
        (
            "random numbers in 0.2",
            p2(random, &random_calls, &forever("(drop (call $number))")),
        ),
    ]
}

#[tokio::test]
async fn computing_without_end_is_ended_wherever_it_happens() {
    all_end(computing()).await;
}

#[tokio::test]
async fn calls_without_end_are_ended_whatever_is_called() {
    all_end(calling()).await;
}

async fn all_end(bombs: Vec<(&'static str, String)>) {
    assert!(bombs.len() >= 15);
    let scene = scene();
    let mut again = 0;
    for (name, text) in bombs {
        let mut tries = Vec::new();
        while tries.len() < TRIES && tries.iter().all(|tried| *tried > LATE) {
            tries.push(late(&scene, name, &text).await);
        }
        println!("{name}: {tries:?} after its deadline");
        again += tries.len() - 1;
        let best = tries.into_iter().min().unwrap();
        assert!(best <= LATE, "{name}: {best:?} after its deadline");
    }
    println!("{again} tried again");
    assert_eq!(scene.runtime.cells(), 0);
}
