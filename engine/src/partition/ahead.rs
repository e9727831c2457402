//! Asking for what a decision about a job will need, before it is made; see [`crate::prefetch`].
//!
//! In steps, because a job's record says where its execution and its texts are.

use super::{Partition, record::NONE};
use crate::prefetch::prefetch;

impl Partition {
    /// Asks for the record of the job in `slot`, if there is such a slot.
    #[inline]
    pub(crate) fn prefetch_record(&self, slot: u32) {
        if slot < self.table.slot_count() {
            prefetch(self.table.record(slot));
        }
    }

    /// Asks for the execution in flight of the job in `slot`, if it has one. Reads its record.
    #[inline]
    pub(crate) fn prefetch_execution(&self, slot: u32) {
        if slot < self.table.slot_count() && self.table.record(slot).execution != NONE {
            prefetch(self.executions.get(self.table.record(slot).execution));
        }
    }

    /// Asks for name and payload of the job in `slot`, if there is one. Reads its record.
    #[inline]
    pub(crate) fn prefetch_entry(&self, slot: u32) {
        if slot < self.table.slot_count() && self.table.record(slot).data != NONE {
            self.arena.prefetch(self.table.record(slot).data);
        }
    }
}
