//! Calendars that the server keeps: exclusions with a name, which jobs share by naming it.
//!
//! Every partition has a copy, which the jobs of the partition follow. What changes goes to all of them, from the highest down, and to partition 0
//! when all others have it: what is read there is what every job follows. A change that ended in between is completed by asking for it again.

use super::{
    Client, bounded, done, encoded,
    pager::{self, CalendarPager, Pager},
    request::{InFlight, Reply, Sink},
};
use crate::error::RequestError;
use std::collections::VecDeque;
use tickwheel_wire::{
    PartitionId,
    frame::{
        request::{ListCalendars, RemoveCalendar, SetCalendar},
        session::RefusalCode,
    },
    limits,
};

/// Partitions that are asked side by side.
const PARTITIONS_AHEAD: usize = 16;
/// Where calendars are read: the partition that is changed last.
const READ_PARTITION: PartitionId = PartitionId(0);

/// What became of a change, so far.
#[derive(Debug, Default)]
struct Change {
    is_done_somewhere: bool,
    /// The refusal of the first partition that does not know the calendar.
    unknown: Option<RequestError>,
    /// That of the first partition that no shard holds.
    not_held: Option<RequestError>,
}

impl Client {
    /// Creates or replaces a calendar of this client's tenant: `exclusions` has an entry per line, as [`crate::JobBuilder::exclude`] takes them, but
    /// none that names a calendar. Jobs that name it ([`crate::JobBuilder::exclude_calendar`]) follow it from then on; soon after
    /// this returns their next firings are those that it leaves. Setting the same again changes nothing.
    ///
    /// # Errors
    /// A refusal `invalid-field` for a name or an entry that is none, `overloaded` when the tenant has 256 calendars, and what every request may
    /// meet; some of the jobs may follow the new calendar then, and setting it again is harmless. `not-owner` says that a partition is out
    /// of service, after all others were changed.
    pub async fn set_calendar(&self, name: &str, exclusions: &str) -> Result<(), RequestError> {
        bounded("exclusions", exclusions, limits::EXCLUSIONS_BYTES_MAX)?;
        let tenant = self.calendar_tenant(name)?;
        let encode = |request_id, partition| encoded(&SetCalendar { request_id, partition, tenant, name, exclusions });
        self.change_everywhere(encode).await
    }

    /// Removes a calendar of this client's tenant. Jobs that name it fire as if it had no entries; to submit them again, it has to be back.
    ///
    /// # Errors
    /// A refusal `unknown-calendar` when no partition has it, and as [`Client::set_calendar`].
    pub async fn remove_calendar(&self, name: &str) -> Result<(), RequestError> {
        let tenant = self.calendar_tenant(name)?;
        let encode = |request_id, partition| encoded(&RemoveCalendar { request_id, partition, tenant, name });
        self.change_everywhere(encode).await
    }

    /// Lists the calendars of this client's tenant by name; of a client [for the tenant](Client::for_tenant) `""` all that its identity may see, by
    /// tenant.
    ///
    /// # Errors
    /// [`RequestError::TooLong`] when the tenant is longer than any name.
    pub fn calendars(&self) -> Result<CalendarPager, RequestError> {
        let tenant = self.tenant().to_owned();
        bounded("tenant", &tenant, limits::TENANT_NAME_BYTES_MAX)?;
        let encode = move |request_id, partition, cursor| {
            let limit = pager::PAGE_ENTRIES;
            encoded(&ListCalendars { request_id, partition, tenant: &tenant, cursor, limit })
        };
        let rows = |reply| match reply {
            Reply::Calendars(rows, cursor) => Some((rows, cursor)),
            _ => None,
        };
        let kind = pager::Kind { encode: Box::new(encode), sink: |answer| Sink::Calendars(Vec::new(), answer), rows };
        Ok(Pager::new(self.clone(), kind, [READ_PARTITION]))
    }

    fn calendar_tenant(&self, name: &str) -> Result<&str, RequestError> {
        bounded("tenant", self.tenant(), limits::TENANT_NAME_BYTES_MAX)?;
        bounded("name", name, limits::CALENDAR_NAME_BYTES_MAX)?;
        Ok(self.tenant())
    }

    /// Asks every partition, the one that is read after all others.
    async fn change_everywhere(&self, encode: impl Fn(u64, PartitionId) -> Vec<u8>) -> Result<(), RequestError> {
        let (mut change, mut ahead) = (Change::default(), VecDeque::with_capacity(PARTITIONS_AHEAD));
        for partition in self.partitions().rev().filter(|partition| *partition != READ_PARTITION) {
            if ahead.len() == PARTITIONS_AHEAD {
                change.take(ahead.pop_front()).await?;
            }
            ahead.push_back(self.start_change(partition, &encode).await);
        }
        while !ahead.is_empty() {
            change.take(ahead.pop_front()).await?;
        }
        change.take(Some(self.start_change(READ_PARTITION, &encode).await)).await?;
        change.outcome()
    }

    async fn start_change(&self, partition: PartitionId, encode: impl Fn(u64, PartitionId) -> Vec<u8>) -> InFlight {
        self.start(partition, true, |request_id| encode(request_id, partition), Sink::Single).await
    }
}

impl Change {
    /// Waits for an answer. An error is one that the other partitions would meet as well, or one after which nothing is known.
    async fn take(&mut self, answer: Option<InFlight>) -> Result<(), RequestError> {
        let answer = answer.expect("called for requests that were started").answer().await;
        let Err(error) = answer.and_then(done) else {
            self.is_done_somewhere = true;
            return Ok(());
        };
        let kept = match error.refusal_code() {
            Some(RefusalCode::UnknownCalendar) => &mut self.unknown,
            Some(RefusalCode::NotOwner) => &mut self.not_held,
            _ => return Err(error),
        };
        kept.get_or_insert(error);
        Ok(())
    }

    fn outcome(self) -> Result<(), RequestError> {
        let unknown = self.unknown.filter(|_| !self.is_done_somewhere);
        self.not_held.or(unknown).map_or(Ok(()), Err)
    }
}
