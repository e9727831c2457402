//! A queue of session slots that need attention, each at most once.
//!
//! It is what keeps a turn's cost independent of the number of sessions: only slots that something happened to are
//! visited. Invariants: a slot is queued at most once, so the length is bounded by the number of slots; first in,
//! first out, so no session waits behind another one's second visit.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(crate) struct WorkList {
    queue: VecDeque<u32>,
    is_queued: Vec<bool>,
}

impl WorkList {
    /// Queues `slot` at the back unless it is queued already.
    pub(crate) fn push(&mut self, slot: u32) {
        let index = slot as usize;
        if index >= self.is_queued.len() {
            self.is_queued.resize(index + 1, false);
        }
        if !self.is_queued[index] {
            self.is_queued[index] = true;
            self.queue.push_back(slot);
        }
    }

    /// Takes the slot at the front.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let slot = self.queue.pop_front()?;
        self.is_queued[slot as usize] = false;
        Some(slot)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_queued_once_and_served_in_order() {
        let mut list = WorkList::default();
        for slot in [7, 3, 7, 3, 9] {
            list.push(slot);
        }
        assert_eq!(list.len(), 3);
        assert_eq!([list.pop(), list.pop()], [Some(7), Some(3)]);
        list.push(7);
        assert_eq!([list.pop(), list.pop(), list.pop()], [Some(9), Some(7), None]);
    }
}
