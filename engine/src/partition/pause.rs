//! Pausing and resuming.
//!
//! A paused job does not fire; what runs, or waits for its next attempt, goes on. Resuming looks for the first firing after now:
//! those that passed in between are no misfires. A one-shot whose time passed fires when resumed, because it has no other.

use super::{Flag, Partition, Turn, policy::Timing};
use tickwheel_wire::{
    Timestamp,
    event::{Event, JobChange},
};

/// Why something is not done with a job.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JobError {
    #[error("the job runs, or has been triggered already, and its overlap policy is `skip`")]
    OverlapSkipped,
}

impl Partition {
    /// Pauses the job in `slot`; nothing happens if it is paused.
    pub(crate) fn pause(&mut self, slot: u32, turn: &mut Turn<'_>) {
        let record = self.table.record(slot);
        if !record.is(Flag::PAUSED) {
            let change = JobChange { slot, at: turn.now.wall, next_fire: record.next_fire() };
            self.emit(turn.events, &Event::JobPaused(change));
        }
    }

    /// Resumes the job in `slot`; nothing happens if it is not paused.
    pub(crate) fn resume(&mut self, slot: u32, turn: &mut Turn<'_>) {
        if self.table.record(slot).is(Flag::PAUSED) {
            let next_fire = self.fire_after(slot, turn.now.wall, turn);
            let change = JobChange { slot, at: turn.now.wall, next_fire };
            self.emit(turn.events, &Event::JobResumed(change));
        }
    }

    /// The first firing after `after`, from the schedule itself.
    fn fire_after(&mut self, slot: u32, after: Timestamp, turn: &mut Turn<'_>) -> Timestamp {
        let record = self.table.record(slot);
        let (next_fire, schedule) = (record.next_fire(), record.schedule);
        if next_fire > after || self.rhythms.value(schedule).timing == Timing::Once {
            return next_fire;
        }
        if record.is(Flag::RULED) {
            return self.firing_across(slot, after, turn);
        }
        let own = self.own_time(slot);
        let first = self.rhythms.value_mut(schedule).first_after(Some(own), after, turn.zones);
        // The zone was known when the job was submitted; a database that lost it leaves the job without a next fire.
        first.ok().flatten().unwrap_or(Timestamp::MAX)
    }

    /// The anchor of an interval or the time of a one-shot.
    pub(super) fn own_time(&self, slot: u32) -> Timestamp {
        let entry = self.arena.entry(self.table.record(slot).data);
        Timestamp::from_micros(entry.parameter.unwrap_or(entry.created_at))
    }

    pub(super) fn apply_paused(&mut self, change: &JobChange) {
        self.change(change.slot).set(Flag::PAUSED, true);
    }

    pub(super) fn apply_resumed(&mut self, change: &JobChange) {
        let record = self.change(change.slot);
        record.set(Flag::PAUSED, false);
        if !record.is(Flag::FINISHED) {
            record.next_fire_raw = change.next_fire.as_micros();
            self.settle(change.slot, change.at);
        }
        self.standings.remove(change.slot);
    }
}
