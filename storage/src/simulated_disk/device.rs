//! A device on the disk: its open files, what it has pending, and when that is due.
//!
//! A write waits for its own time. Tasks run one after the other and so do their steps: each starts when the one before is over, however
//! late the device is polled.

use super::{
    SimulatedDisk,
    inode::Write,
    names::{InodeId, Node},
    state::State,
    task::PendingTask,
};
use crate::{AlignedBuffer, Completion, Device, DeviceError, Durability, Entry, FileId, OpId, Task};
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A device on a [`SimulatedDisk`]; any number of them may be on one.
#[derive(Debug)]
pub struct SimulatedDevice {
    pub(super) disk: SimulatedDisk,
    files: HashMap<FileId, (InodeId, PathBuf)>,
    next_file: u32,
    next_op: u64,
    writes: Vec<PendingWrite>,
    pub(super) tasks: Vec<PendingTask>,
}

#[derive(Debug)]
struct PendingWrite {
    op: OpId,
    file: FileId,
    offset: u64,
    buffer: AlignedBuffer,
    durability: Durability,
    ticket: u64,
    due: Due,
}

/// When something pending happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// After so many further polls.
    Polls(u64),
    /// At the first poll from this time on.
    At(Duration),
}

impl Due {
    /// Whether it happens at this poll, which is counted.
    fn is_reached(&mut self, now: Duration) -> bool {
        match self {
            Self::Polls(0) => true,
            Self::Polls(left) => {
                *left -= 1;
                false
            }
            Self::At(at) => *at <= now,
        }
    }

    /// What counts polls waits for no time.
    fn time(self, now: Duration) -> Duration {
        match self {
            Self::Polls(_) => now,
            Self::At(at) => at,
        }
    }
}

impl SimulatedDevice {
    pub(super) fn new(disk: SimulatedDisk) -> Self {
        Self { disk, files: HashMap::new(), next_file: 0, next_op: 0, writes: Vec::new(), tasks: Vec::new() }
    }

    /// When this device is to be polled next: the time at which a write completes or the first task gets a step further, which may have passed
    /// already. What counts polls is due at once. `None` when nothing is pending, and once the disk is off.
    pub fn next_completion(&self) -> Option<Duration> {
        let state = self.disk.lock();
        state.check_on().ok()?;
        let writes = self.writes.iter().map(|write| write.due);
        writes.chain(self.tasks.first().map(|task| task.due)).map(|due| due.time(state.now)).min()
    }

    fn next_op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    pub(super) fn keep(&mut self, inode: InodeId, path: &Path) -> FileId {
        self.next_file += 1;
        self.files.insert(FileId(self.next_file), (inode, path.to_owned()));
        FileId(self.next_file)
    }

    fn file(&self, file: FileId) -> (InodeId, &Path) {
        let (inode, path) = self.files.get(&file).expect("the file is open");
        (*inode, path)
    }

    pub(super) fn set_path(&mut self, file: FileId, path: &Path) {
        let (_, old) = self.files.get_mut(&file).expect("the file is open");
        path.clone_into(old);
    }

    /// Does something on the disk.
    pub(super) fn act<T>(
        &self,
        operation: &'static str,
        path: &Path,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DeviceError> {
        act(&mut self.disk.lock()).map_err(|source| DeviceError::new(operation, path, source))
    }

    /// Adds to the end of a file.
    pub(super) fn write(&self, operation: &'static str, file: FileId, bytes: Vec<u8>) -> Result<(), DeviceError> {
        let (inode, path) = self.file(file);
        self.act(operation, path, |state| {
            let offset = state.inode(inode).current().len();
            state.write(inode, path, Write { offset, bytes })
        })
    }

    fn complete_write(&mut self, write: PendingWrite) -> Option<Completion> {
        let (_, path) = self.file(write.file);
        let written = self.act("write", path, |state| state.complete(write.ticket, path, write.durability));
        if self.disk.is_off() {
            return None;
        }
        let result = written.map(|()| None).map_err(|error| error.at(write.offset));
        Some(Completion { op: write.op, buffer: Some(write.buffer), result })
    }

    /// Completes the writes that are due, in an order of chance.
    fn complete_writes(&mut self, now: Duration, completions: &mut Vec<Completion>) {
        let mut due: Vec<_> = self.writes.extract_if(.., |write| write.due.is_reached(now)).collect();
        while !due.is_empty() {
            let at = self.disk.lock().random.index(due.len());
            completions.extend(self.complete_write(due.swap_remove(at)));
        }
    }

    /// Takes the steps of tasks that are due; where polls are counted, one step per poll.
    fn step_tasks(&mut self, now: Duration, completions: &mut Vec<Completion>) {
        let mut is_poll_used = false;
        while let Some(task) = self.tasks.first_mut() {
            let is_counted = matches!(task.due, Due::Polls(_));
            if !task.due.is_reached(now) || (is_counted && is_poll_used) {
                return;
            }
            is_poll_used |= is_counted;
            completions.extend(self.step_task(now));
        }
    }

    /// Takes the next step of the first task; returns its completion after the last.
    fn step_task(&mut self, now: Duration) -> Option<Completion> {
        let mut task = self.tasks.remove(0);
        let stepped = self.run_stage(&mut task);
        if self.disk.is_off() {
            self.tasks.clear();
            return None;
        }
        let over = task.due.time(now);
        let result = match stepped {
            Ok(false) => {
                task.stage += 1;
                task.due = self.due_of_step(over);
                self.tasks.insert(0, task);
                return None;
            }
            Ok(true) => Ok(task.file),
            Err(error) => {
                self.clear_after_failure(&task);
                Err(error)
            }
        };
        if let Some(next) = self.tasks.first() {
            self.tasks[0].due = self.due_of_step(over.max(next.submitted_at));
        }
        Some(Completion { op: task.op, buffer: None, result })
    }

    fn due_of_step(&self, start: Duration) -> Due {
        self.disk.lock().end_of(start).map_or(Due::Polls(0), Due::At)
    }
}

impl Device for SimulatedDevice {
    fn submit_write(&mut self, file: FileId, offset: u64, buffer: AlignedBuffer, durability: Durability) -> OpId {
        let op = self.next_op();
        let (inode, _) = self.file(file);
        let mut state = self.disk.lock();
        let (now, delay_polls_max) = (state.now, state.options.delay_polls_max);
        let due = match state.end_of(now) {
            Some(at) => Due::At(at),
            None => Due::Polls(state.random.below(delay_polls_max + 1)),
        };
        let start = usize::try_from(offset).expect("files are small");
        let ticket = state.submit(inode, Write { offset: start, bytes: buffer.as_slice().to_vec() });
        drop(state);
        self.writes.push(PendingWrite { op, file, offset, buffer, durability, ticket, due });
        op
    }

    fn submit_task(&mut self, task: Task) -> OpId {
        let op = self.next_op();
        let submitted_at = self.disk.lock().now;
        // One that waits for others gets its time when it is the first.
        let due = if self.tasks.is_empty() { self.due_of_step(submitted_at) } else { Due::Polls(0) };
        self.tasks.push(PendingTask { op, task, stage: 0, file: None, submitted_at, due });
        op
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let now = self.disk.lock().now;
        self.complete_writes(now, completions);
        self.step_tasks(now, completions);
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(&file);
    }

    fn create_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.act("create", path, |state| {
            state.step()?;
            state.names.create_directory(path);
            Ok(())
        })
    }

    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, DeviceError> {
        self.act("list", path, |state| {
            state.check_on()?;
            let children = state.names.now().iter().filter(|(child, _)| child.parent() == Some(path));
            let entry = |(child, node): (&PathBuf, &Node)| {
                let name = child.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let bytes = match node {
                    Node::File(inode) => state.inodes[inode].current().len() as u64,
                    Node::Directory => 0,
                };
                Entry { name, is_directory: *node == Node::Directory, bytes }
            };
            let mut entries: Vec<_> = children.map(entry).collect();
            entries.sort();
            Ok(entries)
        })
    }

    fn open(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        let inode = self.act("open", path, |state| {
            state.check_on()?;
            state.names.file(path).ok_or_else(|| io::ErrorKind::NotFound.into())
        })?;
        Ok(self.keep(inode, path))
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DeviceError> {
        let (inode, path) = self.file(file);
        self.act("read", path, |state| state.read(inode, offset, buffer)).map_err(|error| error.at(offset))
    }

    fn create(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        let inode = self.act("create", path, |state| state.create(path))?;
        Ok(self.keep(inode, path))
    }

    fn append(&mut self, file: FileId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write("write", file, bytes.to_vec())
    }

    fn overwrite(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let write = Write { offset: usize::try_from(offset).expect("files are small"), bytes: bytes.to_vec() };
        self.act("overwrite", path, |state| state.overwrite(path, write)).map_err(|error| error.at(offset))
    }

    fn sync(&mut self, file: FileId) -> Result<(), DeviceError> {
        let (inode, path) = self.file(file);
        self.act("sync", path, |state| state.sync(inode))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DeviceError> {
        self.act("rename", from, |state| state.rename(from, to))
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.act("sync", path, |state| state.sync_directory(path))
    }

    fn remove(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.act("remove", path, |state| {
            state.step()?;
            state.remove(path);
            Ok(())
        })
    }

    fn remove_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.act("remove", path, |state| state.remove_directory(path))
    }

    fn truncate(&mut self, path: &Path, bytes: u64) -> Result<(), DeviceError> {
        let length = usize::try_from(bytes).expect("files are small");
        self.act("truncate", path, |state| state.truncate(path, length))
    }
}
