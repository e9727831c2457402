//! The book of loans between the shards of one node, and what is done when a message comes or a slot is freed.
//!
//! A home writes down per (worker, borrower, pool) how many slots are out, a borrower keeps a worker of its own per
//! (home, worker, pool). Messages under way belong to the home's count: a grant counts as lent when it is decided, a
//! return counts as lent until it has arrived. As messages between two shards stay in order, no slot is ever counted
//! twice, whatever the delays, and a worker that is detached takes its loans with it: what is said about it later is
//! about nobody.
//!
//! Messages are decided in `balance.rs`, from the state as it is, into one bounded outbox per sibling; a sibling whose
//! outbox is full gets no decision, and the state says so again at the next turn. Only detachments are listed (one entry
//! per loan) and returns kept as counts until there is room.

use super::{
    Capacity, Dispatcher, LoanMessage, PoolId, PoolSet, WorkerHandle, balance::Standing, class::Origin, workers::Loan,
};
use hashbrown::HashMap;
use std::{collections::VecDeque, hash::BuildHasherDefault};
use tickwheel_wire::{SessionRef, ShardId, planted::Mistake};

/// Most messages that wait for a sibling's queue.
pub(super) const OUTBOX_MAX: usize = 256;

/// What a sibling and this shard owe each other in one pool.
#[derive(Default)]
pub(super) struct PeerPool {
    /// As home: how many more slots the sibling asked for.
    pub wanted: u32,
    /// As home: how many slots it has from elsewhere, when it last asked.
    pub elsewhere: u32,
    /// As home: how many slots it has from here.
    pub lent: u32,
    /// As home: how many of those were called back, of whichever worker.
    pub recalled: u32,
    /// As home: how many were called back worker by worker.
    pub recalled_loans: u32,
    /// As home: when it was last served, as a count of servings.
    pub served: u64,
    /// As home: the workers lent to it, in the order of the loans.
    pub loans: VecDeque<WorkerHandle>,
    /// As borrower: how many slots were asked for when it was last said; 0 when withdrawn.
    pub told: u32,
    /// As borrower: how many slots from elsewhere were stated then.
    pub told_elsewhere: u32,
    /// As borrower: how many of those asked for have not been granted yet.
    pub asked: u32,
    /// As borrower: how many slots of the sibling's workers are here.
    pub borrowed: u32,
    /// As borrower: how many of those the sibling wants back, whichever are free first.
    pub called_back: u32,
}

impl PeerPool {
    /// How many slots the sibling will have once what was called back has come.
    pub const fn total(&self) -> u32 {
        self.elsewhere + self.lent - self.recalled - self.recalled_loans
    }

    /// How many slots it has that were not called back.
    pub const fn recallable(&self) -> u32 {
        self.lent - self.recalled - self.recalled_loans
    }

    /// Counts slots that are out no longer, with them `recalled_loans` calls by worker, and up to `recalled` others: the
    /// home may take a call for answered that is not, as it calls again, but never wait for an answer that was given.
    fn count_in(&mut self, slots: u32, recalled_loans: u32, recalled: u32) {
        self.lent -= slots;
        self.recalled_loans -= recalled_loans;
        self.recalled = self.recalled.saturating_sub(recalled).min(self.lent - self.recalled_loans);
    }
}

/// A sibling shard.
#[derive(Default)]
pub(super) struct Peer {
    pub outbox: VecDeque<LoanMessage>,
    pub pools: Vec<PeerPool>,
}

impl Peer {
    pub fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX_MAX
    }
}

/// What this shard's own workers owe in one pool.
#[derive(Clone, Copy, Default)]
pub(super) struct HomePool {
    /// Slots to be set aside as they are released, because a sibling has none.
    pub owed_starving: u32,
    /// The same, to even out.
    pub owed_surplus: u32,
    /// When this shard itself was last served a slot, as a count of servings.
    pub served: u64,
    /// Slots that siblings have of workers that serve this pool, for whatever pool.
    pub away: u32,
    /// How many of those were called back worker by worker.
    pub incoming: u32,
}

impl HomePool {
    pub const fn owed(&self) -> u32 {
        self.owed_starving + self.owed_surplus
    }
}

/// FxHash would do as well; the seed is fixed so that a run can be repeated.
type FixedHasher = BuildHasherDefault<xxhash_rust::xxh3::Xxh3Default>;

/// All loans that this shard has given and taken.
pub(super) struct LoanBook {
    pub shard: ShardId,
    pub peers: Vec<Peer>,
    pub home: Vec<HomePool>,
    /// The workers of siblings that are here.
    pub borrowed: HashMap<Origin, WorkerHandle, FixedHasher>,
    /// The same by pool, in the order of the loans.
    pub borrowed_of: Vec<Vec<WorkerHandle>>,
    /// Pools for which a sibling wants slots from here.
    pub wanting: PoolSet,
    /// Pools for which slots are set aside as they are released.
    pub owing: PoolSet,
    /// Pools for which this shard asked siblings.
    pub told: PoolSet,
    /// Pools for which siblings called slots back that may be idle here.
    pub called: PoolSet,
    /// Pools for which this shard may have borrowed workers.
    pub borrowing: PoolSet,
    /// Workers with slots set aside.
    pub aside: Vec<WorkerHandle>,
    /// Borrowed workers with slots to announce as returned, or called back while free.
    pub returning: Vec<WorkerHandle>,
    /// What to say about workers that were detached.
    pub gone: VecDeque<(ShardId, LoanMessage)>,
    /// Slots handed out so far: the clock of fairness.
    pub servings: u64,
    /// Turns so far.
    pub turn: u64,
    /// Scratch memory, empty between uses.
    pub standings: Vec<Standing>,
}

impl LoanBook {
    pub fn new(shard: ShardId, shard_count: u16) -> Self {
        Self {
            shard,
            peers: (0..shard_count).map(|_| Peer::default()).collect(),
            home: Vec::new(),
            borrowed: HashMap::default(),
            borrowed_of: Vec::new(),
            wanting: PoolSet::EMPTY,
            owing: PoolSet::EMPTY,
            told: PoolSet::EMPTY,
            called: PoolSet::EMPTY,
            borrowing: PoolSet::EMPTY,
            aside: Vec::new(),
            returning: Vec::new(),
            gone: VecDeque::new(),
            servings: 0,
            turn: 0,
            standings: Vec::new(),
        }
    }

    pub fn peer_pool(&mut self, peer: ShardId, pool: PoolId) -> &mut PeerPool {
        let pools = &mut self.peers[usize::from(peer.0)].pools;
        let place = usize::from(pool.0);
        if place >= pools.len() {
            pools.resize_with(place + 1, Default::default);
        }
        &mut pools[place]
    }

    pub fn home_pool(&mut self, pool: PoolId) -> &mut HomePool {
        let place = usize::from(pool.0);
        if place >= self.home.len() {
            self.home.resize_with(place + 1, Default::default);
        }
        &mut self.home[place]
    }

    /// Puts a message into the outbox; what concerns the loan of the last grant becomes part of it.
    pub fn say(&mut self, peer: ShardId, message: LoanMessage) {
        let outbox = &mut self.peers[usize::from(peer.0)].outbox;
        if let Some(LoanMessage::Grant { worker: last, pool: last_pool, slots: granted, recalled, .. }) =
            outbox.back_mut()
        {
            let sum = match message {
                LoanMessage::Grant { worker, pool, slots, .. } if (*last, *last_pool) == (worker, pool) => {
                    Some((granted, slots))
                }
                LoanMessage::Recall { pool, slots } if *last_pool == pool => Some((recalled, slots)),
                _ => None,
            };
            if let Some((sum, slots)) = sum {
                *sum += slots;
                return;
            }
        }
        outbox.push_back(message);
    }

    pub const fn next_serving(&mut self) -> u64 {
        self.servings += 1;
        self.servings
    }

    /// Slots that siblings have for `pool`.
    pub fn lent(&self, pool: PoolId) -> u32 {
        self.peers.iter().filter_map(|peer| peer.pools.get(usize::from(pool.0))).map(|pool| pool.lent).sum()
    }

    /// Counts `away` more slots out and `incoming` more called back, in every pool that the worker serves.
    pub fn count_out(&mut self, pools: PoolSet, away: i32, incoming: i32) {
        for pool in pools.iter() {
            let home = self.home_pool(pool);
            home.away = home.away.checked_add_signed(away).expect("what comes back was lent");
            home.incoming = home.incoming.checked_add_signed(incoming).expect("what comes back was called back");
        }
    }

    /// Offers what waits; stops at each sibling at the first message that is not taken.
    pub fn flush(&mut self, mut send: impl FnMut(ShardId, LoanMessage) -> bool) -> bool {
        let mut all_sent = self.gone.is_empty();
        for (shard, peer) in (0..).map(ShardId).zip(&mut self.peers) {
            while let Some(message) = peer.outbox.front().copied() {
                if !send(shard, message) {
                    all_sent = false;
                    break;
                }
                peer.outbox.pop_front();
            }
        }
        all_sent
    }
}

/// A slot count as a change of one.
pub(super) fn signed(slots: u32) -> i32 {
    i32::try_from(slots).expect("slot counts are far below 2^31")
}

impl Dispatcher {
    pub(super) fn receive(&mut self, from: ShardId, message: LoanMessage) {
        assert!(from != self.loans.shard, "a shard does not lend to itself");
        match message {
            LoanMessage::Demand { pool, waiting, elsewhere } => {
                let peer = self.loans.peer_pool(from, pool);
                (peer.wanted, peer.elsewhere) = (waiting, elsewhere);
                if waiting > 0 {
                    self.loans.wanting.insert(pool);
                }
            }
            LoanMessage::Grant { worker, session, pool, slots, recalled } => {
                self.borrow(Origin { home: from, worker, pool }, session, slots);
                self.called_back(from, pool, recalled);
            }
            LoanMessage::Recall { pool, slots } => self.called_back(from, pool, slots),
            LoanMessage::RecallWorker { worker, pool, slots } => {
                self.worker_called_back(Origin { home: from, worker, pool }, slots);
            }
            LoanMessage::Return { worker, pool, slots, recalled } => self.returned(from, worker, pool, slots, recalled),
            LoanMessage::Gone { worker, pool } => self.forget_borrowed(Origin { home: from, worker, pool }),
        }
    }

    fn borrow(&mut self, origin: Origin, session: SessionRef, slots: u32) {
        let peer = self.loans.peer_pool(origin.home, origin.pool);
        peer.asked = peer.asked.saturating_sub(slots);
        let Some(handle) = self.borrowed_worker(origin, session) else {
            let (worker, pool) = (origin.worker, origin.pool);
            return self.loans.say(origin.home, LoanMessage::Return { worker, pool, slots, recalled: 0 });
        };
        self.workers.add_slots(handle, slots);
        self.loans.peer_pool(origin.home, origin.pool).borrowed += slots;
    }

    /// The worker that stands for `origin` here; none if there is no place for another one.
    fn borrowed_worker(&mut self, origin: Origin, session: SessionRef) -> Option<WorkerHandle> {
        if let Some(handle) = self.loans.borrowed.get(&origin) {
            return Some(*handle);
        }
        let pools = PoolSet::from_iter([origin.pool]);
        let handle = self.workers.insert(session, Some(origin), pools, Capacity::default())?;
        self.loans.borrowed.insert(origin, handle);
        let place = usize::from(origin.pool.0);
        if place >= self.loans.borrowed_of.len() {
            self.loans.borrowed_of.resize_with(place + 1, Vec::new);
        }
        self.loans.borrowed_of[place].push(handle);
        self.loans.borrowing.insert(origin.pool);
        Some(handle)
    }

    fn called_back(&mut self, home: ShardId, pool: PoolId, slots: u32) {
        let state = self.loans.peer_pool(home, pool);
        // What is not here any more is on its way back already.
        state.called_back = (state.called_back + slots).min(state.borrowed);
        if state.called_back > 0 {
            self.loans.called.insert(pool);
        }
    }

    fn worker_called_back(&mut self, origin: Origin, slots: u32) {
        // Without an entry all of it is on its way back already.
        let Some(handle) = self.loans.borrowed.get(&origin).copied() else { return };
        let worker = self.workers.get_mut(handle).expect("borrowed workers are in the table");
        worker.recalled = (worker.recalled + slots).min(worker.slots);
        if worker.free() > 0 && worker.recalled > 0 {
            self.note_returning(handle);
        }
    }

    fn returned(&mut self, from: ShardId, handle: WorkerHandle, pool: PoolId, slots: u32, recalled: u32) {
        // A worker that was detached has no loans, and `Gone` is under way to the borrower.
        let Some(worker) = self.workers.get_mut(handle) else { return };
        let place = worker.loans.iter().position(|loan| loan.peer == from && loan.pool == pool);
        let place = place.expect("what is returned was lent");
        let loan = &mut worker.loans[place];
        loan.slots = loan.slots.checked_sub(slots).expect("no more is returned than was lent");
        // What is not there any more cannot be called back: the recall came too late for it.
        let still_recalled = (loan.recalled - recalled).min(loan.slots);
        let settled = std::mem::replace(&mut loan.recalled, still_recalled) - still_recalled;
        let ended = loan.slots == 0;
        if ended {
            worker.loans.swap_remove(place);
        }
        let retired = slots.min(worker.excess());
        worker.lent -= slots;
        let pools = worker.pools;
        self.workers.add_slots(handle, slots - retired);
        self.set_aside(handle, slots - retired);
        self.loans.count_out(pools, -signed(slots), -signed(settled));
        let peer = self.loans.peer_pool(from, pool);
        peer.count_in(slots, settled, slots - recalled);
        if ended {
            peer.loans.retain(|worker| *worker != handle);
        }
    }

    fn set_aside(&mut self, handle: WorkerHandle, slots: u32) {
        if slots > 0 {
            self.workers.set_aside(handle, signed(slots));
            self.loans.aside.push(handle);
        }
    }

    fn forget_borrowed(&mut self, origin: Origin) {
        let Some(handle) = self.loans.borrowed.get(&origin).copied() else { return };
        let slots = self.workers.get(handle).expect("borrowed workers are in the table").slots;
        let state = self.loans.peer_pool(origin.home, origin.pool);
        state.borrowed -= slots;
        state.called_back = state.called_back.min(state.borrowed);
        self.drop_borrowed(origin, handle);
    }

    pub(super) fn drop_borrowed(&mut self, origin: Origin, handle: WorkerHandle) {
        self.loans.borrowed.remove(&origin);
        self.loans.borrowed_of[usize::from(origin.pool.0)].retain(|worker| *worker != handle);
        self.workers.remove(handle);
    }

    /// Decides what becomes of a slot that was just freed.
    pub(super) fn reuse(&mut self, handle: WorkerHandle) {
        let worker = self.workers.get(handle).expect("the caller looked the worker up");
        if let Some(origin) = worker.origin {
            let is_recalled = worker.recalled > 0;
            if is_recalled || self.loans.peer_pool(origin.home, origin.pool).called_back > 0 {
                return self.give_back(handle, 1);
            }
        } else if worker.excess() > 0 {
            return self.workers.remove_slots(handle, 1);
        } else if let Some(pool) = worker.pools.and(self.loans.owing).first() {
            self.pay(handle, pool);
            return;
        }
        self.workers.list(handle);
    }

    /// Sets a slot aside for the siblings, who are owed one in `pool`.
    fn pay(&mut self, handle: WorkerHandle, pool: PoolId) {
        let home = self.loans.home_pool(pool);
        let owed = if home.owed_starving > 0 { &mut home.owed_starving } else { &mut home.owed_surplus };
        *owed -= 1;
        if home.owed() == 0 {
            self.loans.owing.remove(pool);
        }
        self.set_aside(handle, 1);
    }

    /// Gives free slots of a borrowed worker up; the home hears of it when the turn is settled.
    pub(super) fn give_back(&mut self, handle: WorkerHandle, slots: u32) {
        self.workers.remove_slots(handle, slots);
        let worker = self.workers.get_mut(handle).expect("the caller looked the worker up");
        let recalled = slots.min(worker.recalled);
        worker.recalled = (worker.recalled - recalled).min(worker.slots);
        worker.returning.slots += slots;
        worker.returning.recalled += recalled;
        let origin = worker.origin.expect("only borrowed slots are given back");
        let state = self.loans.peer_pool(origin.home, origin.pool);
        state.borrowed -= slots;
        state.called_back = state.called_back.saturating_sub(slots - recalled).min(state.borrowed);
        self.note_returning(handle);
    }

    /// Enters a borrowed worker into the list that the next turn's end looks through.
    pub(super) fn note_returning(&mut self, handle: WorkerHandle) {
        let worker = self.workers.get_mut(handle).expect("the caller looked the worker up");
        if !std::mem::replace(&mut worker.is_returning, true) {
            self.loans.returning.push(handle);
        }
    }

    /// Lends free slots of a worker that is connected here.
    pub(super) fn lend(&mut self, handle: WorkerHandle, to: ShardId, pool: PoolId, slots: u32) {
        self.workers.remove_slots(handle, slots);
        let worker = self.workers.get_mut(handle).expect("the caller looked the worker up");
        worker.lent += slots;
        let (session, pools) = (worker.session, worker.pools);
        let loan = worker.loans.iter_mut().find(|loan| loan.peer == to && loan.pool == pool);
        let is_new = loan.is_none();
        match loan {
            Some(loan) => loan.slots += slots,
            None => worker.loans.push(Loan { peer: to, pool, slots, recalled: 0 }),
        }
        self.loans.count_out(pools, signed(slots), 0);
        let served = self.loans.next_serving();
        let peer = self.loans.peer_pool(to, pool);
        peer.lent += slots;
        peer.wanted = peer.wanted.saturating_sub(slots);
        peer.served = served;
        if is_new {
            peer.loans.push_back(handle);
        }
        self.loans.say(to, LoanMessage::Grant { worker: handle, session, pool, slots, recalled: 0 });
    }

    /// Calls back slots lent to a sibling for a pool, of whichever worker.
    pub(super) fn call_back(&mut self, peer: ShardId, pool: PoolId, slots: u32) {
        let state = self.loans.peer_pool(peer, pool);
        let slots = slots.min(state.recallable());
        if slots > 0 {
            state.recalled += slots;
            self.loans.say(peer, LoanMessage::Recall { pool, slots });
        }
    }

    /// Calls back up to `slots` slots of one loan; how many.
    pub(super) fn call_worker_back(&mut self, handle: WorkerHandle, peer: ShardId, pool: PoolId, slots: u32) -> u32 {
        let worker = self.workers.get_mut(handle).expect("lent workers are in the table");
        let loan = worker.loans.iter_mut().find(|loan| loan.peer == peer && loan.pool == pool);
        let loan = loan.expect("the loan is in the book");
        let state = self.loans.peer_pool(peer, pool);
        let slots = slots.min(loan.slots - loan.recalled).min(state.recallable());
        if slots > 0 {
            loan.recalled += slots;
            state.recalled_loans += slots;
            let pools = worker.pools;
            self.loans.count_out(pools, 0, signed(slots));
            self.loans.say(peer, LoanMessage::RecallWorker { worker: handle, pool, slots });
        }
        slots
    }

    /// Ends all loans of a worker that goes away.
    pub(super) fn void_loans(&mut self, handle: WorkerHandle) {
        let worker = self.workers.get_mut(handle).expect("the caller looked the worker up");
        let pools = worker.pools;
        for Loan { peer, pool, slots, recalled } in std::mem::take(&mut worker.loans) {
            self.loans.count_out(pools, -signed(slots), -signed(recalled));
            let state = self.loans.peer_pool(peer, pool);
            // Any of them may be on its way back, for a call that the borrower takes for answered.
            state.count_in(slots, recalled, slots);
            state.loans.retain(|worker| *worker != handle);
            self.loans.gone.push_back((peer, LoanMessage::Gone { worker: handle, pool }));
        }
    }

    /// Makes the worker's slots what `capacity` says, as far as they are free; the rest follows as slots are freed.
    pub(super) fn resize(&mut self, handle: WorkerHandle, capacity: Capacity) {
        let Some(worker) = self.workers.get_mut(handle).filter(|worker| worker.origin.is_none()) else { return };
        worker.capacity = capacity;
        let lent = if Mistake::LentSlotsForgotten.is_made() { 0 } else { worker.lent };
        let missing = capacity.slots().saturating_sub(worker.slots + lent);
        let retired = worker.excess().min(worker.free());
        self.workers.remove_slots(handle, retired);
        self.workers.add_slots(handle, missing);
        self.call_excess_back(handle);
    }

    fn call_excess_back(&mut self, handle: WorkerHandle) {
        let worker = self.workers.get(handle).expect("the caller looked the worker up");
        let recalled: u32 = worker.loans.iter().map(|loan| loan.recalled).sum();
        let mut rest = worker.excess().saturating_sub(recalled);
        for place in 0..worker.loans.len() {
            let Loan { peer, pool, .. } = self.workers.get(handle).expect("it was there").loans[place];
            rest -= self.call_worker_back(handle, peer, pool, rest);
        }
    }
}
