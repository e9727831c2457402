//! How the disk behaves while it behaves.

use std::time::Duration;

/// How the disk behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Decides every delay, order and loss.
    pub seed: u64,
    /// Room for file contents. Default: no limit.
    pub capacity_bytes: u64,
    /// A write completes within this many polls after the first. Default 3; 0 makes them complete in order. Unused with a `latency`.
    pub delay_polls_max: u64,
    /// Whether completed writes and syncs leave the data volatile: a disk that lies. Default no.
    pub is_sync_ignored: bool,
    /// How long writes and the steps of tasks take, by [`advance_to`](super::SimulatedDisk::advance_to). Default: none, they
    /// count polls instead.
    pub latency: Option<Latency>,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { seed: 0, capacity_bytes: u64::MAX, delay_polls_max: 3, is_sync_ignored: false, latency: None }
    }
}

/// How long an operation takes: drawn evenly from `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// The shortest.
    pub min: Duration,
    /// The longest; not shorter than `min`.
    pub max: Duration,
}

impl Latency {
    pub(super) fn check(self) {
        assert!(self.min <= self.max, "the shortest latency is at most the longest");
    }
}
