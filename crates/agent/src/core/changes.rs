//! What the owner wants differently, as events: each new entry of the log in a few words.

use realm_manifest::{gist, payload::Payload};
use realm_protocol::Now;

use super::Core;
use crate::VERSION;

/// Entries told one by one. More at once means that this node was away; the log has them all.
const TOLD_MAX: u64 = 16;

impl Core {
    /// Tells that this agent runs, and since where in the log.
    pub(super) fn tell_start(&self, now: Now) {
        let revision = self.state.as_ref().map(|state| state.revision);
        let message = match revision {
            Some(revision) => format!("{VERSION} runs, from revision {revision} on"),
            None => format!("{VERSION} runs, in no realm yet"),
        };
        let name = self.reporter.name();
        self.events.record(now.wall, "began", name, message);
    }

    /// Tells the entries after revision `before` up to `head`, which is on disk.
    pub(super) fn tell_changes(&self, before: u64, head: u64, now: Now) {
        let Some(log) = self.node.log() else { return };
        // A log may begin at a checkpoint.
        let first = log.agreed(before.saturating_add(1)).next();
        let Some(mut from) = first.map(|(entry, _)| entry.seq) else {
            return;
        };
        if let Some(last) = head.checked_sub(TOLD_MAX).filter(|last| *last >= from) {
            let message = format!("revisions {from} to {last}: see them with realm history");
            self.events
                .record(now.wall, "changed", "realm".to_owned(), message);
            from = last + 1;
        }
        let entries = log.agreed(from);
        for (entry, payload) in entries.take_while(|(entry, _)| entry.seq <= head) {
            let payload = entry
                .kind()
                .zip(payload)
                .and_then(|(kind, bytes)| Payload::decode(kind, bytes).ok());
            let payload = payload.as_ref();
            let mut message = format!(
                "revision {}, {} {}",
                entry.seq,
                gist::verb(entry, payload),
                gist::gist(entry, payload)
            );
            if let Some(note) = payload.and_then(Payload::note) {
                message.push_str(&format!(" ({note})"));
            }
            self.events
                .record(now.wall, "changed", gist::subject(entry), message);
        }
    }
}
