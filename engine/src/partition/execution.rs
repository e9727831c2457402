//! Executions in flight: dispatched and not ended, or waiting for their next attempt. What is merely due has no record here.
//!
//! The slab's indices are layout, not state. The fields of [`Volatile`] belong to the shard core, which sets them at
//! dispatch and after recovery; neither the digest nor a snapshot sees them.

use super::record::NONE;
use crate::{dispatcher::WorkerHandle, prefetch::prefetch};
use std::{iter, time::Duration};
use tickwheel_wire::{FireSequence, SessionRef, Timestamp, Token, event::Origin};

/// Which slot of its worker a running attempt takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WorkerPlace {
    /// None: its worker is away.
    #[default]
    None,
    /// One that this shard's dispatcher gave.
    Here(WorkerHandle),
    /// One that the worker's home shard was told of.
    AtHome(SessionRef),
}

/// What the shard core knows about a running attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Volatile {
    /// When its start-to-close limit ends, or its time to react to a cancellation, on the monotonic clock.
    pub deadline: Option<Duration>,
    /// When its heartbeat is overdue, on the monotonic clock.
    pub heartbeat_deadline: Option<Duration>,
    /// The worker's slot that it takes.
    pub place: WorkerPlace,
    /// The attachment of its worker that last claimed it; 0: none since recovery.
    pub attachment: u32,
    pub progress_permille: u16,
}

/// One execution in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Execution {
    /// The job; [`NONE`] in a free place.
    pub slot: u32,
    /// The job's next older execution in flight, or [`NONE`]; layout, as it follows from the fire sequences.
    pub older: u32,
    pub fire_sequence: FireSequence,
    /// The newest attempt's.
    pub token: Token,
    /// The newest attempt, from 1.
    pub attempt: u16,
    /// The partition's index of the newest attempt's worker.
    pub worker: u16,
    /// Waits for its next attempt.
    pub retrying: bool,
    pub cancel_requested: bool,
    /// Why there is the execution.
    pub origin: Origin,
    pub scheduled_at: Timestamp,
    /// When the newest attempt was dispatched.
    pub dispatched_at: Timestamp,
    /// When the next attempt may start, while `retrying`.
    pub retry_at: Timestamp,
    pub volatile: Volatile,
}

#[derive(Debug, Default)]
pub(crate) struct Executions {
    places: Vec<Execution>,
    free: Vec<u32>,
}

impl Executions {
    pub fn insert(&mut self, execution: Execution) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = execution;
                if let Some(&next) = self.free.last() {
                    prefetch(&self.places[next as usize]);
                }
                place
            }
            None => {
                self.places.push(execution);
                u32::try_from(self.places.len() - 1).expect("executions are bounded by their jobs")
            }
        }
    }

    pub fn remove(&mut self, place: u32) -> Execution {
        let removed = self.places[place as usize];
        assert_ne!(removed.slot, NONE, "only an execution in flight can end");
        self.places[place as usize].slot = NONE;
        self.free.push(place);
        removed
    }

    #[inline]
    pub fn get(&self, place: u32) -> &Execution {
        &self.places[place as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, place: u32) -> &mut Execution {
        &mut self.places[place as usize]
    }

    /// The executions of a job whose newest is at `newest`, with their places, from there to the oldest.
    #[inline]
    pub fn of_job(&self, newest: u32) -> impl Iterator<Item = (u32, &Execution)> {
        let at = |place: u32| (place != NONE).then(|| (place, self.get(place)));
        iter::successors(at(newest), move |(_, execution)| at(execution.older))
    }

    /// Takes the execution at `place` out of its job's, whose newest is at `newest`. Where the newest is now, and the execution.
    pub fn end(&mut self, newest: u32, place: u32) -> (u32, Execution) {
        let older = self.get(place).older;
        let newest = if newest == place {
            older
        } else {
            let newer = self.of_job(newest).find(|(_, execution)| execution.older == place).map(|(newer, _)| newer);
            self.get_mut(newer.expect("an execution in flight is among its job's")).older = older;
            newest
        };
        (newest, self.remove(place))
    }

    pub const fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Places, free ones included; for walks in slices.
    pub const fn place_count(&self) -> usize {
        self.places.len()
    }

    /// The execution at a place, if it is in use.
    pub fn at(&self, place: usize) -> Option<&Execution> {
        self.places.get(place).filter(|execution| execution.slot != NONE)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Execution> {
        self.places.iter().filter(|execution| execution.slot != NONE)
    }

    pub fn memory_bytes(&self) -> usize {
        self.places.capacity() * size_of::<Execution>() + self.free.capacity() * size_of::<u32>()
    }
}
