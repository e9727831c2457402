//! Events of an iCalendar file as entries of a calendar.
//!
//! | of an event | becomes |
//! |---|---|
//! | `DTSTART`, `DTEND` or `DURATION` as dates | days, in the zone of the calendar or else of the job; without an end one day |
//! | the same as times | a span of time, in the zone that `TZID` or `Z` names, or else as above |
//! | `RRULE` with `DAILY`, `WEEKLY`, `MONTHLY`, `YEARLY`, `INTERVAL`, `COUNT`, `UNTIL`, `BYMONTH`, `BYMONTHDAY`, `BYDAY` | its occurrences in the present year and the four years after it |
//! | the same, a day long, each year on its date or each week on its weekdays, without end | `12-25`, `SAT,SUN`: of all years |
//! | `EXDATE` | occurrences that do not come |
//! | `STATUS:CANCELLED` | nothing |
//!
//! What does not recur and ended before the present year is left out. Other components (`VTODO`, `VTIMEZONE`, alarms) are passed over. What
//! an event says besides, about when it is, is an error with the event's summary and line; no part of the file is taken then. A zone is an
//! IANA zone: what `VTIMEZONE` says of it is not read.
//!
//! Source: RFC 5545. Deliberately absent: a library, as those that are kept up bring another time zone database (decision 15).

mod lines;
mod recurrence;
#[cfg(test)]
mod tests;

use super::calendar::Entry;
use jiff::{
    SignedDuration, Span,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use lines::Line;
use recurrence::{Recurrence, Unknown};
use std::{collections::HashSet, fs::File, io::Read as _, path::Path};
use tickwheel_client::Timestamp;
use tickwheel_engine::schedule::Zones;

/// Longest calendar file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most entries that a file may give: far more than fit into a job.
const ENTRIES_MAX: usize = 10_000;
/// Years of recurring events, the present one included.
const YEARS: i16 = 5;
/// Properties that say something about when an event is, and are not understood.
const UNKNOWN: [&str; 3] = ["RDATE", "EXRULE", "RECURRENCE-ID"];

/// An event as its lines say it.
#[derive(Default)]
struct Event {
    line: usize,
    summary: String,
    start: Option<Line>,
    end: Option<Line>,
    duration: Option<Line>,
    rule: Option<Line>,
    exceptions: Vec<Line>,
    is_cancelled: bool,
    unknown: Option<Line>,
}

/// A date, or a time in a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    at: DateTime,
    is_date: bool,
    /// `None`: that of the calendar.
    zone: Option<String>,
}

/// The entries of the file at `path`, from the present year on.
///
/// # Errors
/// What the operating system says, or the event that cannot be honoured, with the file's name.
pub(super) fn read(path: &Path, zones: &mut Zones) -> Result<Vec<Entry>, String> {
    let failed = |problem: &str| format!("{}: {problem}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error.to_string()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(&error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let year = jiff::Timestamp::now().to_zoned(TimeZone::UTC).year();
    entries(&text, year, zones).map_err(|(line, problem)| format!("{}:{line}: {problem}", path.display()))
}

/// The entries of a file from `first_year` on; of what is wrong, the line and a sentence.
fn entries(text: &str, first_year: i16, zones: &mut Zones) -> Result<Vec<Entry>, (usize, String)> {
    let lines = lines::lines(text).map_err(|line| (line, "it is no `NAME:value`".to_owned()))?;
    if !lines.first().is_some_and(|line| line.name == "BEGIN" && line.value.eq_ignore_ascii_case("VCALENDAR")) {
        return Err((1, "it is no iCalendar file, which begins with `BEGIN:VCALENDAR`".to_owned()));
    }
    let mut entries = Vec::new();
    for event in events(lines)? {
        let (line, summary) = (event.line, event.summary.clone());
        let of_event = event.entries(first_year, zones);
        let named = |problem| (line, format!("event {summary:?}: {problem}"));
        entries.extend(of_event.map_err(named)?);
        if entries.len() > ENTRIES_MAX {
            return Err(named(format!("with it there are more than {ENTRIES_MAX} entries")));
        }
    }
    Ok(entries)
}

/// The events of a calendar, without what lies in them.
fn events(lines: Vec<Line>) -> Result<Vec<Event>, (usize, String)> {
    let (mut events, mut open): (Vec<Event>, Vec<String>) = (Vec::new(), Vec::new());
    for line in lines {
        match line.name.as_str() {
            "BEGIN" => {
                let name = line.value.to_ascii_uppercase();
                if name == "VEVENT" && open == ["VCALENDAR"] {
                    events.push(Event { line: line.number, ..Event::default() });
                }
                open.push(name);
            }
            "END" => {
                let begun = open.pop();
                if !begun.is_some_and(|name| name.eq_ignore_ascii_case(&line.value)) {
                    return Err((line.number, format!("`END:{}` ends nothing", line.value)));
                }
            }
            _ if open == ["VCALENDAR", "VEVENT"] => {
                events.last_mut().expect("one has begun").take(line);
            }
            _ => {}
        }
    }
    match open.pop() {
        Some(name) => Err((1, format!("`BEGIN:{name}` has no end"))),
        None => Ok(events),
    }
}

impl Event {
    fn take(&mut self, line: Line) {
        match line.name.as_str() {
            "SUMMARY" => self.summary = line.value,
            "DTSTART" => self.start = Some(line),
            "DTEND" => self.end = Some(line),
            "DURATION" => self.duration = Some(line),
            "RRULE" if self.rule.is_none() => self.rule = Some(line),
            "EXDATE" => self.exceptions.push(line),
            "STATUS" => self.is_cancelled = line.value.eq_ignore_ascii_case("CANCELLED"),
            name if name == "RRULE" || UNKNOWN.contains(&name) => self.unknown = Some(line),
            _ => {}
        }
    }

    fn entries(&self, first_year: i16, zones: &mut Zones) -> Result<Vec<Entry>, String> {
        if self.is_cancelled {
            return Ok(Vec::new());
        }
        if let Some(line) = &self.unknown {
            return Err(format!("`{}` cannot be honoured", line.name));
        }
        let start = self.start.as_ref().ok_or("`DTSTART` is missing")?;
        let start = moments(start, zones)?.pop().ok_or("`DTSTART` is empty")?;
        let length = self.length(&start, zones)?;
        let window = (civil(first_year, 1, 1), civil(first_year + YEARS - 1, 12, 31));
        let Some(rule) = &self.rule else {
            let has_ended = start.at.saturating_add(length).date() < window.0;
            return Ok(if has_ended { Vec::new() } else { vec![start.entry(start.at, length)] });
        };
        let rule = Recurrence::parse(&rule.value)
            .map_err(|Unknown(part)| format!("`{part}` of `RRULE` cannot be honoured"))?;
        let first = start.at.date();
        if start.is_date && length == SignedDuration::from_hours(24) && self.exceptions.is_empty() && first <= window.0
        {
            let each = rule.each_week(first);
            let each = each.or_else(|| rule.is_each_year().then(|| first.strftime("%m-%d").to_string()));
            if let Some(text) = each {
                return Ok(vec![Entry { zone: None, text }]);
            }
        }
        let until = rule.until.as_deref().map(|text| until(text, &start, zones)).transpose()?.unwrap_or(DateTime::MAX);
        let exceptions = self.exceptions(&start, zones)?;
        // What began before may still go on; of what is longer than any span, everything may.
        let longest = Span::new().try_days(length.as_hours() / 24 + 1);
        let earliest = longest.and_then(|span| window.0.checked_sub(span)).unwrap_or(Date::MIN);
        let starts = rule.days(first, earliest, window.1).map(|day| day.to_datetime(start.at.time()));
        let coming = starts.take_while(|at| *at <= until).filter(|at| !exceptions.contains(at));
        let coming = coming.filter(|at| at.saturating_add(length).date() >= window.0);
        Ok(coming.map(|at| start.entry(at, length)).collect())
    }

    fn length(&self, start: &Moment, zones: &mut Zones) -> Result<SignedDuration, String> {
        let length = match (&self.end, &self.duration) {
            (Some(_), Some(_)) => return Err("`DTEND` and `DURATION` contradict each other".to_owned()),
            (Some(line), None) => {
                let end = moments(line, zones)?.pop().ok_or("`DTEND` is empty")?;
                if (end.is_date, &end.zone) != (start.is_date, &start.zone) {
                    return Err("`DTEND` is not of the kind and the zone of `DTSTART`".to_owned());
                }
                start.at.duration_until(end.at)
            }
            (None, Some(line)) => duration(&line.value).ok_or_else(|| format!("{:?} is no duration", line.value))?,
            (None, None) if start.is_date => SignedDuration::from_hours(24),
            (None, None) => return Err("it has neither `DTEND` nor `DURATION`, and takes no time".to_owned()),
        };
        let is_whole = !start.is_date || length.as_secs() % 86_400 == 0;
        match length.is_positive() && is_whole {
            true => Ok(length),
            false => Err("it ends before it begins, or takes no time, or no whole days".to_owned()),
        }
    }

    fn exceptions(&self, start: &Moment, zones: &mut Zones) -> Result<HashSet<DateTime>, String> {
        let mut exceptions = HashSet::new();
        for line in &self.exceptions {
            for moment in moments(line, zones)? {
                if (moment.is_date, &moment.zone) != (start.is_date, &start.zone) {
                    return Err("`EXDATE` is not of the kind and the zone of `DTSTART`".to_owned());
                }
                exceptions.insert(moment.at);
            }
        }
        Ok(exceptions)
    }
}

impl Moment {
    /// What an occurrence at `at` that takes `length` excludes.
    fn entry(&self, at: DateTime, length: SignedDuration) -> Entry {
        let end = at.saturating_add(length);
        let text = if self.is_date {
            let (first, last) = (at.date(), end.date().yesterday().unwrap_or(Date::MIN));
            if first == last { first.to_string() } else { format!("{first}..{last}") }
        } else {
            format!("{}..{}", at.strftime("%Y-%m-%dT%H:%M:%S"), end.strftime("%Y-%m-%dT%H:%M:%S"))
        };
        Entry { zone: self.zone.clone(), text }
    }
}

/// The last local time that an occurrence may begin at.
fn until(text: &str, start: &Moment, zones: &mut Zones) -> Result<DateTime, String> {
    let unreadable = || format!("`UNTIL={text}` is no date or time since 1970");
    let (at, is_date, is_utc) = moment(text).ok_or_else(unreadable)?;
    if is_date {
        return Ok(at.date().at(23, 59, 59, 0));
    }
    let Some(zone) = start.zone.as_deref().filter(|_| is_utc) else { return Ok(at) };
    let instant = at.to_zoned(TimeZone::UTC).map_err(|_| unreadable())?.timestamp();
    let seconds = u64::try_from(instant.as_second()).map_err(|_| unreadable())?;
    let offset_s = zones.get(zone).map_err(|error| error.to_string())?.offset_s(Timestamp::from_secs(seconds));
    Ok(at.saturating_add(SignedDuration::from_secs(offset_s.into())))
}

/// The dates or times of a line.
fn moments(line: &Line, zones: &mut Zones) -> Result<Vec<Moment>, String> {
    let zone = line.parameter("TZID");
    let known = zone.map(|name| zones.get(name).map_err(|error| format!("`{}`: {error}", line.name))).transpose()?;
    let read = |text: &str| {
        let (at, is_date, is_utc) =
            moment(text).ok_or_else(|| format!("`{}`: {text:?} is no date or time since 1970", line.name))?;
        let zone = if is_utc { Some("UTC".to_owned()) } else { known.as_ref().map(|zone| zone.name().to_owned()) };
        Ok(Moment { at, is_date, zone: zone.filter(|_| !is_date) })
    };
    line.value.split(',').map(read).collect()
}

/// Reads `20261225`, `20261225T140000` and `20261225T140000Z`: what they are, whether a date, whether of UTC.
fn moment(text: &str) -> Option<(DateTime, bool, bool)> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let at = match text.len() {
        8 if is_plain => Date::strptime("%Y%m%d", text).ok()?.to_datetime(jiff::civil::Time::midnight()),
        15 | 16 if is_plain => DateTime::strptime("%Y%m%dT%H%M%S", text.strip_suffix('Z').unwrap_or(text)).ok()?,
        _ => return None,
    };
    (1970..=9990).contains(&at.year()).then_some((at, text.len() == 8, text.ends_with('Z')))
}

/// Reads `P1W`, `P2D`, `PT1H30M`, `P1DT12H`.
fn duration(text: &str) -> Option<SignedDuration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if !text.starts_with('P') || text.len() > 32 {
        return None;
    }
    let weeks = text.strip_prefix('P').and_then(|text| text.strip_suffix('W')).map(str::parse::<u16>);
    if let Some(weeks) = weeks {
        return weeks.ok().map(|weeks| SignedDuration::from_hours(i64::from(weeks) * 7 * 24));
    }
    let span: Span = text.parse().ok()?;
    let is_fixed = span.get_years() == 0 && span.get_months() == 0;
    let days = SignedDuration::from_hours(i64::from(span.get_days()) * 24);
    let times = Span::new().hours(span.get_hours()).minutes(span.get_minutes()).seconds(span.get_seconds());
    SignedDuration::try_from(times).ok().filter(|_| is_fixed)?.checked_add(days)
}

fn civil(year: i16, month: i8, day: i8) -> Date {
    Date::new(year, month, day).unwrap_or(Date::MAX)
}
