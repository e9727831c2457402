//! Memory of the wheel's entries: chunks of contiguous entries out of one pool, and the queue of chunks that a slot is.
//!
//! ```text
//! chunk, 768 B     entry 0 | entry 1 | ... | entry 63
//! entry, 12 B      key, low half | key, high half | low 32 bits of the tick
//! ```
//!
//! Invariants: every chunk belongs to one slot or to the free list; in a slot only the first chunk may be consumed in
//! part and only the last filled in part; an empty slot owns no chunk. Links between chunks lie apart from them, dense,
//! because following the free list through cold chunks cost a third of an insertion. Chunks are this long, and copied
//! before they are cascaded, because the cache misses on one chunk overlap and those on the next do not. The pool grows by segments that
//! the operating system zeroes lazily, so growth never copies and never touches more than is used. Memory is kept
//! for reuse, never returned. Deliberately absent: order within a slot (it happens to be first in, first out).

use std::ops::Range;

/// Entries of one chunk.
pub(super) const CHUNK_ENTRIES: usize = CHUNK_FULL as usize;

/// The same, as slots count.
const CHUNK_FULL: u16 = 64;
const ENTRY_WORDS: usize = 3;
const CHUNK_WORDS: usize = CHUNK_ENTRIES * ENTRY_WORDS;
const SEGMENT_CHUNKS: usize = 1024;
const NO_CHUNK: u32 = u32::MAX;

/// Words rather than a struct, because a vector of zeroed integer arrays is allocated without being written.
type Chunk = [u32; CHUNK_WORDS];

/// One timer: the owner's key, and the low 32 bits of its tick. The slot that it lies in tells the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) tick_low: u32,
}

/// A chunk apart from the arena.
pub(super) struct ChunkCopy(Chunk);

impl ChunkCopy {
    /// Entry `index`.
    #[inline]
    pub(super) fn read(&self, index: usize) -> Entry {
        entry_in(&self.0, index)
    }
}

#[inline]
fn entry_in(chunk: &Chunk, index: usize) -> Entry {
    let [low, high, tick_low] = *chunk[index * ENTRY_WORDS..].first_chunk().expect("index in range");
    Entry { key: u64::from(high) << 32 | u64::from(low), tick_low }
}

#[derive(Debug)]
struct Segment {
    chunks: Box<[Chunk; SEGMENT_CHUNKS]>,
    /// The chunk after each, in its slot or in the free list.
    next: Box<[u32; SEGMENT_CHUNKS]>,
}

impl Segment {
    fn new() -> Self {
        let chunks = vec![[0; CHUNK_WORDS]; SEGMENT_CHUNKS].into_boxed_slice();
        Self { chunks: chunks.try_into().expect("the length fits"), next: Box::new([NO_CHUNK; SEGMENT_CHUNKS]) }
    }
}

/// The pool of chunks.
#[derive(Debug)]
pub(super) struct Arena {
    segments: Vec<Segment>,
    free: u32,
    /// Chunks that were never in use begin here.
    fresh: u32,
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self { segments: Vec::new(), free: NO_CHUNK, fresh: 0 }
    }

    /// Bytes of all segments, used or not.
    pub(super) fn memory_bytes(&self) -> usize {
        let segment_bytes =
            size_of::<Segment>() + size_of::<[Chunk; SEGMENT_CHUNKS]>() + size_of::<[u32; SEGMENT_CHUNKS]>();
        self.segments.len() * segment_bytes
    }

    #[inline]
    fn chunk(&self, chunk: u32) -> &Chunk {
        &self.segments[chunk as usize / SEGMENT_CHUNKS].chunks[chunk as usize % SEGMENT_CHUNKS]
    }

    #[inline]
    fn next_mut(&mut self, chunk: u32) -> &mut u32 {
        &mut self.segments[chunk as usize / SEGMENT_CHUNKS].next[chunk as usize % SEGMENT_CHUNKS]
    }

    /// A copy of `chunk`. Reading it at once lets the cache misses on its lines overlap.
    #[inline]
    pub(super) fn copy(&self, chunk: u32) -> ChunkCopy {
        ChunkCopy(*self.chunk(chunk))
    }

    /// Entry `index` of `chunk`.
    #[inline]
    pub(super) fn read(&self, chunk: u32, index: usize) -> Entry {
        entry_in(self.chunk(chunk), index)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the key")]
    fn write(&mut self, chunk: u32, index: usize, entry: Entry) {
        let chunks = &mut self.segments[chunk as usize / SEGMENT_CHUNKS].chunks;
        let words = &mut chunks[chunk as usize % SEGMENT_CHUNKS][index * ENTRY_WORDS..];
        *words.first_chunk_mut().expect("index in range") =
            [entry.key as u32, (entry.key >> 32) as u32, entry.tick_low];
    }

    #[inline]
    fn allocate(&mut self) -> u32 {
        let chunk = self.free;
        if chunk == NO_CHUNK {
            return self.allocate_fresh();
        }
        self.free = *self.next_mut(chunk);
        chunk
    }

    #[cold]
    fn allocate_fresh(&mut self) -> u32 {
        if self.fresh as usize == self.segments.len() * SEGMENT_CHUNKS {
            self.segments.push(Segment::new());
        }
        let chunk = self.fresh;
        assert!(chunk < NO_CHUNK, "chunk numbers have 32 bits");
        self.fresh += 1;
        chunk
    }

    #[inline]
    fn release(&mut self, chunk: u32) {
        *self.next_mut(chunk) = self.free;
        self.free = chunk;
    }
}

/// A queue of entries: 16 B, and one chunk for each 64 entries or part of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    first: u32,
    last: u32,
    /// Entries of the first chunk that were consumed.
    consumed: u16,
    /// Entries of the last chunk that are filled.
    filled: u16,
    count: u32,
}

impl Slot {
    /// How many entries it holds.
    #[inline]
    pub(super) const fn count(&self) -> usize {
        self.count as usize
    }

    /// Appends `entry`.
    #[inline]
    pub(super) fn push(&mut self, arena: &mut Arena, entry: Entry) {
        if self.count == 0 {
            let chunk = arena.allocate();
            *self = Self { first: chunk, last: chunk, consumed: 0, filled: 0, count: 0 };
        } else if self.filled == CHUNK_FULL {
            let chunk = arena.allocate();
            *arena.next_mut(self.last) = chunk;
            self.last = chunk;
            self.filled = 0;
        }
        arena.write(self.last, usize::from(self.filled), entry);
        self.filled += 1;
        self.count += 1;
    }

    /// The first entries that lie together, at most `limit`: their chunk and places. Empty when the slot is.
    #[inline]
    pub(super) fn front(&self, limit: usize) -> (u32, Range<usize>) {
        let start = usize::from(self.consumed);
        let together = if self.first == self.last { self.filled } else { CHUNK_FULL } - self.consumed;
        let length = usize::from(together).min(self.count()).min(limit);
        (self.first, start..start + length)
    }

    /// Drops the first `count` entries, all of them out of the last [`Slot::front`].
    #[inline]
    pub(super) fn consume(&mut self, arena: &mut Arena, count: usize) {
        self.consumed += u16::try_from(count).expect("a chunk holds few entries");
        self.count -= u32::try_from(count).expect("a chunk holds few entries");
        if self.count == 0 {
            arena.release(self.first);
        } else if self.consumed == CHUNK_FULL {
            let next = *arena.next_mut(self.first);
            arena.release(self.first);
            self.first = next;
            self.consumed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, CHUNK_ENTRIES, Entry, SEGMENT_CHUNKS, Slot};

    fn entry(number: u64) -> Entry {
        Entry { key: number << 30 | number, tick_low: u32::try_from(number).expect("few entries") }
    }

    fn pop(slot: &mut Slot, arena: &mut Arena, limit: usize) -> Vec<Entry> {
        let (chunk, range) = slot.front(limit);
        let entries: Vec<_> = range.map(|index| arena.read(chunk, index)).collect();
        slot.consume(arena, entries.len());
        entries
    }

    #[test]
    fn two_interleaved_slots_return_what_was_pushed_in_order() {
        let mut arena = Arena::new();
        let mut slots = [Slot::default(); 2];
        let total = 10 * CHUNK_ENTRIES as u64 + 7;
        let mut popped = [Vec::new(), Vec::new()];
        for number in 0..total {
            for (slot, popped) in slots.iter_mut().zip(&mut popped) {
                slot.push(&mut arena, entry(number));
                if number % 5 == 0 {
                    popped.extend(pop(slot, &mut arena, 3));
                }
            }
        }
        for (slot, popped) in slots.iter_mut().zip(&mut popped) {
            while slot.count() > 0 {
                popped.extend(pop(slot, &mut arena, usize::MAX));
            }
            assert_eq!(*popped, (0..total).map(entry).collect::<Vec<_>>());
        }
    }

    #[test]
    fn consumed_chunks_are_used_again() {
        let mut arena = Arena::new();
        let mut slot = Slot::default();
        for number in 0..if cfg!(miri) { 4 } else { 4 * SEGMENT_CHUNKS as u64 } * CHUNK_ENTRIES as u64 {
            slot.push(&mut arena, entry(number));
            assert_eq!(pop(&mut slot, &mut arena, 1), [entry(number)]);
        }
        assert_eq!(arena.fresh, 1, "one chunk serves them all");
    }
}
