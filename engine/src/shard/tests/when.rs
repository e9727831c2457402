//! When the plain model's jobs fire, by counting up from an anchor or by trying every minute of a day.

use super::model::{DAY, SECOND};
use crate::schedule::Cron;
use std::{cell::RefCell, collections::BTreeMap};

/// When a job fires; times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Every {
        every: u64,
        anchor: u64,
    },
    Once {
        at: u64,
    },
    Cron {
        expression: &'static str,
        zone: &'static str,
    },
    /// Counted from the submission, and then from the end of each execution.
    Delay {
        delay: u64,
    },
    /// Whenever one of them fires.
    Several([Single; 3]),
}

/// One of several schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single {
    Every { every: u64, anchor: u64 },
    Once { at: u64 },
    Cron { expression: &'static str, zone: &'static str },
}

impl Single {
    pub fn first_after(self, time: u64) -> Option<u64> {
        match self {
            Self::Every { every, anchor } => When::Every { every, anchor }.first_after(time),
            Self::Once { at } => Some(at).filter(|at| *at > time),
            Self::Cron { expression, zone } => When::Cron { expression, zone }.first_after(time),
        }
    }
}

impl When {
    /// The first firing after `time`, by counting up from the anchor, or by trying every minute.
    pub fn first_after(self, time: u64) -> Option<u64> {
        match self {
            Self::Once { at } => Some(at),
            Self::Delay { delay } => Some(time + delay),
            Self::Every { every, anchor } => {
                let mut fire = anchor.max(anchor + time.saturating_sub(anchor) / every * every);
                while fire <= time {
                    fire += every;
                }
                Some(fire)
            }
            Self::Cron { expression, zone } => Some(first_cron_after(expression, zone, time)),
            Self::Several(several) => several.into_iter().filter_map(|single| single.first_after(time)).min(),
        }
    }

    pub const fn is_cron(self) -> bool {
        matches!(self, Self::Cron { .. })
    }

    /// Whether its missed firings are found one by one.
    pub const fn is_searched(self) -> bool {
        matches!(self, Self::Cron { .. } | Self::Several(_))
    }
}

/// Firings by expression, zone and day.
type FiresOfDays = BTreeMap<(&'static str, &'static str, u64), Vec<u64>>;

thread_local! {
    /// What [`Cron::slow_fires_s`] found; histories ask for the same days again and again.
    static CRON_FIRES: RefCell<FiresOfDays> = const { RefCell::new(BTreeMap::new()) };
}

fn first_cron_after(expression: &'static str, zone: &'static str, time: u64) -> u64 {
    let on = |day: u64| {
        CRON_FIRES.with_borrow_mut(|fires| {
            let fires =
                fires.entry((expression, zone, day)).or_insert_with(|| cron_fires_of_day(expression, zone, day));
            fires.get(fires.partition_point(|fire| *fire <= time)).copied()
        })
    };
    (time / DAY..).take(8).find_map(on).expect("every expression of the histories fires once a week")
}

fn cron_fires_of_day(expression: &str, zone: &str, day: u64) -> Vec<u64> {
    let [start_s, end_s] = [day, day + 1].map(|day| i64::try_from(day * DAY / SECOND).unwrap());
    let fires_s = Cron::slow_fires_s(expression, zone, start_s - 1, end_s - 1);
    fires_s.into_iter().map(|fire_s| u64::try_from(fire_s).unwrap() * SECOND).collect()
}

/// The firing after one of a schedule.
pub fn following(when: When, fire: u64) -> Option<u64> {
    match when {
        When::Every { every, .. } => Some(fire + every),
        When::Once { .. } | When::Delay { .. } => None,
        When::Cron { .. } | When::Several(_) => when.first_after(fire),
    }
}
