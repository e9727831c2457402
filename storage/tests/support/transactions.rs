//! A log over a store of transactions, as a distributed one would be: each commit takes several milliseconds, commits end out
//! of order, the result of some is unknown, and a new owner may take the stream over at any time.
//!
//! Blocks lie at fixed keys (stream, sequence), so writing identical bytes again is safe whatever became of the first try. Each
//! transaction reads the fence of its stream and commits only if it is still its own.

use crate::support::{EVENT_BYTES, Random, States, decode};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};
use tickwheel_storage::{Admission, AppendError, CommitLog, CommitSequence, LogError, Section};
use tickwheel_wire::{PartitionId, StreamId};

const IN_FLIGHT_MAX: usize = 8;
/// One poll is a tenth of a millisecond: commits take 2 to 5 ms.
const POLLS_PER_COMMIT: (usize, usize) = (20, 50);

/// What the owners of streams share.
#[derive(Debug, Default)]
pub struct Store {
    blocks: BTreeMap<(StreamId, u64), Vec<u8>>,
    fences: BTreeMap<StreamId, u64>,
}

pub type SharedStore = Arc<Mutex<Store>>;

enum Outcome {
    Committed,
    Unknown,
    Fenced,
}

impl Store {
    /// Puts `bytes` at the key, unless the stream has another owner.
    fn commit(&mut self, stream: StreamId, epoch: u64, sequence: u64, bytes: &[u8]) -> Outcome {
        if self.fences.get(&stream) != Some(&epoch) {
            return Outcome::Fenced;
        }
        let held = self.blocks.entry((stream, sequence)).or_insert_with(|| bytes.to_vec());
        assert_eq!(held, bytes, "a retry writes identical bytes");
        Outcome::Committed
    }

    /// Takes the stream over: raises its fence, keeps the contiguous prefix, voids the rest.
    fn take_over(&mut self, stream: StreamId) -> Vec<Vec<u8>> {
        *self.fences.entry(stream).or_default() += 1;
        let prefix: Vec<_> = (1..).map_while(|sequence| self.blocks.get(&(stream, sequence)).cloned()).collect();
        self.blocks.retain(|(of, sequence), _| *of != stream || *sequence <= prefix.len() as u64);
        prefix
    }
}

struct Commit {
    bytes: Vec<u8>,
    polls_left: usize,
    is_done: bool,
}

/// The log of one owner.
pub struct TransactionLog {
    store: SharedStore,
    stream: StreamId,
    epoch: u64,
    in_flight: VecDeque<Commit>,
    durable: u64,
    random: Random,
    is_fenced: bool,
    pub unknown_count: usize,
}

impl TransactionLog {
    pub fn open(store: &SharedStore, stream: StreamId, seed: u64) -> Self {
        let mut shared = store.lock().expect("no holder panics");
        let epoch = *shared.fences.entry(stream).or_insert(1);
        drop(shared);
        let (store, random) = (Arc::clone(store), Random(seed));
        Self {
            store,
            stream,
            epoch,
            in_flight: VecDeque::new(),
            durable: 0,
            random,
            is_fenced: false,
            unknown_count: 0,
        }
    }

    fn delay(&mut self) -> usize {
        POLLS_PER_COMMIT.0 + self.random.below(POLLS_PER_COMMIT.1 - POLLS_PER_COMMIT.0)
    }

    /// Tries to commit. One try in four has an unknown result: it happened or not.
    fn attempt(&mut self, at: usize) -> Outcome {
        let is_unknown = self.random.below(4) == 0;
        if is_unknown && self.random.below(2) == 0 {
            return Outcome::Unknown;
        }
        let sequence = self.durable + at as u64 + 1;
        let mut store = self.store.lock().expect("no holder panics");
        match store.commit(self.stream, self.epoch, sequence, &self.in_flight[at].bytes) {
            _ if is_unknown => Outcome::Unknown,
            outcome => outcome,
        }
    }
}

impl CommitLog for TransactionLog {
    fn append<'a, B>(&mut self, batch: B, _: Admission) -> Result<CommitSequence, AppendError>
    where
        B: IntoIterator<Item = Section<'a>>,
        B::IntoIter: Clone,
    {
        if self.is_fenced {
            return Err(LogError::Fenced { stream: self.stream }.into());
        }
        if self.in_flight.len() == IN_FLIGHT_MAX {
            return Err(AppendError::Full);
        }
        let mut bytes = Vec::new();
        for section in batch {
            bytes.extend_from_slice(&section.partition.0.to_le_bytes());
            bytes.extend_from_slice(&section.event_count.to_le_bytes());
            bytes.extend_from_slice(section.bytes);
        }
        let polls_left = self.delay();
        self.in_flight.push_back(Commit { bytes, polls_left, is_done: false });
        Ok(CommitSequence(self.durable + self.in_flight.len() as u64))
    }

    fn poll(&mut self) -> Result<CommitSequence, LogError> {
        for at in 0..self.in_flight.len() {
            let commit = &mut self.in_flight[at];
            if commit.is_done || self.is_fenced {
                continue;
            }
            commit.polls_left -= 1;
            if commit.polls_left > 0 {
                continue;
            }
            match self.attempt(at) {
                Outcome::Committed => self.in_flight[at].is_done = true,
                Outcome::Fenced => self.is_fenced = true,
                Outcome::Unknown => {
                    self.unknown_count += 1;
                    self.in_flight[at].polls_left = self.delay();
                }
            }
        }
        if self.is_fenced {
            return Err(LogError::Fenced { stream: self.stream });
        }
        while self.in_flight.front().is_some_and(|commit| commit.is_done) {
            self.in_flight.pop_front();
            self.durable += 1;
        }
        Ok(CommitSequence(self.durable))
    }
}

/// Takes the stream over and returns the states that its blocks make.
pub fn take_over(store: &SharedStore, stream: StreamId, partitions: u16) -> States {
    let mut states = vec![Vec::new(); usize::from(partitions)];
    for block in store.lock().expect("no holder panics").take_over(stream) {
        let mut rest = &block[..];
        while let Some((head, bytes)) = rest.split_first_chunk::<6>() {
            let partition = PartitionId(u16::from_le_bytes([head[0], head[1]]));
            let count = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
            let (events, others) = bytes.split_at(count * EVENT_BYTES);
            states[usize::from(partition.0)].extend(decode(events));
            rest = others;
        }
    }
    states
}
