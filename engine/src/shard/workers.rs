//! The workers that this shard knows: attached here or to a sibling, or away with executions in flight.
//!
//! A worker is its instance, whatever sessions it comes back with. Each attachment has a number of its own; an execution
//! remembers which attachment last claimed it. A worker that goes away has `reattach_ms` to come back; one that came back has as long to
//! claim what it still runs. What has run out is found by a walk over the executions (`reaper.rs`).

use crate::{
    dispatcher::{PoolSet, WorkerHandle},
    hashing::Map,
};
use std::{collections::BTreeSet, time::Duration};
use tickwheel_wire::{InstanceId, SessionRef};

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Attached and known to have claimed all that it runs.
    Here,
    /// Attached; what it has not claimed by then was never delivered.
    Claiming(Duration),
    /// Away; lost if it is not back by then.
    Away(Duration),
}

#[derive(Debug)]
pub(super) struct Worker {
    pub instance: InstanceId,
    pub name: Box<str>,
    pub session: Option<SessionRef>,
    /// Its handle in this shard's dispatcher, if this is its home.
    pub handle: Option<WorkerHandle>,
    pub pools: PoolSet,
    /// Number of its newest attachment, from 1; 0: not attached since recovery.
    pub attachment: u32,
    pub presence: Presence,
}

/// Entries of the front table, a power of two.
const FRONT_COUNT: usize = 256;

#[derive(Debug)]
pub(super) struct WorkerBook {
    workers: Vec<Option<Worker>>,
    free: Vec<u32>,
    by_instance: Map<InstanceId, u32>,
    by_session: Map<SessionRef, u32>,
    /// Some of `by_session`, each at its own place: a worker is looked up twice per execution, and most nodes have few.
    front: Box<[Option<(SessionRef, u32)>; FRONT_COUNT]>,
    deadlines: BTreeSet<(Duration, u32)>,
    attachment_count: u32,
}

impl Default for WorkerBook {
    fn default() -> Self {
        Self {
            workers: Vec::new(),
            free: Vec::new(),
            by_instance: Map::default(),
            by_session: Map::default(),
            front: Box::new([None; FRONT_COUNT]),
            deadlines: BTreeSet::new(),
            attachment_count: 0,
        }
    }
}

impl WorkerBook {
    /// A worker attaches. Returns the handle of its former attachment, which is void.
    pub fn attach(
        &mut self,
        instance: InstanceId,
        name: &str,
        session: SessionRef,
        pools: PoolSet,
        handle: Option<WorkerHandle>,
        claims_until: Duration,
    ) -> Option<WorkerHandle> {
        self.attachment_count = self.attachment_count.checked_add(1).expect("a process sees few attachments");
        let attachment = self.attachment_count;
        let known = self.by_instance.get(&instance).copied();
        let presence = if known.is_some() { Presence::Claiming(claims_until) } else { Presence::Here };
        let index = known.unwrap_or_else(|| self.insert(instance));
        let worker = self.workers[index as usize].as_mut().expect("the index names a worker");
        let former = worker.handle.take();
        let former_session = worker.session.replace(session);
        worker.name = name.into();
        (worker.pools, worker.handle, worker.attachment) = (pools, handle, attachment);
        self.set_presence(index, presence);
        if let Some(former) = former_session {
            self.forget_session(former);
        }
        self.by_session.insert(session, index);
        self.front[front_place(session)] = Some((session, index));
        former
    }

    /// Notes a worker that has executions in flight and has not attached since recovery.
    pub fn await_instance(&mut self, instance: InstanceId, name: &str, until: Duration) {
        if !self.by_instance.contains_key(&instance) {
            let index = self.insert(instance);
            self.worker_mut(index).name = name.into();
            self.set_presence(index, Presence::Away(until));
        }
    }

    /// A session has ended; if it was a worker's, the worker is away. Returns its handle, if it was attached here.
    pub fn detach(&mut self, session: SessionRef, until: Duration) -> Option<WorkerHandle> {
        let index = self.forget_session(session)?;
        self.set_presence(index, Presence::Away(until));
        let worker = self.worker_mut(index);
        worker.session = None;
        worker.handle.take()
    }

    #[inline]
    pub fn by_session(&self, session: SessionRef) -> Option<(u32, &Worker)> {
        let index = match self.front[front_place(session)] {
            Some((known, index)) if known == session => index,
            _ => *self.by_session.get(&session)?,
        };
        Some((index, self.worker(index)))
    }

    fn forget_session(&mut self, session: SessionRef) -> Option<u32> {
        let place = &mut self.front[front_place(session)];
        if place.is_some_and(|(known, _)| known == session) {
            *place = None;
        }
        self.by_session.remove(&session)
    }

    pub fn by_instance(&self, instance: InstanceId) -> Option<&Worker> {
        self.by_instance.get(&instance).map(|&index| self.worker(index))
    }

    pub fn handle_of(&self, session: SessionRef) -> Option<WorkerHandle> {
        self.by_session(session).and_then(|(_, worker)| worker.handle)
    }

    /// The next moment at which a worker's time runs out.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Ends the waits that have run out by `now`, to be called after a walk over all executions that began after that: who is
    /// still away is forgotten, who was claiming is just here.
    pub fn settle_expired(&mut self, now: Duration) {
        // Every round removes a deadline.
        while let Some(&(deadline, index)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, index));
            if matches!(self.worker(index).presence, Presence::Claiming(_)) {
                self.worker_mut(index).presence = Presence::Here;
            } else {
                let gone = self.workers[index as usize].take().expect("the index names a worker");
                self.by_instance.remove(&gone.instance);
                self.free.push(index);
            }
        }
    }

    #[inline]
    fn worker(&self, index: u32) -> &Worker {
        self.workers[index as usize].as_ref().expect("the index names a worker")
    }

    fn worker_mut(&mut self, index: u32) -> &mut Worker {
        self.workers[index as usize].as_mut().expect("the index names a worker")
    }

    fn insert(&mut self, instance: InstanceId) -> u32 {
        let worker = Worker {
            instance,
            name: "".into(),
            session: None,
            handle: None,
            pools: PoolSet::EMPTY,
            attachment: 0,
            presence: Presence::Here,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.workers.push(None);
            u32::try_from(self.workers.len() - 1).expect("workers are bounded by sessions")
        });
        self.workers[index as usize] = Some(worker);
        self.by_instance.insert(instance, index);
        index
    }

    fn set_presence(&mut self, index: u32, presence: Presence) {
        let former = std::mem::replace(&mut self.worker_mut(index).presence, presence);
        if let Presence::Claiming(deadline) | Presence::Away(deadline) = former {
            self.deadlines.remove(&(deadline, index));
        }
        if let Presence::Claiming(deadline) | Presence::Away(deadline) = presence {
            self.deadlines.insert((deadline, index));
        }
    }
}

/// Where the front table may hold a session. Sessions of a shard are numbered from 0 in their low bits.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
const fn front_place(session: SessionRef) -> usize {
    session.session.0 as usize % FRONT_COUNT
}
