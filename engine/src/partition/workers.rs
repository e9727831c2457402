//! The worker instances that a partition's executions and remembered attempts refer to.
//!
//! Events name a worker by two bytes. An index is taken again when nothing refers to it any more and the table has grown beyond
//! a few hundred entries, so that workers that come and go do not fill it, and the ones at work are not announced again and again.
//! Running attempts are counted; whether a remembered attempt refers to an index is asked only when one is taken again.

use tickwheel_wire::InstanceId;

/// Entries before unused indices are taken again.
const REUSE_COUNT_MIN: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerEntry {
    pub instance: InstanceId,
    pub name: Box<str>,
    /// Running attempts that name it; derived.
    pub uses: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Workers {
    entries: Vec<WorkerEntry>,
    /// Where the search for an unused index goes on; volatile.
    cursor: usize,
}

impl Workers {
    /// The index for a worker that has none yet, if one can be had. `remembered` gives the workers of remembered attempts.
    pub fn vacancy<I: Iterator<Item = u16>>(&mut self, count_max: u16, remembered: impl FnOnce() -> I) -> Option<u16> {
        let count = self.entries.len();
        if count < REUSE_COUNT_MIN.min(usize::from(count_max)) {
            return u16::try_from(count).ok();
        }
        let mut is_remembered = vec![false; count];
        remembered().for_each(|index| is_remembered[usize::from(index)] = true);
        for step in 0..count {
            let index = (self.cursor + step) % count;
            if self.entries[index].uses == 0 && !is_remembered[index] {
                self.cursor = index + 1;
                return u16::try_from(index).ok();
            }
        }
        u16::try_from(count).ok().filter(|&index| index < count_max)
    }

    /// Gives `index` to an instance.
    ///
    /// # Panics
    /// If the index is in use or leaves a gap.
    pub fn set(&mut self, index: u16, instance: InstanceId, name: &str) {
        let entry = WorkerEntry { instance, name: name.into(), uses: 0 };
        match self.entries.get_mut(usize::from(index)) {
            Some(old) => {
                assert_eq!(old.uses, 0, "a worker that is referred to keeps its index");
                *old = entry;
            }
            None => {
                assert_eq!(usize::from(index), self.entries.len(), "indices leave no gap");
                self.entries.push(entry);
            }
        }
    }

    #[inline]
    pub fn entry(&self, index: u16) -> &WorkerEntry {
        &self.entries[usize::from(index)]
    }

    #[inline]
    pub fn get(&self, index: u16) -> Option<&WorkerEntry> {
        self.entries.get(usize::from(index))
    }

    #[inline]
    pub fn acquire(&mut self, index: u16) {
        self.entries[usize::from(index)].uses += 1;
    }

    #[inline]
    pub fn release(&mut self, index: u16) {
        self.entries[usize::from(index)].uses -= 1;
    }

    pub const fn count(&self) -> usize {
        self.entries.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u16, &WorkerEntry)> {
        (0..).zip(&self.entries)
    }

    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<WorkerEntry>()
            + self.entries.iter().map(|entry| entry.name.len()).sum::<usize>()
    }
}
