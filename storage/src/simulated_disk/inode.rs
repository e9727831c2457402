//! The contents of one file: what a reader sees, what the medium holds, and the changes between the two.
//!
//! Invariant: the current bytes are the durable ones with every change applied in order. A file with no changes holds its bytes once.
//! Changes stay in order whatever their fate, so that an older one never undoes a newer one when the power fails. They are kept until
//! all are durable: a file whose sync failed keeps them for good, since its user gives it up.

use super::random::Random;
use std::ops::Range;

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
pub struct Inode {
    current: Vec<u8>,
    /// `None`: the same as `current`, and `changes` is empty.
    durable: Option<Vec<u8>>,
    changes: Vec<(Change, Fate)>,
    unreadable: Vec<Range<u64>>,
}

#[derive(Clone, Debug)]
pub enum Change {
    Write(Write),
    Truncate { length: usize },
}

#[derive(Clone, Debug)]
pub struct Write {
    pub offset: usize,
    pub bytes: Vec<u8>,
}

/// What a loss of power does to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Durable,
    /// It may be kept, lost or torn; a sync makes it durable.
    Volatile,
    /// It may be kept, lost or torn, and no sync helps: the kernel believes that it is written.
    Abandoned,
}

impl Inode {
    pub fn current(&self) -> &[u8] {
        &self.current
    }

    pub fn apply(&mut self, change: Change, fate: Fate) {
        if self.durable.is_none() {
            if fate == Fate::Durable {
                change.apply(&mut self.current);
                return;
            }
            self.durable = Some(self.current.clone());
        }
        change.apply(&mut self.current);
        self.changes.push((change, fate));
    }

    /// Makes every volatile change durable.
    pub fn sync(&mut self) {
        for (_, fate) in &mut self.changes {
            if *fate == Fate::Volatile {
                *fate = Fate::Durable;
            }
        }
        if self.changes.iter().all(|(_, fate)| *fate == Fate::Durable) {
            self.changes.clear();
            self.durable = None;
        }
    }

    /// Gives every volatile change up, as a kernel does whose sync failed.
    pub fn abandon(&mut self) {
        for (_, fate) in &mut self.changes {
            if *fate == Fate::Volatile {
                *fate = Fate::Abandoned;
            }
        }
    }

    /// The file as found after the power has failed, while `in_flight` were under way.
    pub fn after_power_failure(&self, in_flight: &[&Write], random: &mut Random) -> Self {
        let mut contents = self.durable.as_ref().unwrap_or(&self.current).clone();
        for (change, fate) in &self.changes {
            match (fate, change) {
                (Fate::Durable, _) => change.apply(&mut contents),
                (_, Change::Write(write)) => {
                    write.in_part(random).iter().for_each(|part| part.apply(&mut contents));
                }
                (_, Change::Truncate { .. }) => {
                    if random.below(3) > 0 {
                        change.apply(&mut contents);
                    }
                }
            }
        }
        for write in in_flight {
            write.in_part(random).iter().for_each(|part| part.apply(&mut contents));
        }
        Self { current: contents, durable: None, changes: Vec::new(), unreadable: self.unreadable.clone() }
    }

    /// Flips bits of a byte in every version of it.
    ///
    /// # Panics
    /// If a reader sees no such byte.
    pub fn corrupt(&mut self, offset: usize, mask: u8) {
        self.current[offset] ^= mask;
        if let Some(byte) = self.durable.as_mut().and_then(|durable| durable.get_mut(offset)) {
            *byte ^= mask;
        }
        for (change, _) in &mut self.changes {
            if let Change::Write(write) = change
                && let Some(byte) = offset.checked_sub(write.offset).and_then(|index| write.bytes.get_mut(index))
            {
                *byte ^= mask;
            }
        }
    }

    /// Makes `range` unreadable, or readable again.
    pub fn set_unreadable(&mut self, range: &Range<u64>, is_unreadable: bool) {
        if is_unreadable {
            self.unreadable.push(range.clone());
            return;
        }
        let parts = |bad: &Range<u64>| {
            [bad.start..bad.end.min(range.start).max(bad.start), bad.start.max(range.end).min(bad.end)..bad.end]
        };
        self.unreadable = self.unreadable.iter().flat_map(parts).filter(|part| !part.is_empty()).collect();
    }

    pub fn is_readable(&self, range: &Range<u64>) -> bool {
        !self.unreadable.iter().any(|bad| bad.start.max(range.start) < bad.end.min(range.end))
    }
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write(write) => write.apply(contents),
            Self::Truncate { length } => contents.truncate(*length),
        }
    }
}

impl Write {
    pub fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn apply(&self, contents: &mut Vec<u8>) {
        if contents.len() < self.end() {
            contents.resize(self.end(), 0);
        }
        contents[self.offset..self.end()].copy_from_slice(&self.bytes);
    }

    /// All of it, nothing, or some of its sectors.
    pub fn in_part(&self, random: &mut Random) -> Vec<Self> {
        match random.below(3) {
            0 => Vec::new(),
            1 => vec![self.clone()],
            _ => {
                let sectors = self.bytes.chunks(SECTOR_BYTES).enumerate().filter(|_| random.below(2) == 0);
                let sector = |(index, bytes): (usize, &[u8])| {
                    let offset = self.offset + index * SECTOR_BYTES;
                    Self { offset, bytes: bytes.to_vec() }
                };
                sectors.map(sector).collect()
            }
        }
    }
}
