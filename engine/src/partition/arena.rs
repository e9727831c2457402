//! Cold data of jobs: one entry each, in segments that are filled from the front.
//!
//! ```text
//!  slot u32 | meta u32 | created_at u56 | revision u8 | [revision u32] | [parameter u64] | name | payload | pad to 4
//!  meta: name bytes (8), has parameter (1), long revision (1), payload bytes (22), from the lowest bit up
//! ```
//!
//! The parameter is what a schedule does not share with others: the time of a one-shot, the anchor of an interval. An entry never
//! changes; its slot's number lets compaction find the record that points to it. When a quarter of the used bytes is dead,
//! each release moves a few live entries out of the emptiest segment. Handles are layout, not state.

use super::table::Table;
use crate::prefetch::prefetch_bytes;

/// Bytes per segment; a longer entry gets a segment of its own.
pub(crate) const SEGMENT_BYTES: usize = 256 << 10;
/// What the first segment of a partition begins with; it grows to four times as much, up to [`SEGMENT_BYTES`].
const FIRST_BYTES: usize = 4 << 10;
const HEAD_BYTES: usize = 16;
const PARAMETER_BYTES: usize = 8;
/// A revision that does not fit the byte in the head stands behind it.
const LONG_REVISION_BYTES: usize = 4;
const SHORT_REVISION_MAX: u32 = 255;
const NAME_BYTES_MAX: usize = (1 << 8) - 1;
const PAYLOAD_BYTES_MAX: usize = (1 << 22) - 1;
/// In the year 4253.
const CREATED_AT_MAX: u64 = (1 << 56) - 1;
/// The front of an entry that is asked for ahead: its head, and most names and payloads whole.
const PREFETCHED_BYTES: usize = 128;
const UNIT_BYTES: usize = 4;
/// Segments that a handle can address: 16 GiB.
const SEGMENTS_MAX: usize = 1 << 16;
/// Entries that one release moves at most while compacting.
const MOVES_PER_RELEASE: usize = 16;

#[derive(Debug, Default)]
struct Segment {
    bytes: Vec<u8>,
    dead_bytes: usize,
}

/// A segment that is being emptied, and how far.
#[derive(Clone, Copy, Debug)]
struct Victim {
    segment: usize,
    offset: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Arena {
    segments: Vec<Segment>,
    empty: Vec<usize>,
    active: Option<usize>,
    victim: Option<Victim>,
    used_bytes: usize,
    dead_bytes: usize,
}

/// One job's cold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub slot: u32,
    pub revision: u32,
    pub created_at: u64,
    pub parameter: Option<u64>,
    pub name: &'a str,
    pub payload: &'a [u8],
}

impl Entry<'_> {
    const fn bytes(&self) -> usize {
        let parameter = if self.parameter.is_some() { PARAMETER_BYTES } else { 0 };
        let revision = if self.has_long_revision() { LONG_REVISION_BYTES } else { 0 };
        (HEAD_BYTES + revision + parameter + self.name.len() + self.payload.len()).next_multiple_of(UNIT_BYTES)
    }

    /// The field that the layout has no room for, if there is one.
    pub const fn misfit(&self) -> Option<&'static str> {
        if self.name.len() > NAME_BYTES_MAX {
            Some("name")
        } else if self.payload.len() > PAYLOAD_BYTES_MAX {
            Some("payload")
        } else if self.created_at > CREATED_AT_MAX {
            Some("created_at")
        } else {
            None
        }
    }

    const fn has_long_revision(&self) -> bool {
        self.revision > SHORT_REVISION_MAX
    }
}

impl Arena {
    /// Whether an entry of the longest kind surely fits.
    pub fn has_room(&self) -> bool {
        self.segments.len() < SEGMENTS_MAX || !self.empty.is_empty()
    }

    /// Stores an entry and returns its handle.
    ///
    /// # Panics
    /// If the arena is full (see [`Arena::has_room`]), or a field does not fit (see [`Entry::misfit`]).
    pub fn insert(&mut self, entry: &Entry<'_>) -> u32 {
        assert_eq!(entry.misfit(), None, "fields are checked on submission, and the clock stands before the year 4253");
        let length = entry.bytes();
        let index = self.segment_for(length);
        let segment = &mut self.segments[index].bytes;
        make_room(segment, length);
        let offset = segment.len();
        let meta = u32::try_from(entry.name.len()).expect("names are short")
            | u32::from(entry.parameter.is_some()) << 8
            | u32::from(entry.has_long_revision()) << 9
            | u32::try_from(entry.payload.len()).expect("payloads are bounded") << 10;
        let short_revision = if entry.has_long_revision() { 0 } else { entry.revision };
        segment.extend_from_slice(&entry.slot.to_le_bytes());
        segment.extend_from_slice(&meta.to_le_bytes());
        segment.extend_from_slice(&(entry.created_at | u64::from(short_revision) << 56).to_le_bytes());
        if entry.has_long_revision() {
            segment.extend_from_slice(&entry.revision.to_le_bytes());
        }
        if let Some(parameter) = entry.parameter {
            segment.extend_from_slice(&parameter.to_le_bytes());
        }
        segment.extend_from_slice(entry.name.as_bytes());
        segment.extend_from_slice(entry.payload);
        segment.resize(offset + length, 0);
        self.used_bytes += length;
        handle(index, offset)
    }

    /// The entry behind a handle.
    #[inline]
    pub fn entry(&self, handle: u32) -> Entry<'_> {
        let (index, offset) = place(handle);
        read(&self.segments[index].bytes[offset..])
    }

    /// Asks for the front of an entry: its head, and most names and payloads to the end.
    #[inline]
    pub fn prefetch(&self, handle: u32) {
        let (index, offset) = place(handle);
        let bytes = &self.segments[index].bytes[offset..];
        prefetch_bytes(&bytes[..bytes.len().min(PREFETCHED_BYTES)]);
    }

    /// Gives an entry's bytes up, and moves a few others when much is dead.
    pub fn release(&mut self, handle: u32, table: &mut Table) {
        self.forget(handle);
        self.compact(table);
    }

    fn forget(&mut self, handle: u32) {
        let (index, offset) = place(handle);
        let length = read(&self.segments[index].bytes[offset..]).bytes();
        // The slot number marks the entry as dead for compaction.
        self.segments[index].bytes[offset..offset + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        self.segments[index].dead_bytes += length;
        self.dead_bytes += length;
        self.drop_if_dead(index);
    }

    pub fn memory_bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes.capacity() + size_of::<Segment>()).sum()
    }

    fn segment_for(&mut self, length: usize) -> usize {
        if let Some(active) = self.active
            && self.segments[active].bytes.len() + length <= SEGMENT_BYTES
        {
            return active;
        }
        let index = self.empty.pop().unwrap_or_else(|| {
            assert!(self.segments.len() < SEGMENTS_MAX, "the arena is full");
            self.segments.push(Segment::default());
            self.segments.len() - 1
        });
        if length > SEGMENT_BYTES / 4 {
            self.segments[index].bytes.reserve_exact(length);
        } else {
            // The first segment of a small partition grows with it; the others will be filled.
            if self.active.is_some() {
                self.segments[index].bytes.reserve_exact(SEGMENT_BYTES);
            }
            self.active = Some(index);
        }
        index
    }

    fn drop_if_dead(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        if segment.dead_bytes < segment.bytes.len() || self.active == Some(index) {
            return;
        }
        self.used_bytes -= segment.bytes.len();
        self.dead_bytes -= segment.bytes.len();
        *segment = Segment::default();
        self.empty.push(index);
        if self.victim.as_ref().is_some_and(|victim| victim.segment == index) {
            self.victim = None;
        }
    }

    fn compact(&mut self, table: &mut Table) {
        if self.victim.is_none() {
            if self.dead_bytes < SEGMENT_BYTES || self.dead_bytes < self.used_bytes / 4 {
                return;
            }
            self.victim = self.choose_victim();
        }
        for _ in 0..MOVES_PER_RELEASE {
            let Some(Victim { segment, offset }) = self.victim else { return };
            if offset == self.segments[segment].bytes.len() {
                self.drop_if_dead(segment);
                assert!(self.victim.is_none(), "a segment that was walked to its end is dead");
                return;
            }
            let entry = read(&self.segments[segment].bytes[offset..]);
            let (slot, length) = (entry.slot, entry.bytes());
            self.victim = Some(Victim { segment, offset: offset + length });
            if slot != u32::MAX {
                self.relocate(segment, offset, length, slot, table);
            }
        }
    }

    fn relocate(&mut self, segment: usize, offset: usize, length: usize, slot: u32, table: &mut Table) {
        let target = self.segment_for(length);
        assert_ne!(target, segment, "the active segment is never a victim");
        let [from, to] = self.segments.get_disjoint_mut([segment, target]).expect("two different segments that exist");
        make_room(&mut to.bytes, length);
        let new_offset = to.bytes.len();
        to.bytes.extend_from_slice(&from.bytes[offset..offset + length]);
        self.used_bytes += length;
        let record = table.record_mut(slot);
        assert_eq!(record.data, handle(segment, offset), "a live entry is its job's");
        record.data = handle(target, new_offset);
        self.forget(handle(segment, offset));
    }

    /// The segment with the largest dead share; a big entry's own segment is never worth moving.
    fn choose_victim(&self) -> Option<Victim> {
        let worth = |segment: &Segment| segment.dead_bytes > 0 && segment.bytes.len() <= SEGMENT_BYTES;
        let candidates = self.segments.iter().enumerate();
        candidates
            .filter(|(index, segment)| worth(segment) && self.active != Some(*index))
            .max_by_key(|(_, segment)| segment.dead_bytes * 1_000 / segment.bytes.len().max(1))
            .map(|(segment, _)| Victim { segment, offset: 0 })
    }
}

/// Grows a segment that `length` more bytes do not fit into.
fn make_room(segment: &mut Vec<u8>, length: usize) {
    let needed = segment.len() + length;
    if needed > segment.capacity() {
        let mut capacity = segment.capacity().max(FIRST_BYTES);
        while capacity < needed {
            capacity = (4 * capacity).min(SEGMENT_BYTES.max(needed));
        }
        segment.reserve_exact(capacity - segment.len());
    }
}

fn read(bytes: &[u8]) -> Entry<'_> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let meta = word(4);
    let (name_bytes, payload_bytes) = (meta as usize & 0xFF, meta as usize >> 10);
    let created = long(8);
    let long_revision = ((meta >> 9) & 1 == 1).then(|| word(HEAD_BYTES));
    let parameter_at = HEAD_BYTES + if long_revision.is_some() { LONG_REVISION_BYTES } else { 0 };
    let parameter = ((meta >> 8) & 1 == 1).then(|| long(parameter_at));
    let name_at = parameter_at + if parameter.is_some() { PARAMETER_BYTES } else { 0 };
    let payload_at = name_at + name_bytes;
    Entry {
        slot: word(0),
        revision: long_revision.unwrap_or(u32::from(created.to_le_bytes()[7])),
        created_at: created & CREATED_AT_MAX,
        parameter,
        name: std::str::from_utf8(&bytes[name_at..payload_at]).expect("names are stored as they came, in UTF-8"),
        payload: &bytes[payload_at..payload_at + payload_bytes],
    }
}

fn handle(segment: usize, offset: usize) -> u32 {
    u32::try_from((segment << 16) | (offset / UNIT_BYTES)).expect("segments and offsets are bounded")
}

const fn place(handle: u32) -> (usize, usize) {
    (handle as usize >> 16, (handle as usize & 0xFFFF) * UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(slot: u32, name: &'a str, payload: &'a [u8]) -> Entry<'a> {
        let parameter = (slot % 2 == 1).then_some(u64::from(slot));
        // Revisions of both lengths, each with and without a parameter.
        Entry { slot, revision: slot % 3 * 200, created_at: 7 << 40, parameter, name, payload }
    }

    fn insert(arena: &mut Arena, table: &mut Table, slot: u32, payload: &[u8]) {
        let name = format!("job-{slot}");
        let data = arena.insert(&entry(slot, &name, payload));
        table.record_mut(slot).data = data;
    }

    #[test]
    fn entries_survive_the_release_of_most_others_and_memory_comes_back() {
        const COUNT: u32 = if cfg!(miri) { 200 } else { 20_000 };
        let (mut arena, mut table) = (Arena::default(), Table::new());
        let payload = [5; if cfg!(miri) { 20_000 } else { 100 }];
        for slot in 0..COUNT {
            table.take(slot, 0);
            insert(&mut arena, &mut table, slot, &payload);
        }
        let full_bytes = arena.memory_bytes();
        for slot in (0..COUNT).filter(|slot| slot % 10 != 3) {
            arena.release(table.record(slot).data, &mut table);
        }
        for slot in (0..COUNT).filter(|slot| slot % 10 == 3) {
            let name = format!("job-{slot}");
            assert_eq!(arena.entry(table.record(slot).data), entry(slot, &name, &payload));
        }
        assert!(arena.memory_bytes() < full_bytes / 4, "{} of {full_bytes}", arena.memory_bytes());
    }

    #[test]
    fn payloads_longer_than_a_segment_are_held_and_given_back() {
        let (mut arena, mut table) = (Arena::default(), Table::new());
        table.take(0, 0);
        let payload = vec![9; 3 * SEGMENT_BYTES];
        insert(&mut arena, &mut table, 0, &payload);
        assert_eq!(arena.entry(table.record(0).data).payload, payload);
        arena.release(table.record(0).data, &mut table);
        assert!(arena.memory_bytes() < SEGMENT_BYTES);
    }
}
