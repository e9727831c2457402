//! The dispatcher of one shard: which ready execution goes next, and to which worker.
//!
//! By pool; within a pool strictly by priority, P0 before P1 before P2; within a priority by tenant, deficit round robin
//! by weight; within a tenant first in, first out. Of the pools with work and a free slot the one served longest ago goes
//! first, so that none is passed over for ever that shares its workers with others. The workers of a pool take turns:
//! first those that would run the execution at once, then those that would only hold it ready.
//!
//! A worker's slots belong to the shard that it is connected to, its home. A shard whose executions wait for want of slots
//! borrows from its siblings (`loans.rs`, `balance.rs`): the home lends what is free, evens out what is contended, and
//! where there are fewer slots than shards that want one, slots go round, one execution per shard and turn.
//!
//! One turn of the owner: hand in what came ([`Dispatcher::on_message`], [`Dispatcher::enqueue`],
//! [`Dispatcher::release`]), call [`Dispatcher::next`] until it gives nothing, then [`Dispatcher::settle`] once.
//!
//! Invariants: over home, borrowers and messages under way, the slots of a worker add up to its capacity (to more only
//! while slots in use are to be taken away); a slot runs one execution; every queue has a bound. All of this is volatile:
//! the owner rebuilds it from its partitions. Deliberately absent: any clock, any I/O, any knowledge of what a key means,
//! priorities across shards (a lent slot serves the borrower's order), and a guard of low priorities against high ones.

mod balance;
mod class;
#[cfg(test)]
mod loan_tests;
mod loans;
#[cfg(test)]
mod model;
mod ready;
#[cfg(test)]
mod tests;
mod workers;

pub use class::{
    AttachError, Capacity, Class, EnqueueError, Limits, LoanCounts, LoanMessage, POOL_COUNT_MAX, PRIORITY_COUNT,
    PoolId, PoolSet, ReadyKey, WEIGHT_MAX, WorkerHandle,
};

use loans::LoanBook;
use ready::{ReadyQueues, Source};
use tickwheel_wire::{SessionRef, ShardId, TenantId, job::Priority, limits};
use workers::WorkerTable;

/// What [`Dispatcher::next`] gave out last: the worker's bits and the queue. Two words, read as they were written.
struct Offer {
    worker: u64,
    source: Source,
}

/// Ready executions, workers and credit of one shard. See the module's text.
pub struct Dispatcher {
    limits: Limits,
    ready: ReadyQueues,
    workers: WorkerTable,
    loans: LoanBook,
    offer: Offer,
    /// When each pool was served last, as a count of executions.
    served: Vec<u64>,
    /// Executions handed out so far.
    servings: u64,
}

impl Dispatcher {
    /// An empty dispatcher of `shard`, one of `shard_count` on this node.
    ///
    /// # Panics
    /// If `shard` is not below `shard_count`.
    pub fn new(shard: ShardId, shard_count: u16, limits: Limits) -> Self {
        assert!(shard.0 < shard_count, "a shard is one of its node's");
        Self {
            ready: ReadyQueues::new(&limits),
            workers: WorkerTable::new(limits.worker_count_max),
            loans: LoanBook::new(shard, shard_count),
            limits,
            offer: Offer { worker: 0, source: Source::NONE },
            served: vec![0; POOL_COUNT_MAX.into()],
            servings: 0,
        }
    }

    /// Queues an execution. The owner sees to it that nothing is queued twice.
    ///
    /// # Errors
    /// When the shard's ready queue is full, or the pool or tenant is out of range.
    pub fn enqueue(&mut self, key: ReadyKey, class: Class) -> Result<(), EnqueueError> {
        self.ready.push(key, class)
    }

    /// Sets how many executions `tenant` gets per round among tenants of one pool and priority. Default 1.
    ///
    /// # Errors
    /// When the tenant is out of range.
    ///
    /// # Panics
    /// If `weight` is not from 1 to [`WEIGHT_MAX`].
    pub fn set_weight(&mut self, tenant: TenantId, weight: u16) -> Result<(), EnqueueError> {
        assert!((1..=WEIGHT_MAX).contains(&weight), "weights go from 1 to {WEIGHT_MAX}");
        if tenant.0 >= self.limits.tenant_count_max {
            return Err(EnqueueError::Tenant { tenant, bound: self.limits.tenant_count_max });
        }
        self.ready.set_weight(tenant, weight);
        Ok(())
    }

    /// Takes the execution whose turn it is out of the queue, and names the worker whose turn it is.
    ///
    /// The slot is not used, and the tenant not charged, until [`Dispatcher::assign`]; a key that is out of date is
    /// dropped by calling `next` again. None when no pool has both an execution and a free slot.
    #[expect(clippy::should_implement_trait, reason = "it is the queue's next entry, not an iterator's")]
    pub fn next(&mut self) -> Option<(ReadyKey, WorkerHandle)> {
        loop {
            let pools = self.ready.waiting().and(self.workers.staffed());
            let pool = pools.iter().min_by_key(|pool| self.served[usize::from(pool.0)])?;
            let Some(worker) = self.workers.choose(pool) else { continue };
            let (key, source) = self.ready.pop(pool).expect("the pool is marked as waiting");
            self.offer = Offer { worker: worker.raw(), source };
            return Some((key, worker));
        }
    }

    /// Uses the slot that the last [`Dispatcher::next`] named, which must be the call before.
    ///
    /// # Panics
    /// If `worker` is not the one named, or was detached since.
    pub fn assign(&mut self, worker: WorkerHandle) {
        let source = std::mem::replace(&mut self.offer.source, Source::NONE);
        let is_offered = source != Source::NONE && self.offer.worker == worker.raw();
        assert!(is_offered, "assign follows the call of next that named the worker");
        self.workers.take(worker, source.pool());
        self.servings += 1;
        self.served[usize::from(source.pool().0)] = self.servings;
        self.ready.charge(source);
    }

    /// Adds a worker that is connected to this shard. A session is attached once in its life.
    ///
    /// # Errors
    /// When the shard's workers are at their bound, or it names no pool, too many pools or too many slots.
    pub fn attach(
        &mut self,
        session: SessionRef,
        pools: PoolSet,
        capacity: Capacity,
    ) -> Result<WorkerHandle, AttachError> {
        if !(1..=limits::WORKER_POOLS_MAX).contains(&pools.len()) {
            return Err(AttachError::Pools { count: pools.len() });
        }
        self.check_slots(capacity)?;
        let bound = self.workers.count_max();
        let worker = self.workers.insert(session, None, pools, capacity).ok_or(AttachError::Workers { bound })?;
        self.workers.add_slots(worker, capacity.slots());
        Ok(worker)
    }

    fn check_slots(&self, capacity: Capacity) -> Result<(), AttachError> {
        let bound = self.limits.worker_slots_max;
        let slots = capacity.slots();
        if slots > bound { Err(AttachError::Slots { slots, bound }) } else { Ok(()) }
    }

    /// Sets a worker's capacity; nothing for a drain. Slots in use beyond it go as they are released, lent ones are
    /// called back. Nothing happens if the worker is not attached.
    ///
    /// # Errors
    /// When it is more than one worker may have.
    pub fn set_capacity(&mut self, worker: WorkerHandle, capacity: Capacity) -> Result<(), AttachError> {
        self.check_slots(capacity)?;
        self.resize(worker, capacity);
        Ok(())
    }

    /// Removes a worker that is connected to this shard, with all its slots wherever they are; what runs on it is the
    /// owner's to handle. Whether it was attached.
    pub fn detach(&mut self, worker: WorkerHandle) -> bool {
        if self.workers.get(worker).is_none_or(|worker| worker.origin.is_some()) {
            return false;
        }
        self.void_loans(worker);
        self.workers.remove(worker);
        true
    }

    /// Takes a slot for an execution that runs on the worker already (it came back with it). If none is free, the worker
    /// is beyond its capacity until something is released. Whether the worker is attached.
    pub fn occupy(&mut self, worker: WorkerHandle) -> bool {
        let Some(state) = self.workers.get(worker) else { return false };
        if state.free() == 0 {
            self.workers.add_slots(worker, 1);
        }
        self.workers.occupy(worker);
        true
    }

    /// Frees the slot of an execution that ended. Whether the worker was still attached or lent; if not, there is no slot.
    pub fn release(&mut self, worker: WorkerHandle) -> bool {
        if self.workers.get(worker).is_none() {
            return false;
        }
        self.workers.vacate(worker);
        self.reuse(worker);
        true
    }

    /// Where to send an execution for `worker`; its shard is another one if the worker is borrowed.
    pub fn session(&self, worker: WorkerHandle) -> Option<SessionRef> {
        self.workers.get(worker).map(|worker| worker.session)
    }

    /// Takes in what a sibling said.
    ///
    /// # Panics
    /// If the sibling breaks the protocol of loans, which is a fault of this module.
    pub fn on_message(&mut self, from: ShardId, message: LoanMessage) {
        self.receive(from, message);
    }

    /// Settles credit with the siblings; once per turn, after the last [`Dispatcher::next`].
    ///
    /// `send` is offered messages in order per sibling and says whether it took the message; one that it does not take is
    /// kept and offered again by the next call. At most 256 decisions are kept per sibling, and no new ones are made
    /// meanwhile. Whether the shard may rest until something comes: all messages were taken, and no slot that was freed
    /// by this call waits for [`Dispatcher::next`]. If not, it needs another turn.
    pub fn settle(&mut self, send: impl FnMut(ShardId, LoanMessage) -> bool) -> bool {
        self.balance_loans();
        self.loans.flush(send) && !self.can_dispatch()
    }

    fn can_dispatch(&mut self) -> bool {
        let pools = self.ready.waiting().and(self.workers.staffed());
        pools.iter().any(|pool| self.workers.choose(pool).is_some())
    }

    /// How many executions wait, of a pool and priority.
    pub fn queued(&self, pool: PoolId, priority: Priority) -> u32 {
        self.ready.count_of(pool, priority)
    }

    /// How many executions wait.
    pub const fn queued_total(&self) -> u32 {
        self.ready.count()
    }

    /// How many slots a pool's workers have free on this shard; a worker of several pools counts in each. Walks all
    /// workers: for metrics, not for decisions.
    pub fn free_slots(&self, pool: PoolId) -> u32 {
        self.workers.iter().filter(|worker| worker.pools.contains(pool)).map(workers::Worker::free).sum()
    }

    /// Slots of `pool` that are lent and borrowed.
    pub fn loan_counts(&self, pool: PoolId) -> LoanCounts {
        let borrowed = self.workers.pool(pool).map_or(0, |slots| slots.borrowed);
        LoanCounts { lent: self.loans.lent(pool), borrowed }
    }
}
