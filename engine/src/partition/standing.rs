//! What is remembered of the few jobs whose rules need more than a record holds. Durable; a plain job has none.

use std::collections::BTreeMap;
use tickwheel_wire::Timestamp;

/// What a job remembers besides its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Firings up to this time were missed and are executed one after another (misfire policy `fire-all`).
    pub missed_until: Timestamp,
    /// Firings up to this time came due while an execution was in flight, and wait (overlap policies but `skip`).
    pub overlapped_until: Timestamp,
    /// Executions that failed one after another.
    pub failures: u16,
}

impl Standing {
    const NONE: Self = Self { missed_until: Timestamp::EPOCH, overlapped_until: Timestamp::EPOCH, failures: 0 };
}

/// By slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standings(BTreeMap<u32, Standing>);

impl Standings {
    pub fn of(&self, slot: u32) -> Standing {
        self.0.get(&slot).copied().unwrap_or(Standing::NONE)
    }

    /// Sets it; one that says nothing takes no room.
    pub fn set(&mut self, slot: u32, standing: Standing) {
        if standing == Standing::NONE {
            self.0.remove(&slot);
        } else {
            self.0.insert(slot, standing);
        }
    }

    pub fn change(&mut self, slot: u32, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.of(slot);
        change(&mut standing);
        self.set(slot, standing);
    }

    pub fn remove(&mut self, slot: u32) {
        self.0.remove(&slot);
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Standing)> {
        self.0.iter().map(|(slot, standing)| (*slot, standing))
    }

    pub fn memory_bytes(&self) -> usize {
        self.0.len() * size_of::<(u32, Standing)>() * 3 / 2
    }
}
