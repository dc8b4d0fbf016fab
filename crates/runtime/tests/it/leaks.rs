//! What one cell leaves in its slot, the next one does not find.

use realm_manifest::Limits;
use realm_runtime::ExitStatus;

use crate::scene::scene;

/// How often a slot changes hands.
const TURNS: usize = 60;
/// Memory of each: 8 MiB, half of it grown.
const PAGES: u32 = 64;

/// Fills its memory, its table and a global.
fn writer() -> String {
    format!(
        r#"(module (memory {PAGES} 128) (table $t 1000 funcref) (global $g (mut i64) (i64.const 0)) (func $f) (elem declare func $f)
        (func (export "_start")
            (drop (memory.grow (i32.const {PAGES})))
            (memory.fill (i32.const 0) (i32.const 0xa5) (i32.mul (memory.size) (i32.const 65536)))
            (table.fill $t (i32.const 0) (ref.func $f) (i32.const 1000))
            (global.set $g (i64.const 0xa5a5a5a5))))"#
    )
}

/// Traps if there is anything in its memory, its table or its global; `data` is there from the start.
fn reader(data: &str) -> String {
    format!(
        r#"(module (memory {PAGES} 128) (table $t 1000 funcref) (global $g (mut i64) (i64.const 0)) {data}
        (func (export "_start") (local $at i32)
            (drop (memory.grow (i32.const {PAGES})))
            (if (i64.ne (global.get $g) (i64.const 0)) (then unreachable))
            (loop
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if 0 (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
            (local.set $at (i32.const 0))
            (loop
                (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $at) (i32.const 1000))))))"#
    )
}

#[tokio::test]
async fn a_slot_is_empty_for_its_next_cell() {
    let scene = scene();
    let (writer, reader_of_all) = (writer(), reader(""));
    for turn in 0..TURNS {
        let wrote = scene.run(&writer, Limits::default()).await;
        assert_eq!(wrote, ExitStatus::Exited(0));
        let read = scene.run(&reader_of_all, Limits::default()).await;
        assert_eq!(read, ExitStatus::Exited(0), "turn {turn}");
    }
    // It would have seen it, at either end and in the table.
    for data in [
        r#"(data (i32.const 0) "x")"#,
        r#"(data (i32.const 4194303) "x")"#,
        "(func $f) (elem (i32.const 999) $f)",
    ] {
        let read = scene.run(&reader(data), Limits::default()).await;
        assert!(matches!(read, ExitStatus::Trapped { .. }), "{data}: {read}");
    }
}
