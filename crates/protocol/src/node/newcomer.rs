//! A node that has just come into a realm: whom it takes for approved may have been revoked since,
//! in entries that it has not read yet.

use std::collections::BTreeMap;

use realm_identity::PublicKey;

use super::Node;
use crate::{Effect, Fold, Now, Point};

/// A peer that tells of entries and does not bring them holds a newcomer back for this long.
const CATCH_UP_MS: u64 = 10_000;

/// For so long after it has started, or come into a realm since, a node waits for somebody who has the whole log, and takes no
/// checkpoint: who begins at one cannot show anybody what was before.
const WHOLE_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(super) struct Newcomer {
    /// When this node started, or came into its realm since.
    came: u64,
    /// Where each peer's log stood when it told of it first.
    told: BTreeMap<PublicKey, Vec<Point>>,
    /// Set when this node was approved.
    until: Option<u64>,
    /// It has caught up, and what it read is being written.
    is_done: bool,
}

impl Newcomer {
    pub fn at(mono: u64) -> Self {
        Self {
            came: mono,
            ..Self::default()
        }
    }

    pub fn due(&self) -> u64 {
        self.until.filter(|_| !self.is_done).unwrap_or(u64::MAX)
    }

    pub fn wants_the_whole_log(&self, mono: u64) -> bool {
        mono < self.came.saturating_add(WHOLE_MS)
    }
}

impl<F: Fold + Clone> Node<F> {
    /// Whether this node has read the log as far as its approved peers had it when they met.
    pub fn is_caught_up(&self) -> bool {
        self.newcomer.is_none()
    }

    /// A connected peer tells where its log stands; that it moves on holds nobody back.
    pub(super) fn told_of(&mut self, peer: PublicKey, tips: &[Point]) {
        if let Some(newcomer) = &mut self.newcomer {
            let told = newcomer.told.entry(peer);
            told.or_insert_with(|| tips.to_vec());
        }
    }

    pub(super) fn no_longer_told(&mut self, peer: PublicKey) {
        if let Some(newcomer) = &mut self.newcomer {
            newcomer.told.remove(&peer);
        }
    }

    pub(super) fn catch_up(&mut self, now: Now) {
        let (Some(newcomer), Some(log)) = (&mut self.newcomer, &self.log) else {
            return;
        };
        if newcomer.is_done {
            return;
        }
        // Whoever was told of a later owner than the founder reads on until the log names that one: whoever had
        // the key before may still write a log of its own.
        let is_of_owner = self.config.pins.contains(&log.owner());
        if !self.approved.contains(&self.me) || !is_of_owner {
            newcomer.until = None;
            return;
        }
        let until = *newcomer.until.get_or_insert(now.mono + CATCH_UP_MS);
        let told = newcomer.told.iter();
        let mut told = told
            .filter(|(peer, _)| self.approved.contains(peer))
            .peekable();
        let reached = told.peek().is_some() && told.all(|(_, tips)| !log.lacks(tips));
        let alone = self.approved.len() == 1;
        if alone || reached || now.mono >= until {
            if !alone && !reached {
                tracing::warn!("the log of this realm may have more than peers brought so far");
            }
            newcomer.is_done = true;
            self.writes.hold(Effect::CaughtUp);
        }
    }
}
