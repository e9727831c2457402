//! Submissions that are remembered by their idempotency key, each until a time of its own.
//!
//! What has expired goes when the next key comes, so expiry needs no event; a look-up compares times itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tickwheel_wire::{JobId, Timestamp, planted::Mistake};

/// What a submission was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Submission {
    pub spec_hash: u128,
    pub job: JobId,
    pub revision: u32,
    pub created: bool,
    pub until: Timestamp,
}

#[derive(Debug, Default)]
pub(crate) struct Idempotency {
    submissions: BTreeMap<u128, Submission>,
    by_expiry: BTreeSet<(Timestamp, u128)>,
}

impl Idempotency {
    /// The submission with this key, if it is still remembered at `now`.
    pub fn find(&self, key: u128, now: Timestamp) -> Option<&Submission> {
        let now = now.saturating_add(Duration::from_secs(Mistake::KeyForgottenEarly.is_made().into()));
        self.submissions.get(&key).filter(|submission| submission.until > now)
    }

    /// Whether another key can be remembered at `now`.
    pub fn has_room(&self, count_max: u32, now: Timestamp) -> bool {
        self.submissions.len() < count_max as usize || self.by_expiry.first().is_some_and(|(until, _)| *until <= now)
    }

    /// Remembers a submission made at `at`, and forgets what has expired by then.
    pub fn insert(&mut self, key: u128, submission: Submission, at: Timestamp) {
        // Every round removes an entry.
        while let Some(&(until, expired)) = self.by_expiry.first().filter(|(until, _)| *until <= at) {
            self.by_expiry.remove(&(until, expired));
            self.submissions.remove(&expired);
        }
        if let Some(old) = self.submissions.insert(key, submission) {
            self.by_expiry.remove(&(old.until, key));
        }
        self.by_expiry.insert((submission.until, key));
    }

    /// Remembers a submission that a snapshot holds, whenever it expires; false if the key is there already.
    pub fn restore(&mut self, key: u128, submission: Submission) -> bool {
        let is_new = self.submissions.insert(key, submission).is_none();
        self.by_expiry.insert((submission.until, key));
        is_new
    }

    pub fn iter(&self) -> impl Iterator<Item = (&u128, &Submission)> {
        self.submissions.iter()
    }

    pub fn memory_bytes(&self) -> usize {
        // Nodes of a B-tree are two thirds full on average.
        self.submissions.len() * (size_of::<(u128, Submission)>() + size_of::<(Timestamp, u128)>()) * 3 / 2
    }
}
