//! The names on the disk: as a process sees them, as the medium holds them, and the changes between the two.
//!
//! Changes that were not synced with their directory survive a loss of power as a prefix of that directory's.

use super::random::Random;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
};

pub type InodeId = u64;

/// What the names of one moment stand for.
pub type Tree = BTreeMap<PathBuf, Node>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    File(InodeId),
    Directory,
}

#[derive(Clone, Debug)]
pub struct Names {
    now: Tree,
    durable: Tree,
    pending: Vec<NameChange>,
}

#[derive(Clone, Debug)]
pub struct NameChange {
    pub directory: PathBuf,
    pub remove: Option<PathBuf>,
    pub insert: Option<(PathBuf, Node)>,
}

impl Names {
    /// A disk on which these are durable.
    pub fn new(tree: Tree) -> Self {
        Self { now: tree.clone(), durable: tree, pending: Vec::new() }
    }

    pub fn now(&self) -> &Tree {
        &self.now
    }

    pub fn file(&self, path: &Path) -> Option<InodeId> {
        match self.now.get(path)? {
            Node::File(inode) => Some(*inode),
            Node::Directory => None,
        }
    }

    /// Every file that has a name, sorted by it.
    pub fn files(&self) -> impl Iterator<Item = (&Path, InodeId)> {
        self.now.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path.as_path(), *inode)),
            Node::Directory => None,
        })
    }

    pub fn path_of(&self, inode: InodeId) -> Option<&Path> {
        self.files().find(|(_, other)| *other == inode).map(|(path, _)| path)
    }

    /// Makes the directory and those above it, durably.
    pub fn create_directory(&mut self, path: &Path) {
        for directory in path.ancestors() {
            self.now.insert(directory.to_owned(), Node::Directory);
            self.durable.insert(directory.to_owned(), Node::Directory);
        }
    }

    pub fn change(&mut self, change: NameChange) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    pub fn sync(&mut self, directory: &Path) {
        let changes = std::mem::take(&mut self.pending);
        let (now, later): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.directory == directory);
        now.iter().for_each(|change| change.apply(&mut self.durable));
        // What was in a directory goes with it.
        drop_orphans(&mut self.durable);
        self.pending = later;
        let names = &self.now;
        self.pending.retain(|change| names.contains_key(&change.directory));
    }

    /// Every file that a name, old or new, refers to.
    pub fn referenced(&self) -> HashSet<InodeId> {
        let pending = self.pending.iter().filter_map(|change| change.insert.as_ref()).map(|(_, node)| node);
        let nodes = self.now.values().chain(self.durable.values()).chain(pending);
        nodes.filter_map(|node| if let Node::File(inode) = node { Some(*inode) } else { None }).collect()
    }

    /// The names as found after the power has failed.
    pub fn after_power_failure(&self, random: &mut Random) -> Self {
        let mut names = self.durable.clone();
        let mut left: BTreeMap<&Path, u64> = BTreeMap::new();
        for change in &self.pending {
            // A directory's changes survive up to some point and not beyond.
            let quota = left.entry(&change.directory).or_insert_with(|| random.below(8));
            if *quota > 0 {
                *quota -= 1;
                change.apply(&mut names);
            }
        }
        drop_orphans(&mut names);
        Self::new(names)
    }
}

/// Forgets names in directories that do not exist.
fn drop_orphans(names: &mut Tree) {
    let is_directory = |node: &&Node| **node == Node::Directory;
    let directories: BTreeSet<PathBuf> =
        names.iter().filter(|(_, node)| is_directory(node)).map(|(path, _)| path.clone()).collect();
    names.retain(|path, _| path.parent().is_none_or(|parent| directories.contains(parent)));
}

impl NameChange {
    fn apply(&self, names: &mut Tree) {
        if let Some(path) = &self.remove {
            names.remove(path);
        }
        if let Some((path, node)) = &self.insert {
            names.insert(path.clone(), *node);
        }
    }
}
