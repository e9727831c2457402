//! Snapshots: complete or absent, checked when read, and never in the way of the log.

mod support;

use support::{Model, Node, NodeError, PARTITIONS, options};
use tickwheel_storage::{
    Admission, RecoverError, ReplayError,
    simulated_disk::{DiskOptions, SimulatedDisk},
};
use tickwheel_wire::PartitionId;

const PARTITION: PartitionId = PartitionId(0);

fn work(node: &mut Node<SimulatedDisk>, model: &mut Model, commits: usize) {
    for _ in 0..commits {
        node.append(model, 0, &[(PARTITION, 10)], Admission::Ordinary).expect("appends");
    }
    node.settle(model).expect("settles");
}

/// Two snapshots of [`PARTITION`], at 20 and 40 events, and 10 events after.
fn disk_with_snapshots(is_trimmed: bool) -> (SimulatedDisk, Model) {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    for _ in 0..2 {
        work(&mut node, &mut model, 2);
        node.snapshot(&mut model, PARTITION).expect("takes a snapshot");
    }
    work(&mut node, &mut model, 1);
    drop(node);
    if is_trimmed {
        let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
        node.snapshot(&mut model, PARTITION).expect("takes a snapshot");
        node.trim(&mut model).expect("trims");
        work(&mut node, &mut model, 1);
    }
    (disk, model)
}

fn snapshots(disk: &SimulatedDisk) -> Vec<String> {
    let paths = disk.paths().into_iter().filter(|path| path.starts_with("snapshots"));
    paths.map(|path| path.to_string_lossy().into_owned()).collect()
}

#[test]
fn the_newest_snapshot_wins() {
    let (disk, mut model) = disk_with_snapshots(false);
    assert_eq!(snapshots(&disk), ["snapshots/0/20.snap", "snapshots/0/40.snap"]);
    let node = Node::start_checked(disk, 1, &mut model).expect("starts");
    assert_eq!(node.sections, 1, "only the events after 40 were replayed");
    assert_eq!(node.replayed[0].partitions[0].snapshot_sequence, 40);
}

#[test]
fn a_snapshot_may_lie_within_a_section() {
    for left_out in 1..10 {
        let disk = SimulatedDisk::new(DiskOptions::default());
        let mut model = Model::new();
        let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
        work(&mut node, &mut model, 2);
        node.snapshot_without_last(&mut model, PARTITION, left_out).expect("takes a snapshot");
        work(&mut node, &mut model, 2);
        let states = model.states.clone();
        let node = Node::start_checked(disk, 1, &mut model).expect("starts");
        assert_eq!((node.found, node.sections), (states, 3));
        assert_eq!(node.replayed[0].partitions[0].snapshot_sequence, 20 - left_out as u64);
    }
}

#[test]
fn a_damaged_snapshot_is_passed_over_while_the_log_reaches_back() {
    let (disk, model) = disk_with_snapshots(false);
    let length = disk.contents("snapshots/0/40.snap").expect("a snapshot").len() as u64;
    let used = length - 4096 + 100;
    for offset in (0..used).step_by(61) {
        if (8..12).contains(&offset) {
            continue;
        }
        let image = disk.crash();
        image.corrupt("snapshots/0/40.snap", offset, 4);
        let node = Node::start(image, 1, options()).unwrap_or_else(|error| panic!("byte {offset}: {error}"));
        assert_eq!(node.found, model.states, "byte {offset}");
        assert_eq!(node.discarded, 1);
        assert_eq!(node.replayed[0].partitions[0].snapshot_sequence, 20);
        assert_eq!(node.replayed[0].damaged_snapshots.len(), 1);
    }
    let disk = disk.crash();
    disk.corrupt("snapshots/0/40.snap", 100, 4);
    disk.corrupt("snapshots/0/20.snap", 100, 4);
    let node = Node::start(disk, 1, options()).expect("the log alone suffices");
    assert_eq!((node.found, node.discarded), (model.states, 2));
}

#[test]
fn a_damaged_snapshot_stops_recovery_once_the_log_is_trimmed() {
    let (disk, _) = disk_with_snapshots(true);
    assert_eq!(snapshots(&disk), ["snapshots/0/40.snap", "snapshots/0/50.snap"], "two are kept");
    disk.corrupt("snapshots/0/50.snap", 100, 4);
    let Err(error) = Node::start(disk, 1, options()) else { panic!("events 41 to 50 are gone") };
    let NodeError::Replay(ReplayError::Recover(RecoverError::NoSnapshot { partition, newest, needed })) = error else {
        panic!("{error}")
    };
    assert_eq!((partition, newest.to_str(), needed), (PARTITION, Some("snapshots/0/50.snap"), 41));
}

#[test]
fn a_snapshot_that_fails_leaves_the_one_before_and_no_rest() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    work(&mut node, &mut model, 3);
    node.snapshot(&mut model, PARTITION).expect("takes a snapshot");
    work(&mut node, &mut model, 3);
    let before = snapshots(&disk);
    disk.set_capacity_bytes(disk.used_bytes() + 4096);
    let error = node.snapshot(&mut model, PARTITION).expect_err("the disk is full");
    assert!(matches!(&error, NodeError::Snapshot(error) if error.source.is_out_of_space()), "{error}");
    assert_eq!(snapshots(&disk), before);
    disk.set_capacity_bytes(u64::MAX);
    node.snapshot(&mut model, PARTITION).expect("the writer is of use again");
    assert_eq!(snapshots(&disk).len(), 2);
}

#[test]
fn covered_segments_are_removed_and_the_rest_recovers() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    let all: Vec<_> = (0..PARTITIONS).map(|partition| (PartitionId(partition), 3)).collect();
    for _ in 0..60 {
        node.append(&mut model, 0, &all, Admission::Ordinary).expect("appends");
    }
    node.settle(&mut model).expect("settles");
    let segments = |disk: &SimulatedDisk| disk.paths().iter().filter(|path| path.starts_with("log")).count();
    let before = segments(&disk);
    for (partition, _) in &all {
        assert_eq!(segments(&disk), before, "partition {} is not covered yet", partition.0);
        node.snapshot(&mut model, *partition).expect("takes a snapshot");
    }
    node.trim(&mut model).expect("trims");
    let after = segments(&disk);
    assert!(after < before && after <= 4, "{before} -> {after}: one closed, the current and two that are ready");
    node.append(&mut model, 0, &all, Admission::Ordinary).expect("appends");
    node.settle(&mut model).expect("settles");
    let states = model.states.clone();
    let node = Node::start_checked(disk.crash(), 2, &mut model).expect("starts");
    assert_eq!(node.found, states);
}
