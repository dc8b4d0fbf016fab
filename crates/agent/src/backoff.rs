//! How long a cell waits before it is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const CAP: Duration = Duration::from_secs(60);
/// A cell that ran this long is healthy again: its next failure waits from the start.
const STEADY: Duration = Duration::from_secs(60);

/// Doubles from a quarter of a second to a minute.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a run that lasted `ran`.
    pub fn next(&mut self, ran: Duration) -> Duration {
        if ran >= STEADY {
            self.failures = 0;
        }
        let wait = FIRST
            .saturating_mul(2u32.saturating_pow(self.failures))
            .min(CAP);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_cap_and_resets_after_a_steady_run() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..12)
            .map(|_| backoff.next(Duration::ZERO).as_millis() as u64)
            .collect();
        assert_eq!(waits[..4], [250, 500, 1000, 2000]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(backoff.next(STEADY), FIRST);
    }
}
