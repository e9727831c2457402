//! Another zone database, or other calendars: next firings that were computed with those before are computed again.
//!
//! The partition knows the fingerprint of the database that its jobs' next firings come from. A shard whose database is another one walks over all
//! jobs in slices, and notes the new fingerprint at the end; what a walk that was cut off has changed is found right by the next.
//!
//! What happens to a job whose next firing moves:
//! - One that is due already stays as it is: it has its time, and the one after it follows by the new rules.
//! - Else the next one is the first after now.
//! - But a firing that lies at most [`MOVE_MAX`] from the last execution, and nearer to it than to the firing that was next, is that execution's, put at
//!   another time: it has fired. One that lies at most as far before the firing that was next, and nearer to it, is that firing: if it lies before now, it
//!   is missed, and due at once. Where no execution is remembered, neither is known: the next firing is the first after now.
//! - A job that would fire no more keeps the firing that it has.
//!
//! Where only calendars have changed, no firing has moved: the next one is the first that the schedule has after now. But one that jitter may have put off
//! from before now stays, and none of before now is looked for: how far a firing is put off depends on the one behind it, so what has been executed could
//! come once more.

use super::{Flag, JobRecord, Partition, Turn, policy::Timing};
use std::time::Duration;
use tickwheel_wire::{
    Timestamp,
    event::{Event, JobChange, Origin, ZonesChanged},
    job::ScheduleSpec,
};

/// How far a new rule is taken to move a firing. Changes of offsets are an hour or two, but at the date line.
const MOVE_MAX: Duration = Duration::from_secs(3 * 3_600);

/// What [`Partition::reschedule`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rescheduling {
    /// The slot holds no job, or one that no zone matters to.
    Unconcerned,
    /// The job's next firing is what it was.
    Kept,
    /// It is another one.
    Moved,
}

impl Partition {
    /// The fingerprint of the zone database that next firings come from; 0: not known.
    pub const fn zones_version(&self) -> u64 {
        self.zones_version
    }

    /// Computes the next firing of the job in `slot` again.
    pub(crate) fn reschedule(&mut self, slot: u32, turn: &mut Turn<'_>) -> Rescheduling {
        let Some(record) = self.table.alive(slot) else { return Rescheduling::Unconcerned };
        let (next_fire, is_finished) = (record.next_fire(), record.is(Flag::FINISHED));
        if is_finished || next_fire.is_never() || next_fire <= turn.now.wall || !self.is_concerned(slot, turn) {
            return Rescheduling::Unconcerned;
        }
        let found = if self.zones_version == turn.zones.version() {
            // It may be of before now, put off by jitter.
            if next_fire <= turn.now.wall.saturating_add(self.jitter(slot)) {
                return Rescheduling::Kept;
            }
            self.firing_of(slot, turn.now.wall, turn)
        } else {
            self.moved(slot, next_fire, turn)
        };
        if found.is_never() || found == next_fire {
            return Rescheduling::Kept;
        }
        let change = JobChange { slot, at: turn.now.wall, next_fire: found };
        self.emit(turn.events, &Event::Rescheduled(change));
        Rescheduling::Moved
    }

    /// Notes that all next firings come from the zones at hand.
    pub(crate) fn note_zones(&mut self, turn: &mut Turn<'_>) {
        let version = turn.zones.version();
        if self.zones_version != version {
            self.emit(turn.events, &Event::ZonesChanged(ZonesChanged { version }));
        }
    }

    /// Whether the job's firings depend on what has changed.
    fn is_concerned(&self, slot: u32, turn: &Turn<'_>) -> bool {
        let have_zones_changed = self.zones_version != turn.zones.version();
        if have_zones_changed { self.depends_on_zones(slot) } else { self.names_calendar(slot) }
    }

    /// Whether the firings of the job in `slot`, which exists, depend on a zone.
    pub(crate) fn depends_on_zones(&self, slot: u32) -> bool {
        let record = self.table.record(slot);
        let is_cron = |schedule: &ScheduleSpec<'_>| matches!(schedule, ScheduleSpec::Cron { .. });
        let by_timing = match self.timing(slot) {
            Timing::Cron { .. } => true,
            Timing::Several(several) => {
                let (first, others) = several.parts();
                is_cron(&first) || others.iter().any(|schedule| is_cron(&schedule))
            }
            Timing::Every { .. } | Timing::Once | Timing::FixedDelay { .. } => false,
        };
        by_timing || self.policy(record).exclusions.is_some()
    }

    /// The next firing of the job by the zones at hand, where it was `next_fire`, which is to come.
    fn moved(&mut self, slot: u32, next_fire: Timestamp, turn: &mut Turn<'_>) -> Timestamp {
        let now = turn.now.wall;
        let found = self.first_to_come(slot, now, turn);
        if found == next_fire {
            return found;
        }
        let Some(last) = self.last_scheduled(slot) else { return found };
        let missed = self.firing_of(slot, last.max(next_fire.saturating_sub(MOVE_MAX)), turn);
        if missed <= now && next_fire.saturating_since(missed) < missed.saturating_since(last) {
            return missed;
        }
        let found = if found > last { found } else { self.firing_of(slot, last, turn) };
        let from_last = found.saturating_since(last);
        let has_fired = from_last <= MOVE_MAX && from_last < next_fire.saturating_since(found);
        if has_fired { self.firing_of(slot, found, turn) } else { found }
    }

    fn jitter(&self, slot: u32) -> Duration {
        Duration::from_millis(self.rules(slot).jitter_ms.into())
    }

    /// The first firing after `now`, which may be one of before that is put off by jitter.
    fn first_to_come(&mut self, slot: u32, now: Timestamp, turn: &mut Turn<'_>) -> Timestamp {
        let is_ruled = self.table.record(slot).is(Flag::RULED);
        if is_ruled { self.firing_across(slot, now, turn) } else { self.firing_of(slot, now, turn) }
    }

    /// The first firing after `after` by schedule and rules; [`Timestamp::MAX`]: none.
    fn firing_of(&mut self, slot: u32, after: Timestamp, turn: &mut Turn<'_>) -> Timestamp {
        let JobRecord { schedule, .. } = *self.table.record(slot);
        if self.table.record(slot).is(Flag::RULED) {
            return self.firing_after(slot, after, turn);
        }
        let own = self.own_time(slot);
        let first = self.rhythms.value_mut(schedule).first_after(Some(own), after, turn.zones);
        first.ok().flatten().unwrap_or(Timestamp::MAX)
    }

    /// When the job's last execution by its schedule was to fire, as far as that is remembered.
    fn last_scheduled(&self, slot: u32) -> Option<Timestamp> {
        let mut in_flight = self.in_flight(slot).map(|(_, execution)| execution);
        if let Some(execution) = in_flight.find(|execution| execution.origin == Origin::Schedule) {
            return Some(execution.scheduled_at);
        }
        let generation = self.table.record(slot).generation();
        Some(self.newest_ended_of(slot, generation)?.end.scheduled_at)
    }

    pub(super) fn apply_rescheduled(&mut self, change: &JobChange) {
        self.go_on(change.slot, change.next_fire);
    }

    pub(super) fn apply_zones_changed(&mut self, changed: &ZonesChanged) {
        self.zones_version = changed.version;
    }
}
