//! Workers and their slots: those connected to this shard, and those of which siblings lent slots.
//!
//! Per pool there are two rings of workers with a free slot: the first holds those that would run an execution at once,
//! the second those that would only hold it ready, and borrowed ones. Each ring is served round robin. Entries are
//! dropped when they come to the front and are found wanting, so taking or freeing a slot costs O(pools of the worker)
//! at worst and no ring is ever searched; a worker is in a ring at most once.
//!
//! Invariants: of a worker connected here, `slots + lent` is its capacity, or more while slots in use are to be taken
//! away; `slots` here are free, busy, or set aside for a sibling. A worker with a free slot is listed in the ring of
//! its tier in each of its pools.

use super::class::{Capacity, Origin, PoolId, PoolSet, WorkerHandle};
use std::collections::VecDeque;
use tickwheel_wire::{SessionRef, ShardId};

/// Would run it at once; would hold it ready, or is borrowed.
const TIERS: usize = 2;

/// Slots of a worker connected here that a sibling has for one pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loan {
    pub peer: ShardId,
    pub pool: PoolId,
    pub slots: u32,
    /// How many of them were called back.
    pub recalled: u32,
}

/// Slots of a borrowed worker that are given up here and not yet announced to the home.
#[derive(Clone, Copy, Default)]
pub(super) struct Returning {
    pub slots: u32,
    /// How many of them the home had called back by their worker.
    pub recalled: u32,
}

pub(super) struct Worker {
    pub generation: u32,
    pub live: bool,
    pub session: SessionRef,
    pub origin: Option<Origin>,
    pub pools: PoolSet,
    pub capacity: Capacity,
    /// Slots that are here: free, busy or set aside.
    pub slots: u32,
    pub busy: u32,
    /// Slots here that wait to be lent.
    pub aside: u32,
    pub lent: u32,
    /// Borrowed: how many slots the home wants back.
    pub recalled: u32,
    pub returning: Returning,
    /// Borrowed: whether it is in the list of those with something to give back.
    pub is_returning: bool,
    pub loans: Vec<Loan>,
    listed: [PoolSet; TIERS],
}

impl Worker {
    #[inline]
    pub fn free(&self) -> u32 {
        self.slots - self.busy - self.aside
    }

    /// Slots beyond the capacity, which go as soon as they are free.
    pub fn excess(&self) -> u32 {
        (self.slots + self.lent).saturating_sub(self.capacity.slots())
    }

    /// Free slots that are as good as the next one: those within the concurrency, else all.
    pub fn free_of_tier(&self) -> u32 {
        let at_once = self.capacity.concurrency.saturating_sub(self.busy + self.aside + self.lent);
        if self.tier() == 0 { self.free().min(at_once) } else { self.free() }
    }

    #[inline]
    fn tier(&self) -> usize {
        let at_once = self.origin.is_none() && self.busy + self.aside + self.lent < self.capacity.concurrency;
        usize::from(!at_once)
    }
}

/// What is served in one pool.
#[derive(Default)]
pub(super) struct PoolSlots {
    rings: [VecDeque<u32>; TIERS],
    /// Slots of workers connected here that are here and not set aside.
    pub home: u32,
    /// Slots that siblings lent.
    pub borrowed: u32,
    /// How many of those are free.
    pub borrowed_free: u32,
    /// The fewest that were free since the window began.
    pub borrowed_free_low: u32,
}

/// All workers of one shard.
pub(super) struct WorkerTable {
    workers: Vec<Worker>,
    unused: Vec<u32>,
    pools: Vec<PoolSlots>,
    staffed: PoolSet,
    count_max: u32,
}

impl WorkerTable {
    pub const fn new(count_max: u32) -> Self {
        Self { workers: Vec::new(), unused: Vec::new(), pools: Vec::new(), staffed: PoolSet::EMPTY, count_max }
    }

    pub const fn count_max(&self) -> u32 {
        self.count_max
    }

    /// Adds a worker without slots; none if the table is full.
    pub fn insert(
        &mut self,
        session: SessionRef,
        origin: Option<Origin>,
        pools: PoolSet,
        capacity: Capacity,
    ) -> Option<WorkerHandle> {
        for pool in pools.iter() {
            if usize::from(pool.0) >= self.pools.len() {
                self.pools.resize_with(usize::from(pool.0) + 1, Default::default);
            }
        }
        if let Some(index) = self.unused.pop() {
            let worker = &mut self.workers[index as usize];
            worker.generation += 1;
            worker.live = true;
            (worker.session, worker.origin, worker.pools, worker.capacity) = (session, origin, pools, capacity);
            return Some(WorkerHandle { index, generation: worker.generation });
        }
        let index = u32::try_from(self.workers.len()).ok().filter(|index| *index < self.count_max)?;
        self.workers.push(Worker {
            generation: 0,
            live: true,
            session,
            origin,
            pools,
            capacity,
            slots: 0,
            busy: 0,
            aside: 0,
            lent: 0,
            recalled: 0,
            returning: Returning::default(),
            is_returning: false,
            loans: Vec::new(),
            listed: [PoolSet::EMPTY; TIERS],
        });
        Some(WorkerHandle { index, generation: 0 })
    }

    /// Whether another worker has a place.
    pub fn has_room(&self) -> bool {
        !self.unused.is_empty() || self.workers.len() < self.count_max as usize
    }

    /// Forgets a worker and all its slots. Its places in the rings are dropped when they come up.
    pub fn remove(&mut self, handle: WorkerHandle) {
        let worker = self.get(handle).expect("the caller looked the worker up");
        let (slots, aside, free) = (worker.slots, worker.aside, worker.free());
        if worker.origin.is_some() {
            self.note_borrowed_free(handle, -i64::from(free));
        }
        self.count_slots(handle, -i64::from(slots - aside));
        let worker = &mut self.workers[handle.index as usize];
        worker.live = false;
        worker.origin = None;
        (worker.slots, worker.busy, worker.aside, worker.lent) = (0, 0, 0, 0);
        (worker.recalled, worker.returning, worker.is_returning) = (0, Returning::default(), false);
        worker.loans.clear();
        if worker.generation < u32::MAX {
            self.unused.push(handle.index);
        }
    }

    #[inline]
    pub fn get(&self, handle: WorkerHandle) -> Option<&Worker> {
        self.workers.get(handle.index as usize).filter(|worker| worker.live && worker.generation == handle.generation)
    }

    #[inline]
    pub fn get_mut(&mut self, handle: WorkerHandle) -> Option<&mut Worker> {
        let worker = self.workers.get_mut(handle.index as usize)?;
        (worker.live && worker.generation == handle.generation).then_some(worker)
    }

    pub fn pool(&self, pool: PoolId) -> Option<&PoolSlots> {
        self.pools.get(usize::from(pool.0))
    }

    pub fn pool_mut(&mut self, pool: PoolId) -> Option<&mut PoolSlots> {
        self.pools.get_mut(usize::from(pool.0))
    }

    /// All workers, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.live)
    }

    /// The pools that may have a free slot; [`WorkerTable::choose`] tells.
    pub const fn staffed(&self) -> PoolSet {
        self.staffed
    }

    /// The worker whose turn it is in `pool`. It stays in front until [`WorkerTable::occupy`].
    #[inline]
    pub fn choose(&mut self, pool: PoolId) -> Option<WorkerHandle> {
        let slots = self.pools.get_mut(usize::from(pool.0))?;
        for (tier, ring) in slots.rings.iter_mut().enumerate() {
            while let Some(index) = ring.front().copied() {
                let worker = &mut self.workers[index as usize];
                if worker.free() > 0 && worker.tier() <= tier && worker.pools.contains(pool) {
                    return Some(WorkerHandle { index, generation: worker.generation });
                }
                ring.pop_front();
                worker.listed[tier].remove(pool);
            }
        }
        self.staffed.remove(pool);
        None
    }

    /// Takes a free slot of the worker that [`WorkerTable::choose`] named for `pool`, and puts it behind its peers there.
    ///
    /// # Panics
    /// If it has none free.
    #[inline]
    pub fn take(&mut self, handle: WorkerHandle, pool: PoolId) {
        let worker = self.get_mut(handle).expect("the caller looked the worker up");
        assert!(worker.free() > 0, "{handle:?} has no free slot");
        worker.busy += 1;
        if worker.origin.is_some() {
            self.note_borrowed_free(handle, -1);
        }
        self.step_back(handle, pool);
    }

    /// Moves the worker from the front of the pool's ring to its back, or to the ring that it belongs in now.
    #[inline]
    pub fn step_back(&mut self, handle: WorkerHandle, pool: PoolId) {
        let worker = &mut self.workers[handle.index as usize];
        let belongs = (worker.free() > 0).then(|| worker.tier());
        let rings = &mut self.pools[usize::from(pool.0)].rings;
        let Some(tier) = (0..TIERS).find(|tier| rings[*tier].front() == Some(&handle.index)) else { return };
        rings[tier].pop_front();
        if belongs == Some(tier) {
            rings[tier].push_back(handle.index);
            return;
        }
        worker.listed[tier].remove(pool);
        self.list(handle);
    }

    /// Takes a free slot for an execution that did not come from a queue.
    ///
    /// # Panics
    /// If it has none free.
    pub fn occupy(&mut self, handle: WorkerHandle) {
        let worker = self.get_mut(handle).expect("the caller looked the worker up");
        assert!(worker.free() > 0, "{handle:?} has no free slot");
        worker.busy += 1;
        if worker.origin.is_some() {
            self.note_borrowed_free(handle, -1);
        }
        // Its place may be in the second ring now; the entry in the first is dropped when it comes up.
        self.list(handle);
    }

    /// Frees a busy slot. The caller decides what becomes of it and calls [`WorkerTable::list`] if it is to be used.
    #[inline]
    pub fn vacate(&mut self, handle: WorkerHandle) {
        let worker = self.get_mut(handle).expect("the caller looked the worker up");
        worker.busy = worker.busy.checked_sub(1).expect("more slots were released than occupied");
        let is_free = worker.slots > worker.busy + worker.aside;
        if worker.origin.is_some() && is_free {
            self.note_borrowed_free(handle, 1);
        }
    }

    /// Enters the worker into the rings that it belongs in and is not in yet.
    #[inline]
    pub fn list(&mut self, handle: WorkerHandle) {
        let worker = &mut self.workers[handle.index as usize];
        if worker.free() == 0 {
            return;
        }
        let tier = worker.tier();
        let missing = worker.pools.minus(worker.listed[tier]);
        if missing.is_empty() {
            return;
        }
        for pool in missing.iter() {
            self.pools[usize::from(pool.0)].rings[tier].push_back(handle.index);
        }
        worker.listed[tier] = worker.listed[tier].or(missing);
        self.staffed = self.staffed.or(missing);
    }

    /// Gives the worker `slots` more slots here, free ones.
    pub fn add_slots(&mut self, handle: WorkerHandle, slots: u32) {
        let worker = self.get_mut(handle).expect("the caller looked the worker up");
        let before = worker.free();
        worker.slots += slots;
        let gained = worker.free() - before;
        if worker.origin.is_some() {
            self.note_borrowed_free(handle, i64::from(gained));
        }
        self.count_slots(handle, i64::from(slots));
        self.list(handle);
    }

    /// Takes `slots` free slots away.
    ///
    /// # Panics
    /// If fewer are free.
    pub fn remove_slots(&mut self, handle: WorkerHandle, slots: u32) {
        let worker = self.get_mut(handle).expect("the caller looked the worker up");
        assert!(worker.free() >= slots, "{handle:?} has fewer free slots than are taken away");
        worker.slots -= slots;
        if worker.origin.is_some() {
            self.note_borrowed_free(handle, -i64::from(slots));
        }
        self.count_slots(handle, -i64::from(slots));
    }

    /// Sets `slots` free slots aside, or puts them back with a negative number.
    pub fn set_aside(&mut self, handle: WorkerHandle, slots: i32) {
        let worker = self.get_mut(handle).expect("the caller looked the worker up");
        assert!(i64::from(worker.free()) >= i64::from(slots), "{handle:?} has too few free slots to set aside");
        worker.aside = worker.aside.checked_add_signed(slots).expect("no more is put back than was set aside");
        self.count_slots(handle, -i64::from(slots));
        self.list(handle);
    }

    fn count_slots(&mut self, handle: WorkerHandle, change: i64) {
        let worker = &self.workers[handle.index as usize];
        for pool in worker.pools.iter() {
            let slots = &mut self.pools[usize::from(pool.0)];
            let count = if worker.origin.is_some() { &mut slots.borrowed } else { &mut slots.home };
            *count = u32::try_from(i64::from(*count) + change).expect("slot counts are sums of slots");
        }
    }

    fn note_borrowed_free(&mut self, handle: WorkerHandle, change: i64) {
        for pool in self.workers[handle.index as usize].pools.iter() {
            let slots = &mut self.pools[usize::from(pool.0)];
            let free = i64::from(slots.borrowed_free) + change;
            slots.borrowed_free = u32::try_from(free).expect("free slots are counted one by one");
            slots.borrowed_free_low = slots.borrowed_free_low.min(slots.borrowed_free);
        }
    }
}
