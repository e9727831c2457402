//! Jobs that will not fire again: they are kept for a while, within a bound, so that one can see how they ended.

use super::{Flag, Partition, Turn};
use std::time::Duration;
use tickwheel_wire::{
    Timestamp,
    event::{Event, JobChange},
};

/// Stale entries of the queue that are not worth removing.
const STALE_COUNT_MIN: usize = 1_024;

impl Partition {
    /// Drops one finished job whose time is up, or the oldest if there are too many. Its slot; `None`: there is none.
    pub(crate) fn expire(&mut self, turn: &mut Turn<'_>) -> Option<u32> {
        // Every round removes an entry.
        while let Some(&(until, slot)) = self.finished.front() {
            let excess = self.finished_count > self.limits.finished_max;
            if !self.is_current(until, slot) {
                self.finished.pop_front();
            } else if excess || until <= turn.now.wall {
                let change = JobChange { slot, at: turn.now.wall, next_fire: Timestamp::MAX };
                self.emit(turn.events, &Event::JobExpired(change));
                return Some(slot);
            } else {
                return None;
            }
        }
        None
    }

    /// Whether more jobs are finished than are kept.
    #[inline]
    pub(crate) const fn has_excess(&self) -> bool {
        self.finished_count > self.limits.finished_max
    }

    /// When the next finished job expires, at the earliest.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.finished.front().map(|(until, _)| *until)
    }

    /// Marks a job as finished at `at`.
    pub(super) fn finish(&mut self, slot: u32, at: Timestamp) {
        let until = at.saturating_add(Duration::from_micros(self.limits.finished_us));
        let record = self.change(slot);
        record.set(Flag::FINISHED, true);
        record.next_fire_raw = until.as_micros();
        self.finished.push_back((until, slot));
        self.finished_count += 1;
    }

    /// Takes a job out of the finished ones, if it is one.
    pub(super) fn unfinish(&mut self, slot: u32) {
        if !self.table.record(slot).is(Flag::FINISHED) {
            return;
        }
        let record = self.change(slot);
        record.set(Flag::FINISHED, false);
        let until = std::mem::replace(&mut record.next_fire_raw, u64::MAX);
        self.finished_count -= 1;
        if self.finished.front() == Some(&(Timestamp::from_micros(until), slot)) {
            self.finished.pop_front();
        } else if self.finished.len() > 2 * self.finished_count as usize + STALE_COUNT_MIN {
            let mut finished = std::mem::take(&mut self.finished);
            finished.retain(|&(until, slot)| self.is_current(until, slot));
            self.finished = finished;
        }
    }

    /// Whether the entry is of a job that is still finished since then.
    fn is_current(&self, until: Timestamp, slot: u32) -> bool {
        let record = self.table.alive(slot);
        record.is_some_and(|record| record.is(Flag::FINISHED) && record.next_fire_raw == until.as_micros())
    }

    /// Takes the finished jobs of a restored table into the queue.
    pub(super) fn restore_finished(&mut self) {
        let slots = 0..self.table.slot_count();
        let finished = slots.filter_map(|slot| {
            let record = self.table.alive(slot).filter(|record| record.is(Flag::FINISHED))?;
            Some((Timestamp::from_micros(record.next_fire_raw), slot))
        });
        let mut finished: Vec<_> = finished.collect();
        finished.sort_unstable();
        self.finished_count = u32::try_from(finished.len()).expect("there are fewer finished jobs than slots");
        self.finished = finished.into();
    }
}
