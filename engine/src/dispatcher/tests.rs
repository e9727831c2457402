//! What the dispatcher promises, alone and among siblings.

use super::{model::*, *};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tickwheel_wire::SessionId;

const fn class(pool: u16, priority: Priority, tenant: u32) -> Class {
    Class { pool: PoolId(pool), priority, tenant: TenantId(tenant) }
}

fn session(number: u64) -> SessionRef {
    SessionRef { shard: ShardId(0), session: SessionId(number) }
}

const fn capacity(concurrency: u32, prefetch: u32) -> Capacity {
    Capacity { concurrency, prefetch }
}

fn pools(numbers: &[u16]) -> PoolSet {
    numbers.iter().copied().map(PoolId).collect()
}

fn alone() -> Dispatcher {
    Dispatcher::new(ShardId(0), 1, Limits::default())
}

/// Dispatches until nothing can be; what, and to whom.
fn drain(dispatcher: &mut Dispatcher) -> Vec<(u64, WorkerHandle)> {
    let mut out = Vec::new();
    while let Some((key, worker)) = dispatcher.next() {
        dispatcher.assign(worker);
        out.push((key.0, worker));
    }
    out
}

fn drain_keys(dispatcher: &mut Dispatcher) -> Vec<u64> {
    drain(dispatcher).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn higher_priority_always_goes_first() {
    let mut dispatcher = alone();
    for key in 0..30 {
        let priority = [Priority::P2, Priority::P0, Priority::P1][usize::try_from(key % 3).unwrap()];
        dispatcher.enqueue(ReadyKey(key), class(0, priority, 0)).unwrap();
    }
    dispatcher.attach(session(1), pools(&[0]), capacity(30, 0)).unwrap();
    let expected: Vec<u64> = [1, 2, 0].iter().flat_map(|first| (0..10).map(move |n| first + 3 * n)).collect();
    assert_eq!(drain_keys(&mut dispatcher), expected);
}

#[test]
fn tenant_with_a_million_queued_delays_another_by_one_round() {
    let mut dispatcher = alone();
    let worker = dispatcher.attach(session(1), pools(&[0]), capacity(1, 0)).unwrap();
    for key in 0..if cfg!(miri) { 100 } else { 1_000_000 } {
        dispatcher.enqueue(ReadyKey(key), class(0, Priority::P1, 7)).unwrap();
    }
    dispatcher.set_weight(TenantId(7), 5).unwrap();
    for tenant in 8..12 {
        dispatcher
            .enqueue(ReadyKey(2_000_000 + tenant), class(0, Priority::P1, u32::try_from(tenant).unwrap()))
            .unwrap();
    }
    let mut order = Vec::new();
    for _ in 0..20 {
        order.extend(drain_keys(&mut dispatcher));
        dispatcher.release(worker);
    }
    let small: Vec<usize> = (0..order.len()).filter(|place| order[*place] >= 2_000_000).collect();
    assert_eq!(small, [1, 2, 3, 4], "one visit of the big tenant, then each small one");
}

#[test]
fn weights_share_a_level_in_proportion() {
    const TURNS: usize = if cfg!(miri) { 10 } else { 100 };
    let mut dispatcher = alone();
    let worker = dispatcher.attach(session(1), pools(&[0]), capacity(1, 0)).unwrap();
    for tenant in 0..3_u32 {
        dispatcher.set_weight(TenantId(tenant), u16::try_from(tenant).unwrap() + 1).unwrap();
        for _ in 0..10 * TURNS {
            dispatcher.enqueue(ReadyKey(tenant.into()), class(0, Priority::P1, tenant)).unwrap();
        }
    }
    let mut counts = [0; 3];
    for _ in 0..6 * TURNS {
        let key = drain_keys(&mut dispatcher)[0];
        counts[usize::try_from(key).unwrap()] += 1;
        dispatcher.release(worker);
    }
    assert_eq!(counts, [TURNS, 2 * TURNS, 3 * TURNS]);
}

#[test]
fn stale_key_costs_neither_slot_nor_turn() {
    let mut dispatcher = alone();
    dispatcher.attach(session(1), pools(&[0]), capacity(2, 0)).unwrap();
    for key in [10, 11, 12] {
        dispatcher.enqueue(ReadyKey(key), class(0, Priority::P1, 1)).unwrap();
    }
    dispatcher.enqueue(ReadyKey(20), class(0, Priority::P1, 2)).unwrap();
    assert_eq!(dispatcher.next().unwrap().0, ReadyKey(10), "stale: not assigned");
    assert_eq!(dispatcher.next().unwrap().0, ReadyKey(11), "stale: not assigned");
    assert_eq!(drain_keys(&mut dispatcher), [12, 20]);
    assert_eq!(dispatcher.queued_total(), 0);
}

#[test]
fn workers_of_a_pool_take_turns_and_prefetch_comes_last() {
    let mut dispatcher = alone();
    let workers: Vec<WorkerHandle> =
        (0..3).map(|n| dispatcher.attach(session(n), pools(&[0]), capacity(2, 2)).unwrap()).collect();
    for key in 0..20 {
        dispatcher.enqueue(ReadyKey(key), class(0, Priority::P1, 0)).unwrap();
    }
    let taken: Vec<WorkerHandle> = drain(&mut dispatcher).into_iter().map(|(_, worker)| worker).collect();
    assert_eq!(taken.len(), 12);
    for round in taken.chunks(3) {
        assert!(workers.iter().all(|worker| round.contains(worker)), "each worker once per round: {round:?}");
    }
    // One that can run at once goes before one that would only hold it ready, whoever is first in the ring.
    for _ in 0..3 {
        dispatcher.release(workers[2]);
    }
    dispatcher.release(workers[0]);
    let taken: Vec<WorkerHandle> = drain(&mut dispatcher).into_iter().map(|(_, worker)| worker).collect();
    assert_eq!(taken[0], workers[2]);
    assert_eq!(taken.len(), 4);
}

#[test]
fn pools_with_work_and_slots_take_turns() {
    let mut dispatcher = alone();
    dispatcher.attach(session(1), pools(&[1, 2, 200]), capacity(6, 0)).unwrap();
    for key in 0..30 {
        dispatcher
            .enqueue(ReadyKey(key), class([1, 2, 200][usize::try_from(key / 10).unwrap()], Priority::P1, 0))
            .unwrap();
    }
    dispatcher.enqueue(ReadyKey(99), class(3, Priority::P0, 0)).unwrap();
    assert_eq!(drain_keys(&mut dispatcher), [0, 10, 20, 1, 11, 21]);
    assert_eq!(dispatcher.queued(PoolId(3), Priority::P0), 1, "nobody serves that pool");
}

#[test]
fn pool_that_shares_its_workers_is_not_passed_over_while_others_have_their_own() {
    let mut dispatcher = alone();
    let own = dispatcher.attach(session(1), pools(&[0]), capacity(1, 0)).unwrap();
    let shared = dispatcher.attach(session(2), pools(&[1, 2]), capacity(1, 0)).unwrap();
    for key in 0..20 {
        for pool in 0..3 {
            dispatcher.enqueue(ReadyKey(key), class(pool, Priority::P1, 0)).unwrap();
        }
    }
    for _ in 0..10 {
        assert_eq!(drain(&mut dispatcher).len(), 2);
        dispatcher.release(own);
        dispatcher.release(shared);
    }
    assert_eq!([0, 1, 2].map(|pool| dispatcher.queued(PoolId(pool), Priority::P1)), [10, 15, 15]);
}

#[test]
fn bounds_are_refused_by_type() {
    let limits = Limits { ready_count_max: 2, tenant_count_max: 4, worker_count_max: 1, worker_slots_max: 8 };
    let mut dispatcher = Dispatcher::new(ShardId(0), 1, limits);
    let enqueue =
        |dispatcher: &mut Dispatcher, pool, tenant| dispatcher.enqueue(ReadyKey(1), class(pool, Priority::P1, tenant));
    assert_eq!(enqueue(&mut dispatcher, 256, 0), Err(EnqueueError::Pool(PoolId(256))));
    assert_eq!(enqueue(&mut dispatcher, 0, 4), Err(EnqueueError::Tenant { tenant: TenantId(4), bound: 4 }));
    enqueue(&mut dispatcher, 0, 3).unwrap();
    enqueue(&mut dispatcher, 255, 3).unwrap();
    assert_eq!(enqueue(&mut dispatcher, 0, 0), Err(EnqueueError::Full { bound: 2 }));
    assert_eq!(
        dispatcher.attach(session(1), pools(&[0]), capacity(8, 1)),
        Err(AttachError::Slots { slots: 9, bound: 8 })
    );
    assert_eq!(dispatcher.attach(session(1), PoolSet::EMPTY, capacity(1, 1)), Err(AttachError::Pools { count: 0 }));
    let many: Vec<u16> = (0..17).collect();
    assert_eq!(dispatcher.attach(session(1), pools(&many), capacity(1, 1)), Err(AttachError::Pools { count: 17 }));
    let worker = dispatcher.attach(session(1), pools(&[0]), capacity(1, 1)).unwrap();
    assert_eq!(dispatcher.attach(session(2), pools(&[0]), capacity(1, 1)), Err(AttachError::Workers { bound: 1 }));
    assert!(dispatcher.detach(worker) && !dispatcher.detach(worker));
    let second = dispatcher.attach(session(2), pools(&[0]), capacity(1, 1)).unwrap();
    assert_ne!(worker, second);
    assert!(!dispatcher.release(worker), "what the first worker ran has no slot any more");
}

#[test]
fn drained_worker_gets_nothing_and_its_slots_go_as_they_are_released() {
    let mut dispatcher = alone();
    let worker = dispatcher.attach(session(1), pools(&[0]), capacity(4, 0)).unwrap();
    for key in 0..8 {
        dispatcher.enqueue(ReadyKey(key), class(0, Priority::P1, 0)).unwrap();
    }
    assert_eq!(drain(&mut dispatcher).len(), 4);
    dispatcher.set_capacity(worker, Capacity::default()).unwrap();
    assert!(dispatcher.release(worker) && dispatcher.release(worker));
    assert_eq!(drain(&mut dispatcher), []);
    dispatcher.set_capacity(worker, capacity(3, 0)).unwrap();
    assert_eq!(drain(&mut dispatcher).len(), 1, "two still run");
}

#[test]
fn reattached_executions_take_slots_before_new_ones_do() {
    let mut dispatcher = alone();
    let worker = dispatcher.attach(session(1), pools(&[0]), capacity(2, 0)).unwrap();
    for _ in 0..3 {
        assert!(dispatcher.occupy(worker));
    }
    dispatcher.enqueue(ReadyKey(1), class(0, Priority::P1, 0)).unwrap();
    assert!(dispatcher.release(worker));
    assert_eq!(drain(&mut dispatcher), [], "two run on two slots");
    assert!(dispatcher.release(worker));
    assert_eq!(drain(&mut dispatcher), [(1, worker)]);
}

#[test]
fn emptied_queues_are_used_again() {
    const COUNT: u32 = if cfg!(miri) { 80 } else { 100_000 };
    let mut dispatcher = alone();
    let worker = dispatcher.attach(session(1), pools(&[0]), capacity(COUNT, 0)).unwrap();
    for round in 0..5_u32 {
        for key in 0..COUNT.into() {
            dispatcher.enqueue(ReadyKey(key), class(0, Priority::P1, round * 3 + u32::from(key % 2 == 0))).unwrap();
        }
        assert_eq!(drain(&mut dispatcher).len(), COUNT as usize);
        (0..COUNT).for_each(|_| assert!(dispatcher.release(worker)));
    }
    assert!(dispatcher.ready.chunk_count() <= COUNT / 31 + 1024, "chunks: {}", dispatcher.ready.chunk_count());
}

#[derive(Clone, Debug)]
enum Step {
    Enqueue { pool: u16, priority: u8, tenant: u32 },
    Weight { tenant: u32, weight: u16 },
    Attach { pools: Vec<u16>, concurrency: u32, prefetch: u32 },
    Detach(usize),
    Capacity { worker: usize, concurrency: u32, prefetch: u32 },
    Next { is_stale: bool },
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_u16, 0..3_u8, 0..5_u32).prop_map(|(pool, priority, tenant)| Step::Enqueue { pool, priority, tenant }),
        1 => (0..5_u32, 1..4_u16).prop_map(|(tenant, weight)| Step::Weight { tenant, weight }),
        1 => (prop::collection::vec(0..4_u16, 1..3), 0..4_u32, 0..3_u32)
            .prop_map(|(pools, concurrency, prefetch)| Step::Attach { pools, concurrency, prefetch }),
        1 => any::<usize>().prop_map(Step::Detach),
        1 => (any::<usize>(), 0..4_u32, 0..3_u32)
            .prop_map(|(worker, concurrency, prefetch)| Step::Capacity { worker, concurrency, prefetch }),
        6 => prop::bool::weighted(0.2).prop_map(|is_stale| Step::Next { is_stale }),
        4 => any::<usize>().prop_map(Step::Release),
    ]
}

#[derive(Clone)]
struct PlainWorker {
    pools: PoolSet,
    capacity: Capacity,
    busy: u32,
}

/// A dispatcher beside what it should be.
struct Pair {
    dispatcher: Dispatcher,
    queues: ModelQueues,
    workers: BTreeMap<WorkerHandle, PlainWorker>,
    running: Vec<WorkerHandle>,
    /// The pools, the one served longest ago first.
    order: Vec<PoolId>,
    key: u64,
}

impl Pair {
    fn worker(&self, number: usize) -> Option<WorkerHandle> {
        self.workers.keys().copied().nth(number.checked_rem(self.workers.len())?)
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Enqueue { pool, priority, tenant } => {
                let class = class(pool, [Priority::P0, Priority::P1, Priority::P2][usize::from(priority)], tenant);
                self.key += 1;
                self.dispatcher.enqueue(ReadyKey(self.key), class).unwrap();
                self.queues.push(ReadyKey(self.key), class);
            }
            Step::Weight { tenant, weight } => {
                self.dispatcher.set_weight(TenantId(tenant), weight).unwrap();
                self.queues.weights.insert(TenantId(tenant), weight);
            }
            Step::Attach { pools: numbers, concurrency, prefetch } => {
                let (pools, capacity) = (pools(&numbers), capacity(concurrency, prefetch));
                self.key += 1;
                let handle = self.dispatcher.attach(session(self.key), pools, capacity).unwrap();
                assert!(self.workers.insert(handle, PlainWorker { pools, capacity, busy: 0 }).is_none());
            }
            Step::Detach(number) => {
                let Some(handle) = self.worker(number) else { return };
                assert!(self.dispatcher.detach(handle));
                self.workers.remove(&handle);
                self.running.retain(|running| *running != handle);
                assert!(!self.dispatcher.release(handle));
            }
            Step::Capacity { worker, concurrency, prefetch } => {
                let Some(handle) = self.worker(worker) else { return };
                self.dispatcher.set_capacity(handle, capacity(concurrency, prefetch)).unwrap();
                self.workers.get_mut(&handle).unwrap().capacity = capacity(concurrency, prefetch);
            }
            Step::Next { is_stale } => self.next(is_stale),
            Step::Release(number) => {
                let Some(place) = number.checked_rem(self.running.len()) else { return };
                let handle = self.running.swap_remove(place);
                assert!(self.dispatcher.release(handle));
                self.workers.get_mut(&handle).unwrap().busy -= 1;
            }
        }
    }

    fn next(&mut self, is_stale: bool) {
        let is_served = |pool: PoolId| {
            let mut workers = self.workers.values();
            workers.any(|worker| worker.pools.contains(pool) && worker.busy < worker.capacity.slots())
        };
        let able: PoolSet =
            (0..4).map(PoolId).filter(|pool| self.queues.count(*pool) > 0 && is_served(*pool)).collect();
        let pool = self.order.iter().copied().find(|pool| able.contains(*pool));
        let given = self.dispatcher.next();
        assert_eq!(given.is_some(), pool.is_some());
        let (Some((key, handle)), Some(pool)) = (given, pool) else { return };
        assert_eq!(Some(key), self.queues.pop(pool, !is_stale));
        let worker = &self.workers[&handle];
        assert!(worker.pools.contains(pool) && worker.busy < worker.capacity.slots());
        let at_once = |worker: &PlainWorker| worker.busy < worker.capacity.concurrency;
        let somebody = self.workers.values().any(|other| other.pools.contains(pool) && at_once(other));
        assert_eq!(at_once(worker), somebody, "who can run it at once goes first");
        if !is_stale {
            self.order.retain(|other| *other != pool);
            self.order.push(pool);
            self.dispatcher.assign(handle);
            self.workers.get_mut(&handle).unwrap().busy += 1;
            self.running.push(handle);
        }
    }

    fn check(&self) {
        for pool in (0..4).map(PoolId) {
            let queued: u32 = [Priority::P0, Priority::P1, Priority::P2]
                .iter()
                .map(|priority| self.dispatcher.queued(pool, *priority))
                .sum();
            assert_eq!(queued as usize, self.queues.count(pool));
            let workers = self.workers.values().filter(|worker| worker.pools.contains(pool));
            let free: u32 = workers.map(|worker| worker.capacity.slots().saturating_sub(worker.busy)).sum();
            assert_eq!(self.dispatcher.free_slots(pool), free);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_and_slots_are_those_of_the_plain_model(
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 30 } else { 300 }),
    ) {
        let (queues, workers) = (ModelQueues::default(), BTreeMap::new());
        let order = (0..4).map(PoolId).collect();
        let mut pair = Pair { dispatcher: alone(), queues, workers, running: Vec::new(), order, key: 0 };
        for step in steps {
            pair.apply(step);
            pair.check();
        }
    }
}
