//! One execution's way through the core: fired by the wheel, dispatched, completed; frames, events and the wheel's re-arming included,
//! sockets and log not. With random phases: jobs that fall due in memory order flatter the result.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tickwheel_engine::{
    partition::Partition,
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

const START_SECS: u64 = 1_800_000_000;
const EVERY_SECS: u64 = 10;
const PARTITIONS: u64 = 128;

struct Node {
    shard: Shard,
    effects: Effects,
    now: Now,
    identity: Identity,
    reports: Vec<u8>,
    event_bytes: usize,
}

fn session(number: u64) -> SessionRef {
    SessionRef { shard: ShardId(0), session: SessionId(number) }
}

impl Node {
    /// A node with `jobs` jobs, each every ten seconds, of random phase.
    fn new(jobs: u64) -> Self {
        let tenants = vec![Tenant { name: "default".into(), weight: 1 }];
        let directory = Arc::new(Directory::new(tenants, vec![Pool::shared("standard")]).unwrap());
        let client = directory.identify("client", Role::Client, Some("default"), &[]).unwrap();
        let identity = directory.identify("worker", Role::Worker, None, &["standard"]).unwrap();
        let count = PartitionCount::new(PARTITIONS).unwrap();
        let config = ShardConfig::new(ShardId(0), 1, count, directory);
        let limits = config.partition;
        let now = Now { wall: Timestamp::from_secs(START_SECS), monotonic: Duration::ZERO };
        let mut shard = Shard::new(config, now);
        for id in (0..count.count()).map(PartitionId) {
            shard.adopt(Partition::new(id, limits), now);
        }
        let mut node = Self { shard, effects: Effects::new(), now, identity, reports: Vec::new(), event_bytes: 0 };
        for number in 0..jobs {
            node.create(number, &client, count);
        }
        let attach = Attach { request_id: 1, instance: InstanceId(5), capacity: 1 << 20, pools: "" };
        let identity = node.identity.clone();
        node.handle(session(2), &identity, &attach);
        node.effects.clear();
        node
    }

    fn create(&mut self, number: u64, client: &Identity, count: PartitionCount) {
        let name = format!("job-{:020}", mix64(number));
        let phase = mix64(number ^ 0xABCD) % (EVERY_SECS * 1_000_000);
        let anchor = Timestamp::from_micros(START_SECS * 1_000_000 + phase);
        let schedule = ScheduleSpec::Interval { every_us: EVERY_SECS * 1_000_000, anchor };
        let spec = JobSpec { payload: &[7; 32], ..JobSpec::new("default", &name, "run", schedule) };
        let mut bytes = Vec::new();
        spec.encode(&mut bytes);
        let submit = SubmitJob {
            request_id: number,
            partition: partition_of("default", &name, count),
            mode: SubmitMode::Create,
            expected_revision: 0,
            idempotency_key: &[],
            idempotency_window_ms: 0,
            spec: &bytes,
        };
        self.handle(session(1), client, &submit);
        self.effects.clear();
    }

    fn handle<'f, F: Frame<'f>>(&mut self, from: SessionRef, identity: &Identity, frame: &F) {
        let mut body = Vec::new();
        frame.encode_body(&mut body);
        let input = Input::Frame { session: from, identity, lane: 0, frame_type: F::TYPE.number(), body: &body };
        self.shard.handle(self.now, input, &mut self.effects);
    }

    /// One turn, `step` after the last, and the reports on what it dispatched. How many executions, and the time in the core.
    fn turn(&mut self, step: Duration) -> (u64, Duration) {
        self.now.wall = self.now.wall.saturating_add(step);
        self.now.monotonic += step;
        let began = Instant::now();
        self.shard.fire(self.now, &mut self.effects);
        let mut in_core = began.elapsed();
        self.collect_reports();
        let began = Instant::now();
        let mut count = 0;
        let frame_type = FrameType::Complete.number();
        for body in self.reports.chunks(CompleteHead::BYTES) {
            let input = Input::Frame { session: session(2), identity: &self.identity, lane: 2, frame_type, body };
            self.shard.handle(self.now, input, &mut self.effects);
            count += 1;
        }
        in_core += began.elapsed();
        (count, in_core)
    }

    fn collect_reports(&mut self) {
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
        self.event_bytes += self.effects.event_bytes();
        self.effects.clear();
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

fn executions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("execution");
    for jobs in [10_000_u64, 100_000, 1_000_000] {
        let mut node = Node::new(jobs);
        // About 256 executions per turn, as on a busy shard.
        let step = Duration::from_micros(EVERY_SECS * 1_000_000 * 256 / jobs);
        group.bench_function(BenchmarkId::new("fire_dispatch_complete", jobs), |bencher| {
            bencher.iter_custom(|wanted| {
                let (mut done, mut time) = (0, Duration::ZERO);
                while done < wanted {
                    let (count, in_core) = node.turn(step);
                    done += count;
                    time += in_core;
                }
                time.mul_f64(wanted as f64 / done as f64)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, executions);
criterion_main!(benches);
