//! Why the data directory cannot be recovered.

use crate::DeviceError;
use std::path::PathBuf;
use tickwheel_wire::{PartitionId, StreamId};

/// What is wrong at a place that should hold data known to be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file's header or frame cannot be read.
    #[error("the header is damaged")]
    Header,
    /// The partition map's checksum or contents are wrong.
    #[error("the partition map is damaged: {0}")]
    Map(&'static str),
    /// A block that was durable cannot be read.
    #[error("block {sequence} is unreadable although it was durable")]
    Block {
        /// Its sequence in the stream; 0 when not even that can be known.
        sequence: u64,
    },
    /// A block is readable but does not follow the one before it.
    #[error("block {sequence} does not follow its predecessor")]
    Chain {
        /// Its sequence in the stream.
        sequence: u64,
    },
    /// A block is intact but its sections make no sense.
    #[error("the sections of block {sequence} make no sense: {reason}")]
    Sections {
        /// Its sequence in the stream.
        sequence: u64,
        /// What does not decode.
        reason: tickwheel_wire::DecodeError,
    },
    /// A segment in the middle of a stream, or a whole stream, is gone.
    #[error("the file or directory is missing")]
    Missing,
    /// A partition's events do not continue where its snapshot or the section before ended.
    #[error("partition {} continues at event {found} where {expected} was expected", partition.0)]
    Gap {
        /// The partition.
        partition: PartitionId,
        /// The event that should come next.
        expected: u64,
        /// The first event found.
        found: u64,
    },
    /// A partition's last events, which the partition map names, are not in the stream.
    #[error("partition {} ends before event {expected}", partition.0)]
    Short {
        /// The partition.
        partition: PartitionId,
        /// The last event that the map names.
        expected: u64,
    },
    /// A snapshot cannot be read.
    #[error("the snapshot is damaged")]
    Snapshot,
    /// A stream exists that the partition map has not given out yet.
    #[error("stream {} is unknown to the partition map", stream.0)]
    UnknownStream {
        /// The stream.
        stream: StreamId,
    },
}

/// Why recovery stopped. What was durable is still on disk: until the new partition map is written nothing is changed, and after
/// it only what is not needed any more is removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The disk refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Data that was durable is not what was written.
    #[error("{} is damaged at offset {offset}: {damage}", path.display())]
    Damaged {
        /// The file, relative to the data directory.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// No snapshot of a partition can be read, and the log does not reach back far enough to do without.
    #[error(
        "no snapshot of partition {} can be read (the newest is {}) and its log does not reach back to event {needed}",
        partition.0,
        newest.display()
    )]
    NoSnapshot {
        /// The partition.
        partition: PartitionId,
        /// Its newest snapshot, which is damaged.
        newest: PathBuf,
        /// The first event that the log would have to hold.
        needed: u64,
    },
    /// A file was written by a newer version of the program.
    #[error("{} has format version {found}, this version reads up to {supported}: use the newer program", path.display())]
    Version {
        /// The file, relative to the data directory.
        path: PathBuf,
        /// The version that it has.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// The data directory was made for another number of partitions.
    #[error("the data directory has {found} partitions, the configuration says {configured}")]
    PartitionCount {
        /// That of the data directory.
        found: u16,
        /// That of the configuration.
        configured: u16,
    },
}

impl RecoverError {
    pub(crate) fn damaged(path: impl Into<PathBuf>, offset: u64, damage: Damage) -> Self {
        Self::Damaged { path: path.into(), offset, damage }
    }
}
