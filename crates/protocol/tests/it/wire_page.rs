//! Compares `docs/protocols/wire.md` with `limits.rs`.

use std::collections::BTreeMap;

use realm_protocol::limits;

const PAGE: &str = include_str!("../../../../docs/protocols/wire.md");
const SOURCE: &str = include_str!("../../src/limits.rs");
const SECTION: &str = "## Numbers of the protocol";

fn shown(name: &str, value: u64) -> String {
    match name {
        _ if name.ends_with("_MS") => format!("{} s", value / 1000),
        _ if name.contains("BYTES") && value.is_multiple_of(1 << 20) => {
            format!("{} MiB", value >> 20)
        }
        _ if name.contains("BYTES") && value.is_multiple_of(1 << 10) => {
            format!("{} KiB", value >> 10)
        }
        _ => value.to_string(),
    }
}

/// Names with their values, as this test was compiled.
macro_rules! values {
    ($($name:ident),+ $(,)?) => {
        BTreeMap::from([$((stringify!($name), limits::$name as u64)),+])
    };
}

#[test]
fn the_page_has_the_numbers_of_the_code() {
    let values = values![
        MAX_FRAME_BYTES,
        MAX_GOSSIP_BYTES,
        MAX_STATUS_BYTES,
        MAX_ENTRIES_BYTES,
        MAX_ENTRIES,
        MAX_STATE_BYTES,
        MAX_REPORT_BYTES,
        MAX_SAMPLES,
        MAX_TIPS,
        MAX_SIBLINGS,
        MAX_SWIM_BYTES,
        MAX_CLAIMS,
        MAX_CLAIMANTS,
        MAX_CLAIM_HASHES,
        MAX_CLAIMS_PER_FRAME,
        MAX_CLAIM_FRAMES,
        MAX_WAITING_CLAIMS,
        MAX_PENDING_JOINS,
        MAX_TOLD_JOINS,
        MAX_JOIN_BYTES,
        MAX_PEERS,
        MAX_MEMBERS,
        MAX_SUBMITS,
        MAX_EFFECTS,
        APPROVED_BURST,
        APPROVED_PER_SECOND,
        AUTHOR_BURST,
        AUTHOR_PER_SECOND,
        GOSSIP_BURST,
        GOSSIP_PER_SECOND,
        STRANGER_BURST,
        STRANGER_PER_SECOND,
    ];
    let declared: Vec<_> = SOURCE
        .split("pub const ")
        .skip(1)
        .filter_map(|rest| rest.split(':').next())
        .collect();
    let section = PAGE.split_once(SECTION).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    for name in &declared {
        let value = values
            .get(name)
            .unwrap_or_else(|| panic!("list {name} here"));
        let row = format!("| `limits::{name}` | {} |", shown(name, *value));
        assert!(section.contains(&row), "wire.md lacks: {row}");
    }
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    assert_eq!(rows.count(), declared.len(), "a row for each, once");
}
