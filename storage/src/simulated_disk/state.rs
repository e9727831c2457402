//! The disk itself: files, names, what is in flight, and what goes wrong with a step.
//!
//! Each function that takes a step counts it first ([`State::step`]), then draws the faults that concern it, then changes something.

use super::{
    faults::DiskFaults,
    inode::{Change, Fate, Inode, Write},
    lies::Lies,
    names::{InodeId, NameChange, Names, Node},
    options::{DiskOptions, Latency},
    random::Random,
};
use crate::{AlignedBuffer, Durability};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Keeps the stream of faults apart from that of delays and losses.
const FAULTS_SALT: u64 = 0x6661_756c_7473;

#[derive(Debug)]
pub struct State {
    pub options: DiskOptions,
    pub faults: DiskFaults,
    pub now: Duration,
    pub op_count: u64,
    pub crash_at: Option<u64>,
    pub fail_at: Option<(u64, io::ErrorKind)>,
    pub power: Power,
    pub names: Names,
    pub inodes: BTreeMap<InodeId, Inode>,
    pub next_inode: InodeId,
    /// Submitted and not completed: what of them is on the disk is open.
    pub in_flight: BTreeMap<u64, (InodeId, Write)>,
    next_in_flight: u64,
    pub lies: Lies,
    /// Decides delays, orders and losses.
    pub random: Random,
    /// Decides what goes wrong.
    pub chance: Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    On,
    /// The process is dead, the machine is not.
    Killed,
    Failed,
}

impl State {
    pub fn new(options: DiskOptions) -> Self {
        options.latency.into_iter().for_each(Latency::check);
        Self {
            options,
            faults: DiskFaults::default(),
            now: Duration::ZERO,
            op_count: 0,
            crash_at: None,
            fail_at: None,
            power: Power::On,
            names: Names::new([(PathBuf::new(), Node::Directory)].into()),
            inodes: BTreeMap::new(),
            next_inode: 0,
            in_flight: BTreeMap::new(),
            next_in_flight: 0,
            lies: Lies::default(),
            random: Random::new(options.seed),
            chance: Random::new(options.seed ^ FAULTS_SALT),
        }
    }

    /// Fails once nothing happens any more.
    pub fn check_on(&self) -> io::Result<()> {
        match self.power {
            Power::On => Ok(()),
            Power::Killed => Err(io::Error::other("the process was killed")),
            Power::Failed => Err(io::Error::other("the power has failed")),
        }
    }

    /// Counts a step and decides whether it happens.
    pub fn step(&mut self) -> io::Result<()> {
        self.check_on()?;
        self.op_count += 1;
        if self.crash_at == Some(self.op_count) {
            self.power = Power::Failed;
        }
        self.check_on()?;
        match self.fail_at {
            Some((at, kind)) if at == self.op_count => Err(io::Error::from(kind)),
            _ => Ok(()),
        }
    }

    fn strike(&mut self, rate: u32, text: &'static str) -> io::Result<()> {
        if self.chance.strikes(rate) { Err(io::Error::other(text)) } else { Ok(()) }
    }

    /// When something is over that starts at `start`; `None` when polls are counted instead.
    pub fn end_of(&mut self, start: Duration) -> Option<Duration> {
        let Latency { min, max } = self.options.latency?;
        let spread = u64::try_from((max - min).as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        let drawn = Duration::from_nanos(self.random.below(spread));
        Some(start.saturating_add(min).saturating_add(drawn))
    }

    pub fn inode(&mut self, inode: InodeId) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an inode in use exists")
    }

    pub fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.current().len() as u64).sum()
    }

    /// Whether a file may grow so far. Bytes that it has already need no room.
    fn check_room(&mut self, inode: InodeId, end: usize) -> io::Result<()> {
        let more = end.saturating_sub(self.inode(inode).current().len()) as u64;
        if more > 0 && self.used_bytes().saturating_add(more) > self.options.capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Takes note of a write that was submitted; returns its ticket.
    pub fn submit(&mut self, inode: InodeId, write: Write) -> u64 {
        let ticket = self.next_in_flight;
        self.next_in_flight += 1;
        if self.power == Power::On {
            self.in_flight.insert(ticket, (inode, write));
        }
        ticket
    }

    /// Completes a write that was submitted. When the power fails at this step it stays in flight.
    pub fn complete(&mut self, ticket: u64, path: &Path, durability: Durability) -> io::Result<()> {
        let stepped = self.step();
        self.check_on()?;
        let (inode, write) = self.in_flight.remove(&ticket).expect("it was in flight");
        self.finish_write(stepped, inode, path, write, durability)
    }

    /// Writes without making anything durable.
    pub fn write(&mut self, inode: InodeId, path: &Path, write: Write) -> io::Result<()> {
        let stepped = self.step();
        self.check_on()?;
        self.finish_write(stepped, inode, path, write, Durability::Unsynced)
    }

    /// Writes over what is there, durably.
    pub fn overwrite(&mut self, path: &Path, write: Write) -> io::Result<()> {
        let stepped = self.step();
        self.check_on()?;
        let inode = self.names.file(path).ok_or(io::ErrorKind::NotFound)?;
        self.finish_write(stepped, inode, path, write, Durability::Synced)
    }

    fn finish_write(
        &mut self,
        stepped: io::Result<()>,
        inode: InodeId,
        path: &Path,
        write: Write,
        durability: Durability,
    ) -> io::Result<()> {
        self.check_room(inode, write.end())?;
        if let Err(error) = stepped.and_then(|()| self.strike(self.faults.write_error, "the write failed by chance")) {
            for part in write.in_part(&mut self.random) {
                self.inode(inode).apply(Change::Write(part), Fate::Volatile);
            }
            return Err(error);
        }
        if durability == Durability::Unsynced {
            self.inode(inode).apply(Change::Write(write), Fate::Volatile);
            return Ok(());
        }
        let Some(write) = self.lie_about(inode, path, write) else { return Ok(()) };
        if let Err(error) = self.strike(self.faults.sync_error, "the sync of the write failed by chance") {
            self.inode(inode).apply(Change::Write(write), Fate::Volatile);
            self.inode(inode).abandon();
            return Err(error);
        }
        let fate = self.fate_of_synced();
        self.inode(inode).apply(Change::Write(write), fate);
        Ok(())
    }

    pub fn fate_of_synced(&self) -> Fate {
        if self.options.is_sync_ignored { Fate::Volatile } else { Fate::Durable }
    }

    pub fn sync(&mut self, inode: InodeId) -> io::Result<()> {
        let stepped = self.step();
        self.check_on()?;
        let result = stepped.and_then(|()| self.strike(self.faults.sync_error, "the sync failed by chance"));
        if result.is_err() {
            self.inode(inode).abandon();
        } else if !self.options.is_sync_ignored {
            self.inode(inode).sync();
        }
        result
    }

    pub fn truncate(&mut self, path: &Path, length: usize) -> io::Result<()> {
        self.step()?;
        let inode = self.names.file(path).ok_or(io::ErrorKind::NotFound)?;
        self.inode(inode).apply(Change::Truncate { length }, Fate::Volatile);
        Ok(())
    }

    /// Replaces what `buffer` holds.
    pub fn read(&mut self, inode: InodeId, offset: u64, buffer: &mut AlignedBuffer) -> io::Result<()> {
        self.check_on()?;
        let inode = self.inode(inode);
        let rest = inode.current().get(usize::try_from(offset).expect("files are small")..).unwrap_or_default();
        let bytes = &rest[..rest.len().min(buffer.capacity())];
        if !inode.is_readable(&(offset..offset + bytes.len() as u64)) {
            return Err(io::Error::other("the medium cannot be read here"));
        }
        buffer.clear();
        buffer.extend_from_slice(bytes);
        Ok(())
    }

    pub fn create(&mut self, path: &Path) -> io::Result<InodeId> {
        self.step()?;
        self.strike(self.faults.other_error, "the creation failed by chance")?;
        let directory = path.parent().unwrap_or(Path::new(""));
        if self.names.now().get(directory) != Some(&Node::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        let insert = Some((path.to_owned(), Node::File(inode)));
        self.change_name(NameChange { directory: directory.to_owned(), remove: None, insert });
        Ok(inode)
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.strike(self.faults.other_error, "the renaming failed by chance")?;
        let node = *self.names.now().get(from).ok_or(io::ErrorKind::NotFound)?;
        let directory = to.parent().unwrap_or(Path::new("")).to_owned();
        assert_eq!(from.parent(), to.parent(), "files are renamed within their directory");
        let (remove, insert) = (Some(from.to_owned()), Some((to.to_owned(), node)));
        self.change_name(NameChange { directory, remove, insert });
        Ok(())
    }

    /// Removes a name if it is there. Not a step.
    pub fn remove(&mut self, path: &Path) {
        if self.names.now().contains_key(path) {
            let directory = path.parent().unwrap_or(Path::new("")).to_owned();
            self.change_name(NameChange { directory, remove: Some(path.to_owned()), insert: None });
        }
    }

    pub fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        if self.names.now().keys().any(|child| child.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.remove(path);
        Ok(())
    }

    pub fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        self.step()?;
        self.strike(self.faults.other_error, "the sync of the directory failed by chance")?;
        self.sync_names(directory);
        Ok(())
    }

    /// Makes the names in a directory durable. Not a step.
    pub fn sync_names(&mut self, directory: &Path) {
        if !self.options.is_sync_ignored {
            self.names.sync(directory);
            self.drop_unnamed();
        }
    }

    fn change_name(&mut self, change: NameChange) {
        self.names.change(change);
        self.drop_unnamed();
    }

    /// Frees the room of files that no name, old or new, refers to.
    fn drop_unnamed(&mut self) {
        let named = self.names.referenced();
        self.inodes.retain(|inode, _| named.contains(inode));
    }
}
