//! How much one source is asked for at a time: little at first, more while it answers soon, less when it does not.
//!
//! What is asked of a slow line at once waits in it, and what was given up is still on its way: whoever asks for much
//! and gives up again and again fills the line and receives nothing.

use std::time::Duration;

use realm_p2p::FetchError;

/// The piece of which whole numbers are proven.
const GROUP: u64 = 16 * 1024;
/// One range, at most.
const RANGE_MAX: u64 = 1024 * 1024;
/// Bytes under way from one source, at first; a line of 1 Mbit/s takes four seconds for them.
const BEGIN: u64 = 512 * 1024;
const MIN: u64 = 2 * GROUP;
const MAX: u64 = super::PER_SOURCE as u64 * RANGE_MAX;
/// A range that took less: the line can do more. One that took longer than the second: it is asked for too much.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(2);

/// What one source has under way at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace(u64);

impl Default for Pace {
    fn default() -> Self {
        Self(BEGIN)
    }
}

impl Pace {
    /// Bytes of one range: two of them at least are under way, so that the line does not rest between them.
    pub const fn range(self) -> u64 {
        let half = self.0 / 2;
        if half < RANGE_MAX { half } else { RANGE_MAX }
    }

    /// Whether a source that has so many bytes under way may be asked for another range.
    pub const fn has_room(self, under_way: u64) -> bool {
        under_way + self.range() <= self.0
    }

    /// A range that was asked for at pace `asked` came after `took`. Those that were asked for before the last change
    /// change nothing.
    pub fn came(&mut self, asked: Self, took: Duration) {
        if asked != *self {
            return;
        }
        if took <= SOON {
            self.0 = (self.0 * 2).min(MAX);
        } else if took > LATE {
            self.0 = (self.0 / 2).max(MIN);
        }
    }

    /// A range that was asked for at pace `asked` did not come. Whether the source may be asked for less: not where
    /// it was asked for the least already, or failed for another reason than that it was too much.
    pub fn failed(&mut self, asked: Self, error: &FetchError) -> bool {
        let was_much = matches!(
            error,
            FetchError::Silent(_)
                | FetchError::TooSlow(_)
                | FetchError::Deadline(_)
                | FetchError::Busy
        );
        if !was_much || asked.0 == MIN {
            return false;
        }
        self.0 = self.0.min((asked.0 / 4).max(MIN));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> FetchError {
        FetchError::Silent(Duration::from_secs(3))
    }

    #[test]
    fn a_fast_source_is_asked_for_all_it_can_give_after_three_ranges() {
        let mut pace = Pace::default();
        for _ in 0..3 {
            pace.came(pace, Duration::from_millis(1));
        }
        assert_eq!((pace.0, pace.range()), (MAX, RANGE_MAX));
        assert!(pace.has_room(3 * RANGE_MAX) && !pace.has_room(3 * RANGE_MAX + 1));
        pace.came(pace, Duration::from_millis(1));
        assert_eq!(pace.0, MAX);
    }

    #[test]
    fn a_slow_one_is_asked_for_less_and_once_for_what_was_under_way() {
        let mut pace = Pace(MAX);
        let asked = pace;
        for _ in 0..4 {
            assert!(pace.failed(asked, &silent()));
        }
        assert_eq!(pace.0, MAX / 4);
        // What it had under way comes late, and says nothing of the pace of now.
        pace.came(asked, Duration::from_secs(20));
        assert_eq!(pace.0, MAX / 4);
        pace.came(pace, LATE + Duration::from_millis(1));
        assert_eq!(pace.0, MAX / 8);
        pace.came(pace, LATE);
        assert_eq!(pace.0, MAX / 8);
    }

    #[test]
    fn one_that_gives_nothing_is_given_up() {
        let mut pace = Pace::default();
        let mut tries = 0;
        while pace.failed(pace, &silent()) {
            tries += 1;
        }
        assert_eq!((pace.0, tries), (MIN, 2));
        assert!(!Pace::default().failed(Pace::default(), &FetchError::NotFound));
        // Its ranges are whole groups all the way.
        for shift in 0.. {
            let pace = Pace((MAX >> shift).max(MIN));
            assert_eq!(pace.range() % GROUP, 0);
            if pace.0 == MIN {
                break;
            }
        }
    }
}
