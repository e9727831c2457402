//! Points in time as the jobs file writes and reads them: RFC 3339 with an offset, from 1970 up to the year 9999.

use tickwheel_client::Timestamp;

/// Parses RFC 3339 with an offset; `None`: it is none, or before 1970.
pub fn parse(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_microsecond()).ok().map(Timestamp::from_micros)
}

/// `at` as RFC 3339 in UTC, to the microsecond; `None` beyond the year 9999.
pub fn rfc3339(at: Timestamp) -> Option<String> {
    to_jiff(at).map(|time| time.to_string())
}

/// `None` beyond the year 9999.
pub(crate) fn to_jiff(at: Timestamp) -> Option<jiff::Timestamp> {
    i64::try_from(at.as_micros()).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
}
