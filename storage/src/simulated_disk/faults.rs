//! What the disk does wrong by chance, and what it did wrong without saying so.
//!
//! Every rate is in parts per 100,000 and drawn once per step that it concerns, from a stream of its own: while nothing has struck,
//! delays and orders are those of a disk without faults.

use std::path::PathBuf;

/// How often what goes wrong. Rates are parts per 100,000; default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Any write, appending and the filling of a prepared file included: an error, and any part of the range may be changed.
    pub write_error: u32,
    /// A [`Synced`](crate::Durability::Synced) write after its bytes were written, a sync, the sync of a task: an error. What of the
    /// file was not durable is abandoned then (see [`simulated_disk`](super)).
    pub sync_error: u32,
    /// Making or renaming a file, syncing a directory, in a task or not: an error, and nothing is changed.
    pub other_error: u32,
    /// A `Synced` write is reported as done and is nowhere.
    pub lost_write: u32,
    /// A `Synced` write is reported as done and lies, durable, at another aligned offset of its file or in another file, within that
    /// file's length. It is done properly where there is no such place.
    pub misdirected_write: u32,
}

/// A write that the disk reported as durable and that is not where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lie {
    /// What became of it.
    pub kind: LieKind,
    /// The file, by its present name; by its name at the time if it has none any more.
    pub path: PathBuf,
    /// Where in the file it belongs.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// Where it landed, if anywhere: the file, named as in `path`, and the offset.
    pub landed: Option<(PathBuf, u64)>,
}

/// What became of a write that the disk lied about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LieKind {
    /// It is nowhere.
    LostWrite,
    /// It is elsewhere.
    MisdirectedWrite,
}
