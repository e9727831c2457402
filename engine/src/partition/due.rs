//! Which firing comes next, and which are given up, for jobs with rules of their own (see [`tickwheel_wire::job::FiringRules`]).
//!
//! A plain job never comes here: its flag [`Flag::RULED`] is not set. Firings that wait are not stored: the record holds the first
//! firing that was neither executed nor given up, the schedule the others, and [`super::standing::Standing`] why they wait.
//!
//! What is excluded is no firing, so nothing here speaks of it but [`Partition::firing_after`].
//!
//! Where a firing is put off by jitter, the record holds the time it is put off to. That lies before the next firing of the schedule, so
//! the schedule's next firing after it is the next firing.

use super::{
    Flag, JobRecord, NO_WORKER, Partition, Turn, low, micros_between,
    policy::{MISSED_MAX, Policy, Progress, Timing},
    recent::{Attempt, Texts},
};
use std::{collections::VecDeque, time::Duration};
use tickwheel_wire::{
    Timestamp,
    event::{AttemptEnd, AttemptOutcome, Dispatched, Event, Missed, Origin, TooLate},
    frame::request::ExecutionState,
    job::{FiringRules, Misfire, Overlap},
    limits::CATCH_UP_MAX,
    mix64,
    planted::Mistake,
};

/// How late a firing may be with misfire policy `skip`, if the job does not say: a minute.
const GRACE_MS_DEFAULT: u32 = 60_000;
/// The least time.
const MICROSECOND: Duration = Duration::from_micros(1);

impl Policy {
    /// Whether a job of this kind is judged here.
    pub fn is_ruled(&self, timing: &Timing) -> bool {
        let FiringRules { dst_gap, dst_overlap, day_rule, .. } = self.rules;
        let plain = FiringRules { dst_gap, dst_overlap, day_rule, ..FiringRules::default() };
        self.rules != plain || self.exclusions.is_some() || matches!(timing, Timing::FixedDelay { .. })
    }

    /// How late a firing may be to be executed.
    fn grace(&self) -> Option<Duration> {
        match (self.rules.misfire_grace_ms, self.rules.misfire) {
            (0, Misfire::Skip) => Some(GRACE_MS_DEFAULT),
            (0, _) => None,
            (grace_ms, _) => Some(grace_ms),
        }
        .map(millis)
    }

    /// How late an execution may begin.
    fn schedule_to_start(&self) -> Option<Duration> {
        let limit_ms = self.rules.schedule_to_start_ms;
        (limit_ms > 0 && !Mistake::LateExecutionBegins.is_made()).then(|| millis(limit_ms))
    }
}

/// When something of `time` is later than `limit` allows.
fn past(time: Timestamp, limit: Option<Duration>) -> Timestamp {
    limit.map_or(Timestamp::MAX, |limit| time.saturating_add(limit).saturating_add(MICROSECOND))
}

/// The firings that are due, seen from the oldest: how many of them are passed over, the last of these, and the first that is not.
struct Passed {
    count: u32,
    last: Timestamp,
    first: Timestamp,
}

impl Partition {
    pub(super) fn rules(&self, slot: u32) -> &FiringRules {
        &self.policies.value(self.table.record(slot).policy).policy.rules
    }

    /// The first firing of the schedule after `after` that the job's rules let be; [`Timestamp::MAX`]: none.
    pub(super) fn firing_after(&mut self, slot: u32, after: Timestamp, turn: &mut Turn<'_>) -> Timestamp {
        let JobRecord { policy, schedule, .. } = *self.table.record(slot);
        let (rules, own, job) = (*self.rules(slot), self.own_time(slot), self.job_id(slot).raw());
        let rhythm = self.rhythms.value_mut(schedule);
        // The zones were known when the job was submitted; a database that lost one leaves the job without a next fire.
        let Ok(exclusions) = self.policies.value_mut(policy).exclusions(&self.calendars, turn.zones) else {
            return Timestamp::MAX;
        };
        rules.firing_after(job, after, |after| {
            let schedule = |after| rhythm.first_after(Some(own), after, turn.zones).ok().flatten();
            exclusions.first_allowed(after, schedule).unwrap_or(Timestamp::MAX)
        })
    }

    /// The first firing after `after`, even if the schedule has it up to then and jitter puts it off across.
    ///
    /// At most one is, since each comes before the schedule's next. The later a search begins the later the firing that it finds, so the
    /// earliest that comes after `after` is found by halving: at most 37 searches for a jitter of a day.
    pub(super) fn firing_across(&mut self, slot: u32, after: Timestamp, turn: &mut Turn<'_>) -> Timestamp {
        let mut found = self.firing_after(slot, after, turn);
        let jitter_ms = self.rules(slot).jitter_ms;
        if jitter_ms == 0 || matches!(self.timing(slot), Timing::Once | Timing::FixedDelay { .. }) {
            return found;
        }
        let (mut from, mut until) = (after.saturating_sub(millis(jitter_ms) + MICROSECOND), after);
        while from < until {
            let middle = from.saturating_add(until.saturating_since(from) / 2);
            let fire = self.firing_after(slot, middle, turn);
            if fire > after {
                (found, until) = (fire, middle);
            } else {
                from = middle.saturating_add(MICROSECOND);
            }
        }
        found
    }

    /// The same as [`Partition::firing_after`], unless the job has had all its executions once that of the sequence number `fire_sequence` has begun.
    pub(super) fn following(
        &mut self,
        slot: u32,
        fire_sequence: u64,
        after: Timestamp,
        turn: &mut Turn<'_>,
    ) -> Timestamp {
        if self.rules(slot).is_used_up(fire_sequence) {
            return Timestamp::MAX;
        }
        match self.rhythms.value(self.table.record(slot).schedule).timing {
            Timing::Once => Timestamp::MAX,
            Timing::FixedDelay { .. } => self.firing_after(slot, turn.now.wall, turn),
            _ => self.firing_after(slot, after, turn),
        }
    }

    /// When the job's next firing, or its trigger, will be too late to be executed; [`Timestamp::MAX`]: never.
    pub(super) fn late_from(&self, slot: u32) -> Timestamp {
        self.fire_late_from(slot).min(self.trigger_late_from(slot))
    }

    fn fire_late_from(&self, slot: u32) -> Timestamp {
        let record = self.table.record(slot);
        let policy = self.policy(record);
        let limit = policy.grace().into_iter().chain(policy.schedule_to_start()).min();
        if record.is(Flag::PAUSED) { Timestamp::MAX } else { past(record.next_fire(), limit) }
    }

    fn trigger_late_from(&self, slot: u32) -> Timestamp {
        let limit = self.policy(self.table.record(slot)).schedule_to_start();
        self.triggers.get(&slot).map_or(Timestamp::MAX, |asked| past(*asked, limit))
    }

    /// Whether the firing that is due waits for the end of an execution in flight, instead of being skipped.
    pub(super) fn waits(&self, slot: u32) -> bool {
        let keeps = !matches!(self.rules(slot).overlap, Overlap::Skip | Overlap::Allow);
        keeps || self.table.record(slot).next_fire() <= self.standings.of(slot).missed_until
    }

    /// Gives up what is too late, of a job that has room for an execution: firings past their grace are counted, executions past
    /// their schedule-to-start limit recorded. How many were recorded, the newest as the newest attempts that ended.
    pub(crate) fn drop_late(&mut self, slot: u32, turn: &mut Turn<'_>) -> u32 {
        let now = turn.now.wall;
        let mut recorded = 0;
        while self.fire_late_from(slot) <= now {
            self.drop_excess(slot, turn);
            let fire = self.table.record(slot).next_fire();
            let policy = self.policy(self.table.record(slot));
            let (grace, start) = (policy.grace(), policy.schedule_to_start());
            let lateness = now.saturating_since(fire);
            match grace.filter(|grace| lateness > *grace).or(start.filter(|_| recorded >= CATCH_UP_MAX)) {
                Some(limit) => recorded += self.miss_before(slot, now.saturating_sub(limit), turn),
                None if start.is_some_and(|start| lateness > start) => {
                    let next = self.stand_for(slot, turn);
                    self.drop_execution(slot, Origin::Schedule, next, turn);
                    recorded += 1;
                }
                // Those that were late have gone as more than may wait.
                None => break,
            }
        }
        if self.trigger_late_from(slot) <= now {
            self.drop_execution(slot, Origin::Trigger, self.table.record(slot).next_fire(), turn);
            recorded += 1;
        }
        recorded
    }

    /// Counts the firings before `from` as missed, and goes on to the next. Where none is left the last is recorded as an execution that
    /// was too late: so a one-shot that is missed leaves a trace. How many were recorded.
    fn miss_before(&mut self, slot: u32, from: Timestamp, turn: &mut Turn<'_>) -> u32 {
        let Passed { count, last, first } = self.pass(slot, from, turn);
        let is_last = first.is_never();
        let (count, next_fire) = if is_last { (count - 1, last) } else { (count, first) };
        if count > 0 {
            self.emit(turn.events, &Event::Misfired(Missed { slot, count, next_fire }));
        }
        if is_last {
            self.drop_execution(slot, Origin::Schedule, Timestamp::MAX, turn);
        }
        is_last.into()
    }

    /// Records that the execution which was to begin is too late.
    fn drop_execution(&mut self, slot: u32, origin: Origin, next_fire: Timestamp, turn: &mut Turn<'_>) {
        let record = self.table.record(slot);
        let fire_sequence = record.fire_sequence() + 1;
        let scheduled_at = self.asked_for(slot, origin).unwrap_or(record.next_fire());
        let next_fire = if self.rules(slot).is_used_up(fire_sequence) { Timestamp::MAX } else { next_fire };
        let fire_sequence = low(fire_sequence);
        let at = turn.now.wall;
        let too_late = TooLate { slot, fire_sequence, scheduled_at, at, next_fire, origin };
        self.emit(turn.events, &Event::TooLate(too_late));
    }

    /// Gives up the due firings that are more than may wait, so that the first that is left is the one to execute.
    pub(super) fn drop_excess(&mut self, slot: u32, turn: &mut Turn<'_>) {
        let fire = self.table.record(slot).next_fire();
        let (standing, rules) = (self.standings.of(slot), *self.rules(slot));
        if fire <= standing.missed_until {
            // They were counted when the first of them began.
            return;
        }
        let now = turn.now.wall;
        let (until, keep, was_missed) = match (fire <= standing.overlapped_until, rules.misfire) {
            (true, _) if rules.overlap == Overlap::BufferAll => (standing.overlapped_until, rules.overlap_max, false),
            (true, _) => (standing.overlapped_until, 1, false),
            (false, Misfire::FireAll) => (now, rules.misfire_max, true),
            (false, _) => return,
        };
        let keep = keep + u32::from(Mistake::OneMoreWaits.is_made());
        let Passed { count, first, .. } = self.pass_all_but(slot, keep, until, turn);
        if count > 0 {
            let missed = Missed { slot, count, next_fire: first };
            let event = if was_missed { Event::Misfired(missed) } else { Event::Skipped(missed) };
            self.emit(turn.events, &event);
        }
    }

    /// The firing after the due one once that is executed, or given up as an execution. With misfire policy `fire-once` it
    /// stands for all that were missed, which are counted.
    pub(super) fn stand_for(&mut self, slot: u32, turn: &mut Turn<'_>) -> Timestamp {
        let record = self.table.record(slot);
        let (fire, fire_sequence) = (record.next_fire(), record.fire_sequence() + 1);
        let standing = self.standings.of(slot);
        let was_kept = fire <= standing.missed_until.max(standing.overlapped_until);
        if was_kept || self.rules(slot).misfire != Misfire::FireOnce {
            return self.following(slot, fire_sequence, fire, turn);
        }
        let Passed { count, first, .. } = self.pass(slot, turn.now.wall.saturating_add(MICROSECOND), turn);
        if count > 1 {
            self.emit(turn.events, &Event::Misfired(Missed { slot, count: count - 1, next_fire: fire }));
        }
        if self.rules(slot).is_used_up(fire_sequence) { Timestamp::MAX } else { first }
    }

    /// Goes on to the first firing at or after `from`, without change. The count stays at [`MISSED_MAX`] if there are more.
    fn pass(&mut self, slot: u32, from: Timestamp, turn: &mut Turn<'_>) -> Passed {
        let (mut first, fire_sequence) = (self.table.record(slot).next_fire(), self.table.record(slot).fire_sequence());
        // A firing of the schedule before `from` may be put off to a time behind it.
        let near = from.saturating_sub(MICROSECOND + millis(self.rules(slot).jitter_ms));
        let (mut count, mut last) = (0, first);
        while first < from {
            (count, last) = (count + 1, first);
            let after = if count == MISSED_MAX { first.max(near) } else { first };
            first = self.following(slot, fire_sequence, after, turn);
        }
        Passed { count: count.min(MISSED_MAX), last, first }
    }

    /// Goes on to the first of the newest `keep` firings up to `until`, without change.
    fn pass_all_but(&mut self, slot: u32, keep: u32, until: Timestamp, turn: &mut Turn<'_>) -> Passed {
        let oldest = self.table.record(slot).next_fire();
        let fire_sequence = self.table.record(slot).fire_sequence();
        let until = until.min(self.rules(slot).ends_at.saturating_sub(MICROSECOND));
        let (mut newest, mut count, mut steps, mut last) = (VecDeque::from([oldest]), 0, 0, oldest);
        let (mut from, mut fire) = (oldest, oldest);
        // Every round goes on by a firing, or by as many as it takes to leave a few of so many.
        loop {
            fire = self.following(slot, fire_sequence, fire, turn);
            if fire > until {
                break;
            }
            steps += 1;
            if steps == MISSED_MAX {
                fire = near_end(from, fire, keep, until);
                (from, count, steps) = (fire, MISSED_MAX, 0);
                newest.clear();
                continue;
            }
            newest.push_back(fire);
            if newest.len() > keep as usize {
                last = newest.pop_front().unwrap_or(last);
                count = MISSED_MAX.min(count + 1);
            }
        }
        Passed { count, last, first: newest.front().copied().unwrap_or(fire) }
    }

    /// Chooses the firing to execute: its time, and the job's next firing if it is given up.
    pub(super) fn choose(&mut self, slot: u32, turn: &mut Turn<'_>) -> (Timestamp, Timestamp) {
        self.drop_excess(slot, turn);
        let fire = self.table.record(slot).next_fire();
        (fire, self.stand_for(slot, turn))
    }

    /// The same if it is executed: after a fixed delay the next firing follows from its end.
    pub(super) fn choose_to_begin(&mut self, slot: u32, turn: &mut Turn<'_>) -> (Timestamp, Timestamp) {
        let (fire, next) = self.choose(slot, turn);
        let is_delayed = matches!(self.timing(slot), Timing::FixedDelay { .. });
        (fire, if is_delayed { Timestamp::MAX } else { next })
    }

    /// From the due firing to the first after now, as an interval or a cron schedule of a plain job does it.
    pub(super) fn pass_due(&mut self, slot: u32, turn: &mut Turn<'_>) -> Progress {
        let Passed { count, first, .. } = self.pass(slot, turn.now.wall.saturating_add(MICROSECOND), turn);
        Progress { missed: count - 1, next: first }
    }

    /// The job's next firing once a trigger's execution of this sequence number has begun.
    pub(super) fn next_after_trigger(&self, slot: u32, fire_sequence: u64) -> Timestamp {
        let is_delayed = matches!(self.timing(slot), Timing::FixedDelay { .. });
        let is_last = is_delayed || self.rules(slot).is_used_up(fire_sequence);
        if is_last { Timestamp::MAX } else { self.table.record(slot).next_fire() }
    }

    /// Whether overlap policy `allow` lets an execution begin beside those in flight.
    pub(super) fn allows_another(&self, slot: u32) -> bool {
        let rules = self.rules(slot);
        let room = rules.overlap_max as usize + usize::from(Mistake::OneMoreRuns.is_made());
        rules.overlap == Overlap::Allow && self.in_flight(slot).take(room).count() < room
    }

    /// An execution in flight that has to make way for what came due since it was dispatched, and whether at once. What was due
    /// before waits for its end.
    pub(super) fn superseding(&self, slot: u32, now: Timestamp) -> Option<(u32, bool)> {
        let terminate = match self.rules(slot).overlap {
            Overlap::CancelRunning => false,
            Overlap::TerminateRunning => true,
            _ => return None,
        };
        if self.makes_up(slot) {
            return None;
        }
        let record = self.table.record(slot);
        let fire = record.next_fire();
        let mut in_flight = self.in_flight(slot);
        let found = in_flight.find(|(_, execution)| {
            let is_due = !record.is(Flag::PAUSED) && fire <= now && fire > execution.dispatched_at;
            let is_wanted = self.triggers.get(&slot).is_some_and(|asked| *asked > execution.dispatched_at);
            let was_asked = execution.cancel_requested && !execution.retrying && !terminate;
            (is_due || is_wanted) && !was_asked
        });
        found.map(|(place, _)| (place, terminate))
    }

    /// Whether a trigger may wait for the execution in flight.
    pub(super) fn keeps_triggers(&self, slot: u32) -> bool {
        self.rules(slot).overlap != Overlap::Skip
    }

    pub(super) fn timing(&self, slot: u32) -> &Timing {
        &self.rhythms.value(self.table.record(slot).schedule).timing
    }

    /// What the begin of an execution leaves to a job with rules: missed firings that wait.
    pub(super) fn begin_ruled(&mut self, slot: u32, scheduled_at: Timestamp, dispatched: &Dispatched) {
        let standing = self.standings.of(slot);
        self.forget_passed(slot);
        let was_missed = scheduled_at > standing.missed_until.max(standing.overlapped_until);
        let waits = dispatched.origin == Origin::Schedule && dispatched.next_fire <= dispatched.at;
        if waits && was_missed && self.rules(slot).misfire == Misfire::FireAll {
            self.standings.change(slot, |standing| standing.missed_until = dispatched.at);
        }
    }

    /// What the end of an execution leaves to a job with rules: firings that wait, the next one after a fixed delay, failures in a row.
    /// `state` is that of an execution that had a last attempt.
    pub(super) fn end_ruled(&mut self, slot: u32, at: Timestamp, state: Option<ExecutionState>) {
        let record = self.table.record(slot);
        let rules = *self.rules(slot);
        let (next_fire, fire_sequence, is_paused) =
            (record.next_fire(), record.fire_sequence(), record.is(Flag::PAUSED));
        if let Timing::FixedDelay { delay_us } = *self.timing(slot) {
            let job = self.job_id(slot).raw();
            let next = match rules.is_used_up(fire_sequence) {
                true => Timestamp::MAX,
                false => rules.firing_after(job, at, |after| after.saturating_add(Duration::from_micros(delay_us))),
            };
            self.change(slot).next_fire_raw = next.as_micros();
        } else if !matches!(rules.overlap, Overlap::Skip | Overlap::Allow) && next_fire <= at && !is_paused {
            self.standings.change(slot, |standing| standing.overlapped_until = at);
        }
        // Of a paused job the count stands still, and so tells why it is paused; resuming counts anew.
        if rules.pause_after_failures == 0 || is_paused {
            return;
        }
        self.standings.change(slot, |standing| match state {
            Some(ExecutionState::Succeeded) => standing.failures = 0,
            Some(ExecutionState::Failed | ExecutionState::TimedOut | ExecutionState::WorkerLost) => {
                standing.failures = standing.failures.saturating_add(1);
            }
            _ => {}
        });
    }

    pub(super) fn apply_too_late(&mut self, too_late: &TooLate) {
        let TooLate { slot, fire_sequence, scheduled_at, at, next_fire, origin } = *too_late;
        let record = self.change(slot);
        record.set_fire_sequence(record.fire_sequence() + 1);
        record.set_last_state(ExecutionState::TooLate);
        record.finished_secs = low(at.as_micros() / 1_000_000);
        let (token, generation) = (record.token(), record.generation());
        self.take_asked_for(slot, origin);
        self.go_on(slot, next_fire);
        self.counters.too_late += 1;
        let end = AttemptEnd {
            outcome: AttemptOutcome::TooLate,
            attempt: 0,
            slot,
            fire_sequence,
            worker: NO_WORKER,
            token,
            scheduled_at,
            delay_us: micros_between(scheduled_at, at),
            run_us: 0,
            finished_at: at,
            reported: false,
        };
        self.recent.push(&Attempt { end, generation, retry_at: 0, dead: false, texts: Texts::default() });
        self.settle(slot, at);
    }

    /// Forgets what the job's next firing has left behind.
    pub(super) fn forget_passed(&mut self, slot: u32) {
        let next_fire = self.table.record(slot).next_fire();
        self.standings.change(slot, |standing| {
            for until in [&mut standing.missed_until, &mut standing.overlapped_until] {
                if *until < next_fire {
                    *until = Timestamp::EPOCH;
                }
            }
        });
    }
}

impl RulesExt for FiringRules {
    fn firing_after(&self, job: u64, after: Timestamp, mut schedule: impl FnMut(Timestamp) -> Timestamp) -> Timestamp {
        let after = after.max(self.starts_at.saturating_sub(MICROSECOND));
        let fire = schedule(after);
        if fire >= self.ends_at || fire.is_never() {
            return Timestamp::MAX;
        }
        if self.jitter_ms == 0 {
            return fire;
        }
        let next = schedule(fire);
        let end = if next > fire && !Mistake::JitterPastNextFiring.is_made() { next } else { Timestamp::MAX }
            .min(self.ends_at);
        let span_us = (u64::from(self.jitter_ms) * 1_000).min(end.as_micros() - fire.as_micros() - 1);
        let drawn_from = if Mistake::JitterDrawnAnew.is_made() { after } else { fire };
        let draw = u128::from(mix64(job ^ mix64(drawn_from.as_micros())));
        let delay_us = u64::try_from((draw * u128::from(span_us + 1)) >> 64).expect("at most the span");
        fire.saturating_add(Duration::from_micros(delay_us))
    }

    fn is_used_up(&self, fire_sequence: u64) -> bool {
        self.executions_max != 0 && fire_sequence >= u64::from(self.executions_max)
    }
}

/// A time before `until` after which about `keep` firings lie, judged by the [`MISSED_MAX`] between `from` and `fire`.
fn near_end(from: Timestamp, fire: Timestamp, keep: u32, until: Timestamp) -> Timestamp {
    let gap = fire.saturating_since(from) / MISSED_MAX;
    fire.max(until.saturating_sub(gap.saturating_mul(keep)))
}

/// What the core does with the rules.
pub(super) trait RulesExt {
    /// The first firing after `after`, given the schedule's own, put off by jitter.
    ///
    /// From a firing the jitter takes `floor(mix64(job ^ mix64(firing)) * (span + 1) / 2^64)` microseconds, where `span` is the
    /// jitter, but ends before the next firing of the schedule and before `ends_at`.
    fn firing_after(&self, job: u64, after: Timestamp, schedule: impl FnMut(Timestamp) -> Timestamp) -> Timestamp;

    /// Whether a job has had all its executions with this one.
    fn is_used_up(&self, fire_sequence: u64) -> bool;
}

fn millis(value: u32) -> Duration {
    Duration::from_millis(value.into())
}
