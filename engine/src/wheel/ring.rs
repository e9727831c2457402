//! One level of the wheel: a ring of slots, each covering `2^shift` ticks.
//!
//! Invariant: at any time the occupied slots lie within one turn of the ring, so the position of a slot and the
//! wheel's cursor give its number, and the number with an entry's low bits gives the entry's exact tick.

use super::arena::{Arena, Entry, Slot};
use super::bitmap::Bitmap;

/// The ring of slots of one level. Slots are named by number: their tick divided by `2^shift`.
#[derive(Debug)]
pub(super) struct Ring {
    shift: u32,
    occupied: Bitmap,
    slots: Box<[Slot]>,
}

impl Ring {
    /// A ring of `2^(bits + 1)` slots: two windows of `2^bits`, one current and one to come.
    pub(super) fn new(shift: u32, bits: u32) -> Self {
        let slots = vec![Slot::default(); 1 << (bits + 1)].into_boxed_slice();
        assert!(slots.len() <= Bitmap::POSITIONS_MAX, "the bitmap holds one turn");
        Self { shift, occupied: Bitmap::new(), slots }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots) + size_of::<Self>()
    }

    /// The number of the slot that `tick` lies in.
    #[inline]
    pub(super) const fn number(&self, tick: u64) -> u64 {
        tick >> self.shift
    }

    /// The first tick of slot `number`.
    #[inline]
    pub(super) const fn start(&self, number: u64) -> u64 {
        number << self.shift
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to the ring")]
    fn position(&self, number: u64) -> usize {
        number as usize & (self.slots.len() - 1)
    }

    /// How many entries slot `number` holds.
    #[inline]
    pub(super) fn count(&self, number: u64) -> usize {
        self.slots[self.position(number)].count()
    }

    /// The first occupied slot at or after `number`, within one turn.
    #[inline]
    pub(super) fn next_occupied(&self, number: u64) -> Option<u64> {
        let from = self.position(number);
        let found = self.occupied.next_circular(from)?;
        Some(number + (found.wrapping_sub(from) & (self.slots.len() - 1)) as u64)
    }

    /// The first occupied position at or after `position`, up to the ring's end.
    pub(super) fn next_position(&self, position: usize) -> Option<usize> {
        self.occupied.next_linear(position)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the entry keeps the low half")]
    pub(super) fn push(&mut self, arena: &mut Arena, tick: u64, key: u64) {
        let position = self.position(self.number(tick));
        self.push_at(arena, position, Entry { key, tick_low: tick as u32 });
    }

    #[inline]
    pub(super) fn push_at(&mut self, arena: &mut Arena, position: usize, entry: Entry) {
        let slot = &mut self.slots[position];
        if slot.count() == 0 {
            self.occupied.set(position);
        }
        slot.push(arena, entry);
    }

    /// The slot numbered `number`.
    #[inline]
    pub(super) fn slot(&self, number: u64) -> Slot {
        self.slots[self.position(number)]
    }

    /// The slot at `position`.
    pub(super) fn slot_at(&self, position: usize) -> Slot {
        self.slots[position]
    }

    /// Drops the first `count` entries of slot `number`, which were in its [`Slot::front`].
    #[inline]
    pub(super) fn consume(&mut self, arena: &mut Arena, number: u64, count: usize) {
        self.consume_at(arena, self.position(number), count);
    }

    /// The same for the slot at `position`.
    #[inline]
    pub(super) fn consume_at(&mut self, arena: &mut Arena, position: usize, count: usize) {
        let slot = &mut self.slots[position];
        slot.consume(arena, count);
        if slot.count() == 0 {
            self.occupied.clear(position);
        }
    }

    /// The tick whose low bits are `tick_low` in slot `number`.
    #[inline]
    pub(super) const fn tick(&self, number: u64, tick_low: u32) -> u64 {
        self.start(number) | (tick_low as u64 & ((1 << self.shift) - 1))
    }
}
