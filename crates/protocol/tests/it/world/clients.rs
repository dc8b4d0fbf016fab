//! The owners' commands: they sign, send and send again, and merge what has forked.

use rand_foca::RngExt as _;
use realm_protocol::{Accepted, Event, Halt, Node, Point, Refusal, Token};

use super::{HEAL_AT, HONEST, Happening, World};
use crate::{
    client::{self, Signature},
    fold::Chain,
};

impl World {
    /// By now a fork is known everywhere; the owner ends it.
    pub(super) fn merge(&mut self) {
        if self.invariants.check_forks_seen(&self.hosts).is_err() {
            let seen = self.invariants.check_forks_seen(&self.hosts).unwrap_err();
            return self.invariants.fail(seen);
        }
        let log = self.hosts[0].node.as_ref().and_then(Node::log);
        let Some(log) = log.filter(|log| matches!(log.halt(), Some(Halt::Forked { .. }))) else {
            return;
        };
        let reapply = log.tips().last().map(|tip| tip.hash).into_iter().collect();
        let signature = client::merge(log, &self.owners[0], reapply);
        self.invariants.signed.insert(signature.hash);
        self.merging = true;
        self.clients[0].outbox = Some(signature);
        self.at(self.now, Happening::Submit { client: 0 });
    }

    pub(super) fn submit(&mut self, client: usize) {
        if self.now < HEAL_AT || self.merging {
            self.after(800..2_500, Happening::Submit { client });
        }
        let host = if self.merging {
            0
        } else {
            self.rng.random_range(0..HONEST)
        };
        let Some(node) = &self.hosts[host].node else {
            return;
        };
        if self.clients[client].outbox.is_none() {
            let Some(signature) = self.sign(client, host, node.log()) else {
                return;
            };
            self.invariants.signed.insert(signature.hash);
            self.clients[client].mark = signature.seq;
            self.clients[client].outbox = Some(signature);
        }
        let Some(signature) = self.clients[client].outbox.clone() else {
            return;
        };
        let event = Event::Submit {
            token: client as u64,
            entry: signature.wire,
            payload: signature.payload,
        };
        self.handle(host, event);
    }

    fn sign(
        &self,
        client: usize,
        host: usize,
        log: Option<&realm_protocol::Log<Chain>>,
    ) -> Option<Signature> {
        let log = log.filter(|log| log.halt().is_none() && self.now < HEAL_AT)?;
        if log.head().seq < self.clients[client].mark {
            return None;
        }
        let key = self.owners.iter().find(|key| key.public() == log.owner())?;
        // Once in some runs the realm changes hands.
        if !self.forks && log.head().seq == 4 && key.public() == self.owners[0].public() {
            return Some(client::rotate(log, key, self.owners[1].public()));
        }
        let payload = format!("{client} {host} {}", self.now);
        Some(client::push(log, key, payload.as_bytes()))
    }

    pub(super) fn submitted(
        &mut self,
        host: usize,
        token: Token,
        result: Result<Accepted, Refusal>,
    ) {
        let client = &mut self.clients[token as usize];
        match result {
            Ok(accepted) => {
                let point = Point {
                    seq: accepted.seq,
                    hash: accepted.hash,
                };
                self.invariants.acked(host, point, accepted.durable_on);
                if client
                    .outbox
                    .as_ref()
                    .is_some_and(|sent| sent.hash == accepted.hash)
                {
                    client.outbox = None;
                    self.merging = false;
                }
            }
            // Careless owners sign anew; that is how forks come about.
            Err(Refusal::HeadMoved { .. } | Refusal::Forked | Refusal::UnknownParent { .. })
                if self.forks && !self.merging =>
            {
                client.outbox = None;
                client.mark = 0;
            }
            Err(_) => {}
        }
    }
}
