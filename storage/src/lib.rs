//! The log, snapshots and recovery of Tickwheel, over a small device trait.
//!
//! Events are opaque bytes here. A shard appends one batch per turn to its [`CommitLog`] and releases its outputs once
//! the batch is durable; everything else serves to get the same events back.
//!
//! Deliberately absent: any system call outside the devices, any clock, any thread, any meaning of events.

mod aligned;
mod commit;
pub mod device;

pub use aligned::{ALIGNMENT_BYTES, AlignedBuffer, align_up};
pub use commit::{Admission, AppendError, CommitLog, CommitSequence, LogError, Section};
pub use device::{Completion, Device, DeviceError, Durability, Entry, FileId, OpId, Task};
