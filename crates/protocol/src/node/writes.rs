//! Nothing is said before it is on disk: effects wait for the write they depend on.

use std::collections::VecDeque;

use super::{Node, RETRY_MS};
use crate::{Accepted, Effect, Fold, Halt, Mutation, Now, Op, Point, Refusal, Token};

/// Writes under way before entries of peers are left for later.
const MAX_WRITES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Writes {
    /// Of the event being handled.
    ops: Vec<Op>,
    held: Vec<Effect>,
    /// Under way, oldest first. Effects are let go in this order, so that a later write that
    /// succeeds says nothing while an earlier one has failed.
    queue: VecDeque<Write>,
    next_token: Token,
}

#[derive(Debug)]
struct Write {
    token: Token,
    progress: Progress,
    ops: Vec<Op>,
    held: Vec<Effect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    Done,
    Failed,
}

impl Writes {
    pub fn write(&mut self, ops: impl IntoIterator<Item = Op>) {
        self.ops.extend(ops);
    }

    /// Lets `effect` out once everything written so far is on disk.
    pub fn hold(&mut self, effect: Effect) {
        self.held.push(effect);
    }

    pub fn is_full(&self) -> bool {
        self.queue.len() >= MAX_WRITES
    }

    pub fn submits(&self) -> usize {
        let held = self.queue.iter().flat_map(|write| &write.held);
        held.filter(|effect| matches!(effect, Effect::SubmitResult { .. }))
            .count()
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }
}

impl<F: Fold + Clone> Node<F> {
    /// Queues what the log has to say since the last time.
    pub(super) fn tell(&mut self) {
        let Some(log) = &self.log else { return };
        let head = log.head();
        let point = Point {
            seq: head.seq,
            hash: head.hash,
        };
        let halt = log.halt().cloned();
        if self.told.1 != halt {
            match &halt {
                Some(Halt::Forked { seq }) => {
                    let proofs = log.proofs(*seq);
                    let wires = proofs.iter().map(|item| item.entry.clone()).collect();
                    self.writes.hold(Effect::Forked {
                        seq: *seq,
                        proofs: wires,
                    });
                    self.next_announce = 0;
                    self.spread_fork(proofs);
                }
                Some(Halt::Incompatible { seq, reason }) => {
                    self.writes.hold(Effect::Incompatible {
                        seq: *seq,
                        reason: reason.clone(),
                    });
                }
                None => {}
            }
            if matches!(self.told.1, Some(Halt::Forked { .. }))
                && !matches!(halt, Some(Halt::Forked { .. }))
            {
                self.writes.hold(Effect::ForkEnded { seq: point.seq });
            }
            self.told.1 = halt;
        }
        let Some(log) = &self.log else { return };
        if self.told.0 != point {
            self.told.0 = point;
            let state = log.head().state.clone();
            self.writes.hold(Effect::HeadAdvanced {
                seq: point.seq,
                hash: point.hash,
                state,
            });
        }
    }

    pub(super) fn flush_writes(&mut self, now: Now) {
        let (ops, held) = (
            std::mem::take(&mut self.writes.ops),
            std::mem::take(&mut self.writes.held),
        );
        if !ops.is_empty() {
            let token = self.writes.token();
            self.effects.push_back(Effect::Persist {
                token,
                ops: ops.clone(),
            });
            self.writes.queue.push_back(Write {
                token,
                progress: Progress::Open,
                ops,
                held,
            });
        } else if let Some(write) = self.writes.queue.back_mut() {
            write.held.extend(held);
        } else {
            held.into_iter()
                .for_each(|effect| self.release(effect, now));
            if !self.writes.ops.is_empty() {
                // What was let go is to be kept itself.
                self.flush_writes(now);
            }
        }
        if self.next_announce == 0 {
            self.announce(now);
        }
        if self.config.mutation == Some(Mutation::AckBeforePersist) {
            let held: Vec<_> = self
                .writes
                .queue
                .iter_mut()
                .flat_map(|write| std::mem::take(&mut write.held))
                .collect();
            held.into_iter()
                .for_each(|effect| self.release(effect, now));
        }
    }

    pub(super) fn persisted(&mut self, token: Token, now: Now) {
        if let Some(write) = self
            .writes
            .queue
            .iter_mut()
            .find(|write| write.token == token)
        {
            write.progress = Progress::Done;
        }
        while self
            .writes
            .queue
            .front()
            .is_some_and(|write| write.progress == Progress::Done)
        {
            let held = self
                .writes
                .queue
                .pop_front()
                .map(|write| write.held)
                .unwrap_or_default();
            held.into_iter()
                .for_each(|effect| self.release(effect, now));
        }
    }

    /// Submits are refused at once; the rest waits until writing works again.
    pub(super) fn persist_failed(&mut self, token: Token, now: Now) {
        let Some(write) = self
            .writes
            .queue
            .iter_mut()
            .find(|write| write.token == token)
        else {
            return;
        };
        write.progress = Progress::Failed;
        let (submits, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut write.held)
            .into_iter()
            .partition(|effect| matches!(effect, Effect::SubmitResult { .. }));
        write.held = rest;
        for effect in submits {
            if let Effect::SubmitResult { token, .. } = effect {
                self.effects.push_back(Effect::SubmitResult {
                    token,
                    result: Err(Refusal::Storage),
                });
            }
        }
        self.next_retry = Some(now.mono + RETRY_MS);
    }

    pub(super) fn retry_writes(&mut self) {
        let mut next = self.writes.next_token;
        for write in self
            .writes
            .queue
            .iter_mut()
            .filter(|write| write.progress == Progress::Failed)
        {
            next += 1;
            write.token = next;
            write.progress = Progress::Open;
            self.effects.push_back(Effect::Persist {
                token: next,
                ops: write.ops.clone(),
            });
        }
        self.writes.next_token = next;
    }

    fn release(&mut self, effect: Effect, now: Now) {
        let effect = match effect {
            Effect::HeadAdvanced { seq, hash, .. } => {
                self.durable = Point { seq, hash };
                self.announce(now);
                effect
            }
            Effect::SubmitResult {
                token,
                result: Ok(accepted),
            } => {
                let durable_on = self.durable_on(accepted.seq).max(1);
                Effect::SubmitResult {
                    token,
                    result: Ok(Accepted {
                        durable_on,
                        ..accepted
                    }),
                }
            }
            Effect::CaughtUp => {
                self.newcomer = None;
                // Not before: it must never be on disk without what was read.
                self.writes.write([Op::CaughtUp]);
                effect
            }
            other => other,
        };
        self.effects.push_back(effect);
    }
}
