//! Calendars: exclusions that the jobs of a tenant share by name.
//!
//! A job names one by an entry of its exclusions; what it stands for is found when these are compiled, so a calendar that is set anew counts from the next
//! search on. The next firings that were found before are computed again, see [`super::reschedule`]: until that is done, the partition is *behind* its
//! calendars, which is durable, so that a crash in between leaves nothing out. A name that no calendar has stands for nothing.

use super::{Partition, Turn};
use crate::schedule::{ExclusionError, Exclusions};
use std::collections::BTreeMap;
use tickwheel_wire::{
    TenantId,
    event::{CalendarRemoved, CalendarSet, Event},
    limits::{CALENDAR_NAME_BYTES_MAX, CALENDARS_MAX, EXCLUSIONS_BYTES_MAX},
    planted::Mistake,
};

/// The zone that a calendar is tried with which names none: that of its jobs may be any.
const ANY_ZONE: &str = "UTC";

#[derive(Debug, Default)]
pub(crate) struct Calendars {
    by_name: BTreeMap<(TenantId, Box<str>), Box<str>>,
    /// Next firings may come from calendars as they were before.
    behind: bool,
    /// Grows with every change, so that what was compiled before is known; volatile.
    changes: u64,
}

/// Why a calendar is not set, or not removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CalendarError {
    #[error(
        "`name` is not 1 to {CALENDAR_NAME_BYTES_MAX} bytes without control characters, and without spaces at its ends"
    )]
    Name,
    #[error("`exclusions` is longer than {EXCLUSIONS_BYTES_MAX} bytes")]
    TooLong,
    #[error("`exclusions`: {0}")]
    Exclusions(#[from] ExclusionError),
    #[error("the tenant has {CALENDARS_MAX} calendars already")]
    TooMany,
    #[error("there is no such calendar")]
    Unknown,
}

impl Calendars {
    /// The entries of the tenant's calendar with this name.
    pub fn get(&self, tenant: TenantId, name: &str) -> Option<&str> {
        self.by_name.get(&(tenant, Box::from(name))).map(|exclusions| &**exclusions)
    }

    /// By tenant and name.
    pub fn iter(&self) -> impl Iterator<Item = (TenantId, &str, &str)> {
        self.by_name.iter().map(|((tenant, name), exclusions)| (*tenant, &**name, &**exclusions))
    }

    pub const fn are_behind(&self) -> bool {
        self.behind
    }

    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes a calendar in as a snapshot has it.
    pub fn restore(&mut self, tenant: TenantId, name: &str, exclusions: &str) {
        self.by_name.insert((tenant, name.into()), exclusions.into());
    }

    pub const fn restore_behind(&mut self, behind: bool) {
        self.behind |= behind;
    }

    pub fn memory_bytes(&self) -> usize {
        let texts = self.by_name.iter().map(|((_, name), exclusions)| name.len() + exclusions.len());
        texts.sum::<usize>() + self.by_name.len() * size_of::<((TenantId, Box<str>), Box<str>)>() * 3 / 2
    }

    fn have_changed(&mut self, has_jobs: bool) {
        self.changes += 1;
        self.behind |= has_jobs && !Mistake::CalendarNotFollowed.is_made();
    }
}

impl Partition {
    pub(crate) const fn calendars(&self) -> &Calendars {
        &self.calendars
    }

    /// Sets a calendar; nothing happens if it is so.
    pub(crate) fn set_calendar(
        &mut self,
        tenant: TenantId,
        name: &str,
        exclusions: &str,
        turn: &mut Turn<'_>,
    ) -> Result<(), CalendarError> {
        let is_name = (1..=CALENDAR_NAME_BYTES_MAX).contains(&name.len())
            && !name.chars().any(char::is_control)
            && name.trim() == name;
        if !is_name {
            return Err(CalendarError::Name);
        }
        if exclusions.len() > EXCLUSIONS_BYTES_MAX {
            return Err(CalendarError::TooLong);
        }
        Exclusions::of_calendar(exclusions, ANY_ZONE, turn.zones)?;
        let known = self.calendars.get(tenant, name);
        if known == Some(exclusions) {
            return Ok(());
        }
        let count = self.calendars.iter().filter(|(of, ..)| *of == tenant).count();
        if known.is_none() && count >= CALENDARS_MAX {
            return Err(CalendarError::TooMany);
        }
        self.emit(turn.events, &Event::CalendarSet(CalendarSet { tenant, name, exclusions }));
        Ok(())
    }

    /// Removes a calendar.
    pub(crate) fn remove_calendar(
        &mut self,
        tenant: TenantId,
        name: &str,
        turn: &mut Turn<'_>,
    ) -> Result<(), CalendarError> {
        self.calendars.get(tenant, name).ok_or(CalendarError::Unknown)?;
        self.emit(turn.events, &Event::CalendarRemoved(CalendarRemoved { tenant, name }));
        Ok(())
    }

    /// Notes that all next firings come from the calendars as they are.
    pub(crate) fn note_calendars(&mut self, turn: &mut Turn<'_>) {
        if self.calendars.behind {
            self.emit(turn.events, &Event::CalendarsFollowed);
        }
    }

    /// Whether the job in `slot`, which exists, names a calendar.
    pub(super) fn names_calendar(&self, slot: u32) -> bool {
        let excluded = self.policy(self.table.record(slot)).exclusions.as_ref();
        excluded.is_some_and(|excluded| excluded.names_calendar)
    }

    pub(super) fn apply_calendar_set(&mut self, set: &CalendarSet<'_>) {
        self.calendars.restore(set.tenant, set.name, set.exclusions);
        self.calendars.have_changed(self.table.alive_count() > 0);
    }

    pub(super) fn apply_calendar_removed(&mut self, removed: &CalendarRemoved<'_>) {
        self.calendars.by_name.remove(&(removed.tenant, Box::from(removed.name)));
        self.calendars.have_changed(self.table.alive_count() > 0);
    }

    pub(super) const fn apply_calendars_followed(&mut self) {
        self.calendars.behind = false;
    }
}
