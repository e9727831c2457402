//! Bounds and defaults of a shard core.

use super::Directory;
use crate::{partition::Partition, schedule::ZoneDatabase};
use std::{sync::Arc, time::Duration};
use tickwheel_wire::{PartitionCount, ShardId, limits};

/// What a shard core needs to know about itself and its node.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard this is.
    pub shard: ShardId,
    /// How many shards the node has, at least 1.
    pub shard_count: u16,
    /// How many partitions the cluster has.
    pub partition_count: PartitionCount,
    /// The node's tenants and pools.
    pub directory: Arc<Directory>,
    /// The zones, which all shards of a node share. Default: the bundled ones.
    pub zones: ZoneDatabase,
    /// How long executions wait for their worker to come back, in milliseconds. Default 5,000.
    pub reattach_ms: u32,
    /// How long a running attempt has to stop after its cancellation was asked for, in milliseconds. Default 30,000.
    pub cancel_grace_ms: u32,
    /// How long an idempotency key is remembered when the submission names no window, in milliseconds. Default 24 h.
    pub idempotency_window_ms: u32,
    /// Longest payload of a job, in bytes. Default 256 KiB.
    pub payload_bytes_max: usize,
    /// Most executions dispatched per call of [`super::Shard::fire`]. Default 4,096.
    pub executions_per_turn_max: u32,
    /// Most watches of one session. Default 64.
    pub watches_per_session_max: u16,
    /// Most bytes of transitions that one session gets through its watches before the log has taken them; beyond, its watches end.
    /// Default 256 KiB.
    pub watch_bytes_per_turn_max: usize,
    /// Bounds of each partition.
    pub partition: PartitionLimits,
}

impl ShardConfig {
    /// A configuration with every bound at its default.
    pub fn new(shard: ShardId, shard_count: u16, partition_count: PartitionCount, directory: Arc<Directory>) -> Self {
        Self {
            shard,
            shard_count,
            partition_count,
            directory,
            zones: ZoneDatabase::bundled(),
            reattach_ms: 5_000,
            cancel_grace_ms: 30_000,
            idempotency_window_ms: 86_400_000,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX,
            executions_per_turn_max: 1_024,
            watches_per_session_max: 64,
            watch_bytes_per_turn_max: 256 << 10,
            partition: PartitionLimits::default(),
        }
    }
}

/// Bounds of one partition. They are part of how events apply (what falls off the end of a ring), so a change takes effect when
/// the partition is next loaded, and [`crate::partition::Partition::digest`] compares only equal limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLimits {
    /// Most jobs. Default 100 M.
    pub jobs_max: u32,
    /// Newest attempts that are remembered. Default 1,024.
    pub recent_max: u32,
    /// Newest dead letters that are remembered. Default 10,000.
    pub dead_letters_max: u32,
    /// Finished jobs that are kept. Default 65,536.
    pub finished_max: u32,
    /// How long a finished job is kept, in microseconds. Default 24 h.
    pub finished_us: u64,
    /// Idempotency keys that are remembered. Default 65,536.
    pub idempotency_keys_max: u32,
    /// Worker instances that the partition knows at a time. Default 16,384.
    pub workers_max: u16,
}

impl PartitionLimits {
    /// The default of [`PartitionLimits::recent_max`].
    pub const RECENT_MAX_DEFAULT: u32 = 1_024;
}

impl Default for PartitionLimits {
    fn default() -> Self {
        Self {
            jobs_max: 100_000_000,
            recent_max: Self::RECENT_MAX_DEFAULT,
            dead_letters_max: 10_000,
            finished_max: 65_536,
            finished_us: 86_400_000_000,
            idempotency_keys_max: 65_536,
            workers_max: 16_384,
        }
    }
}

impl ShardConfig {
    /// When an attempt that runs from `from` on, or is asked to end then, is past its limit.
    pub(super) fn attempt_deadline(
        &self,
        partition: &Partition,
        slot: u32,
        cancelling: bool,
        from: Duration,
    ) -> Option<Duration> {
        let policy = partition.policy(partition.slot(slot));
        let start_to_close = (policy.start_to_close_ms > 0).then(|| millis(policy.start_to_close_ms));
        let grace = cancelling.then(|| millis(self.cancel_grace_ms));
        start_to_close.into_iter().chain(grace).min().map(|limit| from + limit)
    }
}

fn millis(value: u32) -> Duration {
    Duration::from_millis(value.into())
}
