//! The earliest deadline of many sessions: a binary min-heap that knows where each slot stands in it.
//!
//! Every slot has at most one entry, moved in place when its deadline changes, so no stale entries pile up although most
//! deadlines are pushed back long before they are due. Looking at the earliest costs nothing, a change O(log n).

use std::time::Instant;

const ABSENT: u32 = u32::MAX;

/// Deadlines by slot.
#[derive(Debug, Default)]
pub(crate) struct Timeouts {
    heap: Vec<(Instant, u32)>,
    /// Index in `heap` of each slot's entry, or [`ABSENT`].
    positions: Vec<u32>,
}

impl Timeouts {
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|&(at, _)| at)
    }

    /// Sets or, with `None`, clears the deadline of `slot`.
    pub(crate) fn set(&mut self, slot: u32, deadline: Option<Instant>) {
        if slot as usize >= self.positions.len() {
            self.positions.resize(slot as usize + 1, ABSENT);
        }
        match (self.positions[slot as usize], deadline) {
            (ABSENT, None) => {}
            (ABSENT, Some(at)) => {
                self.heap.push((at, slot));
                self.sift_up(self.heap.len() - 1);
            }
            (position, None) => self.remove(position as usize),
            (position, Some(at)) => {
                let position = position as usize;
                let earlier = at < self.heap[position].0;
                self.heap[position].0 = at;
                if earlier { self.sift_up(position) } else { self.sift_down(position) }
            }
        }
    }

    /// Takes a slot whose deadline is `now` or earlier, the earliest first.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let &(at, slot) = self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove(0);
        Some(slot)
    }

    fn remove(&mut self, position: usize) {
        let (_, slot) = self.heap.swap_remove(position);
        self.positions[slot as usize] = ABSENT;
        if position < self.heap.len() {
            // The entry that fills the gap may belong above or below it; at most one of the two moves it.
            self.sift_up(position);
            self.sift_down(position);
        }
    }

    fn sift_up(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].0 <= self.heap[position].0 {
                break;
            }
            self.heap.swap(parent, position);
            self.place(position);
            position = parent;
        }
        self.place(position);
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            let Some(&(left_at, _)) = self.heap.get(left) else { break };
            let right_is_earlier = self.heap.get(left + 1).is_some_and(|&(at, _)| at < left_at);
            let child = left + usize::from(right_is_earlier);
            if self.heap[position].0 <= self.heap[child].0 {
                break;
            }
            self.heap.swap(position, child);
            self.place(position);
            position = child;
        }
        self.place(position);
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer entries than slots, which are u32")]
    fn place(&mut self, position: usize) {
        let slot = self.heap[position].1;
        self.positions[slot as usize] = position as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, time::Duration};

    proptest! {
        #[test]
        fn deadlines_come_out_as_from_a_sorted_map(
            steps in prop::collection::vec((0u32..40, prop::option::weighted(0.8, 0u64..1000), 0u64..60), 1..400)
        ) {
            let origin = Instant::now();
            let mut now = origin;
            let (mut timeouts, mut model) = (Timeouts::default(), BTreeMap::new());
            for (slot, delay_ms, advance_ms) in steps {
                let deadline = delay_ms.map(|ms| now + Duration::from_millis(ms));
                timeouts.set(slot, deadline);
                match deadline {
                    Some(at) => model.insert(slot, at),
                    None => model.remove(&slot),
                };
                now += Duration::from_millis(advance_ms);
                prop_assert_eq!(timeouts.next(), model.values().min().copied());
                let mut last = None;
                while let Some(slot) = timeouts.pop_due(now) {
                    let at = model.remove(&slot);
                    prop_assert!(at.is_some_and(|at| at <= now) && last <= at);
                    last = at;
                }
                prop_assert!(model.values().all(|&at| at > now));
            }
        }
    }
}
