//! Times and durations as the commands write and read them: RFC 3339, in UTC unless another offset is asked for.

use super::error::CliError;
use crate::jobs_file::{
    duration,
    point::{self, to_jiff},
};
use jiff::tz::Offset;
use tickwheel_client::Timestamp;

pub(super) use crate::jobs_file::{duration::write as friendly, point::rfc3339};

/// What a table shows where there is no time.
pub(super) const NO_TIME: &str = "-";

/// The time now.
pub(super) fn now() -> Timestamp {
    Timestamp::from_micros(u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0))
}

/// `at` as RFC 3339 with an offset from UTC, given in seconds; `None` beyond the year 9999.
pub(super) fn rfc3339_with_offset(at: Timestamp, offset_s: i32) -> Option<String> {
    let offset = Offset::from_seconds(offset_s).ok()?;
    to_jiff(at).map(|time| time.display_with_offset(offset).to_string())
}

/// `at` for a table: whole seconds, UTC.
pub(super) fn column(at: Option<Timestamp>) -> String {
    let whole = at.and_then(|at| rfc3339(Timestamp::from_secs(at.as_micros() / 1_000_000)));
    whole.unwrap_or_else(|| NO_TIME.to_owned())
}

/// Parses RFC 3339 with an offset.
///
/// # Errors
/// Wrong usage, when it is none or before 1970.
pub(super) fn parse(text: &str) -> Result<Timestamp, CliError> {
    let wrong =
        || CliError::Usage(format!("{text:?} is not a time since 1970 with an offset, such as 2030-01-31T09:00:00Z"));
    point::parse(text).ok_or_else(wrong)
}

/// Parses RFC 3339 with an offset, or how long ago it was.
///
/// # Errors
/// Wrong usage, when it is neither.
pub(super) fn parse_or_ago(text: &str) -> Result<Timestamp, CliError> {
    match duration::parse(text) {
        Ok(ago) => Ok(now().saturating_sub(ago)),
        Err(_) => parse(text).map_err(|_| {
            CliError::Usage(format!(
                "{text:?} is neither a time since 1970 with an offset, such as 2030-01-31T09:00:00Z, nor an age, such as 2h"
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_or_with_the_offset_asked_for() {
        let at = Timestamp::from_micros(1_767_225_600_250_000);
        assert_eq!(rfc3339(at).as_deref(), Some("2026-01-01T00:00:00.25Z"));
        assert_eq!(column(Some(at)), "2026-01-01T00:00:00Z");
        assert_eq!(rfc3339_with_offset(at, 3_600).as_deref(), Some("2026-01-01T01:00:00.25+01:00"));
        assert_eq!(rfc3339_with_offset(at, 0).as_deref(), Some("2026-01-01T00:00:00.25+00:00"));
        assert_eq!(rfc3339(Timestamp::MAX), None);
        assert_eq!(column(None), NO_TIME);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let at = Timestamp::from_micros(1_767_225_600_250_001);
        assert_eq!(parse(&rfc3339(at).expect("in range")).expect("it is a time"), at);
        assert_eq!(parse("2026-01-01T01:00:00+01:00").expect("a time"), Timestamp::from_secs(1_767_225_600));
        for wrong in ["", "now", "2026-01-01", "2026-01-01T00:00:00", "1969-12-31T23:59:59Z"] {
            assert_eq!(parse(wrong).expect_err(wrong).exit_status(), 2, "{wrong}");
        }
    }

    #[test]
    fn an_age_is_a_time_before_now() {
        let before = now();
        let day_ago = parse_or_ago("24h").expect("an age");
        let lag = day_ago.saturating_since(before.saturating_sub(std::time::Duration::from_secs(86_400)));
        assert!(lag < std::time::Duration::from_secs(60), "{lag:?}");
        assert_eq!(parse_or_ago("2026-01-01T00:00:00Z").expect("a time"), Timestamp::from_secs(1_767_225_600));
        for wrong in ["", "yesterday", "-1h", "2026-01-01"] {
            assert_eq!(parse_or_ago(wrong).expect_err(wrong).exit_status(), 2, "{wrong}");
        }
    }
}
