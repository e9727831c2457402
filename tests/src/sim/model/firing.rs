//! Jobs with rules of their own: which firings wait, go or are given up, found by looking at each firing.

use super::{Flight, Job, Moment};
use crate::sim::{
    violation::{Violation, demand},
    when::{COUNTED_MAX, When},
};
use std::time::Duration;
use tickwheel_wire::{
    Timestamp,
    event::{Cancellation, Dispatched, Missed, Origin, TooLate},
    frame::request::ExecutionState,
    job::{FiringRules, Misfire, Overlap},
    mix64,
};

/// What no plan excludes is never farther away than a week from what it does, unless everything is excluded.
const EXCLUDED_MAX: Duration = Duration::from_secs(8 * 86_400);
const MICROSECOND: Duration = Duration::from_micros(1);

/// What such a job remembers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    missed_until: Timestamp,
    overlapped_until: Timestamp,
    failures: u16,
}

impl Job {
    /// Whether more than its schedule says what it does.
    pub fn is_ruled(&self) -> bool {
        self.rules != FiringRules::PLAIN || !self.excluded.is_empty() || matches!(self.when, When::Delay(_))
    }

    fn is_used_up(&self, executions: u64) -> bool {
        self.rules.executions_max > 0 && executions >= u64::from(self.rules.executions_max)
    }

    /// The first time after `time` at which its schedules would have it fire, in no excluded time and not before the window.
    fn allowed_after(&self, time: Timestamp) -> Timestamp {
        let mut fire = self.when.after(time.max(self.rules.starts_at.saturating_sub(MICROSECOND)));
        let farthest = fire.saturating_add(EXCLUDED_MAX);
        while fire < farthest {
            let Some(until) = self.excluded.until(fire) else { return fire };
            fire = self.when.after(until.saturating_sub(MICROSECOND));
        }
        Timestamp::MAX
    }

    /// When it fires whose schedules would have it fire at `fire`: later by its jitter, of which it takes a share that job and time
    /// decide, but before the next firing and before the window ends.
    fn put_off(&self, fire: Timestamp) -> Timestamp {
        if fire >= self.rules.ends_at {
            return Timestamp::MAX;
        }
        if self.rules.jitter_ms == 0 {
            return fire;
        }
        let last = self.allowed_after(fire).min(self.rules.ends_at).saturating_sub(MICROSECOND);
        let jitter_us = u64::from(self.rules.jitter_ms) * 1_000;
        let most_us = jitter_us.min(last.as_micros().saturating_sub(fire.as_micros()));
        let drawn = u128::from(mix64(self.id.raw() ^ mix64(fire.as_micros())));
        let share_us = u64::try_from((drawn * u128::from(most_us + 1)) >> 64).expect("a part of it");
        fire.saturating_add(Duration::from_micros(share_us))
    }

    /// When it fires first that its schedules would have fire after `time`.
    pub(super) fn scheduled_after(&self, time: Timestamp) -> Timestamp {
        self.put_off(self.allowed_after(time))
    }

    /// Its first firing after `time`.
    pub fn firing_after(&self, time: Timestamp) -> Timestamp {
        if matches!(self.when, When::Delay(_)) {
            return self.scheduled_after(time);
        }
        // One that is put off across `time` comes after it.
        let jitter = Duration::from_millis(self.rules.jitter_ms.into());
        let mut fire = self.allowed_after(time.saturating_sub(jitter));
        while !fire.is_never() && self.put_off(fire) <= time {
            fire = self.allowed_after(fire);
        }
        self.put_off(fire)
    }

    /// The first firing of the definition, which was given at `at`.
    pub fn first_firing(&self, at: Timestamp) -> Timestamp {
        match self.when {
            _ if self.is_used_up(self.fire_sequence) => Timestamp::MAX,
            When::Once(_) => self.only_firing(),
            _ => self.scheduled_after(at),
        }
    }

    /// The firing of a job that fires once.
    pub(super) fn only_firing(&self) -> Timestamp {
        match self.when {
            When::Once(time) if self.excluded.until(time).is_none() => self.put_off(time),
            _ => Timestamp::MAX,
        }
    }

    fn following(&self, executions: u64, fire: Timestamp, wall: Timestamp) -> Timestamp {
        match self.when {
            _ if self.is_used_up(executions) => Timestamp::MAX,
            When::Delay(_) => self.scheduled_after(wall),
            // Whatever was put off, the next firing is after it.
            _ => self.scheduled_after(fire),
        }
    }

    /// The firings from the next one up to `until`, and the one behind them.
    fn firings(&self, until: Timestamp, wall: Timestamp) -> (Vec<Timestamp>, Timestamp) {
        let (mut fires, mut next) = (Vec::new(), self.next_fire);
        while next <= until && !next.is_never() {
            fires.push(next);
            next = self.following(self.fire_sequence, next, wall);
        }
        (fires, next)
    }

    fn grace(&self) -> Duration {
        match (self.rules.misfire_grace_ms, self.rules.misfire) {
            (0, Misfire::Skip) => Duration::from_secs(60),
            (0, _) => Duration::MAX,
            (grace_ms, _) => Duration::from_millis(grace_ms.into()),
        }
    }

    fn start_limit(&self) -> Duration {
        match self.rules.schedule_to_start_ms {
            0 => Duration::MAX,
            limit_ms => Duration::from_millis(limit_ms.into()),
        }
    }

    /// Until when firings wait that are more than may, and how many may; `None`: any number.
    fn bound(&self, wall: Timestamp) -> Option<(Timestamp, u32)> {
        let Waiting { missed_until, overlapped_until, .. } = self.waiting;
        if self.next_fire <= missed_until {
            return None;
        }
        if self.next_fire <= overlapped_until {
            let keep = if self.rules.overlap == Overlap::BufferAll { self.rules.overlap_max } else { 1 };
            return Some((overlapped_until, keep));
        }
        (self.rules.misfire == Misfire::FireAll).then_some((wall, self.rules.misfire_max))
    }

    /// The next firing once the due one is an execution, and how many missed ones it stands for.
    fn stand_for(&self, wall: Timestamp) -> (Timestamp, usize) {
        let executions = self.fire_sequence + 1;
        let was_kept = self.next_fire <= self.waiting.missed_until.max(self.waiting.overlapped_until);
        if was_kept || self.rules.misfire != Misfire::FireOnce {
            return (self.following(executions, self.next_fire, wall), 0);
        }
        let (fires, next) = self.firings(wall, wall);
        (if self.is_used_up(executions) { Timestamp::MAX } else { next }, fires.len().min(COUNTED_MAX) - 1)
    }

    /// Whether an execution in flight has to make way.
    pub fn is_superseded(&self, flight: &Flight, wall: Timestamp) -> bool {
        let due = self.next_fire <= wall && !self.is_paused;
        let wanted = self.triggered_at.into_iter().chain(due.then_some(self.next_fire));
        let makes_way =
            !self.makes_up() && matches!(self.rules.overlap, Overlap::CancelRunning | Overlap::TerminateRunning);
        makes_way && wanted.max().is_some_and(|time| time > flight.dispatched_at)
    }

    /// Whether firings wait that come due while there is no room for them.
    fn keeps_firings(&self) -> bool {
        !matches!(self.rules.overlap, Overlap::Skip | Overlap::Allow)
    }

    /// Whether a trigger may wait for the execution in flight, or begin beside it.
    pub fn keeps_triggers(&self) -> bool {
        self.rules.overlap != Overlap::Skip
    }

    pub(super) fn check_begun(
        &self,
        dispatched: &Dispatched,
        announced: u32,
        moment: &Moment,
    ) -> Result<(), Violation> {
        let wall = moment.wall;
        let is_delayed = matches!(self.when, When::Delay(_));
        if dispatched.origin != Origin::Schedule {
            let is_last = is_delayed || self.is_used_up(self.fire_sequence + 1);
            let next = if is_last { Timestamp::MAX } else { self.next_fire };
            demand!(dispatched.next_fire == next, Accounted, "after the trigger the next firing is at {next}");
            if dispatched.origin == Origin::Backlog {
                return Ok(());
            }
            let asked = self.triggered_at.unwrap_or_default();
            demand!(wall.saturating_since(asked) <= self.start_limit(), Accounted, "too late since {asked}");
            return Ok(());
        }
        let failures_max = self.rules.pause_after_failures;
        demand!(failures_max == 0 || self.waiting.failures < failures_max, Accounted, "it should be paused: {self:?}");
        let lateness = wall.saturating_since(self.next_fire);
        demand!(lateness <= self.grace().min(self.start_limit()), Accounted, "too late by {lateness:?}");
        if let Some((until, keep)) = self.bound(wall) {
            let waiting = self.firings(until, wall).0.len();
            demand!(waiting <= keep as usize, Accounted, "{waiting} firings wait, {keep} may");
        }
        let (next, stands_for) = self.stand_for(wall);
        let next = if is_delayed { Timestamp::MAX } else { next };
        demand!(announced as usize == stands_for, Accounted, "it stands for {stands_for} more, not for {announced}");
        demand!(dispatched.next_fire == next, Accounted, "the next firing is at {next}");
        Ok(())
    }

    /// Firings that go because they are too late, or more than may wait; or for which the execution that follows stands.
    pub(super) fn check_passed(&self, missed: &Missed, was_skipped: bool, moment: &Moment) -> Result<(), Violation> {
        let wall = moment.wall;
        demand!(self.has_room() && self.next_fire <= wall, Accounted, "nothing is due: {self:?}");
        if missed.next_fire == self.next_fire {
            let (_, stands_for) = self.stand_for(wall);
            demand!(missed.count as usize == stands_for, Accounted, "{stands_for} were missed besides");
            return Ok(());
        }
        // Those that are more than may wait go first, then those past their grace.
        if let Some((until, keep)) = self.bound(wall) {
            let fires = self.firings(until, wall).0;
            let dropped = fires.len().saturating_sub(keep as usize);
            if dropped > 0 {
                let is_overlapped = self.next_fire <= self.waiting.overlapped_until;
                demand!(was_skipped == is_overlapped, Accounted, "of another kind: {self:?}");
                let counted = if fires.len() > COUNTED_MAX { COUNTED_MAX } else { dropped };
                let found = (missed.count as usize, missed.next_fire);
                demand!(found == (counted, fires[dropped]), Accounted, "{dropped} of {} go", fires.len());
                return Ok(());
            }
        }
        let lateness = wall.saturating_since(self.next_fire);
        demand!(!was_skipped && lateness > self.grace(), Accounted, "any may wait: {self:?}");
        let grace_us = u64::try_from(self.grace().as_micros()).expect("a short time");
        let limit = Timestamp::from_micros(wall.as_micros().saturating_sub(grace_us + 1));
        let (fires, next) = self.firings(limit, wall);
        let (count, next) = match next.is_never() {
            true => (fires.len() - 1, fires[fires.len() - 1]),
            false => (fires.len(), next),
        };
        let found = (missed.count as usize, missed.next_fire);
        demand!(found == (count.min(COUNTED_MAX), next), Accounted, "{count} are past their grace, next is {next}");
        Ok(())
    }

    /// Firings that come due while there is no room for them and do not wait.
    pub(super) fn check_skipped_in_flight(&self, missed: &Missed, moment: &Moment) -> Result<(), Violation> {
        let waits = self.keeps_firings() || self.next_fire <= self.waiting.missed_until;
        demand!(!waits, Accounted, "they wait: {self:?}");
        let (fires, next) = self.firings(moment.wall, moment.wall);
        let count = fires.len().min(COUNTED_MAX);
        demand!(
            missed.count as usize == count && missed.next_fire == next,
            Accounted,
            "{count} passed, next is {next}"
        );
        Ok(())
    }

    pub(super) fn check_too_late(&self, too_late: &TooLate, announced: u32, moment: &Moment) -> Result<(), Violation> {
        let wall = moment.wall;
        demand!(self.has_room() && too_late.at == wall, Accounted, "there is no room for it: {self:?}");
        if too_late.origin == Origin::Trigger {
            let asked = self.triggered_at.unwrap_or(Timestamp::MAX);
            demand!(wall.saturating_since(asked) > self.start_limit(), Accounted, "it is not too late");
            return Ok(());
        }
        demand!(too_late.scheduled_at == self.next_fire && !self.is_paused, Accounted, "due is {}", self.next_fire);
        let lateness = wall.saturating_since(self.next_fire);
        let is_last = self.following(self.fire_sequence, self.next_fire, wall).is_never();
        let past_grace = is_last && lateness > self.grace();
        demand!(past_grace || lateness > self.start_limit(), Accounted, "it is not too late: {self:?}");
        let (next, stands_for) = self.stand_for(wall);
        demand!(too_late.next_fire == next, Accounted, "the next firing is at {next}");
        demand!(past_grace || announced as usize == stands_for, Accounted, "it stands for {stands_for} more");
        Ok(())
    }

    pub(super) fn check_cancelled_due(
        &self,
        cancellation: &Cancellation,
        announced: u32,
        moment: &Moment,
    ) -> Result<(), Violation> {
        let (next, stands_for) = self.stand_for(moment.wall);
        demand!(cancellation.next_fire == next, Accounted, "the next firing is at {next}");
        demand!(announced as usize == stands_for, Accounted, "it stands for {stands_for} more");
        Ok(())
    }

    /// Notes what the begin of an execution at `at` leaves, whose firing was the next one; before that changes.
    pub(super) fn begin(&mut self, dispatched: &Dispatched) {
        let was_missed = self.next_fire > self.waiting.missed_until.max(self.waiting.overlapped_until);
        let waits = dispatched.origin == Origin::Schedule && dispatched.next_fire <= dispatched.at;
        if waits && was_missed && self.rules.misfire == Misfire::FireAll {
            self.waiting.missed_until = dispatched.at;
        }
    }

    /// Its next firing is another one from now on: what waited for the one before waits no more.
    pub(super) fn move_to(&mut self, next_fire: Timestamp) {
        let Waiting { missed_until, overlapped_until, .. } = &mut self.waiting;
        for until in [missed_until, overlapped_until] {
            if *until < self.next_fire.max(next_fire) {
                *until = Timestamp::EPOCH;
            }
        }
        self.next_fire = next_fire;
    }

    /// Notes what the end of an execution leaves.
    pub(super) fn end(&mut self, at: Timestamp, state: ExecutionState) {
        if matches!(self.when, When::Delay(_)) {
            let is_used_up = self.is_used_up(self.fire_sequence);
            self.next_fire = if is_used_up { Timestamp::MAX } else { self.firing_after(at) };
        } else if self.keeps_firings() && self.next_fire <= at && !self.is_paused {
            self.waiting.overlapped_until = at;
        }
        match state {
            ExecutionState::Succeeded => self.waiting.failures = 0,
            ExecutionState::Failed | ExecutionState::TimedOut | ExecutionState::WorkerLost => {
                self.waiting.failures += 1;
            }
            _ => {}
        }
    }
}
