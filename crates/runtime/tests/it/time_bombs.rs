//! Guests that never end, each in another place: all meet their deadline, soon after it, and leave nothing behind.

use std::time::{Duration, Instant};

use realm_manifest::Limits;
use realm_runtime::{ExitStatus, Limit};

use crate::{
    scene::{Scene, scene},
    text::{Text, component},
};

const DEADLINE: Duration = Duration::from_millis(200);
/// How late an end may be. On a machine of its own it is 100 ms; here other tests want the same cores.
const LATE: Duration = Duration::from_secs(2);

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

#[tokio::test]
async fn computing_without_end_is_ended_wherever_it_happens() {
    all_end(computing()).await;
}

async fn all_end(bombs: Vec<(&'static str, String)>) {
    assert!(bombs.len() >= 15);
    let scene = scene();
    for (name, text) in bombs {
        let late = late(&scene, name, &text).await;
        assert!(late < LATE, "{name}: {late:?} after its deadline");
    }
    assert_eq!(scene.runtime.cells(), 0);
}
