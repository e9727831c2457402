//! Snapshots: a partition as a row of chunks, written in slices while the partition goes on changing.
//!
//! A walk begins at one moment and describes that moment. What is small (executions in flight, workers, remembered attempts,
//! idempotency keys) is written down at once. The job table is walked slot by slot, about 128 KiB per step; before a record that the
//! walk has not reached changes, it is kept as it was (copy before write), and what it pointed to is given up only after the
//! walk. So no step takes longer than its slice, and a change costs one copy of 48 bytes.
//!
//! Each chunk is an rkyv archive, little-endian, read in place after validation; a chunk of jobs carries the definitions that its
//! jobs share, but for names and payloads. Integrity of the bytes is the storage's business, but a checksum only says that they are as they were
//! written: whatever the reader is given, it makes a partition that can go on, or an error. What it refuses is what the rest of the partition
//! relies on and would otherwise end the process over, at the read or long after. It does not judge what is merely odd.

mod image;
mod read;
#[cfg(test)]
mod tests;
mod walk;

pub use read::SnapshotReader;
pub(super) use walk::SnapshotWalk;

use std::borrow::Cow;

/// Version of the chunks' contents. The first chunk is the head, which begins with its variant's number and this, in every format.
///
/// - 1: chunks of jobs carry rules and rhythms field by field.
/// - 2: they carry definitions, in the encoding of [`tickwheel_wire::job`] that the log has too; a chunk of standings.
/// - 3: a chunk of backlogs.
/// - 4: chunks about numbered executions, the zone database, and calendars.
const FORMAT: u32 = 4;
/// The oldest that can be read.
const FORMAT_MIN: u32 = 1;
/// Far above any format there will be; a chunk that is no head but begins like one has more there.
const FORMAT_MAX: u32 = 0xFFFF;

/// One step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    /// A chunk was appended.
    Chunk,
    /// Something was done, but there is no chunk.
    Working,
    /// The last chunk was appended; the snapshot is complete.
    Done {
        /// Number of the last event that it contains.
        sequence: u64,
        /// Digest of the state that it describes.
        digest: u64,
    },
}

/// Why a snapshot cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A chunk is not what its version says.
    #[error("chunk {chunk} of the snapshot cannot be read: {reason}")]
    Malformed {
        /// Number of the chunk, from 0.
        chunk: u32,
        /// What is wrong.
        reason: String,
    },
    /// A chunk can be read, but no partition can be as it says.
    #[error("chunk {chunk} of the snapshot: `{field}` {problem}")]
    Field {
        /// Number of the chunk, from 0.
        chunk: u32,
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: Cow<'static, str>,
    },
    /// The snapshot is of another version.
    #[error("the snapshot has format {found}, this version reads {FORMAT_MIN} to {FORMAT}")]
    Format {
        /// Its version.
        found: u32,
    },
    /// The snapshot is another partition's.
    #[error("the snapshot is of partition {found}")]
    OtherPartition {
        /// Whose.
        found: u16,
    },
    /// It ends early, or was read on behind a chunk that could not be read.
    #[error("the snapshot ends after {chunks} chunks without its last one")]
    Incomplete {
        /// How many chunks there were.
        chunks: u32,
    },
    /// The restored state has another digest.
    #[error("the restored state has the digest {found:016x}, expected was {expected:016x}")]
    Digest {
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
}
