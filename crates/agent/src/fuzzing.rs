//! What the fuzzer reaches of this crate: how it reads what it kept.

use std::path::Path;

use realm_identity::{SecretKey, Timestamp};
use realm_planner::State;
use realm_store::{DataDir, LedgerContents};

use crate::{
    PlannerFold, agent_file,
    ended::Ended,
    ledger,
    sealing::Sealing,
    start,
    trust::{self, Trust},
};

/// Names of the small files of a data directory, whose damage is noticed.
pub const STATE_FILES: [&str; 9] = [
    "node.key",
    "sealing.key",
    "sealing.cert",
    "owner.pin",
    "claim",
    "floor",
    "boot",
    "peers",
    "ended",
];

/// Starts from a data directory, as far as its small files go, and does so again.
///
/// # Panics
/// Where the second start finds something else than the first one left.
pub fn state(path: &Path) {
    let Ok(dir) = DataDir::open(path) else { return };
    let _ = agent_file::find(path, None);
    let Ok(node) = trust::node_key(&dir) else {
        return;
    };
    let again = trust::node_key(&dir).ok().map(|again| again.public());
    assert_eq!(again, Some(node.public()), "another node");
    if let Ok(sealing) = Sealing::load(&dir, &node) {
        let again = Sealing::load(&dir, &node).ok();
        let again = again.filter(|again| !again.renewed);
        let same = again.is_some_and(|again| again.certificate == sealing.certificate);
        assert!(same, "another sealing key");
    }
    if let Ok(trust) = Trust::load(&dir) {
        let pin = trust.pin();
        // A damaged claim is an error that names the file.
        let _ = trust.claim();
        let _ = trust.now();
        let again = Trust::load(&dir).ok();
        assert_eq!(again.map(|again| again.pin()), Some(pin), "another owner");
    }
    if let Ok(boot) = trust::next_boot(&dir, None) {
        let next = trust::next_boot(&dir, None).ok();
        assert!(
            next > Some(boot) || boot == u64::MAX,
            "a start without number"
        );
    }
    let _ = start::saved_peers(&dir.state_file("peers"));
    if let Ok(ended) = Ended::open(dir.state_file("ended")) {
        assert!(!ended.is_unwritten(), "nothing was forgotten");
    }
}

/// The node that starts from a ledger's contents: none where the pin or the realm is another one.
///
/// # Panics
/// Where its log holds what was not on disk.
pub fn restored(contents: &LedgerContents, key: &SecretKey) {
    let config = realm_protocol::Config {
        key: key.clone(),
        realm: None,
        pins: Vec::new(),
        boot_id: 1,
        seed: 1,
        mutation: None,
    };
    let now = realm_protocol::Now {
        wall: Timestamp(1),
        mono: 0,
    };
    let restored = ledger::restored(contents);
    let Ok(node) = realm_protocol::Node::new(config, PlannerFold, restored, now) else {
        return;
    };
    if let Some(log) = node.log() {
        assert!(
            log.len() <= contents.entries.len() + 1,
            "more than there was"
        );
        assert!(
            State::decode(&log.head().state).is_ok(),
            "a state that nobody reads"
        );
    }
}
