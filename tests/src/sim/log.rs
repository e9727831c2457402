//! The log beneath a simulated shard: the real one on a simulated disk, or a store of transactions.
//!
//! The store behaves as a distributed one would: commits take milliseconds, end out of order, have unknown results now and then, and
//! a new owner may take a stream over at any time. Blocks lie at fixed keys (stream, sequence), so that writing identical bytes
//! again is safe; each commit counts only while its owner's epoch is the stream's.

use super::random::Stream;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tickwheel_server::shard::ShardLog;
use tickwheel_storage::{
    Admission, AppendError, CommitLog, CommitSequence, Log, LogError, Section, SpaceState,
    simulated_disk::SimulatedDevice,
};
use tickwheel_wire::{PartitionId, StreamId};

/// A shard's log.
#[expect(clippy::large_enum_variant, reason = "there are as many as shards")]
pub enum SimulatedLog {
    /// On a disk.
    Files(Log<SimulatedDevice>),
    /// In a store.
    Transactions(TransactionLog),
}

impl SimulatedLog {
    /// When something is over that the shard waits for.
    pub fn next_completion(&mut self) -> Option<Duration> {
        match self {
            Self::Files(log) => log.device_mut().next_completion(),
            Self::Transactions(log) => log.next_completion(),
        }
    }
}

impl CommitLog for SimulatedLog {
    fn append<'a, B>(&mut self, batch: B, admission: Admission) -> Result<CommitSequence, AppendError>
    where
        B: IntoIterator<Item = Section<'a>>,
        B::IntoIter: Clone,
    {
        match self {
            Self::Files(log) => log.append(batch, admission),
            Self::Transactions(log) => log.append(batch),
        }
    }

    fn poll(&mut self) -> Result<CommitSequence, LogError> {
        match self {
            Self::Files(log) => log.poll(),
            Self::Transactions(log) => log.poll(),
        }
    }
}

impl ShardLog for SimulatedLog {
    fn space_state(&self) -> SpaceState {
        match self {
            Self::Files(log) => log.space_state(),
            Self::Transactions(_) => SpaceState::Ample,
        }
    }

    fn retry_space(&mut self) {
        if let Self::Files(log) = self {
            log.retry_space();
        }
    }

    fn snapshot_taken(&mut self, partition: PartitionId, sequence: u64) {
        if let Self::Files(log) = self {
            log.snapshot_taken(partition, sequence);
        }
    }
}

/// The events of one partition in one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSection {
    /// The partition.
    pub partition: PartitionId,
    /// Number of the first event.
    pub first_sequence: u64,
    /// How many.
    pub event_count: u32,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

type Block = Vec<StoredSection>;

#[derive(Debug)]
struct State {
    now: Duration,
    blocks: BTreeMap<(StreamId, u64), Block>,
    epochs: BTreeMap<StreamId, u64>,
    stream: Stream,
    /// Commits whose result is unknown, in thousandths.
    unknown: u64,
}

/// A store of transactions, shared by all who use it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Mutex<State>>);

const COMMIT_US: (u64, u64) = (2_000, 9_000);
const IN_FLIGHT_MAX: usize = 8;

impl Store {
    /// An empty store.
    pub fn new(seed: u64) -> Self {
        let stream = Stream::new(seed, "store", 0);
        let (blocks, epochs) = (BTreeMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { now: Duration::ZERO, blocks, epochs, stream, unknown: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves time.
    pub fn advance_to(&self, now: Duration) {
        self.lock().now = now;
    }

    /// Sets how many commits have an unknown result, in thousandths.
    pub fn set_unknown(&self, unknown: u64) {
        self.lock().unknown = unknown;
    }

    /// Raises the fence of every stream: whoever owns one finds out with the next commit.
    pub fn fence(&self) {
        self.lock().epochs.values_mut().for_each(|epoch| *epoch += 1);
    }

    /// Takes everything over: raises the fences, keeps of each stream the contiguous prefix and voids the rest. What is left, in
    /// the order in which it has to be applied.
    pub fn take_over(&self) -> Vec<StoredSection> {
        self.fence();
        let mut state = self.lock();
        let streams: Vec<_> = state.epochs.keys().copied().collect();
        let mut sections = Vec::new();
        for stream in streams {
            let kept = (1..).map_while(|sequence| state.blocks.get(&(stream, sequence)).cloned()).collect::<Vec<_>>();
            state.blocks.retain(|(of, sequence), _| *of != stream || *sequence <= kept.len() as u64);
            sections.extend(kept.into_iter().flatten());
        }
        sections
    }

    /// Opens a new stream.
    pub fn open(&self) -> TransactionLog {
        let mut state = self.lock();
        let stream = StreamId(state.epochs.len() as u64 + 1);
        state.epochs.insert(stream, 1);
        TransactionLog { store: self.clone(), stream, epoch: 1, in_flight: VecDeque::new(), appended: 0, durable: 0 }
    }
}

struct Commit {
    block: Block,
    sequence: u64,
    /// When the store answers.
    due: Duration,
    is_done: bool,
}

/// One stream of the store, as its owner sees it.
pub struct TransactionLog {
    store: Store,
    stream: StreamId,
    epoch: u64,
    in_flight: VecDeque<Commit>,
    appended: u64,
    durable: u64,
}

impl TransactionLog {
    fn next_completion(&self) -> Option<Duration> {
        self.in_flight.iter().filter(|commit| !commit.is_done).map(|commit| commit.due).min()
    }

    fn append<'a>(&mut self, batch: impl IntoIterator<Item = Section<'a>>) -> Result<CommitSequence, AppendError> {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return Err(AppendError::Full);
        }
        let owned = |section: Section<'_>| StoredSection {
            partition: section.partition,
            first_sequence: section.first_sequence,
            event_count: section.event_count,
            bytes: section.bytes.to_vec(),
        };
        let block = batch.into_iter().map(owned).collect();
        self.appended += 1;
        let mut state = self.store.lock();
        let due = state.now + Duration::from_micros(state.stream.between(COMMIT_US.0, COMMIT_US.1));
        drop(state);
        self.in_flight.push_back(Commit { block, sequence: self.appended, due, is_done: false });
        Ok(CommitSequence(self.appended))
    }

    fn poll(&mut self) -> Result<CommitSequence, LogError> {
        let mut state = self.store.lock();
        let now = state.now;
        for commit in self.in_flight.iter_mut().filter(|commit| !commit.is_done && commit.due <= now) {
            if state.epochs.get(&self.stream) != Some(&self.epoch) {
                return Err(LogError::Fenced { stream: self.stream });
            }
            let unknown = state.unknown;
            let (is_unknown, is_lost) = (state.stream.chance(unknown), state.stream.chance(500));
            if !(is_unknown && is_lost) {
                let key = (self.stream, commit.sequence);
                let held = state.blocks.entry(key).or_insert_with(|| commit.block.clone());
                assert_eq!(*held, commit.block, "a retry writes identical bytes");
            }
            // A result that is unknown is resolved by writing the same once more.
            commit.is_done = !is_unknown;
            commit.due = now + Duration::from_micros(state.stream.between(COMMIT_US.0, COMMIT_US.1));
        }
        drop(state);
        while self.in_flight.front().is_some_and(|commit| commit.is_done) {
            self.durable = self.in_flight.pop_front().expect("it was looked at").sequence;
        }
        Ok(CommitSequence(self.durable))
    }
}

impl Drop for TransactionLog {
    /// The owner is gone; what it had sent off may arrive yet.
    fn drop(&mut self) {
        let mut state = self.store.lock();
        if state.epochs.get(&self.stream) != Some(&self.epoch) {
            return;
        }
        for commit in self.in_flight.drain(..).filter(|commit| !commit.is_done) {
            if state.stream.chance(500) {
                state.blocks.entry((self.stream, commit.sequence)).or_insert(commit.block);
            }
        }
    }
}
