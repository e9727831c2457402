//! What a job is waiting for, and the firings that come due while it cannot take them.

use super::{Flag, NONE, Partition, Turn, execution::Execution, policy::Progress};
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
    /// The attempt that runs there is past one of its limits.
    Overdue {
        /// Its execution.
        place: u32,
    },
    /// What is due is too late to be executed; see [`Partition::drop_late`].
    Late,
    /// A firing or a trigger is due that an execution in flight has to make way for.
    Supersede {
        /// That execution.
        place: u32,
        /// At once, or when it has ended.
        terminate: bool,
    },
    /// Nothing until then; [`Timestamp::MAX`]: nothing at all.
    Wait(Timestamp),
}

/// How an execution in flight stands at a moment.
enum Flight {
    Overdue,
    /// Its next attempt may begin.
    Due,
    Until(Timestamp),
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
        let (mut ready, mut late, mut until) = (false, false, next_fire);
        if self.has_room(slot) {
            late = record.is(Flag::RULED) && self.late_from(slot) <= now.wall;
            ready = next_fire <= now.wall || record.is(Flag::ASKED_FOR);
        } else {
            if record.is(Flag::RULED)
                && let Some((place, terminate)) = self.superseding(slot, now.wall)
            {
                return Outlook::Supersede { place, terminate };
            }
            if next_fire <= now.wall {
                if !self.makes_up(slot) && (!record.is(Flag::RULED) || !self.waits(slot)) {
                    return Outlook::SkipDue;
                }
                until = Timestamp::MAX;
            }
        }
        for (place, execution) in self.executions.of_job(record.execution) {
            match self.flight(execution, now) {
                Flight::Overdue => return Outlook::Overdue { place },
                Flight::Due => ready = true,
                Flight::Until(at) => until = until.min(at),
            }
        }
        match (late, ready) {
            (true, _) => Outlook::Late,
            (false, true) => Outlook::Ready,
            (false, false) => Outlook::Wait(until),
        }
    }

    #[inline]
    fn flight(&self, execution: &Execution, now: Now) -> Flight {
        if execution.retrying {
            let due = execution.retry_at <= now.wall;
            return if due { Flight::Due } else { Flight::Until(execution.retry_at) };
        }
        if Mistake::TimeoutCountsWallTime.is_made() {
            let policy = self.policy(self.table.record(execution.slot));
            let limit = Duration::from_millis(policy.start_to_close_ms.into());
            if now.wall.saturating_since(execution.dispatched_at) >= limit {
                return Flight::Overdue;
            }
        }
        let limits = execution.volatile.deadline.into_iter().chain(execution.volatile.heartbeat_deadline);
        match limits.min() {
            Some(deadline) if deadline <= now.monotonic => Flight::Overdue,
            Some(deadline) => Flight::Until(now.wall.saturating_add(deadline - now.monotonic)),
            None => Flight::Until(Timestamp::MAX),
        }
    }

    /// Whether an execution of the job may begin now: none is in flight, or not as many as overlap policy `allow` lets be.
    #[inline]
    pub(super) fn has_room(&self, slot: u32) -> bool {
        let record = self.table.record(slot);
        record.execution == NONE || (record.is(Flag::RULED) && self.allows_another(slot))
    }

    /// The oldest execution whose next attempt may begin.
    pub(super) fn due_retry(&self, slot: u32, now: Timestamp) -> Option<u32> {
        let in_flight = self.executions.of_job(self.table.record(slot).execution);
        let due = in_flight.filter(|(_, execution)| execution.retrying && execution.retry_at <= now);
        due.map(|(place, _)| place).last()
    }

    /// What would be dispatched now, if anything.
    #[inline]
    pub(crate) fn ready(&self, slot: u32, now: Timestamp) -> Option<Ready> {
        let record = self.table.alive(slot)?;
        if record.execution != NONE && self.due_retry(slot, now).is_some() {
            return Some(Ready::Retry);
        }
        self.ready_to_begin(slot, now)
    }

    /// The same but for attempts of executions in flight.
    #[inline]
    pub(super) fn ready_to_begin(&self, slot: u32, now: Timestamp) -> Option<Ready> {
        let record = self.table.record(slot);
        if !self.has_room(slot) || record.is(Flag::RULED) && self.late_from(slot) <= now {
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

    /// When a job that waits for a worker has to be looked at: a firing comes due that finds no room, what waits is too late from then on,
    /// or an attempt is past its limits. [`Timestamp::MAX`]: never.
    #[inline]
    pub(crate) fn looks_again_at(&self, slot: u32, now: Now) -> Timestamp {
        let record = self.table.record(slot);
        let again = if self.has_room(slot) {
            if record.is(Flag::RULED) { self.late_from(slot) } else { Timestamp::MAX }
        } else {
            let waits = record.next_fire() <= now.wall && (record.is(Flag::RULED) || self.makes_up(slot));
            if record.is(Flag::PAUSED) || waits { Timestamp::MAX } else { record.next_fire() }
        };
        let in_flight = self.executions.of_job(record.execution).map(|(_, execution)| execution);
        in_flight.filter(|execution| !execution.retrying).fold(again, |again, execution| {
            if let Flight::Until(at) = self.flight(execution, now) { again.min(at) } else { now.wall }
        })
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
