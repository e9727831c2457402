//! Firing now, besides the schedule: a durable wish that becomes the job's next execution, scheduled for the time of the wish.
//!
//! It holds for a paused job too, and for a finished one. At most one is pending; while an execution is in flight the overlap policy
//! `skip` refuses it, the others let it wait or begin, or make room for it. It does not change the schedule, and a firing of the schedule that is due goes first.

use super::{Flag, JobError, NONE, Partition, Turn};
use tickwheel_wire::event::{Event, JobChange};

impl Partition {
    /// Asks for an execution of the job in `slot`, which exists.
    pub(crate) fn trigger(&mut self, slot: u32, turn: &mut Turn<'_>) -> Result<(), JobError> {
        let record = self.table.record(slot);
        let waits = record.execution == NONE || (record.is(Flag::RULED) && self.keeps_triggers(slot));
        if !waits || record.is(Flag::TRIGGERED) {
            return Err(JobError::OverlapSkipped);
        }
        let change = JobChange { slot, at: turn.now.wall, next_fire: record.next_fire() };
        self.emit(turn.events, &Event::Triggered(change));
        Ok(())
    }

    pub(super) fn apply_triggered(&mut self, change: &JobChange) {
        self.unfinish(change.slot);
        self.change(change.slot).set(Flag::TRIGGERED, true);
        self.triggers.insert(change.slot, change.at);
        self.counters.triggered += 1;
    }
}
