//! What a shard decides about credit once per turn.
//!
//! As home it serves, in this order: slots that came back or were set aside go to the shard that has the fewest, the one
//! served longest ago first; free slots go to whoever wants them; a shard that has none while others have some is owed
//! the next slot that is released here, or one that is called back. At the end of every window of 64 turns the richest
//! shard gives half of its surplus over the poorest one (less when more homes may lend, so that they do not all give at
//! once). Fewer slots than shards thus go round, one execution at a time: a shard waits for at most one execution of each
//! other shard. With more slots than shards, loans settle and no message is sent while demand lasts.
//!
//! As borrower it says what waits when it has no slot (again when that has doubled), withdraws it when nothing has
//! waited at a window's end, and gives idle slots back: at once if a sibling wants one, else when they were not needed
//! for a whole window. So an idle node falls silent.

use super::{Dispatcher, LoanMessage, PoolId, PoolSet, WorkerHandle, class::Origin, loans::signed, workers::Returning};
use tickwheel_wire::ShardId;

/// Turns between two looks at what may settle slowly. A power of two.
const WINDOW_TURNS: u64 = 64;
/// Most loans made, or looked at for one to call back, per turn, pool and sibling.
const LOANS_PER_TURN_MAX: usize = 64;

/// Someone who has or wants slots of a pool: a sibling, or this shard itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Party {
    Home,
    Peer(ShardId),
}

/// What a party has and wants of one pool, as this shard knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    party: Party,
    /// How many slots it will have once those called back have come.
    total: u32,
    /// How many of them are not from this shard's workers.
    elsewhere: u32,
    /// When it was last served, as a count of servings.
    served: u64,
    wants: bool,
    /// How many of this shard's workers' slots can be taken from it.
    gives: u32,
    /// How many are being taken from it already.
    leaving: u32,
}

impl Dispatcher {
    pub(super) fn balance_loans(&mut self) {
        if self.loans.peers.len() == 1 {
            return;
        }
        self.loans.turn += 1;
        let window_ends = self.loans.turn.is_multiple_of(WINDOW_TURNS);
        // Before anything is called back, or a borrower would answer the call with slots that do not exist any more.
        self.announce_gone();
        self.return_idle(window_ends);
        self.distribute_aside();
        self.forget_satisfied();
        for pool in self.loans.wanting.iter() {
            self.lend_free(pool);
        }
        self.forget_debts(window_ends);
        for pool in self.loans.wanting.or(self.ready.waiting()).iter() {
            self.even_out(pool, window_ends);
        }
        for pool in self.loans.told.or(self.ready.waiting()).iter() {
            self.announce_demand(pool, window_ends);
        }
        self.announce_returns();
    }

    fn siblings(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.loans.shard;
        let count = u16::try_from(self.loans.peers.len()).expect("shards are numbered by u16");
        (0..count).map(ShardId).filter(move |shard| *shard != own)
    }

    /// Slots of `pool` that are here and not set aside.
    fn total_here(&self, pool: PoolId) -> u32 {
        self.workers.pool(pool).map_or(0, |slots| slots.home + slots.borrowed)
    }

    fn home_standing(&self, pool: PoolId) -> Standing {
        let home = self.loans.home.get(usize::from(pool.0)).copied().unwrap_or_default();
        let (own, borrowed) = self.workers.pool(pool).map_or((0, 0), |slots| (slots.home, slots.borrowed));
        Standing {
            party: Party::Home,
            total: (own + borrowed).saturating_sub(home.owed()),
            elsewhere: borrowed,
            served: home.served,
            wants: self.ready.count_in(pool) > 0,
            gives: own.saturating_sub(home.owed()),
            // Debts outlive the slots that they were to be paid from.
            leaving: home.owed().min(own),
        }
    }

    fn peer_standing(&self, peer: ShardId, pool: PoolId) -> Option<Standing> {
        let sibling = &self.loans.peers[usize::from(peer.0)];
        let state = sibling.pools.get(usize::from(pool.0)).filter(|_| sibling.has_room())?;
        Some(Standing {
            party: Party::Peer(peer),
            total: state.total(),
            elsewhere: state.elsewhere,
            served: state.served,
            wants: state.wanted > 0,
            gives: state.recallable(),
            leaving: state.recalled,
        })
    }

    /// The sibling that wants slots of `pool` and has the fewest.
    fn poorest_peer(&self, pool: PoolId) -> Option<Standing> {
        let standings = self.siblings().filter_map(|peer| self.peer_standing(peer, pool));
        standings.filter(|standing| standing.wants).min_by_key(|standing| (standing.total, standing.served))
    }

    /// Who gets the next slot of a worker that serves `pools`.
    fn neediest(&self, pools: PoolSet) -> Option<(PoolId, Standing)> {
        let contended = pools.and(self.loans.wanting.or(self.ready.waiting()));
        let parties = contended.iter().flat_map(|pool| {
            let home = Some(self.home_standing(pool)).filter(|home| home.wants);
            [self.poorest_peer(pool), home].into_iter().flatten().map(move |standing| (pool, standing))
        });
        parties.min_by_key(|(_, standing)| (standing.total, standing.served))
    }

    /// Gives the slots that came back or were set aside to whoever has the fewest.
    fn distribute_aside(&mut self) {
        let mut workers = std::mem::take(&mut self.loans.aside);
        for handle in workers.drain(..) {
            self.trim_aside(handle);
            while let Some(worker) = self.workers.get(handle).filter(|worker| worker.aside > 0) {
                let slots = signed(worker.aside);
                let Some((pool, neediest)) = self.neediest(worker.pools) else {
                    self.workers.set_aside(handle, -slots);
                    break;
                };
                self.workers.set_aside(handle, -1);
                match neediest.party {
                    Party::Peer(peer) => self.lend(handle, peer, pool, 1),
                    Party::Home => {
                        let served = self.loans.next_serving();
                        self.loans.home_pool(pool).served = served;
                    }
                }
            }
        }
        self.loans.aside = workers;
    }

    /// Takes away what is set aside beyond the worker's capacity.
    fn trim_aside(&mut self, handle: WorkerHandle) {
        let Some(worker) = self.workers.get(handle) else { return };
        let slots = worker.aside.min(worker.excess());
        self.workers.set_aside(handle, -signed(slots));
        self.workers.remove_slots(handle, slots);
    }

    fn forget_satisfied(&mut self) {
        for pool in self.loans.wanting.iter() {
            let place = usize::from(pool.0);
            if !self.loans.peers.iter().any(|peer| peer.pools.get(place).is_some_and(|state| state.wanted > 0)) {
                self.loans.wanting.remove(pool);
            }
        }
    }

    /// Lends free slots, those that would run an execution at once before the others, and spread over the workers.
    fn lend_free(&mut self, pool: PoolId) {
        for _ in 0..LOANS_PER_TURN_MAX {
            let Some(handle) = self.workers.choose(pool) else { return };
            let Some(Standing { party: Party::Peer(peer), .. }) = self.poorest_peer(pool) else { return };
            let wanting = self.siblings().filter_map(|peer| self.peer_standing(peer, pool)).filter(|peer| peer.wants);
            let wanting = u32::try_from(wanting.count()).expect("there are few shards");
            let worker = self.workers.get(handle).expect("it was just chosen");
            // What this shard itself has waiting for the worker, for whatever pool, takes its slots first.
            if worker.origin.is_none() && worker.pools.and(self.ready.waiting()).is_empty() {
                let slots = worker.free_of_tier().div_ceil(wanting).min(self.loans.peer_pool(peer, pool).wanted);
                self.lend(handle, peer, pool, slots);
            }
            self.workers.step_back(handle, pool);
        }
    }

    /// What is owed is decided anew at every turn, what is to be evened out at every window.
    fn forget_debts(&mut self, window_ends: bool) {
        for pool in self.loans.owing.iter() {
            let is_wanted = self.loans.wanting.contains(pool);
            let home = self.loans.home_pool(pool);
            home.owed_starving = 0;
            if window_ends || !is_wanted {
                home.owed_surplus = 0;
            }
            if home.owed() == 0 {
                self.loans.owing.remove(pool);
            }
        }
    }

    /// Sees to it that nobody goes without while others have, and at a window's end that the difference shrinks.
    fn even_out(&mut self, pool: PoolId, window_ends: bool) {
        let away = self.loans.home.get(usize::from(pool.0)).map_or(0, |home| home.away);
        if !self.loans.wanting.contains(pool) && away == 0 || self.workers.choose(pool).is_some() {
            return;
        }
        let mut standings = std::mem::take(&mut self.loans.standings);
        standings.push(self.home_standing(pool));
        standings.extend(self.siblings().filter_map(|peer| self.peer_standing(peer, pool)));
        self.relieve_starving(pool, &standings);
        if window_ends {
            self.shrink_gap(pool, &standings);
        }
        standings.clear();
        self.loans.standings = standings;
    }

    /// Where somebody has nothing, everybody is to give what comes free next: nobody knows whose execution is short. What
    /// comes too late goes back to whoever has the fewest.
    fn relieve_starving(&mut self, pool: PoolId, standings: &[Standing]) {
        let starving = standings.iter().filter(|standing| standing.wants && standing.total == 0).count();
        let starving = u32::try_from(starving).expect("there are few shards");
        let mut is_given = false;
        for standing in standings {
            let slots = starving.saturating_sub(standing.leaving).min(standing.gives);
            is_given |= standing.gives + standing.leaving > 0;
            match standing.party {
                _ if slots == 0 => {}
                Party::Home => self.owe(pool, slots, 0),
                Party::Peer(peer) => self.call_back(peer, pool, slots),
            }
        }
        if !is_given {
            let incoming = self.loans.home_pool(pool).incoming;
            (incoming..starving).for_each(|_| self.call_back_serving(pool));
        }
    }

    fn owe(&mut self, pool: PoolId, starving: u32, surplus: u32) {
        let home = self.loans.home_pool(pool);
        home.owed_starving += starving;
        home.owed_surplus += surplus;
        self.loans.owing.insert(pool);
    }

    /// Moves half of the difference between the richest and the poorest, less when several homes may do so at once.
    fn shrink_gap(&mut self, pool: PoolId, standings: &[Standing]) {
        let poorest = standings.iter().filter(|standing| standing.wants).min_by_key(|standing| standing.total);
        let richest = standings.iter().filter(|standing| standing.gives > 0).max_by_key(|standing| standing.total);
        let (Some(poorest), Some(richest)) = (poorest, richest) else { return };
        let homes = u32::try_from(self.loans.peers.len() - 1).expect("there are few shards");
        let others_lend = poorest.elsewhere > 0 || richest.elsewhere > 0;
        let step = richest.total.saturating_sub(poorest.total) / if others_lend { 2 * homes } else { 2 };
        let step = step.saturating_sub(standings.iter().map(|standing| standing.leaving).sum());
        match richest.party {
            _ if step == 0 => {}
            Party::Home => self.owe(pool, 0, step),
            Party::Peer(peer) => self.call_back(peer, pool, step),
        }
    }

    /// Calls back one slot that serves `pool` but was lent for another one.
    fn call_back_serving(&mut self, pool: PoolId) {
        for peer in self.siblings() {
            for place in 0..self.loans.peers[usize::from(peer.0)].pools.len() {
                let lent_for = PoolId(u16::try_from(place).expect("there are few pools"));
                let loans = &self.loans.peer_pool(peer, lent_for).loans;
                for loan_index in 0..LOANS_PER_TURN_MAX.min(loans.len()) {
                    let handle = self.loans.peer_pool(peer, lent_for).loans[loan_index];
                    let serves = self.workers.get(handle).is_some_and(|worker| worker.pools.contains(pool));
                    if serves && self.call_worker_back(handle, peer, lent_for, 1) == 1 {
                        return;
                    }
                }
            }
        }
    }

    /// Tells the siblings what waits here for want of slots.
    fn announce_demand(&mut self, pool: PoolId, window_ends: bool) {
        let can_use = self.workers.has_room() && self.workers.choose(pool).is_none();
        let waiting = if can_use { self.ready.count_in(pool) } else { 0 };
        let here = self.total_here(pool);
        let mut is_told = false;
        for peer in self.siblings() {
            if self.loans.peers[usize::from(peer.0)].has_room() {
                self.announce_demand_to(peer, pool, waiting, here, window_ends);
            }
            is_told |= self.loans.peer_pool(peer, pool).told > 0;
        }
        if is_told {
            self.loans.told.insert(pool);
        } else {
            self.loans.told.remove(pool);
        }
    }

    fn announce_demand_to(&mut self, peer: ShardId, pool: PoolId, waiting: u32, here: u32, window_ends: bool) {
        let state = self.loans.peer_pool(peer, pool);
        let elsewhere = here - state.borrowed;
        if waiting == 0 {
            if window_ends {
                self.withdraw_demand(peer, pool);
            }
            return;
        }
        let changed =
            (state.told_elsewhere == 0) != (elsewhere == 0) || window_ends && state.told_elsewhere != elsewhere;
        if state.asked == 0 || waiting / 2 > state.asked || changed {
            (state.told, state.asked, state.told_elsewhere) = (waiting, waiting, elsewhere);
            self.loans.say(peer, LoanMessage::Demand { pool, waiting, elsewhere });
        }
    }

    fn withdraw_demand(&mut self, peer: ShardId, pool: PoolId) {
        let state = self.loans.peer_pool(peer, pool);
        if state.told > 0 {
            (state.told, state.asked) = (0, 0);
            let elsewhere = state.told_elsewhere;
            self.loans.say(peer, LoanMessage::Demand { pool, waiting: 0, elsewhere });
        }
    }

    /// Gives back what is not needed: at once if a sibling wants it, else what was not needed for a window.
    fn return_idle(&mut self, window_ends: bool) {
        for pool in self.loans.borrowing.iter() {
            let place = usize::from(pool.0);
            if self.loans.borrowed_of[place].is_empty() {
                self.loans.borrowing.remove(pool);
                continue;
            }
            let slots = self.workers.pool_mut(pool).expect("a borrowed worker serves the pool");
            let (free, low) = (slots.borrowed_free, slots.borrowed_free_low);
            if window_ends {
                slots.borrowed_free_low = free;
            }
            if self.ready.count_in(pool) > 0 {
                continue;
            }
            if self.loans.called.contains(pool) {
                self.give_called_back(pool);
            }
            let idle = if self.loans.wanting.contains(pool) { free } else { low * u32::from(window_ends) };
            if idle > 0 {
                self.give_idle_back(pool, idle);
            }
        }
    }

    /// Gives back what was called back and is idle; what is busy follows when it is released.
    fn give_called_back(&mut self, pool: PoolId) {
        self.loans.called.remove(pool);
        for place in 0..self.loans.borrowed_of[usize::from(pool.0)].len() {
            let handle = self.loans.borrowed_of[usize::from(pool.0)][place];
            let worker = self.workers.get(handle).expect("borrowed workers are in the table");
            let Origin { home, .. } = worker.origin.expect("it is borrowed");
            let slots = worker.free().min(self.loans.peer_pool(home, pool).called_back);
            if slots > 0 {
                self.give_unneeded_back(handle, slots);
            }
        }
    }

    fn give_idle_back(&mut self, pool: PoolId, mut idle: u32) {
        for place in 0..self.loans.borrowed_of[usize::from(pool.0)].len() {
            let handle = self.loans.borrowed_of[usize::from(pool.0)][place];
            let worker = self.workers.get(handle).expect("borrowed workers are in the table");
            let slots = worker.free().min(idle);
            if slots > 0 {
                self.give_unneeded_back(handle, slots);
                idle -= slots;
            }
            if idle == 0 {
                return;
            }
        }
    }

    /// The home must know that nothing is wanted any more before it gets the slots, or it would lend them again.
    fn give_unneeded_back(&mut self, handle: WorkerHandle, slots: u32) {
        let origin = self.workers.get(handle).and_then(|worker| worker.origin).expect("only borrowed slots go back");
        self.withdraw_demand(origin.home, origin.pool);
        self.give_back(handle, slots);
    }

    /// Says what was given back, and gives back what was called back while it was free.
    fn announce_returns(&mut self) {
        let mut workers = std::mem::take(&mut self.loans.returning);
        for handle in workers.drain(..) {
            let Some(worker) = self.workers.get_mut(handle) else { continue };
            worker.is_returning = false;
            let (idle, origin) = (worker.free().min(worker.recalled), worker.origin);
            let Origin { home, worker: name, pool } = origin.expect("only borrowed slots go back");
            if idle > 0 && self.ready.count_in(pool) == 0 {
                self.give_unneeded_back(handle, idle);
            }
            let has_room = self.loans.peers[usize::from(home.0)].has_room();
            let worker = self.workers.get_mut(handle).expect("it was there");
            let Returning { slots, recalled } =
                if has_room { std::mem::take(&mut worker.returning) } else { Returning::default() };
            let is_left = worker.returning.slots > 0 || worker.free().min(worker.recalled) > 0;
            let is_empty = worker.slots == 0 && worker.returning.slots == 0;
            if slots > 0 {
                self.loans.say(home, LoanMessage::Return { worker: name, pool, slots, recalled });
            }
            if is_empty {
                self.drop_borrowed(Origin { home, worker: name, pool }, handle);
            } else if is_left {
                self.note_returning(handle);
            }
        }
        let rest = std::mem::replace(&mut self.loans.returning, workers);
        self.loans.returning.extend(rest);
    }

    fn announce_gone(&mut self) {
        for _ in 0..self.loans.gone.len() {
            let (peer, message) = self.loans.gone.pop_front().expect("as many as were counted");
            if self.loans.peers[usize::from(peer.0)].has_room() {
                self.loans.say(peer, message);
            } else {
                self.loans.gone.push_back((peer, message));
            }
        }
    }
}
