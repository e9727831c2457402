//! Calendars that jobs name: how they stand, what they were, and which jobs have yet to follow them.

use super::{Job, Moment, Partition};
use crate::sim::{
    plan::TENANTS,
    violation::{Promise, Violation, demand},
    when::When,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tickwheel_wire::{TenantId, Timestamp, event::JobChange, job::JobSpec};

/// A calendar from one event on.
#[derive(Debug)]
struct Standing {
    sequence: u64,
    at: Duration,
    /// Its entries, if there is one.
    entries: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Calendars {
    /// By tenant and name.
    standings: BTreeMap<(String, String), Vec<Standing>>,
    /// Whether next firings may come from calendars as they were.
    are_behind: bool,
    /// The slots of jobs whose next firings do, perhaps.
    to_follow: BTreeSet<u32>,
    /// When what there is was recovered.
    recovered_at: Duration,
}

fn key(tenant: &str, name: &str) -> (String, String) {
    (tenant.to_owned(), name.to_owned())
}

fn name_of(tenant: TenantId) -> &'static str {
    TENANTS[tenant.0 as usize]
}

impl Calendars {
    /// The entries of a calendar.
    pub fn get(&self, tenant: &str, name: &str) -> Option<&str> {
        self.standings.get(&key(tenant, name))?.last()?.entries.as_deref()
    }

    /// Whether it may have been another one at some time since then.
    pub fn may_have_changed(&self, tenant: &str, name: &str, since: Duration) -> bool {
        let newest = self.standings.get(&key(tenant, name)).and_then(|standings| standings.last());
        self.recovered_at >= since || newest.is_some_and(|standing| standing.at >= since)
    }

    /// Whether any of those that a definition names is not there, or was not at some time since then.
    pub fn may_lack(&self, spec: &JobSpec<'_>, since: Duration) -> bool {
        let mut named = named(spec.exclusions);
        named.any(|name| self.get(spec.tenant, name).is_none() || self.may_have_changed(spec.tenant, name, since))
    }

    /// The slots of jobs that have yet to follow.
    pub const fn to_follow(&self) -> &BTreeSet<u32> {
        &self.to_follow
    }

    pub(super) const fn recovered(&mut self, now: Duration) {
        self.recovered_at = now;
    }

    /// The event by which a calendar came to have these entries, for someone who asked for that at `asked_at`.
    fn event_of(&self, (tenant, name): (&str, &str), entries: Option<&str>, asked_at: Duration) -> Option<u64> {
        let standings = self.standings.get(&key(tenant, name))?;
        let alike = || standings.iter().filter(|standing| standing.entries.as_deref() == entries);
        let found = alike().find(|standing| standing.at >= asked_at).or_else(|| alike().next_back())?;
        Some(found.sequence)
    }
}

/// The calendars that exclusions name.
pub fn named(exclusions: &str) -> impl Iterator<Item = &str> {
    exclusions.lines().filter_map(|line| line.strip_prefix("calendar "))
}

impl Job {
    /// When it fires next by its calendars as they are, at `wall`. One that fires once does so at its time or not at all.
    fn firing_to_come(&self, wall: Timestamp) -> Timestamp {
        match self.when {
            When::Once(at) if at <= wall => Timestamp::MAX,
            When::Once(_) => self.only_firing(),
            _ => self.scheduled_after(wall),
        }
    }

    /// Another next firing by its calendars; `None`: it keeps the one it has, because that is due, may be put off already, is the same, or the last.
    fn moved_to(&self, wall: Timestamp) -> Option<Timestamp> {
        let jitter = Duration::from_millis(self.rules.jitter_ms.into());
        if self.finished_at.is_some() || self.next_fire.is_never() || self.next_fire <= wall.saturating_add(jitter) {
            return None;
        }
        Some(self.firing_to_come(wall)).filter(|found| !found.is_never() && *found != self.next_fire)
    }
}

impl Partition {
    /// A submission is taken only if there are the calendars that it names.
    pub(super) fn check_named(&self, spec: &JobSpec<'_>) -> Result<(), Violation> {
        let missing = named(spec.exclusions).find(|name| self.calendars.get(spec.tenant, name).is_none());
        demand!(missing.is_none(), Jobs, "there is no calendar {missing:?}");
        Ok(())
    }

    pub(super) fn check_calendar(&self, tenant: TenantId, name: &str, entries: Option<&str>) -> Result<(), Violation> {
        let known = self.calendars.get(name_of(tenant), name);
        demand!(known != entries, Jobs, "calendar {name} of {} is {known:?} already", name_of(tenant));
        Ok(())
    }

    pub(super) fn check_rescheduled(&self, change: &JobChange, moment: &Moment) -> Result<(), Violation> {
        let job = self.of(change.slot)?;
        demand!(self.calendars.are_behind, Accounted, "zones and calendars are what they were");
        demand!(change.at == moment.wall, Accounted, "its time is not the node's, {}", moment.wall);
        // Where it is not noted yet which zones next firings come from, those of all jobs are looked at.
        demand!(job.excluded.names_calendars() || !self.knows_zones, Accounted, "it names no calendar: {job:?}");
        let expected = job.moved_to(moment.wall);
        demand!(expected == Some(change.next_fire), Accounted, "it moves to {expected:?}: {job:?}");
        Ok(())
    }

    /// All follow: at `wall` none is left that would fire next at another time.
    pub(super) fn check_followed(&self, moment: &Moment) -> Result<(), Violation> {
        demand!(self.calendars.are_behind, Accounted, "calendars are what they were");
        for job in self.calendars.to_follow.iter().filter_map(|slot| self.jobs.get(slot)) {
            let moved = job.moved_to(moment.wall);
            demand!(moved.is_none(), Accounted, "by its calendars the next firing is at {moved:?}: {job:?}");
        }
        Ok(())
    }

    pub(super) fn apply_calendar(&mut self, tenant: TenantId, name: &str, entries: Option<&str>, now: Duration) {
        let tenant = name_of(tenant);
        let standing = Standing { sequence: self.sequence, at: now, entries: entries.map(str::to_owned) };
        let Self { calendars, jobs, .. } = self;
        calendars.standings.entry(key(tenant, name)).or_default().push(standing);
        calendars.are_behind = true;
        for (slot, job) in jobs.iter_mut().filter(|(_, job)| job.name.0 == tenant) {
            let spec = JobSpec::decode(&job.spec.0).expect("checked by the engine");
            if named(spec.exclusions).any(|named| named == name) {
                job.excluded = super::excluded::Excluded::of(&spec, calendars);
                calendars.to_follow.insert(*slot);
            }
        }
    }

    pub(super) fn apply_followed(&mut self) {
        self.calendars.are_behind = false;
        self.calendars.to_follow.clear();
    }

    /// The job in the slot is gone, or has a definition whose next firing comes from the calendars as they are.
    pub(super) fn is_followed(&mut self, slot: u32) {
        self.calendars.to_follow.remove(&slot);
    }

    /// Someone was told that a calendar has these entries, or is gone, so that has to survive.
    ///
    /// # Errors
    /// When that never was so.
    pub fn tell_calendar(
        &mut self,
        calendar: (&str, &str),
        entries: Option<&str>,
        asked_at: Duration,
    ) -> Result<(), Violation> {
        let Some(sequence) = self.calendars.event_of(calendar, entries, asked_at) else {
            let what = format!("partition {}: calendar {} was never {entries:?}", self.id, calendar.1);
            return Err(Violation::new(Promise::Durable, what));
        };
        self.floor = self.floor.max(sequence);
        Ok(())
    }
}
