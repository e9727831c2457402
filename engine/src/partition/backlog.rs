//! What a job has to make up for: dead letters to be tried again, and firings of the past.
//!
//! Each is an execution to come, with the time that it was to fire at; they begin one after another, in the order in which they were
//! asked for, whenever the job has room for an execution, no firing that is due and no trigger. They do so for a paused job too, as triggers
//! do. Overlap policy `allow` has room for several at a time; with the others there is one. Firings that come due while one of them runs wait for its end, whatever the overlap policy says, and are then judged by the misfire
//! policy, as if the node had been away.
//!
//! Invariant: a job has the flag [`Flag::BACKLOG`] if and only if something is in its backlog.

use super::{Flag, JobRecord, Partition, Turn, low, policy::Timing};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tickwheel_wire::{
    FireSequence, JobId, Timestamp,
    event::{Backfilled, Event, JobChange, Origin, Redriven},
    job::Overlap,
    limits::BACKLOG_MAX,
    planted::Mistake,
};

/// By slot, in the order in which they are to begin: when each was to fire.
pub(super) type Backlogs = BTreeMap<u32, VecDeque<Timestamp>>;

/// The least time.
const MICROSECOND: Duration = Duration::from_micros(1);

/// Bytes that they hold, with a half more for each entry of the map, which is not full.
pub(super) fn memory_bytes(backlogs: &Backlogs) -> usize {
    let times: usize = backlogs.values().map(|times| times.capacity() * size_of::<Timestamp>()).sum();
    times + backlogs.len() * size_of::<(u32, VecDeque<Timestamp>)>() * 3 / 2
}

/// Why nothing was put into a backlog.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BacklogError {
    #[error("the job is gone")]
    UnknownJob,
    #[error("no dead letter of this number is remembered; what was redriven is none any more")]
    NoDeadLetter,
    #[error("the job's backlog has {BACKLOG_MAX} executions already")]
    Full,
    #[error("`{field}` {problem}")]
    Range { field: &'static str, problem: &'static str },
}

/// The firings that a backfill found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backfill {
    pub count: u32,
    /// All firings before this time are among them.
    pub until: Timestamp,
}

impl Partition {
    /// Puts a dead letter at the end of its job's backlog.
    pub(crate) fn redrive(
        &mut self,
        job: JobId,
        fire_sequence: FireSequence,
        turn: &mut Turn<'_>,
    ) -> Result<u32, BacklogError> {
        let slot = self.slot_of(job).ok_or(BacklogError::UnknownJob)?;
        let fire_sequence = low(fire_sequence.0);
        let letters = &self.dead_letters;
        let letter = letters.find_dead(slot, job.generation(), fire_sequence).ok_or(BacklogError::NoDeadLetter)?;
        if self.backlog_of(slot) >= BACKLOG_MAX {
            return Err(BacklogError::Full);
        }
        let scheduled_at = letter.end.scheduled_at;
        self.emit(turn.events, &Event::Redriven(Redriven { slot, fire_sequence, scheduled_at, at: turn.now.wall }));
        Ok(slot)
    }

    /// Puts the firings from `from` on and before `until` that are past at the end of the job's backlog: those that it has room for.
    /// `dry_run` only counts them.
    pub(crate) fn backfill(
        &mut self,
        slot: u32,
        (from, until): (Timestamp, Timestamp),
        dry_run: bool,
        turn: &mut Turn<'_>,
    ) -> Result<Backfill, BacklogError> {
        let refused = |field, problem| Err(BacklogError::Range { field, problem });
        if from >= until {
            return refused("from", "is not before `until`");
        }
        if let Timing::FixedDelay { .. } = self.timing(slot) {
            return refused("schedule", "is a delay after each execution, which says nothing about the past");
        }
        let room = if dry_run { BACKLOG_MAX } else { BACKLOG_MAX - self.backlog_of(slot) };
        let (mut count, mut times) = (0, Vec::new());
        let is_once = *self.timing(slot) == Timing::Once;
        let mut after = from.saturating_sub(MICROSECOND);
        let mut next = self.firing_across(slot, after, turn);
        let past = from..until.min(turn.now.wall);
        while past.contains(&next) && count < room {
            count += 1;
            times.extend_from_slice(&next.as_micros().to_le_bytes());
            after = next;
            next = if is_once { Timestamp::MAX } else { self.firing_after(slot, after, turn) };
        }
        let until = if past.contains(&next) { next } else { until };
        if count > 0 && !dry_run {
            self.emit(turn.events, &Event::Backfilled(Backfilled { slot, at: turn.now.wall, times: &times }));
        }
        Ok(Backfill { count, until })
    }

    /// Drops the job's backlog; nothing happens if it has none.
    pub(crate) fn clear_backlog(&mut self, slot: u32, turn: &mut Turn<'_>) {
        let record = self.table.record(slot);
        if record.is(Flag::BACKLOG) {
            let change = JobChange { slot, at: turn.now.wall, next_fire: record.next_fire() };
            self.emit(turn.events, &Event::BacklogCleared(change));
        }
    }

    /// How many executions are in the job's backlog.
    pub(crate) fn backlog_of(&self, slot: u32) -> u32 {
        self.backlogs.get(&slot).map_or(0, |times| times.len().try_into().expect("at most 1,000"))
    }

    /// When the execution was to fire that was asked for in this way and begins next.
    pub(super) fn asked_for(&self, slot: u32, origin: Origin) -> Option<Timestamp> {
        match origin {
            Origin::Schedule => None,
            Origin::Trigger => self.triggers.get(&slot).copied(),
            Origin::Backlog => self.backlogs.get(&slot)?.front().copied(),
        }
    }

    /// The execution that was asked for in this way begins, or goes.
    pub(super) fn take_asked_for(&mut self, slot: u32, origin: Origin) -> Option<Timestamp> {
        let asked = self.asked_for(slot, origin);
        match origin {
            Origin::Schedule => {}
            Origin::Trigger => {
                self.triggers.remove(&slot);
                self.change(slot).set(Flag::TRIGGERED, false);
            }
            Origin::Backlog => {
                let times = self.backlogs.get_mut(&slot).expect("what begins is in the backlog");
                times.pop_front();
                if times.is_empty() {
                    self.backlogs.remove(&slot);
                    self.change(slot).set(Flag::BACKLOG, false);
                }
            }
        }
        asked
    }

    /// Forgets what was asked for of a job that goes.
    pub(super) fn forget_asked_for(&mut self, slot: u32, record: &JobRecord) {
        if record.is(Flag::TRIGGERED) {
            self.triggers.remove(&slot);
        }
        if record.is(Flag::BACKLOG) {
            self.backlogs.remove(&slot);
        }
    }

    /// Whether an execution in flight makes up for something, so that firings wait for its end. With overlap policy `allow` none does.
    pub(super) fn makes_up(&self, slot: u32) -> bool {
        let record = self.table.record(slot);
        let mut in_flight = self.executions.of_job(record.execution);
        in_flight.any(|(_, execution)| execution.origin == Origin::Backlog)
            && !(record.is(Flag::RULED) && self.rules(slot).overlap == Overlap::Allow)
    }

    pub(super) fn apply_redriven(&mut self, redriven: &Redriven) {
        let Redriven { slot, fire_sequence, scheduled_at, .. } = *redriven;
        let generation = self.table.record(slot).generation();
        if !Mistake::RedrivenStaysDead.is_made() {
            self.dead_letters.revive(slot, generation, fire_sequence);
        }
        self.extend_backlog(slot, [scheduled_at]);
    }

    pub(super) fn apply_backfilled(&mut self, backfilled: &Backfilled<'_>) {
        let (times, rest) = backfilled.times.as_chunks::<8>();
        assert!(rest.is_empty() && !times.is_empty(), "times have 8 bytes each");
        let times = times.iter().map(|bytes| Timestamp::from_micros(u64::from_le_bytes(*bytes)));
        self.extend_backlog(backfilled.slot, times);
    }

    fn extend_backlog(&mut self, slot: u32, times: impl IntoIterator<Item = Timestamp>) {
        self.unfinish(slot);
        self.change(slot).set(Flag::BACKLOG, true);
        self.backlogs.entry(slot).or_default().extend(times);
    }

    pub(super) fn apply_backlog_cleared(&mut self, change: &JobChange) {
        self.backlogs.remove(&change.slot);
        self.change(change.slot).set(Flag::BACKLOG, false);
        self.settle(change.slot, change.at);
    }
}
