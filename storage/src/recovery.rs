//! Getting the state back: from snapshots and logs to the events that each partition has yet to apply, and from there to the
//! streams of the next incarnation.
//!
//! In three steps:
//! 1. [`recover`] reads the partition map and sees which snapshots there are.
//! 2. [`Recovered::replay`], once per shard for the partitions that it will hold, in parallel if wanted: the newest readable snapshot of
//!    each, then all sections after it, in order. A stream is read once by every shard that needs it: as long as shards keep their
//!    partitions, which they do while their number stays, that is once.
//! 3. [`Recovered::start`] closes the old streams in the map, gives every shard a new one and clears away what is left over.
//!
//! So the number of shards may change at any restart.
//!
//! A partition may also be set aside: no shard holds it. [`Recovered::survey`] finds where its chain ends without handing its
//! events to anyone, and [`Recovered::start_without`] keeps chain, streams and snapshots for a later start that replays it.
//!
//! Invariants: the first two steps change nothing on disk. The third writes the map once, atomically; a crash before leaves all as it
//! was, a crash after finds every stream closed. A partition's events are handed over without gaps, in order.
//!
//! Deliberately absent: threads; the caller runs one replay per shard with a device each.

use crate::{
    Damage, Device, RecoverError,
    catalog::Catalog,
    layout,
    map::{Link, OPEN, PartitionMap},
    snapshot::{ReadFault, SnapshotReader},
    stream_reader::{self, BlockPlace, StreamEnd, StreamReader},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    path::{Path, PathBuf},
};
use tickwheel_wire::{PartitionCount, PartitionId, StreamId, planted::Mistake};

/// Takes what a replay finds. Any error ends the replay.
pub trait ReplaySink {
    /// What can go wrong on this side.
    type Error;

    /// A chunk of the partition's snapshot; chunks come in the order in which they were pushed.
    ///
    /// # Errors
    /// Any; it ends the replay.
    fn snapshot_chunk(&mut self, partition: PartitionId, chunk: &[u8]) -> Result<(), Self::Error>;

    /// All chunks were handed over: the state after event `sequence`, whose digest was `digest`.
    ///
    /// # Errors
    /// Any; it ends the replay.
    fn snapshot_done(&mut self, partition: PartitionId, sequence: u64, digest: u64) -> Result<(), Self::Error>;

    /// The snapshot turned out to be damaged: forget its chunks, an older one or the log alone follows.
    ///
    /// # Errors
    /// Any; it ends the replay.
    fn snapshot_discarded(&mut self, partition: PartitionId) -> Result<(), Self::Error>;

    /// Events `first_sequence ..= first_sequence + event_count - 1` of the partition, exactly as they were appended. They continue what
    /// was handed over before; only the first section after a snapshot may begin with events that the snapshot contains, if it
    /// was taken while these waited to be appended together with later ones: the sink skips them.
    ///
    /// # Errors
    /// Any; it ends the replay.
    fn section(
        &mut self,
        partition: PartitionId,
        first_sequence: u64,
        event_count: u32,
        bytes: &[u8],
    ) -> Result<(), Self::Error>;
}

/// Why a replay stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError<E> {
    /// The data directory cannot be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The sink refused.
    #[error("replay was refused: {0}")]
    Sink(E),
}

/// A data directory that was read but not yet changed. Shared by the replays of all shards.
#[derive(Debug)]
pub struct Recovered {
    map: PartitionMap,
    /// Snapshots of each partition, newest first.
    snapshots: Vec<Vec<u64>>,
}

/// What one replay found, for [`Recovered::start`].
#[derive(Debug, Default)]
pub struct Replayed {
    /// Each partition that was replayed.
    pub partitions: Vec<ReplayedPartition>,
    /// Snapshots that were passed over because they are damaged: worth a warning.
    pub damaged_snapshots: Vec<PathBuf>,
    streams: Vec<ScannedStream>,
}

/// Where a replay left a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// Its last event; 0 if it never had any.
    pub last_sequence: u64,
    /// The last event that its snapshot contained; 0 if there was none.
    pub snapshot_sequence: u64,
    /// How many bytes of events were replayed on top, for [`SnapshotPolicy`](crate::SnapshotPolicy).
    pub replayed_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ScannedStream {
    end: StreamEnd,
    used: Option<(u64, u64)>,
    unsure: Vec<BlockPlace>,
}

/// What a shard needs for [`Log::create`](crate::Log::create).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStart {
    /// Its stream; the directory exists.
    pub stream: StreamId,
    /// Its partitions, each with its last event.
    pub partitions: Vec<(PartitionId, u64)>,
}

/// Reads the partition map of the data directory, which may be empty.
///
/// # Errors
/// [`RecoverError`].
pub fn recover(device: &mut impl Device, partitions: PartitionCount) -> Result<Recovered, RecoverError> {
    let streams = list_numbers(device, Path::new(layout::LOG), "")?;
    let map = match PartitionMap::load(device)? {
        Some(map) => map,
        None => PartitionMap::new(partitions),
    };
    if map.partition_count != partitions.count() {
        let (found, configured) = (map.partition_count, partitions.count());
        return Err(RecoverError::PartitionCount { found, configured });
    }
    if let Some(stream) = map.streams.keys().find(|stream| !streams.contains(&stream.0)) {
        return Err(RecoverError::damaged(layout::stream(*stream), 0, Damage::Missing));
    }
    for stream in streams.into_iter().map(StreamId).filter(|stream| stream.0 >= map.next_stream) {
        // A start that crashed before it wrote the map leaves empty directories.
        if !device.list(&layout::stream(stream))?.is_empty() {
            return Err(RecoverError::damaged(layout::MAP, 0, Damage::UnknownStream { stream }));
        }
    }
    let mut snapshots = Vec::with_capacity(map.chains.len());
    for partition in 0..map.partition_count {
        let mut found = list_numbers(device, &layout::snapshots(PartitionId(partition)), ".snap")?;
        found.reverse();
        snapshots.push(found);
    }
    Ok(Recovered { map, snapshots })
}

/// The numbers in the names `<number><extension>` of a directory, ascending.
pub(crate) fn list_numbers(
    device: &mut impl Device,
    directory: &Path,
    extension: &str,
) -> Result<Vec<u64>, RecoverError> {
    let entries = device.list(directory)?;
    let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| layout::number(&entry.name, extension)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Recovered {
    /// Whether there is nothing to replay: a new data directory.
    pub fn is_new(&self) -> bool {
        self.map.next_stream == 1
    }

    /// Hands the state of `partitions` to `sink`. Needs no other memory than a window of 2 MiB (or the longest block or chunk).
    ///
    /// # Errors
    /// [`ReplayError`]. The sink holds part of the state then and is of no use.
    pub fn replay<D: Device, S: ReplaySink>(
        &self,
        device: &mut D,
        partitions: &[PartitionId],
        sink: &mut S,
    ) -> Result<Replayed, ReplayError<S::Error>> {
        let mut replay = Replay::new(&self.map);
        for partition in partitions {
            replay.load_snapshot(device, *partition, &self.snapshots[usize::from(partition.0)], sink)?;
        }
        for stream in replay.needed_streams() {
            replay.scan(device, stream, sink)?;
        }
        replay.check_rejected()?;
        Ok(replay.finish(partitions))
    }

    /// Finds where the chains of `partitions` end, in place of a replay of those that no shard will hold. Reads only the streams that
    /// the last run left open, and no snapshot.
    ///
    /// # Errors
    /// [`RecoverError`].
    pub fn survey(&self, device: &mut impl Device, partitions: &[PartitionId]) -> Result<Replayed, RecoverError> {
        let mut replay = Replay::new(&self.map);
        for partition in partitions {
            let next_sequence = match self.map.chain(*partition).last() {
                Some(link) if link.to == OPEN => link.from,
                Some(link) => link.to + 1,
                None => self.snapshots[usize::from(partition.0)].first().map_or(1, |newest| newest + 1),
            };
            let state = PartitionProgress { next_sequence, snapshot_sequence: 0, replayed_bytes: 0, rejected: None };
            replay.states[usize::from(partition.0)] = Some(state);
        }
        for stream in replay.needed_streams() {
            replay.scan(device, stream, &mut Nobody).map_err(|error| match error {
                ReplayError::Recover(error) => error,
                ReplayError::Sink(never) => match never {},
            })?;
        }
        Ok(replay.finish(partitions))
    }

    /// Ends recovery: closes the streams that were replayed, gives a new one to each shard for its partitions, writes the map
    /// and removes what is not needed any more. `replayed` are the results of all replays, which together cover every partition;
    /// `shards` says which partitions each shard holds from now on.
    ///
    /// # Errors
    /// [`RecoverError`]; the next start finds either the old map or the new one.
    ///
    /// # Panics
    /// If a partition was not replayed, or is not in exactly one shard.
    pub fn start(
        self,
        device: &mut impl Device,
        replayed: &[Replayed],
        shards: &[Vec<PartitionId>],
    ) -> Result<(Catalog, Vec<ShardStart>), RecoverError> {
        self.start_without(device, replayed, shards, &[])
    }

    /// Like [`start`](Self::start), with partitions `set_aside` that no shard holds. They were surveyed or replayed too, and the
    /// state that a replay gave is thrown away; their chains keep every link, so that their streams stay, and their snapshots
    /// are left alone.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// If a partition was not replayed, or is not in exactly one shard or set aside.
    pub fn start_without(
        self,
        device: &mut impl Device,
        replayed: &[Replayed],
        shards: &[Vec<PartitionId>],
        set_aside: &[PartitionId],
    ) -> Result<(Catalog, Vec<ShardStart>), RecoverError> {
        let mut map = self.map;
        let ends = partition_ends(replayed, map.chains.len());
        make_durable(device, &map, replayed)?;
        let scanned = close_streams(&mut map, replayed, &ends);
        let mut covered: Vec<u64> = ends.iter().map(|end| end.snapshot_sequence).collect();
        for partition in set_aside {
            covered[usize::from(partition.0)] = 0;
        }
        map.trim(&covered);
        let starts = open_streams(&mut map, shards, set_aside, &ends);
        create_directories(device, &map, &starts)?;
        map.store(device)?;
        clear_away(device, &map, &scanned, &starts)?;
        Ok((Catalog::new(map, covered), starts))
    }
}

fn partition_ends(replayed: &[Replayed], count: usize) -> Vec<ReplayedPartition> {
    let all: BTreeMap<_, _> =
        replayed.iter().flat_map(|shard| &shard.partitions).map(|end| (end.partition, *end)).collect();
    assert_eq!(all.len(), count, "every partition was replayed");
    all.into_values().collect()
}

/// Makes durable what the replay has found and what may not be: the tails of the open streams, and the names of snapshots. From here
/// on the map, and everything that is acknowledged, rests on them.
fn make_durable(device: &mut impl Device, map: &PartitionMap, replayed: &[Replayed]) -> Result<(), RecoverError> {
    let mut done = BTreeSet::new();
    for stream in replayed.iter().flat_map(|shard| &shard.streams) {
        let is_open = map.streams.get(&stream.end.stream) == Some(&OPEN);
        if is_open && !Mistake::TailNotMadeDurable.is_made() && done.insert(stream.end.stream) {
            stream_reader::make_durable(device, stream.end.stream, &stream.unsure)?;
        }
    }
    let restored = replayed.iter().flat_map(|shard| &shard.partitions).filter(|end| end.snapshot_sequence > 0);
    for end in restored {
        device.sync_directory(&layout::snapshots(end.partition))?;
    }
    Ok(())
}

/// Writes down where the open streams and their links end.
fn close_streams(map: &mut PartitionMap, replayed: &[Replayed], ends: &[ReplayedPartition]) -> Vec<ScannedStream> {
    let mut scanned: BTreeMap<StreamId, ScannedStream> = BTreeMap::new();
    for stream in replayed.iter().flat_map(|shard| &shard.streams) {
        let known = scanned.entry(stream.end.stream).or_insert_with(|| stream.clone());
        assert_eq!(known, stream, "all shards read the same stream to the same end");
    }
    for (stream, last_block) in map.streams.iter_mut().filter(|(_, last_block)| **last_block == OPEN) {
        *last_block = scanned.get(stream).expect("an open stream was replayed").end.last_block;
    }
    for (chain, end) in map.chains.iter_mut().zip(ends) {
        if let Some(link) = chain.last_mut().filter(|link| link.to == OPEN) {
            link.to = end.last_sequence;
        }
        chain.retain(|link| link.from <= link.to);
    }
    scanned.into_values().collect()
}

fn open_streams(
    map: &mut PartitionMap,
    shards: &[Vec<PartitionId>],
    set_aside: &[PartitionId],
    ends: &[ReplayedPartition],
) -> Vec<ShardStart> {
    let mut assigned: BTreeSet<PartitionId> = set_aside.iter().copied().collect();
    let mut starts = Vec::with_capacity(shards.len());
    for partitions in shards {
        let stream = StreamId(map.next_stream);
        map.next_stream += 1;
        let mut start = ShardStart { stream, partitions: Vec::with_capacity(partitions.len()) };
        for partition in partitions {
            assert!(assigned.insert(*partition), "partition {} is in one shard only, or set aside", partition.0);
            let last_sequence = ends[usize::from(partition.0)].last_sequence;
            let link = Link { stream, from: last_sequence + 1, to: OPEN };
            map.chains[usize::from(partition.0)].push(link);
            start.partitions.push((*partition, last_sequence));
        }
        if !partitions.is_empty() {
            map.streams.insert(stream, OPEN);
        }
        starts.push(start);
    }
    assert_eq!(assigned.len(), map.chains.len(), "every partition is in a shard or set aside");
    starts
}

fn create_directories(device: &mut impl Device, map: &PartitionMap, starts: &[ShardStart]) -> Result<(), RecoverError> {
    for partition in 0..map.partition_count {
        device.create_directory(&layout::snapshots(PartitionId(partition)))?;
    }
    for start in starts {
        device.create_directory(&layout::stream(start.stream))?;
    }
    Ok(())
}

/// Removes what the new map does not need. Doing it again does no harm; a crash in between leaves the rest to the next start.
fn clear_away(
    device: &mut impl Device,
    map: &PartitionMap,
    scanned: &[ScannedStream],
    starts: &[ShardStart],
) -> Result<(), RecoverError> {
    for stream in list_numbers(device, Path::new(layout::LOG), "")?.into_iter().map(StreamId) {
        // The stream of a shard that holds nothing is not in the map, but its log begins all the same.
        let is_new = starts.iter().any(|start| start.stream == stream);
        if stream.0 < map.next_stream && !map.streams.contains_key(&stream) && !is_new {
            stream_reader::remove(device, stream)?;
        }
    }
    for stream in scanned.iter().filter(|stream| map.streams.contains_key(&stream.end.stream)) {
        if let Some(used) = stream.used {
            stream_reader::cut(device, stream.end.stream, used)?;
        }
    }
    for partition in 0..map.partition_count {
        let directory = layout::snapshots(PartitionId(partition));
        for entry in device.list(&directory)?.into_iter().filter(|entry| layout::is_temporary(&entry.name)) {
            device.remove(&directory.join(entry.name))?;
        }
    }
    Ok(())
}

/// Takes the events of a survey, which only counts them.
struct Nobody;

impl ReplaySink for Nobody {
    type Error = Infallible;

    fn snapshot_chunk(&mut self, _: PartitionId, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn snapshot_done(&mut self, _: PartitionId, _: u64, _: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn snapshot_discarded(&mut self, _: PartitionId) -> Result<(), Infallible> {
        Ok(())
    }

    fn section(&mut self, _: PartitionId, _: u64, _: u32, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }
}

/// One replay under way.
struct Replay<'m> {
    map: &'m PartitionMap,
    /// By partition; `None` for those that are not replayed here.
    states: Vec<Option<PartitionProgress>>,
    replayed: Replayed,
}

#[derive(Clone, Debug)]
struct PartitionProgress {
    next_sequence: u64,
    snapshot_sequence: u64,
    replayed_bytes: u64,
    /// The newest snapshot and the event that it ends with, if it is damaged.
    rejected: Option<(PathBuf, u64)>,
}

impl<'m> Replay<'m> {
    fn new(map: &'m PartitionMap) -> Self {
        Self { map, states: vec![None; map.chains.len()], replayed: Replayed::default() }
    }

    /// Loads the newest snapshot that can be read.
    fn load_snapshot<D: Device, S: ReplaySink>(
        &mut self,
        device: &mut D,
        partition: PartitionId,
        sequences: &[u64],
        sink: &mut S,
    ) -> Result<(), ReplayError<S::Error>> {
        let mut rejected = None;
        let mut loaded = 0;
        for sequence in sequences.iter().copied() {
            match read_snapshot(device, partition, sequence, sink) {
                Ok(digest) => {
                    sink.snapshot_done(partition, sequence, digest).map_err(ReplayError::Sink)?;
                    loaded = sequence;
                    break;
                }
                Err(ReadFault::Recover(RecoverError::Damaged { path, .. })) => {
                    sink.snapshot_discarded(partition).map_err(ReplayError::Sink)?;
                    self.replayed.damaged_snapshots.push(path.clone());
                    rejected.get_or_insert((path, sequence));
                }
                Err(ReadFault::Recover(error)) => return Err(error.into()),
                Err(ReadFault::Sink(error)) => return Err(ReplayError::Sink(error)),
            }
        }
        let state =
            PartitionProgress { next_sequence: loaded + 1, snapshot_sequence: loaded, replayed_bytes: 0, rejected };
        self.check_reach(partition, &state)?;
        self.states[usize::from(partition.0)] = Some(state);
        Ok(())
    }

    /// Checks that the partition's chain begins where its snapshot ends, or before.
    fn check_reach(&self, partition: PartitionId, state: &PartitionProgress) -> Result<(), RecoverError> {
        let needed = state.next_sequence;
        match self.map.chain(partition).first() {
            Some(link) if link.from > needed => Err(self.gap(partition, state, link.from, layout::MAP.into(), 0)),
            _ => Ok(()),
        }
    }

    /// A gap is the snapshot's fault if a newer one had to be passed over.
    fn gap(
        &self,
        partition: PartitionId,
        state: &PartitionProgress,
        found: u64,
        path: PathBuf,
        offset: u64,
    ) -> RecoverError {
        let expected = state.next_sequence;
        match &state.rejected {
            Some((newest, _)) => RecoverError::NoSnapshot { partition, newest: newest.clone(), needed: expected },
            None => RecoverError::damaged(path, offset, Damage::Gap { partition, expected, found }),
        }
    }

    /// Streams that hold events after the snapshots, oldest first: the order of every partition's chain.
    fn needed_streams(&self) -> BTreeSet<StreamId> {
        let states = self.states.iter().zip(&self.map.chains);
        let pairs = states.filter_map(|(state, chain)| state.as_ref().map(|state| (state, chain)));
        pairs
            .flat_map(|(state, chain)| chain.iter().filter(|link| link.to >= state.next_sequence))
            .map(|link| link.stream)
            .collect()
    }

    fn scan<D: Device, S: ReplaySink>(
        &mut self,
        device: &mut D,
        stream: StreamId,
        sink: &mut S,
    ) -> Result<(), ReplayError<S::Error>> {
        let last_block = self.map.streams[&stream];
        let mut reader = StreamReader::open(device, stream, last_block)?;
        while reader.advance()? {
            let sequence = reader.last_block();
            let (path, offset) = reader.last_place();
            let mut sections = reader.sections()?;
            loop {
                let section = sections
                    .next()
                    .map_err(|reason| RecoverError::damaged(&path, offset, Damage::Sections { sequence, reason }))?;
                let Some(section) = section else { break };
                self.section(&section, &path, offset, sink)?;
            }
        }
        let end = StreamEnd { stream, last_block: reader.last_block() };
        self.replayed.streams.push(ScannedStream { end, used: reader.used(), unsure: reader.unsure() });
        reader.close();
        Ok(self.check_links(stream)?)
    }

    fn section<S: ReplaySink>(
        &mut self,
        section: &crate::Section<'_>,
        path: &Path,
        offset: u64,
        sink: &mut S,
    ) -> Result<(), ReplayError<S::Error>> {
        let partition = section.partition;
        let Some(Some(state)) = self.states.get(usize::from(partition.0)) else { return Ok(()) };
        if section.last_sequence() < state.next_sequence {
            return Ok(());
        }
        // Events are opaque here, so a section in which the snapshot lies is handed over whole.
        let holds_snapshot =
            section.first_sequence < state.next_sequence && state.next_sequence == state.snapshot_sequence + 1;
        if section.first_sequence != state.next_sequence && !holds_snapshot {
            return Err(self.gap(partition, state, section.first_sequence, path.to_owned(), offset).into());
        }
        sink.section(partition, section.first_sequence, section.event_count, section.bytes)
            .map_err(ReplayError::Sink)?;
        let state = self.states[usize::from(partition.0)].as_mut().expect("it was there above");
        state.next_sequence = section.last_sequence() + 1;
        state.replayed_bytes += section.bytes.len() as u64;
        Ok(())
    }

    /// Checks that a stream held all that the map says of it.
    fn check_links(&self, stream: StreamId) -> Result<(), RecoverError> {
        for (partition, state) in (0u16..).map(PartitionId).zip(&self.states) {
            let Some(state) = state else { continue };
            let link = self.map.chain(partition).iter().find(|link| link.stream == stream && link.to != OPEN);
            if let Some(link) = link.filter(|link| link.to >= state.next_sequence) {
                let damage = Damage::Short { partition, expected: link.to };
                return Err(RecoverError::damaged(layout::stream(stream), 0, damage));
            }
        }
        Ok(())
    }

    /// A damaged snapshot still tells by its name how far its partition had come: what the log no longer holds may have been in it alone.
    fn check_rejected(&self) -> Result<(), RecoverError> {
        for (partition, state) in (0u16..).map(PartitionId).zip(&self.states) {
            let Some(state) = state else { continue };
            if let Some((newest, sequence)) = &state.rejected
                && state.next_sequence <= *sequence
            {
                let (newest, needed) = (newest.clone(), state.next_sequence);
                return Err(RecoverError::NoSnapshot { partition, newest, needed });
            }
        }
        Ok(())
    }

    fn finish(mut self, partitions: &[PartitionId]) -> Replayed {
        self.replayed.partitions.extend(partitions.iter().map(|partition| {
            let state = self.states[usize::from(partition.0)].as_ref().expect("it was replayed");
            ReplayedPartition {
                partition: *partition,
                last_sequence: state.next_sequence - 1,
                snapshot_sequence: state.snapshot_sequence,
                replayed_bytes: state.replayed_bytes,
            }
        }));
        self.replayed
    }
}

fn read_snapshot<D: Device, S: ReplaySink>(
    device: &mut D,
    partition: PartitionId,
    sequence: u64,
    sink: &mut S,
) -> Result<u64, ReadFault<S::Error>> {
    let reader = SnapshotReader::open(device, partition, sequence).map_err(ReadFault::Recover)?;
    reader.read(|chunk| sink.snapshot_chunk(partition, chunk))
}
