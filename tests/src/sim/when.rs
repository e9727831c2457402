//! When jobs fire, by counting: the reference for the engine's schedules, as far as plans use them.

use super::{
    clock::{Fields, Shown},
    plan::{CLOCK_CHANGES, ZONE},
};
use std::time::Duration;
use tickwheel_wire::{
    Timestamp,
    job::{JobSpec, ScheduleSpec},
};

/// When a job fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// At the anchor and every so many microseconds after it.
    Every {
        /// The interval.
        every_us: u64,
        /// The anchor.
        anchor: Timestamp,
    },
    /// At every full multiple of so many minutes within the hour, UTC.
    Minutes(u64),
    /// Every day at so many minutes past midnight, in the plans' zone.
    Daily(u64),
    /// At the seconds that match, of any hour: a clock that is set by whole hours changes nothing.
    Seconds(Fields),
    /// Once.
    Once(Timestamp),
    /// So long after the submission, and after the end of each execution.
    Delay(Duration),
    /// At the times of each, once where some have the same.
    Several(Vec<Self>),
}

/// Of firings that go at once, a week of minutes is counted.
pub const COUNTED_MAX: usize = 10_080;

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60_000_000;
const HOUR_US: u64 = 60 * MINUTE_US;

impl When {
    /// The schedules of a job that was submitted at `at`.
    ///
    /// # Panics
    /// If a cron expression is none of a plan's.
    pub fn of(spec: &JobSpec<'_>, at: Timestamp) -> Self {
        let first = Self::of_one(&spec.schedule, at);
        if spec.also.is_empty() {
            return first;
        }
        let others = spec.also.iter().map(|schedule| Self::of_one(&schedule, at));
        Self::Several(std::iter::once(first).chain(others).collect())
    }

    fn of_one(schedule: &ScheduleSpec<'_>, at: Timestamp) -> Self {
        match *schedule {
            ScheduleSpec::Interval { every_us, anchor } => {
                Self::Every { every_us, anchor: if anchor.is_never() { at } else { anchor } }
            }
            ScheduleSpec::Once { at } => Self::Once(at),
            ScheduleSpec::FixedDelay { delay_us } => Self::Delay(Duration::from_micros(delay_us)),
            ScheduleSpec::After { delay_us } => Self::Once(at.saturating_add(Duration::from_micros(delay_us))),
            ScheduleSpec::Cron { expression, .. } if expression.split(' ').count() == 6 => {
                Self::Seconds(Fields::of(expression))
            }
            ScheduleSpec::Cron { expression, zone } => {
                let mut fields = expression.split(' ');
                let (minute, hour) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
                let number = |text: &str| text.parse::<u64>().expect("a plan's expression");
                match minute {
                    "*" => Self::Minutes(1),
                    _ if zone == ZONE => Self::Daily(number(hour) * 60 + number(minute)),
                    _ => Self::Minutes(number(minute.strip_prefix("*/").unwrap_or_default())),
                }
            }
        }
    }

    /// The first firing after `time`. A job that fires once has none after it, whenever that is.
    pub fn after(&self, time: Timestamp) -> Timestamp {
        let time_us = time.as_micros();
        match self {
            Self::Once(_) => Timestamp::MAX,
            Self::Delay(delay) => time.saturating_add(*delay),
            Self::Every { anchor, .. } if *anchor > time => *anchor,
            Self::Every { every_us, anchor } => {
                let passed = (time_us - anchor.as_micros()) / every_us;
                Timestamp::from_micros(anchor.as_micros() + (passed + 1) * every_us)
            }
            // The steps divide the hour, so they divide time itself.
            Self::Minutes(minutes) => {
                let step_us = minutes * MINUTE_US;
                Timestamp::from_micros((time_us / step_us + 1) * step_us)
            }
            Self::Daily(minute_of_day) => {
                let mut minute_us = (time_us / MINUTE_US + 1) * MINUTE_US;
                while !fires_daily(*minute_of_day, minute_us) {
                    minute_us += MINUTE_US;
                }
                Timestamp::from_micros(minute_us)
            }
            Self::Seconds(fields) => {
                let mut second = time_us / SECOND_US + 1;
                while !fields.hold(&Shown::at("UTC", second)) {
                    second += 1;
                }
                Timestamp::from_secs(second)
            }
            // As one of several, a single time that has passed is none.
            Self::Several(all) => {
                let each = all.iter().map(|when| match when {
                    Self::Once(at) if *at > time => *at,
                    other => other.after(time),
                });
                each.min().unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// How many firings there are after `from`, up to and including `to`.
    pub fn count(&self, from: Timestamp, to: Timestamp) -> u64 {
        let step_us = match self {
            Self::Once(_) | Self::Delay(_) => return 0,
            Self::Every { every_us, .. } => *every_us,
            Self::Minutes(minutes) => minutes * MINUTE_US,
            Self::Daily(_) | Self::Seconds(_) | Self::Several(_) => {
                let fires = std::iter::successors(Some(from), |last| Some(self.after(*last)));
                let passed = fires.skip(1).take_while(|fire| *fire <= to && !fire.is_never());
                return passed.take(COUNTED_MAX).count() as u64;
            }
        };
        to.as_micros().saturating_sub(from.as_micros()) / step_us
    }
}

/// Whether a daily job fires at this minute of 2026: when its time is shown, first if it is shown twice; if it is never shown, when the
/// clock passes over it.
fn fires_daily(minute_of_day: u64, time_us: u64) -> bool {
    let [forward, back] = CLOCK_CHANGES.map(Timestamp::as_micros);
    let is_summer = (forward..back).contains(&time_us);
    let shown = (time_us + if is_summer { 2 * HOUR_US } else { HOUR_US }) / MINUTE_US % (24 * 60);
    let is_shown_again = (back..back + HOUR_US).contains(&time_us);
    let is_passed_over = time_us == forward && (2 * 60..3 * 60).contains(&minute_of_day);
    (shown == minute_of_day && !is_shown_again) || is_passed_over
}
