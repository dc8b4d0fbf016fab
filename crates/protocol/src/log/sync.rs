//! What one log says to another, to find out which entries are missing.

use std::collections::HashSet;

use realm_identity::Hash;

use super::Log;
use crate::{Fold, Frame, Item, Point, limits::*};

impl<F: Fold> Log<F> {
    /// Where this log stands: its branches, and steps back from its head that double.
    pub fn locator(&self) -> Frame {
        let mut samples = Vec::new();
        // Over all revisions there can be, these are as many steps as there may be samples.
        for doubled in 0..u64::BITS {
            let back = (1 << doubled) - 1;
            let seq = self.head.seq.saturating_sub(back).max(self.base.seq);
            if let Some((&seq, &hash)) = self.main.range(..=seq).next_back() {
                samples.push(Point { seq, hash });
            }
            if seq == self.base.seq {
                break;
            }
        }
        let mut tips = self.tips();
        tips.truncate(MAX_TIPS);
        Frame::Locator {
            realm: self.realm,
            tips,
            samples,
        }
    }

    /// The frame that brings a peer with this locator forward, up to revision `until`; None if it
    /// has everything. A checkpoint holds the whole state, so that only who may see all gets one.
    pub fn answer(&self, tips: &[Point], samples: &[Point], until: u64) -> Option<Frame> {
        let common = samples
            .iter()
            .filter(|at| self.main.get(&at.seq) == Some(&at.hash));
        let common = common.map(|at| at.seq).max();
        if common.is_none() && self.base.seq > 0 {
            if until < u64::MAX {
                return None;
            }
            let first = self.main.range(self.base.seq + 1..).next()?.1;
            let stored = self.tree.get(first)?;
            return self
                .checkpoint_of(stored, self.base.state.clone())
                .map(Frame::Checkpoint);
        }
        let common = common.unwrap_or(self.base.seq);
        let low = match self.forks {
            Some((low, until)) if common < until => common.min(low),
            _ => common,
        };
        let known = self.ancestors(tips.iter().chain(samples), low);
        if low >= until {
            return None;
        }
        let mut missing = self
            .by_seq
            .range(low + 1..=until)
            .flat_map(|(_, hashes)| hashes);
        let (mut items, mut bytes, mut more) = (Vec::new(), 0, false);
        for hash in missing.by_ref().filter(|hash| !known.contains(hash)) {
            let Some(item) = self.item(*hash) else {
                continue;
            };
            bytes += item.entry.len() + item.payload.as_ref().map_or(0, Vec::len);
            if items.len() == MAX_ENTRIES || (bytes > MAX_ENTRIES_BYTES && !items.is_empty()) {
                more = true;
                break;
            }
            items.push(item);
        }
        (!items.is_empty()).then_some(Frame::Entries {
            realm: self.realm,
            items,
            more,
        })
    }

    /// Whether a peer with these tips has entries that this log lacks.
    pub fn lacks(&self, tips: &[Point]) -> bool {
        tips.iter()
            .any(|tip| tip.seq > self.base.seq && !self.contains(tip.hash))
    }

    pub fn item(&self, hash: Hash) -> Option<Item> {
        let stored = self.tree.get(&hash)?;
        Some(Item {
            entry: stored.entry.to_wire(),
            payload: stored.payload.clone(),
        })
    }

    fn ancestors<'a>(&self, points: impl Iterator<Item = &'a Point>, low: u64) -> HashSet<Hash> {
        let mut known = HashSet::new();
        for point in points {
            let mut at = point.hash;
            while let Some(stored) = self.tree.get(&at) {
                if stored.entry.seq <= low || !known.insert(at) {
                    break;
                }
                at = stored.entry.prev;
            }
        }
        known
    }
}
