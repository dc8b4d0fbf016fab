//! Every code is explained, and nothing else is.

use std::{collections::BTreeSet, path::Path};

use super::*;

/// Every code that the sources give to a reason or an alarm.
fn given(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            given(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // The constants are those of the module of reasons.
            let constants = path.ends_with("agent/src/reason.rs").then_some("&str = ");
            for start in ["reason(", "code: "].into_iter().chain(constants) {
                let uses = text.split(start).skip(1);
                let codes =
                    uses.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
                found.extend(codes.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_code_is_explained_once() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut codes = BTreeSet::new();
    for name in ["agent", "planner"] {
        given(&crates.join(name).join("src"), &mut codes);
    }
    assert!(
        codes.contains("no-room") && codes.contains("trap"),
        "{codes:?}"
    );
    let mut errors: BTreeSet<String> = ExitCode::TABLE
        .map(|(code, _)| code.name().to_owned())
        .into();
    errors.extend(realm_rpc::ErrorCode::names().map(str::to_owned));
    errors.remove("ok");
    let explained_errors: BTreeSet<String> = ENTRIES
        .iter()
        .filter(|entry| matches!(entry.of, Of::Error))
        .map(|entry| entry.code.to_owned())
        .collect();
    // One word may be a cell's and an error's, and means another thing then.
    assert_eq!(explained_errors, errors);
    codes.extend(errors);
    let explained: BTreeSet<String> = ENTRIES.iter().map(|entry| entry.code.to_owned()).collect();
    let once: BTreeSet<_> = ENTRIES
        .iter()
        .map(|entry| (entry.code, entry.of.name()))
        .collect();
    assert_eq!(once.len(), ENTRIES.len(), "one twice");
    let missing: Vec<_> = codes.difference(&explained).collect();
    assert!(missing.is_empty(), "not explained: {missing:?}");
    let stale: Vec<_> = explained.difference(&codes).collect();
    assert!(stale.is_empty(), "nothing gives these: {stale:?}");
}

#[test]
fn operators_read_of_every_alarm_and_of_no_other() {
    let page = include_str!("../../../../../docs/operating/alarms.md");
    let (_, table) = page.split_once("| code | what happened").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows = table.lines().filter_map(|row| row.strip_prefix("| `"));
    let told: Vec<&str> = rows.map(|row| row.split_once("` | ").unwrap().0).collect();
    let alarms: BTreeSet<&str> = ENTRIES
        .iter()
        .filter(|entry| matches!(entry.of, Of::Alarm))
        .map(|entry| entry.code)
        .collect();
    assert_eq!(told.len(), alarms.len(), "one twice: {told:?}");
    assert_eq!(BTreeSet::from_iter(told), alarms);
}

#[test]
fn the_list_has_whole_sentences() {
    let first = first_sentence("It has not answered for 1.5 seconds. Nobody knows more.");
    assert_eq!(first, "It has not answered for 1.5 seconds.");
    for entry in all() {
        let first = first_sentence(entry.means);
        assert!(first.ends_with('.') && first.len() > 10, "{first:?}");
    }
}

#[test]
fn who_mistypes_a_code_is_told_the_nearest() {
    let help = unknown("NOROOM").help.unwrap();
    assert!(help.starts_with("did you mean no-room?"), "{help}");
    assert_eq!(
        unknown("weather").help.unwrap(),
        "see them all: realm explain"
    );
}
