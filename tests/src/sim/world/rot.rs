//! Rot: a bit of what a node has on its disk flips, or a part of a file cannot be read, on a copy, and a node is started on that copy. It
//! has to notice, or to find a state that there was with all that was told.

use super::World;
use crate::sim::{
    node::{Node, StartFailure},
    plan::Backend,
    violation::{Promise, Violation},
};
use std::path::{Path, PathBuf};
use tickwheel_storage::simulated_disk::{DiskFaults, SimulatedDisk};
use tickwheel_wire::mix64;

/// What cannot be read when something cannot be read.
const SECTOR_BYTES: u64 = 4_096;

impl World {
    /// A bit of the data flips, on a copy of the disk: a node started on it has to notice, or to find a state that there was.
    pub(super) fn flip_bit(&mut self, draw: u64) -> Result<(), Violation> {
        let Some((copy, path, length)) = self.rotten_copy(draw) else { return Ok(()) };
        let path = path.as_path();
        // Zeroes are room that is not used yet, for the most part.
        let says_something = |offset: &u64| {
            copy.contents(path).is_some_and(|bytes| bytes[usize::try_from(*offset).expect("small")] != 0)
        };
        let offsets = (0..64).map(|attempt| mix64(draw ^ mix64(attempt)) % length);
        let offset = offsets.clone().find(says_something).unwrap_or(mix64(draw) % length);
        copy.corrupt(path, offset, 1 << (draw >> 60 & 7));
        let behind = blocks_behind(&copy, path, offset);
        let result = self.probe(copy).start(self.now, self.system_wall(), self.shards);
        let what = result.as_ref().map(|_| "starts").unwrap_or("refuses to start");
        self.trace.note(self.now, "probe", format_args!("{what} with a flipped bit at {offset} of {}", path.display()));
        match result {
            Ok(recovery) => {
                let may_lose = behind <= self.plan.settings.in_flight_max;
                self.auditor.recovered_after_rot(&recovery.partitions, may_lose)
            }
            Err(StartFailure::Damage(_) | StartFailure::OutOfSpace) => Ok(()),
            Err(other) => Err(Violation::new(Promise::Damage, format!("{}: {other:?}", path.display()))),
        }
    }

    /// A part of a file cannot be read, on a copy of the disk: a node started on it has to say so, or to do without and find all that
    /// there was; and once it can be read again, all is there, whatever the first start did.
    pub(super) fn hide_sector(&mut self, draw: u64) -> Result<(), Violation> {
        let Some((copy, path, length)) = self.rotten_copy(draw) else { return Ok(()) };
        let from = mix64(draw) % length / SECTOR_BYTES * SECTOR_BYTES;
        let sector = from..from + SECTOR_BYTES;
        copy.fail_reads(&path, sector.clone(), true);
        let mut probe = self.probe(copy.clone());
        let result = probe.start(self.now, self.system_wall(), self.shards);
        let what = result.as_ref().map(|_| "starts").unwrap_or("refuses to start");
        self.trace.note(self.now, "probe", format_args!("{what} without {from} of {}", path.display()));
        match result {
            Ok(recovery) => self.auditor.recovered_after_rot(&recovery.partitions, false)?,
            Err(StartFailure::Disk(_)) => {}
            Err(other) => return Err(Violation::new(Promise::Damage, format!("{} hidden: {other:?}", path.display()))),
        }
        if copy.contents(&path).is_some() {
            copy.fail_reads(&path, sector, false);
        }
        match probe.start(self.now, self.system_wall(), self.shards) {
            Ok(recovery) => self.auditor.recovered_after_rot(&recovery.partitions, false),
            Err(other) => Err(Violation::new(Promise::Damage, format!("{} readable again: {other:?}", path.display()))),
        }
    }

    /// A copy of the disk, a file on it that is going to rot, and that file's length.
    fn rotten_copy(&self, draw: u64) -> Option<(SimulatedDisk, PathBuf, u64)> {
        if self.node.disk.is_off() || self.plan.settings.backend != Backend::Files {
            return None;
        }
        let copy = self.node.disk.copy();
        copy.set_faults(DiskFaults::default());
        copy.set_capacity_bytes(u64::MAX);
        let is_empty = |path: &PathBuf| copy.contents(path).is_none_or(|bytes| bytes.is_empty());
        let files: Vec<_> = copy.paths().into_iter().filter(|path| !is_empty(path)).collect();
        let files = self.rotten_files(files, draw);
        let path = files.get(usize::try_from(draw.checked_rem(files.len() as u64)?).expect("an index"))?;
        let length = copy.contents(path)?.len() as u64;
        Some((copy, path.clone(), length))
    }

    /// A node like the one that runs, on another disk.
    fn probe(&self, disk: SimulatedDisk) -> Node {
        let mut probe = Node::new(self.plan.settings, self.base, self.plan.seed);
        probe.disk = disk;
        probe
    }

    /// What rots: mostly the logs that are being written, and the newest snapshot of a partition; sometimes anything.
    fn rotten_files(&self, files: Vec<PathBuf>, draw: u64) -> Vec<PathBuf> {
        let number = |path: &Path| path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok()).unwrap_or(0);
        let in_folder =
            |folder: &str| files.iter().filter(|path| path.starts_with(folder)).cloned().collect::<Vec<_>>();
        let mut chosen = match mix64(draw) % 10 {
            0..=5 => {
                let stream = |path: &PathBuf| path.parent().map_or(0, number);
                let mut streams: Vec<u64> = in_folder("log").iter().map(stream).collect();
                streams.sort_unstable();
                streams.dedup();
                let from = streams.len().saturating_sub(self.shards.into());
                in_folder("log").into_iter().filter(|path| streams[from..].contains(&stream(path))).collect()
            }
            6..=8 => in_folder("snapshots"),
            _ => Vec::new(),
        };
        if mix64(draw) % 10 > 5 {
            let newest = chosen.iter().max_by_key(|path| number(path)).cloned();
            chosen = newest.into_iter().collect();
        }
        if chosen.is_empty() { files } else { chosen }
    }
}

/// How many blocks of its stream lie behind a place in a log file. Damage among the last few is taken for the torn end, as
/// the log's format says: nothing on the disk tells that they had been durable.
fn blocks_behind(disk: &SimulatedDisk, path: &Path, offset: u64) -> usize {
    const BLOCK_BYTES: usize = 4_096;
    let Some(directory) = path.parent().filter(|directory| directory.starts_with("log")) else { return usize::MAX };
    let number = |path: &Path| path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok());
    let files =
        disk.paths().into_iter().filter(|file| file.parent() == Some(directory) && number(file) >= number(path));
    let count = |file: PathBuf| {
        let contents = disk.contents(&file).unwrap_or_default();
        let from = if file == path { usize::try_from(offset).expect("small") / BLOCK_BYTES + 1 } else { 0 };
        contents.chunks(BLOCK_BYTES).skip(from).filter(|page| page.starts_with(b"TWBK")).count()
    };
    files.map(count).sum()
}
