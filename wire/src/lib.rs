//! The vocabulary that every other crate shares: identifiers, time, frames on the network, events on the log,
//! and the byte layout of each.
//!
//! Invariants: everything here is pure data and pure functions; little-endian everywhere; decoding never panics and
//! never allocates more than the input is long. Deliberately absent: any decision, any clock, any I/O.

mod codec;
pub mod event;
pub mod frame;
mod hash;
mod id;
pub mod job;
pub mod layout;
pub mod limits;
pub mod planted;
mod time;

pub use codec::{DecodeError, Reader, Writer};
pub use hash::{mix64, name_hash, partition_of};
pub use id::{
    ExecutionId, FireSequence, InstanceId, JobId, PartitionCount, PartitionCountError, PartitionId, SessionId,
    SessionRef, ShardId, StreamId, TenantId, Token,
};
pub use time::{Now, Timestamp};
