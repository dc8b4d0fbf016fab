//! Programs that nobody wrote: generated ones, and real ones with faults. Each is refused, or runs within its limits.

use std::sync::Arc;

use realm_manifest::Limits;
use realm_runtime::{
    CellConfig, CompileError, ExitStatus, Flavour, LogRing, PrepareError, StartError, Stdio,
    inspect,
};
use sha2::{Digest, Sha256};

use crate::scene::{Scene, end, prebuilt, scene, wasm};

/// How many of each kind; a multiple of it by this variable.
const RUNS: u64 = 40;
const SPOILED: u64 = 1_500;
const TIMES_ENV: &str = "REALM_MALFORMED_TIMES";
/// Statements within statements, in generated code.
const DEPTH: u32 = 5;

pub fn times() -> u64 {
    std::env::var(TIMES_ENV).map_or(1, |times| times.parse().unwrap())
}

/// The same bytes for the same seed, everywhere.
pub struct Dice {
    seed: [u8; 32],
    drawn: u64,
}

impl Dice {
    pub fn new(what: &str, seed: u64) -> Self {
        let seed = Sha256::digest(format!("{what} {seed}")).into();
        Self { seed, drawn: 0 }
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 32);
        while bytes.len() < count {
            let block = [&self.seed[..], &self.drawn.to_le_bytes()].concat();
            bytes.extend(Sha256::digest(block));
            self.drawn += 1;
        }
        bytes.truncate(count);
        bytes
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let bytes = self.bytes(8).try_into().unwrap();
        usize::try_from(u64::from_le_bytes(bytes) % bound.max(1) as u64).unwrap()
    }
}

/// A module of functions that compute, store, grow, loop and call each other at random. It is well-formed.
fn module(seed: u64) -> Arc<[u8]> {
    let mut dice = Dice::new("module", seed);
    let functions = 1 + dice.below(6);
    let bodies: String = (0..functions)
        .map(|number| {
            let body = statements(&mut dice, DEPTH, functions);
            let value = value(&mut dice, DEPTH, functions);
            format!("(func $f{number} (param i32) (result i32) (local i32 i64) {body} {value})\n")
        })
        .collect();
    let pages = dice.below(300);
    wasm(&format!(
        r#"(module (memory (export "memory") {pages}) (table $t 4 funcref) (elem (i32.const 0) $f0) (type $v (func (param i32) (result i32)))
        (global $g (mut i32) (i32.const 7)) {bodies} (func (export "_start") (drop (call $f0 (i32.const {})))))"#,
        dice.below(1 << 31)
    ))
}

fn statements(dice: &mut Dice, depth: u32, functions: usize) -> String {
    (0..dice.below(4))
        .map(|_| statement(dice, depth, functions))
        .collect()
}

fn statement(dice: &mut Dice, depth: u32, functions: usize) -> String {
    let Some(depth) = depth.checked_sub(1) else {
        return "(nop)".to_owned();
    };
    let mut one = || value(dice, depth, functions);
    let (a, b, c) = (one(), one(), one());
    match dice.below(13) {
        0 => format!("(local.set 1 {a})"),
        1 => format!("(global.set $g {a})"),
        2 => format!("(i32.store {a} {b})"),
        3 => format!("(i64.store offset=65528 {a} (i64.extend_i32_u {b}))"),
        4 => format!("(memory.fill {a} {b} {c})"),
        5 => format!("(memory.copy {a} {b} {c})"),
        6 => format!(
            "(if {a} (then {}) (else {}))",
            statements(dice, depth, functions),
            statements(dice, depth, functions)
        ),
        7 => format!(
            "(block {} (br_if 0 {a}) {})",
            statements(dice, depth, functions),
            statements(dice, depth, functions)
        ),
        // These may never end.
        8 => format!(
            "(loop {} (br_if 0 {a}))",
            statements(dice, depth, functions)
        ),
        9 => format!("(drop (memory.grow {a}))"),
        10 => format!("(drop (table.grow $t (ref.null func) {a}))"),
        11 => format!("(table.fill $t {a} (ref.func $f0) {b})"),
        _ => format!("(drop {a})"),
    }
}

fn value(dice: &mut Dice, depth: u32, functions: usize) -> String {
    const BINARY: [&str; 12] = [
        "add", "sub", "mul", "div_s", "rem_u", "and", "xor", "shl", "rotl", "lt_s", "eq", "ge_u",
    ];
    const UNARY: [&str; 4] = ["clz", "popcnt", "eqz", "extend8_s"];
    const EDGES: [i32; 6] = [0, 1, -1, i32::MIN, i32::MAX, 65_536];
    let Some(depth) = depth.checked_sub(1) else {
        return match dice.below(3) {
            0 => format!("(i32.const {})", EDGES[dice.below(EDGES.len())]),
            1 => "(local.get 0)".to_owned(),
            _ => format!("(i32.const {})", dice.below(1 << 20)),
        };
    };
    let mut one = || value(dice, depth, functions);
    let (a, b) = (one(), one());
    match dice.below(9) {
        0 | 1 => format!("(i32.{} {a} {b})", BINARY[dice.below(BINARY.len())]),
        2 => format!("(i32.{} {a})", UNARY[dice.below(UNARY.len())]),
        3 => format!("(i32.load {a})"),
        4 => format!("(call $f{} {a})", dice.below(functions)),
        5 => format!("(call_indirect $t (type $v) {a} {b})"),
        6 => "(memory.size)".to_owned(),
        7 => "(global.get $g)".to_owned(),
        _ => format!("(i32.trunc_f64_s (f64.div (f64.convert_i32_s {a}) (f64.convert_i32_s {b})))"),
    }
}

/// Whether it ran; anything but a refusal with its reason, or an end of its own, fails.
async fn runs(scene: &Scene, bytes: &Arc<[u8]>, what: &str) -> bool {
    let prepared = match scene.runtime.prepare(bytes.clone(), Flavour::Fuel).await {
        Ok(prepared) => prepared,
        Err(
            PrepareError::Inspect(_)
            | PrepareError::Missing { .. }
            | PrepareError::NotYet { .. }
            | PrepareError::Limit(_)
            | PrepareError::Link(_)
            | PrepareError::Compile(CompileError::Bad { .. }),
        ) => return false,
        Err(error) => panic!("{what}: {error:?}"),
    };
    let mut config = CellConfig::new("test", Stdio::Log(LogRing::new()));
    config.limits = Limits {
        memory_max_mb: 16,
        fuel: 1_000_000,
        deadline_ms: Some(2_000),
        ..Limits::default()
    };
    let cell = match scene.runtime.start(&prepared, config) {
        Ok(cell) => cell,
        // A fault may take its entry away.
        Err(StartError::Library { .. }) => return false,
        Err(error) => panic!("{what}: {error:?}"),
    };
    match end(&cell).await {
        ExitStatus::Exited(_) | ExitStatus::Trapped { .. } | ExitStatus::LimitHit(_) => true,
        status => panic!("{what}: {status}"),
    }
}

#[tokio::test]
async fn generated_modules_are_refused_or_run_within_their_limits() {
    let scene = scene();
    let mut ran = 0;
    for seed in 0..RUNS * times() {
        ran += u64::from(runs(&scene, &module(seed), &format!("module {seed}")).await);
    }
    assert_eq!(ran, RUNS * times(), "all are well-formed");
    assert_eq!(scene.runtime.cells(), 0);
}

/// A real program with a fault or several.
fn spoiled(good: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(7) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = 0xff,
            2 => bytes.truncate(at.max(9)),
            // A large number where a length may stand.
            3 => {
                let end = (at + 5).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            4 => {
                let end = (at + dice.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + dice.below(256)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            // From the first kilobyte, where the structure is.
            _ => {
                let head = at % bytes.len().min(1024);
                bytes[head] = bytes[head].wrapping_add(1);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

const GUESTS: [&str; 5] = ["hello", "hello.p1", "hello-p3", "hello-http", "net-probe"];

#[test]
fn spoiled_programs_are_described_or_refused() {
    let guests = GUESTS.map(prebuilt);
    let mut refused = 0;
    for seed in 0..SPOILED * times() {
        let mut dice = Dice::new("spoiled", seed);
        let good = &guests[dice.below(guests.len())];
        refused += u64::from(inspect(&spoiled(good, &mut dice)).is_err());
    }
    // Not every byte counts, but most faults are noticed.
    assert!(refused * 4 > SPOILED * times(), "{refused} refused");
    // Every cut of a small one.
    for end in 0..2_000 {
        // A panic fails the test; that it may still be well-formed does not.
        let _ = inspect(&guests[1][..end]);
    }
}

#[tokio::test]
async fn spoiled_programs_are_refused_or_run_within_their_limits() {
    let scene = scene();
    let guests = GUESTS.map(prebuilt);
    let mut tried = 0;
    for seed in 0.. {
        if tried == RUNS / 2 * times() {
            break;
        }
        let mut dice = Dice::new("run", seed);
        let good = &guests[dice.below(3)];
        let bytes: Arc<[u8]> = spoiled(good, &mut dice).into();
        // What is refused at once was tried above.
        if inspect(&bytes).is_ok() {
            tried += 1;
            runs(&scene, &bytes, &format!("spoiled {seed}")).await;
        }
    }
    assert_eq!(scene.runtime.cells(), 0);
}
