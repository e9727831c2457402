//! What storage needs of a disk: one small trait, completion-based where it is hot, blocking where it is cold.
//!
//! Every path is relative to the data directory. A device belongs to one thread; a shard has one for its log and another
//! for its snapshots, and the control thread has one for what the whole node shares.
//!
//! The hot side never blocks: [`submit_write`](Device::submit_write) and [`submit_task`](Device::submit_task) hand over an operation
//! and return its id, [`poll`](Device::poll) tells which are done, in any order. A device may hold submissions back until the next `poll`,
//! which is called once per turn of a shard, so that one system call serves them all. It accepts every
//! submission: how many are in flight is bounded by the callers.
//!
//! The cold side may block and serves start-up, recovery and the control thread.
//!
//! Deliberately absent: retries. A file that failed to write or to sync is never tried again in place, because a kernel may
//! drop the dirty pages and report success the second time (Rebello et al., "Can Applications Recover from fsync
//! Failures?", 2020). The caller gives the file up.

use crate::AlignedBuffer;
use std::{
    io,
    path::{Path, PathBuf},
};

/// An open file of one device. Not valid on another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A submitted operation of one device. Never reused within the device's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What the completion of a write promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The bytes survive a loss of power: the write and its sync are done.
    Synced,
    /// Nothing yet; [`Task::Publish`] on the same file makes all of them durable.
    Unsynced,
}

/// Slow work that must not stop a shard, done elsewhere (a helper thread) and reported by [`Device::poll`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Makes a file of exactly `bytes` bytes at `path`: reserves the space, writes `head` at offset 0 and zeroes (real ones, not a
    /// hole) behind it, syncs it, and only then lets it appear under `path`, durably: after a crash the file is whole or absent.
    /// To that end it is built at `path` with `.tmp` appended, renamed, and its directory synced. The completion
    /// carries the file, open for aligned writes. When it fails, the temporary file is removed so that its space returns.
    Prepare {
        /// Where the file appears; its directory exists.
        path: PathBuf,
        /// The file's length, a multiple of the alignment.
        bytes: u64,
        /// What the file begins with, shorter than `bytes`.
        head: Vec<u8>,
    },
    /// Makes an empty file at `path`, replacing one left from earlier. The completion carries the file, open for aligned
    /// writes. Nothing is durable.
    Create {
        /// Where the file appears; its directory exists.
        path: PathBuf,
    },
    /// Syncs `file`, closes it, renames it `from` -> `to` (replacing) and syncs `to`'s directory: afterwards the whole file is durable
    /// under `to`. On failure `to` is unchanged or already the new file; `file` is closed either way.
    Publish {
        /// The file, made by [`Task::Create`]; none of its writes is in flight.
        file: FileId,
        /// Where it was created.
        from: PathBuf,
        /// Where it shall be, in the same directory.
        to: PathBuf,
    },
    /// Removes the file at `path`, durably (its directory is synced). One that is missing already is no error.
    Remove {
        /// The file.
        path: PathBuf,
    },
}

/// An operation that is over.
#[derive(Debug)]
pub struct Completion {
    /// Which one.
    pub op: OpId,
    /// The buffer of a write, for reuse, whether it succeeded or not; `None` for a task.
    pub buffer: Option<AlignedBuffer>,
    /// `Some(file)` when the operation opened one ([`Task::Prepare`], [`Task::Create`]).
    pub result: Result<Option<FileId>, DeviceError>,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name, without the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_directory: bool,
    /// The file's length; 0 for a directory.
    pub bytes: u64,
}

/// What failed, on which file, at which offset.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {} at offset {offset}: {source}", path.display())]
pub struct DeviceError {
    /// A verb: `write`, `sync`, `prepare` ...
    pub operation: &'static str,
    /// The file or directory, relative to the data directory.
    pub path: PathBuf,
    /// Where in the file; 0 when the operation concerns the whole of it.
    pub offset: u64,
    /// What the system said.
    pub source: io::Error,
}

impl DeviceError {
    /// An error of `operation` on `path` as a whole.
    pub fn new(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { operation, path: path.into(), offset: 0, source }
    }

    /// The same error at `offset` of the file.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Whether the disk (or the user's quota) is full, so that the operation may succeed once there is room.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// A disk, as one thread sees it. See the module for what blocks and what does not.
pub trait Device {
    /// Writes the bytes of `buffer` at `offset`, then makes them durable if `durability` says so. Offset and length are multiples
    /// of [`ALIGNMENT_BYTES`](crate::ALIGNMENT_BYTES). Writes of one file may be in flight together if they do not overlap; they may
    /// become durable in any order.
    ///
    /// The completion of a [`Durability::Synced`] write promises that exactly these bytes are durable, and nothing about others. Short
    /// writes are the device's to complete. An error may leave any part of the range changed.
    fn submit_write(&mut self, file: FileId, offset: u64, buffer: AlignedBuffer, durability: Durability) -> OpId;

    /// Starts `task` elsewhere. Tasks run one after the other in the order of their submission.
    fn submit_task(&mut self, task: Task) -> OpId;

    /// Hands submissions that were held back to the system and appends what is over to `completions`. Never blocks, and
    /// does not allocate beyond the growth of `completions`.
    fn poll(&mut self, completions: &mut Vec<Completion>);

    /// Forgets an open file. None of its operations is in flight. Cheap: the file holds nothing unsynced that matters.
    fn close(&mut self, file: FileId);

    /// Blocks: makes the directory at `path` and its missing parents, durably. One that exists is no error.
    ///
    /// # Errors
    /// When the system refuses.
    fn create_directory(&mut self, path: &Path) -> Result<(), DeviceError>;

    /// Blocks: what is in the directory at `path`, sorted by name; nothing when the directory does not exist.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, DeviceError>;

    /// Blocks: opens the file at `path` for reading.
    ///
    /// # Errors
    /// When it is missing ([`io::ErrorKind::NotFound`]) or cannot be read.
    fn open(&mut self, path: &Path) -> Result<FileId, DeviceError>;

    /// Blocks: replaces the contents of `buffer` by the bytes from `offset` (aligned) on: as many as its capacity, fewer only at the
    /// end of the file.
    ///
    /// # Errors
    /// When the bytes cannot be read.
    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DeviceError>;

    /// Blocks: makes an empty file at `path` (replacing), open for [`append`](Device::append). Not durable.
    ///
    /// # Errors
    /// When the system refuses.
    fn create(&mut self, path: &Path) -> Result<FileId, DeviceError>;

    /// Blocks: adds `bytes` (any length) to the end of a file made by [`create`](Device::create). Not durable.
    ///
    /// # Errors
    /// When the system refuses.
    fn append(&mut self, file: FileId, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Blocks: writes `bytes` at `offset` over what the file at `path` holds there already, and makes them durable. Offset and length are
    /// multiples of [`ALIGNMENT_BYTES`](crate::ALIGNMENT_BYTES), and the file does not grow.
    ///
    /// # Errors
    /// When the system refuses; each byte of the range is then the old or the new one.
    fn overwrite(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Blocks: makes the file's contents durable, though not its name.
    ///
    /// # Errors
    /// When it fails; the file is lost then.
    fn sync(&mut self, file: FileId) -> Result<(), DeviceError>;

    /// Blocks: renames a file within its directory, replacing, atomically but not durably.
    ///
    /// # Errors
    /// When the system refuses.
    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DeviceError>;

    /// Blocks: makes the names in the directory at `path` durable.
    ///
    /// # Errors
    /// When it fails.
    fn sync_directory(&mut self, path: &Path) -> Result<(), DeviceError>;

    /// Blocks: removes a file, not durably. One that is missing already is no error.
    ///
    /// # Errors
    /// When the system refuses.
    fn remove(&mut self, path: &Path) -> Result<(), DeviceError>;

    /// Blocks: removes an empty directory, not durably. One that is missing already is no error.
    ///
    /// # Errors
    /// When the system refuses or the directory is not empty.
    fn remove_directory(&mut self, path: &Path) -> Result<(), DeviceError>;

    /// Blocks: shortens the file at `path` to `bytes`, not durably. A file that is no longer than that stays as it is.
    ///
    /// # Errors
    /// When the system refuses.
    fn truncate(&mut self, path: &Path, bytes: u64) -> Result<(), DeviceError>;
}
