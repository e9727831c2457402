//! The index from a job's name to its slot: extendible hashing (Fagin, Nievergelt, Pippenger, Strong 1979) over small tables.
//!
//! A page holds the slots whose hashes agree in their lowest bits; a full page splits in two, so that no single
//! insertion rehashes more than one page. It keeps slots alone: the caller compares names and recomputes hashes. 6 to 11 bytes
//! per job. The hash's bits are used from both ends by the pages' tables, so pages go by bits in the middle.

use hashbrown::HashTable;

/// Slots in a page before it splits: what a table of 512 buckets takes.
const PAGE_SLOTS: usize = 448;
const PAGE_BITS_SHIFT: u32 = 20;
/// Depth beyond which a page grows instead of splitting: 2^28 pages are beyond the table's slots.
const DEPTH_MAX: u8 = 28;

#[derive(Debug, Default)]
struct Page {
    depth: u8,
    slots: HashTable<u32>,
}

#[derive(Debug)]
pub(crate) struct Names {
    /// Page of each combination of the lowest `depth` bits.
    directory: Vec<u32>,
    depth: u8,
    pages: Vec<Page>,
}

impl Names {
    pub fn new() -> Self {
        Self { directory: vec![0], depth: 0, pages: vec![Page::default()] }
    }

    /// The slot with this hash for which `is_equal` holds.
    #[inline]
    pub fn find(&self, hash: u64, is_equal: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut is_equal = is_equal;
        self.pages[self.page(hash)].slots.find(hash, |&slot| is_equal(slot)).copied()
    }

    /// Adds a slot that is not there. `hash_of` gives the hash of any slot in the index.
    pub fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        // Each round halves a page, so the depth bounds them.
        while self.pages[self.page(hash)].slots.len() >= PAGE_SLOTS && self.pages[self.page(hash)].depth < DEPTH_MAX {
            self.split(self.page(hash), &hash_of);
        }
        let page = self.page(hash);
        self.pages[page].slots.insert_unique(hash, slot, |&other| hash_of(other));
    }

    /// Removes a slot.
    ///
    /// # Panics
    /// If it is not there.
    pub fn remove(&mut self, hash: u64, slot: u32) {
        let page = self.page(hash);
        let found = self.pages[page].slots.find_entry(hash, |&other| other == slot);
        found.expect("every job is in the index of names").remove();
    }

    pub fn memory_bytes(&self) -> usize {
        let tables: usize = self.pages.iter().map(|page| page.slots.allocation_size()).sum();
        tables + self.pages.capacity() * size_of::<Page>() + self.directory.capacity() * size_of::<u32>()
    }

    #[inline]
    fn page(&self, hash: u64) -> usize {
        self.directory[bits(hash) & ((1 << self.depth) - 1)] as usize
    }

    fn split(&mut self, page: usize, hash_of: &impl Fn(u32) -> u64) {
        let depth = self.pages[page].depth;
        if depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let old = std::mem::take(&mut self.pages[page].slots);
        let sibling = u32::try_from(self.pages.len()).expect("pages are fewer than slots");
        self.pages[page] = Page { depth: depth + 1, slots: HashTable::with_capacity(PAGE_SLOTS) };
        self.pages.push(Page { depth: depth + 1, slots: HashTable::with_capacity(PAGE_SLOTS) });
        for slot in old {
            let hash = hash_of(slot);
            let target = if bits(hash) >> depth & 1 == 1 { sibling as usize } else { page };
            self.pages[target].slots.insert_unique(hash, slot, |&other| hash_of(other));
        }
        // The entries that meant the old page and have the new bit set now mean its sibling.
        let step = 1 << depth;
        let first =
            self.directory.iter().position(|&entry| entry as usize == page).expect("a page is in the directory");
        for entry in ((first & (step - 1)) + step..self.directory.len()).step_by(2 * step) {
            self.directory[entry] = sibling;
        }
    }
}

const fn bits(hash: u64) -> usize {
    (hash >> PAGE_BITS_SHIFT) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickwheel_wire::mix64;

    fn hash(slot: u32) -> u64 {
        mix64(u64::from(slot))
    }

    #[test]
    fn slots_are_found_after_many_splits_and_removals() {
        const COUNT: u32 = if cfg!(miri) { 600 } else { 100_000 };
        let mut names = Names::new();
        for slot in 0..COUNT {
            names.insert(hash(slot), slot, hash);
        }
        for slot in (0..COUNT).step_by(3) {
            names.remove(hash(slot), slot);
        }
        for slot in 0..COUNT {
            let found = names.find(hash(slot), |other| other == slot);
            assert_eq!(found, (slot % 3 != 0).then_some(slot));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "compares all pairs of a full page")]
    fn equal_hashes_do_not_split_for_ever() {
        let mut names = Names::new();
        for slot in 0..1_000 {
            names.insert(42, slot, |_| 42);
        }
        assert_eq!(names.find(42, |other| other == 999), Some(999));
    }

    #[test]
    #[cfg_attr(miri, ignore = "measures memory")]
    fn an_entry_costs_at_most_eleven_and_a_half_bytes() {
        let mut names = Names::new();
        for slot in 0..200_000_u32 {
            names.insert(hash(slot), slot, hash);
            if slot > 20_000 {
                assert!(names.memory_bytes() <= slot as usize * 23 / 2, "{} at {slot}", names.memory_bytes());
            }
        }
    }
}
