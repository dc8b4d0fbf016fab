//! What the node looks at when nothing happens, and what keeps it from doing its part.

use realm_manifest::report::Reason;
use realm_protocol::Now;

use super::Core;

impl Core {
    /// Looks at itself, also when nothing happens.
    pub(super) async fn housekeep(&mut self) {
        self.look_at_disk().await;
        self.report(false).await;
        self.carry_out().await;
        self.publish_sources().await;
        let now = self.clock.now();
        self.begin_realm(now);
        self.ask_late(now).await;
        self.tell_alarms(now);
        self.tell_untold(now);
        self.find_relays(now);
        self.tidy_files(now);
        // Presence depends on time alone, too.
        self.plan();
    }

    fn tidy_files(&mut self, now: Now) {
        while self.writes.try_join_next().is_some() {}
        if !self.writes.is_empty() {
            return;
        }
        if let Some(write) = self.trust.floor.due(now.mono) {
            self.writes.spawn_blocking(move || write.keep());
        }
        if std::mem::take(&mut self.loosened) {
            let blobs = self.blobs.clone();
            self.writes.spawn_blocking(move || blobs.drop_loose_pulls());
        }
    }

    /// Whether the disk takes writes: what changes is an event, and in the next report.
    async fn look_at_disk(&mut self) {
        let me = self.key.public();
        let own = self.reports.get(&me).map(|seen| seen.op(&me));
        self.ledger.look(own.into_iter().collect());
        let problems: Vec<Reason> = self.ledger.trouble().into_iter().collect();
        if problems.is_empty() {
            self.supervisor.keep_ends();
        }
        if problems == self.problems {
            return;
        }
        let before = std::mem::replace(&mut self.problems, problems);
        let now = self.clock.now();
        for new in &self.problems {
            if !before.iter().any(|old| old.code == new.code) {
                self.events
                    .record(now.wall, "alarm", new.code.clone(), in_words(new));
            }
        }
        for old in &before {
            if !self.problems.iter().any(|new| new.code == old.code) {
                let message = format!("over: {}", old.message);
                self.events
                    .record(now.wall, "recovered", old.code.clone(), message);
            }
        }
        self.publish_view().await;
    }

    /// The worst of what keeps this node from doing its part, in words.
    pub(super) fn problem(&self) -> Option<String> {
        self.problems.first().map(in_words)
    }
}

fn in_words(problem: &Reason) -> String {
    match &problem.help {
        Some(help) => format!("{}: {help}", problem.message),
        None => problem.message.clone(),
    }
}
