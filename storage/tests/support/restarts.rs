//! Restarts with other numbers of shards, over any disk.

use crate::support::{Disk, Model, Node, PARTITIONS};
use std::path::Path;
use tickwheel_storage::{Admission, Device};
use tickwheel_wire::PartitionId;

/// Restarts with 1, 2, 3 and 1 shards, with or without a snapshot here and there.
pub fn check<K: Disk>(disk: impl Fn() -> K, with_snapshots: bool) {
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

/// Old streams go, in the catalog and on the disk, as snapshots cover what they hold.
pub fn check_removal<K: Disk + Clone>(disk: &K) {
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
    let logs = disk.device().list(Path::new("log")).expect("readable");
    let names: Vec<_> = logs.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [stream.0.to_string()]);
    drop(node);
    Node::start_checked(disk.clone(), 3, &mut model).expect("starts from the snapshots");
}
