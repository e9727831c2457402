//! A shard core with a clock that the test sets, a log that keeps every section, and sessions whose frames are decoded.
//!
//! After every step a replica of each partition, which knows the log alone, is compared by digest.

use super::{super::*, model::RETRY_AFTER};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tickwheel_wire::{
    FireSequence, InstanceId, PartitionCount, Reader, SessionId,
    frame::{
        FrameHeader,
        request::{CancelExecution, Done, ExpectedJob, JobCommand, JobVerb, SubmitJob, SubmitMode, Submitted},
        work::{
            Attach, CancelAttempt, Complete, CompleteHead, Completed, Dispatch, Outcome, Reattach, Reattached, Verdict,
        },
    },
    job::{JobSpec, ScheduleSpec},
    partition_of,
};

/// A frame that the core sent.
#[derive(Clone, Debug)]
pub struct Received {
    pub session: SessionRef,
    pub lane: u8,
    pub frame_type: FrameType,
    pub body: Vec<u8>,
}

/// An attempt as its worker got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub session: SessionRef,
    pub job: JobId,
    pub fire_sequence: FireSequence,
    pub token: Token,
    pub attempt: u16,
    pub scheduled_at: Timestamp,
    pub name: String,
    pub payload: Vec<u8>,
}

/// A request's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub code: RefusalCode,
    pub detail: u64,
    pub field: String,
}

/// A batch is closed so soon that most histories have some of more than one.
const BATCH_BYTES: usize = 120;

pub struct World {
    pub shard: Shard,
    pub effects: Effects,
    pub now: Now,
    pub config: ShardConfig,
    pub log: Vec<(PartitionId, u64, u32, Vec<u8>)>,
    replicas: BTreeMap<PartitionId, Partition>,
    pub inbox: Vec<Received>,
    request_id: u64,
}

pub const START_SECS: u64 = 1_800_000_000;

pub fn secs(value: u64) -> Timestamp {
    Timestamp::from_secs(START_SECS + value)
}

/// A job of tenant `acme` that fires every `every_secs` from the start on.
pub fn every(name: &str, every_secs: u64) -> JobSpec<'_> {
    let schedule = ScheduleSpec::Interval { every_us: every_secs * 1_000_000, anchor: secs(0) };
    JobSpec::new("acme", name, "run", schedule)
}

/// A job of tenant `acme` that fires once, at `at_secs` after the start.
pub fn once(name: &str, at_secs: u64) -> JobSpec<'_> {
    JobSpec::new("acme", name, "run", ScheduleSpec::Once { at: secs(at_secs) })
}

pub fn session(number: u64) -> SessionRef {
    SessionRef { shard: ShardId(0), session: SessionId(number) }
}

/// The client's session.
pub fn client() -> SessionRef {
    session(1_000_000)
}

impl World {
    pub fn new(partition_count: u64) -> Self {
        Self::with(partition_count, |_| {})
    }

    pub fn with(partition_count: u64, change: impl FnOnce(&mut ShardConfig)) -> Self {
        Self::starting(secs(0), partition_count, change)
    }

    /// A world whose clock stands at `start`.
    pub fn starting(start: Timestamp, partition_count: u64, change: impl FnOnce(&mut ShardConfig)) -> Self {
        let tenants = ["acme", "globex"].map(|name| Tenant { name: name.into(), weight: 1 }).into();
        let pools = vec![
            Pool::shared("standard"),
            Pool::shared("high"),
            Pool { name: "globex-only".into(), tenant: Some(tickwheel_wire::TenantId(1)) },
        ];
        let directory = Arc::new(Directory::new(tenants, pools).unwrap());
        let count = PartitionCount::new(partition_count).unwrap();
        let mut config = ShardConfig::new(ShardId(0), 1, count, directory);
        change(&mut config);
        let now = Now { wall: start, monotonic: Duration::from_secs(7) };
        let mut shard = Shard::new(config.clone(), now);
        let mut replicas = BTreeMap::new();
        for id in (0..count.count()).map(PartitionId) {
            shard.adopt(Partition::new(id, config.partition), now);
            replicas.insert(id, Partition::new(id, config.partition));
        }
        let effects = Effects::split_at(BATCH_BYTES);
        Self { shard, effects, now, config, log: Vec::new(), replicas, inbox: Vec::new(), request_id: 0 }
    }

    pub fn identity(&self, role: Role, tenant: Option<&str>, pools: &[&str]) -> Identity {
        self.config.directory.identify("someone", role, tenant, pools).unwrap()
    }

    pub fn send<'f>(&mut self, from: SessionRef, identity: &Identity, frame: &impl SentFrame<'f>) {
        let (frame_type, body) = frame.parts();
        self.send_raw(from, identity, frame_type.number(), &body);
    }

    pub fn send_raw(&mut self, from: SessionRef, identity: &Identity, frame_type: u16, body: &[u8]) {
        let input = Input::Frame { session: from, identity, lane: 0, frame_type, body };
        self.shard.handle(self.now, input, &mut self.effects);
        self.harvest();
    }

    pub fn close(&mut self, session: SessionRef) {
        self.shard.handle(self.now, Input::SessionClosed { session }, &mut self.effects);
        self.harvest();
    }

    /// Fires until nothing is left to do at this moment.
    pub fn fire(&mut self) {
        for _ in 0..10_000 {
            self.shard.fire(self.now, &mut self.effects);
            self.harvest();
            if !self.shard.has_work() {
                return;
            }
        }
        panic!("the core never comes to rest");
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.wall = self.now.wall.saturating_add(time);
        self.now.monotonic += time;
        self.fire();
    }

    /// Lets time pass as the core asks for it: from deadline to deadline.
    pub fn pass_by_deadlines(&mut self, time: Duration) {
        let end = self.now.wall.saturating_add(time);
        for _ in 0..1_000_000 {
            let next = self.shard.next_deadline().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.pass(next.saturating_since(self.now.wall));
        }
        self.pass(end.saturating_since(self.now.wall));
    }

    fn harvest(&mut self) {
        for batch in self.effects.batches() {
            for section in batch.sections() {
                let Section { partition, first_sequence, event_count, bytes } = section;
                let replica = self.replicas.get_mut(&partition).unwrap();
                assert_eq!(replica.sequence() + 1, first_sequence, "sections follow each other");
                replica.apply_section(first_sequence, event_count, bytes).unwrap();
                self.log.push((partition, first_sequence, event_count, bytes.to_vec()));
            }
            for output in batch.outputs() {
                let mut input = Reader::new(&batch.bytes()[output.range.clone()]);
                while !input.is_empty() {
                    let header = FrameHeader::take(&mut input).unwrap();
                    let body = input.take(header.body_bytes as usize, "body").unwrap().to_vec();
                    let frame_type = FrameType::from_number(header.frame_type).unwrap();
                    self.inbox.push(Received { session: output.session, lane: output.lane, frame_type, body });
                }
            }
        }
        let sections = self.effects.batches().flat_map(Batch::sections);
        for id in sections.map(|section| section.partition).collect::<BTreeSet<_>>() {
            assert_eq!(self.replicas[&id].digest(), self.shard.partition(id).unwrap().digest());
        }
        self.effects.clear();
    }

    /// Stops the core and starts another from the log; all sessions are gone.
    pub fn restart(&mut self) {
        self.inbox.clear();
        let mut shard = Shard::new(self.config.clone(), self.now);
        for id in (0..self.config.partition_count.count()).map(PartitionId) {
            let mut partition = Partition::new(id, self.config.partition);
            for (of, first_sequence, event_count, bytes) in &self.log {
                if *of == id {
                    partition.apply_section(*first_sequence, *event_count, bytes).unwrap();
                }
            }
            assert_eq!(partition.digest(), self.shard.partition(id).unwrap().digest());
            shard.adopt(partition, self.now);
        }
        self.shard = shard;
        self.fire();
    }

    /// Takes the frames of one type out of the inbox.
    pub fn take(&mut self, frame_type: FrameType) -> Vec<Received> {
        self.inbox.extract_if(.., |received| received.frame_type == frame_type).collect()
    }

    /// The attempts that workers got.
    pub fn attempts(&mut self) -> Vec<Attempt> {
        let received = self.take(FrameType::Dispatch);
        let attempts = received.iter().map(|received| {
            let Dispatch { head, name, payload, .. } = Dispatch::decode_body(&received.body).unwrap();
            Attempt {
                session: received.session,
                job: head.job,
                fire_sequence: head.fire_sequence,
                token: head.token,
                attempt: head.attempt,
                scheduled_at: head.scheduled_at,
                name: name.to_owned(),
                payload: payload.to_vec(),
            }
        });
        attempts.collect()
    }

    /// The only attempt that a worker got.
    pub fn attempt(&mut self) -> Attempt {
        let mut attempts = self.attempts();
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        attempts.remove(0)
    }

    pub fn cancels(&mut self) -> Vec<CancelAttempt> {
        let received = self.take(FrameType::CancelAttempt);
        received.iter().map(|received| CancelAttempt::decode_body(&received.body).unwrap()).collect()
    }

    /// The answer to the newest request.
    fn answer(&mut self) -> Received {
        let place = self.inbox.iter().rposition(|received| {
            let named = !matches!(received.frame_type, FrameType::Dispatch | FrameType::CancelAttempt);
            named && received.body.starts_with(&self.request_id.to_le_bytes())
        });
        self.inbox.remove(place.expect("every request is answered"))
    }

    fn denied(received: &Received) -> Denied {
        assert_eq!(received.frame_type, FrameType::Refused);
        let refused = Refused::decode_body(&received.body).unwrap();
        Denied { code: refused.code, detail: refused.detail, field: refused.field.to_owned() }
    }

    pub fn submit_as(
        &mut self,
        spec: &JobSpec<'_>,
        mode: SubmitMode,
        expected_revision: u64,
        idempotency_key: &[u8],
    ) -> Result<Submitted, Denied> {
        self.request_id += 1;
        let mut bytes = Vec::new();
        spec.encode(&mut bytes);
        let frame = SubmitJob {
            request_id: self.request_id,
            partition: partition_of(spec.tenant, spec.name, self.config.partition_count),
            mode,
            expected_revision,
            idempotency_key,
            idempotency_window_ms: 0,
            spec: &bytes,
        };
        let identity = self.identity(Role::Client, Some(spec.tenant), &[]);
        self.send(client(), &identity, &frame);
        let answer = self.answer();
        if answer.frame_type == FrameType::Submitted {
            Ok(Submitted::decode_body(&answer.body).unwrap())
        } else {
            Err(Self::denied(&answer))
        }
    }

    pub fn create(&mut self, spec: &JobSpec<'_>) -> Submitted {
        self.submit_as(spec, SubmitMode::Create, 0, &[]).unwrap()
    }

    /// Creates many jobs, of which only the last state is compared with the log's.
    pub fn create_all<'a>(&mut self, specs: impl IntoIterator<Item = JobSpec<'a>>) {
        let identity = self.identity(Role::Client, Some("acme"), &[]);
        let mut count = 0;
        for spec in specs {
            let mut bytes = Vec::new();
            spec.encode(&mut bytes);
            let frame = SubmitJob {
                request_id: 0,
                partition: partition_of(spec.tenant, spec.name, self.config.partition_count),
                mode: SubmitMode::Create,
                expected_revision: 0,
                idempotency_key: &[],
                idempotency_window_ms: 0,
                spec: &bytes,
            };
            let (frame_type, body) = frame.parts();
            let frame_type = frame_type.number();
            let input = Input::Frame { session: client(), identity: &identity, lane: 0, frame_type, body: &body };
            self.shard.handle(self.now, input, &mut self.effects);
            count += 1;
        }
        self.harvest();
        assert_eq!(self.take(FrameType::Submitted).len(), count);
    }

    pub fn command(&mut self, verb: JobVerb, name: &str) -> Result<Done, Denied> {
        self.command_expecting(verb, name, ExpectedJob::default())
    }

    /// A command on a job that has to be the expected one.
    pub fn command_expecting(&mut self, verb: JobVerb, name: &str, expected: ExpectedJob) -> Result<Done, Denied> {
        self.request_id += 1;
        let partition = partition_of("acme", name, self.config.partition_count);
        let frame = JobCommand { request_id: self.request_id, partition, verb, tenant: "acme", name, expected };
        let identity = self.identity(Role::Client, Some("acme"), &[]);
        self.send(client(), &identity, &frame);
        self.done()
    }

    pub fn cancel(&mut self, job: JobId, fire_sequence: u64) -> Result<Done, Denied> {
        self.request_id += 1;
        let (request_id, partition) = (self.request_id, job.partition());
        let frame = CancelExecution { request_id, partition, job, fire_sequence: FireSequence(fire_sequence) };
        let identity = self.identity(Role::Client, Some("acme"), &[]);
        self.send(client(), &identity, &frame);
        self.done()
    }

    fn done(&mut self) -> Result<Done, Denied> {
        let answer = self.answer();
        if answer.frame_type == FrameType::Done {
            Ok(Done::decode_body(&answer.body).unwrap())
        } else {
            Err(Self::denied(&answer))
        }
    }

    /// Sends a request of any kind as a client and returns the frame that answers it.
    pub fn change<'f, F: SentFrame<'f>>(&mut self, build: impl FnOnce(u64) -> F) -> Result<Received, Denied> {
        self.request_id += 1;
        let frame = build(self.request_id);
        let identity = self.identity(Role::Client, Some("acme"), &[]);
        self.send(client(), &identity, &frame);
        let answer = self.answer();
        if answer.frame_type == FrameType::Refused { Err(Self::denied(&answer)) } else { Ok(answer) }
    }

    /// Sends a request as an admin and returns the frames that answer it.
    pub fn ask<'f, F: SentFrame<'f>>(&mut self, build: impl FnOnce(u64) -> F) -> Vec<Received> {
        self.request_id += 1;
        let frame = build(self.request_id);
        let identity = self.identity(Role::Admin, None, &[]);
        self.send(client(), &identity, &frame);
        let id = self.request_id.to_le_bytes();
        self.inbox.extract_if(.., |received| received.session == client() && received.body.starts_with(&id)).collect()
    }

    pub fn worker_identity(&self) -> Identity {
        self.identity(Role::Worker, None, &["standard", "high"])
    }

    /// Attaches worker instance `instance` over session `number`.
    pub fn attach(&mut self, number: u64, instance: u128, capacity: u32) {
        let identity = self.worker_identity();
        self.attach_as(&identity, number, instance, capacity);
    }

    pub fn attach_as(&mut self, identity: &Identity, number: u64, instance: u128, capacity: u32) {
        let frame = Attach { request_id: u64::MAX, instance: InstanceId(instance), capacity, pools: "" };
        self.send(session(number), identity, &frame);
        assert_eq!(self.take(FrameType::Attached).len(), 1, "{:?}", self.inbox);
        self.fire();
    }

    pub fn complete_with(&mut self, attempt: &Attempt, from: SessionRef, outcome: Outcome, error: &str) -> Verdict {
        let head = CompleteHead {
            job: attempt.job,
            fire_sequence: attempt.fire_sequence,
            token: attempt.token,
            run_us: 5,
            outcome,
            error_bytes: u8::try_from(error.len()).unwrap(),
        };
        let identity = self.worker_identity();
        let delay = u32::try_from(RETRY_AFTER / 1_000).expect("short").to_le_bytes();
        let output = if outcome == Outcome::FailedForNow { &delay[..] } else { b"out" };
        self.send(from, &identity, &Complete { head, error, output });
        let received = self.take(FrameType::Completed).pop().expect("every report is answered");
        let verdict = Completed::decode_body(&received.body).unwrap().verdict;
        self.fire();
        verdict
    }

    pub fn succeed(&mut self, attempt: &Attempt) -> Verdict {
        self.complete_with(attempt, attempt.session, Outcome::Succeeded, "")
    }

    pub fn fail(&mut self, attempt: &Attempt) -> Verdict {
        self.complete_with(attempt, attempt.session, Outcome::Failed, "Oops")
    }

    pub fn reattach(&mut self, attempt: &Attempt, from: SessionRef) -> Verdict {
        let identity = self.worker_identity();
        let Attempt { job, fire_sequence, token, .. } = *attempt;
        self.send(from, &identity, &Reattach { job, fire_sequence, token });
        let received = self.take(FrameType::Reattached).pop().expect("every claim is answered");
        Reattached::decode_body(&received.body).unwrap().verdict
    }

    pub fn counters(&self) -> crate::partition::Counters {
        let mut sum = crate::partition::Counters::default();
        for partition in self.shard.partitions() {
            let counters = partition.counters();
            sum.fired += counters.fired;
            sum.succeeded += counters.succeeded;
            sum.failed_attempts += counters.failed_attempts;
            sum.cancelled += counters.cancelled;
            sum.dead += counters.dead;
            sum.skipped += counters.skipped;
            sum.misfired += counters.misfired;
            sum.triggered += counters.triggered;
            sum.too_late += counters.too_late;
        }
        sum
    }
}

/// A frame as type and body.
pub trait SentFrame<'f> {
    fn parts(&self) -> (FrameType, Vec<u8>);
}

impl<'f, F: Frame<'f>> SentFrame<'f> for F {
    fn parts(&self) -> (FrameType, Vec<u8>) {
        let mut body = Vec::new();
        self.encode_body(&mut body);
        (F::TYPE, body)
    }
}
