//! Giving an attempt to a worker.
//!
//! At the first attempt of a scheduled execution the missed firings between its time and now are counted, and this one stands for
//! them; a job with rules of its own says otherwise ([`super::due`]). The event is logged before the worker hears of the attempt, so that no token is given
//! out twice and every attempt is counted across crashes.

use super::{
    Flag, Partition, Turn,
    execution::{Execution, Volatile},
    fire::Ready,
    low,
    policy::Progress,
};
use tickwheel_wire::{
    FireSequence, InstanceId, Timestamp, Token,
    event::{Dispatched, Event, Missed, Origin, WorkerSeen},
    planted::Mistake,
};

/// An attempt that was given out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub fire_sequence: FireSequence,
    pub token: Token,
    pub attempt: u16,
    pub scheduled_at: Timestamp,
    /// Where its record is.
    pub place: u32,
}

impl Partition {
    /// The partition's index of a worker, which is announced if it has none. `hint` is a former answer.
    ///
    /// `None`: the table of workers is full of workers that are referred to.
    #[inline]
    pub(crate) fn worker_index(
        &mut self,
        hint: Option<u16>,
        instance: InstanceId,
        name: &str,
        turn: &mut Turn<'_>,
    ) -> Option<u16> {
        match hint.and_then(|index| self.workers.get(index)) {
            Some(entry) if entry.instance == instance => hint,
            _ => self.announce(instance, name, turn),
        }
    }

    fn announce(&mut self, instance: InstanceId, name: &str, turn: &mut Turn<'_>) -> Option<u16> {
        if let Some((index, _)) = self.workers.iter().find(|(_, entry)| entry.instance == instance) {
            return Some(index);
        }
        let worker = self.workers.vacancy(self.limits.workers_max, || {
            self.recent.iter().chain(self.dead_letters.iter()).map(|attempt| attempt.end.worker)
        })?;
        self.emit(turn.events, &Event::WorkerSeen(WorkerSeen { worker, instance, name }));
        Some(worker)
    }

    /// Begins the next attempt of the job in `slot`, for which `ready` holds.
    #[inline]
    pub(crate) fn dispatch(&mut self, slot: u32, ready: Ready, worker: u16, turn: &mut Turn<'_>) -> Started {
        let record = self.table.record(slot);
        let token = Token(record.token().0 + 1);
        let (mut fire_sequence, mut attempt) = (record.fire_sequence(), 1);
        let mut progress = Progress { missed: 0, next: record.next_fire() };
        let mut scheduled_at = record.next_fire();
        match ready {
            Ready::Retry => {
                let place = self.due_retry(slot, turn.now.wall).expect("an attempt is due");
                let execution = self.executions.get(place);
                fire_sequence = execution.fire_sequence.0;
                attempt = execution.attempt + 1;
                scheduled_at = execution.scheduled_at;
            }
            Ready::Triggered | Ready::Backlog => {
                fire_sequence += 1;
                scheduled_at = self.asked_for(slot, ready.origin()).expect("it was asked for");
                if record.is(Flag::RULED) {
                    progress.next = self.next_after_trigger(slot, fire_sequence);
                }
            }
            Ready::Scheduled if record.is(Flag::RULED) => {
                fire_sequence += 1;
                (scheduled_at, progress.next) = self.choose_to_begin(slot, turn);
            }
            Ready::Scheduled => {
                fire_sequence += 1;
                progress = self.progress(slot, turn);
                if progress.missed > 0 && !Mistake::MissedNotCounted.is_made() {
                    let next_fire = self.table.record(slot).next_fire();
                    self.emit(turn.events, &Event::Misfired(Missed { slot, count: progress.missed, next_fire }));
                }
            }
        }
        let dispatched = Dispatched {
            slot,
            attempt,
            worker,
            fire_sequence: low(fire_sequence),
            token,
            next_fire: progress.next,
            at: turn.now.wall,
            origin: ready.origin(),
        };
        self.emit(turn.events, &Event::Dispatched(dispatched));
        let place = self.place_of(slot, low(fire_sequence)).expect("it has just begun");
        let fire_sequence = FireSequence(fire_sequence);
        Started { fire_sequence, token, attempt, scheduled_at, place }
    }

    #[inline]
    pub(super) fn apply_dispatched(&mut self, dispatched: &Dispatched) {
        let slot = dispatched.slot;
        self.workers.acquire(dispatched.worker);
        let runs_beside = self.newest_attempt_runs(slot);
        let record = self.change(slot);
        assert_eq!(record.token().0 + 1, dispatched.token.0, "tokens grow by one");
        record.set_token(dispatched.token);
        if runs_beside {
            // What was known is about an attempt before that one.
            record.set(Flag::REPORTED, false);
        }
        let newest = record.execution;
        if let Some(place) = self.place_of(slot, dispatched.fire_sequence) {
            let execution = self.executions.get_mut(place);
            execution.token = dispatched.token;
            execution.attempt = dispatched.attempt;
            execution.worker = dispatched.worker;
            execution.retrying = false;
            execution.dispatched_at = dispatched.at;
            execution.volatile = Volatile::default();
            return;
        }
        let record = self.table.record_mut(slot);
        let fire_sequence = record.fire_sequence() + 1;
        assert_eq!(low(fire_sequence), dispatched.fire_sequence, "fire sequences grow by one");
        record.set_fire_sequence(fire_sequence);
        let mut scheduled_at = record.next_fire();
        if dispatched.origin != Origin::Schedule {
            scheduled_at = self.take_asked_for(slot, dispatched.origin).expect("it was asked for");
        }
        let execution = Execution {
            slot,
            older: newest,
            fire_sequence: FireSequence(fire_sequence),
            token: dispatched.token,
            attempt: dispatched.attempt,
            worker: dispatched.worker,
            retrying: false,
            cancel_requested: false,
            origin: dispatched.origin,
            scheduled_at,
            dispatched_at: dispatched.at,
            retry_at: Timestamp::MAX,
            volatile: Volatile::default(),
        };
        let place = self.executions.insert(execution);
        let record = self.table.record_mut(slot);
        record.next_fire_raw = dispatched.next_fire.as_micros();
        record.execution = place;
        if record.is(Flag::RULED) {
            self.begin_ruled(slot, scheduled_at, dispatched);
        }
        self.counters.fired += 1;
    }
}
