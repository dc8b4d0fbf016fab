//! What one cell leaves in its slots, the next one does not find; and no end keeps a slot.

use realm_manifest::Limits;
use realm_runtime::{CellConfig, ExitStatus, Flavour, LogRing, Prepared, Stdio};

use crate::scene::{PATIENCE, Scene, end, scene, scene_of, wasm};

/// Ten thousand cells: each turn is one of the first two programs, and two of the third.
const TURNS: usize = 2_500;
/// Memory of each: 256 KiB, and as much grown.
const PAGES: u32 = 4;

/// A guest with two memories and four tables: all that a runtime with room for one cell has. It may
/// have something in its memories from the start: its own `data`, of 8 bytes, at 65536.
struct Guest {
    data: Option<&'static str>,
    reads: bool,
    writes: bool,
    /// Further items of the module.
    also: &'static str,
}

impl Guest {
    fn text(&self) -> String {
        let data = self.data.map_or(String::new(), |data| {
            format!(r#"(data (memory 0) (i32.const 65536) "{data}") (data (memory 1) (i32.const 65536) "{data}")"#)
        });
        let tables: String = (0..4)
            .map(|n| format!("(table $t{n} 1000 funcref)"))
            .collect();
        let steps: String = [(self.reads, self.reading()), (self.writes, writing())]
            .into_iter()
            .filter(|(does, _)| *does)
            .map(|(_, step)| step)
            .collect();
        format!(
            r#"(module (memory {PAGES} 128) (memory {PAGES} 128) {tables}
            (global $g (mut i64) (i64.const 0)) (func $f) (elem declare func $f) {data} {}
            (func (export "_start") (local $at i32)
                (drop (memory.grow 0 (i32.const {PAGES}))) (drop (memory.grow 1 (i32.const {PAGES})))
                {steps}))"#,
            self.also
        )
    }

    /// Traps if there is anything beside its data in its memories, its tables or its global.
    fn reading(&self) -> String {
        let own = match self.data {
            Some(_) => "(i32.eq (local.get $at) (i32.const 65536))",
            None => "(i32.const 0)",
        };
        let memories = (0..2).map(|n| {
            format!(
                "(local.set $at (i32.const 0))
                (loop
                    (if (i32.and (i64.ne (i64.load {n} (local.get $at)) (i64.const 0)) (i32.eqz {own})) (then unreachable))
                    (local.set $at (i32.add (local.get $at) (i32.const 8)))
                    (br_if 0 (i32.lt_u (local.get $at) (i32.mul (memory.size {n}) (i32.const 65536)))))"
            )
        });
        let tables = (0..4).map(|n| {
            format!(
                "(local.set $at (i32.const 0))
                (loop
                    (if (i32.eqz (ref.is_null (table.get $t{n} (local.get $at)))) (then unreachable))
                    (local.set $at (i32.add (local.get $at) (i32.const 1)))
                    (br_if 0 (i32.lt_u (local.get $at) (i32.const 1000))))"
            )
        });
        let read: String = memories.chain(tables).collect();
        format!("(if (i64.ne (global.get $g) (i64.const 0)) (then unreachable)) {read}")
    }
}

/// Fills memories, tables and the global.
fn writing() -> String {
    let memories = (0..2).map(|n| {
        format!("(memory.fill {n} (i32.const 0) (i32.const 0xa5) (i32.mul (memory.size {n}) (i32.const 65536)))")
    });
    let tables =
        (0..4).map(|n| format!("(table.fill $t{n} (i32.const 0) (ref.func $f) (i32.const 1000))"));
    let wrote: String = memories.chain(tables).collect();
    format!("{wrote} (global.set $g (i64.const 0xa5a5a5a5))")
}

async fn prepared(scene: &Scene, text: &str) -> Prepared {
    let flavour = Flavour::of(&Limits::default());
    scene.runtime.prepare(wasm(text), flavour).await.unwrap()
}

fn quiet() -> CellConfig {
    CellConfig::new("test", Stdio::Log(LogRing::new()))
}

/// Room for one cell: each program gets the slots of the one before.
#[tokio::test]
async fn a_slot_is_empty_for_its_next_cell() {
    let scene = scene_of(1);
    let guest = |data, reads, writes| Guest {
        data,
        reads,
        writes,
        also: "",
    };
    let guests = [
        guest(Some("01234567"), false, true),
        guest(None, true, false),
        // Also what the same program left, whose slots are only set back.
        guest(Some("abcdefgh"), true, true),
    ];
    let mut programs = Vec::new();
    for guest in guests {
        programs.push(prepared(&scene, &guest.text()).await);
    }
    for turn in 0..TURNS {
        for which in [0, 1, 2, 2] {
            let cell = scene.runtime.start(&programs[which], quiet()).unwrap();
            let status = end(&cell).await;
            assert_eq!(
                status,
                ExitStatus::Exited(0),
                "turn {turn}, program {which}"
            );
        }
    }
}

#[tokio::test]
async fn a_slot_that_is_not_empty_is_seen() {
    let scene = scene();
    for also in [
        r#"(data (memory 0) (i32.const 0) "x")"#,
        r#"(data (memory 1) (i32.const 262143) "x")"#,
        "(func $h) (elem (table $t3) (i32.const 999) func $h)",
    ] {
        let guest = Guest {
            data: None,
            reads: true,
            writes: false,
            also,
        };
        let read = scene.run(&guest.text(), Limits::default()).await;
        assert!(matches!(read, ExitStatus::Trapped { .. }), "{also}: {read}");
    }
}

/// How often a cell is ended somewhere on its way.
const ENDS: usize = 5_000;
/// At most so often others are let run before the end.
const LATER: usize = 60;

/// Whoever ends a cell, and wherever it is just then: its place is free afterwards.
#[tokio::test]
async fn a_cell_that_is_ended_anywhere_keeps_no_slot() {
    let scene = scene_of(1);
    let mut guest = Guest {
        data: Some("01234567"),
        reads: true,
        writes: true,
        also: "",
    };
    // Grows and ends, computes, waits for the host, traps.
    let programs = [
        prepared(&scene, &guest.text()).await,
        prepared(&scene, r#"(module (func (export "_start") (loop (br 0))))"#).await,
        prepared(&scene, WRITES).await,
        prepared(&scene, r#"(module (func (export "_start") unreachable))"#).await,
    ];
    let mut draw = draws();
    for turn in 0..ENDS {
        let program = &programs[draw() % programs.len()];
        let cell = scene.runtime.start(program, quiet());
        let cell = cell.unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        for _ in 0..draw() % LATER {
            tokio::task::yield_now().await;
        }
        match draw() % 2 {
            0 => cell.kill(),
            _ => drop(cell),
        }
        let gone = async {
            while scene.runtime.cells() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.unwrap_or_else(|_| panic!("turn {turn}: it stays"));
    }
    // It takes all memories and tables that there are.
    guest.writes = false;
    let reader = prepared(&scene, &guest.text()).await;
    let read = end(&scene.runtime.start(&reader, quiet()).unwrap()).await;
    assert_eq!(read, ExitStatus::Exited(0));
}

/// Numbers that look random, the same in every run (a linear congruential generator, MMIX's constants).
fn draws() -> impl FnMut() -> usize {
    let mut state = 1u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    }
}

/// Writes lines for ever.
const WRITES: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\02\00\00\00") (data (i32.const 16) "x\n")
    (func (export "_start") (loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))))"#;
