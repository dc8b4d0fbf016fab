//! What happened on this node: a bounded, ordered list for people who ask why.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use realm_manifest::identity::Timestamp;
use realm_runtime::printable;
use tokio::sync::watch;

/// Enough for a day of a calm node and a minute of a wild one.
const MAX_EVENTS: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Rises by one; a gap means that older events were dropped.
    pub seq: u64,
    pub at: Timestamp,
    /// A past participle: joined, lost, pulled, started, limited, restarted, refused, forked, recovered.
    pub kind: &'static str,
    pub subject: String,
    pub message: String,
}

/// Shared by the parts that record and those that read.
#[derive(Debug, Clone)]
pub struct Events {
    list: Arc<Mutex<List>>,
    last: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct List {
    kept: VecDeque<Event>,
    /// All since the start, by kind.
    counts: BTreeMap<&'static str, u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            list: Arc::default(),
            last: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Events {
    pub fn record(&self, at: Timestamp, kind: &'static str, subject: String, message: String) {
        // A line of the log is one event: no word of a person or a program begins another one.
        // The subject is a field, which is quoted.
        let line = printable(&message);
        match kind {
            "alarm" | "banned" | "forked" | "refused" | "revoked" | "incompatible" => {
                tracing::warn!(kind, subject, "{line}");
            }
            _ => tracing::info!(kind, subject, "{line}"),
        }
        let seq = {
            let mut list = self.lock();
            *list.counts.entry(kind).or_default() += 1;
            let seq = list.kept.back().map_or(1, |last| last.seq + 1);
            if list.kept.len() == MAX_EVENTS {
                list.kept.pop_front();
            }
            list.kept.push_back(Event {
                seq,
                at,
                kind,
                subject,
                message,
            });
            seq
        };
        self.last.send_replace(seq);
    }

    /// Events after `seq`, oldest first.
    pub fn after(&self, seq: u64) -> Vec<Event> {
        self.lock()
            .kept
            .iter()
            .filter(|event| event.seq > seq)
            .cloned()
            .collect()
    }

    /// How often each kind was recorded since the start.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    /// Wakes when something is recorded.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // The list is whole between any two statements, also after a panic elsewhere.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_drops_the_oldest() {
        let events = Events::default();
        for n in 0..MAX_EVENTS + 10 {
            events.record(
                Timestamp(n as u64),
                "started",
                format!("cell {n}"),
                String::new(),
            );
        }
        let all = events.after(0);
        assert_eq!(all.len(), MAX_EVENTS);
        assert_eq!(all[0].seq, 11);
        assert_eq!(events.after(all[0].seq).len(), MAX_EVENTS - 1);
    }
}
