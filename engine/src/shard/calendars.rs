//! Requests about calendars.

use super::{Effects, Origin, Shard, jobs::Denial, queries::PAGE_BYTES};
use crate::partition::CalendarError;
use tickwheel_wire::{
    JobId, PartitionId, Timestamp,
    frame::{
        request::{CalendarView, Done, ListCalendars, PageEnd, RemoveCalendar, SetCalendar},
        session::RefusalCode,
    },
    limits::{CALENDAR_NAME_BYTES_MAX, CALENDARS_MAX, EXCLUSIONS_BYTES_MAX, PAGE_ENTRIES_MAX},
};

impl Shard {
    pub(super) fn set_calendar(
        &mut self,
        origin: &Origin<'_>,
        request: &SetCalendar<'_>,
        effects: &mut Effects,
    ) -> Result<Done, Denial> {
        self.check_gate()?;
        let SetCalendar { request_id, partition, tenant, name, exclusions } = *request;
        let tenant = self.tenant(origin, tenant)?;
        let id = self.partition_here(partition)?;
        self.note_first_zones(id, effects);
        let set = self.decide(id, effects, |partition, turn| partition.set_calendar(tenant, name, exclusions, turn));
        self.changed(id, request_id, set)
    }

    pub(super) fn remove_calendar(
        &mut self,
        origin: &Origin<'_>,
        request: &RemoveCalendar<'_>,
        effects: &mut Effects,
    ) -> Result<Done, Denial> {
        self.check_gate()?;
        let RemoveCalendar { request_id, partition, tenant, name } = *request;
        let tenant = self.tenant(origin, tenant)?;
        let id = self.partition_here(partition)?;
        let removed = self.decide(id, effects, |partition, turn| partition.remove_calendar(tenant, name, turn));
        self.changed(id, request_id, removed)
    }

    /// What follows a change of a calendar: the next firings are computed again.
    fn changed(
        &mut self,
        id: PartitionId,
        request_id: u64,
        changed: Result<(), CalendarError>,
    ) -> Result<Done, Denial> {
        changed.map_err(|error| denied(&error))?;
        self.rescheduler_begins(id);
        Ok(Done { request_id, job: JobId::from_raw(0), next_fire: Timestamp::MAX })
    }

    pub(super) fn list_calendars(
        &self,
        origin: &Origin<'_>,
        request: &ListCalendars<'_>,
        effects: &mut Effects,
    ) -> Result<(), Denial> {
        let ListCalendars { request_id, partition, tenant, cursor, limit } = *request;
        let id = self.partition_here(partition)?;
        let wanted = self.visible_tenant(origin, tenant)?;
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let bytes_end = effects.output_bytes() + PAGE_BYTES;
        let (mut next, mut count) = (PageEnd::LAST, 0);
        let skipped = usize::try_from(cursor).unwrap_or(usize::MAX);
        for (place, (of, name, exclusions)) in (0_u64..).zip(self.owned(id).partition.calendars().iter()).skip(skipped)
        {
            if count >= limit || effects.output_bytes() >= bytes_end {
                next = place;
                break;
            }
            let mut tenants = self.config.directory.tenants();
            if wanted.is_none_or(|wanted| wanted == of)
                && let Some((_, tenant)) = tenants.find(|(id, _)| *id == of)
            {
                origin.reply(effects, &CalendarView { request_id, tenant: &tenant.name, name, exclusions });
                count += 1;
            }
        }
        origin.reply(effects, &PageEnd { request_id, cursor: next });
        Ok(())
    }
}

fn denied(error: &CalendarError) -> Denial {
    let (code, field, limit) = match error {
        CalendarError::Name => (RefusalCode::InvalidField, "name", CALENDAR_NAME_BYTES_MAX),
        CalendarError::TooLong => (RefusalCode::InvalidField, "exclusions", EXCLUSIONS_BYTES_MAX),
        CalendarError::Exclusions(_) => (RefusalCode::InvalidField, "exclusions", 0),
        CalendarError::TooMany => (RefusalCode::Overloaded, "calendars", CALENDARS_MAX),
        CalendarError::Unknown => (RefusalCode::UnknownCalendar, "", 0),
    };
    Denial::of_field(code, field, limit, error.to_string())
}
