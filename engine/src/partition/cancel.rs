//! Cancelling an execution.
//!
//! One that runs is asked to end: its worker is told, and it ends with the worker's report or, at the latest, with the time it
//! is given to react; whatever fails from then on counts as cancelled and is not tried again, while a success counts as such.
//! One that waits, for its first attempt or another, ends at once. A firing that is due and not dispatched has the fire sequence
//! after the job's newest, if there is room for it beside those in flight.

use super::{Flag, Partition, Turn, execution::Execution, fire::Ready, low};
use tickwheel_wire::{
    FireSequence, JobId, Timestamp,
    event::{Cancellation, Event, Origin},
    frame::request::ExecutionState,
};

/// What a cancellation led to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cancelled {
    /// The running attempt in this slot is to be told.
    Requested { place: u32 },
    /// It was asked for before.
    Repeated { place: u32 },
    /// The execution has ended: this one, if there was an attempt of it, else one that was due at the time.
    Ended { slot: u32, execution: Option<Execution>, due_at: Timestamp },
}

/// Why nothing is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CancelError {
    #[error("the job is gone")]
    UnknownJob,
    #[error("no such execution is in flight")]
    UnknownExecution,
}

impl Partition {
    /// Cancels an execution that is in flight or due.
    pub(crate) fn cancel(
        &mut self,
        job: JobId,
        fire_sequence: FireSequence,
        turn: &mut Turn<'_>,
    ) -> Result<Cancelled, CancelError> {
        let slot = self.slot_of(job).ok_or(CancelError::UnknownJob)?;
        let record = self.table.record(slot);
        let (at, next_fire) = (turn.now.wall, record.next_fire());
        let mut in_flight = self.in_flight(slot).map(|(place, execution)| (place, *execution));
        let found = in_flight.find(|(_, execution)| execution.fire_sequence == fire_sequence);
        drop(in_flight);
        let mut due_at = next_fire;
        let mut cancellation =
            Cancellation { slot, fire_sequence: low(fire_sequence.0), at, next_fire, origin: Origin::Schedule };
        if let Some((place, execution)) = found {
            if execution.cancel_requested && !execution.retrying {
                return Ok(Cancelled::Repeated { place });
            }
            if !execution.retrying {
                self.emit(turn.events, &Event::CancelRequested(cancellation));
                return Ok(Cancelled::Requested { place });
            }
        } else if fire_sequence.0 != record.fire_sequence() + 1 {
            return Err(CancelError::UnknownExecution);
        } else {
            match self.ready_to_begin(slot, at) {
                Some(Ready::Scheduled) if record.is(Flag::RULED) => {
                    (due_at, cancellation.next_fire) = self.choose(slot, turn);
                }
                Some(Ready::Scheduled) => cancellation.next_fire = self.progress(slot, turn).next,
                Some(ready @ (Ready::Triggered | Ready::Backlog)) => {
                    cancellation.origin = ready.origin();
                    due_at = self.asked_for(slot, cancellation.origin).expect("it was asked for");
                }
                _ => return Err(CancelError::UnknownExecution),
            }
        }
        self.emit(turn.events, &Event::Cancelled(cancellation));
        Ok(Cancelled::Ended { slot, execution: found.map(|(_, execution)| execution), due_at })
    }

    pub(super) fn apply_cancel_requested(&mut self, cancellation: &Cancellation) {
        let place = self.place_of(cancellation.slot, cancellation.fire_sequence).expect("it is in flight");
        self.executions.get_mut(place).cancel_requested = true;
    }

    pub(super) fn apply_cancelled(&mut self, cancellation: &Cancellation) {
        let slot = cancellation.slot;
        let record = self.change(slot);
        record.set_last_state(ExecutionState::Cancelled);
        record.finished_secs = low(cancellation.at.as_micros() / 1_000_000);
        if let Some(place) = self.place_of(slot, cancellation.fire_sequence) {
            if self.table.record(slot).is(Flag::RULED) {
                self.end_ruled(slot, cancellation.at, None);
            }
            let ended = self.end_in_flight(slot, place);
            assert!(ended.retrying, "a running attempt is asked to end, not ended");
        } else {
            let record = self.table.record_mut(slot);
            record.set_fire_sequence(record.fire_sequence() + 1);
            self.take_asked_for(slot, cancellation.origin);
            self.go_on(slot, cancellation.next_fire);
        }
        self.counters.cancelled += 1;
        self.settle(slot, cancellation.at);
    }
}
