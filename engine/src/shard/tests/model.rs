//! A plain, slow model of what a shard does with jobs: one worker with slots for all, no wheel, no queues, no events. At each step every
//! job is looked at. Written from the rules, not from the code.

use super::{
    ruled_model::{Excluded, Waiting, firing_after},
    when::{When, following},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tickwheel_wire::{
    JobId,
    frame::request::ExecutionState,
    job::{FiringRules, JobState, Overlap},
};

pub const SECOND: u64 = 1_000_000;
const REATTACH: u64 = 5 * SECOND;
pub const GRACE: u64 = 30 * SECOND;
/// The delay that the worker asks for when it fails for now.
pub const RETRY_AFTER: u64 = 2_500_000;
pub const DAY: u64 = 86_400 * SECOND;
/// Of the firings of a cron job that are missed at once, a week of minutes is counted.
const CRON_MISSED_MAX: u64 = 7 * 24 * 60;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub when: When,
    pub paused: bool,
    pub attempts_max: u16,
    pub timeout: u64,
    pub rules: FiringRules,
    pub excluded: Excluded,
}

#[derive(Clone, Debug)]
pub struct InFlight {
    pub attempt: u16,
    /// Of its newest attempt.
    pub token: u64,
    pub scheduled: u64,
    pub running: bool,
    pub retry_at: u64,
    pub deadline: u64,
    pub cancelling: bool,
    /// When its newest attempt was given out.
    pub dispatched: u64,
    /// It makes up for something, so that firings wait.
    pub makes_up: bool,
    claimed: bool,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub id: JobId,
    pub definition: Definition,
    pub revision: u64,
    pub paused: bool,
    pub next: Option<u64>,
    pub trigger: Option<u64>,
    pub sequence: u64,
    pub token: u64,
    /// By sequence number.
    pub flights: BTreeMap<u64, InFlight>,
    /// How the execution ended that ended last; of several whose worker was lost any may be it.
    pub last: Vec<ExecutionState>,
    pub waiting: Waiting,
    pub backlog: VecDeque<u64>,
    /// Sequence numbers and scheduled times.
    pub dead_letters: Vec<(u64, u64)>,
    finished: Option<u64>,
    /// Tokens of attempts that their worker's report ended.
    reported: BTreeSet<u64>,
}

impl Job {
    /// Whether another execution may begin.
    pub fn has_room(&self) -> bool {
        let rules = self.definition.rules;
        let at_a_time = if rules.overlap == Overlap::Allow { rules.overlap_max as usize } else { 1 };
        self.flights.is_empty() || self.flights.len() < at_a_time
    }

    /// Whether firings wait for the end of an execution that makes up for another.
    pub fn makes_up(&self) -> bool {
        self.definition.rules.overlap != Overlap::Allow && self.flights.values().any(|flight| flight.makes_up)
    }

    pub fn state(&self) -> Vec<ExecutionState> {
        match self.flights.values().map(|flight| flight.running).max() {
            Some(true) => vec![ExecutionState::Running],
            Some(false) => vec![ExecutionState::Retrying],
            None => self.last.clone(),
        }
    }

    /// Whether it stands so.
    pub fn has(&self, state: JobState) -> bool {
        use ExecutionState::{Failed, TimedOut, TooLate, WorkerLost};
        let is_asked_for = self.trigger.is_some() || !self.backlog.is_empty();
        let is_over = self.next.is_none() && !is_asked_for && self.flights.is_empty();
        match state {
            JobState::Paused => self.paused,
            JobState::Active => !self.paused && !is_over,
            JobState::Running => !self.flights.is_empty(),
            JobState::Failing => self.last.iter().all(|last| [Failed, TimedOut, TooLate, WorkerLost].contains(last)),
            JobState::Finished => !self.paused && is_over,
        }
    }

    /// Goes on to the first firing after `time`; how many passed, as far as they are counted.
    fn pass_over(&mut self, time: u64) -> u64 {
        let mut passed = 0;
        while let Some(fire) = self.next.filter(|next| *next <= time) {
            passed += 1;
            self.next = following(self.definition.when, fire);
        }
        if self.definition.when.is_searched() { passed.min(CRON_MISSED_MAX) } else { passed }
    }
}

/// An attempt that should have been sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    pub name: String,
    pub sequence: u64,
    pub token: u64,
    pub attempt: u16,
    pub scheduled: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    Up { claims_until: u64 },
    Away { until: u64 },
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Success,
    Failure,
    FailureForGood,
    /// With a delay of its own.
    FailureForNow,
    CancelledByWorker,
    TimedOut,
    Lost,
    Undelivered,
    Terminated,
}

/// What a request should be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Ok,
    AlreadyExists,
    RevisionConflict,
    IdempotencyConflict,
    NeverFires,
    UnknownJob,
    OverlapSkipped,
    UnknownExecution,
    InvalidField,
}

/// How often cron jobs met each fate, to show that the histories are about them.
#[derive(Clone, Debug, Default)]
pub struct CronFates {
    /// By expression and zone.
    pub fired: BTreeMap<(&'static str, &'static str), u64>,
    /// Dispatched at the very moment of the firing.
    pub on_time: u64,
    pub skipped: u64,
    pub misfired: u64,
    /// Firings that passed while the job was paused, by resumption.
    pub resumed: u64,
    /// Due firings that were cancelled before any worker had them.
    pub cancelled: u64,
    /// Replacements of other schedules by cron, and of cron by others.
    pub replaced: [u64; 2],
    /// Firings of several schedules, those that were missed, and those of more than one of them.
    pub several: u64,
    pub several_missed: u64,
    pub coinciding: u64,
}

impl CronFates {
    fn note(&mut self, when: When, fire: u64, now: u64, missed: u64) {
        if let When::Several(several) = when {
            self.several += 1;
            self.several_missed += missed;
            self.coinciding +=
                u64::from(several.iter().filter(|single| single.first_after(fire - 1) == Some(fire)).count() > 1);
        }
        if let When::Cron { expression, zone } = when {
            *self.fired.entry((expression, zone)).or_default() += 1;
            self.on_time += u64::from(fire == now);
            self.misfired += missed;
        }
    }

    pub fn add(&mut self, more: &Self) {
        for (schedule, count) in &more.fired {
            *self.fired.entry(*schedule).or_default() += count;
        }
        self.on_time += more.on_time;
        self.skipped += more.skipped;
        self.misfired += more.misfired;
        self.resumed += more.resumed;
        self.cancelled += more.cancelled;
        self.replaced[0] += more.replaced[0];
        self.replaced[1] += more.replaced[1];
        self.several += more.several;
        self.several_missed += more.several_missed;
        self.coinciding += more.coinciding;
    }
}

pub struct Model {
    pub time: u64,
    pub jobs: BTreeMap<String, Job>,
    pub worker: Worker,
    pub sent: Vec<Sent>,
    pub fired: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub dead: u64,
    pub skipped: u64,
    pub misfired: u64,
    pub too_late: u64,
    /// By name and key: the submission, the answer, and until when it holds.
    pub keys: BTreeMap<(String, u8), (Definition, JobId, u64, u64)>,
    pub cron: CronFates,
    /// How often each rule made a difference.
    pub ruled: BTreeMap<&'static str, u64>,
}

impl Model {
    pub fn new(time: u64) -> Self {
        Self {
            time,
            jobs: BTreeMap::new(),
            worker: Worker::Unknown,
            sent: Vec::new(),
            fired: 0,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            dead: 0,
            skipped: 0,
            misfired: 0,
            too_late: 0,
            keys: BTreeMap::new(),
            cron: CronFates::default(),
            ruled: BTreeMap::new(),
        }
    }

    /// What a submission should be answered; the caller reports what came of it with [`Model::submitted`].
    pub fn submit(
        &self,
        name: &str,
        definition: &Definition,
        upsert: bool,
        revision: u64,
        key: Option<u8>,
    ) -> Expected {
        if let Some((first, ..)) = self.known(name, key) {
            return if first == definition { Expected::Ok } else { Expected::IdempotencyConflict };
        }
        let found = self.jobs.get(name).map_or(0, |job| job.revision);
        match (upsert, found) {
            (false, 1..) => Expected::AlreadyExists,
            (true, found) if revision != 0 && revision != found => Expected::RevisionConflict,
            _ if firing_after(definition, 0, self.time).is_none() => Expected::NeverFires,
            _ => Expected::Ok,
        }
    }

    fn known(&self, name: &str, key: Option<u8>) -> Option<&(Definition, JobId, u64, u64)> {
        let first = self.keys.get(&(name.to_owned(), key?))?;
        Some(first).filter(|(.., until)| *until > self.time)
    }

    /// Takes a submission in that was accepted with this id.
    pub fn submitted(&mut self, name: &str, definition: &Definition, key: Option<u8>, id: JobId) -> u64 {
        if let Some((_, first, revision, _)) = self.known(name, key) {
            assert_eq!(*first, id);
            return *revision;
        }
        let job = self.jobs.entry(name.to_owned()).or_insert_with(|| Job {
            id,
            definition: definition.clone(),
            revision: 0,
            paused: false,
            next: None,
            trigger: None,
            sequence: 0,
            token: 0,
            flights: BTreeMap::new(),
            last: vec![ExecutionState::None],
            waiting: Waiting::default(),
            backlog: VecDeque::new(),
            dead_letters: Vec::new(),
            finished: None,
            reported: BTreeSet::new(),
        });
        assert_eq!(job.id, id);
        match (job.definition.when.is_cron(), definition.when.is_cron()) {
            (false, true) => self.cron.replaced[0] += 1,
            (true, false) => self.cron.replaced[1] += 1,
            _ => {}
        }
        job.definition = definition.clone();
        job.revision += 1;
        (job.paused, job.finished) = (definition.paused, None);
        job.start_ruled(self.time);
        let revision = job.revision;
        if let Some(key) = key {
            self.keys.insert((name.to_owned(), key), (definition.clone(), id, revision, self.time + DAY));
        }
        revision
    }

    pub fn pause(&mut self, name: &str) -> Expected {
        let Some(job) = self.jobs.get_mut(name) else { return Expected::UnknownJob };
        job.paused = true;
        Expected::Ok
    }

    pub fn resume(&mut self, name: &str) -> Expected {
        let time = self.time;
        let Some(job) = self.jobs.get_mut(name) else { return Expected::UnknownJob };
        let missed = job.paused && job.next.is_some_and(|next| next <= time);
        if job.paused {
            job.waiting = Waiting::default();
        }
        job.paused = false;
        if missed && !matches!(job.definition.when, When::Once { .. }) {
            job.next = job.firing_across(time);
            self.cron.resumed += u64::from(job.definition.when.is_cron());
        }
        Expected::Ok
    }

    pub fn trigger(&mut self, name: &str) -> Expected {
        let time = self.time;
        let Some(job) = self.jobs.get_mut(name) else { return Expected::UnknownJob };
        if (!job.flights.is_empty() && job.refuses_triggers()) || job.trigger.is_some() {
            return Expected::OverlapSkipped;
        }
        job.trigger = Some(time);
        job.finished = None;
        Expected::Ok
    }

    pub fn redrive(&mut self, name: &str, sequence: u64) -> Expected {
        let job = self.jobs.get_mut(name).unwrap();
        let Some(place) = job.dead_letters.iter().position(|letter| letter.0 == sequence) else {
            return Expected::UnknownExecution;
        };
        let (_, scheduled) = job.dead_letters.remove(place);
        job.backlog.push_back(scheduled);
        job.finished = None;
        Expected::Ok
    }

    /// How many firings were put into the backlog.
    pub fn backfill(&mut self, name: &str, from: u64, until: u64) -> Result<u32, Expected> {
        let job = self.jobs.get_mut(name).unwrap();
        let mut times = Vec::new();
        match job.definition.when {
            When::Delay { .. } => return Err(Expected::InvalidField),
            When::Once { .. } => times.extend(job.firing_after(0).filter(|fire| (from..until).contains(fire))),
            _ => {
                let mut next = job.firing_across(from - 1);
                while let Some(fire) = next.filter(|fire| *fire < until) {
                    times.push(fire);
                    next = job.firing_after(fire);
                }
            }
        }
        job.backlog.extend(&times);
        if !times.is_empty() {
            job.finished = None;
        }
        Ok(u32::try_from(times.len()).unwrap())
    }

    pub fn clear_backlog(&mut self, name: &str) -> Expected {
        let Some(job) = self.jobs.get_mut(name) else { return Expected::UnknownJob };
        job.backlog.clear();
        Expected::Ok
    }

    pub fn delete(&mut self, name: &str) -> Expected {
        if self.jobs.remove(name).is_some() { Expected::Ok } else { Expected::UnknownJob }
    }

    pub fn cancel(&mut self, name: &str, sequence: u64) -> Expected {
        let time = self.time;
        let Some(job) = self.jobs.get_mut(name) else { return Expected::UnknownJob };
        match job.flights.get_mut(&sequence) {
            Some(flight) if flight.running => {
                flight.cancelling = true;
                flight.deadline = flight.deadline.min(time + GRACE);
                return Expected::Ok;
            }
            Some(_) => {
                job.flights.remove(&sequence);
                job.end_ruled(time, None);
            }
            None => {
                let due = !job.paused && job.next.is_some_and(|next| next <= time);
                if job.sequence + 1 != sequence
                    || !job.has_room()
                    || !(due || job.trigger.is_some() || !job.backlog.is_empty())
                {
                    return Expected::UnknownExecution;
                }
                if due && job.is_ruled() {
                    self.cancel_due(name);
                    let job = self.jobs.get_mut(name).unwrap();
                    job.last = vec![ExecutionState::Cancelled];
                    self.cancelled += 1;
                    return Expected::Ok;
                }
                job.sequence += 1;
                if due {
                    job.next = match job.definition.when {
                        When::Every { .. } | When::Cron { .. } | When::Several(_) => {
                            job.definition.when.first_after(time)
                        }
                        When::Once { .. } | When::Delay { .. } => None,
                    };
                    self.cron.cancelled += u64::from(job.definition.when.is_cron());
                } else if job.trigger.take().is_none() {
                    job.backlog.pop_front();
                }
            }
        }
        job.last = vec![ExecutionState::Cancelled];
        self.cancelled += 1;
        Expected::Ok
    }

    /// Whether a report counts; `None`: it is a repetition.
    pub fn complete(&mut self, id: JobId, token: u64, ending: Ending, own: bool) -> Option<bool> {
        let Some((name, job)) = self.jobs.iter().find(|(_, job)| job.id == id) else { return Some(false) };
        let running = job.flights.iter().find(|(_, flight)| flight.running && flight.token == token);
        if let Some((&sequence, _)) = running.filter(|_| own) {
            let name = name.clone();
            self.end(&name, sequence, ending);
            return Some(true);
        }
        let newest = job.flights.values().next_back();
        let is_crowded = job.flights.len() > 1 || newest.is_some_and(|flight| flight.token != job.token);
        let newest_ended = job.token - u64::from(newest.is_some_and(|flight| flight.running));
        let is_known = is_crowded || job.definition.rules.overlap == Overlap::Allow || token == newest_ended;
        if is_known && job.reported.contains(&token) { None } else { Some(false) }
    }

    pub fn note(&mut self, fate: &'static str, count: u64) {
        *self.ruled.entry(fate).or_default() += count;
    }

    pub fn end(&mut self, name: &str, sequence: u64, ending: Ending) {
        let time = self.time;
        let job = self.jobs.get_mut(name).unwrap();
        let flight = job.flights.get_mut(&sequence).unwrap();
        let by_server = [Ending::Lost, Ending::Undelivered, Ending::TimedOut, Ending::Terminated];
        if !by_server.contains(&ending) {
            job.reported.insert(flight.token);
        }
        if ending == Ending::Success {
            self.succeeded += 1;
            job.flights.remove(&sequence);
            job.last = vec![ExecutionState::Succeeded];
            job.end_ruled(time, Some(false));
        } else if flight.cancelling || matches!(ending, Ending::CancelledByWorker | Ending::Terminated) {
            self.cancelled += 1;
            job.flights.remove(&sequence);
            job.last = vec![ExecutionState::Cancelled];
            job.end_ruled(time, None);
        } else if ending == Ending::Undelivered {
            (flight.running, flight.retry_at) = (false, time);
            flight.attempt -= 1;
        } else {
            self.failed += 1;
            if ending == Ending::FailureForGood || flight.attempt >= job.definition.attempts_max {
                self.dead += 1;
                job.dead_letters.push((sequence, flight.scheduled));
                let state = match ending {
                    Ending::TimedOut => ExecutionState::TimedOut,
                    Ending::Lost => ExecutionState::WorkerLost,
                    _ => ExecutionState::Failed,
                };
                job.flights.remove(&sequence);
                job.last = vec![state];
                let was_paused = job.paused;
                job.end_ruled(time, Some(true));
                let is_paused_now = job.paused && !was_paused;
                self.note("job paused by failures", is_paused_now.into());
            } else {
                let own = SECOND << (flight.attempt - 1);
                let delay = if ending == Ending::FailureForNow { RETRY_AFTER } else { own };
                (flight.running, flight.retry_at) = (false, time + delay);
            }
        }
    }

    pub fn attach(&mut self) {
        self.worker = Worker::Up { claims_until: self.time + REATTACH };
        for flight in self.jobs.values_mut().flat_map(|job| job.flights.values_mut()) {
            flight.claimed = false;
        }
    }

    /// Whether the worker keeps the attempt.
    pub fn claim(&mut self, id: JobId, token: u64) -> bool {
        let job = self.jobs.values_mut().find(|job| job.id == id);
        let mut flights = job.into_iter().flat_map(|job| job.flights.values_mut());
        match flights.find(|flight| flight.running && flight.token == token) {
            Some(flight) => {
                flight.claimed = true;
                true
            }
            None => false,
        }
    }

    pub fn detach(&mut self) {
        self.worker = Worker::Away { until: self.time + REATTACH };
    }

    /// The server restarts: limits begin again, the worker is away if it runs something.
    pub fn restart(&mut self) {
        let mut running = false;
        for job in self.jobs.values_mut() {
            for flight in job.flights.values_mut().filter(|flight| flight.running) {
                running = true;
                flight.claimed = false;
                let grace = if flight.cancelling { GRACE } else { u64::MAX };
                flight.deadline = self.time + job.definition.timeout.min(grace);
            }
        }
        self.worker = if running { Worker::Away { until: self.time + REATTACH } } else { Worker::Unknown };
    }

    /// Lets everything happen that is due now.
    pub fn settle(&mut self) {
        let names: Vec<String> = self.jobs.keys().cloned().collect();
        for name in &names {
            self.supersede(name);
            self.skip(name);
            let flights = self.jobs[name].flights.iter().rev();
            let overdue = flights.filter(|(_, flight)| flight.running && flight.deadline <= self.time);
            for sequence in overdue.map(|(sequence, _)| *sequence).collect::<Vec<_>>() {
                self.end(name, sequence, Ending::TimedOut);
            }
            self.drop_late(name);
        }
        for name in &names {
            self.lose(name);
        }
        if matches!(self.worker, Worker::Away { until } if until <= self.time) {
            self.worker = Worker::Unknown;
        }
        for name in &names {
            self.drop_late(name);
            while self.dispatch(name) {}
            self.skip(name);
        }
        for name in &names {
            self.finish(name);
        }
    }

    fn skip(&mut self, name: &str) {
        let job = self.jobs.get_mut(name).unwrap();
        if job.paused || job.has_room() || job.makes_up() {
            return;
        }
        let Some(due) = job.next.filter(|next| *next <= self.time) else { return };
        if job.is_ruled() {
            return self.skip_ruled(name);
        }
        job.next = following(job.definition.when, due);
        let skipped = 1 + job.pass_over(self.time);
        self.skipped += skipped;
        if job.definition.when.is_cron() {
            self.cron.skipped += skipped;
        }
    }

    fn lose(&mut self, name: &str) {
        let job = &self.jobs[name];
        let allows_one = job.definition.attempts_max == 1;
        let lost = job.flights.iter().filter(|(_, flight)| flight.running).filter_map(|(sequence, flight)| {
            let ending = match self.worker {
                Worker::Away { until } if until <= self.time => Ending::Lost,
                Worker::Up { claims_until } if claims_until <= self.time && !flight.claimed => {
                    if allows_one {
                        Ending::Lost
                    } else {
                        Ending::Undelivered
                    }
                }
                _ => return None,
            };
            Some((*sequence, ending))
        });
        let mut ends = Vec::new();
        for (sequence, ending) in lost.collect::<Vec<_>>() {
            self.end(name, sequence, ending);
            ends.extend(self.jobs[name].last.clone());
        }
        if !ends.is_empty() {
            self.jobs.get_mut(name).unwrap().last = ends;
        }
    }

    /// Begins one attempt of the job if one may begin.
    fn dispatch(&mut self, name: &str) -> bool {
        let time = self.time;
        if !matches!(self.worker, Worker::Up { .. }) {
            return false;
        }
        let job = self.jobs.get_mut(name).unwrap();
        let deadline = time + job.definition.timeout;
        let token = job.token + 1;
        let retry = job.flights.iter_mut().find(|(_, flight)| !flight.running && flight.retry_at <= time);
        let sequence = if let Some((sequence, flight)) = retry {
            flight.attempt += 1;
            (flight.running, flight.claimed, flight.deadline) = (true, true, deadline);
            (flight.dispatched, flight.token) = (time, token);
            *sequence
        } else {
            if !job.has_room() {
                return false;
            }
            let (mut makes_up, is_asked_for) = (false, job.paused || job.next.is_none_or(|next| next > time));
            let scheduled = match (job.next.filter(|next| !job.paused && *next <= time), job.trigger) {
                (Some(_), _) if job.is_ruled() => {
                    let before = job.waiting;
                    let (scheduled, skipped, missed) = job.begin_ruled(time);
                    self.skipped += skipped;
                    self.misfired += missed;
                    self.cron.note(job.definition.when, scheduled, time, missed);
                    let fates = job.fates(scheduled, before);
                    for (fate, is_met) in fates {
                        *self.ruled.entry(fate).or_default() += u64::from(is_met);
                    }
                    scheduled
                }
                (Some(next), _) => {
                    job.next = following(job.definition.when, next);
                    let missed = job.pass_over(time);
                    self.misfired += missed;
                    self.cron.note(job.definition.when, next, time, missed);
                    next
                }
                (None, Some(asked)) => {
                    job.trigger = None;
                    asked
                }
                (None, None) => {
                    let Some(scheduled) = job.backlog.pop_front() else { return false };
                    makes_up = true;
                    scheduled
                }
            };
            job.sequence += 1;
            self.fired += 1;
            *self.ruled.entry("execution of the backlog").or_default() += u64::from(makes_up);
            if job.is_ruled() && is_asked_for {
                job.next = job.next_after_trigger();
            }
            if job.flights.values().any(|flight| flight.running) {
                *self.ruled.entry("execution beside another").or_default() += 1;
            }
            let flight = InFlight {
                attempt: 1,
                token,
                scheduled,
                running: true,
                retry_at: 0,
                deadline,
                cancelling: false,
                dispatched: time,
                makes_up,
                claimed: true,
            };
            job.flights.insert(job.sequence, flight);
            job.sequence
        };
        job.token = token;
        let InFlight { attempt, scheduled, .. } = job.flights[&sequence];
        self.sent.push(Sent { name: name.to_owned(), sequence, token, attempt, scheduled });
        true
    }

    fn finish(&mut self, name: &str) {
        let time = self.time;
        let job = self.jobs.get_mut(name).unwrap();
        let idle = job.flights.is_empty() && job.trigger.is_none() && job.backlog.is_empty() && job.next.is_none();
        let finished = *job.finished.get_or_insert(time);
        if !idle {
            job.finished = None;
        } else if finished + DAY <= time {
            self.jobs.remove(name);
        }
    }
}
