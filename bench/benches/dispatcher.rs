//! Cost of one execution in the dispatcher: enqueue, next and assign, release. Run with
//! `cargo bench -p tickwheel-bench --bench dispatcher`.
//!
//! Each case holds a backlog, so that the queues are far beyond the caches, and moves as many executions in as out.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, time::Duration};
use tickwheel_engine::dispatcher::{Capacity, Class, Dispatcher, Limits, PoolId, PoolSet, ReadyKey, WorkerHandle};
use tickwheel_wire::{SessionId, SessionRef, ShardId, TenantId, job::Priority, mix64};

const WORKER_COUNT: u64 = 64;
const BATCH: u64 = 1_024;

struct Load {
    dispatcher: Dispatcher,
    running: Vec<WorkerHandle>,
    sequence: u64,
    tenant_count: u64,
    pool_count: u64,
}

impl Load {
    fn new(queued: u64, tenant_count: u64, pool_count: u64, shard_count: u16) -> Self {
        let mut dispatcher = Dispatcher::new(ShardId(0), shard_count, Limits::default());
        for worker in 0..WORKER_COUNT {
            let session = SessionRef { shard: ShardId(0), session: SessionId(worker) };
            let pools = PoolSet::from_iter([PoolId(u16::try_from(worker % pool_count).unwrap())]);
            let slots = u32::try_from(BATCH).unwrap();
            dispatcher.attach(session, pools, Capacity { concurrency: slots, prefetch: slots }).unwrap();
        }
        let running = Vec::with_capacity(usize::try_from(BATCH).unwrap());
        let mut load = Self { dispatcher, running, sequence: 0, tenant_count, pool_count };
        load.enqueue(queued);
        load
    }

    fn enqueue(&mut self, count: u64) {
        for _ in 0..count {
            self.sequence += 1;
            let random = mix64(self.sequence);
            let class = Class {
                pool: PoolId(u16::try_from(random % self.pool_count).unwrap()),
                priority: if random & 0x700 == 0 { Priority::P0 } else { Priority::P1 },
                tenant: TenantId(u32::try_from((random >> 16) % self.tenant_count).unwrap()),
            };
            self.dispatcher.enqueue(ReadyKey(self.sequence), class).unwrap();
        }
    }

    /// One turn of a shard under load: a batch falls due, as many are dispatched, as many end.
    fn turn(&mut self) {
        self.enqueue(BATCH);
        for _ in 0..BATCH {
            let (key, worker) = self.dispatcher.next().expect("there is a backlog and credit");
            black_box(key);
            self.dispatcher.assign(worker);
            self.running.push(worker);
        }
        black_box(self.dispatcher.settle(|_, _| true));
        for worker in self.running.drain(..) {
            self.dispatcher.release(worker);
        }
    }
}

fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatcher");
    group.throughput(Throughput::Elements(BATCH)).sample_size(20).measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_secs(1));
    for (name, queued, tenants, pools) in [
        ("one tenant, empty queue", 0, 1, 1),
        ("one tenant, 4 M queued", 4 << 20, 1, 1),
        ("1,000 tenants, 4 M queued", 4 << 20, 1_000, 1),
        ("100,000 tenants, 4 pools, 4 M queued", 4 << 20, 100_000, 4),
    ] {
        let mut load = Load::new(queued, tenants, pools, 4);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| load.turn()));
    }
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
