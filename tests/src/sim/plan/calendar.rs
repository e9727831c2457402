//! What some jobs have besides one schedule: further ones, times at which they do not fire, and jitter.
//!
//! Everything lies so that it matters within a run of some minutes: spans of seconds, days that begin or end at the run's midnight.

use super::{Deed, Definition, MIDNIGHTS, NEW_YEAR, Operation, Schedule, TIMES_OF_DAY, WEST_ZONE, ZONE};
use crate::sim::{clock::Shown, random::Stream};
use std::time::Duration;
use tickwheel_wire::{Timestamp, job::FiringRules};

/// Expressions with seconds; some fire when those of minutes do.
const SECONDS: [&str; 6] =
    ["*/10 * * * * *", "0,20,21 * * * * *", "30 */2 * * * *", "15-45/10 * * * * *", "0 * * * * *", "7 1-59/2 * * * *"];
/// Expressions of which no schedule of a plan fires only at what they match; those that match hours come last.
const EXCLUDED: [&str; 7] =
    ["10-29 * * * * *", "31-59 * * * * *", "0-9 */2 * * * *", "*/3 * * * *", "0-1 * * * *", "* 1 * * *", "* 2 * * *"];

/// The names of calendars that jobs share.
const CALENDARS: [&str; 2] = ["holidays", "maintenance"];

/// What sets the calendars that `exclusions` name, before a job is submitted that has them; now and then it is not done.
pub(super) fn sets(stream: &mut Stream, start: Timestamp, exclusions: &str) -> Vec<Deed> {
    let named = CALENDARS.into_iter().filter(|name| exclusions.contains(&format!("calendar {name}")));
    let named: Vec<_> = named.filter(|_| stream.chance(900)).collect();
    named.into_iter().map(|name| Deed::SetCalendar(name, entries(stream, start, true).join("\n"))).collect()
}

/// What is done with calendars in the partition of a job that names some.
pub(super) fn changes(seed: u64, job: usize, start: Timestamp, active: Duration) -> impl Iterator<Item = Operation> {
    let mut stream = Stream::new(seed, "changes of calendars", job as u64);
    let count = stream.between(1, 6);
    (0..count).map(move |number| {
        let name = stream.pick(&CALENDARS);
        let is_removed = stream.chance(200);
        let deed = if is_removed {
            Deed::RemoveCalendar(name)
        } else {
            Deed::SetCalendar(name, entries(&mut stream, start, true).join("\n"))
        };
        let at = stream.duration(active / 20, active);
        Operation { label: format!("c{job}.{number}"), at, job, deed }
    })
}

/// See the module.
pub(super) struct Calendar {
    schedule: Schedule,
    also: Vec<Schedule>,
    exclusions: Vec<String>,
    jitter_ms: u32,
    is_plain: bool,
}

impl Calendar {
    /// What is drawn for a job of this definition.
    pub fn draw(stream: &mut Stream, start: Timestamp, definition: &Definition) -> Self {
        let mut schedule = definition.schedule;
        if stream.chance(150) && !schedule.stands_alone() {
            schedule = seconds(stream);
        }
        let has_several = stream.chance(300) && !schedule.stands_alone();
        let count = if has_several { stream.between(1, 3) } else { 0 };
        let also = (0..count).map(|_| another(stream, schedule, start)).collect();
        let fires_often = matches!(schedule, Schedule::Every(_) | Schedule::Minutes(_) | Schedule::Seconds(..));
        let has_exclusions = stream.chance(300) && !matches!(schedule, Schedule::Delay(_));
        let mut exclusions = if has_exclusions { entries(stream, start, fires_often) } else { Vec::new() };
        let mut named = stream.fork("named");
        if named.chance(250) && (fires_often || schedule.stands_alone() && !matches!(schedule, Schedule::Delay(_))) {
            let at = named.place(exclusions.len() + 1);
            exclusions.insert(at, format!("calendar {}", named.pick(&CALENDARS)));
        }
        let jitter_ms = if stream.chance(200) { stream.pick(&[30, 400, 2_000, 10_000]) } else { 0 };
        Self { schedule, also, exclusions, jitter_ms, is_plain: has_several && stream.chance(400) }
    }

    /// The definition with it.
    pub fn applied(self, definition: Definition) -> Definition {
        let Self { schedule, also, exclusions, jitter_ms, is_plain } = self;
        let rules = if is_plain { FiringRules::PLAIN } else { FiringRules { jitter_ms, ..definition.rules } };
        Definition { schedule, also, exclusions: exclusions.join("\n"), rules, ..definition }
    }
}

fn seconds(stream: &mut Stream) -> Schedule {
    Schedule::Seconds(stream.pick(&SECONDS), stream.pick(&["UTC", ZONE]))
}

/// A further schedule; some fire when the first does.
fn another(stream: &mut Stream, first: Schedule, start: Timestamp) -> Schedule {
    match (stream.below(6), first) {
        (0, Schedule::Every(every_us)) => Schedule::Every(every_us * 3),
        (0 | 1, _) => Schedule::Minutes(stream.pick(&[1, 2])),
        (2, _) => {
            let (hour, minute) = stream.pick(&TIMES_OF_DAY);
            Schedule::Daily(hour, minute)
        }
        (3, _) => Schedule::At(Timestamp::from_secs(start.as_micros() / 1_000_000 + stream.below(300))),
        (4, _) => Schedule::Every(stream.pick(&[1_000_000, 3_000_000, 30_000_000])),
        _ => seconds(stream),
    }
}

/// One entry to three, now and then in a zone that they name; hours only for what fires often: one that fires daily could be kept from it for months,
/// which nobody counts.
fn entries(stream: &mut Stream, start: Timestamp, fires_often: bool) -> Vec<String> {
    let midnight = *MIDNIGHTS.iter().find(|midnight| **midnight >= start).expect("every run sees one");
    let zone_of_midnight = if midnight == NEW_YEAR { "UTC" } else { WEST_ZONE };
    let mut entries = Vec::new();
    for _ in 0..stream.between(1, 3) {
        let entry = match stream.below(8) {
            number @ 0..=3 => {
                entries.push(format!("zone {zone_of_midnight}"));
                let is_before = stream.chance(500);
                let time = if is_before { midnight.saturating_sub(Duration::from_micros(1)) } else { midnight };
                days(&Shown::at_time(zone_of_midnight, time), number)
            }
            4 | 5 => {
                let zone = stream.pick(&["UTC", ZONE, WEST_ZONE]);
                entries.push(format!("zone {zone}"));
                span(stream, zone, start)
            }
            _ => format!("cron {}", stream.pick(if fires_often { &EXCLUDED } else { &EXCLUDED[..5] })),
        };
        entries.push(entry);
    }
    entries
}

/// The day, in one of the ways to say it.
fn days(day: &Shown, number: u64) -> String {
    let (date, name) = (day.date(), day.weekday_name());
    match number {
        0 => format!("{}-01..{date}", &date[..7]),
        1 => date[5..].to_owned(),
        2 if name == "SUN" || name == "SAT" => "weekends".to_owned(),
        2 => "weekdays".to_owned(),
        _ => format!("{name}#{}", day.nth()),
    }
}

/// Some time of the run.
fn span(stream: &mut Stream, zone: &str, start: Timestamp) -> String {
    let from = start.saturating_add(stream.millis(0, 300_000));
    let until = from.saturating_add(stream.duration(Duration::from_secs(5), Duration::from_secs(120)));
    let [from, until] = [from, until].map(|time| Shown::at_time(zone, time));
    let text = |shown: &Shown| {
        let Shown { hour, minute, second, .. } = *shown;
        format!("{}T{hour:02}:{minute:02}:{second:02}", shown.date())
    };
    // Where the clock is set back in between, the end is shown before the beginning.
    if from < until { format!("{}..{}", text(&from), text(&until)) } else { from.date() }
}
