//! The log device of a shard: direct writes through an io_uring ring of the shard's own, slow work on a helper thread.
//!
//! A durable write is one submission, a write with `RWF_DSYNC`: on a segment that was zeroed before, the kernel has nothing to
//! journal and ends it with one flush of the disk. All submissions of a turn go to the kernel in one system call; completions are read from
//! memory that the kernel shares, without any. An idle shard waits on the ring's descriptor, which is readable while a completion waits.
//!
//! Invariants: a buffer that the kernel may still touch is owned by the device's table until its completion is seen, even when the
//! device is dropped; at most 128 writes are in the kernel, the rest waits here, so that completions always have a place;
//! nothing that failed is tried again.
//!
//! Where a file system has no direct I/O the same writes go through the page cache and are just as durable. Deliberately absent: reads through
//! the ring (start-up reads in large pieces and may block), registered buffers and files (no gain was seen at these sizes).

mod files;
mod helper;
mod ring;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tickwheel_storage::{
    AlignedBuffer,
    device::{Completion, Device, DeviceError, Durability, Entry, FileId, OpId, Task},
};

use self::{
    files::Root,
    helper::{Helper, Job, Outcome},
    ring::{Ring, Write},
};
use super::{counters::ShardCounters, idle::ShardWaker};

/// How a device is set up.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The data directory; it exists.
    pub root: PathBuf,
    /// Where the helper thread and the kernel's workers run: see [`super::executor::CorePlan::helper_cores`]. Empty: anywhere.
    pub helper_cores: Vec<usize>,
    /// Whether the kernel's workers submit the writes rather than the shard itself. Takes about 10 us per write off the shard's core
    /// and adds as much and more to its latency, and needs cores to spare. Default no.
    pub offload: bool,
    /// Wakes the shard when the helper thread has finished something; `None` for a device that is polled anyway.
    pub waker: Option<ShardWaker>,
}

impl DeviceOptions {
    /// The defaults, in the data directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), helper_cores: Vec::new(), offload: false, waker: None }
    }
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceStartError {
    /// The data directory cannot be opened.
    #[error("cannot open the data directory {}: {source}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused the ring.
    #[error("cannot set up io_uring for the log: {source}")]
    Ring {
        /// What the system said.
        source: io::Error,
    },
    /// The helper thread cannot be made.
    #[error("cannot start the log's helper thread: {source}")]
    Helper {
        /// What the system said.
        source: io::Error,
    },
}

/// The files of a data directory, as one shard sees them.
#[derive(Debug)]
pub struct UringDevice {
    root: Root,
    ring: Ring,
    helper: Helper,
    files: BTreeMap<FileId, OpenFile>,
    next_file: u32,
    next_op: u64,
    outcomes: Vec<Outcome>,
    writes: Vec<ring::Done>,
}

#[derive(Debug)]
struct OpenFile {
    file: Arc<File>,
    path: Arc<Path>,
    /// Where the next [`Device::append`] goes.
    append_offset: u64,
}

impl UringDevice {
    /// A device on the data directory of `options`.
    ///
    /// # Errors
    /// When the directory cannot be opened, or the system denies the ring or the thread.
    pub fn new(options: DeviceOptions, counters: Arc<ShardCounters>) -> Result<Self, DeviceStartError> {
        let root = Root::open(&options.root)
            .map_err(|source| DeviceStartError::Root { path: options.root.clone(), source })?;
        let ring = Ring::new(&options.helper_cores, options.offload, counters)
            .map_err(|source| DeviceStartError::Ring { source })?;
        let helper = Helper::start(root.clone(), options.helper_cores, options.waker)
            .map_err(|source| DeviceStartError::Helper { source })?;
        Ok(Self {
            root,
            ring,
            helper,
            files: BTreeMap::new(),
            next_file: 0,
            next_op: 0,
            outcomes: Vec::new(),
            writes: Vec::new(),
        })
    }

    /// Whether a call of [`Device::poll`] would do something: for the last look before a sleep. Makes no system call.
    pub fn has_work(&mut self) -> bool {
        self.ring.has_work() || self.helper.has_outcomes()
    }

    fn next_op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    fn insert(&mut self, file: File, path: &Path) -> FileId {
        let id = FileId(self.next_file);
        self.next_file = self.next_file.checked_add(1).expect("four thousand million segments are 250 PB");
        self.files.insert(id, OpenFile { file: Arc::new(file), path: path.into(), append_offset: 0 });
        id
    }

    fn file(&self, id: FileId) -> &OpenFile {
        self.files.get(&id).expect("file ids come from this device and are not used after their close")
    }

    fn job(&mut self, task: Task) -> Job {
        match task {
            Task::Prepare { path, bytes, head } => Job::Prepare { path, bytes, head },
            Task::Create { path } => Job::Create { path },
            Task::Publish { file, from, to } => {
                assert!(!self.ring.has_writes_of(file), "a file is published after its last write");
                let open = self.files.remove(&file).expect("file ids come from this device");
                Job::Publish { file: open.file, from, to }
            }
            Task::Remove { path } => Job::Remove { path },
        }
    }
}

impl AsFd for UringDevice {
    /// Readable while a completed write waits to be polled.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Device for UringDevice {
    fn submit_write(&mut self, file: FileId, offset: u64, buffer: AlignedBuffer, durability: Durability) -> OpId {
        let op = self.next_op();
        let open = self.file(file);
        let (target, path) = (Arc::clone(&open.file), Arc::clone(&open.path));
        self.ring.enqueue(Write::new(op, file, target, path, offset, buffer, durability));
        op
    }

    fn submit_task(&mut self, task: Task) -> OpId {
        let op = self.next_op();
        let job = self.job(task);
        self.helper.submit(op, job);
        op
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let mut writes = std::mem::take(&mut self.writes);
        self.ring.poll(&mut writes);
        completions.extend(writes.drain(..).map(|done| Completion {
            op: done.op,
            buffer: Some(done.buffer),
            result: done.result.map(|()| None),
        }));
        self.writes = writes;

        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.helper.take_outcomes(&mut outcomes);
        completions.extend(outcomes.drain(..).map(|outcome| Completion {
            op: outcome.op,
            buffer: None,
            result: outcome.result.map(|opened| opened.map(|(file, path)| self.insert(file, &path))),
        }));
        self.outcomes = outcomes;
    }

    fn close(&mut self, file: FileId) {
        assert!(!self.ring.has_writes_of(file), "a file is closed after its last write");
        self.files.remove(&file);
    }

    fn create_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.root.create_directory(path)
    }

    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, DeviceError> {
        self.root.list(path)
    }

    fn open(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        let file = self.root.open_for_reading(path)?;
        Ok(self.insert(file, path))
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DeviceError> {
        let open = self.file(file);
        buffer.set_len(buffer.capacity());
        let read = files::read_full(&open.file, offset, buffer.as_mut_slice());
        let length = read.map_err(|source| DeviceError::new("read", &*open.path, source).at(offset));
        buffer.set_len(*length.as_ref().unwrap_or(&0));
        length.map(drop)
    }

    fn create(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        let file = self.root.create_buffered(path)?;
        Ok(self.insert(file, path))
    }

    fn append(&mut self, file: FileId, bytes: &[u8]) -> Result<(), DeviceError> {
        let open = self.files.get_mut(&file).expect("file ids come from this device");
        let offset = open.append_offset;
        let written = open.file.write_all_at(bytes, offset);
        written.map_err(|source| DeviceError::new("append to", &*open.path, source).at(offset))?;
        open.append_offset += bytes.len() as u64;
        Ok(())
    }

    fn overwrite(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.root.overwrite(path, offset, bytes)
    }

    fn sync(&mut self, file: FileId) -> Result<(), DeviceError> {
        let open = self.file(file);
        open.file.sync_all().map_err(|source| DeviceError::new("sync", &*open.path, source))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DeviceError> {
        self.root.rename(from, to)
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.root.sync_directory(path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.root.remove(path)
    }

    fn remove_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.root.remove_directory(path)
    }

    fn truncate(&mut self, path: &Path, bytes: u64) -> Result<(), DeviceError> {
        self.root.truncate(path, bytes)
    }
}
