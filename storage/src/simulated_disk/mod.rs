//! A disk in memory that behaves as badly as a real one may, deterministically by seed.
//!
//! What it models: writes that were not synced may be lost, kept, or torn at sectors of 512 bytes, independently of each
//! other (so also reordered) when the power fails; so may a write in flight. Names that were not synced with their directory survive as
//! a prefix of the changes of that directory. Completions come late and out of order: by the count of polls, or with a
//! [`Latency`] at virtual times that the disk is told of. Any operation may fail, or be the one at which the power fails. The disk
//! may be full.
//!
//! A sync that fails gives up what it should have made durable, as Linux does: readers go on seeing it, a later sync of the file
//! succeeds and does not help, and a loss of power may take it (Rebello et al., 2020; see [`Device`](crate::Device)'s module).
//!
//! Every step that changes something is counted ([`SimulatedDisk::op_count`]), so a test can run a history once, then again with the power
//! failing at each step. With [`DiskOptions::is_sync_ignored`] the disk lies about durability, which a test of durability must notice;
//! by [`DiskFaults`] it fails and lies now and then, and keeps a list of its lies.
//!
//! | file | holds |
//! |---|---|
//! | `state.rs` | the disk: steps, and what goes wrong with them |
//! | `inode.rs`, `names.rs` | contents and names: what is seen, what is durable, what is between |
//! | `survivor.rs` | what a crash or a kill leaves |
//! | `lies.rs` | lost and misdirected writes |
//! | `device.rs`, `task.rs` | the device on it: what is pending, what is due; the steps of tasks |
//! | `options.rs`, `faults.rs`, `random.rs` | how it behaves, how it fails, where chance comes from |
//!
//! Deliberately absent: any clock; damage by itself, which a test does with [`SimulatedDisk::corrupt`] and
//! [`SimulatedDisk::fail_reads`].

mod device;
mod faults;
mod inode;
mod lies;
mod names;
mod options;
mod random;
mod state;
mod survivor;
mod task;

pub use device::SimulatedDevice;
pub use faults::{DiskFaults, Lie, LieKind};
pub use options::{DiskOptions, Latency};

use names::InodeId;
use state::{Power, State};
use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

impl SimulatedDisk {
    /// An empty disk.
    ///
    /// # Panics
    /// If the shortest latency is longer than the longest.
    pub fn new(options: DiskOptions) -> Self {
        Self::holding(State::new(options))
    }

    fn holding(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A device on this disk.
    pub fn device(&self) -> SimulatedDevice {
        SimulatedDevice::new(self.clone())
    }

    /// How many steps that change something were taken so far.
    pub fn op_count(&self) -> u64 {
        self.lock().op_count
    }

    /// Makes the power fail at step `op_count` (counted as [`op_count`](Self::op_count)): from then on nothing completes and every call fails.
    pub fn crash_at(&self, op_count: u64) {
        self.lock().crash_at = Some(op_count);
    }

    /// Makes step `op_count` fail with `kind`; a write may have changed part of its range then.
    pub fn fail_at(&self, op_count: u64, kind: io::ErrorKind) {
        self.lock().fail_at = Some((op_count, kind));
    }

    /// How many writes are under way.
    pub fn in_flight_count(&self) -> usize {
        self.lock().in_flight.len()
    }

    /// Whether the power has failed or the process was killed.
    pub fn is_off(&self) -> bool {
        self.lock().power != Power::On
    }

    /// Changes the room for file contents.
    pub fn set_capacity_bytes(&self, capacity_bytes: u64) {
        self.lock().options.capacity_bytes = capacity_bytes;
    }

    /// Changes how long operations take that start from now on; a stall is a large latency. What was submitted completes when it would have.
    ///
    /// # Panics
    /// If the shortest is longer than the longest.
    pub fn set_latency(&self, latency: Latency) {
        latency.check();
        self.lock().options.latency = Some(latency);
    }

    /// Tells the disk what time it is. It never goes back: an earlier time changes nothing. Nothing completes by that alone, but at
    /// the next poll.
    pub fn advance_to(&self, now: Duration) {
        let mut state = self.lock();
        state.now = state.now.max(now);
    }

    /// Changes what goes wrong by chance from now on, after a crash or a kill too.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.lock().faults = faults;
    }

    /// The lies told so far, on this disk and on those that it survived, in order. A file that was written anew since is still
    /// listed.
    pub fn lies(&self) -> Vec<Lie> {
        let state = self.lock();
        state.lies.list(&state.names)
    }

    /// Room that files take.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// The power fails now, if it has not yet: returns the disk as it is found afterwards. This one stays off; asked again, it
    /// gives another disk that might have been found.
    #[must_use]
    pub fn crash(&self) -> Self {
        let after = self.lock().after_power_failure();
        Self::holding(after)
    }

    /// The process dies and the machine lives: returns the disk as the next process finds it. What was completed is there, synced or not,
    /// and so are the names; what was not synced may still be lost to a [`crash`](Self::crash) of the disk returned. Writes in flight may be whole,
    /// absent or partial, and are not durable. This one stays off; asked again, it gives another disk that might have been found.
    ///
    /// # Panics
    /// If the power has failed already.
    #[must_use]
    pub fn kill(&self) -> Self {
        let after = self.lock().after_kill();
        Self::holding(after)
    }

    /// A disk as a [`kill`](Self::kill) would leave it now, to look at what a start would find; this one goes on.
    ///
    /// # Panics
    /// If the power has failed already.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut state = self.lock();
        let power = state.power;
        let after = state.after_kill();
        state.power = power;
        drop(state);
        Self::holding(after)
    }

    /// Flips bits of a byte of a file, on the disk and in memory: damage.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn corrupt(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let mut state = self.lock();
        let inode = state.names.file(path.as_ref()).expect("there is such a file");
        state.inode(inode).corrupt(usize::try_from(offset).expect("files are small"), mask);
    }

    /// Makes reads that touch `range` of a file fail, or no longer. The defect is the file's under whatever name and stays after a
    /// crash or a kill; writing does not heal it.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn fail_reads(&self, path: impl AsRef<Path>, range: Range<u64>, on: bool) {
        let mut state = self.lock();
        let inode = state.names.file(path.as_ref()).expect("there is such a file");
        state.inode(inode).set_unreadable(&range, on);
    }

    /// The paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.files().map(|(path, _)| path.to_owned()).collect()
    }

    /// The contents of a file, as a reader sees them.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.lock();
        let inode: InodeId = state.names.file(path.as_ref())?;
        Some(state.inodes[&inode].current().to_vec())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}
