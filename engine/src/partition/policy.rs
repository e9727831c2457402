//! What many jobs have in common: their rules, and the rhythm they fire in.

use super::{calendars::Calendars, several::Several};
use crate::{
    dispatcher::PoolId,
    schedule::{Cron, CronError, CronOptions, CronRules, ExclusionError, Exclusions, Schedule, Zones, settle_hashed},
};
use std::{
    hash::{Hash, Hasher},
    time::Duration,
};
use tickwheel_wire::{
    TenantId, Timestamp,
    job::{FiringRules, JobSpec, Priority, RetryPolicy, ScheduleSpec},
    name_hash,
    planted::Mistake,
};

/// Most missed firings that are counted one by one (a week of minutes); beyond, the count stays there.
pub(super) const MISSED_MAX: u32 = 10_080;

/// Everything of a definition but its name, payload and schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    pub tenant: TenantId,
    pub tenant_name: Box<str>,
    pub handler: Box<str>,
    pub pool: Box<str>,
    pub priority: Priority,
    pub retry: RetryPolicy,
    pub start_to_close_ms: u32,
    pub heartbeat_ms: u32,
    pub non_retryable: Box<str>,
    pub rules: FiringRules,
    /// Shared by all jobs that have the same; see [`JobSpec::labels`].
    pub labels: Box<str>,
    /// Times at which no firing comes.
    pub exclusions: Option<Box<Excluded>>,
    /// A cron expression as it was written, if the job's name has settled an `H` in it; of several schedules see [`Several`].
    pub hashed: Option<Box<str>>,
}

impl Policy {
    pub fn of(tenant: TenantId, spec: &JobSpec<'_>) -> Self {
        Self {
            tenant,
            tenant_name: spec.tenant.into(),
            handler: spec.handler.into(),
            pool: spec.pool.into(),
            priority: spec.priority,
            retry: spec.retry,
            start_to_close_ms: spec.start_to_close_ms,
            heartbeat_ms: spec.heartbeat_ms,
            non_retryable: spec.non_retryable.into(),
            rules: spec.rules,
            labels: spec.labels.into(),
            exclusions: Excluded::of(spec),
            hashed: hashed_expression(spec),
        }
    }

    /// Whether another attempt may follow one that failed with an error of this name.
    pub fn retries(&self, error: &str) -> bool {
        self.non_retryable.is_empty() || !self.non_retryable.split(',').any(|name| name == error)
    }
}

/// The exclusions of a definition as they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Excluded {
    pub text: Box<str>,
    /// Of the entries that name none.
    pub zone: Box<str>,
    /// Whether an entry names a calendar.
    pub names_calendar: bool,
}

impl Excluded {
    fn of(spec: &JobSpec<'_>) -> Option<Box<Self>> {
        let (text, zone) = (spec.exclusions, spec.exclusion_zone());
        let names_calendar = Exclusions::calendars_named(text).next().is_some();
        (!text.is_empty()).then(|| Box::new(Self { text: text.into(), zone: zone.into(), names_calendar }))
    }
}

/// A policy with what is derived from it and volatile: the number that the node gives its pool, the compiled exclusions.
#[derive(Clone, Debug)]
pub(crate) struct PolicyEntry {
    pub policy: Policy,
    /// Resolved by the shard core when first needed.
    pub pool: Option<PoolId>,
    exclusions: Option<Exclusions>,
    /// After how many changes of the calendars they were compiled.
    compiled_after: u64,
}

impl PolicyEntry {
    pub const fn new(policy: Policy) -> Self {
        Self { policy, pool: None, exclusions: None, compiled_after: 0 }
    }

    /// The exclusions of the jobs with this policy, which are none for most.
    pub fn exclusions(&mut self, calendars: &Calendars, zones: &mut Zones) -> Result<&Exclusions, ExclusionError> {
        let names_calendar = self.policy.exclusions.as_ref().is_some_and(|excluded| excluded.names_calendar);
        let is_current = !names_calendar || self.compiled_after == calendars.changes();
        if self.exclusions.is_none() || !is_current {
            // A name that was known when the job was submitted may be none any more.
            let calendar = |name: &str| Some(calendars.get(self.policy.tenant, name).unwrap_or_default());
            self.exclusions = Some(match &self.policy.exclusions {
                Some(excluded) => Exclusions::new(&excluded.text, &excluded.zone, zones, calendar)?,
                None => Exclusions::default(),
            });
            self.compiled_after = calendars.changes();
        }
        Ok(self.exclusions.as_ref().expect("they were just compiled"))
    }
}

impl PartialEq for PolicyEntry {
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy
    }
}

impl Eq for PolicyEntry {}

impl Hash for PolicyEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.policy.hash(state);
    }
}

/// When jobs fire, without what is each job's own (the time of a one-shot, the anchor of an interval).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timing {
    Cron { expression: Box<str>, zone: Box<str>, rules: CronRules },
    Every { every_us: u64 },
    Once,
    FixedDelay { delay_us: u64 },
    Several(Box<Several>),
}

impl Timing {
    /// The timing, and what is the job's own: the anchor or the time, resolved against the time of submission.
    pub fn of(spec: &JobSpec<'_>, at: Timestamp) -> (Self, Option<Timestamp>) {
        if !spec.also.is_empty() {
            return (Self::Several(Box::new(Several::of(spec, at))), None);
        }
        match spec.schedule {
            ScheduleSpec::Cron { expression, zone } => {
                // What is wrong with it is said when it is compiled.
                let settled = settle_hashed(expression, name_hash(spec.tenant, spec.name));
                let expression = settled.as_deref().unwrap_or(expression).into();
                (Self::Cron { expression, zone: zone.into(), rules: (&spec.rules).into() }, None)
            }
            ScheduleSpec::Interval { every_us, anchor } => {
                (Self::Every { every_us }, Some(if anchor.is_never() { at } else { anchor }))
            }
            ScheduleSpec::Once { at: time } => (Self::Once, Some(time)),
            ScheduleSpec::After { delay_us } => (Self::Once, Some(at.saturating_add(Duration::from_micros(delay_us)))),
            ScheduleSpec::FixedDelay { delay_us } => (Self::FixedDelay { delay_us }, None),
        }
    }

    /// Whether a combination has a part that the job's name decides; of a single schedule [`Policy::hashed`] says so.
    pub fn is_hashed(&self) -> bool {
        matches!(self, Self::Several(several) if several.is_hashed())
    }
}

/// What became of the firings up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Firings after the given one and not after now.
    pub missed: u32,
    /// The first firing after now; [`Timestamp::MAX`]: none.
    pub next: Timestamp,
}

/// The last answer of a search, which is the same for every job that shares it.
#[derive(Clone, Copy, Debug)]
struct Memo {
    fire: Timestamp,
    /// The answer holds from the last firing that was missed (or `fire`) ...
    from: Timestamp,
    /// ... until the next one.
    progress: Progress,
}

/// A timing with its compiled form and the last answer; both are volatile and derived.
#[derive(Clone, Debug)]
pub(crate) struct Rhythm {
    pub timing: Timing,
    compiled: Option<Schedule>,
    memo: Option<Memo>,
}

impl PartialEq for Rhythm {
    fn eq(&self, other: &Self) -> bool {
        self.timing == other.timing
    }
}

impl Eq for Rhythm {}

impl Hash for Rhythm {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.timing.hash(state);
    }
}

impl Rhythm {
    pub const fn new(timing: Timing) -> Self {
        Self { timing, compiled: None, memo: None }
    }

    /// From a firing that is due (`fire <= now`) to the first after `now`. An interval needs no anchor for it: every
    /// firing has the anchor's phase.
    #[inline]
    pub fn advance(&mut self, fire: Timestamp, now: Timestamp, zones: &mut Zones) -> Progress {
        match self.timing {
            Timing::Once | Timing::FixedDelay { .. } => Progress { missed: 0, next: Timestamp::MAX },
            Timing::Every { every_us } => advance_interval(every_us, fire, now),
            Timing::Cron { .. } | Timing::Several(_) => match self.memo {
                Some(memo)
                    if (memo.fire == fire || Mistake::MemoOfAnotherFiring.is_made())
                        && memo.from <= now
                        && now < memo.progress.next =>
                {
                    memo.progress
                }
                _ => self.advance_searching(fire, now, zones),
            },
        }
    }

    fn advance_searching(&mut self, fire: Timestamp, now: Timestamp, zones: &mut Zones) -> Progress {
        let Ok(schedule) = self.compiled(zones) else {
            // The zone was known when the job was submitted; a database that lost it leaves the job without a next fire.
            return Progress { missed: 0, next: Timestamp::MAX };
        };
        let (mut from, mut missed) = (fire, 0);
        let mut next = schedule.next_after(fire);
        while let Some(time) = next.filter(|time| *time <= now) {
            missed += 1;
            if missed == MISSED_MAX {
                from = now;
                next = schedule.next_after(now);
                break;
            }
            from = time;
            next = schedule.next_after(time);
        }
        let progress = Progress { missed, next: next.unwrap_or(Timestamp::MAX) };
        self.memo = Some(Memo { fire, from, progress });
        progress
    }

    /// The first firing after `after`, for a job with this anchor or time of its own.
    pub fn first_after(
        &mut self,
        own: Option<Timestamp>,
        after: Timestamp,
        zones: &mut Zones,
    ) -> Result<Option<Timestamp>, CronError> {
        match self.timing {
            // A one-shot in the past fires at once.
            Timing::Once => Ok(Some(own.expect("a one-shot has a time")).filter(|at| !at.is_never())),
            Timing::Every { every_us } => {
                let schedule = Schedule::interval(every_us, own.expect("an interval has an anchor"));
                Ok(schedule.ok().and_then(|schedule| schedule.next_after(after)))
            }
            Timing::Cron { .. } | Timing::Several(_) => Ok(self.compiled(zones)?.next_after(after)),
            Timing::FixedDelay { delay_us } => Ok(Some(after.saturating_add(Duration::from_micros(delay_us)))),
        }
    }

    fn compiled(&mut self, zones: &mut Zones) -> Result<&Schedule, CronError> {
        if self.compiled.is_none() {
            self.compiled = match &self.timing {
                Timing::Cron { expression, zone, rules } => {
                    let options = CronOptions::of(*rules);
                    Some(Schedule::Cron(Cron::with_options(expression, zones.get(zone)?, options)?))
                }
                Timing::Several(several) => Some(several.compile(zones)?),
                Timing::Every { .. } | Timing::Once | Timing::FixedDelay { .. } => None,
            };
        }
        Ok(self.compiled.as_ref().expect("only what is searched is compiled"))
    }
}

/// The cron expression of a definition, if it leaves something to the job's name and is the only schedule.
fn hashed_expression(spec: &JobSpec<'_>) -> Option<Box<str>> {
    let ScheduleSpec::Cron { expression, .. } = spec.schedule else { return None };
    if !spec.also.is_empty() {
        return None;
    }
    let settled = settle_hashed(expression, name_hash(spec.tenant, spec.name)).ok()?;
    (settled != expression).then(|| expression.into())
}

fn advance_interval(every_us: u64, fire: Timestamp, now: Timestamp) -> Progress {
    let missed = now.as_micros().saturating_sub(fire.as_micros()) / every_us;
    let step = missed.checked_add(1).and_then(|count| count.checked_mul(every_us));
    let next = step.and_then(|step| fire.as_micros().checked_add(step)).unwrap_or(u64::MAX);
    Progress { missed: u32::try_from(missed).unwrap_or(u32::MAX), next: Timestamp::from_micros(next) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn every_minute() -> Timing {
        Timing::Cron { expression: "* * * * *".into(), zone: "UTC".into(), rules: CronRules::default() }
    }

    #[test]
    fn the_memo_answers_as_the_search_does() {
        let timing = every_minute();
        let (mut kept, mut zones) = (Rhythm::new(timing.clone()), Zones::new());
        for (fire, now) in [(60, 60), (60, 119), (60, 120), (60, 185), (60, 179), (120, 185), (60, 100)] {
            let mut fresh = Rhythm::new(timing.clone());
            let expected = fresh.advance(secs(fire), secs(now), &mut zones);
            assert_eq!(kept.advance(secs(fire), secs(now), &mut zones), expected, "{fire} {now}");
            assert_eq!(
                expected,
                Progress { missed: u32::try_from((now - fire) / 60).unwrap(), next: secs(now / 60 * 60 + 60) }
            );
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "counts ten thousand minutes")]
    fn the_memo_survives_the_bound_on_missed_firings() {
        let (mut rhythm, mut zones) = (Rhythm::new(every_minute()), Zones::new());
        for now in [900_000, 900_001, 900_061] {
            let progress = rhythm.advance(secs(60), secs(now), &mut zones);
            assert_eq!(progress, Progress { missed: MISSED_MAX, next: secs(now / 60 * 60 + 60) });
        }
    }

    #[test]
    fn an_interval_keeps_its_phase_whatever_was_missed() {
        let mut rhythm = Rhythm::new(Timing::Every { every_us: 7_000_000 });
        let progress = rhythm.advance(secs(3), secs(32), &mut Zones::new());
        assert_eq!(progress, Progress { missed: 4, next: secs(38) });
    }
}
