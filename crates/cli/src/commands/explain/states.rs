//! The words for how nodes, components and cells are.

use super::{Entry, Of, entry};

pub const ENTRIES: &[Entry] = &[
    entry(
        "backoff",
        Of::State,
        "A cell has ended and is started again after a pause, which grows with each try that fails.",
        "See why it ends: realm status NAME, realm logs NAME --previous.",
    ),
    entry(
        "compiling",
        Of::State,
        "A cell whose program is compiled for the first time on its node.",
        "Wait. Large programs take minutes.",
    ),
    entry(
        "degraded",
        Of::State,
        "A component of which some cells run as asked, and some do not.",
        "See which and why: realm status NAME.",
    ),
    entry(
        "done",
        Of::State,
        "A component or cell that ended with exit code 0, and is not started again; or a library, which never runs.",
        "Nothing. To run it once more: realm restart NAME.",
    ),
    entry(
        "draining",
        Of::State,
        "A node that is being emptied: nothing new starts there, and what can run elsewhere goes there.",
        "Take it up again: realm nodes undrain NAME.",
    ),
    entry(
        "failed",
        Of::State,
        "A component or cell that ended with a failure: it is not started again, or keeps crashing.",
        "See why: realm status NAME, realm logs NAME --previous.",
    ),
    entry(
        "incompatible",
        Of::State,
        "A node whose version of realm does not understand the newest intents: it goes on with what was asked before them.",
        "Install the version there that signed them: docs/operating/upgrade.md.",
    ),
    entry(
        "lost",
        Of::State,
        "A node that does not answer. What runs there is not known.",
        "Look at the machine and its line: realm nodes show NAME.",
    ),
    entry(
        "pending",
        Of::State,
        "A component that no node has begun to start; or a node that asks to join.",
        "Of a component: wait, or see why: realm status NAME. Of a node: realm nodes approve NAME.",
    ),
    entry(
        "pulling",
        Of::State,
        "A cell whose program is fetched from other nodes.",
        "Wait; if it stays, see why: realm status NAME.",
    ),
    entry(
        "ready",
        Of::State,
        "A node that is approved, answers, and takes work.",
        "Nothing.",
    ),
    entry(
        "revoked",
        Of::State,
        "A node whose key is kept out for good.",
        "Nothing; to use the machine again, give it a new key and let it join.",
    ),
    entry(
        "running",
        Of::State,
        "A component of which all cells run as asked; or a cell that runs, without a health check for a second at least.",
        "Nothing.",
    ),
    entry(
        "starting",
        Of::State,
        "A component or cell that is on its way: its program is fetched, compiled or started, or started again.",
        "Wait; if it stays, see why: realm status NAME.",
    ),
    entry(
        "stopped",
        Of::State,
        "A component or cell that is not to run, and does not.",
        "To let it run again: realm start NAME.",
    ),
    entry(
        "waiting",
        Of::State,
        "A component that has no place: no node may, or can, run it now.",
        "See why: realm status NAME.",
    ),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use realm_rpc::status::{CellState, ComponentState, NodeState};
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_word_of_a_status_is_explained_once() {
        // Those of nodes, of components, and what cells have beside these.
        let words = "pending ready draining lost incompatible revoked \
                     starting running degraded done stopped failed waiting \
                     pulling compiling backoff";
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.sort_unstable();
        let explained: Vec<&str> = ENTRIES.iter().map(|entry| entry.code).collect();
        assert_eq!(explained, words);
        for word in words {
            let read = |word: &str| Value::from(word);
            let node: NodeState = serde_json::from_value(read(word)).unwrap();
            let component: ComponentState = serde_json::from_value(read(word)).unwrap();
            let cell: CellState = serde_json::from_value(read(word)).unwrap();
            let known = node != NodeState::Unknown
                || component != ComponentState::Unknown
                || cell != CellState::Unknown;
            assert!(known, "no status has {word}");
        }
    }
}
