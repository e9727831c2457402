//! Which partition to snapshot next, so that what a restart has to replay stays bounded.
//!
//! A shard's snapshots are paced by its log: each time it grew by the limit divided by twice the number of its partitions, one
//! is due, and it is the turn of the partition whose oldest event not covered by a snapshot lies furthest back. So under steady load each
//! partition is visited once per half the limit, the work is spread evenly instead of coming in bursts, a partition without new events
//! costs nothing, and the log never has to be kept for much more than half the limit.
//!
//! Invariant: what was replayed at the start counts as grown, so that frequent restarts cannot pile up log.
//! Deliberately absent: time. An idle shard takes no snapshots.

use tickwheel_wire::{PartitionCount, PartitionId};

/// Paces the snapshots of one shard. See the module.
#[derive(Debug)]
pub struct SnapshotPolicy {
    /// By partition; `None` for those of other shards.
    partitions: Vec<Option<Lag>>,
    round_bytes: u64,
    step_bytes: u64,
    /// Log that has grown and was not yet answered by a snapshot, at most that of one round.
    owed_bytes: u64,
    /// Bytes logged so far: the clock of this policy.
    position_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lag {
    /// Position of the oldest event that no snapshot covers.
    oldest: Option<u64>,
    /// Position of the oldest event that came after the snapshot under way was begun.
    oldest_since_begin: Option<u64>,
    is_under_way: bool,
}

impl SnapshotPolicy {
    /// The default of `replay_bytes_max`: about 2 s of replay at half a gigabyte per second, well under the 5 s allowed.
    pub const REPLAY_BYTES_MAX_DEFAULT: u64 = 1 << 30;

    /// A policy for a shard's `partitions`, each with the bytes that were replayed for it
    /// ([`ReplayedPartition::replayed_bytes`](crate::ReplayedPartition)); a restart shall replay about `replay_bytes_max` at most.
    pub fn new(partitions: &[(PartitionId, u64)], replay_bytes_max: u64) -> Self {
        let count = partitions.len().max(1) as u64;
        let step_bytes = (replay_bytes_max / (2 * count)).max(1);
        let mut policy = Self {
            partitions: vec![None; usize::from(PartitionCount::MAX)],
            round_bytes: step_bytes * count,
            step_bytes,
            owed_bytes: 0,
            position_bytes: 0,
        };
        for (partition, replayed_bytes) in partitions {
            let oldest = (*replayed_bytes > 0).then_some(0);
            let lag = Lag { oldest, oldest_since_begin: None, is_under_way: false };
            policy.partitions[usize::from(partition.0)] = Some(lag);
            policy.grow(*replayed_bytes);
        }
        policy
    }

    /// Tells that `bytes` of events of `partition` were appended. Cheap: called for every section.
    ///
    /// # Panics
    /// If the partition is not of this shard.
    pub fn logged(&mut self, partition: PartitionId, bytes: u64) {
        let position = self.position_bytes;
        let lag = self.lag(partition);
        let oldest = if lag.is_under_way { &mut lag.oldest_since_begin } else { &mut lag.oldest };
        oldest.get_or_insert(position);
        self.grow(bytes);
    }

    /// The partition to snapshot now, if one is due. Ask when no snapshot is under way; then call [`begun`](Self::begun).
    pub fn due(&self) -> Option<PartitionId> {
        if self.owed_bytes < self.step_bytes {
            return None;
        }
        let lags = (0u16..).map(PartitionId).zip(&self.partitions);
        let waiting =
            lags.filter_map(|(partition, lag)| lag.filter(|lag| !lag.is_under_way).map(|lag| (partition, lag)));
        waiting.filter_map(|(partition, lag)| Some((lag.oldest?, partition))).min().map(|(_, partition)| partition)
    }

    /// Tells that a snapshot of `partition` is being taken, of its state at this moment.
    ///
    /// # Panics
    /// If the partition is not of this shard, or a snapshot of it is under way.
    pub fn begun(&mut self, partition: PartitionId) {
        self.owed_bytes = self.owed_bytes.saturating_sub(self.step_bytes);
        let lag = self.lag(partition);
        assert!(!lag.is_under_way, "one snapshot of a partition at a time");
        lag.is_under_way = true;
    }

    /// Tells that the snapshot of `partition` is durable, or has failed.
    ///
    /// # Panics
    /// If none is under way.
    pub fn ended(&mut self, partition: PartitionId, is_durable: bool) {
        let lag = self.lag(partition);
        assert!(lag.is_under_way, "it was begun");
        let since = lag.oldest_since_begin.take();
        lag.is_under_way = false;
        lag.oldest = if is_durable { since } else { lag.oldest.or(since) };
    }

    fn grow(&mut self, bytes: u64) {
        self.position_bytes += bytes;
        self.owed_bytes = (self.owed_bytes + bytes).min(self.round_bytes);
    }

    fn lag(&mut self, partition: PartitionId) -> &mut Lag {
        self.partitions[usize::from(partition.0)].as_mut().expect("the partition is of this shard")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u16) -> Vec<(PartitionId, u64)> {
        (0..count).map(|id| (PartitionId(id), 0)).collect()
    }

    /// Logs `total` bytes round robin in pieces of 10, answering what is due; returns the furthest any event lay back.
    fn run(policy: &mut SnapshotPolicy, partitions: u16, total: u64) -> u64 {
        let mut worst = 0;
        for turn in 0..total / 10 {
            policy.logged(PartitionId(u16::try_from(turn % u64::from(partitions)).expect("small")), 10);
            if let Some(partition) = policy.due() {
                policy.begun(partition);
                policy.ended(partition, true);
            }
            let oldest = policy.partitions.iter().flatten().filter_map(|lag| lag.oldest).min();
            worst = worst.max(policy.position_bytes - oldest.unwrap_or(policy.position_bytes));
        }
        worst
    }

    #[test]
    fn what_a_restart_replays_stays_within_the_limit() {
        for partitions in [1, 3, 64] {
            let worst = run(&mut SnapshotPolicy::new(&ids(partitions), 100_000), partitions, 1_000_000);
            assert!((25_000..=60_000).contains(&worst), "{partitions} partitions: {worst}");
        }
    }

    #[test]
    fn an_idle_partition_is_snapshotted_once_and_then_left_alone() {
        let mut policy = SnapshotPolicy::new(&ids(2), 4_000);
        policy.logged(PartitionId(1), 10);
        let mut taken = Vec::new();
        for _ in 0..1_000 {
            policy.logged(PartitionId(0), 10);
            if let Some(partition) = policy.due() {
                policy.begun(partition);
                policy.ended(partition, true);
                taken.push(partition);
            }
        }
        assert_eq!(taken.iter().filter(|partition| partition.0 == 1).count(), 1);
        assert!(taken.len() >= 9);
    }

    #[test]
    fn what_was_replayed_at_the_start_is_owed_at_once() {
        let policy = SnapshotPolicy::new(&[(PartitionId(0), 0), (PartitionId(1), 900)], 1_000);
        assert_eq!(policy.due(), Some(PartitionId(1)));
        assert_eq!(SnapshotPolicy::new(&ids(2), 1_000).due(), None);
    }

    #[test]
    fn a_failed_snapshot_is_due_again_and_events_during_one_count_for_the_next() {
        let mut policy = SnapshotPolicy::new(&ids(1), 200);
        policy.logged(PartitionId(0), 100);
        policy.begun(PartitionId(0));
        policy.logged(PartitionId(0), 100);
        policy.ended(PartitionId(0), false);
        assert_eq!(policy.due(), Some(PartitionId(0)));
        policy.begun(PartitionId(0));
        policy.ended(PartitionId(0), true);
        policy.logged(PartitionId(0), 100);
        assert_eq!(policy.due(), Some(PartitionId(0)));
    }
}
