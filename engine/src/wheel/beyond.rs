//! Deadlines later than the highest level reaches, 4.5 to 9 years ahead: a sorted map, because they are rare and a ring
//! would waste a chunk on each. They enter the highest level when it reaches them.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The entries beyond the rings. A (tick, key) pair may be there several times, so that dead copies stay accounted.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    copies: BTreeMap<(u64, u64), u32>,
}

impl Beyond {
    pub(super) fn insert(&mut self, tick: u64, key: u64) {
        *self.copies.entry((tick, key)).or_default() += 1;
    }

    pub(super) fn first_tick(&self) -> Option<u64> {
        self.copies.first_key_value().map(|(&(tick, _), _)| tick)
    }

    /// Removes one copy of the first (tick, key).
    pub(super) fn pop_first(&mut self) -> Option<(u64, u64)> {
        let mut first = self.copies.first_entry()?;
        *first.get_mut() -= 1;
        let entry = *first.key();
        if *first.get() == 0 {
            first.remove();
        }
        Some(entry)
    }

    /// The first (tick, key) after `previous`.
    pub(super) fn after(&self, previous: Option<(u64, u64)>) -> Option<(u64, u64)> {
        let start = previous.map_or(Bound::Unbounded, Bound::Excluded);
        self.copies.range((start, Bound::Unbounded)).next().map(|(&entry, _)| entry)
    }

    /// Keeps one copy of `entry`, or none; returns how many were removed.
    pub(super) fn keep(&mut self, entry: (u64, u64), live: bool) -> usize {
        let Some(copies) = self.copies.get_mut(&entry) else { return 0 };
        let removed = *copies - u32::from(live);
        if live {
            *copies = 1;
        } else {
            self.copies.remove(&entry);
        }
        removed as usize
    }

    /// An estimate: the nodes of a B-tree are at least half full, two thirds on average.
    pub(super) fn memory_bytes(&self) -> usize {
        self.copies.len() * size_of::<((u64, u64), u32)>() * 3 / 2
    }
}
