//! Time spans: `1h 30min`, `90`, `1.5d`, `infinity`.
//!
//! A number without a unit counts seconds; a month has 30.44 days, a year 365.25. Source: systemd.time(7).

use std::time::Duration;

const UNITS: [(&[&str], f64); 9] = [
    (&["usec", "us", "µs", "μs"], 1e-6),
    (&["msec", "ms"], 1e-3),
    (&["seconds", "second", "sec", "s", ""], 1.0),
    (&["minutes", "minute", "min", "m"], 60.0),
    (&["hours", "hour", "hr", "h"], 3_600.0),
    (&["days", "day", "d"], 86_400.0),
    (&["weeks", "week", "w"], 604_800.0),
    (&["months", "month", "M"], 2_629_800.0),
    (&["years", "year", "y"], 31_557_600.0),
];

/// A span; `None` if the text is none. `infinity` is [`Duration::MAX`].
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "infinity" {
        return Some(Duration::MAX);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..number_end].parse().ok()?;
        rest = rest[number_end..].trim_start();
        let unit_end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit = &rest[..unit_end];
        let (_, factor) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        seconds += number * factor;
        rest = rest[unit_end..].trim_start();
    }
    Duration::try_from_secs_f64((seconds * 1e6).round() / 1e6).ok()
}

/// A limit: none of `infinity` and zero is one.
pub(super) fn parse_limit(text: &str) -> Option<Option<Duration>> {
    let span = parse(text)?;
    Some(Some(span).filter(|span| !span.is_zero() && *span != Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_systemd_does() {
        for (text, millis) in [
            ("90", 90_000),
            ("2 h", 7_200_000),
            ("1h30min", 5_400_000),
            ("1h 30min", 5_400_000),
            ("55s500ms", 55_500),
            ("300ms20s 5day", 432_020_300),
            ("1.5d", 129_600_000),
            ("1w", 604_800_000),
            ("1M", 2_629_800_000),
            ("1y 12month", 63_115_200_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "soon", "5 parsecs", "-3", "1..2", "h"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!((parse_limit("infinity"), parse_limit("0"), parse_limit("x")), (Some(None), Some(None), None));
    }
}
