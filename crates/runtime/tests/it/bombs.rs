//! Guests that ask for more than there is: each ends soon, with an error that names the limit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use realm_manifest::{Grants, Limits};
use realm_runtime::{
    CompileError, CompilerConfig, ExitStatus, Flavour, InspectError, Limit, PrepareError, Runtime,
    RuntimeConfig, inspect,
};

use crate::{
    scene::{Scene, child, prebuilt, rss_peak, scene, wasm},
    text::{MEMORY, Text, component, hoard},
};

const MIB: u64 = 1024 * 1024;
/// No bomb may take longer, on a busy machine and with an unoptimised compiler.
const SOON: Duration = Duration::from_secs(120);

/// The limit that preparing or running meets.
async fn met(scene: &Scene, wasm: &Arc<[u8]>) -> (Limit, u64) {
    let began = Instant::now();
    let hit = match scene.runtime.prepare(wasm.clone(), Flavour::Epoch).await {
        Err(PrepareError::Limit(hit)) => hit,
        Err(error) => panic!("{error:?}"),
        Ok(_) => match scene.run_granted(wasm, Grants::default()).await {
            (ExitStatus::LimitHit(hit), _) => hit,
            (status, lines) => panic!("{status}: {lines:?}"),
        },
    };
    assert!(began.elapsed() < SOON, "{hit} after {:?}", began.elapsed());
    let said = hit.to_string();
    assert!(
        said.contains(hit.which.code()) && said.contains(&hit.value.to_string()),
        "{said}"
    );
    (hit.which, hit.value)
}

fn module(fields: &str) -> Arc<[u8]> {
    wasm(&format!("(module {fields} (func (export \"_start\")))"))
}

/// A component that runs nothing, around core instances.
fn instances(of: &str, count: usize) -> Arc<[u8]> {
    wasm(&format!(
        r#"(component (core module $m {of} (func (export "run"))) {} (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "run"))))"#,
        "(core instance (instantiate $m))".repeat(count - 1)
    ))
}

#[tokio::test]
async fn more_memories_and_tables_than_a_cell_has() {
    let scene = scene();
    assert_eq!(
        met(&scene, &module(&"(memory 0)".repeat(5))).await,
        (Limit::Memories, 4)
    );
    assert_eq!(
        met(&scene, &module(&"(table 0 funcref)".repeat(17))).await,
        (Limit::Tables, 16)
    );
    assert_eq!(
        met(&scene, &instances("(memory 0)", 5)).await,
        (Limit::Memories, 4)
    );
    assert_eq!(
        met(&scene, &instances("(table 0 funcref)", 17)).await,
        (Limit::Tables, 16)
    );
    assert_eq!(
        met(&scene, &instances("", 33)).await,
        (Limit::Instances, 32)
    );
    // The very limits are allowed.
    for allowed in [
        module(&"(memory 0)".repeat(4)),
        module(&"(table 0 funcref)".repeat(16)),
        instances("", 32),
    ] {
        let (status, _) = scene.run_granted(&allowed, Grants::default()).await;
        assert_eq!(status, ExitStatus::Exited(0));
    }
}

#[tokio::test]
async fn sizes_beyond_a_cell() {
    let scene = scene();
    let huge = [100_001, 10_000_000].map(|size| module(&format!("(table {size} funcref)")));
    for table in &huge {
        assert_eq!(met(&scene, table).await, (Limit::TableElements, 100_000));
    }
    assert_eq!(
        met(&scene, &module("(memory 65536)")).await,
        (Limit::Memory, 64 * MIB)
    );
    let wide = module("(memory i64 0x100000000)");
    assert_eq!(met(&scene, &wide).await, (Limit::MemorySize, 4096 * MIB));
    let globals = |count| module(&"(global (mut v128) (v128.const i64x2 0 0))".repeat(count));
    assert_eq!(
        met(&scene, &globals(600_000)).await,
        (Limit::InstanceSize, 8 * MIB)
    );
    // What large compilers need, and more.
    let (status, _) = scene
        .run_granted(&globals(200_000), Grants::default())
        .await;
    assert_eq!(status, ExitStatus::Exited(0));
}

#[tokio::test]
async fn giant_data_counts_as_memory() {
    let scene = scene();
    // 70 MiB in a memory of 1200 pages.
    let data = [
        b"\x01\x00\x41\x00\x0b",
        &leb(70 * MIB as usize)[..],
        &vec![1; 70 * MIB as usize],
    ];
    let sections = [
        section(1, b"\x01\x60\x00\x00"),
        section(3, b"\x01\x00"),
        section(5, &[b"\x01\x00", &leb(1200)[..]].concat()),
        section(7, b"\x01\x06_start\x00\x00"),
        section(10, b"\x01\x02\x00\x0b"),
        section(11, &data.concat()),
    ];
    let giant = [&b"\0asm\x01\0\0\0"[..], &sections.concat()]
        .concat()
        .into();
    assert_eq!(met(&scene, &giant).await, (Limit::Memory, 64 * MIB));
    // More data than its memory is the guest's own fault.
    let beyond = module(r#"(memory 1) (data (i32.const 65536) "x")"#);
    let (status, _) = scene.run_granted(&beyond, Grants::default()).await;
    assert!(matches!(status, ExitStatus::Trapped { .. }), "{status}");
    let refused = inspect(&vec![0; 256 * MIB as usize + 1]).unwrap_err();
    assert!(
        matches!(refused, InspectError::TooLarge { .. }),
        "{refused}"
    );
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], leb(content.len()).as_slice(), content].concat()
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn component_of(sections: &[u8]) -> Arc<[u8]> {
    [COMPONENT, sections].concat().into()
}

/// A type section: a component type that holds one that holds one, so often.
fn nested_types(depth: usize) -> Vec<u8> {
    [
        &[1],
        b"\x41\x01\x01".repeat(depth - 1).as_slice(),
        b"\x41\x00",
    ]
    .concat()
}

/// Components within components.
fn nested_components(depth: usize) -> Arc<[u8]> {
    let mut heads = Vec::new();
    let mut size = COMPONENT.len();
    for _ in 0..depth {
        let head = [COMPONENT, &[4], &leb(size)].concat();
        size += head.len();
        heads.push(head);
    }
    heads.reverse();
    heads.push(COMPONENT.into());
    heads.concat().into()
}

/// A module of `_start` alone, with this code.
fn start_of(instructions: &[u8]) -> Arc<[u8]> {
    let body = [&[0][..], instructions, b"\x0b"].concat();
    let code = [&[1][..], &leb(body.len()), &body].concat();
    let sections = [
        section(1, b"\x01\x60\x00\x00"),
        section(3, b"\x01\x00"),
        section(7, b"\x01\x06_start\x00\x00"),
        section(10, &code),
    ];
    [&b"\0asm\x01\0\0\0"[..], &sections.concat()]
        .concat()
        .into()
}

/// Blocks within blocks.
fn nested_blocks(depth: usize) -> Arc<[u8]> {
    start_of(&[b"\x02\x40".repeat(depth), b"\x0b".repeat(depth)].concat())
}

/// So many `br_table`, each with so many targets: to the block around it, and to the function, in turns.
fn branches(tables: usize, targets: usize) -> Arc<[u8]> {
    let targets = [
        leb(targets),
        b"\x00\x01".repeat(targets / 2),
        vec![0; targets % 2 + 1],
    ];
    let table = [&b"\x02\x40\x41\x00\x0e"[..], &targets.concat(), b"\x0b"].concat();
    start_of(&table.repeat(tables))
}

#[tokio::test]
async fn deep_nesting() {
    let began = Instant::now();
    // Components, and types, which a reader takes level by level on its stack.
    for depth in [101, 100_000] {
        for bytes in [
            nested_components(depth),
            component_of(&section(7, &nested_types(depth))),
        ] {
            let error = inspect(&bytes).unwrap_err();
            assert!(
                matches!(error, InspectError::Limit { .. }),
                "{depth}: {error}"
            );
            assert!(error.to_string().contains("at most 100 levels"), "{error}");
        }
    }
    assert!(inspect(&nested_components(99)).is_ok());
    assert!(inspect(&component_of(&section(7, &nested_types(90)))).is_ok());
    // Blocks are the compiler's affair: its time is bounded, and it is not this process.
    let dir = tempfile::tempdir().unwrap();
    let mut compiler = CompilerConfig::new(child(), Vec::new());
    compiler.cpu = Duration::from_secs(1);
    let runtime = Runtime::new(RuntimeConfig::new(dir.path().into(), [7; 32], compiler)).unwrap();
    let shallow = runtime.prepare(nested_blocks(1000), Flavour::Epoch).await;
    assert!(shallow.is_ok(), "{shallow:?}");
    let error = runtime
        .prepare(nested_blocks(1_000_000), Flavour::Epoch)
        .await
        .unwrap_err();
    assert!(
        matches!(error, PrepareError::Compile(CompileError::TimedOut(_))),
        "{error:?}"
    );
    assert!(error.to_string().contains("took longer than"), "{error}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn giant_branch_tables() {
    const TARGETS: usize = 65_520;
    const TABLES: usize = 100;
    let began = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let mut compiler = CompilerConfig::new(child(), Vec::new());
    compiler.cpu = Duration::from_secs(10);
    compiler.memory_bytes = 512 * MIB;
    let runtime = Runtime::new(RuntimeConfig::new(dir.path().into(), [7; 32], compiler)).unwrap();
    let prepare = async |bytes| runtime.prepare(bytes, Flavour::Epoch).await;
    let before = rss_peak();
    // As large as there are; and as many as a function has room for, which may take too long, but nothing else.
    assert!(prepare(branches(1, TARGETS)).await.is_ok());
    match prepare(branches(TABLES, TARGETS)).await {
        Ok(_) | Err(PrepareError::Compile(CompileError::TimedOut(_))) => {}
        Err(error) => panic!("{error:?}"),
    }
    let error = prepare(branches(1, TARGETS + 1)).await.unwrap_err();
    assert!(
        matches!(error, PrepareError::Compile(CompileError::Bad { .. }))
            && error.to_string().contains("65521 targets"),
        "{error:?}"
    );
    assert!(prepare(module("")).await.is_ok());
    let grown = rss_peak() - before;
    assert!(grown < 96 * MIB, "{grown} bytes");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_endless_start_within_a_component_meets_the_deadline() {
    let scene = scene();
    let text = r#"(component (core module $m (func $spin (loop br 0)) (start $spin) (func (export "run")))
        (core instance $i (instantiate $m)) (func (export "run") (canon lift (core func $i "run"))))"#;
    let began = Instant::now();
    let limits = Limits {
        deadline_ms: Some(100),
        ..Limits::default()
    };
    let ExitStatus::LimitHit(hit) = scene.run(text, limits).await else {
        panic!("it ends by its limit")
    };
    assert_eq!((hit.which, hit.value), (Limit::Deadline, 100));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn host_tables_are_bounded() {
    let scene = scene();
    let pollables = prebuilt("many-handles");
    assert_eq!(met(&scene, &pollables).await, (Limit::Resources, 4096));
    assert_eq!(met(&scene, &wasm(&hoard())).await, (Limit::Handles, 10_000));
}

#[tokio::test]
async fn one_call_carries_so_much() {
    let scene = scene();
    let write = component(&Text {
        body: "(drop (memory.grow (i32.const 200))) (call $print (i32.const 0) (i32.const 9000000))",
        ..Text::default()
    });
    assert_eq!(
        met(&scene, &wasm(&write)).await,
        (Limit::HostcallBytes, 8 * MIB)
    );
    let random = |bytes: u32| {
        component(&Text {
            imports: r#"(import "wasi:random/random@0.2.0" (instance $random
                (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#,
            calls: &[(
                "random",
                &format!(r#"(canon lower (func $random "get-random-bytes") {MEMORY})"#),
                "(param i64 i32)",
            )],
            body: &format!(
                "(call $random (i64.const {bytes}) (i32.const 2048)) (call $say (i32.load (i32.const 2052)))"
            ),
            ..Text::default()
        })
    };
    assert_eq!(
        met(&scene, &wasm(&random(65537))).await,
        (Limit::RandomBytes, 65536)
    );
    let (status, lines) = scene
        .run_granted(&wasm(&random(65536)), Grants::default())
        .await;
    assert_eq!(
        (status, lines),
        (ExitStatus::Exited(0), vec!["65536".to_owned()])
    );
}

/// What the validator refuses, by its number, before anything is compiled.
#[test]
fn counts_beyond_webassembly() {
    let began = Instant::now();
    let many = |field: &str, count: usize| module(&field.repeat(count));
    let doubled: String = (1..40)
        .map(|n| format!("(type $t{n} (tuple $t{0} $t{0}))", n - 1))
        .collect();
    let wide = format!("(component (type $t0 (tuple u8 u8)) {doubled})");
    for (bytes, words) in [
        (
            many("(memory 0)", 10_000),
            "memories count exceeds limit of 100",
        ),
        (
            many("(table 0 funcref)", 10_000),
            "tables count exceeds limit of 100",
        ),
        (many("(data \"\")", 100_001), "exceeds limit of 100000"),
        (module("(memory 65537)"), "must be at most"),
        (wasm(&wide), "exceeds the limit of 1000000"),
    ] {
        let Err(error @ InspectError::Limit { .. }) = inspect(&bytes) else {
            panic!("{words}: {:?}", inspect(&bytes))
        };
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// A library of twelve thousand function types, each with a thousand parameters.
fn many_types() -> Arc<[u8]> {
    const TYPES: usize = 12_000;
    let mut types = leb(TYPES);
    for number in 0..TYPES {
        types.push(0x60);
        types.extend(leb(1000));
        // i32 or i64 by the bits of the number, so that no two are the same.
        types.extend(
            (0..1000).map(|bit| match bit < 16 && number >> bit & 1 == 1 {
                true => 0x7e,
                false => 0x7f,
            }),
        );
        types.push(0);
    }
    [&b"\0asm\x01\0\0\0"[..], &section(1, &types)]
        .concat()
        .into()
}

#[tokio::test]
async fn reading_an_artifact_takes_no_memory_of_this_process() {
    let scene = scene();
    let bytes = many_types();
    let before = rss_peak();
    let began = Instant::now();
    // A library: nothing is compiled.
    let prepared = scene.runtime.prepare(bytes.clone(), Flavour::Epoch).await;
    let grown = rss_peak() - before;
    assert!(
        grown < 96 * MIB && prepared.is_ok(),
        "{grown} bytes; {prepared:?}"
    );
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
