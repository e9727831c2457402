//! What a job is waiting for, and the firings that come due while it cannot take them.

use super::{Flag, NONE, Partition, Turn, policy::Progress};
use std::time::Duration;
use tickwheel_wire::{
    Now, Timestamp,
    event::{Event, Missed, Origin},
    planted::Mistake,
};

/// How a job stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// There is no job in the slot.
    Gone,
    /// A firing, a trigger or another attempt is due.
    Ready,
    /// A firing is due while an execution is in flight.
    SkipDue,
    /// The running attempt is past one of its limits.
    Overdue,
    /// What is due is too late to be executed; see [`Partition::drop_late`].
    Late,
    /// A firing or a trigger is due that the execution in flight has to make way for.
    Supersede {
        /// At once, or when it has ended.
        terminate: bool,
    },
    /// Nothing until then; [`Timestamp::MAX`]: nothing at all.
    Wait(Timestamp),
}

/// What the next dispatch of a job would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Scheduled,
    Triggered,
    Backlog,
    Retry,
}

impl Ready {
    /// Why there is the execution, if this is its first attempt.
    pub const fn origin(self) -> Origin {
        match self {
            Self::Scheduled | Self::Retry => Origin::Schedule,
            Self::Triggered => Origin::Trigger,
            Self::Backlog => Origin::Backlog,
        }
    }
}

impl Partition {
    /// How the job in `slot` stands.
    #[inline]
    pub(crate) fn outlook(&self, slot: u32, now: Now) -> Outlook {
        let Some(record) = self.table.alive(slot) else { return Outlook::Gone };
        let is_paused = record.is(Flag::PAUSED) && !Mistake::PausedJobFires.is_made();
        let next_fire = if is_paused { Timestamp::MAX } else { record.next_fire() };
        if record.execution == NONE {
            if record.is(Flag::RULED) && self.late_from(slot) <= now.wall {
                return Outlook::Late;
            }
            if next_fire <= now.wall || record.is(Flag::ASKED_FOR) {
                return Outlook::Ready;
            }
            return Outlook::Wait(next_fire);
        }
        if record.is(Flag::RULED)
            && let Some(terminate) = self.superseding(slot, now.wall)
        {
            return Outlook::Supersede { terminate };
        }
        let next_fire = if next_fire <= now.wall {
            if !self.makes_up(slot) && (!record.is(Flag::RULED) || !self.waits(slot)) {
                return Outlook::SkipDue;
            }
            Timestamp::MAX
        } else {
            next_fire
        };
        let execution = self.executions.get(record.execution);
        if execution.retrying {
            let due = execution.retry_at <= now.wall;
            return if due { Outlook::Ready } else { Outlook::Wait(next_fire.min(execution.retry_at)) };
        }
        if Mistake::TimeoutCountsWallTime.is_made() {
            let limit = Duration::from_millis(self.policy(record).start_to_close_ms.into());
            if now.wall.saturating_since(execution.dispatched_at) >= limit {
                return Outlook::Overdue;
            }
        }
        let limits = execution.volatile.deadline.into_iter().chain(execution.volatile.heartbeat_deadline);
        match limits.min() {
            Some(deadline) if deadline <= now.monotonic => Outlook::Overdue,
            Some(deadline) => Outlook::Wait(next_fire.min(now.wall.saturating_add(deadline - now.monotonic))),
            None => Outlook::Wait(next_fire),
        }
    }

    /// What would be dispatched now, if anything.
    #[inline]
    pub(crate) fn ready(&self, slot: u32, now: Timestamp) -> Option<Ready> {
        let record = self.table.alive(slot)?;
        if record.execution != NONE {
            let execution = self.executions.get(record.execution);
            return (execution.retrying && execution.retry_at <= now).then_some(Ready::Retry);
        }
        if record.is(Flag::RULED) && self.late_from(slot) <= now {
            return None;
        }
        if (!record.is(Flag::PAUSED) || Mistake::PausedJobFires.is_made()) && record.next_fire() <= now {
            return Some(Ready::Scheduled);
        }
        if record.is(Flag::TRIGGERED) {
            return Some(Ready::Triggered);
        }
        record.is(Flag::BACKLOG).then_some(Ready::Backlog)
    }

    /// When a job that waits for a worker has to be looked at: a firing comes due while an execution is in flight, or what waits
    /// is too late from then on. [`Timestamp::MAX`]: never.
    #[inline]
    pub(crate) fn looks_again_at(&self, slot: u32, now: Timestamp) -> Timestamp {
        let record = self.table.record(slot);
        if record.execution == NONE {
            return if record.is(Flag::RULED) { self.late_from(slot) } else { Timestamp::MAX };
        }
        let waits = record.next_fire() <= now && (record.is(Flag::RULED) || self.makes_up(slot));
        if record.is(Flag::PAUSED) || waits { Timestamp::MAX } else { record.next_fire() }
    }

    /// From the job's due firing to the first after `now`.
    #[inline]
    pub(super) fn progress(&mut self, slot: u32, turn: &mut Turn<'_>) -> Progress {
        let record = self.table.record(slot);
        if record.is(Flag::RULED) {
            return self.pass_due(slot, turn);
        }
        let (fire, schedule) = (record.next_fire(), record.schedule);
        self.rhythms.value_mut(schedule).advance(fire, turn.now.wall, turn.zones)
    }

    /// Skips the firings that are due while an execution is in flight; overlap policy `skip`. How many.
    pub(crate) fn skip(&mut self, slot: u32, turn: &mut Turn<'_>) -> u32 {
        let progress = self.progress(slot, turn);
        let count = progress.missed.saturating_add(1);
        self.emit(turn.events, &Event::Skipped(Missed { slot, count, next_fire: progress.next }));
        count
    }

    pub(super) fn apply_skipped(&mut self, missed: &Missed) {
        self.counters.skipped += u64::from(missed.count);
        self.go_on(missed.slot, missed.next_fire);
    }

    pub(super) fn apply_misfired(&mut self, missed: &Missed) {
        self.counters.misfired += u64::from(missed.count);
        self.go_on(missed.slot, missed.next_fire);
    }

    /// Notes the job's next firing.
    #[inline]
    pub(super) fn go_on(&mut self, slot: u32, next_fire: Timestamp) {
        let record = self.change(slot);
        record.next_fire_raw = next_fire.as_micros();
        if record.is(Flag::RULED) {
            self.forget_passed(slot);
        }
    }
}
