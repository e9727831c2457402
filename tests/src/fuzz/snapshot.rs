//! A partition's snapshot whose checksums are right, whatever it holds: a core takes it over and goes on, or there is an error.

use std::{sync::Arc, time::Duration};
use tickwheel_engine::{
    partition::{Partition, SnapshotError, SnapshotReader, SnapshotStep},
    shard::{Directory, Effects, Identity, Input, PartitionLimits, Pool, Role, Shard, ShardConfig, Tenant},
};
use tickwheel_wire::{
    InstanceId, Now, PartitionCount, PartitionId, Reader, SessionId, SessionRef, ShardId, Timestamp,
    frame::{
        Frame, FrameHeader, FrameType,
        request::{
            ExecutionSelection, ExpectedJob, JobCommand, JobSelection, JobVerb, JobView, ListExecutions, ListJobs,
            PageEnd,
        },
        work::{Attach, Complete, CompleteHead, Dispatch, DispatchHead, Outcome},
    },
    job::JobSpec,
};

const ID: PartitionId = PartitionId(0);
/// Shortly after the golden snapshot was taken.
const START_US: u64 = 1_800_000_066_000_000;
/// How far time goes before each firing: past time-outs, a worker's absence, retention, and every schedule.
const STEPS_S: [u64; 6] = [0, 1, 40, 3_700, 100_000, 40_000_000];
/// What counts up and has a bound: what begins there has passed it after a firing.
const BOUNDED: [&str; 5] = ["head.sequence", "head.counters", "jobs.fire_sequence", "jobs.token", "executions.attempt"];
/// Jobs that something is done with.
const JOBS_MAX: usize = 8;
const PAGES_MAX: usize = 20;

/// The chunks of a snapshot, each after its length as `u32`; the last may be cut.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX).min(behind.len());
        let (chunk, behind) = behind.split_at(length);
        rest = behind;
        Some(chunk)
    })
}

/// A snapshot as the golden ones are kept. If it can be read, the partition fires, runs and is listed, and is read again from its own
/// snapshot.
///
/// # Panics
/// If a partition differs from its snapshot.
pub fn snapshot(bytes: &[u8]) {
    let Ok(partition) = read(chunks(bytes), false) else { return };
    check(partition);
    let partition = read(chunks(bytes), false).expect("what was read once can be read again");
    let mut node = Node::new(partition);
    for step_s in STEPS_S {
        node.fire(step_s);
        node.list();
        node.work();
    }
    check(node.shard.release(ID));
}

/// Writes a partition and reads it again.
fn check(partition: Partition) {
    let expected = partition.digest();
    let written = write(partition);
    assert_eq!(written.digest, expected, "a snapshot describes its partition");
    match read(written.chunks.iter().map(Vec::as_slice), true) {
        Ok(restored) => assert_eq!(restored.digest(), expected, "a snapshot keeps all of the state"),
        Err(SnapshotError::Field { field, .. }) if BOUNDED.contains(&field) => {}
        Err(error) => panic!("a partition cannot read what it wrote: {error}"),
    }
}

fn read<'b>(chunks: impl Iterator<Item = &'b [u8]>, verify: bool) -> Result<Partition, SnapshotError> {
    let mut reader = SnapshotReader::new(ID, PartitionLimits::default());
    for chunk in chunks {
        reader.chunk(chunk)?;
    }
    reader.finish(verify)
}

struct Written {
    chunks: Vec<Vec<u8>>,
    digest: u64,
}

fn write(mut partition: Partition) -> Written {
    assert!(partition.begin_snapshot(), "no other is being written");
    let mut chunks = Vec::new();
    loop {
        let mut chunk = Vec::new();
        let step = partition.snapshot_step(&mut chunk);
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        if let SnapshotStep::Done { digest, .. } = step {
            return Written { chunks, digest };
        }
    }
}

/// A core with one partition, a worker, and an administrator.
struct Node {
    shard: Shard,
    effects: Effects,
    now: Now,
    admin: Identity,
    worker: Identity,
    /// Tenant and name of jobs that were listed.
    jobs: Vec<(String, String)>,
    running: Vec<DispatchHead>,
    cursor: u64,
}

impl Node {
    fn new(partition: Partition) -> Self {
        let tenants = ["default", "acme"].map(|name| Tenant { name: name.into(), weight: 1 });
        let directory = Directory::new(tenants.to_vec(), vec![Pool::shared("standard")]).expect("valid names");
        let directory = Arc::new(directory);
        let identify = |role, pools: &[&str]| directory.identify("fuzz", role, None, pools).expect("pools are known");
        let (admin, worker) = (identify(Role::Admin, &[]), identify(Role::Worker, &["standard"]));
        let count = PartitionCount::new(1).expect("a valid count");
        let config = ShardConfig::new(ShardId(0), 1, count, Arc::clone(&directory));
        let now = Now { wall: Timestamp::from_micros(START_US), monotonic: Duration::ZERO };
        let mut shard = Shard::new(config, now);
        shard.adopt(partition, now);
        let (effects, jobs, running) = (Effects::new(), Vec::new(), Vec::new());
        let mut node = Self { shard, effects, now, admin, worker, jobs, running, cursor: 0 };
        node.send(&Attach { request_id: 1, instance: InstanceId(5), capacity: 4, pools: "" });
        node
    }

    /// A frame of the worker, or of the administrator, by its type.
    fn send<'f, F: Frame<'f>>(&mut self, frame: &F) {
        let mut body = Vec::new();
        frame.encode_body(&mut body);
        let frame_type = F::TYPE.number();
        let is_work = matches!(F::TYPE, FrameType::Attach | FrameType::Complete);
        let identity = if is_work { &self.worker } else { &self.admin };
        let session = SessionRef { shard: ShardId(0), session: SessionId(1 + u64::from(is_work)) };
        let input = Input::Frame { session, identity, lane: 0, frame_type, body: &body };
        self.shard.handle(self.now, input, &mut self.effects);
        self.collect();
    }

    fn fire(&mut self, step_s: u64) {
        let step = Duration::from_secs(step_s);
        self.now = Now { wall: self.now.wall.saturating_add(step), monotonic: self.now.monotonic + step };
        for _ in 0..2 {
            self.shard.fire(self.now, &mut self.effects);
            self.collect();
        }
        let _ = self.shard.next_deadline();
    }

    /// Every page of jobs and of executions.
    fn list(&mut self) {
        self.jobs.clear();
        let (request_id, partition, limit) = (1, ID, 256);
        self.pages(|node, cursor| {
            let selection = JobSelection::default();
            node.send(&ListJobs { request_id, partition, tenant: "", prefix: "", cursor, limit, selection });
        });
        self.pages(|node, cursor| {
            let selection = ExecutionSelection::default();
            node.send(&ListExecutions { request_id, partition, tenant: "", name: "", cursor, limit, selection });
        });
    }

    fn pages(&mut self, ask: impl Fn(&mut Self, u64)) {
        self.cursor = 0;
        for _ in 0..PAGES_MAX {
            if self.cursor != PageEnd::LAST {
                ask(self, self.cursor);
            }
        }
    }

    /// Reports what runs and does something else with each job.
    fn work(&mut self) {
        for (number, head) in (0..).zip(std::mem::take(&mut self.running)) {
            let DispatchHead { job, fire_sequence, token, .. } = head;
            let outcome = if number % 2 == 0 { Outcome::Succeeded } else { Outcome::Failed };
            let head = CompleteHead { job, fire_sequence, token, run_us: 1, outcome, error_bytes: 0 };
            self.send(&Complete { head, error: "", output: b"output" });
        }
        let verbs = [JobVerb::Pause, JobVerb::Trigger, JobVerb::Resume, JobVerb::Delete];
        for ((tenant, name), verb) in std::mem::take(&mut self.jobs).iter().take(JOBS_MAX).zip(verbs.iter().cycle()) {
            let expected = ExpectedJob::default();
            self.send(&JobCommand { request_id: 1, partition: ID, verb: *verb, tenant, name, expected });
        }
    }

    fn collect(&mut self) {
        let mut input = Reader::new(self.effects.oldest().bytes());
        while !input.is_empty() {
            let header = FrameHeader::take(&mut input).expect("a core writes headers");
            let length = usize::try_from(header.body_bytes).expect("a bounded body");
            let body = input.take(length, "body").expect("a core writes whole frames");
            match FrameType::from_number(header.frame_type) {
                Some(FrameType::Dispatch) => {
                    self.running.push(Dispatch::decode_body(body).expect("a core writes dispatches").head);
                }
                Some(FrameType::JobView) => {
                    let view = JobView::decode_body(body).expect("a core writes views");
                    let spec = JobSpec::decode(view.spec).expect("a core writes definitions");
                    self.jobs.push((spec.tenant.to_owned(), spec.name.to_owned()));
                }
                Some(FrameType::PageEnd) => {
                    self.cursor = PageEnd::decode_body(body).expect("a core writes page ends").cursor;
                }
                _ => {}
            }
        }
        self.effects.clear();
    }
}
