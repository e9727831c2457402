//! The number of shards may change at any restart.

mod support;

use support::{Disk, Model, Node, PARTITIONS, options};
use tickwheel_storage::{
    Admission, RecoverError, recover,
    simulated_disk::{DiskOptions, SimulatedDisk},
};
use tickwheel_wire::{PartitionCount, PartitionId};

/// Restarts with 1, 2, 3 and 1 shards, with or without a snapshot here and there.
fn check<K: Disk>(disk: impl Fn() -> K, with_snapshots: bool) {
    let mut model = Model::new();
    for (round, shards) in [1, 2, 3, 1].into_iter().enumerate() {
        let mut node = Node::start_checked(disk(), shards, &mut model).expect("starts");
        for turn in 0..12 {
            let shard = turn % shards;
            let counts: Vec<_> = node.shards[shard].partitions.iter().map(|partition| (*partition, 3 + turn)).collect();
            node.append(&mut model, shard, &counts, Admission::Ordinary).expect("appends");
            if with_snapshots && turn == 5 {
                let partition = PartitionId(u16::try_from(round).expect("small") % PARTITIONS);
                node.snapshot(&mut model, partition).expect("takes a snapshot");
            }
        }
        node.settle(&mut model).expect("settles");
    }
    let before = model.states.clone();
    let node = Node::start_checked(disk(), 2, &mut model).expect("starts");
    assert_eq!(node.found, before);
    assert!(before.iter().all(|state| state.len() > 30));
}

#[test]
fn any_number_of_shards_finds_the_same_states() {
    for with_snapshots in [false, true] {
        let disk = SimulatedDisk::new(DiskOptions::default());
        check(|| disk.clone(), with_snapshots);
    }
}

#[test]
fn plain_files_find_the_same_states() {
    for with_snapshots in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        check(|| Borrowed(directory.path().to_owned()), with_snapshots);
    }
}

struct Borrowed(std::path::PathBuf);

impl Disk for Borrowed {
    type Device = tickwheel_storage::std_files::StdFiles;
    fn device(&self) -> Self::Device {
        tickwheel_storage::std_files::StdFiles::new(&self.0)
    }
}

#[test]
fn snapshots_and_log_give_the_same_as_the_log_alone() {
    let states = |with_snapshots: bool| {
        let disk = SimulatedDisk::new(DiskOptions::default());
        let mut model = Model::new();
        let mut node = Node::start_checked(disk.clone(), 2, &mut model).expect("starts");
        for turn in 0..10 {
            let counts: Vec<_> = node.shards[turn % 2].partitions.iter().map(|partition| (*partition, 5)).collect();
            node.append(&mut model, turn % 2, &counts, Admission::Ordinary).expect("appends");
            if with_snapshots && turn % 3 == 0 {
                node.snapshot(&mut model, PartitionId(1)).expect("takes a snapshot");
            }
        }
        node.settle(&mut model).expect("settles");
        drop(node);
        let node = Node::start(disk.clone(), 2, options()).expect("starts");
        (node.found, node.sections)
    };
    let (with, sections_with) = states(true);
    let (without, sections_without) = states(false);
    assert_eq!(with, without);
    assert!(sections_with < sections_without, "the snapshot spared replay");
}

#[test]
fn streams_are_removed_once_snapshots_cover_them() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    for shards in [2, 1, 2] {
        let mut node = Node::start_checked(disk.clone(), shards, &mut model).expect("starts");
        for shard in 0..shards {
            let counts: Vec<_> = node.shards[shard].partitions.iter().map(|partition| (*partition, 5)).collect();
            node.append(&mut model, shard, &counts, Admission::Ordinary).expect("appends");
        }
        node.settle(&mut model).expect("settles");
    }
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    let mut left = Vec::new();
    for partition in 0..PARTITIONS {
        node.snapshot(&mut model, PartitionId(partition)).expect("takes a snapshot");
        node.trim(&mut model).expect("trims");
        left.push(node.catalog.streams().count());
    }
    // Two shards hold {0, 2} and {1, 3}, one holds all: five old streams and the one being written.
    assert_eq!(left, [6, 6, 4, 1]);
    let stream = node.shards[0].log.stream();
    assert_eq!(node.catalog.streams().collect::<Vec<_>>(), [stream]);
    let own = format!("log/{}/", stream.0);
    let logs: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with("log")).collect();
    assert!(logs.iter().all(|path| path.starts_with(&own)), "{logs:?}");
    drop(node);
    Node::start_checked(disk, 3, &mut model).expect("starts from the snapshots");
}

#[test]
fn restarts_without_work_leave_nothing_behind() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut used = Vec::new();
    for _ in 0..4 {
        let mut node = Node::start_checked(disk.clone(), 3, &mut model).expect("starts");
        node.settle(&mut model).expect("settles");
        used.push(disk.used_bytes());
    }
    assert!(used.windows(2).all(|pair| pair[0] == pair[1]), "{used:?}");
}

#[test]
fn another_partition_count_is_refused() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    Node::start(disk.clone(), 1, options()).expect("starts");
    let error = recover(&mut Disk::device(&disk), PartitionCount::new(8).expect("a count")).expect_err("refused");
    assert!(matches!(error, RecoverError::PartitionCount { found: PARTITIONS, configured: 8 }), "{error}");
}
