//! What every commit log promises, over the files and over a store of transactions.

#[path = "support/conformance.rs"]
mod conformance;
mod support;
#[path = "support/transactions.rs"]
mod transactions;

use conformance::{Backend, append, check, model, poll};
use support::{Node, PARTITIONS, POLLS_MAX, Random, States, options};
use tickwheel_storage::{
    Admission, AppendError, CommitLog, Log, LogError,
    simulated_disk::{DiskOptions, SimulatedDevice, SimulatedDisk},
};
use tickwheel_wire::StreamId;
use transactions::{SharedStore, TransactionLog};

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

#[test]
fn files_keep_the_promises_of_a_commit_log() {
    check::<Files>(0..40);
}

#[test]
fn transactions_keep_the_promises_of_a_commit_log() {
    check::<Transactions>(0..40);
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
