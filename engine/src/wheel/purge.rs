//! Removal of dead entries, in slices.
//!
//! A pass goes over all entries once, from the latest to the lowest level: entries that cascade meanwhile go where the pass has
//! yet to come, so it misses none that was dead when it began. A pass begins when a quarter of all entries is dead, so
//! the four or so entries that it examines for each that it removes bound the amortised cost.

use super::arena::{CHUNK_ENTRIES, Entry};
use super::{Armed, LEVELS, Wheel, low_half};

/// Fewer dead entries than this (12 B each) are left alone.
const DEAD_COUNT_MIN: usize = 64;

/// How far a pass has come.
#[derive(Debug)]
pub(super) enum Sweep {
    /// Beyond the rings, after this (tick, key).
    Beyond(Option<(u64, u64)>),
    /// In a ring: the position, and how many entries of its slot are still to be examined.
    Ring { level: usize, position: usize, slot_left: usize },
}

impl Wheel {
    /// Examines about `limit` entries (up to a chunk of 64 more) and removes those that `is_live` calls dead, when
    /// enough are dead to be worth it; else it costs nothing. Returns whether a pass is unfinished.
    ///
    /// Dead entries never outnumber live ones (beyond the first 64 dead ones) if the owner calls it after each batch of
    /// work with a limit of 8 for every insertion, cancellation and delivery of the batch. Copies of one
    /// (key, tick) pair count as dead but for one.
    ///
    /// # Panics
    /// If `is_live` calls more entries dead than were cancelled.
    pub fn purge(&mut self, limit: usize, mut is_live: impl FnMut(u64, Armed) -> bool) -> bool {
        if self.sweep.is_none() && self.dead_count >= DEAD_COUNT_MIN && self.dead_count >= self.count / 4 {
            self.sweep = Some(Sweep::Beyond(None));
        }
        let mut left = limit;
        while let Some(sweep) = self.sweep.take_if(|_| left > 0) {
            // A step that examines nothing looks for the next slot, which costs about as much as an entry.
            let examined = self.purge_step(sweep, &mut is_live);
            left = left.saturating_sub(examined.max(1));
        }
        self.sweep.is_some()
    }

    /// Takes the pass one step further; how many entries it examined.
    fn purge_step(&mut self, sweep: Sweep, is_live: &mut impl FnMut(u64, Armed) -> bool) -> usize {
        let highest = Sweep::Ring { level: LEVELS - 1, position: 0, slot_left: 0 };
        let (next, examined) = match sweep {
            Sweep::Beyond(previous) => match self.purge_beyond(previous, is_live) {
                None => (Some(highest), 0),
                examined => (Some(Sweep::Beyond(examined)), 1),
            },
            Sweep::Ring { level, position, slot_left: 0 } => match self.rings[level].next_position(position) {
                Some(position) => {
                    let slot_left = self.rings[level].slot_at(position).count();
                    (Some(Sweep::Ring { level, position, slot_left }), 0)
                }
                None if level > 0 => (Some(Sweep::Ring { level: level - 1, position: 0, slot_left: 0 }), 0),
                None => (None, 0),
            },
            Sweep::Ring { level, position, slot_left } => {
                let examined = self.purge_chunk(level, position, slot_left, is_live);
                let slot_left = if examined == 0 { 0 } else { slot_left - examined };
                let position = position + usize::from(slot_left == 0);
                (Some(Sweep::Ring { level, position, slot_left }), examined)
            }
        };
        self.sweep = next;
        examined
    }

    /// Examines the first pair after `previous` and returns it.
    fn purge_beyond(
        &mut self,
        previous: Option<(u64, u64)>,
        is_live: &mut impl FnMut(u64, Armed) -> bool,
    ) -> Option<(u64, u64)> {
        let (tick, key) = self.beyond.after(previous)?;
        let removed = self.beyond.keep((tick, key), is_live(key, Armed::of(low_half(tick))));
        self.count -= removed;
        self.remove_dead(removed);
        Some((tick, key))
    }

    /// Takes the first entries of a slot, at most `limit` and one chunk, and appends those that live to the same slot
    /// again. So the slot stays dense. Returns how many it took: none when the slot was emptied meanwhile.
    fn purge_chunk(
        &mut self,
        level: usize,
        position: usize,
        limit: usize,
        is_live: &mut impl FnMut(u64, Armed) -> bool,
    ) -> usize {
        let ring = &mut self.rings[level];
        let arena = if level == 0 { &mut self.near } else { &mut self.far };
        let slot = ring.slot_at(position);
        if slot.count() == 0 {
            return 0;
        }
        let (chunk, range) = slot.front(limit);
        let mut entries = [Entry::default(); CHUNK_ENTRIES];
        let entries = &mut entries[..range.len()];
        for (entry, index) in entries.iter_mut().zip(range) {
            *entry = arena.read(chunk, index);
        }
        ring.consume_at(arena, position, entries.len());
        // Sorting brings copies together: an owner that arms and cancels one deadline for ever must not fill the memory.
        entries.sort_unstable();
        let mut removed = 0;
        let mut previous = None;
        for &entry in entries.iter() {
            if previous == Some(entry) || !is_live(entry.key, Armed::of(entry.tick_low)) {
                removed += 1;
            } else {
                ring.push_at(arena, position, entry);
            }
            previous = Some(entry);
        }
        self.count -= removed;
        self.remove_dead(removed);
        entries.len()
    }
}
