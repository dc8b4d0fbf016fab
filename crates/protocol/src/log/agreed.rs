//! Which entries everybody agrees on, and the state after any entry.

use std::collections::BTreeMap;

use realm_identity::{Entry, Hash, Kind, Signed};

use super::{Halt, Head, Log, Outcome};
use crate::{Fold, FoldRefusal, Mutation, Point};

impl<F: Fold> Log<F> {
    /// Moves the head after `point` was kept below `parent`.
    pub(super) fn advance(&mut self, parent: Hash, point: Point, outcome: Outcome) {
        let follows = parent == self.head.hash && self.halt.is_none();
        match outcome {
            Outcome::Folded(state) if follows && !self.is_merge(point.hash) => {
                self.main.insert(point.seq, point.hash);
                let head = Head {
                    seq: point.seq,
                    hash: point.hash,
                    state,
                };
                let before = std::mem::replace(&mut self.head, head);
                self.before_head = Some(before.state);
            }
            _ => self.recompute(),
        }
    }

    /// Finds the agreed path anew: forks and merges are rare.
    fn recompute(&mut self) {
        let (main, halt) = self.walk();
        let (&seq, &hash) = main
            .last_key_value()
            .unwrap_or((&self.base.seq, &self.base.hash));
        if hash != self.head.hash {
            // Every entry on the path has been folded once before it was kept.
            let state = self
                .state_at(hash)
                .unwrap_or_else(|| self.head.state.clone());
            self.head = Head { seq, hash, state };
            self.before_head = None;
        }
        self.main = main;
        self.halt = halt;
    }

    fn walk(&mut self) -> (BTreeMap<u64, Hash>, Option<Halt>) {
        let mut main = BTreeMap::from([(self.base.seq, self.base.hash)]);
        let mut at = self.base.hash;
        loop {
            let children = self.children(at);
            let next = match children {
                [] => return (main, None),
                [one] if !self.is_merge(*one) => *one,
                [first, ..] if self.mutation == Some(Mutation::IgnoreFork) => *first,
                _ => match self.merge_of(at) {
                    Some(merge) => {
                        self.note_fork(at, self.seq_of(merge));
                        self.add_path(&mut main, at, merge);
                        merge
                    }
                    None => {
                        self.note_fork(at, u64::MAX);
                        return (
                            main,
                            Some(Halt::Forked {
                                seq: self.seq_of(at) + 1,
                            }),
                        );
                    }
                },
            };
            let seq = self.seq_of(next);
            if let Some(reason) = self
                .tree
                .get(&next)
                .and_then(|stored| stored.incompatible.clone())
            {
                return (main, Some(Halt::Incompatible { seq, reason }));
            }
            main.insert(seq, next);
            at = next;
        }
    }

    fn note_fork(&mut self, at: Hash, until: u64) {
        let seq = self.seq_of(at);
        let (low, _) = self.forks.unwrap_or((seq, until));
        self.forks = Some((low.min(seq), until));
    }

    fn add_path(&self, main: &mut BTreeMap<u64, Hash>, from: Hash, merge: Hash) {
        let mut at = self.tree.get(&merge).map(|stored| stored.entry.prev);
        while let Some(hash) = at.filter(|hash| *hash != from) {
            main.insert(self.seq_of(hash), hash);
            at = self.tree.get(&hash).map(|stored| stored.entry.prev);
        }
    }

    pub(super) fn is_merge(&self, hash: Hash) -> bool {
        self.tree
            .get(&hash)
            .is_some_and(|stored| stored.entry.kind() == Some(Kind::Merge))
    }

    /// Newest entries of every branch; one where there is no fork.
    pub fn tips(&self) -> Vec<Point> {
        let mut tips = self.leaves(self.base.hash, None);
        tips.sort();
        tips
    }

    /// The head; during a fork the newest entry of each of its branches.
    pub fn heads(&self) -> Vec<Point> {
        let head = Point {
            seq: self.head.seq,
            hash: self.head.hash,
        };
        let mut heads = match self.halt {
            Some(Halt::Forked { .. }) => self.leaves(head.hash, None),
            _ => vec![head],
        };
        heads.sort();
        heads
    }

    /// Leaves below `from`, with the merge `without` and all below it taken away.
    pub(super) fn leaves(&self, from: Hash, without: Option<Hash>) -> Vec<Point> {
        let (mut leaves, mut open) = (Vec::new(), vec![from]);
        while let Some(hash) = open.pop() {
            let before = open.len();
            open.extend(
                self.children(hash)
                    .iter()
                    .filter(|child| Some(**child) != without),
            );
            if open.len() == before {
                leaves.push(Point {
                    seq: self.seq_of(hash),
                    hash,
                });
            }
        }
        leaves
    }

    /// The state after `hash`, if every entry up to it is understood here.
    pub fn state_at(&self, hash: Hash) -> Option<Vec<u8>> {
        let (mut path, mut at) = (Vec::new(), hash);
        let mut state = loop {
            if at == self.head.hash {
                break self.head.state.clone();
            }
            if at == self.base.hash {
                break self.base.state.clone();
            }
            let stored = self.tree.get(&at)?;
            if stored.incompatible.is_some() {
                return None;
            }
            path.push(stored);
            at = stored.entry.prev;
        };
        for stored in path.into_iter().rev() {
            state = self
                .fold_onto(&state, &stored.entry, stored.payload.as_deref()?)
                .ok()?;
        }
        Some(state)
    }

    pub(super) fn fold_onto(
        &self,
        state: &[u8],
        entry: &Signed<Entry>,
        payload: &[u8],
    ) -> Result<Vec<u8>, FoldRefusal> {
        if entry.kind() == Some(Kind::Merge) {
            let named = self.named(payload)?;
            self.fold
                .merge(state, entry, payload, &named.heads, &named.reapplied)
        } else {
            self.fold.apply(state, entry, payload)
        }
    }

    /// Every entry kept for revision `seq`, as on the wire: more than one proves a fork.
    pub fn proofs(&self, seq: u64) -> Vec<crate::Item> {
        let hashes = self.by_seq.get(&seq).into_iter().flatten();
        hashes.filter_map(|hash| self.item(*hash)).collect()
    }
}
