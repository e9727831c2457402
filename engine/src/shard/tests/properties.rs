//! Random histories against the plain model.
//!
//! After every step: the digest of each partition equals that of a replica which knows the log alone (see the harness); what was sent,
//! answered, counted and shown equals the model. Snapshots are written while the history goes on, and with the log's tail they give
//! the present state.
//!
//! Some histories begin shortly before the clocks of Berlin change. The model finds the firings of cron jobs with the
//! slow search of the cron tests; seeded histories show that such jobs meet every fate often enough.

use super::{
    super::*,
    filters::picked,
    harness::{Attempt, START_SECS, World, client, session},
    model::{CronFates, Definition, Ending, Expected, Job, Model, SECOND, Sent, Worker as ModelWorker},
    ruled_model::{Excluded, SHARED},
    steps::{AUTUMN_SECS, EXPRESSIONS, MINUTE, PLAIN, Rhythm, Rules, SPRING_SECS, Step, ZONES, history},
    when::{Single, When},
};
use crate::{
    partition::{Partition, SnapshotReader},
    wheel::TICK_MICROS,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use std::collections::BTreeMap;
use tickwheel_wire::{
    FireSequence,
    frame::{
        request::{
            BackfillJob, BackfillTaken, ExecutionState, JobByName, JobVerb, JobView, RedriveExecution, Remark,
            SetCalendar, SubmitMode,
        },
        work::{Outcome, Verdict},
    },
    job::{FiringRules, JobSpec, JobState, JobStates, RetryPolicy, ScheduleListBuf, ScheduleSpec},
    partition_of,
};

const SEEDED_HISTORIES: u32 = 768;

/// A snapshot in progress.
struct Writing {
    id: PartitionId,
    digest: u64,
    reader: SnapshotReader,
}

struct History {
    /// In microseconds.
    start: u64,
    world: World,
    model: Model,
    /// Attempts that the worker was sent, the newest last.
    held: Vec<Attempt>,
    session_number: u64,
    writing: Option<Writing>,
    snapshots_checked: usize,
    compared: usize,
    /// The highest token seen of each job.
    tokens: BTreeMap<JobId, u64>,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl History {
    fn new(start_secs: u64) -> Self {
        let start = start_secs * SECOND;
        let mut history = Self {
            start,
            world: World::starting(Timestamp::from_micros(start), 2, |_| {}),
            model: Model::new(start),
            held: Vec::new(),
            session_number: 1,
            writing: None,
            snapshots_checked: 0,
            compared: 0,
            tokens: BTreeMap::new(),
        };
        SHARED.set(Excluded::Nothing);
        history.send_calendar("");
        history.attach_stranger();
        history.attach(0);
        history
    }

    /// A worker of another pool, so that it is known but never gets anything.
    fn attach_stranger(&mut self) {
        let identity = self.world.identity(Role::Worker, None, &["high"]);
        self.world.attach_as(&identity, 999, 99, 1);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Submit { name, rhythm, value, upsert, revision, key, paused, attempts_max, rules } => {
                let (definition, schedule, also) = self.define(rhythm, value, paused, attempts_max, rules);
                let spec =
                    JobSpec { also: also.as_list(), ..JobSpec::new("acme", NAMES[usize::from(name)], "run", schedule) };
                self.submit(&spec, &definition, upsert, revision, key);
            }
            Step::Command { name, verb } => self.command(NAMES[usize::from(name)], verb),
            Step::Cancel { name, ahead } => self.cancel(NAMES[usize::from(name)], ahead),
            Step::Redrive { name, letter } => self.redrive(NAMES[usize::from(name)], letter),
            Step::Backfill { name, seconds, ago } => self.backfill(NAMES[usize::from(name)], seconds, ago),
            Step::Complete { held, outcome, wrong_worker } => self.complete(held, outcome, wrong_worker),
            // The wheel rounds up to its ticks; the model knows none.
            Step::Pass { micros } => self.pass(micros.next_multiple_of(TICK_MICROS)),
            Step::Reach { minutes, ticks } => {
                let minute = (self.model.time / MINUTE + minutes) * MINUTE;
                self.pass(minute - TICK_MICROS + ticks * TICK_MICROS - self.model.time);
            }
            Step::Attach { claims } => self.attach(claims),
            Step::Detach => {
                if matches!(self.model.worker, ModelWorker::Up { .. }) {
                    self.world.close(session(self.session_number));
                    self.model.detach();
                }
            }
            Step::Restart => {
                self.writing = None;
                self.world.restart();
                self.model.restart();
                self.attach_stranger();
            }
            Step::Snapshot { partition } => self.begin_snapshot(PartitionId(partition)),
            Step::SetCalendar { excluded } => self.set_calendar(excluded),
        }
        self.model.settle();
        self.world.fire();
        self.compare();
        self.write_snapshot();
    }

    fn pass(&mut self, micros: u64) {
        self.model.time += micros;
        self.world.pass(Duration::from_micros(micros));
    }

    /// What a submission defines, for the model and for the core.
    fn define(
        &self,
        rhythm: Rhythm,
        value: u64,
        paused: bool,
        attempts_max: u16,
        rules: Rules,
    ) -> (Definition, ScheduleSpec<'static>, ScheduleListBuf) {
        let mut also = ScheduleListBuf::default();
        let (when, schedule, timeout) = match rhythm {
            Rhythm::Every => {
                let (every, anchor) = (value * SECOND, self.start + value * 16 * TICK_MICROS);
                let spec = ScheduleSpec::Interval { every_us: every, anchor: Timestamp::from_micros(anchor) };
                (When::Every { every, anchor }, spec, value * 2 * SECOND)
            }
            Rhythm::Once => {
                let at = self.model.time + value * SECOND - 5 * SECOND;
                (When::Once { at }, ScheduleSpec::Once { at: Timestamp::from_micros(at) }, value * 2 * SECOND)
            }
            Rhythm::Delay => {
                let delay = value * SECOND;
                (When::Delay { delay }, ScheduleSpec::FixedDelay { delay_us: delay }, value * 2 * SECOND)
            }
            // Long enough that the next firings come while the execution runs.
            Rhythm::Cron { expression, zone } => {
                (When::Cron { expression, zone }, ScheduleSpec::Cron { expression, zone }, value * 20 * SECOND)
            }
            Rhythm::Several { outer: [first, second], once } => {
                let cron = |(expression, zone)| ScheduleSpec::Cron { expression, zone };
                let single = |(expression, zone)| Single::Cron { expression, zone };
                // On the minute, where others fire too.
                let (every, start) = (value * MINUTE, self.model.time / MINUTE * MINUTE);
                let (between, between_spec) = if once {
                    let at = start + value * MINUTE - 5 * MINUTE;
                    (Single::Once { at }, ScheduleSpec::Once { at: Timestamp::from_micros(at) })
                } else {
                    // Without an anchor it begins with the submission.
                    let anchor = if value.is_multiple_of(2) { start } else { self.model.time };
                    let stated = if value.is_multiple_of(2) { Timestamp::from_micros(start) } else { Timestamp::MAX };
                    (Single::Every { every, anchor }, ScheduleSpec::Interval { every_us: every, anchor: stated })
                };
                also = [between_spec, cron(second)].into_iter().collect();
                (When::Several([single(first), between, single(second)]), cron(first), value * 20 * SECOND)
            }
        };
        let in_minutes = |minutes: u64| Timestamp::from_micros(self.model.time + minutes * MINUTE);
        let excluded = rules.excluded;
        let rules = FiringRules {
            starts_at: rules.starts.map_or(Timestamp::EPOCH, in_minutes),
            ends_at: rules.ends.map_or(Timestamp::MAX, in_minutes),
            ..rules.firing
        };
        (Definition { when, paused, attempts_max, timeout, rules, excluded }, schedule, also)
    }

    fn submit(&mut self, spec: &JobSpec<'_>, definition: &Definition, upsert: bool, revision: u64, key: Option<u8>) {
        let Definition { paused, attempts_max, timeout, rules, excluded, .. } = *definition;
        let retry = RetryPolicy { attempts_max, jitter_percent: 0, ..RetryPolicy::default() };
        let start_to_close_ms = u32::try_from(timeout / 1_000).unwrap();
        let (labels, exclusions) = (labels_of(definition), excluded.text());
        let spec = JobSpec { paused, retry, start_to_close_ms, rules, exclusions, labels: &labels, ..*spec };
        let name = spec.name;
        let mode = if upsert { SubmitMode::Upsert } else { SubmitMode::Create };
        let expected = self.model.submit(name, definition, upsert, revision, key);
        let answer = self.world.submit_as(&spec, mode, revision, key.as_slice());
        match answer {
            Ok(submitted) => {
                assert_eq!(expected, Expected::Ok);
                let revision = self.model.submitted(name, definition, key, submitted.job);
                assert_eq!(revision, submitted.revision);
            }
            Err(denied) => assert_eq!(expected, expected_of(denied.code)),
        }
    }

    fn command(&mut self, name: &str, verb: JobVerb) {
        let expected = match verb {
            JobVerb::Pause => self.model.pause(name),
            JobVerb::Resume => self.model.resume(name),
            JobVerb::Trigger => self.model.trigger(name),
            JobVerb::Delete => self.model.delete(name),
            JobVerb::ClearBacklog => self.model.clear_backlog(name),
        };
        let answer = self.world.command(verb, name);
        assert_eq!(expected, answer.map_or_else(|denied| expected_of(denied.code), |_| Expected::Ok));
    }

    fn cancel(&mut self, name: &str, ahead: u64) {
        let Some(job) = self.model.jobs.get(name) else { return };
        let (id, sequence) = (job.id, job.sequence + ahead);
        let expected = self.model.cancel(name, sequence);
        let answer = self.world.cancel(id, sequence);
        assert_eq!(expected, answer.map_or_else(|denied| expected_of(denied.code), |_| Expected::Ok));
    }

    fn redrive(&mut self, name: &str, letter: usize) {
        let Some(job) = self.model.jobs.get(name) else { return };
        // One time of many the newest firing, whatever became of it.
        let letters = job.dead_letters.iter().map(|letter| letter.0).chain([job.sequence]).collect::<Vec<_>>();
        let (id, sequence) = (job.id, letters[letter % letters.len()]);
        let expected = self.model.redrive(name, sequence);
        let (partition, fire_sequence) = (id.partition(), FireSequence(sequence));
        let answer = self.world.change(|request_id| RedriveExecution { request_id, partition, job: id, fire_sequence });
        assert_eq!(expected, answer.map_or_else(|denied| expected_of(denied.code), |_| Expected::Ok));
    }

    fn backfill(&mut self, name: &str, seconds: u64, ago: u64) {
        let Some(job) = self.model.jobs.get(name) else { return };
        let partition = job.id.partition();
        let until = self.model.time - ago * SECOND;
        let from = until - seconds * SECOND;
        let expected = self.model.backfill(name, from, until);
        let answer = self.world.change(|request_id| BackfillJob {
            request_id,
            partition,
            tenant: "acme",
            name,
            from: Timestamp::from_micros(from),
            until: Timestamp::from_micros(until),
            dry_run: false,
        });
        let count = answer.map(|answer| {
            let taken = BackfillTaken::decode_body(&answer.body).unwrap();
            assert_eq!(taken.until.as_micros(), until);
            taken.count
        });
        assert_eq!(expected, count.map_err(|denied| expected_of(denied.code)));
    }

    fn complete(&mut self, held: usize, outcome: Outcome, wrong_worker: bool) {
        if self.held.is_empty() || !matches!(self.model.worker, ModelWorker::Up { .. }) {
            return;
        }
        // Mostly what was sent last, sometimes something old.
        let place = self.held.len() - 1 - (held % self.held.len().min(6));
        let attempt = self.held[place].clone();
        let ending = match outcome {
            Outcome::Succeeded => Ending::Success,
            Outcome::Failed => Ending::Failure,
            Outcome::FailedForGood => Ending::FailureForGood,
            Outcome::FailedForNow => Ending::FailureForNow,
            Outcome::Cancelled => Ending::CancelledByWorker,
            Outcome::TimedOut => Ending::TimedOut,
        };
        let from = session(if wrong_worker { 999 } else { self.session_number });
        let counts = self.model.complete(attempt.job, attempt.token.0, ending, !wrong_worker);
        let verdict = self.world.complete_with(&attempt, from, outcome, "");
        assert_eq!(counts.unwrap_or(true), verdict == Verdict::Accepted, "{verdict:?}");
    }

    fn attach(&mut self, claims: u8) {
        if matches!(self.model.worker, ModelWorker::Up { .. }) {
            return;
        }
        self.session_number += 1;
        let identity = self.world.identity(Role::Worker, None, &["standard"]);
        self.model.attach();
        self.model.settle();
        self.world.attach_as(&identity, self.session_number, 10, 100_000);
        self.collect();
        let newest: Vec<Attempt> = self.held.iter().rev().take(8).cloned().collect();
        for (bit, attempt) in newest.iter().enumerate() {
            if claims >> bit & 1 == 1 {
                let kept = self.model.claim(attempt.job, attempt.token.0);
                let verdict = self.world.reattach(attempt, session(self.session_number));
                assert_eq!(kept, verdict == Verdict::Accepted);
            }
        }
    }

    /// Takes what the worker was sent and compares it.
    fn collect(&mut self) {
        let attempts = self.world.attempts();
        let mut sent: Vec<Sent> = attempts
            .iter()
            .map(|attempt| Sent {
                name: attempt.name.clone(),
                sequence: attempt.fire_sequence.0,
                token: attempt.token.0,
                attempt: attempt.attempt,
                scheduled: attempt.scheduled_at.as_micros(),
            })
            .collect();
        sent.sort();
        self.model.sent.sort();
        assert_eq!(sent, self.model.sent);
        self.model.sent.clear();
        for attempt in &attempts {
            assert!(attempt.scheduled_at <= self.world.now.wall, "nothing fires early");
            let former = self.tokens.insert(attempt.job, attempt.token.0).unwrap_or(0);
            assert!(attempt.token.0 > former, "no token is given out twice");
        }
        self.held.extend(attempts);
    }

    fn compare(&mut self) {
        self.collect();
        let counters = self.world.counters();
        let expected = &self.model;
        assert_eq!(
            [counters.fired, counters.succeeded, counters.failed_attempts, counters.cancelled, counters.dead],
            [expected.fired, expected.succeeded, expected.failed, expected.cancelled, expected.dead]
        );
        assert_eq!(
            [counters.skipped, counters.misfired, counters.too_late],
            [expected.skipped, expected.misfired, expected.too_late]
        );
        for name in NAMES {
            let shown = self.shown(name);
            let expected = self.model.jobs.get_mut(name);
            if let (Some(job), Some((.., state))) = (expected, &shown)
                && job.flights.is_empty()
                && job.last.contains(state)
            {
                job.last = vec![*state];
            }
            assert_eq!(shown, self.model.jobs.get(name).map(expected_view), "{name}");
        }
        self.compare_lists();
    }

    /// What one of the filters picks, each in its turn.
    fn compare_lists(&mut self) {
        self.compared += 1;
        let state = JobState::ALL[self.compared % JobState::ALL.len()];
        let (selector, expected_label) = SELECTORS[self.compared / JobState::ALL.len() % SELECTORS.len()];
        let is_picked = |job: &Job| expected_label(job.definition.attempts_max) && job.has(state);
        let expected = self.model.jobs.iter().filter(|(_, job)| is_picked(job)).map(|(name, _)| name);
        let mut listed = picked(&mut self.world, selector, JobStates::NONE.with(state));
        // How such a job stands shows when what is in flight has ended.
        let is_open = |name: &String| self.model.jobs[name].last.len() > 1 && state == JobState::Failing;
        listed.retain(|name| !is_open(name));
        assert_eq!(
            listed.iter().collect::<Vec<_>>(),
            expected.filter(|name| !is_open(name)).collect::<Vec<_>>(),
            "{selector} {state}"
        );
    }

    fn shown(&mut self, name: &str) -> Option<Shown> {
        let partition = partition_of("acme", name, self.world.config.partition_count);
        let answer = self.world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name });
        if answer[0].frame_type == FrameType::Refused {
            return None;
        }
        let (view, remarks) = answer.split_last().expect("there is an answer");
        let view = JobView::decode_body(&view.body).unwrap();
        let paused_after =
            remarks.first().map_or(0, |remark| Remark::decode_body(&remark.body).unwrap().paused_after_failures);
        let next = view.next_fire.as_micros();
        let paused = (view.paused, paused_after);
        Some((view.job, view.revision, paused, next, view.fire_sequence.0, view.last_state))
    }

    fn set_calendar(&mut self, excluded: Excluded) {
        self.model.set_calendar(excluded);
        self.send_calendar(excluded.text());
    }

    fn send_calendar(&mut self, exclusions: &str) {
        for partition in (0..self.world.config.partition_count.count()).map(PartitionId) {
            let (tenant, name) = ("acme", "shared");
            self.world.change(|request_id| SetCalendar { request_id, partition, tenant, name, exclusions }).unwrap();
        }
    }

    fn begin_snapshot(&mut self, id: PartitionId) {
        if self.writing.is_none() {
            assert!(self.world.shard.begin_snapshot(id));
            let digest = self.world.shard.partition(id).unwrap().digest();
            let reader = SnapshotReader::new(id, self.world.config.partition);
            self.writing = Some(Writing { id, digest, reader });
        }
    }

    /// One step of the snapshot in progress; when it is complete, it is restored and brought up to date.
    fn write_snapshot(&mut self) {
        let Some(mut writing) = self.writing.take() else { return };
        let mut chunk = Vec::new();
        let step = self.world.shard.snapshot_step(writing.id, &mut chunk).unwrap();
        if !chunk.is_empty() {
            writing.reader.chunk(&chunk).unwrap();
        }
        let SnapshotStep::Done { digest, .. } = step else {
            self.writing = Some(writing);
            return;
        };
        assert_eq!(digest, writing.digest);
        let mut restored: Partition = writing.reader.finish(true).unwrap();
        for (id, first_sequence, event_count, bytes) in &self.world.log {
            if *id == writing.id {
                restored.apply_section(*first_sequence, *event_count, bytes).unwrap();
            }
        }
        assert_eq!(restored.digest(), self.world.shard.partition(writing.id).unwrap().digest());
        self.snapshots_checked += 1;
    }
}

/// What the labels of a job say follows from its definition.
fn labels_of(definition: &Definition) -> String {
    let attempts = definition.attempts_max;
    if attempts == 2 { "twice=".to_owned() } else { format!("attempts={attempts},team=ops") }
}

/// Which jobs a selector admits, by their most attempts.
type Admits = fn(u16) -> bool;

const SELECTORS: [(&str, Admits); 4] = [
    ("attempts=1,team", |attempts| attempts == 1),
    ("attempts!=1", |attempts| attempts != 1),
    ("!team,twice=", |attempts| attempts == 2),
    ("", |_| true),
];

/// A job as it is shown: its id, its revision, whether it is paused and after how many failures, its next firing, the number of the last one, and
/// how that stands.
type Shown = (JobId, u64, (bool, u16), u64, u64, ExecutionState);

fn expected_view(job: &Job) -> Shown {
    let paused = (job.paused, job.waiting.paused_after);
    (job.id, job.revision, paused, job.next.unwrap_or(u64::MAX), job.sequence, job.state()[0])
}

fn expected_of(code: RefusalCode) -> Expected {
    match code {
        RefusalCode::AlreadyExists => Expected::AlreadyExists,
        RefusalCode::RevisionConflict => Expected::RevisionConflict,
        RefusalCode::IdempotencyConflict => Expected::IdempotencyConflict,
        RefusalCode::NeverFires => Expected::NeverFires,
        RefusalCode::UnknownJob => Expected::UnknownJob,
        RefusalCode::OverlapSkipped => Expected::OverlapSkipped,
        RefusalCode::UnknownExecution => Expected::UnknownExecution,
        RefusalCode::InvalidField => Expected::InvalidField,
        other => panic!("{other}"),
    }
}

/// Takes a history from its beginning to its end.
fn check(start_secs: u64, steps: &[Step]) -> History {
    let mut history = History::new(start_secs);
    for step in steps {
        history.take(step);
    }
    history.world.close(client());
    history
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2 * ProptestConfig::default().cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_agrees_with_the_plain_model((start_secs, steps) in history()) {
        check(start_secs, &steps);
    }
}

/// The same histories in every run; without enough of each fate, agreement with the model would say little about cron.
#[test]
#[cfg_attr(miri, ignore = "counts over hundreds of histories")]
fn seeded_histories_lead_cron_jobs_to_every_fate() {
    let mut runner = TestRunner::deterministic();
    let mut sum = CronFates::default();
    for _ in 0..SEEDED_HISTORIES {
        let (start_secs, steps) = history().new_tree(&mut runner).unwrap().current();
        sum.add(&check(start_secs, &steps).model.cron);
    }
    let fired = |is_meant: &dyn Fn(&str, &str) -> bool| -> u64 {
        let meant = sum.fired.iter().filter(|((expression, zone), _)| is_meant(expression, zone));
        meant.map(|(_, count)| count).sum()
    };
    assert!(EXPRESSIONS.iter().all(|meant| fired(&|expression, _| expression == *meant) >= 5), "{sum:?}");
    assert!(ZONES.iter().all(|meant| fired(&|_, zone| zone == *meant) >= 50), "{sum:?}");
    assert!(sum.on_time >= 30 && sum.skipped >= 1_000 && sum.misfired >= 1_000, "{sum:?}");
    assert!(sum.resumed >= 10 && sum.cancelled >= 3 && sum.replaced.iter().all(|count| *count >= 30), "{sum:?}");
    assert!(sum.several >= 200 && sum.several_missed >= 200 && sum.coinciding >= 20, "{sum:?}");
}

/// Without enough of each rule's effects, agreement with the model would say little about the rules.
#[test]
#[cfg_attr(miri, ignore = "counts over hundreds of histories")]
fn seeded_histories_lead_to_every_effect_of_every_rule() {
    let mut runner = TestRunner::deterministic();
    let mut sum: BTreeMap<&'static str, u64> = BTreeMap::new();
    for _ in 0..SEEDED_HISTORIES {
        let (start_secs, steps) = history().new_tree(&mut runner).unwrap().current();
        for (fate, count) in check(start_secs, &steps).model.ruled {
            *sum.entry(fate).or_default() += count;
        }
    }
    assert!(sum.len() == 17 && sum.values().all(|count| *count >= 5), "{sum:#?}");
}

/// A job `a` that nothing else is done with: its firings, as the worker is sent them, in minutes from the start's minute on.
fn fired_minutes(start_secs: u64, expression: &'static str, zone: &'static str, minutes: u64) -> Vec<u64> {
    let mut history = History::new(start_secs);
    history.take(&submit_cron(expression, zone));
    for _ in 0..minutes {
        history.take(&Step::Reach { minutes: 1, ticks: 1 });
        history.take(&Step::Complete { held: 0, outcome: Outcome::Succeeded, wrong_worker: false });
    }
    let since_start = |attempt: &Attempt| attempt.scheduled_at.as_micros() / MINUTE - start_secs / 60;
    history.held.iter().map(since_start).collect()
}

fn submit_cron(expression: &'static str, zone: &'static str) -> Step {
    let rhythm = Rhythm::Cron { expression, zone };
    Step::Submit {
        name: 0,
        rhythm,
        value: 1,
        upsert: false,
        revision: 0,
        key: None,
        paused: false,
        attempts_max: 1,
        rules: PLAIN,
    }
}

#[test]
#[cfg_attr(miri, ignore = "the model searches minute by minute")]
fn cron_jobs_follow_the_clock_of_berlin_through_both_changes() {
    let check = |start_secs, expression, expected: &[u64]| {
        assert_eq!(fired_minutes(start_secs, expression, "Europe/Berlin", 200), expected, "`{expression}`");
    };
    // 01:42, and from 18 minutes later on 03:00.
    check(SPRING_SECS, "30 2 * * *", &[18]);
    check(SPRING_SECS, "0,10,20,30,40,50 1-3 * * *", &[8, 18, 28, 38, 48, 58, 68]);
    check(SPRING_SECS, "5,35 * * * *", &[23, 53, 83, 113, 143, 173]);
    // 02:12, and from 48 minutes later on 02:00 again.
    check(AUTUMN_SECS, "30 2 * * *", &[18]);
    check(AUTUMN_SECS, "0,10,20,30,40,50 1-3 * * *", &[8, 18, 28, 38, 108, 118, 128, 138, 148, 158]);
    check(AUTUMN_SECS, "5,35 * * * *", &[23, 53, 83, 113, 143, 173]);
    // 02:12 for the second time: the fixed times before 03:00 have been.
    check(AUTUMN_SECS + 3_600, "30 2 * * *", &[]);
    check(AUTUMN_SECS + 3_600, "0,10,20,30,40,50 1-3 * * *", &[48, 58, 68, 78, 88, 98]);
}

#[test]
#[cfg_attr(miri, ignore = "counts ten thousand minutes")]
fn a_week_is_the_most_that_is_counted_of_missed_minutes() {
    let submit = submit_cron("* * * * *", "UTC");
    let late = Step::Pass { micros: 8 * 1_440 * MINUTE };
    // Due without a worker, and then due while an execution runs.
    let steps = [submit, Step::Detach, late.clone(), Step::Attach { claims: 0 }, late];
    let counters = check(START_SECS, &steps).world.counters();
    assert_eq!([counters.fired, counters.misfired, counters.skipped], [1, 10_080, 10_081]);
}
