//! The job table: slots in chunks, so that it grows without ever moving a record.
//!
//! Free slots are linked through their records in both directions, because an event names the slot that it takes. The order
//! of the free list is layout, not state.

use super::record::{Flag, JobRecord, NONE};
use tickwheel_wire::{JobId, planted::Mistake};

/// Slots per chunk: 24 KiB.
pub(crate) const CHUNK_SLOTS: usize = 512;

#[derive(Debug)]
pub(crate) struct Table {
    chunks: Vec<Box<[JobRecord; CHUNK_SLOTS]>>,
    /// Slots that exist, from 0.
    slot_count: u32,
    alive_count: u32,
    first_free: u32,
}

impl Table {
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), slot_count: 0, alive_count: 0, first_free: NONE }
    }

    pub const fn slot_count(&self) -> u32 {
        self.slot_count
    }

    pub const fn alive_count(&self) -> u32 {
        self.alive_count
    }

    /// The record of a slot that exists.
    ///
    /// # Panics
    /// If the table has no such slot.
    #[inline]
    pub fn record(&self, slot: u32) -> &JobRecord {
        &self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS]
    }

    #[inline]
    pub fn record_mut(&mut self, slot: u32) -> &mut JobRecord {
        &mut self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS]
    }

    /// The record of a slot that exists and holds a job.
    #[inline]
    pub fn alive(&self, slot: u32) -> Option<&JobRecord> {
        if slot >= self.slot_count {
            return None;
        }
        Some(self.record(slot)).filter(|record| record.is(Flag::ALIVE))
    }

    /// The slot that the next job takes.
    pub const fn next_slot(&self) -> u32 {
        if self.first_free == NONE { self.slot_count } else { self.first_free }
    }

    /// The generation that the next job in `slot` gets.
    pub fn next_generation(&self, slot: u32) -> u32 {
        let step = u32::from(!Mistake::IdentityReused.is_made());
        if slot == self.slot_count { 0 } else { self.record(slot).generation() + step }
    }

    /// Takes `slot`, a free one or the one behind the end, and returns its record, reset but for the queued mark.
    ///
    /// # Panics
    /// If the slot holds a job or lies beyond the end.
    pub fn take(&mut self, slot: u32, generation: u32) -> &mut JobRecord {
        if slot == self.slot_count {
            self.push();
        } else {
            self.unlink(slot);
        }
        self.alive_count += 1;
        let record = self.record_mut(slot);
        record.clear();
        record.set(Flag::ALIVE, true);
        record.set_generation(generation);
        record
    }

    /// Frees a slot. A slot whose generations are used up is retired instead.
    pub fn free(&mut self, slot: u32) {
        let head = self.first_free;
        let record = self.record_mut(slot);
        assert!(record.is(Flag::ALIVE), "only a job's slot can be freed");
        let generation = record.generation();
        record.clear();
        record.set_generation(generation);
        self.alive_count -= 1;
        if generation < JobId::GENERATION_MAX {
            self.link(slot, head);
        }
    }

    /// Appends a slot as a snapshot has it; free ones are linked.
    pub fn restore(&mut self, record: JobRecord) {
        self.push();
        let slot = self.slot_count - 1;
        *self.record_mut(slot) = record;
        if record.is(Flag::ALIVE) {
            self.alive_count += 1;
        } else if record.generation() < JobId::GENERATION_MAX {
            let head = self.first_free;
            self.link(slot, head);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.chunks.len() * size_of::<[JobRecord; CHUNK_SLOTS]>() + self.chunks.capacity() * size_of::<usize>()
    }

    fn push(&mut self) {
        if self.slot_count as usize == self.chunks.len() * CHUNK_SLOTS {
            let chunk = vec![JobRecord::default(); CHUNK_SLOTS].into_boxed_slice();
            self.chunks.push(chunk.try_into().expect("the slice has the array's length"));
        }
        self.slot_count += 1;
    }

    fn link(&mut self, slot: u32, head: u32) {
        self.record_mut(slot).next_fire_raw = links(NONE, head);
        if head != NONE {
            let (_, next) = unlinked(self.record(head).next_fire_raw);
            self.record_mut(head).next_fire_raw = links(slot, next);
        }
        self.first_free = slot;
    }

    fn unlink(&mut self, slot: u32) {
        assert!(slot < self.slot_count, "the slot lies beyond the table's end");
        let record = self.record(slot);
        assert!(!record.is(Flag::ALIVE), "the slot holds a job");
        assert!(record.generation() < JobId::GENERATION_MAX, "the slot is retired");
        let (previous, next) = unlinked(record.next_fire_raw);
        if previous == NONE {
            self.first_free = next;
        } else {
            let (before, _) = unlinked(self.record(previous).next_fire_raw);
            self.record_mut(previous).next_fire_raw = links(before, next);
        }
        if next != NONE {
            let (_, after) = unlinked(self.record(next).next_fire_raw);
            self.record_mut(next).next_fire_raw = links(previous, after);
        }
    }
}

const fn links(previous: u32, next: u32) -> u64 {
    (previous as u64) << 32 | next as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the halves")]
const fn unlinked(raw: u64) -> (u32, u32) {
    ((raw >> 32) as u32, raw as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_slots_are_taken_again_with_a_new_generation_in_any_order() {
        let mut table = Table::new();
        for slot in 0..1_000 {
            assert_eq!(table.next_slot(), slot);
            table.take(slot, table.next_generation(slot));
        }
        for slot in [3, 700, 0, 999] {
            table.free(slot);
        }
        // An event may name any free slot, not only the head of the list.
        for slot in [700, 999, 3] {
            assert_eq!(table.next_generation(slot), 1);
            table.take(slot, 1);
        }
        assert_eq!(table.next_slot(), 0);
        table.take(0, 1);
        assert_eq!(table.next_slot(), 1_000);
        assert_eq!(table.alive_count(), 1_000);
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let mut table = Table::new();
        table.take(0, JobId::GENERATION_MAX);
        table.free(0);
        assert_eq!(table.next_slot(), 1);
    }
}
