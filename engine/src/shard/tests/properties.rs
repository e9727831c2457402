//! Random histories against the plain model.
//!
//! After every step: the digest of each partition equals that of a replica which knows the log alone (see the harness); what was sent,
//! answered, counted and shown equals the model. Snapshots are written while the history goes on, and with the log's tail they give
//! the present state.

use super::{
    super::*,
    harness::{Attempt, START_SECS, World, client, session},
    model::{Definition, Ending, Expected, Job, Model, SECOND, Sent, When, Worker as ModelWorker},
};
use crate::{
    partition::{Partition, SnapshotReader},
    wheel::TICK_MICROS,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tickwheel_wire::{
    frame::{
        request::{ExecutionState, JobByName, JobVerb, JobView, SubmitMode},
        work::{Outcome, Verdict},
    },
    job::{JobSpec, RetryPolicy, ScheduleSpec},
    partition_of,
};

const START: u64 = START_SECS * SECOND;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        name: u8,
        when: (bool, u64),
        upsert: bool,
        revision: u64,
        key: Option<u8>,
        paused: bool,
        attempts_max: u16,
    },
    Command {
        name: u8,
        verb: JobVerb,
    },
    Cancel {
        name: u8,
        ahead: u64,
    },
    Complete {
        held: usize,
        outcome: Outcome,
        wrong_worker: bool,
    },
    Pass {
        micros: u64,
    },
    Attach {
        claims: u8,
    },
    Detach,
    Restart,
    Snapshot {
        partition: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..4_u8;
    let submit = (
        name.clone(),
        (any::<bool>(), 1..25_u64),
        any::<bool>(),
        prop_oneof![3 => Just(0), 1 => 1..3_u64],
        proptest::option::weighted(0.3, 0..3_u8),
        proptest::bool::weighted(0.2),
        1..4_u16,
    )
        .prop_map(|(name, when, upsert, revision, key, paused, attempts_max)| Step::Submit {
            name,
            when,
            upsert,
            revision,
            key,
            paused,
            attempts_max,
        });
    let verb = prop_oneof![
        2 => Just(JobVerb::Pause), 3 => Just(JobVerb::Resume), 3 => Just(JobVerb::Trigger), 1 => Just(JobVerb::Delete)
    ];
    let outcome = prop_oneof![
        4 => Just(Outcome::Succeeded),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::FailedForGood),
        1 => Just(Outcome::Cancelled)
    ];
    let time = prop_oneof![
        4 => 0..SECOND, 6 => SECOND..12 * SECOND, 1 => SECOND..120 * SECOND, 1 => Just(86_400 * SECOND)
    ];
    prop_oneof![
        4 => submit,
        4 => (name.clone(), verb).prop_map(|(name, verb)| Step::Command { name, verb }),
        1 => (name, 0..2_u64).prop_map(|(name, ahead)| Step::Cancel { name, ahead }),
        6 => (any::<usize>(), outcome, proptest::bool::weighted(0.1))
            .prop_map(|(held, outcome, wrong_worker)| Step::Complete { held, outcome, wrong_worker }),
        8 => time.prop_map(|micros| Step::Pass { micros }),
        3 => any::<u8>().prop_map(|claims| Step::Attach { claims }),
        1 => Just(Step::Detach),
        1 => Just(Step::Restart),
        1 => (0..2_u16).prop_map(|partition| Step::Snapshot { partition }),
    ]
}

/// A snapshot in progress.
struct Writing {
    id: PartitionId,
    digest: u64,
    reader: SnapshotReader,
}

struct History {
    world: World,
    model: Model,
    /// Attempts that the worker was sent, the newest last.
    held: Vec<Attempt>,
    session_number: u64,
    writing: Option<Writing>,
    snapshots_checked: usize,
    /// The highest token seen of each job.
    tokens: BTreeMap<JobId, u64>,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl History {
    fn new() -> Self {
        let mut history = Self {
            world: World::new(2),
            model: Model::new(START),
            held: Vec::new(),
            session_number: 1,
            writing: None,
            snapshots_checked: 0,
            tokens: BTreeMap::new(),
        };
        history.attach_stranger();
        history
    }

    /// A worker of another pool, so that it is known but never gets anything.
    fn attach_stranger(&mut self) {
        let identity = self.world.identity(Role::Worker, None, &["high"]);
        self.world.attach_as(&identity, 999, 99, 1);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Submit { name, when, upsert, revision, key, paused, attempts_max } => {
                self.submit(NAMES[usize::from(name)], when, upsert, revision, key, paused, attempts_max);
            }
            Step::Command { name, verb } => self.command(NAMES[usize::from(name)], verb),
            Step::Cancel { name, ahead } => self.cancel(NAMES[usize::from(name)], ahead),
            Step::Complete { held, outcome, wrong_worker } => self.complete(held, outcome, wrong_worker),
            Step::Pass { micros } => {
                // The wheel rounds up to its ticks; the model knows none.
                let micros = micros.next_multiple_of(TICK_MICROS);
                self.model.time += micros;
                self.world.pass(Duration::from_micros(micros));
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
        }
        self.model.settle();
        self.world.fire();
        self.compare();
        self.write_snapshot();
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one step")]
    fn submit(
        &mut self,
        name: &str,
        (periodic, value): (bool, u64),
        upsert: bool,
        revision: u64,
        key: Option<u8>,
        paused: bool,
        attempts_max: u16,
    ) {
        let (anchor, at) = (START + value * 16 * TICK_MICROS, self.model.time + value * SECOND - 5 * SECOND);
        let (when, schedule) = if periodic {
            let every = value * SECOND;
            let spec = ScheduleSpec::Interval { every_us: every, anchor: Timestamp::from_micros(anchor) };
            (When::Every { every, anchor }, spec)
        } else {
            (When::Once { at }, ScheduleSpec::Once { at: Timestamp::from_micros(at) })
        };
        let timeout = value * 2 * SECOND;
        let definition = Definition { when, paused, attempts_max, timeout };
        let retry = RetryPolicy { attempts_max, jitter_percent: 0, ..RetryPolicy::default() };
        let start_to_close_ms = u32::try_from(timeout / 1_000).unwrap();
        let spec = JobSpec { paused, retry, start_to_close_ms, ..JobSpec::new("acme", name, "run", schedule) };
        let mode = if upsert { SubmitMode::Upsert } else { SubmitMode::Create };
        let expected = self.model.submit(name, &definition, upsert, revision, key);
        let answer = self.world.submit_as(&spec, mode, revision, key.as_slice());
        match answer {
            Ok(submitted) => {
                assert_eq!(expected, Expected::Ok);
                let revision = self.model.submitted(name, &definition, key, submitted.job);
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
        assert_eq!([counters.skipped, counters.misfired], [expected.skipped, expected.misfired]);
        for name in NAMES {
            let shown = self.shown(name);
            assert_eq!(shown, self.model.jobs.get(name).map(expected_view), "{name}");
        }
    }

    fn shown(&mut self, name: &str) -> Option<(JobId, u64, bool, u64, u64, ExecutionState)> {
        let partition = partition_of("acme", name, self.world.config.partition_count);
        let answer = self.world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name });
        if answer[0].frame_type == FrameType::Refused {
            return None;
        }
        let view = JobView::decode_body(&answer[0].body).unwrap();
        let next = view.next_fire.as_micros();
        Some((view.job, view.revision, view.paused, next, view.fire_sequence.0, view.last_state))
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

fn expected_view(job: &Job) -> (JobId, u64, bool, u64, u64, ExecutionState) {
    let state = match &job.flight {
        Some(flight) if flight.running => ExecutionState::Running,
        Some(_) => ExecutionState::Retrying,
        None => job.last,
    };
    (job.id, job.revision, job.paused, job.next.unwrap_or(u64::MAX), job.sequence, state)
}

fn expected_of(code: RefusalCode) -> Expected {
    match code {
        RefusalCode::AlreadyExists => Expected::AlreadyExists,
        RefusalCode::RevisionConflict => Expected::RevisionConflict,
        RefusalCode::IdempotencyConflict => Expected::IdempotencyConflict,
        RefusalCode::UnknownJob => Expected::UnknownJob,
        RefusalCode::OverlapSkipped => Expected::OverlapSkipped,
        RefusalCode::UnknownExecution => Expected::UnknownExecution,
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_agrees_with_the_plain_model(steps in proptest::collection::vec(step(), 1..90)) {
        let mut history = History::new();
        history.attach(0);
        for step in &steps {
            history.take(step);
        }
        history.world.close(client());
    }
}
