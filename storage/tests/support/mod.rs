//! A node in small: shards with logs and snapshots over any disk, and a model of what they were given.
//!
//! The state of a partition is the list of its events, so "a prefix" can be said exactly.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use tickwheel_storage::{
    Admission, AppendError, Catalog, CommitLog, Device, Log, LogError, LogOptions, RecoverError, ReplayError,
    ReplaySink, Replayed, Section, SnapshotError, SnapshotProgress, SnapshotWriter, recover,
    simulated_disk::{SimulatedDevice, SimulatedDisk},
    std_files::StdFiles,
};
use tickwheel_wire::{PartitionCount, PartitionId, mix64};

pub const PARTITIONS: u16 = 4;
pub const EVENT_BYTES: usize = 200;
/// Far more polls than anything takes.
pub const POLLS_MAX: usize = 10_000;

pub type States = Vec<Vec<u64>>;

/// Something that gives out devices.
pub trait Disk {
    type Device: Device;
    fn device(&self) -> Self::Device;
}

impl Disk for SimulatedDisk {
    type Device = SimulatedDevice;
    fn device(&self) -> SimulatedDevice {
        Self::device(self)
    }
}

impl Disk for tempfile::TempDir {
    type Device = StdFiles;
    fn device(&self) -> StdFiles {
        StdFiles::new(self.path())
    }
}

/// Small segments, so that a short history crosses many.
pub fn options() -> LogOptions {
    LogOptions { segment_bytes: 32 << 10, batch_bytes_max: 16 << 10, salt: 0x5EED, ..LogOptions::default() }
}

pub fn partition_count() -> PartitionCount {
    PartitionCount::new(u64::from(PARTITIONS)).expect("a power of two")
}

/// The value of event `sequence` (from 1) of a partition.
pub fn event(partition: PartitionId, sequence: usize) -> u64 {
    mix64(u64::from(partition.0) << 32 | sequence as u64)
}

pub fn encode(events: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        bytes.extend_from_slice(&event.to_le_bytes());
        bytes.resize(bytes.len() + EVENT_BYTES - 8, event.to_le_bytes()[0]);
    }
    bytes
}

pub fn decode(bytes: &[u8]) -> Vec<u64> {
    let value = |event: &[u8]| u64::from_le_bytes(event[..8].try_into().expect("8 bytes"));
    bytes.chunks(EVENT_BYTES).map(value).collect()
}

pub fn digest(events: &[u64]) -> u64 {
    events.iter().fold(0, |digest, event| mix64(digest ^ event))
}

/// Rebuilds states from a replay, checking its promises.
#[derive(Debug, Default)]
pub struct Recorder {
    pub states: BTreeMap<PartitionId, Vec<u64>>,
    pub sections: usize,
    pub discarded: usize,
    loading: BTreeMap<PartitionId, Vec<u8>>,
    /// Partitions that have a snapshot and no section yet.
    fresh: BTreeSet<PartitionId>,
}

impl ReplaySink for Recorder {
    type Error = String;

    fn snapshot_chunk(&mut self, partition: PartitionId, chunk: &[u8]) -> Result<(), String> {
        self.loading.entry(partition).or_default().extend_from_slice(chunk);
        Ok(())
    }

    fn snapshot_done(&mut self, partition: PartitionId, sequence: u64, found: u64) -> Result<(), String> {
        let state = decode(&self.loading.remove(&partition).unwrap_or_default());
        if state.len() as u64 != sequence || digest(&state) != found {
            return Err(format!("partition {} does not match its snapshot at {sequence}", partition.0));
        }
        self.states.insert(partition, state);
        self.fresh.insert(partition);
        Ok(())
    }

    fn snapshot_discarded(&mut self, partition: PartitionId) -> Result<(), String> {
        self.discarded += 1;
        self.loading.remove(&partition);
        Ok(())
    }

    fn section(&mut self, partition: PartitionId, first: u64, count: u32, bytes: &[u8]) -> Result<(), String> {
        let state = self.states.entry(partition).or_default();
        let events = decode(bytes);
        let is_after_snapshot = self.fresh.remove(&partition) && first <= state.len() as u64;
        if (first != state.len() as u64 + 1 && !is_after_snapshot) || events.len() != count as usize {
            return Err(format!("partition {}: {count} events from {first} after {}", partition.0, state.len()));
        }
        let known = state.len() + 1 - usize::try_from(first).expect("few");
        state.extend(&events[known..]);
        self.sections += 1;
        Ok(())
    }
}

/// What was appended and what was reported durable, over all incarnations.
#[derive(Clone, Debug)]
pub struct Model {
    pub states: States,
    /// How many events of each partition were reported durable.
    pub reported: Vec<usize>,
    /// The commits of each shard of the current incarnation: how long each partition in it was afterwards.
    pub commits: Vec<Vec<Vec<(PartitionId, usize)>>>,
}

impl Model {
    pub fn new() -> Self {
        let count = usize::from(PARTITIONS);
        Self { states: vec![Vec::new(); count], reported: vec![0; count], commits: Vec::new() }
    }

    /// Checks that `found` is a prefix of what was appended, holds all that was reported, and no commit in part.
    pub fn verify(&self, found: &States) -> Result<(), String> {
        for (partition, (state, found)) in self.states.iter().zip(found).enumerate() {
            if !state.starts_with(found) {
                return Err(format!("partition {partition} is no prefix"));
            }
            if found.len() < self.reported[partition] {
                let reported = self.reported[partition];
                return Err(format!("partition {partition} lost durable events: {} < {reported}", found.len()));
            }
        }
        for (shard, commits) in self.commits.iter().enumerate() {
            let is_held = |(partition, length): &(PartitionId, usize)| found[usize::from(partition.0)].len() >= *length;
            let mut is_over = false;
            for (number, commit) in commits.iter().enumerate().filter(|(_, commit)| !commit.is_empty()) {
                let held = commit.iter().filter(|part| is_held(part)).count();
                if held != 0 && (held != commit.len() || is_over) {
                    return Err(format!("shard {shard}: commit {} is there in part or after a gap", number + 1));
                }
                is_over |= held == 0;
            }
        }
        Ok(())
    }

    /// Goes on from what was found.
    pub fn adopt(&mut self, found: &States) {
        self.states.clone_from(found);
        self.reported = found.iter().map(Vec::len).collect();
        self.commits.clear();
    }
}

pub struct Shard<D: Device> {
    pub log: Log<D>,
    pub snapshots: SnapshotWriter<D>,
    pub partitions: Vec<PartitionId>,
}

pub struct Node<K: Disk> {
    pub disk: K,
    pub catalog: Catalog,
    pub shards: Vec<Shard<K::Device>>,
    pub found: States,
    pub replayed: Vec<Replayed>,
    pub sections: usize,
    pub discarded: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Replay(#[from] ReplayError<String>),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("no progress")]
    Stuck,
}

/// Which partitions each of `shards` shards holds; changes with their number for every partition.
pub fn assignment(shards: usize) -> Vec<Vec<PartitionId>> {
    let all = (0..PARTITIONS).map(PartitionId);
    let of = |shard| all.clone().filter(|partition| (usize::from(partition.0) + shards) % shards == shard).collect();
    (0..shards).map(of).collect()
}

impl<K: Disk> Node<K> {
    /// Recovers the disk with this number of shards and starts their logs.
    pub fn start(disk: K, shards: usize, options: LogOptions) -> Result<Self, NodeError> {
        let mut device = disk.device();
        let recovered = recover(&mut device, partition_count())?;
        let mut recorder = Recorder::default();
        let mut replayed = Vec::new();
        let assignment = assignment(shards);
        for partitions in &assignment {
            replayed.push(recovered.replay(&mut disk.device(), partitions, &mut recorder)?);
        }
        let (catalog, starts) = recovered.start(&mut device, &replayed, &assignment)?;
        let found = (0..PARTITIONS).map(|id| recorder.states.remove(&PartitionId(id)).unwrap_or_default()).collect();
        let shards = starts.iter().map(|start| Shard {
            log: Log::create(disk.device(), start.stream, &start.partitions, options),
            snapshots: SnapshotWriter::new(disk.device()),
            partitions: start.partitions.iter().map(|(partition, _)| *partition).collect(),
        });
        let shards = shards.collect();
        let (sections, discarded) = (recorder.sections, recorder.discarded);
        Ok(Self { disk, catalog, shards, found, replayed, sections, discarded })
    }

    /// Starts and checks what was found against the model, which goes on from there.
    pub fn start_checked(disk: K, shards: usize, model: &mut Model) -> Result<Self, NodeError> {
        let node = Self::start(disk, shards, options())?;
        model.verify(&node.found).map_err(ReplayError::Sink)?;
        model.adopt(&node.found);
        model.commits = vec![Vec::new(); shards];
        Ok(node)
    }

    /// Appends `counts` new events per partition as one commit of `shard`, polling while the log is busy.
    pub fn append(
        &mut self,
        model: &mut Model,
        shard: usize,
        counts: &[(PartitionId, usize)],
        admission: Admission,
    ) -> Result<(), NodeError> {
        for _ in 0..POLLS_MAX {
            match self.try_append(model, shard, counts, admission) {
                Err(AppendError::Full) => self.poll(model)?,
                other => return Ok(other?),
            }
        }
        Err(NodeError::Stuck)
    }

    pub fn try_append(
        &mut self,
        model: &mut Model,
        shard: usize,
        counts: &[(PartitionId, usize)],
        admission: Admission,
    ) -> Result<(), AppendError> {
        let new = |(partition, count): &(PartitionId, usize)| {
            let before = model.states[usize::from(partition.0)].len();
            let events: Vec<u64> = (before + 1..=before + count).map(|n| event(*partition, n)).collect();
            (*partition, before, events.clone(), encode(&events))
        };
        let parts: Vec<_> = counts.iter().map(new).collect();
        let sections = parts.iter().map(|(partition, before, events, bytes)| Section {
            partition: *partition,
            first_sequence: *before as u64 + 1,
            event_count: u32::try_from(events.len()).expect("few"),
            bytes,
        });
        let sequence = self.shards[shard].log.append(sections, admission)?;
        let mut commit = Vec::new();
        for (partition, _, events, _) in &parts {
            let state = &mut model.states[usize::from(partition.0)];
            state.extend(events);
            commit.push((*partition, state.len()));
        }
        model.commits[shard].push(commit);
        assert_eq!(sequence.0, model.commits[shard].len() as u64, "commits are counted from 1");
        Ok(())
    }

    /// One turn of every shard's log.
    pub fn poll(&mut self, model: &mut Model) -> Result<(), NodeError> {
        for (shard, commits) in self.shards.iter_mut().zip(&model.commits) {
            let durable = shard.log.poll()?;
            for (partition, length) in commits.iter().take(usize::try_from(durable.0).expect("few")).flatten() {
                let reported = &mut model.reported[usize::from(partition.0)];
                *reported = (*reported).max(*length);
            }
        }
        Ok(())
    }

    /// Polls until nothing is in flight and every log could go on.
    pub fn settle(&mut self, model: &mut Model) -> Result<(), NodeError> {
        for _ in 0..POLLS_MAX {
            self.poll(model)?;
            if self.shards.iter().all(|shard| shard.log.in_flight_count() == 0 && shard.log.is_ready()) {
                return Ok(());
            }
        }
        Err(NodeError::Stuck)
    }

    /// Takes a snapshot of `partition`, after all of its events are durable.
    pub fn snapshot(&mut self, model: &mut Model, partition: PartitionId) -> Result<(), NodeError> {
        self.snapshot_without_last(model, partition, 0)
    }

    /// Takes a snapshot of `partition` as it was before its last `left_out` events.
    pub fn snapshot_without_last(
        &mut self,
        model: &mut Model,
        partition: PartitionId,
        left_out: usize,
    ) -> Result<(), NodeError> {
        self.settle(model)?;
        let all = &model.states[usize::from(partition.0)];
        let state = all[..all.len() - left_out].to_vec();
        let shard = self.shards.iter().position(|shard| shard.partitions.contains(&partition)).expect("held");
        let mut steps = encode(&state).chunks(700).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter().peekable();
        let mut is_finished = false;
        self.shards[shard].snapshots.begin(partition, state.len() as u64);
        for _ in 0..POLLS_MAX {
            let writer = &mut self.shards[shard].snapshots;
            while let Some(chunk) = steps.peek()
                && writer.push_chunk(chunk).is_ok()
            {
                steps.next();
            }
            if steps.peek().is_none() && !is_finished {
                is_finished = writer.finish(digest(&state)).is_ok();
            }
            if let SnapshotProgress::Published { partition, sequence } = writer.poll()? {
                self.shards[shard].log.snapshot_taken(partition, sequence);
                self.catalog.snapshot_taken(partition, sequence);
                return Ok(());
            }
        }
        Err(NodeError::Stuck)
    }

    /// Removes what snapshots made unneeded.
    pub fn trim(&mut self, model: &mut Model) -> Result<(), NodeError> {
        for _ in 0..50 {
            self.poll(model)?;
        }
        Ok(self.catalog.trim(&mut self.disk.device())?)
    }
}

/// A deterministic source of small numbers.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = mix64(self.0);
        usize::try_from(self.0 % bound as u64).expect("small")
    }
}
