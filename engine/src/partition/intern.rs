//! Values that many jobs share, stored once and counted.
//!
//! Indices are layout, not state: they are assigned in order of first use and reused, and neither the digest nor a snapshot
//! holds them.

use hashbrown::HashTable;
use std::hash::{Hash, Hasher};
use xxhash_rust::xxh3::Xxh3Default;

#[derive(Debug)]
struct Place<T> {
    value: Option<T>,
    uses: u32,
}

#[derive(Debug)]
pub(crate) struct Interner<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    index: HashTable<u32>,
}

impl<T: Hash + Eq> Interner<T> {
    pub const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), index: HashTable::new() }
    }

    /// Counts one more use of `value` and returns its index.
    pub fn acquire(&mut self, value: T) -> u32 {
        let hash = hash_of(&value);
        let places = &self.places;
        if let Some(&found) = self.index.find(hash, |&place| places[place as usize].value.as_ref() == Some(&value)) {
            self.places[found as usize].uses += 1;
            return found;
        }
        let fresh = Place { value: Some(value), uses: 1 };
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = fresh;
                place
            }
            None => {
                self.places.push(fresh);
                u32::try_from(self.places.len() - 1).expect("there are fewer values than jobs")
            }
        };
        let places = &self.places;
        self.index.insert_unique(hash, place, |&other| hash_of(places[other as usize].value.as_ref().expect("in use")));
        place
    }

    /// Counts one use less; the value goes with its last use.
    pub fn release(&mut self, place: u32) {
        let used = &mut self.places[place as usize];
        used.uses -= 1;
        if used.uses > 0 {
            return;
        }
        let value = used.value.take().expect("a value in use is there");
        let found = self.index.find_entry(hash_of(&value), |&other| other == place);
        found.expect("a value in use is in the index").remove();
        self.free.push(place);
    }

    #[inline]
    pub fn value(&self, place: u32) -> &T {
        self.places[place as usize].value.as_ref().expect("a value in use is there")
    }

    /// For what is derived from the value and not part of its equality.
    #[inline]
    pub fn value_mut(&mut self, place: u32) -> &mut T {
        self.places[place as usize].value.as_mut().expect("a value in use is there")
    }

    pub fn memory_bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place<T>>()
            + self.free.capacity() * size_of::<u32>()
            + self.index.allocation_size()
    }
}

fn hash_of<T: Hash>(value: &T) -> u64 {
    let mut hasher = Xxh3Default::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_stored_once_and_goes_with_its_last_use() {
        let mut interner = Interner::new();
        let first = interner.acquire("every minute");
        assert_eq!(interner.acquire("every minute"), first);
        assert_ne!(interner.acquire("every hour"), first);
        interner.release(first);
        assert_eq!(*interner.value(first), "every minute");
        interner.release(first);
        assert_eq!(interner.acquire("daily"), first, "the index is used again");
    }
}
