//! Durations as people write them: `15s`, `1h 30m`, `250 ms`, `2 days`, also ISO 8601 (`PT15S`).
//!
//! A day has 24 hours and a week 7 days; months and years are refused, because their length depends on when they begin.

use jiff::{SignedDuration, Span, SpanRelativeTo};
use std::time::Duration;

/// What stands for the absence of a limit.
pub(super) const NONE: &str = "none";

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration; write one such as \"15s\", \"10m\", \"1h 30m\" or \"2 days\"")]
pub struct DurationError {
    text: String,
}

/// Parses a duration of zero or more.
///
/// # Errors
/// When the text is none, is negative, or counts months or years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.to_owned() };
    let span: Span = text.trim().parse().map_err(|_| error())?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| error())?;
    Duration::try_from(signed).map_err(|_| error())
}

/// Parses a limit: a duration, or `none`.
///
/// # Errors
/// As for [`parse`].
pub fn parse_limit(text: &str) -> Result<Option<Duration>, DurationError> {
    if text.trim() == NONE { Ok(None) } else { parse(text).map(Some) }
}

/// Writes a duration so that [`parse`] reads the same, to the nanosecond.
pub fn write(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| format!("{duration:?}"), |signed| format!("{signed:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("15s", 15_000),
            ("10m", 600_000),
            ("250ms", 250),
            ("250 ms", 250),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1_500),
            ("2 days", 172_800_000),
            ("1w", 604_800_000),
            ("PT15S", 15_000),
            ("0s", 0),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for (micros, text) in [
            (0, "0s"),
            (1, "1µs"),
            (1_500_000, "1s 500ms"),
            (5_400_000_000, "1h 30m"),
            (259_205_000_000, "72h 5s"),
            (3_162_240_000_000_000, "878400h"),
        ] {
            let duration = Duration::from_micros(micros);
            assert_eq!((write(duration), parse(text)), (text.to_owned(), Ok(duration)));
        }
    }

    #[test]
    fn what_has_no_fixed_length_is_refused() {
        for text in ["", "15", "s", "-15s", "15s ago", "1 month", "1y", "soon", "none"] {
            let error = parse(text).expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn a_limit_may_be_none() {
        assert_eq!(parse_limit("none"), Ok(None));
        assert_eq!(parse_limit("1s"), Ok(Some(Duration::from_secs(1))));
        assert!(parse_limit("never").is_err());
    }
}
