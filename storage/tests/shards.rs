//! The number of shards may change at any restart.

#[path = "support/restarts.rs"]
mod restarts;
mod support;

use restarts::{check, check_removal};
use support::{Disk, Model, Node, PARTITIONS, options};
use tickwheel_storage::{
    Admission, RecoverError, recover,
    simulated_disk::{DiskOptions, SimulatedDisk},
};
use tickwheel_wire::{PartitionCount, PartitionId};

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
    check_removal(&SimulatedDisk::new(DiskOptions::default()));
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
