//! A data directory in which some bytes are not what was written: recovery gives what was written, a front of it, or an error.
//!
//! The directory holds one stream of a few segments that are still open, as a node leaves them that was killed, and one snapshot. It is made
//! by the real log, once, and is the same in every call.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::LazyLock,
};
use tickwheel_storage::{
    Admission, AppendError, CommitLog, Device, Log, LogOptions, Recovered, ReplaySink, Replayed, Section,
    SnapshotProgress, SnapshotWriter, recover,
    simulated_disk::{DiskOptions, SimulatedDevice, SimulatedDisk},
};
use tickwheel_wire::{PartitionCount, PartitionId, mix64};

const PARTITIONS: u16 = 2;
/// What each commit holds: events of partition 0 and of partition 1.
const COMMITS: [[usize; PARTITIONS as usize]; 9] =
    [[1, 0], [2, 1], [1, 1], [0, 3], [3, 0], [30, 2], [1, 0], [0, 1], [1, 1]];
/// Events of partition 0 that its snapshot contains, and the commit after which it is taken.
const IN_SNAPSHOT: u64 = 3;
const SNAPSHOT_AFTER: usize = 2;
const EVENT_BYTES: usize = 200;
const POLLS_MAX: usize = 1_000;
const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 16 << 10,
    batch_bytes_max: 8 << 10,
    in_flight_max: 4,
    ahead_segments: 1,
    reserve_segments: 0,
    salt: 0x5EED,
};

const PAGE_BYTES: usize = 4_096;
/// What an edit begins with: its mode, the file, and where in it.
const EDIT_BYTES: usize = 5;
/// Modes of an edit: its bytes are put in front of what is there instead of over it; the file's checksums are made right afterwards.
const INSERT: u8 = 1;
const SEAL: u8 = 2;

const BLOCK_MAGIC: [u8; 4] = *b"TWBK";
const BLOCK_HEADER_BYTES: usize = 48;
const SEGMENT_CHECKED_BYTES: usize = 44;
const SALT_AT: usize = 12;
const SNAPSHOT_CHECKED_BYTES: usize = 24;
const FRAMES_FROM: usize = 32;
const FRAME_HEADER_BYTES: usize = 16;

type Files = BTreeMap<PathBuf, Vec<u8>>;
/// The sections of each partition with their first events; those of a snapshot are one.
type States = BTreeMap<PartitionId, Vec<u8>>;

static BASE: LazyLock<(Files, States)> = LazyLock::new(base);

/// Edits of the directory's files: mode, file, offset as `u16`, length, and the bytes; the last edit may be short. What comes out must be a
/// front of what was written, unless the edits forged something with the right checksum.
///
/// # Panics
/// If recovery gives something else, or other states the next time.
pub fn log(bytes: &[u8]) {
    let (base, written) = &*BASE;
    let mut files = base.clone();
    edit(&mut files, bytes);
    let is_forged = files.iter().any(|(path, bytes)| holds_forgery(path, bytes, &base[path]));
    let disk = disk_of(&files);
    let Ok((recovered, replayed, found)) = read(&mut disk.device()) else { return };
    if !is_forged {
        let is_front = |(id, state): (&PartitionId, &Vec<u8>)| written[id].starts_with(state);
        assert!(found.iter().all(is_front), "recovery gives what was never written");
    }
    let all = (0..PARTITIONS).map(PartitionId).collect();
    if recovered.start(&mut disk.device(), &[replayed], &[all]).is_ok() {
        let (.., again) = read(&mut disk.device()).expect("what was recovered once can be recovered again");
        assert_eq!(again, found, "recovery finds the same again");
    }
}

fn edit(files: &mut Files, mut bytes: &[u8]) {
    let paths: Vec<PathBuf> = files.keys().cloned().collect();
    while let Some(([mode, file, low, high, length], rest)) = bytes.split_first_chunk::<EDIT_BYTES>() {
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        let path = &paths[usize::from(*file) % paths.len()];
        let target = files.get_mut(path).expect("it is one of them");
        let (at, whole) = (usize::from(u16::from_le_bytes([*low, *high])).min(target.len()), target.len());
        let until = if mode & INSERT == 0 { (at + piece.len()).min(whole) } else { at };
        target.splice(at..until, piece.iter().copied());
        target.truncate(whole);
        if mode & SEAL != 0 {
            seal(path, target);
        }
    }
}

/// Makes the checksums of a file right, as far as its parts can be told.
fn seal(path: &Path, bytes: &mut [u8]) {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => {
            put_crc(bytes, SEGMENT_CHECKED_BYTES, |bytes| crc32c::crc32c(&bytes[..SEGMENT_CHECKED_BYTES]));
            for place in blocks(bytes) {
                let crc = block_crc(bytes, &place);
                put_crc(bytes, place.start + 4, |_| crc);
            }
        }
        Some("snap") => {
            put_crc(bytes, SNAPSHOT_CHECKED_BYTES, |bytes| crc32c::crc32c(&bytes[..SNAPSHOT_CHECKED_BYTES]));
            for place in frames(bytes) {
                put_crc(bytes, place.start, |bytes| crc32c::crc32c(&bytes[place.start + 4..place.end]));
            }
        }
        _ => put_crc(bytes, bytes.len() - 4, |bytes| crc32c::crc32c(&bytes[..bytes.len() - 4])),
    }
}

fn put_crc(bytes: &mut [u8], at: usize, crc: impl FnOnce(&[u8]) -> u32) {
    let crc = crc(bytes);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a file has a part with the right checksum that is not one of those that were written.
fn holds_forgery(path: &Path, bytes: &[u8], written: &[u8]) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => {
            let original: Vec<_> = blocks(written).into_iter().map(|place| &written[place]).collect();
            blocks(bytes).into_iter().any(|place| {
                let is_sealed = crc_at(bytes, place.start + 4) == block_crc(bytes, &place);
                is_sealed && !original.contains(&&bytes[place])
            })
        }
        // One that is damaged is passed over for the log; which checksum is right in it does not matter.
        _ => bytes != written,
    }
}

fn block_crc(bytes: &[u8], place: &std::ops::Range<usize>) -> u32 {
    crc32c::crc32c_append(crc_at(bytes, SALT_AT), &bytes[place.start + 8..place.end])
}

fn crc_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("it is inside"))
}

/// Where blocks may be, by their magic and length.
fn blocks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let starts = (PAGE_BYTES..bytes.len()).step_by(PAGE_BYTES);
    let places = starts.filter(|start| bytes[*start..].starts_with(&BLOCK_MAGIC)).filter_map(|start| {
        let end = start.checked_add(usize::try_from(crc_at(bytes, start + 8)).ok()?)?;
        (end >= start + BLOCK_HEADER_BYTES && end <= bytes.len()).then_some(start..end)
    });
    places.collect()
}

/// Where the frames of a snapshot are, as far as their lengths lead.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut places, mut start) = (Vec::new(), FRAMES_FROM);
    while start + FRAME_HEADER_BYTES <= bytes.len() {
        let Ok(length) = usize::try_from(crc_at(bytes, start + 4)) else { break };
        let end = start + FRAME_HEADER_BYTES + length;
        if end > bytes.len() {
            break;
        }
        places.push(start..end);
        start = end.next_multiple_of(FRAME_HEADER_BYTES);
    }
    places
}

fn disk_of(files: &Files) -> SimulatedDisk {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut device = disk.device();
    for (path, bytes) in files {
        device.create_directory(path.parent().expect("it is below the root")).expect("a disk without faults");
        let file = device.create(path).expect("a disk without faults");
        device.append(file, bytes).expect("a disk without faults");
        device.close(file);
    }
    disk
}

type Read = (Recovered, Replayed, States);

/// Recovers and replays, as a node's start does.
fn read(device: &mut SimulatedDevice) -> Result<Read, String> {
    let count = PartitionCount::new(PARTITIONS.into()).expect("a power of two");
    let recovered = recover(device, count).map_err(|error| error.to_string())?;
    let partitions: Vec<_> = (0..PARTITIONS).map(PartitionId).collect();
    let mut sink = Sink::default();
    let replayed = recovered.replay(device, &partitions, &mut sink).map_err(|error| error.to_string())?;
    Ok((recovered, replayed, sink.states))
}

#[derive(Default)]
struct Sink {
    states: States,
    loading: BTreeMap<PartitionId, Vec<u8>>,
}

impl ReplaySink for Sink {
    type Error = String;

    fn snapshot_chunk(&mut self, partition: PartitionId, chunk: &[u8]) -> Result<(), String> {
        self.loading.entry(partition).or_default().extend_from_slice(chunk);
        Ok(())
    }

    fn snapshot_done(&mut self, partition: PartitionId, _: u64, _: u64) -> Result<(), String> {
        let state = self.loading.remove(&partition).unwrap_or_default();
        self.states.insert(partition, state);
        Ok(())
    }

    fn snapshot_discarded(&mut self, partition: PartitionId) -> Result<(), String> {
        self.loading.remove(&partition);
        Ok(())
    }

    fn section(&mut self, partition: PartitionId, first: u64, count: u32, bytes: &[u8]) -> Result<(), String> {
        let state = self.states.entry(partition).or_default();
        let known = usize::try_from(first.saturating_sub(1)).unwrap_or(usize::MAX).saturating_mul(EVENT_BYTES);
        let new = state.len().checked_sub(known).and_then(|known| bytes.get(known..));
        let new = new.ok_or_else(|| format!("{count} events from {first} on do not follow"))?;
        state.extend_from_slice(new);
        Ok(())
    }
}

fn events(partition: PartitionId, from: usize, count: usize) -> Vec<u8> {
    let event =
        |number: usize| mix64(u64::from(partition.0) << 32 | number as u64).to_le_bytes().repeat(EVENT_BYTES / 8);
    (from..from + count).flat_map(event).collect()
}

/// Writes the directory.
fn base() -> (Files, States) {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let (recovered, replayed, mut states) = read(&mut disk.device()).expect("an empty disk");
    let all: Vec<_> = (0..PARTITIONS).map(PartitionId).collect();
    let (_, starts) = recovered.start(&mut disk.device(), &[replayed], &[all]).expect("a disk without faults");
    let mut log = Log::create(disk.device(), starts[0].stream, &starts[0].partitions, OPTIONS);
    for (number, counts) in (1..).zip(COMMITS) {
        commit(&mut log, &mut states, counts);
        if number == SNAPSHOT_AFTER {
            write_snapshot(&disk, &states[&PartitionId(0)]);
        }
    }
    let paths = disk.paths().into_iter();
    let files = paths.map(|path| (path.clone(), disk.contents(&path).expect("it is there"))).collect();
    (files, states)
}

fn commit(log: &mut Log<SimulatedDevice>, states: &mut States, counts: [usize; PARTITIONS as usize]) {
    let mut parts = Vec::new();
    for (partition, count) in (0..).map(PartitionId).zip(counts).filter(|(_, count)| *count > 0) {
        let state = states.entry(partition).or_default();
        let from = state.len() / EVENT_BYTES;
        let bytes = events(partition, from, count);
        state.extend_from_slice(&bytes);
        parts.push((partition, from as u64 + 1, count, bytes));
    }
    let sections = parts.iter().map(|(partition, first_sequence, count, bytes)| Section {
        partition: *partition,
        first_sequence: *first_sequence,
        event_count: u32::try_from(*count).expect("few"),
        bytes,
    });
    for _ in 0..POLLS_MAX {
        match log.append(sections.clone(), Admission::Ordinary) {
            Ok(sequence) => {
                while log.poll().expect("a disk without faults") < sequence {}
                return;
            }
            Err(AppendError::Full) => drop(log.poll().expect("a disk without faults")),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the log stays busy");
}

fn write_snapshot(disk: &SimulatedDisk, state: &[u8]) {
    let mut writer = SnapshotWriter::new(disk.device());
    let mut chunks = state.chunks(EVENT_BYTES).peekable();
    let mut is_finished = false;
    writer.begin(PartitionId(0), IN_SNAPSHOT);
    for _ in 0..POLLS_MAX {
        while let Some(chunk) = chunks.peek()
            && writer.push_chunk(chunk).is_ok()
        {
            chunks.next();
        }
        is_finished = is_finished || chunks.peek().is_none() && writer.finish(0).is_ok();
        if let SnapshotProgress::Published { .. } = writer.poll().expect("a disk without faults") {
            return;
        }
    }
    panic!("the snapshot is not done");
}
