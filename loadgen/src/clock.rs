//! The generator's one clock: the wall clock that the server's schedules follow, in whole microseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tickwheel_wire::Timestamp;

/// The wall time.
#[inline]
pub(crate) fn now() -> Timestamp {
    // A clock before 1970 would make every firing look early, which is the right answer to it.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since)
}

/// Sleeps until `time`; returns at once if it is past.
pub(crate) async fn sleep_until(time: Timestamp) {
    tokio::time::sleep(time.saturating_since(now())).await;
}

/// From `earlier` to `later` in seconds, 0 when it is the other way round.
pub(crate) fn seconds(earlier: Timestamp, later: Timestamp) -> f64 {
    later.saturating_since(earlier).as_secs_f64()
}

/// Whole microseconds, saturating.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
