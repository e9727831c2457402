//! The commit interface: what a shard needs of its log, whatever lies beneath (files, FoundationDB).
//!
//! A shard appends one batch per turn and holds back the outputs of that turn until [`CommitLog::poll`] returns a sequence at
//! or above the batch's. Several batches are in flight; they may become durable in any order, but only the contiguous
//! prefix is ever reported, so what was released can never depend on something that was lost.
//!
//! Invariants: sequences are given out from 1 without gaps; what `poll` returns never decreases; after an error of `poll`, or
//! [`AppendError::Failed`], nothing more becomes durable through this log and the shard must recover.
//!
//! Deliberately absent: waiting. Neither call blocks; a full log refuses and the caller lets its batch grow.

use crate::DeviceError;
use std::sync::Arc;
use tickwheel_wire::{PartitionId, StreamId};

/// A commit of one log, counted from 1 over the log's life; 0 is "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitSequence(pub u64);

/// The events that one partition emitted in one turn. Opaque to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The sequence of the first event. A partition's events are counted from 1 over its whole life.
    pub first_sequence: u64,
    /// How many events `bytes` holds, 1 or more.
    pub event_count: u32,
    /// The events.
    pub bytes: &'a [u8],
}

impl Section<'_> {
    /// The sequence of the last event.
    #[inline]
    pub const fn last_sequence(&self) -> u64 {
        self.first_sequence + self.event_count as u64 - 1
    }
}

/// Whether a batch may use the space that is kept back for a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The batch takes on new obligations (submissions): refused once only the reserve is left.
    Ordinary,
    /// The batch settles obligations (completions): may use the reserve.
    Reserve,
}

/// Why a batch was not taken. Nothing of it will be durable.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// As many commits as allowed are in flight, or the next segment is not ready: try again after a `poll` that made progress.
    #[error("the log is busy")]
    Full,
    /// The disk is full: this batch may be appended once space has returned.
    #[error("no space is left for the log")]
    OutOfSpace,
    /// The batch can never be appended: it is larger than one commit may be.
    #[error("a batch of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// What it would take.
        bytes: usize,
        /// The most that a commit may take.
        bytes_max: usize,
    },
    /// The log has failed for good.
    #[error(transparent)]
    Failed(#[from] LogError),
}

/// Why a log can no longer be used. It stays so: the shard stops and recovers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A write or a sync failed; what was in flight may or may not be durable.
    #[error("stream {} has failed: {source}", stream.0)]
    Device {
        /// The stream.
        stream: StreamId,
        /// The first failure.
        source: Arc<DeviceError>,
    },
    /// Another owner has taken the stream over; commits in flight are void unless the new owner found them.
    #[error("stream {} has been taken over", stream.0)]
    Fenced {
        /// The stream.
        stream: StreamId,
    },
}

/// A log of commits with group commit. See the module.
pub trait CommitLog {
    /// Appends `batch` as one commit: all of it becomes durable or none. An empty batch is allowed and marks
    /// what is durable by then.
    ///
    /// # Errors
    /// [`AppendError`]; the log is unchanged then.
    ///
    /// # Panics
    /// If a section does not continue its partition's sequence, or is of a partition that this log does not hold.
    fn append<'a, B>(&mut self, batch: B, admission: Admission) -> Result<CommitSequence, AppendError>
    where
        B: IntoIterator<Item = Section<'a>>,
        B::IntoIter: Clone;

    /// Moves commits forward and returns the end of the contiguous durable prefix: outputs up to it may be released. Called
    /// once per turn.
    ///
    /// # Errors
    /// [`LogError`]: no commit beyond the last one reported may be counted on.
    fn poll(&mut self) -> Result<CommitSequence, LogError>;
}
