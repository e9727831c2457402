//! The auditor: holds what actors hear and what the node decides against the reference model.

use super::{
    model::{Fact, Moment, Partition, Truth},
    node::SimulatedShard,
    plan::Settings,
    violation::{Promise, Violation, demand},
    when::When,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use tickwheel_engine::shard::Batch;
use tickwheel_wire::{
    InstanceId, JobId, PartitionId, SessionId, Timestamp, Token,
    event::AttemptOutcome,
    frame::work::{Completed, DispatchHead, Outcome, Verdict},
};

/// Events that wait for the log, at most: what closes a batch is far less, and those of one more turn come on top.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// What one decision logs at most.
const DECISION_BYTES_MAX: usize = 8 << 10;

/// What workers did.
#[derive(Debug, Default)]
struct Deeds {
    reports: BTreeMap<(InstanceId, JobId, u64), Vec<AttemptOutcome>>,
    /// Reports on attempts that their workers had not got. One that gets the attempt later may have reported rightly.
    forged: BTreeSet<(InstanceId, JobId, u64)>,
    /// When each worker was last away.
    away: BTreeMap<InstanceId, Duration>,
    /// Since when each worker that is not here is gone.
    gone: BTreeMap<InstanceId, Duration>,
    /// Attempts about which their workers have sent signs of life.
    signs: BTreeSet<(InstanceId, JobId, u64)>,
    /// When the log was last held up.
    held: Duration,
    /// When everyone was last away.
    all_away: Duration,
}

impl Truth for Deeds {
    fn reported(&self, instance: InstanceId, job: JobId, token: u64) -> Vec<AttemptOutcome> {
        self.reports.get(&(instance, job, token)).cloned().unwrap_or_default()
    }

    fn was_away(&self, instance: InstanceId, since: Duration) -> bool {
        self.all_away >= since || self.away.get(&instance).is_none_or(|at| *at >= since)
    }

    fn was_silent(&self, instance: InstanceId, job: JobId, token: u64, since: Duration) -> bool {
        !self.signs.contains(&(instance, job, token)) && self.held < since && !self.was_away(instance, since)
    }

    fn gone_since(&self, instance: InstanceId) -> Option<Duration> {
        self.gone.get(&instance).copied()
    }
}

/// What was counted in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Events decided.
    pub events: u64,
    /// Attempts that workers got.
    pub dispatches: u64,
    /// Reports that were accepted.
    pub accepted: u64,
    /// Reports that were refused.
    pub refused: u64,
    /// Requests answered.
    pub answers: u64,
    /// Recoveries compared.
    pub recoveries: u64,
    /// Attempts of jobs that have several schedules.
    pub of_several: u64,
    /// Attempts of jobs that have times at which they do not fire.
    pub beside_excluded: u64,
    /// Attempts of jobs that put their firings off.
    pub put_off: u64,
    /// Jobs that lists have shown.
    pub listed: u64,
    /// Requests refused because they stated another job or revision.
    pub conflicts: u64,
    /// Attempts that workers got beside others of their job.
    pub beside_others: u64,
    /// Next firings that changes of calendars have moved.
    pub moved: u64,
}

/// What one shard's log was given.
#[derive(Debug, Default)]
struct Commits {
    appended: u64,
    /// Commits that are not reported durable yet, each with the newest event of every partition.
    waiting: VecDeque<(u64, Vec<(PartitionId, u64)>)>,
}

/// The sessions of one shard, by their numbers.
#[derive(Debug, Default)]
struct Sessions {
    open: BTreeSet<SessionId>,
    former: BTreeSet<SessionId>,
}

impl Sessions {
    /// Looks at those that are open now: a number names one session, so that nothing reaches another that was meant for it.
    fn check(&mut self, open: BTreeSet<SessionId>) -> Result<(), Violation> {
        self.former.extend(self.open.difference(&open));
        for session in &open {
            demand!(!self.former.contains(session), Answers, "session {} is another one than before", session.0);
        }
        self.open = open;
        Ok(())
    }
}

/// See the module.
pub struct Auditor {
    partitions: Vec<Partition>,
    deeds: Deeds,
    tokens: BTreeSet<(JobId, u64)>,
    /// Firings of jobs that allowed one attempt, and by which event they did.
    once: BTreeMap<(JobId, u64), u64>,
    settings: Settings,
    /// By shard.
    commits: BTreeMap<usize, Commits>,
    /// By shard.
    sessions: BTreeMap<usize, Sessions>,
    /// The disk has lied: what was told may be lost.
    pub has_lied: bool,
    /// What was counted.
    pub tally: Tally,
}

impl Auditor {
    /// An auditor of a new cluster.
    pub fn new(settings: Settings) -> Self {
        let partitions = (0..settings.partitions).map(|id| Partition::new(PartitionId(id))).collect();
        Self {
            partitions,
            deeds: Deeds::default(),
            tokens: BTreeSet::new(),
            once: BTreeMap::new(),
            settings,
            commits: BTreeMap::new(),
            sessions: BTreeMap::new(),
            has_lied: false,
            tally: Tally::default(),
        }
    }

    /// The settings of the run.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The model of a partition.
    pub fn partition(&self, id: PartitionId) -> &Partition {
        &self.partitions[usize::from(id.0)]
    }

    /// The model of a partition, to note what was told.
    pub fn partition_mut(&mut self, id: PartitionId) -> &mut Partition {
        &mut self.partitions[usize::from(id.0)]
    }

    /// The models.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Looks at what a shard has decided in a turn.
    ///
    /// # Errors
    /// The first violation.
    pub fn decided(
        &mut self,
        (number, shard): (usize, &SimulatedShard),
        wall: Timestamp,
        now: Duration,
    ) -> Result<(), Violation> {
        self.sessions.entry(number).or_default().check(shard.sessions().collect())?;
        let effects = shard.effects();
        let bytes = effects.event_bytes();
        demand!(bytes <= EVENT_BYTES_MAX, Bounded, "{bytes} bytes of events wait for the log");
        for batch in effects.batches() {
            let bytes = batch.event_bytes();
            let limit = self.settings.batch_bytes() + DECISION_BYTES_MAX;
            demand!(bytes < limit, Bounded, "a batch for the log has {bytes} bytes of events");
        }
        let moment = Moment {
            wall,
            now,
            reattach: Duration::from_millis(self.settings.reattach_ms.into()),
            grace: Duration::from_millis(self.settings.cancel_grace_ms.into()),
            keep_finished: Duration::from_millis(self.settings.finished_ms),
        };
        let mut changed = BTreeSet::new();
        for section in effects.batches().flat_map(Batch::sections) {
            let model = &mut self.partitions[usize::from(section.partition.0)];
            let events = (section.first_sequence, section.event_count, section.bytes);
            let moved_count = model.moved_count;
            let taken = model.take(events, &moment, &self.deeds)?;
            self.tally.moved += model.moved_count - moved_count;
            self.tally.events += taken as u64;
            model.note_batch_end(section.first_sequence + u64::from(section.event_count) - 1);
            if taken > 0 {
                changed.insert(section.partition);
            }
        }
        for id in changed {
            let partition = shard.core().partition(id).expect("it decided something");
            self.partitions[usize::from(id.0)].note_digest(partition.digest());
        }
        Ok(())
    }

    /// Looks at what a shard's log was given and has reported after a turn.
    pub fn settled(&mut self, shard: &SimulatedShard, number: usize) {
        let (appended, durable) = shard.commits();
        let commits = self.commits.entry(number).or_default();
        if commits.appended < appended.0 {
            commits.appended = appended.0;
            let mut ends: BTreeMap<_, _> =
                shard.core().partitions().map(|partition| (partition.id(), partition.sequence())).collect();
            for section in shard.effects().batches().flat_map(Batch::sections) {
                *ends.get_mut(&section.partition).expect("it decided something") -= u64::from(section.event_count);
            }
            commits.waiting.push_back((appended.0, ends.into_iter().collect()));
        }
        while commits.waiting.front().is_some_and(|(commit, _)| *commit <= durable.0) {
            let (_, ends) = commits.waiting.pop_front().expect("it was looked at");
            for (id, sequence) in ends {
                let model = &mut self.partitions[usize::from(id.0)];
                model.promised = model.promised.max(sequence);
            }
        }
    }

    /// Compares what a start would find if the power failed now.
    ///
    /// # Errors
    /// When something that the log has reported durable is not, or the state is none that there was.
    pub fn recoverable(&self, found: &BTreeMap<PartitionId, (u64, u64)>) -> Result<(), Violation> {
        for (id, (sequence, digest)) in found {
            let model = self.partition(*id);
            demand!(
                *sequence >= model.promised,
                Durable,
                "partition {}: event {} was reported durable, a loss of power now would leave {sequence}",
                id.0,
                model.promised
            );
            model.check_past(*sequence, *digest)?;
        }
        Ok(())
    }

    /// Compares what a start has recovered.
    ///
    /// # Errors
    /// When something that was told is lost, or the state is none that there was.
    pub fn recovered(&mut self, found: &BTreeMap<PartitionId, (u64, u64)>, now: Duration) -> Result<(), Violation> {
        self.deeds.all_away = now;
        self.tally.recoveries += 1;
        self.commits.clear();
        self.sessions.clear();
        for (id, (sequence, digest)) in found {
            let model = &mut self.partitions[usize::from(id.0)];
            if self.has_lied {
                model.recover_after_lies(*sequence, *digest, now)?;
            } else {
                model.recover(*sequence, *digest, now)?;
            }
        }
        Ok(())
    }

    /// Looks at what a start on a damaged copy of the disk has found: each partition in a state that it was in before, and, unless it
    /// `may_lose` its last commits, with all that was told.
    ///
    /// # Errors
    /// When that is not so.
    pub fn recovered_after_rot(
        &self,
        found: &BTreeMap<PartitionId, (u64, u64)>,
        may_lose: bool,
    ) -> Result<(), Violation> {
        for (id, (sequence, digest)) in found {
            let model = self.partition(*id);
            model.check_past(*sequence, *digest)?;
            demand!(
                may_lose || *sequence >= model.floor,
                Damage,
                "partition {}: damage was taken for the end: {sequence} events are left, event {} was told",
                id.0,
                model.floor
            );
        }
        Ok(())
    }

    /// Everybody may have been away up to `now`: datagrams were lost.
    pub const fn disturbed(&mut self, now: Duration) {
        self.deeds.all_away = now;
    }

    /// A worker sends a sign of life.
    pub fn heard(&mut self, instance: InstanceId, job: JobId, token: Token) {
        self.deeds.signs.insert((instance, job, token.0));
    }

    /// The log may have been held up to `now`.
    pub const fn held(&mut self, now: Duration) {
        self.deeds.held = now;
    }

    /// A worker goes, and may come back.
    pub fn leaves(&mut self, instance: InstanceId, now: Duration) {
        // However long the node takes to notice.
        self.deeds.away.insert(instance, Duration::MAX);
        self.deeds.gone.entry(instance).or_insert(now);
    }

    /// A worker is back. Whatever was given to it before was sent to a session that is gone.
    pub fn returns(&mut self, instance: InstanceId, now: Duration) {
        self.deeds.away.insert(instance, now);
        self.deeds.gone.remove(&instance);
    }

    /// An attempt that another worker than `instance` runs, if any does.
    pub fn attempt_of_another(&self, instance: InstanceId) -> Option<(JobId, u64, u64)> {
        let jobs = self.partitions.iter().flat_map(|partition| partition.jobs.values());
        let running = jobs
            .flat_map(|job| job.flights.values().map(move |flight| (job, flight)))
            .filter(|(_, flight)| flight.is_running && flight.instance != instance);
        let mut others = running.filter_map(|(job, flight)| {
            let (sequence, _) = job.flight_of(flight.token)?;
            Some((job.id, sequence, flight.token))
        });
        others.next()
    }

    /// A worker that has never been here before comes.
    pub fn arrives(&mut self, instance: InstanceId) {
        self.deeds.away.entry(instance).or_default();
    }

    /// A worker reports on an attempt.
    pub fn reported(&mut self, instance: InstanceId, job: JobId, token: Token, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Succeeded => AttemptOutcome::Succeeded,
            Outcome::Failed | Outcome::FailedForGood | Outcome::FailedForNow => AttemptOutcome::Failed,
            Outcome::Cancelled => AttemptOutcome::Cancelled,
            Outcome::TimedOut => AttemptOutcome::TimedOut,
        };
        self.deeds.reports.entry((instance, job, token.0)).or_default().push(outcome);
    }

    /// A worker reports success of an attempt that it has not got.
    pub fn forged(&mut self, instance: InstanceId, job: JobId, token: Token) {
        self.deeds.forged.insert((instance, job, token.0));
        self.reported(instance, job, token, Outcome::Succeeded);
    }

    /// A worker gets an attempt.
    ///
    /// # Errors
    /// When it should not.
    pub fn dispatched(&mut self, instance: InstanceId, head: &DispatchHead) -> Result<(), Violation> {
        self.tally.dispatches += 1;
        let (job, token) = (head.job, head.token.0);
        if self.has_lied {
            return Ok(());
        }
        demand!(self.tokens.insert((job, token)), TokensGrow, "token {token} of job {job} was given out twice");
        self.partition_mut(job.partition()).tell(Fact::Dispatched(job, token))?;
        let Self { partitions, tally, .. } = self;
        let model = &partitions[usize::from(job.partition().0)];
        let Some(found) = model.job_by_id(job).filter(|found| found.flight_of(token).is_some()) else { return Ok(()) };
        tally.beside_others += u64::from(found.flights.len() > 1);
        tally.of_several += u64::from(matches!(found.when, When::Several(_)));
        tally.beside_excluded += u64::from(!found.excluded.is_empty());
        tally.put_off += u64::from(found.rules.jitter_ms > 0);
        let Some((sequence, flight)) = found.flight_of(token).filter(|(_, flight)| flight.is_running) else {
            return Ok(());
        };
        demand!(
            flight.instance == instance
                && flight.attempt == head.attempt
                && flight.scheduled_at == head.scheduled_at
                && sequence == head.fire_sequence.0,
            Answers,
            "worker {:x} got {head:?}, decided was {found:?}",
            instance.0
        );
        if found.retry.attempts_max == 1 {
            // In between its client may have allowed more, and then one again.
            let (firing, since) = (head.fire_sequence.0, found.changed_by);
            let before = self.once.insert((job, firing), since);
            demand!(before != Some(since), AtMostOnce, "firing {firing} of {job} was given out twice");
        }
        Ok(())
    }

    /// A worker is told what became of its report.
    ///
    /// # Errors
    /// When that is not so.
    pub fn verdict(&mut self, instance: InstanceId, completed: &Completed) -> Result<(), Violation> {
        let Completed { job, token, verdict, .. } = *completed;
        let is_forged = self.deeds.forged.contains(&(instance, job, token.0));
        let is_reported = self.deeds.reports.contains_key(&(instance, job, token.0));
        demand!(is_reported, Answers, "worker {:x} never reported on token {} of {job}", instance.0, token.0);
        if self.has_lied {
            return Ok(());
        }
        let model = self.partition_mut(job.partition());
        match verdict {
            Verdict::Accepted => {
                model.tell(Fact::Reported(job, token.0))?;
                self.tally.accepted += 1;
            }
            Verdict::StaleToken | Verdict::UnknownJob => {
                let found = model.job_by_id(job);
                demand!(
                    verdict == Verdict::StaleToken || found.is_none(),
                    Answers,
                    "job {job} is there, and its worker was told that it is not"
                );
                let flight = found.and_then(|found| found.flight_of(token.0)).map(|(_, flight)| flight);
                let runs = flight.is_some_and(|flight| flight.is_running && flight.instance == instance);
                demand!(
                    !runs || is_forged,
                    Answers,
                    "the report on the running attempt {} of {job} was refused",
                    token.0
                );
                let is_counted = found.is_some_and(|found| model.remembers_report(found, token.0));
                demand!(
                    !is_counted || is_forged,
                    Answers,
                    "the report on {}, which counted, was called stale",
                    token.0
                );
                self.tally.refused += 1;
            }
            Verdict::Overloaded => {}
        }
        Ok(())
    }

    /// What is left to be done at `wall`: empty when all that is due is done. What has come due at or after `since` does not count.
    pub fn unfinished(&self, wall: Timestamp, since: Timestamp) -> Vec<String> {
        let jobs = self.partitions.iter().flat_map(|partition| partition.jobs.values());
        let unfinished = jobs.filter(|job| match job.flights.values().next() {
            Some(flight) if flight.scheduled_at < since => true,
            _ if !job.has_room() => false,
            _ if !job.backlog.times.is_empty() && job.has_turns() => true,
            _ => job.may_begin(wall) && job.triggered_at.unwrap_or(job.next_fire) < since,
        });
        let to_follow = self.partitions.iter().map(|partition| partition.calendars.to_follow());
        let behind = to_follow.filter(|slots| !slots.is_empty());
        let behind = behind.map(|slots| format!("the jobs in slots {slots:?} follow their calendars"));
        unfinished.map(|job| format!("{job:?}")).chain(behind).collect()
    }

    /// A violation of `Liveness`.
    pub fn stuck(what: impl Into<String>) -> Violation {
        Violation::new(Promise::Liveness, what)
    }
}
