//! Ready queues: per pool and priority a ring of tenants served by deficit round robin (Shreedhar and Varghese, 1995,
//! with every execution at cost 1), per tenant a first-in-first-out queue of keys.
//!
//! A queue is a chain of 256-byte chunks from one shared store, so that draining millions of entries reads memory in
//! sequence, and an emptied chunk serves the next queue that grows. Every operation is O(1); memory grows by pieces of
//! 256 KiB and none is allocated once the high-water mark is reached.
//!
//! Invariants: a tenant is in a level's ring exactly while it has entries there; a tenant in the ring has a deficit of at
//! least 1; the tenant at the front stays there until it is empty or its deficit is used up.
//! Deliberately absent: removal from the middle. The owner skips what is out of date when it comes out.

use super::class::{Class, EnqueueError, Limits, POOL_COUNT_MAX, PRIORITY_COUNT, PoolId, PoolSet, ReadyKey};
use std::collections::VecDeque;
use tickwheel_wire::{TenantId, job::Priority};

/// "No chunk" and "no flow".
const NONE: u32 = u32::MAX;
const CHUNK_KEYS: usize = 31;
const PIECE_CHUNKS: usize = 1024;

struct Chunk {
    keys: [ReadyKey; CHUNK_KEYS],
    next: u32,
}

const _: () = assert!(size_of::<Chunk>() == 256, "a chunk is four cache lines");

/// Chunks by number, in pieces that never move.
struct ChunkStore {
    pieces: Vec<Box<[Chunk]>>,
    free: u32,
    unused: u32,
}

impl ChunkStore {
    fn new() -> Self {
        Self { pieces: Vec::new(), free: NONE, unused: 0 }
    }

    #[inline]
    fn chunk(&mut self, index: u32) -> &mut Chunk {
        &mut self.pieces[index as usize / PIECE_CHUNKS][index as usize % PIECE_CHUNKS]
    }

    fn take(&mut self) -> u32 {
        if self.free != NONE {
            let index = self.free;
            let chunk = self.chunk(index);
            let next = std::mem::replace(&mut chunk.next, NONE);
            self.free = next;
            return index;
        }
        let index = self.unused;
        if index as usize / PIECE_CHUNKS == self.pieces.len() {
            let piece = (0..PIECE_CHUNKS).map(|_| Chunk { keys: [ReadyKey(0); CHUNK_KEYS], next: NONE });
            self.pieces.push(piece.collect());
        }
        self.unused += 1;
        index
    }

    fn give_back(&mut self, index: u32) {
        self.chunk(index).next = self.free;
        self.free = index;
    }
}

/// The queue of one tenant at one level.
struct Flow {
    tenant: TenantId,
    length: u32,
    head_chunk: u32,
    tail_chunk: u32,
    head: u8,
    tail: u8,
    /// How many executions it may still take in this visit.
    deficit: u16,
}

/// One priority of one pool.
#[derive(Default)]
struct Level {
    flows: Vec<Flow>,
    flow_of_tenant: Vec<u32>,
    ring: VecDeque<u32>,
}

impl Level {
    fn flow_index(&mut self, tenant: TenantId) -> u32 {
        let place = tenant.0 as usize;
        if place >= self.flow_of_tenant.len() {
            self.flow_of_tenant.resize(place + 1, NONE);
        }
        if self.flow_of_tenant[place] == NONE {
            let index = u32::try_from(self.flows.len()).expect("there are fewer flows than tenants");
            self.flow_of_tenant[place] = index;
            let empty = Flow { tenant, length: 0, head_chunk: NONE, tail_chunk: NONE, head: 0, tail: 0, deficit: 0 };
            self.flows.push(empty);
        }
        self.flow_of_tenant[place]
    }
}

/// Which queue an entry came from, so that its tenant can be charged: flow, pool and level from the lowest bit up.
///
/// One word, because a struct of small fields that is stored in pieces and read whole stalls the processor, and this is
/// handed on once per execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source(u64);

#[expect(clippy::cast_possible_truncation, reason = "each field is cut to its width")]
impl Source {
    /// No queue.
    pub const NONE: Self = Self(u64::MAX);

    const fn new(flow: u32, pool: PoolId, level: usize) -> Self {
        Self(flow as u64 | (pool.0 as u64) << 32 | (level as u64) << 48)
    }

    const fn flow(self) -> u32 {
        self.0 as u32
    }

    pub const fn pool(self) -> PoolId {
        PoolId((self.0 >> 32) as u16)
    }

    const fn level(self) -> usize {
        (self.0 >> 48) as usize
    }
}

/// One pool. The counts stand together, as every pop looks at them.
#[derive(Default)]
struct Pool {
    count: u32,
    counts: [u32; PRIORITY_COUNT],
    levels: [Level; PRIORITY_COUNT],
}

/// All ready executions of one shard.
pub(super) struct ReadyQueues {
    pools: Vec<Pool>,
    waiting: PoolSet,
    weights: Vec<u16>,
    chunks: ChunkStore,
    count: u32,
    count_max: u32,
    tenant_count_max: u32,
}

impl ReadyQueues {
    pub fn new(limits: &Limits) -> Self {
        Self {
            pools: Vec::new(),
            waiting: PoolSet::EMPTY,
            weights: Vec::new(),
            chunks: ChunkStore::new(),
            count: 0,
            count_max: limits.ready_count_max,
            tenant_count_max: limits.tenant_count_max,
        }
    }

    /// Sets how many executions a tenant gets per round; counts from its next visit on.
    pub fn set_weight(&mut self, tenant: TenantId, weight: u16) {
        let place = tenant.0 as usize;
        if place >= self.weights.len() {
            self.weights.resize(place + 1, 1);
        }
        self.weights[place] = weight;
    }

    #[inline]
    pub fn push(&mut self, key: ReadyKey, class: Class) -> Result<(), EnqueueError> {
        if self.count >= self.count_max {
            return Err(EnqueueError::Full { bound: self.count_max });
        }
        if class.pool.0 >= POOL_COUNT_MAX {
            return Err(EnqueueError::Pool(class.pool));
        }
        if class.tenant.0 >= self.tenant_count_max {
            return Err(EnqueueError::Tenant { tenant: class.tenant, bound: self.tenant_count_max });
        }
        let place = usize::from(class.pool.0);
        if place >= self.pools.len() {
            self.pools.resize_with(place + 1, Default::default);
        }
        let pool = &mut self.pools[place];
        let level = &mut pool.levels[class.priority as usize];
        let index = level.flow_index(class.tenant);
        let flow = &mut level.flows[index as usize];
        append(&mut self.chunks, flow, key);
        if flow.length == 1 {
            flow.deficit = weight(&self.weights, class.tenant);
            level.ring.push_back(index);
        }
        pool.counts[class.priority as usize] += 1;
        pool.count += 1;
        self.count += 1;
        self.waiting.insert(class.pool);
        Ok(())
    }

    /// Takes the entry whose turn it is in `pool`. Its tenant pays when [`ReadyQueues::charge`] is called.
    #[inline]
    pub fn pop(&mut self, id: PoolId) -> Option<(ReadyKey, Source)> {
        let pool = self.pools.get_mut(usize::from(id.0))?;
        let place = pool.counts.iter().position(|count| *count > 0)?;
        let level = &mut pool.levels[place];
        let index = *level.ring.front().expect("a level with entries has a tenant in its ring");
        let flow = &mut level.flows[index as usize];
        let key = take_first(&mut self.chunks, flow);
        if flow.length == 0 {
            level.ring.pop_front();
        }
        pool.counts[place] -= 1;
        pool.count -= 1;
        self.count -= 1;
        if pool.count == 0 {
            self.waiting.remove(id);
        }
        Some((key, Source::new(index, id, place)))
    }

    /// Charges the tenant of the entry that was popped last; the next tenant follows when its share is used up.
    #[inline]
    pub fn charge(&mut self, source: Source) {
        let level = &mut self.pools[usize::from(source.pool().0)].levels[source.level()];
        if level.ring.front() != Some(&source.flow()) {
            return;
        }
        let flow = &mut level.flows[source.flow() as usize];
        flow.deficit -= 1;
        if flow.deficit == 0 {
            flow.deficit = weight(&self.weights, flow.tenant);
            level.ring.pop_front();
            level.ring.push_back(source.flow());
        }
    }

    /// The pools in which something waits.
    pub const fn waiting(&self) -> PoolSet {
        self.waiting
    }

    #[cfg(test)]
    pub const fn chunk_count(&self) -> u32 {
        self.chunks.unused
    }

    pub const fn count(&self) -> u32 {
        self.count
    }

    pub fn count_of(&self, pool: PoolId, priority: Priority) -> u32 {
        self.pools.get(usize::from(pool.0)).map_or(0, |pool| pool.counts[priority as usize])
    }

    pub fn count_in(&self, pool: PoolId) -> u32 {
        self.pools.get(usize::from(pool.0)).map_or(0, |pool| pool.count)
    }
}

fn weight(weights: &[u16], tenant: TenantId) -> u16 {
    weights.get(tenant.0 as usize).copied().unwrap_or(1)
}

#[inline]
fn append(chunks: &mut ChunkStore, flow: &mut Flow, key: ReadyKey) {
    if flow.length == 0 {
        flow.head_chunk = chunks.take();
        flow.tail_chunk = flow.head_chunk;
        (flow.head, flow.tail) = (0, 0);
    } else if usize::from(flow.tail) == CHUNK_KEYS {
        let next = chunks.take();
        chunks.chunk(flow.tail_chunk).next = next;
        flow.tail_chunk = next;
        flow.tail = 0;
    }
    chunks.chunk(flow.tail_chunk).keys[usize::from(flow.tail)] = key;
    flow.tail += 1;
    flow.length += 1;
}

#[inline]
fn take_first(chunks: &mut ChunkStore, flow: &mut Flow) -> ReadyKey {
    let chunk = chunks.chunk(flow.head_chunk);
    let key = chunk.keys[usize::from(flow.head)];
    let next = chunk.next;
    flow.head += 1;
    flow.length -= 1;
    if flow.length == 0 {
        chunks.give_back(flow.head_chunk);
    } else if usize::from(flow.head) == CHUNK_KEYS {
        chunks.give_back(flow.head_chunk);
        flow.head_chunk = next;
        flow.head = 0;
    }
    key
}
