//! Snapshots beside the running shard: one partition at a time, a bounded step per turn, so that replay stays short.
//!
//! A snapshot is begun once enough of its partition's events lie in the log, walked in chunks while the partition goes on, and
//! published only when the log is durable up to the event it ends with. A snapshot that fails is a warning: the log still has
//! everything, and a later one covers it.

use super::ShardLog;
use crate::node::Control;
use tickwheel_engine::{partition::SnapshotStep, shard::Shard as Core};
use tickwheel_storage::{CommitSequence, Device, SnapshotPolicy, SnapshotProgress, SnapshotWriter};
use tickwheel_wire::PartitionId;

/// Steps of the walk in one turn.
const STEPS_MAX: usize = 2;

/// The snapshots of one shard, written through a device of their own.
pub struct Snapshots<D> {
    writer: SnapshotWriter<D>,
    policy: SnapshotPolicy,
    walk: Option<Walk>,
    chunk: Vec<u8>,
}

struct Walk {
    partition: PartitionId,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Chunks are being taken.
    Walking,
    /// All chunks are taken; the footer waits for this commit, the last one that holds events of the snapshot.
    Complete { digest: u64, needs: CommitSequence },
    /// The file is on its way to being published.
    Publishing,
}

impl<D: Device> Snapshots<D> {
    /// Snapshots through `writer`; `replayed` says how many bytes of events a restart would replay for each partition.
    pub fn new(writer: SnapshotWriter<D>, replayed: &[(PartitionId, u64)], replay_bytes_max: u64) -> Self {
        Self { writer, policy: SnapshotPolicy::new(replayed, replay_bytes_max), walk: None, chunk: Vec::new() }
    }

    /// Notes what was appended to the log.
    pub fn logged(&mut self, sections: impl Iterator<Item = (PartitionId, usize)>) {
        for (partition, bytes) in sections {
            self.policy.logged(partition, bytes as u64);
        }
    }

    /// Whether the next turn goes a step further without anything from the device.
    pub fn is_walking(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| matches!(walk.stage, Stage::Walking)) && self.writer.can_push()
    }

    /// The device.
    pub const fn device_mut(&mut self) -> &mut D {
        self.writer.device_mut()
    }

    /// Goes one bounded step further. `commits` are the newest commit and the newest durable one.
    pub fn advance(
        &mut self,
        core: &mut Core,
        log: &mut impl ShardLog,
        commits: (CommitSequence, CommitSequence),
        control: &Control,
    ) {
        let (appended, durable) = commits;
        if self.walk.is_none() {
            let Some(partition) = self.policy.due() else { return };
            self.begin(core, partition);
        }
        self.poll(core, log, control);
        for _ in 0..STEPS_MAX {
            let Some(walk) = &mut self.walk else { break };
            match walk.stage {
                Stage::Walking if self.writer.can_push() => self.step(core, appended),
                Stage::Complete { digest, needs } if needs <= durable => {
                    if self.writer.finish(digest).is_ok() {
                        walk.stage = Stage::Publishing;
                    }
                }
                _ => break,
            }
        }
    }

    fn begin(&mut self, core: &mut Core, partition: PartitionId) {
        let sequence = core.partition(partition).expect("the policy knows this shard's partitions only").sequence();
        assert!(core.begin_snapshot(partition), "one snapshot is written at a time");
        self.policy.begun(partition);
        self.writer.begin(partition, sequence);
        self.walk = Some(Walk { partition, stage: Stage::Walking });
    }

    fn step(&mut self, core: &mut Core, appended: CommitSequence) {
        let Some(walk) = &mut self.walk else { return };
        self.chunk.clear();
        let step = core.snapshot_step(walk.partition, &mut self.chunk).expect("the partition stays on this shard");
        if !self.chunk.is_empty() {
            self.writer.push_chunk(&self.chunk).expect("asked before");
        }
        if let SnapshotStep::Done { digest, .. } = step {
            // Everything that the snapshot holds was emitted before it began, so it is in this commit at the latest.
            walk.stage = Stage::Complete { digest, needs: appended };
        }
    }

    fn poll(&mut self, core: &mut Core, log: &mut impl ShardLog, control: &Control) {
        match self.writer.poll() {
            Ok(SnapshotProgress::Published { partition, sequence }) => {
                self.walk = None;
                self.policy.ended(partition, true);
                log.snapshot_taken(partition, sequence);
                control.snapshot_taken(partition, sequence);
                tracing::debug!(partition = partition.0, sequence, "snapshot published");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "a snapshot was given up");
                if let Some(walk) = self.walk.take() {
                    core.abandon_snapshot(walk.partition);
                    self.policy.ended(walk.partition, false);
                }
            }
        }
    }
}
