//! Plain, slow stand-ins that the tests hold the dispatcher against: the order by definition, and a node of several
//! shards whose messages are delivered late.

use super::{
    Capacity, Class, Dispatcher, Limits, LoanMessage, PRIORITY_COUNT, PoolId, PoolSet, ReadyKey, WorkerHandle,
};
use std::collections::{BTreeMap, VecDeque};
use tickwheel_wire::{SessionId, SessionRef, ShardId, TenantId, mix64};

/// The queue of one pool and priority by definition: tenants in the order of their visits.
#[derive(Default)]
struct ModelLevel {
    /// The first is being visited and may take so many more.
    tenants: Vec<(TenantId, u16, VecDeque<ReadyKey>)>,
}

/// The order of executions by definition.
#[derive(Default)]
pub struct ModelQueues {
    pools: BTreeMap<PoolId, [ModelLevel; PRIORITY_COUNT]>,
    pub weights: BTreeMap<TenantId, u16>,
}

impl ModelQueues {
    fn weight(&self, tenant: TenantId) -> u16 {
        self.weights.get(&tenant).copied().unwrap_or(1)
    }

    pub fn push(&mut self, key: ReadyKey, class: Class) {
        let weight = self.weight(class.tenant);
        let level = &mut self.pools.entry(class.pool).or_default()[class.priority as usize];
        match level.tenants.iter_mut().find(|entry| entry.0 == class.tenant) {
            Some((_, _, keys)) => keys.push_back(key),
            None => level.tenants.push((class.tenant, weight, VecDeque::from([key]))),
        }
    }

    pub fn count(&self, pool: PoolId) -> usize {
        let levels = self.pools.get(&pool).into_iter().flatten();
        levels.flat_map(|level| &level.tenants).map(|entry| entry.2.len()).sum()
    }

    /// Takes the next key of the pool; its tenant pays if `is_used`.
    pub fn pop(&mut self, pool: PoolId, is_used: bool) -> Option<ReadyKey> {
        let level = self.pools.get_mut(&pool)?.iter_mut().find(|level| !level.tenants.is_empty())?;
        let (_, deficit, keys) = &mut level.tenants[0];
        let key = keys.pop_front().expect("tenants without keys leave the list");
        *deficit -= u16::from(is_used);
        let (is_over, is_empty) = (*deficit == 0, keys.is_empty());
        if is_empty {
            level.tenants.remove(0);
        } else if is_over {
            let mut visited = level.tenants.remove(0);
            visited.1 = self.weights.get(&visited.0).copied().unwrap_or(1);
            level.tenants.push(visited);
        }
        Some(key)
    }
}

/// A worker as the test knows it.
#[derive(Clone, Copy)]
pub struct NodeWorker {
    pub home: usize,
    pub handle: WorkerHandle,
    pub session: SessionRef,
    pub capacity: Capacity,
    pub is_attached: bool,
}

/// An execution on a worker.
#[derive(Clone, Copy)]
pub struct Running {
    pub shard: usize,
    pub handle: WorkerHandle,
    pub session: SessionRef,
}

/// Several shards, the messages between them, and what runs.
pub struct Node {
    pub shards: Vec<Dispatcher>,
    /// From the first index to the second.
    pub queues: Vec<Vec<VecDeque<LoanMessage>>>,
    pub workers: Vec<NodeWorker>,
    pub running: Vec<Running>,
    /// Which shards served an execution, in order, with the worker's session.
    pub served: Vec<(usize, SessionRef)>,
    pub message_count: u64,
    queue_length_max: usize,
    random: u64,
}

impl Node {
    pub fn new(shard_count: u16, queue_length_max: usize, seed: u64) -> Self {
        let limits = Limits { ready_count_max: 1 << 20, ..Limits::default() };
        Self {
            shards: (0..shard_count).map(|shard| Dispatcher::new(ShardId(shard), shard_count, limits)).collect(),
            queues: vec![vec![VecDeque::new(); shard_count.into()]; shard_count.into()],
            workers: Vec::new(),
            running: Vec::new(),
            served: Vec::new(),
            message_count: 0,
            queue_length_max,
            random: seed,
        }
    }

    pub fn random_below(&mut self, bound: usize) -> usize {
        self.random = mix64(self.random);
        usize::try_from(self.random >> 33).unwrap() % bound
    }

    pub fn attach(&mut self, home: usize, pools: &[u16], capacity: Capacity) -> usize {
        let session = SessionId(self.workers.len() as u64);
        let session = SessionRef { shard: ShardId(u16::try_from(home).unwrap()), session };
        let pools = PoolSet::from_iter(pools.iter().copied().map(PoolId));
        let handle = self.shards[home].attach(session, pools, capacity).unwrap();
        self.workers.push(NodeWorker { home, handle, session, capacity, is_attached: true });
        self.workers.len() - 1
    }

    pub fn detach(&mut self, worker: usize) {
        let NodeWorker { home, handle, session, .. } = self.workers[worker];
        assert!(self.shards[home].detach(handle));
        self.workers[worker].is_attached = false;
        // The owners hear of it in their own time; a release that comes late finds no slot.
        let (ended, running) = self.running.iter().partition(|running| running.session == session);
        self.running = running;
        let ended: Vec<Running> = ended;
        for Running { shard, handle, .. } in ended {
            self.shards[shard].release(handle);
        }
    }

    /// One turn of a shard: dispatch all that can be dispatched, settle. Whether it may rest.
    pub fn turn(&mut self, shard: usize) -> bool {
        while let Some((_, handle)) = self.shards[shard].next() {
            self.shards[shard].assign(handle);
            let session = self.shards[shard].session(handle).unwrap();
            self.running.push(Running { shard, handle, session });
            self.served.push((shard, session));
        }
        let (queues, bound) = (&mut self.queues[shard], self.queue_length_max);
        let sent = &mut self.message_count;
        self.shards[shard].settle(|to, message| {
            let queue = &mut queues[usize::from(to.0)];
            let is_taken = queue.len() < bound;
            if is_taken {
                queue.push_back(message);
                *sent += 1;
            }
            is_taken
        })
    }

    /// Goes on without new work while something happens: a shard has a turn only when something ended on it, something
    /// arrived or its last turn asked for another. One execution ends at a time.
    pub fn run_by_events(&mut self) {
        let shard_count = self.shards.len();
        let mut is_awake = vec![true; shard_count];
        for _ in 0..1_000_000 {
            let mut is_quiet = true;
            for (shard, is_awake) in is_awake.iter_mut().enumerate() {
                let has_mail = self.queues.iter().any(|queues| !queues[shard].is_empty());
                if *is_awake || has_mail {
                    (0..shard_count).for_each(|from| while self.deliver(from, shard) {});
                    *is_awake = !self.turn(shard);
                    is_quiet = false;
                }
            }
            if is_quiet {
                let Some(place) = self.running.len().checked_sub(1) else { return };
                let place = self.random_below(place + 1);
                is_awake[self.running[place].shard] = true;
                self.complete(place);
            }
        }
        panic!("shards still talk after 1,000,000 rounds without new work");
    }

    /// Delivers the oldest message from one shard to another; whether there was one.
    pub fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(message) = self.queues[from][to].pop_front() else { return false };
        self.shards[to].on_message(ShardId(u16::try_from(from).unwrap()), message);
        true
    }

    pub fn deliver_all(&mut self) {
        for from in 0..self.shards.len() {
            for to in 0..self.shards.len() {
                while self.deliver(from, to) {}
            }
        }
    }

    pub fn complete(&mut self, place: usize) {
        let Running { shard, handle, session } = self.running.swap_remove(place);
        let is_attached = self.workers.iter().any(|worker| worker.session == session && worker.is_attached);
        let is_released = self.shards[shard].release(handle);
        assert!(is_released || !is_attached, "the worker of a running execution is attached or lent");
    }

    /// Turns and deliveries without new work until nothing is said for two windows; how many messages it took.
    pub fn run_until_silent(&mut self) -> u64 {
        let (before, mut silent_rounds) = (self.message_count, 0);
        for _ in 0..100_000 {
            let count = self.message_count;
            while !self.running.is_empty() {
                self.complete(0);
            }
            (0..self.shards.len()).for_each(|shard| _ = self.turn(shard));
            self.deliver_all();
            let is_silent = self.message_count == count && self.running.is_empty();
            silent_rounds = if is_silent { silent_rounds + 1 } else { 0 };
            if silent_rounds > if cfg!(miri) { 130 } else { 200 } {
                return self.message_count - before;
            }
        }
        panic!("shards still talk after 100,000 turns without new work");
    }

    /// Slots of a worker, wherever they are, messages under way included.
    fn slots_of(&self, worker: &NodeWorker) -> u32 {
        let here = self.shards[worker.home].workers.get(worker.handle).unwrap();
        let lent = self.shards.iter().enumerate().filter(|(shard, _)| *shard != worker.home).flat_map(|(_, shard)| {
            let table = &shard.workers;
            table.iter().filter(|lent| lent.session == worker.session).map(|lent| lent.slots + lent.returning.slots)
        });
        here.slots + lent.sum::<u32>() + self.messages_of(worker)
    }

    /// Slots of a worker that are in messages: in the queues, and in the outboxes before them.
    fn messages_of(&self, worker: &NodeWorker) -> u32 {
        let mut slots = 0;
        for from in 0..self.shards.len() {
            for to in 0..self.shards.len() {
                let outbox = &self.shards[from].loans.peers[to].outbox;
                for message in self.queues[from][to].iter().chain(outbox) {
                    slots += match *message {
                        LoanMessage::Grant { worker: handle, slots, .. }
                            if from == worker.home && handle == worker.handle =>
                        {
                            slots
                        }
                        LoanMessage::Return { worker: handle, slots, .. }
                            if to == worker.home && handle == worker.handle =>
                        {
                            slots
                        }
                        _ => 0,
                    };
                }
            }
        }
        slots
    }

    /// No slot is lost or exists twice, and no worker runs more than it may.
    pub fn check(&self) {
        for worker in self.workers.iter().filter(|worker| worker.is_attached) {
            let home = self.shards[worker.home].workers.get(worker.handle).unwrap();
            let slots = self.slots_of(worker);
            assert_eq!(slots, home.slots + home.lent, "slots of {:?} on the way and lent", worker.session);
            let running = self.running.iter().filter(|running| running.session == worker.session).count();
            assert!(running <= slots as usize, "{:?} runs {running} on {slots} slots", worker.session);
            assert!(slots >= worker.capacity.slots(), "{:?} lost slots: {slots}", worker.session);
            if home.free() > 0 {
                assert_eq!(slots, worker.capacity.slots(), "{:?} has free slots beyond its capacity", worker.session);
            }
        }
        for shard in &self.shards {
            for worker in shard.workers.iter() {
                assert!(worker.busy + worker.aside <= worker.slots);
                assert!(worker.recalled <= worker.slots || worker.origin.is_none());
            }
            assert!(shard.loans.peers.iter().all(|peer| peer.outbox.len() < 2_000), "outboxes are bounded");
        }
    }

    /// Nothing runs, waits or is lent.
    pub fn check_at_rest(&self) {
        self.check();
        for shard in &self.shards {
            assert!(shard.loans.borrowed.is_empty() && shard.loans.gone.is_empty() && shard.loans.aside.is_empty());
            assert!(shard.loans.wanting.is_empty() && shard.loans.told.is_empty());
            assert!(shard.loans.home.iter().all(|home| home.away == 0 && home.incoming == 0));
        }
        for worker in self.workers.iter().filter(|worker| worker.is_attached) {
            let home = self.shards[worker.home].workers.get(worker.handle).unwrap();
            assert_eq!((home.free(), home.lent), (worker.capacity.slots(), 0));
        }
    }
}
