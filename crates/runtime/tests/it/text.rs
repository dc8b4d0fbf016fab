//! Components as text: the frame that every one needs, around the calls that a test is about.

/// What a test adds to the frame.
#[derive(Debug, Default)]
pub struct Text<'a> {
    /// Component imports, with an `instance` each.
    pub imports: &'a str,
    /// Lowered functions: name, the `canon` expression, and the core type.
    pub calls: &'a [(&'a str, &'a str, &'a str)],
    /// Core data, placed at 1024.
    pub data: &'a str,
    /// More core functions.
    pub functions: &'a str,
    /// The core code of `run`. Memory from 2048 to 4096 is free; the heap begins at 65536.
    pub body: &'a str,
}

/// Options of a `canon lower` that hands memory over.
pub const MEMORY: &str = "(memory $memory) (realloc $realloc)";

/// Of a module of preview 1 that imports `fd_write` as `$write`: prints a number as a line. The first 8 bytes of memory are
/// its own, and those up to 241.
pub const SAY: &str = r#"(func $say (param $number i32) (local $at i32)
        (local.set $at (i32.const 240))
        (i32.store8 (local.get $at) (i32.const 10))
        (loop
            (local.set $at (i32.sub (local.get $at) (i32.const 1)))
            (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
            (br_if 0 (local.tee $number (i32.div_u (local.get $number) (i32.const 10)))))
        (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (i32.sub (i32.const 241) (local.get $at)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#;

/// Makes handles without end that no host code ever sees.
pub fn hoard() -> String {
    component(&Text {
        imports: "(type $mine (resource (rep i32)))",
        calls: &[(
            "new",
            "(canon resource.new $mine)",
            "(param i32) (result i32)",
        )],
        body: "(loop (drop (call $new (i32.const 0))) (br 0))",
        ..Text::default()
    })
}

/// A component of 0.3 that runs `body`, with `$say` to print a number and `$print` to print bytes.
pub fn component(text: &Text<'_>) -> String {
    let Text {
        imports,
        calls,
        data,
        functions,
        body,
    } = text;
    let lowered: String = calls
        .iter()
        .map(|(name, canon, _)| format!("(core func ${name} {canon})\n"))
        .collect();
    let imported: String = calls
        .iter()
        .map(|(name, _, ty)| format!("(import \"host\" \"{name}\" (func ${name} {ty}))\n"))
        .collect();
    let given: String = calls
        .iter()
        .map(|(name, ..)| format!("(export \"{name}\" (func ${name}))"))
        .collect();
    format!(
        r#"(component
    (import "wasi:cli/exit@0.2.12" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
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
    {imports}
    (core module $heap
        (memory (export "memory") 4)
        (global $next (mut i32) (i32.const 65536))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.get $next)
            (global.set $next (i32.add (global.get $next) (local.get 3)))))
    (core instance $heap (instantiate $heap))
    (alias core export $heap "memory" (core memory $memory))
    (alias core export $heap "realloc" (core func $realloc))
    (core func $get-stdout (canon lower (func $stdout "get-stdout")))
    (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))
    (core func $exit (canon lower (func $exit "exit-with-code")))
    {lowered}
    (core module $main
        (import "heap" "memory" (memory 1))
        (import "host" "get-stdout" (func $get-stdout (result i32)))
        (import "host" "write" (func $write (param i32 i32 i32 i32)))
        (import "host" "exit" (func $exit (param i32)))
        {imported}
        (data (i32.const 1024) "{data}")
        (global $out (mut i32) (i32.const -1))
        (func $print (param i32 i32)
            (if (i32.eq (global.get $out) (i32.const -1)) (then (global.set $out (call $get-stdout))))
            (call $write (global.get $out) (local.get 0) (local.get 1) (i32.const 0)))
        (func $say (param $number i32)
            (local $at i32)
            (local.set $at (i32.const 40))
            (i32.store8 (local.get $at) (i32.const 10))
            (loop
                (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
                (br_if 0 (local.tee $number (i32.div_u (local.get $number) (i32.const 10)))))
            (call $print (local.get $at) (i32.sub (i32.const 41) (local.get $at))))
        {functions}
        (func (export "run") {body}))
    (core instance $main (instantiate $main
        (with "heap" (instance $heap))
        (with "host" (instance
            (export "get-stdout" (func $get-stdout)) (export "write" (func $write)) (export "exit" (func $exit))
            {given}))))
    (func (export "run") async (canon lift (core func $main "run"))))"#
    )
}
