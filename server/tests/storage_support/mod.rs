//! A disk for storage's own suite that is a directory on a real file system, reached through the io_uring device.
//!
//! The suite polls in a loop, which against a real disk would mean to spin: a device that was polled [`PATIENCE_POLLS`] times for
//! nothing sleeps as an idle shard does, until an operation is over. So commits are in flight when the suite stops an owner early,
//! and it never runs out of polls when it waits.
//!
//! An owner can die at a chosen step: the device is dropped with what it had taken, as a process that is killed leaves it.
//! Deliberately absent: the loss of power, which only the simulated disk can show.

use std::{
    cell::Cell,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tickwheel_server::runtime::{
    counters::ShardCounters,
    device::{DeviceOptions, UringDevice},
    idle::{Idle, IdleStrategy, Rest, ShardWaker},
};
use tickwheel_storage::{
    AlignedBuffer,
    device::{Completion, Device, DeviceError, Durability, Entry, FileId, OpId, Task},
};

use crate::{damage::FragileDisk, history::MortalDisk, support::Disk};

/// Polls without an answer, one after the other, until a device sleeps.
const PATIENCE_POLLS: u32 = 8;

/// A directory. Clones are the same one, with the same owner.
#[derive(Clone)]
pub struct RingDisk {
    directory: Rc<TempDir>,
    owner: Rc<Owner>,
    is_offloaded: bool,
}

/// How far the owner of a directory got, over all its devices.
#[derive(Default)]
struct Owner {
    step_count: Cell<u64>,
    crash_at: Cell<Option<u64>>,
    is_dead: Cell<bool>,
}

impl Owner {
    /// Counts a step and decides whether it happens.
    fn step(&self) -> io::Result<()> {
        if !self.is_dead.get() {
            self.step_count.set(self.step_count.get() + 1);
            self.is_dead.set(self.crash_at.get() == Some(self.step_count.get()));
        }
        self.check_alive()
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.is_dead.get() { Err(io::Error::other("the owner is dead")) } else { Ok(()) }
    }
}

impl RingDisk {
    /// An empty directory below the build's own, where direct I/O is likelier than in one for temporary files.
    pub fn new(is_offloaded: bool) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Self { directory: Rc::new(directory), owner: Rc::default(), is_offloaded }
    }
}

impl Disk for RingDisk {
    type Device = RingDevice;

    fn device(&self) -> RingDevice {
        let waker = ShardWaker::new().expect("a descriptor");
        let counters = Arc::new(ShardCounters::default());
        let options = DeviceOptions {
            offload: self.is_offloaded,
            waker: Some(waker.clone()),
            ..DeviceOptions::new(self.directory.path())
        };
        let inner = UringDevice::new(options, Arc::clone(&counters)).expect("io_uring");
        let strategy = IdleStrategy { spin: Duration::ZERO, timer_lead: Duration::ZERO };
        RingDevice {
            descriptor: inner.as_fd().try_clone_to_owned().expect("a descriptor"),
            inner,
            idle: Idle::new(waker, strategy, counters).expect("precise timers"),
            pending_count: 0,
            fruitless_polls: 0,
            refused: Vec::new(),
            refused_count: 0,
            owner: Rc::clone(&self.owner),
            _directory: Rc::clone(&self.directory),
        }
    }
}

impl MortalDisk for RingDisk {
    fn crash_at(&self, step: u64) {
        self.owner.crash_at.set(Some(step));
    }

    fn is_off(&self) -> bool {
        self.owner.is_dead.get()
    }

    fn crash(&self) -> Self {
        assert_eq!(Rc::strong_count(&self.owner), 1, "the devices of the dead are dropped");
        Self { directory: Rc::clone(&self.directory), owner: Rc::default(), is_offloaded: self.is_offloaded }
    }
}

impl FragileDisk for RingDisk {
    fn corrupt(&self, path: &str, offset: u64, mask: u8) {
        let path = self.directory.path().join(path);
        let file = File::options().read(true).write(true).open(path).expect("it is there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("it is that long");
        file.write_all_at(&[byte[0] ^ mask], offset).expect("room");
    }
}

/// The io_uring device, patient and mortal.
pub struct RingDevice {
    inner: UringDevice,
    descriptor: OwnedFd,
    idle: Idle,
    /// Operations that the device has and that are not over.
    pending_count: usize,
    fruitless_polls: u32,
    /// Operations that came after the death.
    refused: Vec<Completion>,
    refused_count: u64,
    owner: Rc<Owner>,
    /// Goes after the device that writes to it.
    _directory: Rc<TempDir>,
}

impl RingDevice {
    /// Counts down from the end, where the device's own ids never come.
    fn refuse(&mut self, path: &Path, buffer: Option<AlignedBuffer>, source: io::Error) -> OpId {
        let op = OpId(u64::MAX - self.refused_count);
        self.refused_count += 1;
        self.refused.push(Completion { op, buffer, result: Err(DeviceError::new("reach", path, source)) });
        op
    }

    fn accepted(&mut self, op: OpId) -> OpId {
        self.pending_count += 1;
        self.fruitless_polls = 0;
        op
    }

    /// A blocking call that changes something.
    fn change<T>(
        &mut self,
        path: &Path,
        act: impl FnOnce(&mut UringDevice) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        self.owner.step().map_err(|source| DeviceError::new("reach", path, source))?;
        act(&mut self.inner)
    }

    /// A blocking call that only looks.
    fn look<T>(
        &mut self,
        path: &Path,
        act: impl FnOnce(&mut UringDevice) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        self.owner.check_alive().map_err(|source| DeviceError::new("reach", path, source))?;
        act(&mut self.inner)
    }

    fn sleep(&mut self) {
        let Self { inner, descriptor, idle, .. } = self;
        let now = Instant::now();
        let rest = idle.rest(now, Some(now + Duration::from_secs(60)), &[descriptor.as_fd()], || inner.has_work());
        assert_ne!(rest, Rest::Deadline, "{} operations never ended", self.pending_count);
    }

    /// Polls the device, and sleeps in between once patience is over.
    fn poll_inner(&mut self, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.inner.poll(completions);
        if completions.len() == before && self.pending_count > 0 {
            self.fruitless_polls += 1;
            while completions.len() == before && self.fruitless_polls >= PATIENCE_POLLS {
                self.sleep();
                self.inner.poll(completions);
            }
        }
        let count = completions.len() - before;
        if count > 0 {
            self.fruitless_polls = 0;
        }
        self.pending_count = self.pending_count.checked_sub(count).expect("each operation completes once");
    }
}

impl Device for RingDevice {
    fn submit_write(&mut self, file: FileId, offset: u64, buffer: AlignedBuffer, durability: Durability) -> OpId {
        match self.owner.step() {
            Err(dead) => self.refuse(Path::new(""), Some(buffer), dead),
            Ok(()) => {
                let op = self.inner.submit_write(file, offset, buffer, durability);
                self.accepted(op)
            }
        }
    }

    fn submit_task(&mut self, task: Task) -> OpId {
        match self.owner.step() {
            Err(dead) => self.refuse(Path::new(""), None, dead),
            Ok(()) => {
                let op = self.inner.submit_task(task);
                self.accepted(op)
            }
        }
    }

    /// The dead learn of no success, as their answers reach nobody.
    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.poll_inner(completions);
        if let Err(dead) = self.owner.check_alive() {
            for completion in &mut completions[before..] {
                completion.result = Err(DeviceError::new("reach", "", io::Error::other(dead.to_string())));
            }
        }
        completions.append(&mut self.refused);
    }

    fn close(&mut self, file: FileId) {
        self.inner.close(file);
    }

    fn create_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.change(path, |device| device.create_directory(path))
    }

    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, DeviceError> {
        self.look(path, |device| device.list(path))
    }

    fn open(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        self.look(path, |device| device.open(path))
    }

    fn overwrite(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.change(path, |device| device.overwrite(path, offset, bytes))
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DeviceError> {
        self.look(Path::new(""), |device| device.read_at(file, offset, buffer))
    }

    fn create(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        self.change(path, |device| device.create(path))
    }

    fn append(&mut self, file: FileId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.change(Path::new(""), |device| device.append(file, bytes))
    }

    fn sync(&mut self, file: FileId) -> Result<(), DeviceError> {
        self.change(Path::new(""), |device| device.sync(file))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DeviceError> {
        self.change(from, |device| device.rename(from, to))
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.change(path, |device| device.sync_directory(path))
    }

    fn remove(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.change(path, |device| device.remove(path))
    }

    fn remove_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.change(path, |device| device.remove_directory(path))
    }

    fn truncate(&mut self, path: &Path, bytes: u64) -> Result<(), DeviceError> {
        self.change(path, |device| device.truncate(path, bytes))
    }
}
