//! A disk in memory that behaves as badly as a real one may, deterministically by seed.
//!
//! What it models: writes that were not synced may be lost, kept, or torn at sectors of 512 bytes, independently of each
//! other (so also reordered) when the power fails; so may a write in flight. Names that were not synced with their directory survive as
//! a prefix of the changes of that directory. Completions come late and out of order. Any operation may fail, or be the one at
//! which the power fails. The disk may be full.
//!
//! Every step that changes something is counted ([`SimulatedDisk::op_count`]), so a test can run a history once, then again with the power
//! failing at each step. With [`DiskOptions::is_sync_ignored`] the disk lies about durability, which a test of durability must notice.
//!
//! Deliberately absent: damage by itself; a test does that with [`SimulatedDisk::corrupt`].

use crate::{AlignedBuffer, Completion, Device, DeviceError, Durability, Entry, FileId, OpId, Task, layout};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};
use tickwheel_wire::mix64;

const SECTOR_BYTES: usize = 512;

/// How the disk behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Decides every delay, order and loss.
    pub seed: u64,
    /// Room for file contents. Default: no limit.
    pub capacity_bytes: u64,
    /// A write completes within this many polls after the first. Default 3; 0 makes them complete in order.
    pub delay_polls_max: u64,
    /// Whether completed writes and syncs leave the data volatile: a disk that lies. Default no.
    pub is_sync_ignored: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { seed: 0, capacity_bytes: u64::MAX, delay_polls_max: 3, is_sync_ignored: false }
    }
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

/// A device on a [`SimulatedDisk`]; any number of them may be on one.
#[derive(Debug)]
pub struct SimulatedDevice {
    disk: SimulatedDisk,
    files: HashMap<FileId, (InodeId, PathBuf)>,
    next_file: u32,
    next_op: u64,
    writes: Vec<PendingWrite>,
    tasks: Vec<PendingTask>,
}

type InodeId = u64;

#[derive(Debug)]
struct State {
    options: DiskOptions,
    random: u64,
    op_count: u64,
    crash_at: Option<u64>,
    fail_at: Option<(u64, io::ErrorKind)>,
    is_off: bool,
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    names: BTreeMap<PathBuf, Node>,
    names_durable: BTreeMap<PathBuf, Node>,
    names_pending: Vec<NameChange>,
    /// Submitted and not completed: what of them is on the disk is open.
    in_flight: BTreeMap<u64, (InodeId, Change)>,
    next_in_flight: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(InodeId),
    Directory,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

#[derive(Clone, Debug)]
struct NameChange {
    directory: PathBuf,
    remove: Option<PathBuf>,
    insert: Option<(PathBuf, Node)>,
}

#[derive(Debug)]
struct PendingWrite {
    op: OpId,
    file: FileId,
    offset: u64,
    buffer: AlignedBuffer,
    durability: Durability,
    ticket: u64,
    polls_left: u64,
}

#[derive(Debug)]
struct PendingTask {
    op: OpId,
    task: Task,
    stage: u32,
    file: Option<FileId>,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(options: DiskOptions) -> Self {
        let root: BTreeMap<_, _> = [(PathBuf::new(), Node::Directory)].into();
        let state = State {
            options,
            random: mix64(options.seed),
            op_count: 0,
            crash_at: None,
            fail_at: None,
            is_off: false,
            inodes: BTreeMap::new(),
            next_inode: 0,
            names: root.clone(),
            names_durable: root,
            names_pending: Vec::new(),
            in_flight: BTreeMap::new(),
            next_in_flight: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A device on this disk.
    pub fn device(&self) -> SimulatedDevice {
        let (files, writes, tasks) = (HashMap::new(), Vec::new(), Vec::new());
        SimulatedDevice { disk: self.clone(), files, next_file: 0, next_op: 0, writes, tasks }
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

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// Changes the room for file contents.
    pub fn set_capacity_bytes(&self, capacity_bytes: u64) {
        self.lock().options.capacity_bytes = capacity_bytes;
    }

    /// Room that files take.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// The power fails now, if it has not yet: returns the disk as it is found afterwards. This one stays off; asked again, it
    /// gives another disk that might have been found.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.lock();
        state.is_off = true;
        let survivor = Self::new(DiskOptions { seed: mix64(state.random), ..state.options });
        let (names, inodes) = state.survivors();
        drop(state);
        let mut after = survivor.lock();
        after.next_inode = inodes.keys().last().map_or(0, |last| last + 1);
        (after.names, after.names_durable, after.inodes) = (names.clone(), names, inodes);
        drop(after);
        survivor
    }

    /// Flips bits of a byte of a file, on the disk and in memory: damage.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn corrupt(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let mut state = self.lock();
        let Some(Node::File(inode)) = state.names.get(path.as_ref()).copied() else { panic!("no such file") };
        let inode = state.inodes.get_mut(&inode).expect("a named inode exists");
        let offset = usize::try_from(offset).expect("files are small");
        inode.current[offset] ^= mask;
        inode.durable[offset] ^= mask;
    }

    /// The paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        let state = self.lock();
        state.names.iter().filter(|(_, node)| **node != Node::Directory).map(|(path, _)| path.clone()).collect()
    }

    /// The contents of a file, as a reader sees them.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.lock();
        match state.names.get(path.as_ref())? {
            Node::File(inode) => Some(state.inodes[inode].current.clone()),
            Node::Directory => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

impl State {
    fn random(&mut self, below: u64) -> u64 {
        self.random = mix64(self.random);
        self.random % below
    }

    /// Counts a step and decides whether it happens.
    fn step(&mut self) -> io::Result<()> {
        if !self.is_off {
            self.op_count += 1;
            self.is_off = self.crash_at == Some(self.op_count);
        }
        if self.is_off {
            return Err(io::Error::other("the power has failed"));
        }
        match self.fail_at {
            Some((at, kind)) if at == self.op_count => Err(io::Error::from(kind)),
            _ => Ok(()),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.current.len() as u64).sum()
    }

    fn check_room(&self, more: u64) -> io::Result<()> {
        if self.used_bytes().saturating_add(more) > self.options.capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode(&mut self, inode: InodeId) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an inode in use exists")
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.names_pending.push(change);
        self.drop_unnamed();
    }

    /// Frees the room of files that no name, old or new, refers to.
    fn drop_unnamed(&mut self) {
        let is_named = |inode: &InodeId| {
            let names = self.names.values().chain(self.names_durable.values());
            let pending = self.names_pending.iter().filter_map(|change| change.insert.as_ref()).map(|(_, node)| node);
            names.chain(pending).any(|node| *node == Node::File(*inode))
        };
        let unnamed: Vec<_> = self.inodes.keys().copied().filter(|inode| !is_named(inode)).collect();
        self.inodes.retain(|inode, _| !unnamed.contains(inode));
    }

    fn sync_names(&mut self, directory: &Path) {
        if self.options.is_sync_ignored {
            return;
        }
        let changes = std::mem::take(&mut self.names_pending);
        let (now, later) = changes.into_iter().partition(|change: &NameChange| change.directory == directory);
        self.names_pending = later;
        let now: Vec<NameChange> = now;
        now.iter().for_each(|change| change.apply(&mut self.names_durable));
        // What was in a directory goes with it.
        drop_orphans(&mut self.names_durable);
        let names = &self.names;
        self.names_pending.retain(|change| names.contains_key(&change.directory));
        self.drop_unnamed();
    }

    fn create(&mut self, path: &Path) -> io::Result<InodeId> {
        let directory = path.parent().unwrap_or(Path::new(""));
        if self.names.get(directory) != Some(&Node::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        let insert = Some((path.to_owned(), Node::File(inode)));
        self.change_name(NameChange { directory: directory.to_owned(), remove: None, insert });
        Ok(inode)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = *self.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let directory = to.parent().unwrap_or(Path::new("")).to_owned();
        assert_eq!(from.parent(), to.parent(), "files are renamed within their directory");
        let (remove, insert) = (Some(from.to_owned()), Some((to.to_owned(), node)));
        self.change_name(NameChange { directory, remove, insert });
        Ok(())
    }

    fn remove(&mut self, path: &Path) {
        if self.names.contains_key(path) {
            let directory = path.parent().unwrap_or(Path::new("")).to_owned();
            self.change_name(NameChange { directory, remove: Some(path.to_owned()), insert: None });
        }
    }

    fn write(&mut self, inode: InodeId, offset: usize, bytes: &[u8], durability: Durability) -> io::Result<()> {
        let end = offset + bytes.len();
        let length = self.inode(inode).current.len();
        self.check_room(end.saturating_sub(length) as u64)?;
        let is_durable = durability == Durability::Synced && !self.options.is_sync_ignored;
        let inode = self.inode(inode);
        let change = Change::Write { offset, bytes: bytes.to_vec() };
        change.apply(&mut inode.current);
        if is_durable {
            change.apply(&mut inode.durable);
        } else {
            inode.pending.push(change);
        }
        Ok(())
    }

    fn sync(&mut self, inode: InodeId) {
        if !self.options.is_sync_ignored {
            let inode = self.inode(inode);
            inode.durable.clone_from(&inode.current);
            inode.pending.clear();
        }
    }

    /// What is found after the power has failed.
    fn survivors(&mut self) -> (BTreeMap<PathBuf, Node>, BTreeMap<InodeId, Inode>) {
        let mut names = self.names_durable.clone();
        let mut kept: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for change in self.names_pending.clone() {
            // A directory's changes survive up to some point and not beyond.
            let quota = match kept.get(&change.directory) {
                Some(quota) => *quota,
                None => self.random(8),
            };
            kept.insert(change.directory.clone(), quota.saturating_sub(1));
            if quota > 0 {
                change.apply(&mut names);
            }
        }
        drop_orphans(&mut names);
        let mut inodes = self.inodes.clone();
        for (inode, change) in self.in_flight.values() {
            if let Some(inode) = inodes.get_mut(inode) {
                inode.pending.push(change.clone());
            }
        }
        inodes.retain(|inode, _| names.values().any(|node| *node == Node::File(*inode)));
        for inode in inodes.values_mut() {
            for change in std::mem::take(&mut inode.pending) {
                self.apply_in_part(&change, &mut inode.durable);
            }
            inode.current.clone_from(&inode.durable);
        }
        (names, inodes)
    }

    /// Applies all of `change`, nothing, or some of its sectors.
    fn apply_in_part(&mut self, change: &Change, contents: &mut Vec<u8>) {
        match (self.random(3), change) {
            (0, _) => {}
            (1, change) | (_, change @ Change::Truncate { .. }) => change.apply(contents),
            (_, Change::Write { offset, bytes }) => {
                for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if self.random(2) == 0 {
                        let offset = offset + index * SECTOR_BYTES;
                        Change::Write { offset, bytes: sector.to_vec() }.apply(contents);
                    }
                }
            }
        }
    }
}

/// Forgets names in directories that do not exist.
fn drop_orphans(names: &mut BTreeMap<PathBuf, Node>) {
    let directories = names.clone();
    names.retain(|path, _| path.parent().is_none_or(|parent| directories.contains_key(parent)));
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*offset..end].copy_from_slice(bytes);
            }
            Self::Truncate { length } => contents.truncate(*length),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        if let Some(path) = &self.remove {
            names.remove(path);
        }
        if let Some((path, node)) = &self.insert {
            names.insert(path.clone(), *node);
        }
    }
}

impl SimulatedDevice {
    fn next_op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    fn keep(&mut self, inode: InodeId, path: &Path) -> FileId {
        self.next_file += 1;
        self.files.insert(FileId(self.next_file), (inode, path.to_owned()));
        FileId(self.next_file)
    }

    fn file(&self, file: FileId) -> (InodeId, PathBuf) {
        self.files.get(&file).expect("the file is open").clone()
    }

    /// Takes one step on the disk.
    fn act<T>(
        &self,
        operation: &'static str,
        path: &Path,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DeviceError> {
        let mut state = self.disk.lock();
        state.step().and_then(|()| act(&mut state)).map_err(|source| DeviceError::new(operation, path, source))
    }

    fn complete_write(&mut self, write: PendingWrite) -> Option<Completion> {
        let (inode, path) = self.file(write.file);
        let offset = usize::try_from(write.offset).expect("files are small");
        let mut state = self.disk.lock();
        let stepped = state.step();
        if state.is_off {
            return None;
        }
        let (_, change) = state.in_flight.remove(&write.ticket).expect("it was in flight");
        let result = match stepped {
            Ok(()) => state.write(inode, offset, write.buffer.as_slice(), write.durability),
            Err(error) => {
                // A failed write leaves anything behind.
                state.inode(inode).pending.push(change);
                Err(error)
            }
        };
        drop(state);
        let result = result.map(|()| None).map_err(|source| DeviceError::new("write", path, source).at(write.offset));
        Some(Completion { op: write.op, buffer: Some(write.buffer), result })
    }

    /// Takes the next step of the first task; returns its completion after the last.
    fn step_task(&mut self) -> Option<Completion> {
        let mut pending = self.tasks.remove(0);
        let stepped = self.run_stage(&mut pending);
        if self.disk.is_off() {
            return None;
        }
        let result = match stepped {
            Ok(false) => {
                pending.stage += 1;
                self.tasks.insert(0, pending);
                return None;
            }
            Ok(true) => Ok(pending.file),
            Err(error) => {
                self.clear_after_failure(&pending);
                Err(error)
            }
        };
        Some(Completion { op: pending.op, buffer: None, result })
    }

    /// Takes one step of a task; `true` if it was the last.
    fn run_stage(&mut self, pending: &mut PendingTask) -> Result<bool, DeviceError> {
        match (&pending.task, pending.stage) {
            (Task::Prepare { path, .. }, 0) => pending.file = Some(self.create(&layout::temporary(path))?),
            (Task::Prepare { path, bytes, head }, 1) => {
                let (inode, _) = self.file(pending.file.expect("it was created"));
                let mut contents = head.clone();
                contents.resize(usize::try_from(*bytes).expect("files are small"), 0);
                self.act("prepare", path, |state| state.write(inode, 0, &contents, Durability::Unsynced))?;
            }
            (Task::Prepare { .. }, 2) => self.sync(pending.file.expect("it was created"))?,
            (Task::Prepare { path, .. }, 3) => {
                self.rename(&layout::temporary(path), path)?;
                let file = self.files.get_mut(&pending.file.expect("it was created"));
                file.expect("it is open").1.clone_from(path);
            }
            (Task::Create { path }, 0) => pending.file = Some(self.create(path)?),
            (Task::Publish { file, .. }, 0) => self.sync(*file)?,
            (Task::Publish { file, from, to }, 1) => {
                self.close(*file);
                self.rename(from, to)?;
            }
            (Task::Remove { path }, 0) => self.remove(path)?,
            (Task::Prepare { path, .. } | Task::Publish { to: path, .. } | Task::Remove { path }, _) => {
                self.sync_directory(path.parent().unwrap_or(Path::new("")))?;
                return Ok(true);
            }
            (Task::Create { .. }, _) => return Ok(true),
        }
        Ok(false)
    }

    fn clear_after_failure(&mut self, pending: &PendingTask) {
        match &pending.task {
            Task::Prepare { path, .. } => {
                if let Some(file) = pending.file {
                    self.close(file);
                }
                self.disk.lock().remove(&layout::temporary(path));
                let directory = path.parent().unwrap_or(Path::new("")).to_owned();
                self.disk.lock().sync_names(&directory);
            }
            Task::Publish { file, .. } => self.close(*file),
            Task::Create { .. } | Task::Remove { .. } => {}
        }
    }
}

impl Device for SimulatedDevice {
    fn submit_write(&mut self, file: FileId, offset: u64, buffer: AlignedBuffer, durability: Durability) -> OpId {
        let op = self.next_op();
        let (inode, _) = self.file(file);
        let mut state = self.disk.lock();
        let delay_polls_max = state.options.delay_polls_max;
        let polls_left = state.random(delay_polls_max + 1);
        let ticket = state.next_in_flight;
        state.next_in_flight += 1;
        if !state.is_off {
            let start = usize::try_from(offset).expect("files are small");
            let change = Change::Write { offset: start, bytes: buffer.as_slice().to_vec() };
            state.in_flight.insert(ticket, (inode, change));
        }
        drop(state);
        self.writes.push(PendingWrite { op, file, offset, buffer, durability, ticket, polls_left });
        op
    }

    fn submit_task(&mut self, task: Task) -> OpId {
        let op = self.next_op();
        self.tasks.push(PendingTask { op, task, stage: 0, file: None });
        op
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let mut due = Vec::new();
        for mut write in std::mem::take(&mut self.writes) {
            if write.polls_left == 0 {
                due.push(write);
            } else {
                write.polls_left -= 1;
                self.writes.push(write);
            }
        }
        while !due.is_empty() {
            let at = self.disk.lock().random(due.len() as u64);
            let write = due.swap_remove(usize::try_from(at).expect("an index"));
            completions.extend(self.complete_write(write));
        }
        if !self.tasks.is_empty() {
            completions.extend(self.step_task());
        }
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(&file);
    }

    fn create_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.act("create", path, |state| {
            for directory in path.ancestors() {
                state.names.insert(directory.to_owned(), Node::Directory);
                state.names_durable.insert(directory.to_owned(), Node::Directory);
            }
            Ok(())
        })
    }

    fn list(&mut self, path: &Path) -> Result<Vec<Entry>, DeviceError> {
        let state = self.disk.lock();
        let children = state.names.iter().filter(|(child, _)| child.parent() == Some(path));
        let entry = |(child, node): (&PathBuf, &Node)| {
            let name = child.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match node {
                Node::File(inode) => {
                    Entry { name, is_directory: false, bytes: state.inodes[inode].current.len() as u64 }
                }
                Node::Directory => Entry { name, is_directory: true, bytes: 0 },
            }
        };
        let mut entries: Vec<_> = children.map(entry).collect();
        entries.sort();
        Ok(entries)
    }

    fn open(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        let node = self.disk.lock().names.get(path).copied();
        match node {
            Some(Node::File(inode)) => Ok(self.keep(inode, path)),
            _ => Err(DeviceError::new("open", path, io::ErrorKind::NotFound.into())),
        }
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DeviceError> {
        let (inode, path) = self.file(file);
        let mut state = self.disk.lock();
        if state.is_off {
            let source = io::Error::other("the power has failed");
            return Err(DeviceError::new("read", path, source).at(offset));
        }
        let contents = &state.inode(inode).current;
        let rest = contents.get(usize::try_from(offset).expect("files are small")..).unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(&rest[..rest.len().min(buffer.capacity())]);
        Ok(())
    }

    fn create(&mut self, path: &Path) -> Result<FileId, DeviceError> {
        let inode = self.act("create", path, |state| state.create(path))?;
        Ok(self.keep(inode, path))
    }

    fn append(&mut self, file: FileId, bytes: &[u8]) -> Result<(), DeviceError> {
        let (inode, path) = self.file(file);
        self.act("write", &path, |state| {
            let offset = state.inode(inode).current.len();
            state.write(inode, offset, bytes, Durability::Unsynced)
        })
    }

    fn sync(&mut self, file: FileId) -> Result<(), DeviceError> {
        let (inode, path) = self.file(file);
        self.act("sync", &path, |state| {
            state.sync(inode);
            Ok(())
        })
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DeviceError> {
        self.act("rename", from, |state| state.rename(from, to))
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.act("sync", path, |state| {
            state.sync_names(path);
            Ok(())
        })
    }

    fn remove(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.act("remove", path, |state| {
            state.remove(path);
            Ok(())
        })
    }

    fn remove_directory(&mut self, path: &Path) -> Result<(), DeviceError> {
        self.act("remove", path, |state| {
            if state.names.keys().any(|child| child.parent() == Some(path)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            state.remove(path);
            Ok(())
        })
    }

    fn truncate(&mut self, path: &Path, bytes: u64) -> Result<(), DeviceError> {
        self.act("truncate", path, |state| {
            let Some(Node::File(inode)) = state.names.get(path).copied() else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let change = Change::Truncate { length: usize::try_from(bytes).expect("files are small") };
            let inode = state.inode(inode);
            change.apply(&mut inode.current);
            inode.pending.push(change);
            Ok(())
        })
    }
}
