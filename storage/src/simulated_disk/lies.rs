//! Writes that are reported as durable and are not where they belong, and the record of them.
//!
//! The record holds files, not paths, so that a file written under a temporary name is found under its final one.

use super::{
    faults::{Lie, LieKind},
    inode::{Change, Write},
    names::{InodeId, Names},
    state::State,
};
use crate::ALIGNMENT_BYTES;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default)]
pub struct Lies {
    told: Vec<Told>,
}

/// A lie with the files that its paths are the names of.
#[derive(Clone, Debug)]
struct Told {
    lie: Lie,
    inode: InodeId,
    landed: Option<InodeId>,
}

/// Where a misdirected write goes.
struct Landing {
    inode: InodeId,
    path: PathBuf,
    offset: usize,
}

impl Lies {
    pub fn list(&self, names: &Names) -> Vec<Lie> {
        let renamed = |told: &Told| {
            let mut lie = told.lie.clone();
            let rename = |path: &mut PathBuf, inode| {
                if let Some(name) = names.path_of(inode) {
                    name.clone_into(path);
                }
            };
            rename(&mut lie.path, told.inode);
            if let (Some((path, _)), Some(inode)) = (&mut lie.landed, told.landed) {
                rename(path, inode);
            }
            lie
        };
        self.told.iter().map(renamed).collect()
    }
}

impl State {
    /// Takes a write that shall be lied about and gives an honest one back.
    pub fn lie_about(&mut self, inode: InodeId, path: &Path, mut write: Write) -> Option<Write> {
        let (offset, bytes) = (write.offset as u64, write.bytes.len() as u64);
        let lie = |kind, landed| Lie { kind, path: path.to_owned(), offset, bytes, landed };
        if self.chance.strikes(self.faults.lost_write) {
            self.lies.told.push(Told { lie: lie(LieKind::LostWrite, None), inode, landed: None });
            return None;
        }
        if self.chance.strikes(self.faults.misdirected_write)
            && let Some(landing) = self.landing(inode, &write)
        {
            write.offset = landing.offset;
            let fate = self.fate_of_synced();
            self.inode(landing.inode).apply(Change::Write(write), fate);
            let lie = lie(LieKind::MisdirectedWrite, Some((landing.path, landing.offset as u64)));
            self.lies.told.push(Told { lie, inode, landed: Some(landing.inode) });
            return None;
        }
        Some(write)
    }

    /// Another place for a write: in its own file or in another, as likely if there are both.
    fn landing(&mut self, own: InodeId, write: &Write) -> Option<Landing> {
        let length = write.bytes.len();
        let offsets = |inode: InodeId| {
            let last = self.inodes[&inode].current().len().checked_sub(length);
            let offsets = last.map(|last| (0..=last).step_by(ALIGNMENT_BYTES)).into_iter().flatten();
            offsets.filter(move |offset| (inode, *offset) != (own, write.offset))
        };
        let has_room = |(_, inode): &(&Path, InodeId)| offsets(*inode).next().is_some();
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            self.names.files().filter(has_room).partition(|(_, inode)| *inode == own);
        let is_here = elsewhere.is_empty() || (!here.is_empty() && self.chance.below(2) == 0);
        let files = if is_here { here } else { elsewhere };
        if files.is_empty() {
            return None;
        }
        let (path, inode) = files[self.chance.index(files.len())];
        let offset = offsets(inode).nth(self.chance.index(offsets(inode).count())).expect("it is below the count");
        Some(Landing { inode, path: path.to_owned(), offset })
    }
}
