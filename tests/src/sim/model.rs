//! The reference model: what a partition is after its events, written from the rules and not from the engine's code, and the rules
//! that every event has to keep.
//!
//! The model sees each event when it is decided, before anyone else. A journal of all events lets it go back to what survived a
//! failure. It decides nothing itself: where the engine is free (which worker, when), it checks the bounds.

mod backlog;
mod calendars;
mod counted;
mod excluded;
mod firing;
mod job;
mod labelled;
mod rules;

use super::{
    violation::{Promise, Violation, demand},
    when::When,
};
pub use calendars::Calendars;
use firing::Waiting;
pub use job::{Flight, Job, Spec};
pub use labelled::{Labelled, Listed};
use rules::{check_first_fire, check_retry, is_terminated, key_until, state_of};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tickwheel_wire::{
    InstanceId, JobId, PartitionId, Reader, Timestamp,
    event::{AttemptEnd, AttemptOutcome, Cancellation, Dispatched, Event, Missed, Origin},
    frame::request::ExecutionState,
    job::{JobSpec, Overlap},
};

/// Longest time that a node may take a worker for present that is gone: a session's idle limit of 30 s, and a pause of the node.
const GONE_MAX: Duration = Duration::from_secs(75);

/// How late a limit may be noticed.
const LATE_MAX: Duration = Duration::from_secs(5);

/// Where and when an event is decided.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The node's wall clock.
    pub wall: Timestamp,
    /// Virtual time.
    pub now: Duration,
    /// Reattach limit, grace of cancelled attempts, and how long finished jobs are kept.
    pub reattach: Duration,
    /// How long a cancelled attempt may go on.
    pub grace: Duration,
    /// How long finished jobs are kept.
    pub keep_finished: Duration,
}

/// What the model cannot know: what workers did.
pub trait Truth {
    /// What the worker `instance` has reported about an attempt, if anything.
    fn reported(&self, instance: InstanceId, job: JobId, token: u64) -> Vec<AttemptOutcome>;
    /// Whether the worker was away, or the node was, at any time since `since`.
    fn was_away(&self, instance: InstanceId, since: Duration) -> bool;
    /// Whether the worker has shown no sign of life about the attempt, and nothing held the node up since `since`.
    fn was_silent(&self, instance: InstanceId, job: JobId, token: u64, since: Duration) -> bool;
    /// Since when the worker is gone, if it is.
    fn gone_since(&self, instance: InstanceId) -> Option<Duration>;
}

/// A partition after its events.
#[derive(Debug, Default)]
pub struct Partition {
    id: u16,
    /// Number of the newest event.
    pub sequence: u64,
    /// Jobs by slot.
    pub jobs: BTreeMap<u32, Job>,
    /// Slots by tenant and name.
    names: BTreeMap<(String, String), u32>,
    generations: BTreeMap<u32, u32>,
    workers: BTreeMap<u16, InstanceId>,
    /// Whether it is noted which zone database next firings come from.
    knows_zones: bool,
    /// Until when each idempotency key is remembered.
    keys: BTreeMap<u128, Timestamp>,
    /// The events from the first one on, with the time at which each was decided.
    journal: Vec<(Duration, Vec<u8>)>,
    /// Every event that told a job's identity and revision, or an attempt's token or end, by what it told.
    pub told: BTreeMap<Fact, u64>,
    /// When a job with this name was last removed.
    removed_at: BTreeMap<(String, String), Duration>,
    /// The event that removed each job that is gone.
    removed: BTreeMap<JobId, u64>,
    /// The jobs that were removed because they had finished.
    pub expired: BTreeSet<JobId>,
    /// Which labels jobs had when.
    pub labelled: Labelled,
    /// How many attempts have ended, and executions been given up: the engine remembers the newest.
    ended_count: u64,
    /// The calendars that jobs name.
    pub calendars: Calendars,
    /// How many next firings have been moved because calendars have changed.
    pub moved_count: u64,
    /// What missed firings were announced for the dispatch that follows.
    missed: Option<(u32, u32)>,
    /// The events that ended a batch for the log, each with the digest of the engine's state if it ended a turn too.
    digests: BTreeMap<u64, Option<u64>>,
    /// The newest event that someone was told about.
    pub floor: u64,
    /// The newest event that the log has reported durable.
    pub promised: u64,
}

/// Something that peers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// A job has this revision.
    Revision(JobId, u64),
    /// An attempt was given out.
    Dispatched(JobId, u64),
    /// An attempt's report was counted.
    Reported(JobId, u64),
}

impl Partition {
    /// An empty partition.
    pub fn new(id: PartitionId) -> Self {
        Self { id: id.0, ..Self::default() }
    }

    /// The job with this name.
    pub fn job(&self, tenant: &str, name: &str) -> Option<&Job> {
        self.jobs.get(self.names.get(&(tenant.to_owned(), name.to_owned()))?)
    }

    /// Whether there is a job with this name, or was at some time since then.
    pub fn has_had(&self, tenant: &str, name: &str, since: Duration) -> bool {
        let key = (tenant.to_owned(), name.to_owned());
        self.names.contains_key(&key) || self.removed_at.get(&key).is_some_and(|at| *at >= since)
    }

    /// The job with this identity.
    pub fn job_by_id(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id.slot()).filter(|job| job.id == id)
    }

    /// Takes the events of a section in that it has not seen, and checks each.
    ///
    /// # Errors
    /// The first violation.
    pub fn take(&mut self, section: (u64, u32, &[u8]), moment: &Moment, truth: &dyn Truth) -> Result<usize, Violation> {
        let (first, count, bytes) = section;
        demand!(
            first <= self.sequence + 1,
            Replay,
            "partition {}: event {first} follows event {}",
            self.id,
            self.sequence
        );
        let mut input = Reader::new(bytes);
        let mut taken = 0;
        for sequence in first..first + u64::from(count) {
            let before = bytes.len() - input.rest().len();
            let event = Event::decode(&mut input)
                .map_err(|error| Violation::new(Promise::Replay, format!("event {sequence}: {error}")))?;
            if sequence <= self.sequence {
                continue;
            }
            let after = bytes.len() - input.rest().len();
            self.check(&event, moment, truth).map_err(|violation| Violation {
                what: format!("partition {}, event {sequence} {event:?}: {}", self.id, violation.what),
                ..violation
            })?;
            self.apply(&event, moment.now);
            self.journal.push((moment.now, bytes[before..after].to_vec()));
            taken += 1;
        }
        Ok(taken)
    }

    /// Notes the digest of the engine's state after the newest event.
    pub fn note_digest(&mut self, digest: u64) {
        self.digests.insert(self.sequence, Some(digest));
    }

    /// Notes that a batch for the log ends with this event, so that recovery may.
    pub fn note_batch_end(&mut self, sequence: u64) {
        self.digests.entry(sequence).or_insert(None);
    }

    /// Goes back to what the engine has recovered; limits of attempts begin to count again at `now`.
    ///
    /// # Errors
    /// When something that was told is lost, or the state is another one than it was then.
    pub fn recover(&mut self, sequence: u64, digest: u64, now: Duration) -> Result<(), Violation> {
        self.rebuild(sequence, now)?;
        demand!(
            sequence >= self.floor,
            Durable,
            "partition {}: event {} was told to someone, but only {sequence} survived",
            self.id,
            self.floor
        );
        demand!(
            sequence >= self.promised,
            Durable,
            "partition {}: event {} was reported durable, but only {sequence} survived",
            self.id,
            self.promised
        );
        self.check_past(sequence, digest)
    }

    /// Like [`Partition::recover`], after a disk has lied: what was told may be lost.
    ///
    /// # Errors
    /// When the state is none that there was.
    pub fn recover_after_lies(&mut self, sequence: u64, digest: u64, now: Duration) -> Result<(), Violation> {
        self.rebuild(sequence, now)?;
        self.floor = self.floor.min(sequence);
        self.check_past(sequence, digest)
    }

    fn rebuild(&mut self, sequence: u64, now: Duration) -> Result<(), Violation> {
        demand!(
            sequence <= self.sequence,
            Replay,
            "partition {}: {sequence} events were recovered, {} were decided",
            self.id,
            self.sequence
        );
        let mut journal = std::mem::take(&mut self.journal);
        journal.truncate(usize::try_from(sequence).expect("runs are short"));
        let mut digests = std::mem::take(&mut self.digests);
        digests.split_off(&(sequence + 1));
        let Self { id, floor, promised, moved_count, .. } = *self;
        *self = Self { id, floor, promised, digests, ..Self::default() };
        for (at, bytes) in &journal {
            let event = Event::decode(&mut Reader::new(bytes)).expect("it was decoded before");
            self.apply(&event, *at);
        }
        self.journal = journal;
        self.moved_count = moved_count;
        self.calendars.recovered(now);
        for job in self.jobs.values_mut() {
            for flight in job.flights.values_mut() {
                flight.limits_ms = job.limits_ms;
                flight.counts_from = now;
                flight.cancelled_at = flight.cancelled_at.map(|_| now);
            }
        }
        Ok(())
    }

    /// Whether the partition was in this state at the end of a turn, or of a batch within one.
    ///
    /// # Errors
    /// When it was not.
    pub fn check_past(&self, sequence: u64, digest: u64) -> Result<(), Violation> {
        let id = self.id;
        let expected = self.digests.get(&sequence).copied();
        demand!(
            sequence == 0 || expected.is_some(),
            Replay,
            "partition {id}: recovered up to event {sequence}, which ended no batch"
        );
        demand!(
            expected.flatten().is_none_or(|expected| expected == digest),
            Replay,
            "partition {id}: the state after event {sequence} is another one after recovery"
        );
        Ok(())
    }

    /// Someone was told of `fact`, so it has to survive.
    ///
    /// # Errors
    /// When it never happened.
    pub fn tell(&mut self, fact: Fact) -> Result<(), Violation> {
        match self.told.get(&fact) {
            Some(sequence) => {
                self.floor = self.floor.max(*sequence);
                Ok(())
            }
            None => Err(Violation::new(
                Promise::Durable,
                format!("partition {}: someone was told {fact:?}, which is nowhere in its events", self.id),
            )),
        }
    }

    /// Someone was told that the newest wish about a job, its removal included, is done, so it has to survive.
    pub fn tell_done(&mut self, job: JobId) {
        let changed_by = self.job_by_id(job).map(|job| job.changed_by);
        let sequence = self.removed.get(&job).copied().or(changed_by).unwrap_or_default();
        self.floor = self.floor.max(sequence);
    }

    /// Whether a report on this attempt that comes again has to be acknowledged again.
    pub fn remembers_report(&self, job: &Job, token: u64) -> bool {
        let is_newest_running = job.flight_of(job.token).is_some_and(|(_, flight)| flight.is_running);
        let newest_ended = job.token - u64::from(is_newest_running);
        job.counted.is_remembered(token, newest_ended, self.ended_count)
    }

    fn of(&self, slot: u32) -> Result<&Job, Violation> {
        self.jobs.get(&slot).ok_or_else(|| Violation::new(Promise::Jobs, "there is no job in the slot"))
    }

    fn check(&self, event: &Event<'_>, moment: &Moment, truth: &dyn Truth) -> Result<(), Violation> {
        match event {
            Event::JobCreated(created) => {
                let spec = JobSpec::decode(created.spec).expect("checked by the engine");
                let name = (spec.tenant.to_owned(), spec.name.to_owned());
                demand!(!self.names.contains_key(&name), Jobs, "a second job has this name");
                demand!(!self.jobs.contains_key(&created.slot), Jobs, "the slot is taken");
                let last = self.generations.get(&created.slot);
                demand!(last.is_none_or(|last| *last < created.generation), Jobs, "the identity was used before");
                self.check_key(created.idempotency_key, moment)?;
                self.check_named(&spec)?;
                let id = JobId::new(PartitionId(self.id), created.generation, created.slot);
                let job = Job::new(id, &spec, created.at, &self.calendars);
                check_first_fire(&job, created.at, created.next_fire, moment)
            }
            Event::JobReplaced(replaced) => {
                let old = self.of(replaced.slot)?;
                let spec = JobSpec::decode(replaced.spec).expect("checked by the engine");
                self.check_key(replaced.idempotency_key, moment)?;
                self.check_named(&spec)?;
                let job = Job::new(old.id, &spec, replaced.at, &self.calendars);
                let job = Job { fire_sequence: old.fire_sequence, ..job };
                check_first_fire(&job, replaced.at, replaced.next_fire, moment)
            }
            Event::JobDeleted(change) | Event::JobPaused(change) => {
                demand!(change.at == moment.wall, Jobs, "its time is not the node's");
                self.of(change.slot).map(drop)
            }
            Event::JobResumed(change) => {
                let job = self.of(change.slot)?;
                let passed = job.next_fire <= moment.wall && !matches!(job.when, When::Once(_));
                let expected = if passed { job.firing_after(moment.wall) } else { job.next_fire };
                // A finished job keeps the time of its expiry there.
                demand!(
                    job.finished_at.is_some() || change.next_fire == expected,
                    Accounted,
                    "resumed to fire at {}, not at {expected}",
                    change.next_fire
                );
                Ok(())
            }
            Event::JobExpired(change) => {
                let job = self.of(change.slot)?;
                let finished = job.finished_at.map(|at| at.saturating_add(moment.keep_finished));
                demand!(finished.is_some_and(|until| until <= moment.wall), Jobs, "the job is to be kept: {job:?}");
                Ok(())
            }
            Event::Triggered(change) => {
                let job = self.of(change.slot)?;
                let may_wait = job.flights.is_empty() || job.keeps_triggers();
                demand!(may_wait && job.triggered_at.is_none(), Jobs, "the job runs already");
                Ok(())
            }
            Event::Dispatched(dispatched) => {
                let instance = self.workers.get(&dispatched.worker).copied().unwrap_or(InstanceId(0));
                let gone = truth.gone_since(instance).map(|since| moment.now.saturating_sub(since));
                demand!(
                    gone.is_none_or(|gone| gone <= GONE_MAX),
                    AttemptRules,
                    "given to a worker that is gone for {gone:?}"
                );
                self.check_dispatched(dispatched, moment)
            }
            Event::Skipped(missed) => self.check_skipped(missed, moment),
            Event::Misfired(missed) => {
                let job = self.of(missed.slot)?;
                demand!(job.has_room(), Accounted, "there is no room for an execution");
                if job.is_ruled() { job.check_passed(missed, false, moment) } else { Ok(()) }
            }
            Event::Completed(end) | Event::CompletedOutput(end, _) => {
                let (job, flight) = self.check_end(end, moment, truth)?;
                let is_cancelled = end.outcome == AttemptOutcome::Cancelled;
                demand!(
                    end.outcome == AttemptOutcome::Succeeded || is_cancelled,
                    AttemptRules,
                    "an execution that {} is not completed",
                    end.outcome
                );
                demand!(
                    !is_cancelled
                        || end.reported
                        || flight.cancelled_at.is_some()
                        || is_terminated(job, flight, moment),
                    AttemptRules,
                    "nobody asked to cancel {job:?}"
                );
                Ok(())
            }
            Event::AttemptFailed(end, retry_at, _) => {
                let (job, flight) = self.check_end(end, moment, truth)?;
                check_retry(job, flight, end, *retry_at, moment)
            }
            Event::DeadLettered(end, _) => {
                let (job, flight) = self.check_end(end, moment, truth)?;
                let spent = flight.attempt >= job.retry.attempts_max;
                demand!(spent || end.reported, AttemptRules, "given up after attempt {}", flight.attempt);
                demand!(flight.cancelled_at.is_none(), AttemptRules, "it was cancelled");
                Ok(())
            }
            Event::CancelRequested(cancellation) => {
                let job = self.of(cancellation.slot)?;
                let flight = job.flights.get(&cancellation.fire_sequence);
                demand!(flight.is_some_and(|flight| flight.is_running), AttemptRules, "it does not run");
                Ok(())
            }
            Event::Cancelled(cancellation) => self.check_cancelled(cancellation, moment),
            Event::WorkerSeen(_) => Ok(()),
            Event::Redriven(redriven) => self.of(redriven.slot)?.check_redriven(redriven, moment),
            Event::Backfilled(backfilled) => self.of(backfilled.slot)?.check_backfilled(backfilled, moment),
            Event::BacklogCleared(change) => {
                let job = self.of(change.slot)?;
                demand!(!job.backlog.times.is_empty(), Accounted, "there is none");
                Ok(())
            }
            Event::Rescheduled(change) => self.check_rescheduled(change, moment),
            Event::CalendarSet(set) => self.check_calendar(set.tenant, set.name, Some(set.exclusions)),
            Event::CalendarRemoved(removed) => self.check_calendar(removed.tenant, removed.name, None),
            Event::CalendarsFollowed => self.check_followed(moment),
            Event::ZonesChanged(_) => {
                demand!(!self.knows_zones, Accounted, "the zones are what they were");
                Ok(())
            }
            Event::TooLate(too_late) => {
                let announced = self.announced(too_late.slot);
                self.of(too_late.slot)?.check_too_late(too_late, announced, moment)
            }
        }
    }

    fn check_key(&self, key: u128, moment: &Moment) -> Result<(), Violation> {
        let held = self.keys.get(&key).is_some_and(|until| *until > moment.wall);
        demand!(!held, Jobs, "a submission with the same idempotency key was taken within its window");
        Ok(())
    }

    fn check_dispatched(&self, dispatched: &Dispatched, moment: &Moment) -> Result<(), Violation> {
        let job = self.of(dispatched.slot)?;
        demand!(dispatched.at == moment.wall, Accounted, "its time is not the node's, {}", moment.wall);
        demand!(dispatched.token.0 == job.token + 1, TokensGrow, "the job's newest token is {}", job.token);
        demand!(self.workers.contains_key(&dispatched.worker), AttemptRules, "the worker is unknown");
        let first = job.oldest_retry(moment.wall);
        let goes_first = first.is_none_or(|first| first == dispatched.fire_sequence);
        demand!(goes_first, AttemptRules, "an attempt of {first:?} goes first: {job:?}");
        if let Some(flight) = job.flights.get(&dispatched.fire_sequence) {
            demand!(!flight.is_running, AttemptRules, "attempt {} runs: {job:?}", flight.attempt);
            demand!(flight.retry_at <= moment.wall, NotEarly, "the next attempt may begin at {}", flight.retry_at);
            demand!(dispatched.attempt == flight.attempt + 1, AttemptRules, "attempt {} was the last", flight.attempt);
            demand!(dispatched.next_fire == job.next_fire, Accounted, "an attempt moved the next firing");
            return Ok(());
        }
        demand!(job.has_room(), AttemptRules, "as many are in flight as may be: {job:?}");
        demand!(dispatched.attempt == 1, AttemptRules, "there is no execution to go on with");
        demand!(
            dispatched.fire_sequence == low(job.fire_sequence + 1),
            TokensGrow,
            "the newest firing is {}",
            job.fire_sequence
        );
        let announced = self.announced(dispatched.slot);
        if dispatched.origin != Origin::Schedule {
            demand!(job.asked_for(dispatched.origin).is_some(), Accounted, "nobody asked for it: {job:?}");
            if dispatched.origin == Origin::Backlog {
                job.check_turn(moment)?;
            }
            if job.is_ruled() {
                return job.check_begun(dispatched, announced, moment);
            }
            demand!(dispatched.next_fire == job.next_fire, Accounted, "what was asked for moved the next firing");
            return Ok(());
        }
        demand!(!job.is_paused, Jobs, "the job is paused");
        demand!(job.next_fire <= moment.wall, NotEarly, "due at {}, now it is {}", job.next_fire, moment.wall);
        if job.is_ruled() {
            return job.check_begun(dispatched, announced, moment);
        }
        let missed = job.when.count(job.next_fire, moment.wall);
        demand!(
            u64::from(announced) == missed,
            Accounted,
            "{missed} firings were missed since {}, {announced} are accounted for",
            job.next_fire
        );
        let next = if matches!(job.when, When::Once(_)) { Timestamp::MAX } else { job.when.after(moment.wall) };
        demand!(dispatched.next_fire == next, Accounted, "the next firing is at {next}");
        Ok(())
    }

    /// How many missed firings the event before this one has announced for the execution of the job in `slot`.
    fn announced(&self, slot: u32) -> u32 {
        self.missed.filter(|(announced, _)| *announced == slot).map_or(0, |(_, count)| count)
    }

    fn check_skipped(&self, missed: &Missed, moment: &Moment) -> Result<(), Violation> {
        let job = self.of(missed.slot)?;
        if job.is_ruled() && job.has_room() {
            return job.check_passed(missed, true, moment);
        }
        demand!(!job.has_room() && !job.is_paused, Accounted, "nothing hinders its firings");
        demand!(!job.makes_up(), Accounted, "they wait for the end of what makes up for others");
        demand!(job.next_fire <= moment.wall, NotEarly, "due at {}", job.next_fire);
        if job.is_ruled() {
            return job.check_skipped_in_flight(missed, moment);
        }
        let count = 1 + job.when.count(job.next_fire, moment.wall);
        demand!(u64::from(missed.count) == count, Accounted, "{count} firings passed since {}", job.next_fire);
        demand!(missed.next_fire == job.when.after(moment.wall), Accounted, "not the schedule's next firing");
        Ok(())
    }

    fn check_cancelled(&self, cancellation: &Cancellation, moment: &Moment) -> Result<(), Violation> {
        let job = self.of(cancellation.slot)?;
        if let Some(flight) = job.flights.get(&cancellation.fire_sequence) {
            demand!(!flight.is_running, AttemptRules, "a running attempt is asked to end, not ended");
            return Ok(());
        }
        demand!(job.may_begin(moment.wall), AttemptRules, "nothing is due");
        let is_next = cancellation.fire_sequence == low(job.fire_sequence + 1);
        demand!(is_next, AttemptRules, "the newest firing is {}", job.fire_sequence);
        if job.is_ruled() && cancellation.origin == Origin::Schedule {
            return job.check_cancelled_due(cancellation, self.announced(cancellation.slot), moment);
        }
        let next = if cancellation.origin != Origin::Schedule { job.next_fire } else { job.when.after(moment.wall) };
        demand!(cancellation.next_fire == next, Accounted, "the next firing is at {next}");
        Ok(())
    }

    /// What holds for the end of every attempt.
    fn check_end(&self, end: &AttemptEnd, moment: &Moment, truth: &dyn Truth) -> Result<(&Job, &Flight), Violation> {
        let job = self.of(end.slot)?;
        let Some(flight) = job.flights.get(&end.fire_sequence).filter(|flight| flight.is_running) else {
            return Err(Violation::new(Promise::CompletedOnce, format!("no attempt runs: {job:?}")));
        };
        demand!(
            end.token.0 == flight.token && end.attempt == flight.attempt,
            CompletedOnce,
            "attempt {} with token {} runs",
            flight.attempt,
            flight.token
        );
        demand!(end.scheduled_at == flight.scheduled_at, CompletedOnce, "it was due at {}", flight.scheduled_at);
        demand!(end.finished_at == moment.wall, CompletedOnce, "its time is not the node's");
        if end.reported {
            let reports = truth.reported(flight.instance, job.id, flight.token);
            // An attempt whose end was asked for counts as cancelled unless it succeeded.
            let is_told = reports.contains(&end.outcome)
                || (flight.cancelled_at.is_some() && end.outcome == AttemptOutcome::Cancelled && !reports.is_empty());
            demand!(is_told, CompletedOnce, "its worker {:x} has reported {reports:?}", flight.instance.0);
            return Ok((job, flight));
        }
        let counted = moment.now.saturating_sub(flight.counts_from);
        let limits = flight.limits_ms.into_iter().filter(|limit_ms| *limit_ms > 0);
        let mut limit = limits.min().map_or(Duration::MAX, |limit_ms| Duration::from_millis(limit_ms.into()));
        let is_after_cancel = end.outcome == AttemptOutcome::Cancelled;
        if let Some(cancelled_at) = flight.cancelled_at {
            limit = limit.min((cancelled_at + moment.grace).saturating_sub(flight.counts_from));
        }
        let was_away = truth.was_away(flight.instance, flight.counts_from);
        match end.outcome {
            AttemptOutcome::TimedOut => {
                demand!(counted >= limit, AttemptRules, "timed out after {counted:?} of {limit:?}");
                let silence = Duration::from_millis(flight.silence_ms.into());
                let is_silent = truth.was_silent(flight.instance, job.id, flight.token, flight.counts_from);
                // The wall clock, by which the wheel turns, may run at half speed.
                demand!(
                    silence.is_zero() || !is_silent || counted <= 2 * silence + LATE_MAX,
                    AttemptRules,
                    "silent for {counted:?}, {silence:?} are allowed"
                );
            }
            AttemptOutcome::WorkerLost | AttemptOutcome::Undelivered => {
                demand!(was_away, AttemptRules, "its worker was there all the time");
                demand!(counted >= moment.reattach, AttemptRules, "given up after {counted:?}");
            }
            AttemptOutcome::Cancelled => {
                let is_due = counted >= limit || was_away || is_terminated(job, flight, moment);
                demand!(is_due, AttemptRules, "ended after {counted:?} of {limit:?}");
            }
            outcome => demand!(is_after_cancel, CompletedOnce, "`{outcome}` without a report"),
        }
        Ok((job, flight))
    }

    fn apply(&mut self, event: &Event<'_>, now: Duration) {
        self.sequence += 1;
        self.missed = None;
        match event {
            Event::JobCreated(created) => {
                let spec = JobSpec::decode(created.spec).expect("checked by the engine");
                let id = JobId::new(PartitionId(self.id), created.generation, created.slot);
                let mut job = Job::new(id, &spec, created.at, &self.calendars);
                self.labelled.note(&job.name, now, Some((id, spec.labels.to_owned())));
                job.spec = Spec(created.spec.to_vec());
                job.next_fire = created.next_fire;
                job.key_until = key_until(created.idempotency_key, created.idempotency_until);
                job.changed_by = self.sequence;
                self.generations.insert(created.slot, created.generation);
                self.names.insert(job.name.clone(), created.slot);
                self.told.insert(Fact::Revision(id, 1), self.sequence);
                self.jobs.insert(created.slot, job);
                self.keys
                    .insert(created.idempotency_key, key_until(created.idempotency_key, created.idempotency_until));
            }
            Event::JobReplaced(replaced) => {
                let spec = JobSpec::decode(replaced.spec).expect("checked by the engine");
                let Some(old) = self.jobs.get(&replaced.slot).cloned() else { return };
                self.labelled.note(&old.name, now, Some((old.id, spec.labels.to_owned())));
                let job = Job {
                    spec: Spec(replaced.spec.to_vec()),
                    revision: old.revision + 1,
                    next_fire: replaced.next_fire,
                    triggered_at: old.triggered_at,
                    backlog: old.backlog,
                    fire_sequence: old.fire_sequence,
                    token: old.token,
                    flights: old.flights,
                    counted: old.counted.under(spec.rules.overlap),
                    has_allowed: old.has_allowed || spec.rules.overlap == Overlap::Allow,
                    last_state: old.last_state,
                    key_until: key_until(replaced.idempotency_key, replaced.idempotency_until),
                    changed_by: self.sequence,
                    ..Job::new(old.id, &spec, replaced.at, &self.calendars)
                };
                self.told.insert(Fact::Revision(job.id, job.revision), self.sequence);
                let mut job = job;
                for flight in job.flights.values_mut() {
                    let lesser = |old: u32, new: u32| if old == 0 || new == 0 { old.max(new) } else { old.min(new) };
                    let [run, silence] = job.limits_ms;
                    flight.limits_ms = [lesser(flight.limits_ms[0], run), lesser(flight.limits_ms[1], silence)];
                }
                job.settle(replaced.at);
                self.jobs.insert(replaced.slot, job);
                self.is_followed(replaced.slot);
                let key = replaced.idempotency_key;
                self.keys.insert(key, key_until(key, replaced.idempotency_until));
            }
            Event::JobDeleted(change) | Event::JobExpired(change) => {
                self.is_followed(change.slot);
                if let Some(job) = self.jobs.remove(&change.slot) {
                    self.labelled.note(&job.name, now, None);
                    if matches!(event, Event::JobExpired(_)) {
                        self.expired.insert(job.id);
                    }
                    self.removed.insert(job.id, self.sequence);
                    self.names.remove(&job.name);
                    self.removed_at.insert(job.name, now);
                }
            }
            Event::Misfired(missed) => {
                let Some(job) = self.jobs.get_mut(&missed.slot) else { return };
                if job.next_fire == missed.next_fire {
                    self.missed = Some((missed.slot, missed.count));
                }
                job.next_fire = missed.next_fire;
            }
            Event::WorkerSeen(seen) => drop(self.workers.insert(seen.worker, seen.instance)),
            Event::ZonesChanged(_) => self.knows_zones = true,
            Event::CalendarSet(set) => self.apply_calendar(set.tenant, set.name, Some(set.exclusions), now),
            Event::CalendarRemoved(removed) => self.apply_calendar(removed.tenant, removed.name, None, now),
            Event::CalendarsFollowed => self.apply_followed(),
            other => self.apply_to_job(other, now),
        }
    }

    fn apply_to_job(&mut self, event: &Event<'_>, now: Duration) {
        let Some(slot) = slot_of(event) else { return };
        let sequence = self.sequence;
        let Some(job) = self.jobs.get_mut(&slot) else { return };
        if matches!(
            event,
            Event::JobPaused(_)
                | Event::JobResumed(_)
                | Event::Triggered(_)
                | Event::CancelRequested(_)
                | Event::Redriven(_)
                | Event::Backfilled(_)
                | Event::BacklogCleared(_)
        ) {
            job.changed_by = sequence;
        }
        match event {
            Event::JobPaused(_) => job.is_paused = true,
            Event::JobResumed(change) => {
                job.is_paused = false;
                job.waiting = Waiting::default();
                if job.finished_at.is_none() {
                    job.next_fire = change.next_fire;
                }
                job.settle(change.at);
            }
            Event::Triggered(change) => (job.triggered_at, job.finished_at) = (Some(change.at), None),
            Event::Redriven(redriven) => job.redrive(redriven),
            Event::Backfilled(backfilled) => job.backfill(backfilled),
            Event::BacklogCleared(change) => {
                job.backlog.times.clear();
                job.settle(change.at);
            }
            Event::Dispatched(dispatched) => {
                self.told.insert(Fact::Dispatched(job.id, dispatched.token.0), sequence);
                let instance = self.workers.get(&dispatched.worker).copied().unwrap_or(InstanceId(0));
                job.dispatch(dispatched, instance, now);
            }
            Event::Skipped(missed) => job.next_fire = missed.next_fire,
            Event::Rescheduled(change) => {
                self.moved_count += 1;
                job.move_to(change.next_fire);
            }
            Event::Completed(end) | Event::CompletedOutput(end, _) | Event::DeadLettered(end, _) => {
                self.ended_count += 1;
                if end.reported {
                    self.told.insert(Fact::Reported(job.id, end.token.0), sequence);
                    job.counted.note(end.token.0, job.rules.overlap, self.ended_count);
                }
                let is_dead = matches!(event, Event::DeadLettered(..));
                job.last_state = state_of(end.outcome, is_dead);
                if is_dead {
                    job.bury(end.fire_sequence, end.scheduled_at);
                }
                job.flights.remove(&end.fire_sequence);
                job.end(end.finished_at, job.last_state);
                job.settle(end.finished_at);
            }
            Event::AttemptFailed(end, retry_at, _) => {
                self.ended_count += 1;
                if end.reported {
                    self.told.insert(Fact::Reported(job.id, end.token.0), sequence);
                    job.counted.note(end.token.0, job.rules.overlap, self.ended_count);
                }
                if let Some(flight) = job.flights.get_mut(&end.fire_sequence) {
                    (flight.is_running, flight.retry_at, flight.cancelled_at) = (false, *retry_at, None);
                    flight.attempt -= u16::from(end.outcome == AttemptOutcome::Undelivered);
                }
            }
            Event::CancelRequested(cancellation) => {
                if let Some(flight) = job.flights.get_mut(&cancellation.fire_sequence) {
                    flight.cancelled_at = Some(now);
                }
            }
            Event::TooLate(too_late) => {
                self.ended_count += 1;
                job.fire_sequence += 1;
                job.next_fire = too_late.next_fire;
                job.take_asked_for(too_late.origin);
                job.last_state = ExecutionState::TooLate;
                job.settle(too_late.at);
            }
            Event::Cancelled(cancellation) => {
                if job.flights.remove(&cancellation.fire_sequence).is_some() {
                    job.end(cancellation.at, ExecutionState::Cancelled);
                } else {
                    job.fire_sequence += 1;
                    job.next_fire = cancellation.next_fire;
                    job.take_asked_for(cancellation.origin);
                }
                job.last_state = ExecutionState::Cancelled;
                job.settle(cancellation.at);
            }
            _ => {}
        }
    }
}

const fn slot_of(event: &Event<'_>) -> Option<u32> {
    match event {
        Event::JobPaused(change)
        | Event::JobResumed(change)
        | Event::Triggered(change)
        | Event::Rescheduled(change) => Some(change.slot),
        Event::Dispatched(dispatched) => Some(dispatched.slot),
        Event::Skipped(missed) => Some(missed.slot),
        Event::Completed(end)
        | Event::CompletedOutput(end, _)
        | Event::AttemptFailed(end, ..)
        | Event::DeadLettered(end, _) => Some(end.slot),
        Event::CancelRequested(cancellation) | Event::Cancelled(cancellation) => Some(cancellation.slot),
        Event::TooLate(too_late) => Some(too_late.slot),
        Event::Redriven(redriven) => Some(redriven.slot),
        Event::Backfilled(backfilled) => Some(backfilled.slot),
        Event::BacklogCleared(change) => Some(change.slot),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "events carry the low half")]
const fn low(value: u64) -> u32 {
    value as u32
}
