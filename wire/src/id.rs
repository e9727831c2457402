//! Identifiers. Each is a newtype, so that none can stand in for another.

use std::fmt;

/// A tenant, by its place in the data directory's tenant list (`default` is 0). Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u32);

/// A partition, below the cluster's [`PartitionCount`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u16);

/// A shard of one node: index of a pinned core's executor, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A log stream: one shard incarnation. Never reused within a data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Which firing of a job, counted from 1 over the job's whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FireSequence(pub u64);

/// Fencing token of one attempt: grows over the job's whole life, so that a downstream resource can refuse an old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A worker instance: 128 random bits chosen by the worker at its start, kept across reconnects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u128);

/// A session of one shard: slot index in the low half, slot generation in the high half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A session anywhere on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef {
    /// The shard that holds the connection.
    pub shard: ShardId,
    /// The session on that shard.
    pub session: SessionId,
}

/// A job's identity: partition (12 bits), generation (20 bits), slot (32 bits), from the highest bit down.
///
/// The generation grows when a slot is reused, so a re-created job is another one; a slot whose generations are used
/// up is retired.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct JobId(u64);

impl JobId {
    /// Highest generation of a slot (inclusive).
    pub const GENERATION_MAX: u32 = (1 << 20) - 1;

    /// Composes an id.
    ///
    /// # Panics
    /// If `partition` is 4096 or more, or `generation` exceeds [`JobId::GENERATION_MAX`].
    pub const fn new(partition: PartitionId, generation: u32, slot: u32) -> Self {
        assert!(partition.0 < PartitionCount::MAX, "partition ids have 12 bits");
        assert!(generation <= Self::GENERATION_MAX, "generations have 20 bits");
        Self((partition.0 as u64) << 52 | (generation as u64) << 32 | slot as u64)
    }

    /// The id whose bits are `raw`.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The bits of the id.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The partition that the job lives in.
    pub const fn partition(self) -> PartitionId {
        PartitionId((self.0 >> 52) as u16)
    }

    /// The slot's generation.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & Self::GENERATION_MAX
    }

    /// The slot within the partition's job table.
    #[expect(clippy::cast_possible_truncation, reason = "the field is the low half")]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.partition().0, self.slot(), self.generation())
    }
}

/// One firing of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutionId {
    /// The job that fired.
    pub job: JobId,
    /// Which of its firings.
    pub fire_sequence: FireSequence,
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.fire_sequence.0)
    }
}

/// How many partitions a cluster has: a power of two from 1 to 4096, fixed at its creation. Default 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionCount(u16);

/// A partition count that is not a power of two from 1 to 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the partition count must be a power of two from 1 to 4096, not {0}")]
pub struct PartitionCountError(pub u64);

impl PartitionCount {
    /// The largest count.
    pub const MAX: u16 = 4096;

    /// # Errors
    /// When `count` is not a power of two from 1 to 4096.
    pub fn new(count: u64) -> Result<Self, PartitionCountError> {
        match u16::try_from(count) {
            Ok(small) if small.is_power_of_two() && small <= Self::MAX => Ok(Self(small)),
            _ => Err(PartitionCountError(count)),
        }
    }

    /// The count.
    pub const fn count(self) -> u16 {
        self.0
    }
}

impl Default for PartitionCount {
    fn default() -> Self {
        Self(256)
    }
}
