//! This machine's clock, as it stands in signed bytes and in answers.

use std::time::Duration;

use realm_identity::Timestamp;

use crate::error::{CliError, Result};

pub fn now() -> Result<Timestamp> {
    let millis = jiff::Timestamp::now().as_millisecond();
    u64::try_from(millis).map(Timestamp).map_err(|_| {
        CliError::failed("this machine's clock stands before 1970").help("set the clock")
    })
}

pub fn ago(time: Duration) -> Result<Timestamp> {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp(now()?.as_millis().saturating_sub(millis)))
}

/// `2026-01-02T03:04:05Z`; times that no calendar has are shown as milliseconds.
pub fn rfc3339(time: Timestamp) -> String {
    let Ok(millis) = i64::try_from(time.as_millis()) else {
        return format!("{} ms", time.0);
    };
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{millis} ms"),
    }
}
