//! The deterministic core of Tickwheel: what a job is, when it fires, who runs it, and how it ends.
//!
//! [`partition`] holds the durable state and changes it by events alone; [`shard`] owns partitions and everything volatile around
//! them, and is what a server drives; [`wheel`], [`schedule`] and [`dispatcher`] are its parts.
//!
//! Invariants: the same inputs at the same times give the same events, effects and digests. Deliberately absent: any
//! clock, any randomness, any thread, any I/O; `clippy.toml` beside this crate's manifest refuses them.

pub mod dispatcher;
mod hashing;
pub mod partition;
mod prefetch;
pub mod schedule;
pub mod shard;
pub mod wheel;

/// Sizes of the blocks in which the core's tables grow, ascending, in bytes: for an allocator that wants to place them well.
///
/// Chunks of job records; full rings of remembered attempts; segments of names and payloads.
pub const BLOCK_BYTES: [usize; 3] =
    [partition::RECORDS_BLOCK_BYTES, partition::ATTEMPTS_BLOCK_BYTES, partition::ENTRIES_BLOCK_BYTES];
