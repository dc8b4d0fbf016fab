//! How soon a node begins connections by itself.

use tokio::time::Instant;

/// Connections that a node begins by itself: so many at once, and then so many in each second. Where many
/// nodes meet, more handshakes at once than their machines can bear would all come too late.
const BEGUN_AT_ONCE: f64 = 4.0;
const BEGUN_PER_SECOND: f64 = 8.0;

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
    use std::time::Duration;

    use super::*;

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
