//! Several schedules of one job: it fires at the times of all of them, and once where some coincide.
//!
//! Unlike those of a single interval or one-shot, the anchors and times of a combination lie in the value that jobs share: they are part of
//! what one job of many has, and a record has room for one.

use crate::schedule::{Cron, CronError, CronOptions, CronRules, Schedule, Zones, settle_hashed};
use std::borrow::Cow;
use tickwheel_wire::{
    Timestamp,
    job::{JobSpec, ScheduleList, ScheduleListBuf, ScheduleSpec},
    name_hash,
};

/// The schedules of a job that has more than one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Several {
    /// As they were submitted, with every anchor a time.
    written: ScheduleListBuf,
    /// The same where the job's name has settled an `H`; `None`: there is none.
    settled: Option<ScheduleListBuf>,
    rules: CronRules,
}

impl Several {
    /// Those of a definition that was submitted at `at`.
    pub fn of(spec: &JobSpec<'_>, at: Timestamp) -> Self {
        let anchored = spec.schedules().map(|schedule| match schedule {
            ScheduleSpec::Interval { every_us, anchor } if anchor.is_never() => {
                ScheduleSpec::Interval { every_us, anchor: at }
            }
            other => other,
        });
        let written: ScheduleListBuf = anchored.collect();
        let settled = settled(written.as_list(), name_hash(spec.tenant, spec.name));
        Self { written, settled, rules: (&spec.rules).into() }
    }

    /// Whether the job's name has a part in it.
    pub const fn is_hashed(&self) -> bool {
        self.settled.is_some()
    }

    /// The first schedule and the others, as they were submitted, with every anchor a time.
    pub fn parts(&self) -> (ScheduleSpec<'_>, ScheduleList<'_>) {
        self.written.as_list().split_first().expect("there is more than one")
    }

    pub fn compile(&self, zones: &mut Zones) -> Result<Schedule, CronError> {
        let options = CronOptions::of(self.rules);
        let schedules = self.settled.as_ref().unwrap_or(&self.written).as_list().iter();
        let compiled = schedules.map(|schedule| match schedule {
            ScheduleSpec::Cron { expression, zone } => {
                Cron::with_options(expression, zones.get(zone)?, options).map(Schedule::Cron)
            }
            ScheduleSpec::Interval { every_us, anchor } => {
                Ok(Schedule::interval(every_us, anchor).expect("the definition was validated"))
            }
            ScheduleSpec::Once { at } => Ok(Schedule::once(at)),
            ScheduleSpec::After { .. } | ScheduleSpec::FixedDelay { .. } => {
                unreachable!("such schedules are not combined with others")
            }
        });
        compiled.collect::<Result<_, _>>().map(Schedule::Several)
    }
}

/// `schedules` with a value in place of every `H`, if there is one. What is wrong with an expression is said when it is compiled.
fn settled(schedules: ScheduleList<'_>, hash: u64) -> Option<ScheduleListBuf> {
    let (mut settled, mut is_hashed) = (ScheduleListBuf::default(), false);
    for schedule in schedules.iter() {
        match schedule {
            ScheduleSpec::Cron { expression, zone } => {
                let chosen = settle_hashed(expression, hash).unwrap_or(Cow::Borrowed(expression));
                is_hashed |= chosen != expression;
                settled.push(&ScheduleSpec::Cron { expression: &chosen, zone });
            }
            other => settled.push(&other),
        }
    }
    is_hashed.then_some(settled)
}
