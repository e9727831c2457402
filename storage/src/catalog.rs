//! The running node's view of the partition map: which snapshots were taken, and what of the old streams nobody needs any more.
//!
//! Invariants: a stream disappears from the map before it disappears from the disk; it disappears once the snapshots of all partitions
//! that have events in it cover them. A partition keeps its two newest snapshots.
//!
//! Deliberately absent: the streams that are being written; each [`Log`](crate::Log) trims its own. It belongs to the
//! control thread, whose device may block.

use crate::{Device, RecoverError, layout, map::PartitionMap, recovery::list_numbers, stream_reader};
use std::collections::BTreeSet;
use tickwheel_wire::{PartitionId, StreamId};

/// How many snapshots a partition keeps: the newest, and one for the case that it is damaged.
const SNAPSHOTS_KEPT: usize = 2;

/// What the node shares about streams and snapshots. See the module.
#[derive(Debug)]
pub struct Catalog {
    map: PartitionMap,
    /// The newest durable snapshot of each partition.
    covered: Vec<u64>,
    /// Partitions with a new snapshot since the last `trim`.
    renewed: BTreeSet<PartitionId>,
    /// Streams that the map on disk has forgotten but that may still be there.
    unneeded: Vec<StreamId>,
}

impl Catalog {
    pub(crate) const fn new(map: PartitionMap, covered: Vec<u64>) -> Self {
        Self { map, covered, renewed: BTreeSet::new(), unneeded: Vec::new() }
    }

    /// Tells that a snapshot of `partition` up to and including event `sequence` is durable.
    pub fn snapshot_taken(&mut self, partition: PartitionId, sequence: u64) {
        let covered = &mut self.covered[usize::from(partition.0)];
        *covered = sequence.max(*covered);
        self.renewed.insert(partition);
    }

    /// Removes streams and snapshots that are not needed any more. Blocks; called now and then, after snapshots were taken.
    ///
    /// # Errors
    /// [`RecoverError::Device`]; it may be tried again.
    pub fn trim(&mut self, device: &mut impl Device) -> Result<(), RecoverError> {
        let mut map = self.map.clone();
        let unneeded = map.trim(&self.covered);
        if !unneeded.is_empty() {
            map.store(device)?;
            self.map = map;
            self.unneeded.extend(unneeded);
        }
        while let Some(stream) = self.unneeded.last() {
            stream_reader::remove(device, *stream)?;
            self.unneeded.pop();
        }
        while let Some(partition) = self.renewed.first().copied() {
            remove_old_snapshots(device, partition)?;
            self.renewed.remove(&partition);
        }
        Ok(())
    }

    /// The streams that the map names, those being written included.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.map.streams.keys().copied()
    }
}

fn remove_old_snapshots(device: &mut impl Device, partition: PartitionId) -> Result<(), RecoverError> {
    let sequences = list_numbers(device, &layout::snapshots(partition), ".snap")?;
    let surplus = sequences.len().saturating_sub(SNAPSHOTS_KEPT);
    for sequence in &sequences[..surplus] {
        device.remove(&layout::snapshot(partition, *sequence))?;
    }
    Ok(())
}
