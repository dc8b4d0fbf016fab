//! How soon a node begins connections by itself.

use std::time::Duration;

use tokio::time::Instant;

/// Connections that a node begins by itself: so many at once, and then so many in each second. Where many
/// nodes meet, more handshakes at once than their machines can bear would all come too late.
const BEGUN_AT_ONCE: f64 = 4.0;
const BEGUN_PER_SECOND: f64 = 8.0;

/// What is tried first gets at least so long before more is tried beside it, up to the next tick: each
/// further way is a handshake more, and nodes that find each other all at once would do little else.
const HEAD_START: Duration = Duration::from_millis(250);
/// With each dial that is under way the others take longer: as much more for each, up to this.
const HEAD_START_MAX: Duration = Duration::from_secs(4);

/// How long the best way to a peer has for itself, while the node goes about so many other dials.
pub(super) fn head_start(others: usize) -> Duration {
    let dials = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
    HEAD_START.saturating_mul(dials).min(HEAD_START_MAX)
}

/// How many connections this node may begin by itself now.
#[derive(Debug)]
pub(super) struct Begun {
    left: f64,
    at: Instant,
}

impl Begun {
    pub fn new(now: Instant) -> Self {
        Self {
            left: BEGUN_AT_ONCE,
            at: now,
        }
    }

    /// Whether one more may begin; it is counted then.
    pub fn allows(&mut self, now: Instant) -> bool {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * BEGUN_PER_SECOND;
        (self.left, self.at) = (BEGUN_AT_ONCE.min(self.left + more), now);
        let allows = self.left >= 1.0;
        self.left -= f64::from(u8::from(allows));
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_way_has_longer_where_many_are_tried_at_once() {
        let each_ms =
            [0, 1, 3, 14, 15, 16, usize::MAX].map(|others| head_start(others).as_millis());
        assert_eq!(each_ms, [250, 500, 1_000, 3_750, 4_000, 4_000, 4_000]);
    }

    #[test]
    fn what_a_node_begins_by_itself_is_paced() {
        let start = Instant::now();
        let mut begun = Begun::new(start);
        let allowed = (0..100).filter(|_| begun.allows(start)).count();
        assert_eq!(allowed, 4);
        let each_ms = (1..=2_000).map(|ms| start + Duration::from_millis(ms));
        assert_eq!(each_ms.filter(|at| begun.allows(*at)).count(), 16);
    }
}
