//! Who is asked for what in one round of a pull.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    time::Duration,
};

use realm_identity::PublicKey;
use realm_p2p::FetchError;

use super::{PARALLEL, pace::Pace};

/// One range, and of whom it was asked at which pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub source: PublicKey,
    pub range: Range<u64>,
    pace: Pace,
}

/// Ranges that are missing and the sources they are asked of. A range is asked of two sources at most.
#[derive(Debug)]
pub(super) struct Shares<'p> {
    sources: Vec<PublicKey>,
    /// Lasts longer than a round.
    paces: &'p mut HashMap<PublicKey, Pace>,
    missing: VecDeque<Range<u64>>,
    asked: Vec<Asked>,
}

impl<'p> Shares<'p> {
    pub fn new(
        sources: Vec<PublicKey>,
        paces: &'p mut HashMap<PublicKey, Pace>,
        missing: Vec<Range<u64>>,
    ) -> Self {
        Self {
            sources,
            paces,
            missing: missing.into(),
            asked: Vec::new(),
        }
    }

    /// The next range to ask for, and whom; None while nobody is free.
    pub fn next(&mut self) -> Option<Asked> {
        if self.asked.len() >= PARALLEL {
            return None;
        }
        let free = |source: &&PublicKey| self.pace(source).has_room(self.under_way(source));
        let source = *self
            .sources
            .iter()
            .filter(free)
            .min_by_key(|source| self.under_way(source))?;
        let pace = self.pace(&source);
        let range = match self.missing.pop_front() {
            Some(range) => self.cut(range, pace.range()),
            None => self.owed(source, pace.range())?,
        };
        let asked = Asked {
            source,
            range,
            pace,
        };
        self.asked.push(asked.clone());
        Some(asked)
    }

    /// The first `len` bytes of a missing range; the rest of it stays missing.
    fn cut(&mut self, range: Range<u64>, len: u64) -> Range<u64> {
        let end = range.end.min(range.start + len);
        if end < range.end {
            self.missing.push_front(end..range.end);
        }
        range.start..end
    }

    /// A range that another source was asked for, and it alone, while this one has nothing to do. No larger one than
    /// this one is asked for at its pace.
    fn owed(&self, source: PublicKey, most: u64) -> Option<Range<u64>> {
        if self.under_way(&source) > 0 {
            return None;
        }
        let once = |range: &Range<u64>| {
            let same = self.asked.iter().filter(|asked| asked.range == *range);
            same.count() == 1
        };
        let small = |range: &Range<u64>| range.end - range.start <= most;
        let mut ranges = self.asked.iter().map(|asked| &asked.range);
        ranges.find(|range| small(range) && once(range)).cloned()
    }

    fn pace(&self, source: &PublicKey) -> Pace {
        self.paces.get(source).copied().unwrap_or_default()
    }

    /// Bytes that this source was asked for and has not given.
    fn under_way(&self, source: &PublicKey) -> u64 {
        let of_it = self.asked.iter().filter(|asked| asked.source == *source);
        of_it.map(|asked| asked.range.end - asked.range.start).sum()
    }

    /// All of it has come.
    pub fn came(&mut self, asked: &Asked, took: Duration) {
        let pace = self.paces.entry(asked.source).or_default();
        pace.came(asked.pace, took);
    }

    /// Verified and written: nobody else needs to send it.
    pub fn done(&mut self, range: &Range<u64>) {
        self.asked.retain(|asked| asked.range != *range);
    }

    /// The range is asked for again, of another source unless this one was only asked for too much at a time.
    pub fn failed(&mut self, asked: &Asked, error: &FetchError) {
        let pace = self.paces.entry(asked.source).or_default();
        match pace.failed(asked.pace, error) {
            true => self.ask_again(asked),
            false => self.give_up(asked),
        }
    }

    /// The source is asked for nothing more in this round.
    pub fn give_up(&mut self, asked: &Asked) {
        self.sources.retain(|other| *other != asked.source);
        self.ask_again(asked);
    }

    /// Of anybody, unless another has it in hand.
    fn ask_again(&mut self, asked: &Asked) {
        let before = self.asked.len();
        self.asked.retain(|other| other != asked);
        let was_asked = self.asked.len() < before;
        let in_hand = self.asked.iter().any(|other| other.range == asked.range);
        if was_asked && !in_hand {
            self.missing.push_front(asked.range.clone());
        }
    }

    /// Nothing is missing and nothing is under way that is still needed.
    pub fn is_done(&self) -> bool {
        self.missing.is_empty() && self.asked.is_empty()
    }
}
