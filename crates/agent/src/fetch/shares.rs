//! Who is asked for what in one round of a pull.

use std::{collections::VecDeque, ops::Range};

use realm_identity::PublicKey;

use super::{PARALLEL, PER_SOURCE};

/// Ranges that are missing and the sources they are asked of. A range is asked of two sources at most.
#[derive(Debug)]
pub(super) struct Shares {
    sources: Vec<PublicKey>,
    missing: VecDeque<Range<u64>>,
    asked: Vec<(PublicKey, Range<u64>)>,
}

impl Shares {
    pub fn new(sources: Vec<PublicKey>, missing: Vec<Range<u64>>) -> Self {
        Self {
            sources,
            missing: missing.into(),
            asked: Vec::new(),
        }
    }

    /// The next range to ask for, and whom; None while nobody is free.
    pub fn next(&mut self) -> Option<(PublicKey, Range<u64>)> {
        if self.asked.len() >= PARALLEL {
            return None;
        }
        let free = |source: &&PublicKey| self.busy(source) < PER_SOURCE;
        let source = *self
            .sources
            .iter()
            .filter(free)
            .min_by_key(|source| self.busy(source))?;
        let range = match self.missing.pop_front() {
            Some(range) => range,
            None => self.owed(source)?,
        };
        self.asked.push((source, range.clone()));
        Some((source, range))
    }

    /// A range that another source was asked for, and it alone, while this one has nothing to do.
    fn owed(&self, source: PublicKey) -> Option<Range<u64>> {
        if self.busy(&source) > 0 {
            return None;
        }
        let once =
            |range: &Range<u64>| self.asked.iter().filter(|asked| asked.1 == *range).count() == 1;
        let owed = self.asked.iter().find(|(_, range)| once(range));
        owed.map(|(_, range)| range.clone())
    }

    fn busy(&self, source: &PublicKey) -> usize {
        self.asked.iter().filter(|asked| asked.0 == *source).count()
    }

    /// Verified and written: nobody else needs to send it.
    pub fn done(&mut self, range: &Range<u64>) {
        self.asked.retain(|asked| asked.1 != *range);
    }

    /// The source is asked for nothing more; the range is asked of another, unless one has it in hand.
    pub fn failed(&mut self, source: PublicKey, range: Range<u64>) {
        self.sources.retain(|other| *other != source);
        let before = self.asked.len();
        self.asked.retain(|asked| *asked != (source, range.clone()));
        let was_asked = self.asked.len() < before;
        let in_hand = self.asked.iter().any(|asked| asked.1 == range);
        if was_asked && !in_hand {
            self.missing.push_front(range);
        }
    }

    /// Nothing is missing and nothing is under way that is still needed.
    pub fn is_done(&self) -> bool {
        self.missing.is_empty() && self.asked.is_empty()
    }
}
