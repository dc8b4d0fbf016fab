//! `wasi:config`: a guest sees the vars of its spec, and nothing else.

use realm_manifest::Grants;
use realm_runtime::{ExitStatus, Need, inspect};

use crate::scene::{Scene, scene, wasm};

/// Prints what `get("greeting")` says, then every pair of `get-all`.
const READER: &str = r#"(component
    (import "wasi:config/store@0.2.0-rc.1" (instance $store
        (type $e (variant (case "upstream" string) (case "io" string)))
        (export "error" (type $error (eq $e)))
        (export "get" (func (param "key" string) (result (result (option string) (error $error)))))
        (export "get-all" (func (result (result (list (tuple string string)) (error $error)))))))
    (import "wasi:io/error@0.2.0" (instance $io (export "error" (type (sub resource)))))
    (alias export $io "error" (type $io-error))
    (import "wasi:io/streams@0.2.0" (instance $streams
        (export "output-stream" (type $stream (sub resource)))
        (alias outer 1 $io-error (type $outer))
        (export "error" (type $inner (eq $outer)))
        (type $s (variant (case "last-operation-failed" (own $inner)) (case "closed")))
        (export "stream-error" (type $stream-error (eq $s)))
        (export "[method]output-stream.blocking-write-and-flush"
            (func (param "self" (borrow $stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
    (alias export $streams "output-stream" (type $output))
    (import "wasi:cli/stdout@0.2.0" (instance $stdout
        (alias outer 1 $output (type $outer))
        (export "output-stream" (type $inner (eq $outer)))
        (export "get-stdout" (func (result (own $inner))))))
    (core module $heap
        (memory (export "memory") 2)
        (global $next (mut i32) (i32.const 65536))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.get $next)
            (global.set $next (i32.add (global.get $next) (local.get 3)))))
    (core instance $heap (instantiate $heap))
    (alias core export $heap "memory" (core memory $memory))
    (alias core export $heap "realloc" (core func $realloc))
    (core func $get (canon lower (func $store "get") (memory $memory) (realloc $realloc)))
    (core func $get-all (canon lower (func $store "get-all") (memory $memory) (realloc $realloc)))
    (core func $get-stdout (canon lower (func $stdout "get-stdout")))
    (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))
    (core module $main
        (import "heap" "memory" (memory 1))
        (import "host" "get" (func $get (param i32 i32 i32)))
        (import "host" "get-all" (func $get-all (param i32)))
        (import "host" "get-stdout" (func $get-stdout (result i32)))
        (import "host" "write" (func $write (param i32 i32 i32 i32)))
        (data (i32.const 0) "greetingget: none\n=")
        (global $out (mut i32) (i32.const 0))
        (func $print (param i32 i32) (call $write (global.get $out) (local.get 0) (local.get 1) (i32.const 64)))
        (func (export "run")
            (local $pair i32) (local $end i32)
            (global.set $out (call $get-stdout))
            (call $get (i32.const 0) (i32.const 8) (i32.const 100))
            (if (i32.load8_u (i32.const 100)) (then unreachable))
            (call $print (i32.const 8) (i32.const 5))
            (if (i32.load8_u (i32.const 104))
                (then (call $print (i32.load (i32.const 108)) (i32.load (i32.const 112))))
                (else (call $print (i32.const 13) (i32.const 4))))
            (call $print (i32.const 17) (i32.const 1))
            (call $get-all (i32.const 100))
            (if (i32.load8_u (i32.const 100)) (then unreachable))
            (local.set $pair (i32.load (i32.const 104)))
            (local.set $end (i32.add (local.get $pair) (i32.mul (i32.load (i32.const 108)) (i32.const 16))))
            (block (loop
                (br_if 1 (i32.ge_u (local.get $pair) (local.get $end)))
                (call $print (i32.load (local.get $pair)) (i32.load offset=4 (local.get $pair)))
                (call $print (i32.const 18) (i32.const 1))
                (call $print (i32.load offset=8 (local.get $pair)) (i32.load offset=12 (local.get $pair)))
                (call $print (i32.const 17) (i32.const 1))
                (local.set $pair (i32.add (local.get $pair) (i32.const 16)))
                (br 0)))))
    (core instance $main (instantiate $main
        (with "heap" (instance $heap))
        (with "host" (instance
            (export "get" (func $get)) (export "get-all" (func $get-all))
            (export "get-stdout" (func $get-stdout)) (export "write" (func $write))))))
    (func (export "run") (canon lift (core func $main "run"))))"#;

async fn read(scene: &Scene, vars: &[(&str, &str)]) -> Vec<String> {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let grants = Grants {
        vars: vars.iter().map(pair).collect(),
        ..Grants::default()
    };
    let (status, mut lines) = scene.run_granted(&wasm(READER), grants).await;
    assert_eq!(status, ExitStatus::Exited(0), "{lines:?}");
    lines.sort();
    lines
}

#[tokio::test]
async fn a_guest_reads_the_vars_it_was_given() {
    let scene = scene();
    let given = [("greeting", "good day"), ("level", "3"), ("empty", "")];
    assert_eq!(
        read(&scene, &given).await,
        ["empty=", "get: good day", "greeting=good day", "level=3"]
    );
    // The same code in another cell: nothing is left over, and nothing comes from the environment.
    assert_eq!(read(&scene, &[]).await, ["get: none"]);
    assert_eq!(
        read(&scene, &[("other", "x")]).await,
        ["get: none", "other=x"]
    );
}

#[test]
fn vars_are_offered_and_other_candidates_are_not() {
    let seen = inspect(&wasm(READER)).unwrap();
    assert_eq!(seen.missing.len(), 0);
    assert!(seen.needs.contains(&Need::Config), "{:?}", seen.needs);
    let other = READER.replace("store@0.2.0-rc.1", "store@0.2.0-draft");
    assert_eq!(
        inspect(&wasm(&other)).unwrap().missing,
        ["wasi:config/store@0.2.0-draft"]
    );
}
