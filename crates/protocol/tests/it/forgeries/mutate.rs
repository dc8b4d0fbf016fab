//! Forgeries of one signed message: what somebody could make of it who has every byte and every
//! key but the right one, and what its own author could not have meant.

use std::ops::Range;

use rand_foca::{RngExt as _, rngs::SmallRng};
use realm_identity::{SecretKey, Signer as _};

use super::host::{BYSTANDER, FOREIGNER, HEIR, OWNER, REVOKED, SENDER, STRANGER, public, secret};
use crate::cbor::{self, Value};

/// Ways to forge. [`Class::is_named`] says which are always held against the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// One byte is another one.
    Flipped,
    /// The end is missing.
    Cut,
    /// Something follows.
    Longer,
    /// One field is another one of its type, under the old signature.
    FieldChanged,
    /// The same, signed by somebody else in the author's name.
    WrongKey,
    /// The same, by somebody else in his own name.
    WrongAuthor,
    /// The author's signature, made for another kind of message.
    OtherDomain,
    /// Signed by the author, in another encoding than the one.
    NotCanonical,
    /// A field, an element or a key twice.
    Duplicated,
    /// Forms of a signature that lenient verifiers take.
    SignatureEdge,
    /// Signed by the author, about what this kind cannot be about.
    WrongTarget,
    /// Signed by the author, at another place of the chain: sequence, parent, state.
    WrongPlace,
    /// Signed by the author, for a time that is over or has not come.
    WrongTime,
    /// Bytes that belong to it are others.
    WrongPayload,
    /// Genuine, of another realm.
    ForeignRealm,
    /// Genuine, and older than what is known.
    Stale,
    /// Genuine, and known.
    Replayed,
}

impl Class {
    pub const ALL: [Self; 17] = [
        Self::Flipped,
        Self::Cut,
        Self::Longer,
        Self::FieldChanged,
        Self::WrongKey,
        Self::WrongAuthor,
        Self::OtherDomain,
        Self::NotCanonical,
        Self::Duplicated,
        Self::SignatureEdge,
        Self::WrongTarget,
        Self::WrongPlace,
        Self::WrongTime,
        Self::WrongPayload,
        Self::ForeignRealm,
        Self::Stale,
        Self::Replayed,
    ];

    /// Whether nobody honest would send it. Of the others some are passed over in silence: an honest
    /// peer may be behind, or may not know whom this node trusts.
    pub fn is_named(self) -> bool {
        !matches!(
            self,
            Self::WrongAuthor
                | Self::WrongPlace
                | Self::ForeignRealm
                | Self::Stale
                | Self::Replayed
        )
    }
}

/// Every domain that something is signed for. A test compares it with the sources.
pub const DOMAINS: [&str; 12] = [
    "claim",
    "consent",
    "entry",
    "genesis",
    "graft",
    "heads",
    "invite",
    "join",
    "node-report",
    "sealing",
    "status",
    "witness",
];

/// Makes a message of one of its parts.
pub type Wrap = dyn Fn(&[u8]) -> Vec<u8>;

/// One signed part of a message, and the message around it.
pub struct Part {
    pub domain: &'static str,
    pub bytes: Vec<u8>,
    pub signer: SecretKey,
    /// Where in the bytes the author stands: indexes into arrays, or into the pairs of maps.
    pub author: &'static [usize],
    /// Whose own word counts for nothing here.
    pub others: Vec<u64>,
    /// The message with this part, as on the wire, in it. Parts around it are signed anew.
    pub wrap: Box<Wrap>,
}

impl Part {
    /// The same, said by `other` in his own name.
    pub fn said_by(&self, other: u64) -> Vec<u8> {
        let bytes = cbor::write(&by(cbor::read(&self.bytes), self.author, other));
        let signature = signature(self.domain, &bytes, &secret(other));
        (self.wrap)(&envelope(&bytes, &signature))
    }
}

/// Everybody but the author.
const SIGNERS: [u64; 7] = [SENDER, BYSTANDER, REVOKED, STRANGER, OWNER, HEIR, FOREIGNER];

pub fn envelope(bytes: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut wire = minicbor::Encoder::new(Vec::new());
    let written = wire.array(2).and_then(|wire| wire.bytes(bytes));
    written.and_then(|wire| wire.bytes(signature)).unwrap();
    wire.into_writer()
}

pub fn signature(domain: &str, bytes: &[u8], key: &SecretKey) -> [u8; 64] {
    let input = [b"realm/v1/", domain.as_bytes(), b"\0", bytes].concat();
    let Ok(signature) = key.sign(&input);
    signature.to_bytes()
}

/// The signed bytes in an envelope.
pub fn opened(wire: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = minicbor::Decoder::new(wire);
    decoder.array().ok()?;
    decoder.bytes().ok().map(<[u8]>::to_vec)
}

/// Changes of a whole message, whatever is inside.
pub fn of_wire(wire: &[u8], rng: &mut SmallRng, found: &mut Vec<(Class, Vec<u8>)>) {
    for at in 0..wire.len() {
        let mut flipped = wire.to_vec();
        flipped[at] ^= rng.random_range(1..=255u8);
        found.push((Class::Flipped, flipped));
        found.push((Class::Cut, wire[..at].to_vec()));
    }
    for more in [vec![0], vec![0xf6], wire.to_vec(), vec![0xff; 100]] {
        found.push((Class::Longer, [wire, &more].concat()));
    }
}

/// Changes of one signed part.
pub fn of_part(part: &Part, rng: &mut SmallRng, found: &mut Vec<(Class, Vec<u8>)>) {
    let old = signature(part.domain, &part.bytes, &part.signer);
    let mut add = |class, wire: Vec<u8>| found.push((class, (part.wrap)(&wire)));
    let signed = |bytes: &[u8], who: &SecretKey| {
        let signature = signature(part.domain, bytes, who);
        envelope(bytes, &signature)
    };
    let tree = cbor::read(&part.bytes);
    let strangers = SIGNERS.map(secret).into_iter();
    let strangers: Vec<_> = strangers
        .filter(|key| key.public() != part.signer.public())
        .collect();
    for changed in changes(&tree, rng) {
        let bytes = cbor::write(&changed);
        if bytes == part.bytes {
            continue;
        }
        add(Class::FieldChanged, envelope(&bytes, &old));
        let key = &strangers[rng.random_range(0..strangers.len())];
        // Under a name that it may speak for, it would be genuine.
        if by_whom(&changed, part.author) != Some(&key.public().as_bytes()[..]) {
            add(Class::WrongKey, signed(&bytes, key));
        }
        if !part.others.is_empty() {
            let other = part.others[rng.random_range(0..part.others.len())];
            let bytes = cbor::write(&by(changed, part.author, other));
            add(Class::WrongAuthor, signed(&bytes, &secret(other)));
        }
    }
    for key in &strangers {
        add(Class::WrongKey, signed(&part.bytes, key));
    }
    for other in &part.others {
        let bytes = cbor::write(&by(tree.clone(), part.author, *other));
        // His name under the author's signature, and under his own.
        add(Class::FieldChanged, envelope(&bytes, &old));
        add(Class::WrongAuthor, signed(&bytes, &secret(*other)));
    }
    for domain in DOMAINS.into_iter().filter(|domain| *domain != part.domain) {
        let signature = signature(domain, &part.bytes, &part.signer);
        add(Class::OtherDomain, envelope(&part.bytes, &signature));
    }
    let Ok(bare) = part.signer.sign(&part.bytes);
    add(Class::OtherDomain, envelope(&part.bytes, &bare.to_bytes()));
    for bytes in encodings(&part.bytes) {
        add(Class::NotCanonical, signed(&bytes, &part.signer));
    }
    for bytes in doubled(&tree) {
        add(Class::Duplicated, signed(&bytes, &part.signer));
        add(Class::Duplicated, envelope(&bytes, &old));
    }
    for forged in edges(&old) {
        add(Class::SignatureEdge, envelope(&part.bytes, &forged));
    }
    add(Class::SignatureEdge, envelope(&part.bytes, &old[..63]));
    add(
        Class::SignatureEdge,
        envelope(&part.bytes, &[&old[..], &[0]].concat()),
    );
}

/// The message in the name of `other`.
fn by(mut tree: Value, path: &[usize], other: u64) -> Value {
    let mut at = &mut tree;
    for index in path {
        // A field that is gone has no author to change.
        at = match at {
            Value::Array(items) if *index < items.len() => &mut items[*index],
            Value::Map(pairs) if *index < pairs.len() => &mut pairs[*index].1,
            _ => return tree,
        };
    }
    *at = Value::Bytes(public(other).as_bytes().to_vec());
    tree
}

fn by_whom<'v>(tree: &'v Value, path: &[usize]) -> Option<&'v [u8]> {
    let at = path.iter().try_fold(tree, |at, index| match at {
        Value::Array(items) => items.get(*index),
        Value::Map(pairs) => pairs.get(*index).map(|(_, value)| value),
        _ => None,
    });
    match at? {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// Every form of `value` with one leaf replaced by other values of its type, or an element gone,
/// there once more, or moved.
fn changes(value: &Value, rng: &mut SmallRng) -> Vec<Value> {
    match value {
        Value::Unsigned(number) => {
            let random = rng.random_range(0..u64::MAX);
            let near = [number.wrapping_add(1), number.wrapping_sub(1)];
            let far = [0, u64::MAX, u64::MAX - 1, random];
            near.into_iter().chain(far).map(Value::Unsigned).collect()
        }
        Value::Bytes(bytes) => {
            let mut changed = vec![Value::Null];
            if bytes.is_empty() {
                changed.push(Value::Bytes(vec![0]));
                return changed;
            }
            let mut flipped = bytes.clone();
            let at = rng.random_range(0..bytes.len());
            flipped[at] ^= 1 << rng.random_range(0..8);
            changed.push(Value::Bytes(flipped));
            changed.push(Value::Bytes(bytes[..bytes.len() - 1].to_vec()));
            if bytes.len() == 32 {
                let who = SIGNERS[rng.random_range(0..SIGNERS.len())];
                changed.push(Value::Bytes(public(who).as_bytes().to_vec()));
                changed.push(Value::Bytes(
                    rng.random_range(1..u64::MAX).to_be_bytes().repeat(4),
                ));
                changed.push(Value::Bytes(vec![0; 32]));
            }
            changed
        }
        Value::Array(items) => list_changes(items, rng)
            .into_iter()
            .map(Value::Array)
            .collect(),
        Value::Map(pairs) => {
            let values: Vec<_> = pairs.iter().map(|(_, value)| value.clone()).collect();
            let mut found = Vec::new();
            for (index, value) in values.iter().enumerate() {
                for changed in changes(value, rng) {
                    let mut pairs = pairs.clone();
                    pairs[index].1 = changed;
                    found.push(Value::Map(pairs));
                }
                let mut fewer = pairs.clone();
                fewer.remove(index);
                found.push(Value::Map(fewer));
            }
            found
        }
        other => cbor::changes(other),
    }
}

fn list_changes(items: &[Value], rng: &mut SmallRng) -> Vec<Vec<Value>> {
    let mut found = vec![[items, &[Value::Null]].concat()];
    for (index, item) in items.iter().enumerate() {
        for changed in changes(item, rng) {
            let mut items = items.to_vec();
            items[index] = changed;
            found.push(items);
        }
        let mut fewer = items.to_vec();
        fewer.remove(index);
        found.push(fewer);
        let mut moved = items.to_vec();
        moved.swap(index, (index + 1) % items.len());
        found.push(moved);
    }
    found
}

/// The message with each element of an array, and each key of a map, there twice.
fn doubled(value: &Value) -> Vec<Vec<u8>> {
    let twice = |value: &Value| -> Vec<Value> {
        match value {
            Value::Array(items) => (0..items.len())
                .map(|index| {
                    let mut items = items.clone();
                    items.insert(index, items[index].clone());
                    Value::Array(items)
                })
                .collect(),
            Value::Map(pairs) => (0..pairs.len())
                .map(|index| {
                    let mut pairs = pairs.clone();
                    pairs.insert(index, pairs[index].clone());
                    Value::Map(pairs)
                })
                .collect(),
            _ => Vec::new(),
        }
    };
    twice(value).iter().map(cbor::write).collect()
}

/// Other encodings of the same value: each length in more bytes than it needs, lists without a
/// length, and something behind it.
fn encodings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = vec![[bytes, &[0]].concat(), [bytes, bytes].concat()];
    for head in heads(bytes) {
        let (first, rest) = (bytes[head.start], &bytes[head.start + 1..head.end]);
        let wider = match first & 0x1f {
            short @ 0..24 if first >> 5 != 7 => vec![first & 0xe0 | 24, short],
            24 if first >> 5 != 7 => [&[first + 1, 0], rest].concat(),
            25 => [&[first + 1, 0, 0], rest].concat(),
            26 => [&[first + 1, 0, 0, 0, 0], rest].concat(),
            _ => continue,
        };
        found.push([&bytes[..head.start], &wider, &bytes[head.end..]].concat());
    }
    let open = bytes[0] & 0xe0 | 0x1f;
    let first = heads(bytes)[0].clone();
    found.push([&[open], &bytes[first.end..], &[0xff]].concat());
    found
}

/// Where the head of each item stands.
fn heads(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let (major, short) = (bytes[at] >> 5, bytes[at] & 0x1f);
        let width = match short {
            0..24 => 0,
            more => 1usize << (more - 24),
        };
        let head = at..at + 1 + width;
        let argument = bytes[at + 1..head.end].iter();
        let argument = argument.fold(0u64, |all, byte| all << 8 | u64::from(*byte));
        let length = if width == 0 {
            u64::from(short)
        } else {
            argument
        };
        at = head.end;
        if matches!(major, 2 | 3) {
            at += usize::try_from(length).unwrap();
        }
        found.push(head);
    }
    found
}

/// The order of the curve's prime subgroup, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Points of small order, some of them in a second encoding, and one of order eight.
const SMALL: [&str; 6] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

/// Signatures made from a good one that a lenient verifier may take.
fn edges(good: &[u8; 64]) -> Vec<[u8; 64]> {
    let mut found = vec![[0; 64], [0xff; 64]];
    // S once and twice more around: the same scalar, written differently.
    let mut again = *good;
    for _ in 0..2 {
        let mut carry = 0;
        for (byte, add) in again[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        found.push(again);
    }
    for bit in [0x20, 0x40, 0x80] {
        let mut high = *good;
        high[63] |= bit;
        found.push(high);
    }
    // The sign of R, R of small order with the good S and with none.
    let mut negative = *good;
    negative[31] ^= 0x80;
    found.push(negative);
    for text in SMALL {
        let mut small = *good;
        let point = hex(text);
        small[..32].copy_from_slice(&point);
        found.push(small);
        small[32..].fill(0);
        found.push(small);
        small[32..].copy_from_slice(&ORDER);
        found.push(small);
    }
    found.retain(|forged| forged != good);
    found
}

fn hex(text: &str) -> [u8; 32] {
    let byte = |at: usize| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap();
    std::array::from_fn(byte)
}
