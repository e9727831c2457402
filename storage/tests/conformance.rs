//! What every commit log promises, over the files and over a store of transactions.

mod support;
#[path = "support/transactions.rs"]
mod transactions;

use support::{Model, Node, PARTITIONS, POLLS_MAX, Random, States, encode, event, options};
use tickwheel_storage::{
    Admission, AppendError, CommitLog, CommitSequence, Log, LogError, Section,
    simulated_disk::{DiskOptions, SimulatedDevice, SimulatedDisk},
};
use tickwheel_wire::{PartitionId, StreamId};
use transactions::{SharedStore, TransactionLog};

/// A kind of log under test.
trait Backend {
    type Log: CommitLog;
    fn new(seed: u64) -> Self;
    fn log(&mut self) -> &mut Self::Log;
    /// The owner stops abruptly; another one reads what there is.
    fn take_over(&mut self) -> States;
}

struct Files {
    disk: SimulatedDisk,
    log: Log<SimulatedDevice>,
}

impl Backend for Files {
    type Log = Log<SimulatedDevice>;

    fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::new(DiskOptions { seed, delay_polls_max: 40, ..DiskOptions::default() });
        let node = Node::start(disk.clone(), 1, options()).expect("an empty disk");
        let log = node.shards.into_iter().next().expect("one shard").log;
        Self { disk, log }
    }

    fn log(&mut self) -> &mut Self::Log {
        &mut self.log
    }

    fn take_over(&mut self) -> States {
        Node::start(self.disk.crash(), 2, options()).expect("recovers").found
    }
}

struct Transactions {
    store: SharedStore,
    log: TransactionLog,
}

const STREAM: StreamId = StreamId(9);

impl Backend for Transactions {
    type Log = TransactionLog;

    fn new(seed: u64) -> Self {
        let store = SharedStore::default();
        let log = TransactionLog::open(&store, STREAM, seed);
        Self { store, log }
    }

    fn log(&mut self) -> &mut Self::Log {
        &mut self.log
    }

    fn take_over(&mut self) -> States {
        transactions::take_over(&self.store, STREAM, PARTITIONS)
    }
}

/// Appends 1 to 9 events to some partitions as one commit.
fn append<L: CommitLog>(log: &mut L, model: &mut Model, random: &mut Random) -> Result<CommitSequence, AppendError> {
    let chosen: Vec<_> = (0..PARTITIONS).map(PartitionId).filter(|_| random.below(2) == 0).collect();
    let parts: Vec<_> = chosen
        .into_iter()
        .map(|partition| {
            let before = model.states[usize::from(partition.0)].len();
            let events: Vec<u64> = (before + 1..=before + 1 + random.below(9)).map(|n| event(partition, n)).collect();
            (partition, before as u64 + 1, encode(&events), events)
        })
        .collect();
    let sections = parts.iter().map(|(partition, first_sequence, bytes, events)| Section {
        partition: *partition,
        first_sequence: *first_sequence,
        event_count: u32::try_from(events.len()).expect("few"),
        bytes,
    });
    let sequence = log.append(sections, Admission::Ordinary)?;
    let mut commit = Vec::new();
    for (partition, _, _, events) in parts {
        let state = &mut model.states[usize::from(partition.0)];
        state.extend(events);
        commit.push((partition, state.len()));
    }
    model.commits[0].push(commit);
    Ok(sequence)
}

/// Polls and notes in the model what was reported.
fn poll<L: CommitLog>(log: &mut L, model: &mut Model) -> CommitSequence {
    let durable = log.poll().expect("an undisturbed log");
    for (partition, length) in model.commits[0].iter().take(usize::try_from(durable.0).expect("few")).flatten() {
        let reported = &mut model.reported[usize::from(partition.0)];
        *reported = (*reported).max(*length);
    }
    durable
}

fn model() -> Model {
    let mut model = Model::new();
    model.commits.push(Vec::new());
    model
}

/// A takeover at any moment finds a prefix of whole commits that holds all that was reported.
fn check_prefix<B: Backend>(seed: u64, turns: usize) {
    let (mut backend, mut model, mut random) = (B::new(seed), model(), Random(seed));
    let mut last = CommitSequence(0);
    for _ in 0..turns {
        match append(backend.log(), &mut model, &mut random) {
            Ok(sequence) => assert_eq!(sequence.0, model.commits[0].len() as u64, "commits are counted without gaps"),
            Err(AppendError::Full) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
        for _ in 0..random.below(15) {
            let durable = poll(backend.log(), &mut model);
            assert!(durable >= last, "what is durable never becomes less");
            assert!(durable.0 <= model.commits[0].len() as u64, "only what was appended becomes durable");
            last = durable;
        }
    }
    let found = backend.take_over();
    model.verify(&found).unwrap_or_else(|error| panic!("seed {seed}, {turns} turns: {error}"));
}

/// At its bound a log refuses and stays usable; left alone, all becomes durable.
fn check_bound<B: Backend>(seed: u64) {
    let (mut backend, mut model, mut random) = (B::new(seed), model(), Random(seed));
    let wait_for_room = |backend: &mut B, model: &mut Model, random: &mut Random| {
        for _ in 0..POLLS_MAX {
            match append(backend.log(), model, random) {
                Err(AppendError::Full) => poll(backend.log(), model),
                other => return other.expect("there is room"),
            };
        }
        panic!("seed {seed}: the log never took a commit");
    };
    wait_for_room(&mut backend, &mut model, &mut random);
    let mut accepted = 1;
    while append(backend.log(), &mut model, &mut random).is_ok() {
        accepted += 1;
        assert!(accepted <= 16, "commits in flight are bounded");
    }
    assert!(accepted > 1, "several commits are in flight");
    let last = wait_for_room(&mut backend, &mut model, &mut random);
    let empty = loop {
        match backend.log().append([], Admission::Ordinary) {
            Err(AppendError::Full) => poll(backend.log(), &mut model),
            other => break other.expect("an empty commit is one too"),
        };
    };
    assert_eq!(empty.0, last.0 + 1);
    model.commits[0].push(Vec::new());
    let is_all_durable = (0..POLLS_MAX).any(|_| poll(backend.log(), &mut model) == empty);
    assert!(is_all_durable, "seed {seed}: commits become durable");
    assert_eq!(backend.take_over(), model.states, "seed {seed}");
}

fn check<B: Backend>() {
    for seed in 0..40 {
        check_prefix::<B>(seed, usize::try_from(seed).expect("small") + 5);
        check_bound::<B>(seed);
    }
}

#[test]
fn files_keep_the_promises_of_a_commit_log() {
    check::<Files>();
}

#[test]
fn transactions_keep_the_promises_of_a_commit_log() {
    check::<Transactions>();
}

#[test]
fn a_fenced_owner_learns_it_and_reports_nothing_more() {
    let mut unknown_count = 0;
    for seed in 0..50 {
        let (mut backend, mut model, mut random) = (Transactions::new(seed), model(), Random(seed));
        for _ in 0..20 {
            let _ = append(backend.log(), &mut model, &mut random);
            for _ in 0..random.below(15) {
                poll(backend.log(), &mut model);
            }
        }
        let found = backend.take_over();
        model.verify(&found).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let reported = model.reported.clone();
        let _ = append(backend.log(), &mut model, &mut random);
        let mut error = None;
        for _ in 0..POLLS_MAX {
            match backend.log().poll() {
                Ok(durable) => assert!(
                    model.commits[0]
                        .iter()
                        .take(usize::try_from(durable.0).expect("few"))
                        .flatten()
                        .all(|(partition, length)| found[usize::from(partition.0)].len() >= *length),
                    "seed {seed}: a commit that the new owner does not have was reported"
                ),
                Err(fenced) => {
                    error = Some(fenced);
                    break;
                }
            }
        }
        assert!(matches!(error, Some(LogError::Fenced { stream: STREAM })), "seed {seed}");
        let refused = backend.log().append([], Admission::Ordinary);
        assert!(matches!(refused, Err(AppendError::Failed(LogError::Fenced { .. }))), "seed {seed}");
        assert_eq!(model.reported, reported);
        assert_eq!(backend.take_over(), found, "seed {seed}: nothing was added after the takeover");
        unknown_count += backend.log().unknown_count;
    }
    assert!(unknown_count > 50, "unknown results occurred");
}
