//! Small programs of every shape that an inspection tells apart: those of `guests/` are mostly larger
//! than an input may be.

/// Each as text.
pub(super) fn texts() -> impl Iterator<Item = String> {
    let whole = WHOLE.iter().map(|text| (*text).to_owned());
    let entries = [
        "wasi:cli/run@0.2.6",
        "wasi:cli/run@0.3.0",
        "wasi:http/incoming-handler@0.2.0",
        "wasi:http/handler@0.3.0",
        "wasi:cli/run@0.2.0-rc-2023-11-10",
    ];
    let entries =
        entries.map(|name| format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#));
    let imports = [
        "wasi:cli/environment@0.2.0",
        "wasi:clocks/monotonic-clock@0.2.3",
        "wasi:filesystem/preopens@0.2.0",
        "wasi:io/streams@0.2.0",
        "wasi:random/random@0.3.0",
        "wasi:sockets/ip-name-lookup@0.2.0",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:config/store@0.2.0-rc.1",
        "wasi:nn/graph@0.2.0",
    ];
    let imports = imports.map(|name| {
        format!(r#"(component (import "{name}" (instance (export "f" (func (result u32))))))"#)
    });
    whole.chain(entries).chain(imports)
}

const WHOLE: [&str; 9] = [
    "(module)",
    r#"(module (memory (export "memory") 1) (func (export "_start")))"#,
    r#"(module (func (export "_start") (param i32)) (func (export "run") (result i32 i64) i32.const 1 i64.const 2))"#,
    r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open" (func (param i32) (result i32)))
        (import "env" "memory" (memory 1 2 shared))
        (import "env" "table" (table 1 funcref))
        (import "env" "global" (global (mut i64)))
        (func (export "_start")))"#,
    r#"(module (memory i64 1) (tag (export "tag") (param i32)) (table (export "t") 1 2 externref)
        (global (export "g") f64 (f64.const 0))
        (func (export "_start") (local i32) (loop (br_if 0 (local.get 0)))))"#,
    r#"(component (core module $m (func (export "run"))) (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "run"))))"#,
    r#"(component (import "acme:db/store@1.0.0" (instance
        (export "get" (func (param "key" string) (result (option (list u8))))))))"#,
    r#"(component
        (type $color (enum "red" "green"))
        (type $shape (variant (case "dot") (case "line" (tuple f32 f32))))
        (type $flags (flags "a" "b"))
        (type $pair (record (field "left" string) (field "right" (result u8 (error char)))))
        (import "color" (type (eq $color)))
        (import "shape" (type (eq $shape)))
        (import "flags" (type (eq $flags)))
        (import "pair" (type (eq $pair)))
        (import "blob" (type (sub resource))))"#,
    r#"(component
        (component $inner (import "f" (func)) (export "g" (func 0)))
        (import "f" (func $f (param "x" (list (option s64)))))
        (import "async" (func async (param "s" (stream u8)) (result (future string))))
        (export "inner" (component $inner)) (export "f2" (func $f)))"#,
];
