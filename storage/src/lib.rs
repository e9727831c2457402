//! The log, snapshots and recovery of Tickwheel, over a small device trait.
//!
//! Events are opaque bytes here. A shard appends one batch per turn to its [`CommitLog`] and releases its outputs once
//! the batch is durable; everything else serves to get the same events back.
//!
//! | file | holds |
//! |---|---|
//! | `device.rs` | what storage needs of a disk |
//! | `commit.rs` | what a shard needs of a log |
//! | `log.rs`, `segment.rs`, `block.rs` | the log on files |
//! | `snapshot.rs`, `snapshot_policy.rs` | snapshots, and when to take them |
//! | `map.rs`, `catalog.rs` | which stream holds what, and when it can go |
//! | `recovery.rs`, `stream_reader.rs`, `window.rs` | the way back; where a stream ends |
//! | `simulated_disk.rs`, `std_files.rs` | devices: one that fails on purpose, one on plain blocking files |
//!
//! Deliberately absent: any clock, any thread, any meaning of events; the device that a server runs on.

mod aligned;
mod block;
mod catalog;
mod commit;
pub mod device;
mod error;
mod layout;
mod log;
mod map;
mod recovery;
mod segment;
pub mod simulated_disk;
mod snapshot;
mod snapshot_policy;
pub mod std_files;
mod stream_reader;
mod window;

pub use aligned::{ALIGNMENT_BYTES, AlignedBuffer, align_up};
pub use catalog::Catalog;
pub use commit::{Admission, AppendError, CommitLog, CommitSequence, LogError, Section};
pub use device::{Completion, Device, DeviceError, Durability, Entry, FileId, OpId, Task};
pub use error::{Damage, RecoverError};
pub use log::{Log, LogOptions, SpaceState};
pub use map::MAP_VERSION;
pub use recovery::{Recovered, ReplayError, ReplaySink, Replayed, ReplayedPartition, ShardStart, recover};
pub use segment::SEGMENT_VERSION;
pub use snapshot::{CHUNK_BYTES_MAX, SNAPSHOT_VERSION, SnapshotBusy, SnapshotError, SnapshotProgress, SnapshotWriter};
pub use snapshot_policy::SnapshotPolicy;
