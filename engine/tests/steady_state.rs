//! What executions and resident jobs cost: allocations counted, memory accounted. No time is measured here.

#![expect(unsafe_code, reason = "counting allocations needs a global allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
    time::Duration,
};
use tickwheel_engine::{
    partition::{Partition, SnapshotStep},
    shard::{Directory, Effects, Identity, Input, Pool, Role, Shard, ShardConfig, Tenant},
};
use tickwheel_wire::{
    InstanceId, Now, PartitionCount, PartitionId, Reader, SessionId, SessionRef, ShardId, Timestamp,
    frame::{
        Frame, FrameHeader, FrameType,
        request::{SubmitJob, SubmitMode},
        work::{Attach, Complete, CompleteHead, Dispatch, Outcome},
    },
    job::{JobSpec, ScheduleSpec},
    mix64, partition_of,
};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The counter is gone while its thread ends; those allocations are not counted.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const START_SECS: u64 = 1_800_000_000;
const PAYLOAD: [u8; 32] = [7; 32];

struct Node {
    shard: Shard,
    effects: Effects,
    now: Now,
    partition_count: PartitionCount,
    client: Identity,
    worker: Identity,
    reports: Vec<u8>,
}

fn session(number: u64) -> SessionRef {
    SessionRef { shard: ShardId(0), session: SessionId(number) }
}

impl Node {
    fn new(partition_count: u64) -> Self {
        let tenants = vec![Tenant { name: "default".into(), weight: 1 }];
        let directory = Arc::new(Directory::new(tenants, vec![Pool::shared("standard")]).unwrap());
        let client = directory.identify("client", Role::Client, Some("default"), &[]).unwrap();
        let worker = directory.identify("worker", Role::Worker, None, &["standard"]).unwrap();
        let partition_count = PartitionCount::new(partition_count).unwrap();
        let config = ShardConfig::new(ShardId(0), 1, partition_count, directory);
        let limits = config.partition;
        let now = Now { wall: Timestamp::from_secs(START_SECS), monotonic: Duration::ZERO };
        let mut shard = Shard::new(config, now);
        for id in (0..partition_count.count()).map(PartitionId) {
            shard.adopt(Partition::new(id, limits), now);
        }
        let (effects, reports) = (Effects::new(), Vec::new());
        Self { shard, effects, now, partition_count, client, worker, reports }
    }

    fn frame<'f>(&mut self, from: SessionRef, worker: bool, frame: &impl Frame<'f>, frame_type: FrameType) {
        let mut body = Vec::new();
        frame.encode_body(&mut body);
        let identity = if worker { &self.worker } else { &self.client };
        let input = Input::Frame { session: from, identity, lane: 0, frame_type: frame_type.number(), body: &body };
        self.shard.handle(self.now, input, &mut self.effects);
    }

    /// Creates a job with a name of 24 bytes and a payload of 32.
    fn create(&mut self, number: u64, schedule: ScheduleSpec<'_>) {
        let name = format!("job-{:020}", mix64(number));
        let spec = JobSpec { payload: &PAYLOAD, ..JobSpec::new("default", &name, "run", schedule) };
        let mut bytes = Vec::new();
        spec.encode(&mut bytes);
        let submit = SubmitJob {
            request_id: number,
            partition: partition_of("default", &name, self.partition_count),
            mode: SubmitMode::Create,
            expected_revision: 0,
            idempotency_key: &[],
            idempotency_window_ms: 0,
            spec: &bytes,
        };
        self.frame(session(1), false, &submit, FrameType::SubmitJob);
        self.effects.clear();
    }

    fn attach(&mut self, capacity: u32) {
        let attach = Attach { request_id: 1, instance: InstanceId(5), capacity, pools: "" };
        self.frame(session(2), true, &attach, FrameType::Attach);
        self.effects.clear();
    }

    /// Lets a millisecond pass, and reports success for every attempt that the worker gets. How many those were.
    fn turn(&mut self) -> u64 {
        self.now.wall = self.now.wall.saturating_add(Duration::from_millis(1));
        self.now.monotonic += Duration::from_millis(1);
        self.shard.fire(self.now, &mut self.effects);
        self.reports.clear();
        for output in self.effects.oldest().outputs() {
            let mut input = Reader::new(&self.effects.oldest().bytes()[output.range.clone()]);
            while !input.is_empty() {
                let header = FrameHeader::take(&mut input).unwrap();
                let body = input.take(header.body_bytes as usize, "body").unwrap();
                if header.frame_type == FrameType::Dispatch.number() {
                    report(&Dispatch::decode_body(body).unwrap(), &mut self.reports);
                }
            }
        }
        self.effects.clear();
        let mut count = 0;
        for body in self.reports.chunks(CompleteHead::BYTES) {
            let frame_type = FrameType::Complete.number();
            let input = Input::Frame { session: session(2), identity: &self.worker, lane: 2, frame_type, body };
            self.shard.handle(self.now, input, &mut self.effects);
            count += 1;
        }
        count
    }
}

fn report(dispatch: &Dispatch<'_>, out: &mut Vec<u8>) {
    let head = CompleteHead {
        job: dispatch.head.job,
        fire_sequence: dispatch.head.fire_sequence,
        token: dispatch.head.token,
        run_us: 3,
        outcome: Outcome::Succeeded,
        error_bytes: 0,
    };
    Complete { head, error: "", output: &[] }.encode_body(out);
}

#[test]
fn an_execution_allocates_nothing_in_the_steady_state() {
    let mut node = Node::new(4);
    for number in 0..4_000 {
        let anchor = Timestamp::from_micros(START_SECS * 1_000_000 + mix64(number) % 1_000_000);
        node.create(number, ScheduleSpec::Interval { every_us: 1_000_000, anchor });
    }
    node.attach(10_000);
    let warm_up: u64 = (0..6_000).map(|_| node.turn()).sum();
    assert!(warm_up > 16_000, "{warm_up} executions");
    let before = ALLOCATIONS.get();
    let executions: u64 = (0..5_000).map(|_| node.turn()).sum();
    let allocations = ALLOCATIONS.get() - before;
    assert!(executions > 16_000, "{executions} executions");
    assert_eq!(allocations, 0, "in {executions} executions");
}

#[test]
fn a_snapshot_allocates_by_the_chunk_and_not_by_the_job() {
    let (jobs, partition) = (40_000, PartitionId(0));
    let mut node = Node::new(1);
    (0..jobs).for_each(|number| node.create(number, ScheduleSpec::Cron { expression: "0 3 * * *", zone: "UTC" }));
    let (mut chunks, mut out) = (0, Vec::with_capacity(4 << 20));
    let before = ALLOCATIONS.get();
    assert!(node.shard.begin_snapshot(partition));
    loop {
        out.clear();
        match node.shard.snapshot_step(partition, &mut out).unwrap() {
            SnapshotStep::Chunk => chunks += 1,
            SnapshotStep::Working => {}
            SnapshotStep::Done { .. } => break,
        }
    }
    let allocations = ALLOCATIONS.get() - before;
    assert!(chunks > 10, "{chunks} chunks");
    assert!(allocations < 64 * chunks, "{allocations} in {chunks} chunks");
}

/// Bytes per job between 200,000 and 1,000,000 jobs.
fn marginal_bytes(schedule: impl Fn(u64) -> ScheduleSpec<'static>) -> usize {
    let mut node = Node::new(4);
    let (few, many) = (200_000, 1_000_000);
    (0..few).for_each(|number| node.create(number, schedule(number)));
    let few_bytes = node.shard.memory_bytes();
    (few..many).for_each(|number| node.create(number, schedule(number)));
    let jobs: u32 = node.shard.partitions().map(Partition::job_count).sum();
    assert_eq!(u64::from(jobs), many);
    (node.shard.memory_bytes() - few_bytes) / usize::try_from(many - few).unwrap()
}

#[test]
fn a_resident_cron_job_costs_at_most_150_bytes() {
    let expressions = ["0 3 * * *", "*/5 * * * *", "17 4 * * 1", "30 6 1 * *"];
    let bytes = marginal_bytes(|number| {
        let expression = expressions[usize::try_from(number % 4).unwrap()];
        ScheduleSpec::Cron { expression, zone: "Europe/Berlin" }
    });
    assert!(bytes <= 150, "{bytes} bytes per job");
}

#[test]
fn a_resident_job_with_a_time_of_its_own_costs_at_most_155_bytes() {
    let bytes = marginal_bytes(|number| {
        let offset = mix64(number) % (365 * 86_400_000_000);
        ScheduleSpec::Once { at: Timestamp::from_micros(START_SECS * 1_000_000 + 1_000_000 + offset) }
    });
    assert!(bytes <= 155, "{bytes} bytes per job");
}
