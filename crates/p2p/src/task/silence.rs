//! Connections that no longer answer: a cable that is cut says nothing.

use std::time::Duration;

use libp2p::{PeerId, swarm::ConnectionId};
use realm_identity::PublicKey;
use tokio::time::Instant;

use super::{TICK, Task};

/// A tick later than this means that this node was stopped, or has too much to do, not that others are silent.
const PAUSE: Duration = Duration::from_millis(300);

impl Task {
    pub(super) fn answered(
        &mut self,
        key: PublicKey,
        connection: ConnectionId,
        at: Option<Instant>,
    ) {
        let peer = self.peers.get_mut(&key);
        let open = peer.and_then(|peer| {
            peer.connections
                .iter_mut()
                .find(|open| open.id == connection)
        });
        if let Some(open) = open {
            open.answered = at;
        }
    }

    /// Ends what approved peers' dead connections hold up: others know the way to them.
    pub(super) fn end_silent(&mut self, now: Instant) {
        let since = std::mem::replace(&mut self.ticked, now);
        // Answers that were not taken in time are this node's fault, and no silence.
        let held_up = std::mem::take(&mut self.held_up);
        if held_up || now.duration_since(since) > TICK + PAUSE {
            return self.forgive_silence(now);
        }
        // Without an answer for this long a connection is taken for dead.
        let silence_max = self.limits.ping.saturating_add(self.limits.ping_answer);
        let limits = &self.swarm.behaviour().limits;
        let approved = self
            .peers
            .iter()
            .filter(|(_, peer)| limits.is_approved(&peer.id));
        let silent: Vec<_> = approved
            .flat_map(|(key, peer)| {
                let silent = peer.connections.iter().filter(|open| {
                    open.answered
                        .is_some_and(|at| now.duration_since(at) >= silence_max)
                });
                silent.map(|open| (*key, peer.id, open.id))
            })
            .collect();
        for (key, id, connection) in silent {
            tracing::debug!(%key, "closing a connection that does not answer");
            self.end_connection(key, id, connection);
        }
    }

    fn forgive_silence(&mut self, now: Instant) {
        let connections = self
            .peers
            .values_mut()
            .flat_map(|peer| &mut peer.connections);
        for open in connections {
            open.answered = open.answered.map(|_| now);
        }
    }

    /// Closes a connection and counts it as closed at once: with bytes that nobody takes, closing
    /// waits until the system gives the connection up.
    pub(super) fn end_connection(&mut self, key: PublicKey, id: PeerId, connection: ConnectionId) {
        self.swarm.close_connection(connection);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.streams.forget(id, connection);
        behaviour.limits.forget(connection);
        self.forget_connection(key, connection);
        if !self.peers.contains_key(&key) {
            self.stop_writer(key);
        }
    }

    /// Its frames wait for a stream that nobody reads.
    pub(super) fn stop_writer(&mut self, key: PublicKey) {
        if let Some(writer) = self.writers.remove(&key) {
            writer.task.abort();
        }
    }
}
