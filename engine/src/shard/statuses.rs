//! What handlers say about the attempts that they run.
//!
//! Few do, so an execution has no room for it: it lies beside, by job and token, and goes when the attempt ends. It is volatile, as progress
//! is. Invariant: whatever has a status is running, or never gets it shown: tokens are not given twice.

use crate::hashing::Map;
use tickwheel_wire::{JobId, PartitionId, Token};

/// Most attempts of a shard that have a status; further ones are not kept. With the longest texts they take about 5 MiB.
const STATUSES_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Statuses(Map<(JobId, Token), Box<str>>);

impl Statuses {
    /// Sets the status of a running attempt; an empty one is none. Whether it is another than before.
    pub fn set(&mut self, job: JobId, token: Token, status: &str) -> bool {
        if self.of(job, token) == status {
            return false;
        }
        if status.is_empty() {
            self.forget(job, token);
            return true;
        }
        let fits = self.0.len() < STATUSES_MAX || self.0.contains_key(&(job, token));
        if fits {
            self.0.insert((job, token), status.into());
        }
        fits
    }

    /// The status of an attempt; empty: none.
    pub fn of(&self, job: JobId, token: Token) -> &str {
        self.0.get(&(job, token)).map_or("", |status| status)
    }

    /// The attempt has ended.
    #[inline]
    pub fn forget(&mut self, job: JobId, token: Token) {
        if !self.0.is_empty() {
            self.0.remove(&(job, token));
        }
    }

    /// The partition is given up.
    pub fn forget_partition(&mut self, id: PartitionId) {
        self.0.retain(|(job, _), _| job.partition() != id);
    }

    /// The attempts that have one.
    #[cfg(test)]
    pub fn attempts(&self) -> impl Iterator<Item = (JobId, Token)> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_bound_new_statuses_are_not_kept_and_kept_ones_change() {
        let (mut statuses, token) = (Statuses::default(), Token(1));
        let job = |slot: usize| JobId::new(PartitionId(0), 1, u32::try_from(slot).expect("few"));
        assert!((0..STATUSES_MAX).all(|slot| statuses.set(job(slot), token, "begun")));
        assert!(!statuses.set(job(STATUSES_MAX), token, "begun"));
        assert_eq!(statuses.of(job(STATUSES_MAX), token), "");
        assert!(statuses.set(job(7), token, "goes on") && !statuses.set(job(7), token, "goes on"));
        assert!(statuses.set(job(8), token, "") && !statuses.set(job(8), token, ""));
        assert!(statuses.set(job(STATUSES_MAX), token, "begun"), "there is room again");
        statuses.forget_partition(PartitionId(1));
        assert_eq!(statuses.of(job(7), token), "goes on");
        statuses.forget_partition(PartitionId(0));
        assert_eq!(statuses.attempts().count(), 0);
    }
}
