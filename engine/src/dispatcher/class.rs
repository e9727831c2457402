//! The dispatcher's vocabulary: what is queued, what serves it, and the bounds of both.

use std::fmt;
use tickwheel_wire::{SessionRef, ShardId, TenantId, job::Priority, limits};

/// Most pools of one node. Pools are kinds of workers, so there are few; the owner numbers them from 0.
pub const POOL_COUNT_MAX: u16 = 256;
/// Number of priorities.
pub const PRIORITY_COUNT: usize = 3;
/// Highest weight of a tenant (inclusive): the longest burst that one tenant gets within a round.
pub const WEIGHT_MAX: u16 = 1024;

/// A pool of workers, numbered by the owner from 0, below [`POOL_COUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u16);

/// What the owner put into the ready queue; the dispatcher never looks inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadyKey(pub u64);

/// What decides when a ready execution goes, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// The workers that may run it.
    pub pool: PoolId,
    /// Strict within a pool.
    pub priority: Priority,
    /// Whose turn it takes.
    pub tenant: TenantId,
}

/// A set of pools, as a bitmap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PoolSet([u64; POOL_COUNT_MAX as usize / 64]);

impl PoolSet {
    /// No pool.
    pub const EMPTY: Self = Self([0; POOL_COUNT_MAX as usize / 64]);

    /// Adds a pool.
    ///
    /// # Panics
    /// If `pool` is [`POOL_COUNT_MAX`] or more.
    pub const fn insert(&mut self, pool: PoolId) {
        self.0[pool.0 as usize / 64] |= 1 << (pool.0 % 64);
    }

    /// Takes a pool out.
    ///
    /// # Panics
    /// If `pool` is [`POOL_COUNT_MAX`] or more.
    pub const fn remove(&mut self, pool: PoolId) {
        self.0[pool.0 as usize / 64] &= !(1 << (pool.0 % 64));
    }

    /// Whether it holds `pool`; false for a pool beyond the range.
    pub const fn contains(&self, pool: PoolId) -> bool {
        pool.0 < POOL_COUNT_MAX && self.0[pool.0 as usize / 64] >> (pool.0 % 64) & 1 == 1
    }

    /// Whether it holds no pool.
    pub const fn is_empty(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// How many pools it holds.
    pub const fn len(&self) -> usize {
        (self.0[0].count_ones() + self.0[1].count_ones() + self.0[2].count_ones() + self.0[3].count_ones()) as usize
    }

    /// The pools in both.
    pub const fn and(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Self([a[0] & b[0], a[1] & b[1], a[2] & b[2], a[3] & b[3]])
    }

    /// The pools in either.
    pub const fn or(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Self([a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]])
    }

    /// The pools in `self` that are not in `other`.
    pub const fn minus(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Self([a[0] & !b[0], a[1] & !b[1], a[2] & !b[2], a[3] & !b[3]])
    }

    /// The lowest pool.
    #[expect(clippy::cast_possible_truncation, reason = "word indices and bit numbers are below 256")]
    pub fn first(&self) -> Option<PoolId> {
        let index = self.0.iter().position(|word| *word != 0)?;
        Some(PoolId(index as u16 * 64 + self.0[index].trailing_zeros() as u16))
    }

    /// The pools in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PoolId> + use<> {
        let mut rest = *self;
        std::iter::from_fn(move || {
            let pool = rest.first()?;
            rest.remove(pool);
            Some(pool)
        })
    }
}

impl FromIterator<PoolId> for PoolSet {
    fn from_iter<I: IntoIterator<Item = PoolId>>(pools: I) -> Self {
        let mut set = Self::EMPTY;
        for pool in pools {
            set.insert(pool);
        }
        set
    }
}

/// A worker as one shard's dispatcher names it. Not reused: the generation tells a later worker in the same place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerHandle {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}.{}", self.index, self.generation)
    }
}

impl WorkerHandle {
    /// The handle as 64 bits, for the owner's records.
    pub const fn raw(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The handle whose bits are `raw`.
    #[expect(clippy::cast_possible_truncation, reason = "each half has 32 bits")]
    pub const fn from_raw(raw: u64) -> Self {
        Self { index: raw as u32, generation: (raw >> 32) as u32 }
    }
}

/// How many executions a worker takes at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// How many it runs at once. Filled first, over all workers of the pool.
    pub concurrency: u32,
    /// How many more it may hold ready, so that its next one needs no round trip.
    pub prefetch: u32,
}

impl Capacity {
    /// All slots. Saturating.
    pub const fn slots(self) -> u32 {
        self.concurrency.saturating_add(self.prefetch)
    }
}

/// Bounds of one dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most ready executions. Default 16 Mi; each costs about 8 B while queued.
    pub ready_count_max: u32,
    /// Tenant ids are below this. Default 1 Mi; each costs up to 4 B per (pool, priority) that any tenant above it used.
    pub tenant_count_max: u32,
    /// Most workers, borrowed ones included (one per pool and lender's worker). Default 64 Ki.
    pub worker_count_max: u32,
    /// Most slots of one worker. Default 1 Mi.
    pub worker_slots_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ready_count_max: 16 << 20,
            tenant_count_max: 1 << 20,
            worker_count_max: 64 << 10,
            worker_slots_max: 1 << 20,
        }
    }
}

/// Why an execution cannot be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The shard's ready queue is full.
    #[error("the ready queue is full: {bound} executions wait on this shard")]
    Full {
        /// How many it holds.
        bound: u32,
    },
    /// The pool's number is out of range.
    #[error("pool {} is beyond the highest, {}", .0.0, POOL_COUNT_MAX - 1)]
    Pool(PoolId),
    /// The tenant's number is out of range.
    #[error("tenant {} is beyond the highest, {}", tenant.0, bound - 1)]
    Tenant {
        /// The tenant.
        tenant: TenantId,
        /// Tenants are below this.
        bound: u32,
    },
}

/// Why a worker cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The shard has as many workers as it may.
    #[error("this shard serves {bound} workers, as many as it may")]
    Workers {
        /// How many.
        bound: u32,
    },
    /// It names no pool, or too many.
    #[error("a worker serves 1 to {} pools, not {count}", limits::WORKER_POOLS_MAX)]
    Pools {
        /// How many it names.
        count: usize,
    },
    /// It asks for more slots than one worker may have.
    #[error("{slots} slots are more than one worker may have, {bound}")]
    Slots {
        /// How many it asks for.
        slots: u32,
        /// Most.
        bound: u32,
    },
}

/// What shards say to each other about credit. Delivery is in order per pair of shards; nothing is assumed across pairs.
///
/// The shard that a worker is connected to (its home) lends slots; a slot is used by one shard at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoanMessage {
    /// Borrower to home: executions of `pool` wait here for want of slots. Replaces what was said before; 0 withdraws it.
    Demand {
        /// The pool.
        pool: PoolId,
        /// How many slots would be used.
        waiting: u32,
        /// How many slots of the pool the sender has already, but for those it has from the receiver.
        elsewhere: u32,
    },
    /// Home to borrower: use `slots` more slots of `worker`, for executions of `pool` only. `recalled` slots of those lent
    /// for the pool are to come back, as after [`LoanMessage::Recall`].
    Grant {
        /// The worker, as its home names it.
        worker: WorkerHandle,
        /// Where to send to.
        session: SessionRef,
        /// The pool.
        pool: PoolId,
        /// How many more.
        slots: u32,
        /// How many are called back already.
        recalled: u32,
    },
    /// Home to borrower: of what was lent for `pool`, give `slots` slots back, whichever are free first; one that
    /// something waits for is used once more.
    Recall {
        /// The pool.
        pool: PoolId,
        /// How many.
        slots: u32,
    },
    /// Home to borrower: the same for slots of one worker.
    RecallWorker {
        /// The worker, as its home names it.
        worker: WorkerHandle,
        /// The pool.
        pool: PoolId,
        /// How many.
        slots: u32,
    },
    /// Borrower to home: `slots` slots are yours again.
    Return {
        /// The worker, as its home names it.
        worker: WorkerHandle,
        /// The pool.
        pool: PoolId,
        /// How many.
        slots: u32,
        /// How many of them answer [`LoanMessage::RecallWorker`]; the others answer [`LoanMessage::Recall`] if there is one.
        recalled: u32,
    },
    /// Home to borrower: the worker is detached; all that was lent of it for `pool` is void, and nothing is to be returned.
    Gone {
        /// The worker, as its home named it.
        worker: WorkerHandle,
        /// The pool.
        pool: PoolId,
    },
}

/// Slots of one pool that are not where their worker is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoanCounts {
    /// Slots of workers connected here that siblings have.
    pub lent: u32,
    /// Slots of siblings' workers that this shard has.
    pub borrowed: u32,
}

/// Where a borrowed worker comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    /// The worker's home.
    pub home: ShardId,
    /// The worker as its home names it.
    pub worker: WorkerHandle,
    /// What it was lent for.
    pub pool: PoolId,
}
