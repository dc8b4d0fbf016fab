//! The agent's clocks: the wall for what is signed, a monotonic one for timers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use realm_identity::Timestamp;
use realm_protocol::Now;

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock {
    pub fn now(&self) -> Now {
        Now {
            wall: wall(),
            mono: self.start.elapsed().as_millis() as u64,
        }
    }

    /// The moment at which the monotonic clock shows `mono`.
    pub fn at(&self, mono: u64) -> tokio::time::Instant {
        (self.start + std::time::Duration::from_millis(mono)).into()
    }
}

/// Milliseconds since 1970; a clock before that counts as 0 and is told of by `realm doctor`.
pub fn wall() -> Timestamp {
    to_timestamp(SystemTime::now())
}

/// The time in words, to the second.
pub fn seconds(time: Timestamp) -> String {
    let known = realm_rpc::status::time(time);
    known.map_or_else(|| "an unknown time".to_owned(), |time| format!("{time:.0}"))
}

pub fn to_system(time: Timestamp) -> SystemTime {
    let since = std::time::Duration::from_millis(time.as_millis());
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

pub fn to_timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
