//! What is said of an artifact without compiling it.

use realm_runtime::{Entry, InspectError, Kind, Need, Preview, inspect};

use crate::scene::wasm;

#[test]
fn inspection_says_whether_it_runs_and_how_large_its_memory_is() {
    let text = r#"(module (import "a" "b" (func)) (memory (export "m") 2 16) (table (export "t") 1 funcref)
        (func (export "_start")))"#;
    let seen = inspect(&wat::parse_str(text).unwrap()).unwrap();
    assert_eq!(seen.missing, ["a/b"]);
    assert!(seen.refused.as_ref().unwrap().contains("a/b"));
    let types: Vec<&str> = seen.exports.iter().map(|item| &*item.ty).collect();
    assert_eq!(types, ["memory 2..16 pages", "table 1.. funcref", "func()"]);
    let shared = r#"(module (import "env" "memory" (memory 1 4 shared)) (func (export "_start")))"#;
    let seen = inspect(&wat::parse_str(shared).unwrap()).unwrap();
    assert_eq!(seen.imports[0].ty, "memory 1..4 pages shared");
    let library = inspect(&wat::parse_str("(module)").unwrap()).unwrap();
    assert_eq!(library.refused, None);
}

#[test]
fn modules_are_described() {
    let bytes = wasm(
        r#"(module (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 1) (func (export "_start")) (func (export "add") (param i32 i32) (result i32) (i32.const 0)))"#,
    );
    let seen = inspect(&bytes).unwrap();
    assert_eq!((seen.kind, seen.entry), (Kind::Module, Some(Entry::Start)));
    assert_eq!(
        (seen.previews.as_slice(), seen.needs.as_slice()),
        ([Preview::P1].as_slice(), [Need::Filesystem].as_slice())
    );
    assert_eq!(seen.exports[2].ty, "func(i32, i32) -> i32");
    assert_eq!(seen.missing.len(), 0);
    assert_eq!(serde_json::to_value(&seen).unwrap()["entry"], "start");
}

#[test]
fn http_comes_before_run() {
    let bytes = wasm(
        r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))
        (instance $run (export "run" (func $f)))
        (export "wasi:cli/run@0.2.6" (instance $run))
        (export "wasi:http/incoming-handler@0.2.12" (instance $run)))"#,
    );
    assert_eq!(inspect(&bytes).unwrap().entry, Some(Entry::HttpP2));
}

#[test]
fn types_of_components_read_like_wit() {
    let bytes = wasm(
        r#"(component (import "acme:db/store@1.0.0" (instance (export "get" (func (param "key" string) (result (option (list u8))))))))"#,
    );
    let seen = inspect(&bytes).unwrap();
    assert!(seen.is_library());
    assert_eq!(
        seen.imports[0].ty,
        "interface { get: func(key: string) -> option<list<u8>>; }"
    );
    assert_eq!(seen.missing, ["acme:db/store@1.0.0"]);
}

#[test]
fn bad_input_is_told_apart() {
    assert!(matches!(inspect(b""), Err(InspectError::Empty)));
    assert!(matches!(inspect(b"\x7fELF"), Err(InspectError::NotWasm(_))));
    assert!(matches!(inspect(b"  (module)"), Err(InspectError::Text)));
    let bytes = wasm(r#"(module (func (export "_start")))"#);
    // A cut between two sections may leave a valid module; no cut may panic.
    for end in 4..bytes.len() {
        let _ = inspect(&bytes[..end]);
    }
    assert!(matches!(
        inspect(&bytes[..bytes.len() - 1]),
        Err(InspectError::Truncated)
    ));
}
