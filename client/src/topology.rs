//! What a node told about itself in its `Welcome`: its shards, their ports and partitions, its limits.

use crate::error::SessionError;
use tickwheel_wire::{PartitionCount, PartitionId, ShardId, frame::session::Welcome, partition_of};

/// A node as it described itself when the session was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The cluster's id.
    pub cluster: u128,
    /// The shard that the session ended up on.
    pub shard: ShardId,
    /// Tenant of this peer's identity; empty for one that may speak for any.
    pub tenant: String,
    /// Longest frame body that the node accepts, in bytes.
    pub frame_bytes_max: u32,
    /// Longest job payload that the node accepts, in bytes.
    pub payload_bytes_max: u32,
    shard_ports: Vec<u16>,
    partition_shards: Vec<u16>,
    partition_count: PartitionCount,
}

impl Topology {
    pub(crate) fn from_welcome(welcome: &Welcome<'_>) -> Result<Self, SessionError> {
        let shard_ports = numbers(welcome.shard_ports)?;
        let partition_shards = numbers(welcome.partition_shards)?;
        let partition_count = PartitionCount::new(partition_shards.len() as u64)
            .map_err(|_| SessionError::Protocol("the welcome's partition count is no power of two up to 4096"))?;
        if shard_ports.is_empty() || partition_shards.iter().any(|&shard| usize::from(shard) >= shard_ports.len()) {
            return Err(SessionError::Protocol("the welcome gives a partition to a shard without a port"));
        }
        Ok(Self {
            cluster: welcome.cluster,
            shard: ShardId(welcome.shard),
            tenant: welcome.tenant.to_owned(),
            frame_bytes_max: welcome.frame_bytes_max,
            payload_bytes_max: welcome.payload_bytes_max,
            shard_ports,
            partition_shards,
            partition_count,
        })
    }

    /// How many shards the node has, at least 1.
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.shard_ports.len()).expect("the welcome's field holds at most 65,535 ports")
    }

    /// How many partitions the cluster has.
    pub const fn partition_count(&self) -> PartitionCount {
        self.partition_count
    }

    /// The UDP port of a shard, if there is such a shard.
    pub fn port(&self, shard: ShardId) -> Option<u16> {
        self.shard_ports.get(usize::from(shard.0)).copied()
    }

    /// The shard that owns a partition, if there is such a partition.
    pub fn shard_of(&self, partition: PartitionId) -> Option<ShardId> {
        self.partition_shards.get(usize::from(partition.0)).copied().map(ShardId)
    }

    /// The partition of a job.
    pub fn partition_of(&self, tenant: &str, job: &str) -> PartitionId {
        partition_of(tenant, job, self.partition_count)
    }
}

fn numbers(bytes: &[u8]) -> Result<Vec<u16>, SessionError> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > usize::from(u16::MAX) {
        return Err(SessionError::Protocol("a list of two-byte numbers in the welcome has an odd length"));
    }
    Ok(pairs.iter().copied().map(u16::from_le_bytes).collect())
}
