//! Programs of random calls: which functions there are, what each wants, and code that calls them with it, or with something else.

use std::fmt::Write;

use crate::malformed::Dice;

/// Calls of one program, at most.
const CALLS: usize = 40;
/// Where things are in memory: results, vectors, subscriptions, handles, texts, bytes.
const RETURN: usize = 512;
const VECTORS: usize = 1024;
const SUBSCRIPTIONS: usize = 2048;
const SLOTS: usize = 3072;
const TEXTS: usize = 4096;
const BYTES: usize = 8192;
const SLOTS_EACH: usize = 4;
const EDGES: [i64; 12] = [
    0,
    -1,
    1,
    i32::MIN as i64,
    i32::MAX as i64,
    i64::MIN,
    i64::MAX,
    65_535,
    131_070,
    131_072,
    1 << 31,
    1 << 33,
];
const PATHS: [&str; 14] = [
    "file",
    "dir",
    "dir/new",
    "new",
    "out",
    "out/secret",
    "..",
    "../secret",
    "/etc/passwd",
    "",
    "dir/../..",
    "nul\\00nul",
    "\\ff\\fe",
    "localhost",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A file descriptor: most often one that there is.
    Descriptor,
    /// Flags, a count or a case: a small number.
    Small,
    Long,
    Pointer,
    /// Pointer and length.
    Path,
    Buffer,
    /// Pointer and count, as preview 1 has them.
    Vectors,
    /// A case of an option or another small choice: most often one that there is.
    Case,
    /// Of a socket, as the component model flattens it; this port is there.
    Address(u16),
    /// A list of handles of this kind.
    Handles(usize),
    /// Subscriptions, room for events, how many there are, and where to say how many it was.
    Poll,
    /// Of this kind of resource; it is gone after the call if it is given away.
    Handle {
        kind: usize,
        given: bool,
    },
    /// Where the result goes.
    Return,
}

impl Want {
    pub fn types(self) -> &'static str {
        match self {
            Self::Descriptor
            | Self::Small
            | Self::Case
            | Self::Pointer
            | Self::Handle { .. }
            | Self::Return => "i32 ",
            Self::Path | Self::Buffer | Self::Vectors | Self::Handles(_) => "i32 i32 ",
            Self::Poll => "i32 i32 i32 i32 ",
            Self::Address(_) => "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 ",
            Self::Long => "i64 ",
        }
    }
}

/// Where a handle of this kind is after a call.
#[derive(Debug, Clone, Copy)]
pub enum Give {
    Directly(usize),
    /// In the result at this place, if its first byte is this.
    If {
        first: u32,
        at: usize,
        kind: usize,
    },
    /// In the result at this place.
    At {
        at: usize,
        kind: usize,
    },
    /// The first of a list.
    Listed(usize),
}

#[derive(Debug, Clone)]
pub struct Callee {
    pub name: String,
    pub wants: Vec<Want>,
    /// Whether it returns a number.
    pub returns: bool,
    pub gives: Vec<Give>,
}

#[derive(Debug)]
pub struct Program {
    /// Its data.
    pub fields: String,
    /// The code of the entry.
    pub body: String,
}

/// A program that calls some of these, each by its name. It says the number of each after it came back, by `$say`.
pub fn program(dice: &mut Dice, callees: &[Callee]) -> Program {
    let count = 1 + dice.below(CALLS);
    let chosen: Vec<_> = (0..count).map(|_| dice.below(callees.len())).collect();
    // What gives handles comes first, that the others have some.
    let makers = (0..callees.len()).filter(|which| !callees[*which].gives.is_empty());
    let makers: Vec<_> = makers.filter(|_| dice.below(4) > 0).collect();
    let calls: String = makers
        .into_iter()
        .chain(chosen)
        .map(|which| call(dice, which, &callees[which]))
        .collect();
    let body = match dice.below(8) {
        0 => format!("(loop {calls} (br 0))"),
        1 => format!("{calls} (loop (br 0))"),
        2 => format!(
            "(local $left i32) (local.set $left (i32.const 200))
            (loop {calls} (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
        ),
        3 => format!("{calls} (loop (drop (memory.grow (i32.const 16))) (br 0))"),
        _ => calls,
    };
    Program {
        fields: data(dice),
        body,
    }
}

fn segment(at: usize, bytes: &[u8]) -> String {
    let escaped = bytes.iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "\\{byte:02x}");
        all
    });
    format!("(data (i32.const {at}) \"{escaped}\")\n")
}

/// Vectors, subscriptions, texts and bytes.
fn data(dice: &mut Dice) -> String {
    let mut vectors = Vec::new();
    for _ in 0..16 {
        let (at, length) = match dice.below(24) {
            0 => (dice.below(1 << 32), dice.below(1 << 32)),
            _ => (BYTES + dice.below(4096), dice.below(512)),
        };
        vectors.extend((at as u32).to_le_bytes());
        vectors.extend((length as u32).to_le_bytes());
    }
    let mut subscriptions = Vec::new();
    for _ in 0..8 {
        let mut one = dice.bytes(48);
        one[8] = dice.below(3) as u8;
        // A clock that is there, and a wait that ends; or a descriptor.
        if dice.below(8) > 0 {
            one[16..20].copy_from_slice(&(dice.below(3) as u32).to_le_bytes());
            one[24..32].copy_from_slice(&(dice.below(2_000_000) as u64).to_le_bytes());
            one[40..42].fill(0);
        }
        subscriptions.extend(one);
    }
    let texts: String = (0..PATHS.len())
        .map(|which| {
            format!(
                "(data (i32.const {}) \"{}\")\n",
                TEXTS + 64 * which,
                PATHS[which]
            )
        })
        .collect();
    format!(
        "{}{}{}{texts}",
        segment(VECTORS, &vectors),
        segment(SUBSCRIPTIONS, &subscriptions),
        segment(BYTES, &dice.bytes(1024)),
    )
}

fn slot(kind: usize, which: usize) -> usize {
    SLOTS + 4 * (SLOTS_EACH * kind + which)
}

fn call(dice: &mut Dice, number: usize, callee: &Callee) -> String {
    let mut handles = Vec::new();
    let mut arguments = String::new();
    for want in &callee.wants {
        let argument = match *want {
            Want::Handle { kind, given } => match dice.below(48) {
                0 | 1 => value(dice, *want),
                _ => {
                    let slot = slot(kind, dice.below(SLOTS_EACH));
                    handles.push((slot, given));
                    format!("(i32.load (i32.const {slot}))")
                }
            },
            want => value(dice, want),
        };
        arguments.push_str(&argument);
        arguments.push('\n');
    }
    let called = format!("(call ${} {arguments})", callee.name);
    let mut code = match callee.gives.first() {
        Some(Give::Directly(kind)) => {
            let slot = slot(*kind, dice.below(SLOTS_EACH));
            format!("(i32.store (i32.const {slot}) {called})")
        }
        _ if callee.returns => format!("(drop {called})"),
        _ => called,
    };
    // Some use what they gave away.
    for (slot, _) in handles.iter().filter(|(_, given)| *given) {
        if dice.below(16) > 0 {
            let _ = write!(code, "(i32.store (i32.const {slot}) (i32.const 0))");
        }
    }
    for give in &callee.gives {
        let (kind, holds, load) = match *give {
            Give::Directly(_) => continue,
            Give::If { first, at, kind } => (
                kind,
                format!("(i32.eq (i32.load8_u (i32.const {RETURN})) (i32.const {first}))"),
                format!("(i32.load (i32.const {}))", RETURN + at),
            ),
            Give::At { at, kind } => (
                kind,
                "(i32.const 1)".to_owned(),
                format!("(i32.load (i32.const {}))", RETURN + at),
            ),
            Give::Listed(kind) => (
                kind,
                format!("(i32.load (i32.const {}))", RETURN + 4),
                format!("(i32.load (i32.load (i32.const {RETURN})))"),
            ),
        };
        let slot = slot(kind, dice.below(SLOTS_EACH));
        let _ = write!(
            code,
            "(if {holds} (then (i32.store (i32.const {slot}) {load})))"
        );
    }
    let _ = write!(code, "(call $say (i32.const {number}))");
    // Nothing of the kind may be there. Then most leave it.
    for (slot, _) in handles {
        if dice.below(24) > 0 {
            code = format!("(if (i32.load (i32.const {slot})) (then {code}))");
        }
    }
    code + "\n"
}

fn value(dice: &mut Dice, want: Want) -> String {
    let edge = |dice: &mut Dice| EDGES[dice.below(EDGES.len())];
    let i32s = |numbers: &[i64]| -> String {
        let number = |number: &i64| format!("(i32.const {}) ", *number as i32);
        numbers.iter().map(number).collect()
    };
    let wild = dice.below(64) == 0;
    match want {
        Want::Descriptor => match dice.below(8) {
            0 => i32s(&[edge(dice)]),
            1..4 => i32s(&[dice.below(9) as i64]),
            _ => i32s(&[3]),
        },
        Want::Small => match dice.below(16) {
            0 => i32s(&[edge(dice)]),
            1 => i32s(&[1 << dice.below(32)]),
            2..5 => i32s(&[dice.below(9) as i64]),
            _ => i32s(&[dice.below(2) as i64]),
        },
        Want::Long => match dice.below(3) {
            0 => format!("(i64.const {})", edge(dice)),
            1 => "(i64.const -1)".to_owned(),
            _ => format!("(i64.const {})", dice.below(100_000)),
        },
        // One of any kind, or of none.
        Want::Handle { .. } if wild => i32s(&[edge(dice)]),
        Want::Handle { .. } => i32s(&[dice.below(24) as i64]),
        Want::Case if !wild => i32s(&[dice.below(2) as i64]),
        Want::Case => i32s(&[edge(dice)]),
        Want::Address(port) => {
            let mut parts = [0; 12];
            let port = [port.into(), 0, dice.below(65_536) as i64][dice.below(3)];
            parts[..2].copy_from_slice(&[dice.below(8) as i64 / 7, port]);
            parts[2..6].copy_from_slice(&[127, 0, 0, dice.below(8) as i64 / 6]);
            parts[5] = 1 - parts[5];
            if wild {
                parts[dice.below(12)] = edge(dice);
            }
            i32s(&parts)
        }
        Want::Handles(kind) => i32s(&[slot(kind, 0) as i64, dice.below(SLOTS_EACH + 1) as i64]),
        Want::Pointer | Want::Return if wild => i32s(&[edge(dice)]),
        Want::Path | Want::Buffer | Want::Vectors if wild => {
            let (at, length) = (edge(dice), edge(dice));
            i32s(&[at, length])
        }
        Want::Pointer => i32s(&[(BYTES + 8 * dice.below(512)) as i64]),
        Want::Return => i32s(&[RETURN as i64]),
        Want::Path => {
            let which = dice.below(PATHS.len());
            let length = PATHS[which].replace("\\00", "0").replace("\\f", "");
            i32s(&[(TEXTS + 64 * which) as i64, length.len() as i64])
        }
        Want::Buffer => i32s(&[
            (BYTES + 8 * dice.below(512)) as i64,
            dice.below(4096) as i64,
        ]),
        Want::Vectors => i32s(&[(VECTORS + 8 * dice.below(12)) as i64, dice.below(5) as i64]),
        Want::Poll => i32s(&[
            (SUBSCRIPTIONS + 48 * dice.below(4)) as i64,
            (BYTES + 2048) as i64,
            if wild {
                edge(dice)
            } else {
                dice.below(5) as i64
            },
            RETURN as i64,
        ]),
    }
}
