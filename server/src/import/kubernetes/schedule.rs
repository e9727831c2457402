//! `spec.schedule` and `spec.timeZone`: the cron expressions of robfig/cron, which Kubernetes uses, in this scheduler's words.
//!
//! | Kubernetes | here |
//! |---|---|
//! | `TZ=ZONE`, `CRON_TZ=ZONE` in front, or `timeZone` | the zone; without any `UTC`, as controllers mostly run |
//! | `@every 1h30m` | an interval, at least 1 s |
//! | `?` in any field | `*` |
//! | `*/n` as a day, where both day fields are restricted | `1-31/n` or `0-6/n`: either field may match, which a leading `*` would undo |
//! | a local time that a change of the clock leaves out, or shows twice | skipped; fires each time |
//!
//! Source: the parser of robfig/cron v3 (`ParseStandard`). Deliberately absent: refusing everything that Kubernetes would refuse; what
//! it cannot mean (seconds, `L`, `W`, `#`, `H`) is.

use super::{Problem, RefusedReason};
use std::time::Duration;
use tickwheel_client::Schedule;
use tickwheel_engine::schedule::{self, CronError, Zones};

const FIELD_COUNT: usize = 5;
const ZONE_DEFAULT: &str = "UTC";
const EVERY: &str = "@every ";

/// The schedule of a manifest, checked. `zone` is the value and the line of `timeZone`.
pub(super) fn parse(
    text: &str,
    line: usize,
    zone: Option<(&str, usize)>,
    zones: &mut Zones,
) -> Result<Schedule, Problem> {
    let at = |reason: RefusedReason| Problem { line, reason };
    let (prefix, expression) = prefixed(text.trim());
    let (zone, zone_line) = match (prefix, zone) {
        (Some(_), Some(_)) => return Err(at(RefusedReason::TwoZones)),
        (Some(prefix), None) => (prefix, line),
        (None, Some((name, line))) => (name, line),
        (None, None) => (ZONE_DEFAULT, line),
    };
    let known = zones.get(zone).map(|zone| zone.name().to_owned());
    let zone = known.map_err(|error| Problem { line: zone_line, reason: error.into() })?;
    if let Some(every) = expression.strip_prefix(EVERY) {
        let duration = go_duration(every.trim()).ok_or_else(|| at(RefusedReason::Every { text: every.to_owned() }))?;
        return Ok(Schedule::Interval { every: Duration::from_secs(duration.as_secs().max(1)), anchor: None });
    }
    let expression =
        if expression.starts_with('@') { expression.to_owned() } else { fields(expression).map_err(at)? };
    schedule::Schedule::cron(&expression, &zone, zones).map_err(|error| at(error.into()))?;
    Ok(Schedule::Cron { expression, zone })
}

/// The zone in front of an expression, and the expression.
fn prefixed(text: &str) -> (Option<&str>, &str) {
    let rest = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
    match rest.and_then(|rest| rest.split_once([' ', '\t'])) {
        Some((zone, expression)) => (Some(zone), expression.trim_start()),
        None => (None, text),
    }
}

/// An expression of five fields, in this scheduler's words.
fn fields(text: &str) -> Result<String, RefusedReason> {
    let fields: Vec<String> = text.split_ascii_whitespace().map(|field| field.replace('?', "*")).collect();
    let count = fields.len();
    if count != FIELD_COUNT {
        return Err(if (6..=7).contains(&count) {
            RefusedReason::Fields { count }
        } else {
            CronError::FieldCount { count }.into()
        });
    }
    let pieces = fields.iter().flat_map(|field| field.split(['-', '/', ',']));
    if let Some(piece) = pieces.into_iter().find(|piece| !is_known(piece)) {
        return Err(RefusedReason::Piece { text: piece.to_owned() });
    }
    let [minute, hour, day, month, weekday] =
        <[String; FIELD_COUNT]>::try_from(fields).expect("there are as many as were counted");
    let (day, weekday) = match (is_star(&day), is_star(&weekday)) {
        (true, true) => ("*".to_owned(), "*".to_owned()),
        (true, false) => ("*".to_owned(), weekday),
        (false, true) => (day, "*".to_owned()),
        (false, false) => (restricted(&day, "1-31"), restricted(&weekday, "0-6")),
    };
    Ok(format!("{minute} {hour} {day} {month} {weekday}"))
}

/// Whether Kubernetes knows such a value: a number, a name of three letters, `*`. An empty one is left to whoever reads the field.
fn is_known(piece: &str) -> bool {
    let is_name = piece.len() == 3 && piece.bytes().all(|byte| byte.is_ascii_alphabetic());
    piece == "*" || is_name || piece.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a field of days restricts nothing.
fn is_star(field: &str) -> bool {
    field.split(',').any(|term| term == "*" || term == "*/1")
}

/// A field of days without `*`.
fn restricted(field: &str, all: &str) -> String {
    let term = |term: &str| term.strip_prefix('*').map_or_else(|| term.to_owned(), |step| format!("{all}{step}"));
    field.split(',').map(term).collect::<Vec<_>>().join(",")
}

/// A duration as Go writes it: `1h30m`, `1.5h`, `90s`.
fn go_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text.strip_prefix('+').unwrap_or(text), 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..number_end].parse().ok()?;
        let unit_text = &rest[number_end..];
        let unit_end = unit_text.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit_text.len());
        seconds += number
            * match &unit_text[..unit_end] {
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &unit_text[unit_end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, zone: Option<&str>) -> Result<Schedule, Problem> {
        parse(text, 7, zone.map(|zone| (zone, 8)), &mut Zones::new())
    }

    #[test]
    fn expressions_keep_their_meaning() {
        for (text, zone, expression, expected_zone) in [
            ("*/5 * * * *", None, "*/5 * * * *", "UTC"),
            (" 0  3 * * MON-FRI ", Some("europe/berlin"), "0 3 * * MON-FRI", "Europe/Berlin"),
            ("CRON_TZ=Asia/Tokyo 0 3 * * *", None, "0 3 * * *", "Asia/Tokyo"),
            ("TZ=Asia/Tokyo  @daily", None, "@daily", "Asia/Tokyo"),
            ("0 0 ? * ?", None, "0 0 * * *", "UTC"),
            ("0 0 1 * ?", None, "0 0 1 * *", "UTC"),
            ("0 0 */2 * *", None, "0 0 */2 * *", "UTC"),
            ("0 0 */2 * MON", None, "0 0 1-31/2 * MON", "UTC"),
            ("0 0 13 * */3", None, "0 0 13 * 0-6/3", "UTC"),
            ("0 0 5,* * MON", None, "0 0 * * MON", "UTC"),
            ("0 0 */1 * MON", None, "0 0 * * MON", "UTC"),
        ] {
            let (expression, zone_name) = (expression.to_owned(), expected_zone.to_owned());
            assert_eq!(check(text, zone), Ok(Schedule::Cron { expression, zone: zone_name }), "{text}");
        }
    }

    #[test]
    fn intervals_are_whole_seconds_and_at_least_one() {
        for (text, seconds) in [
            ("@every 1h30m", 5_400),
            ("@every 90s", 90),
            ("@every 1.5h", 5_400),
            ("@every 10ms", 1),
            ("@every 2500ms", 2),
        ] {
            let every = Duration::from_secs(seconds);
            assert_eq!(check(text, None), Ok(Schedule::Interval { every, anchor: None }), "{text}");
        }
    }

    #[test]
    fn what_kubernetes_cannot_mean_is_refused_by_line() {
        for (text, zone, line, word) in [
            ("61 * * * *", None, 7, "minute `61`"),
            ("* * * *", None, 7, "not 4"),
            ("0 0 3 * * *", None, 7, "five fields"),
            ("0 0 L * *", None, 7, "`L`"),
            ("0 0 * * 5#1", None, 7, "`5#1`"),
            ("H H * * *", None, 7, "`H`"),
            ("0 0 30 2 *", None, 7, "never fire"),
            ("@reboot", None, 7, "@reboot"),
            ("@every soon", None, 7, "soon"),
            ("@every ", None, 7, ""),
            ("TZ=Mars/Olympus 0 3 * * *", None, 7, "Mars/Olympus"),
            ("0 3 * * *", Some("Mars/Olympus"), 8, "Mars/Olympus"),
            ("TZ=UTC 0 3 * * *", Some("UTC"), 7, "timeZone"),
            ("", None, 7, "not 0"),
        ] {
            let problem = check(text, zone).expect_err(text);
            assert_eq!(problem.line, line, "{text}");
            assert!(problem.reason.to_string().contains(word), "{text}: {}", problem.reason);
        }
    }
}
