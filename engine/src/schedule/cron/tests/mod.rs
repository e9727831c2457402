//! Claims about cron schedules: the syntax, the calendar, changes of the clock, and agreement with two other
//! implementations.

mod calendar;
mod clock_changes;
mod croner_agreement;
// Miri would walk through years for hours.
#[cfg(not(miri))]
mod every_zone;
#[cfg(not(miri))]
mod explain;
mod read_back;
mod slow_search;
mod syntax;

use super::*;
use crate::schedule::{Zones, tests::zones};
use jiff::tz::TimeZoneDatabase;

fn cron(expression: &str, zone: &str) -> Cron {
    Cron::new(expression, zones().get(zone).expect("known zone")).expect("valid expression")
}

/// The time that `rfc3339` names.
fn at(rfc3339: &str) -> Timestamp {
    let time = rfc3339.parse::<jiff::Timestamp>().expect("RFC 3339");
    Timestamp::from_micros(time.as_microsecond().try_into().expect("after the epoch"))
}

fn to_jiff(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.as_micros().try_into().expect("before the year 9999")).expect("in range")
}

fn jiff_zone(name: &str) -> jiff::tz::TimeZone {
    TimeZoneDatabase::bundled().get(name).expect("known zone")
}

/// The next `count` fires after `after`, in local time with offset.
fn fires(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    fires_of(&cron(expression, zone), after, count)
}

fn fires_of(cron: &Cron, after: &str, count: usize) -> Vec<String> {
    let zone = jiff_zone(cron.zone().name());
    let times = std::iter::successors(cron.next_after(at(after)), |last| cron.next_after(*last));
    let show = |time| to_jiff(time).to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %:z").to_string();
    times.take(count).map(show).collect()
}
