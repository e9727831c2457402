//! A log with one block per commit, and what recovery makes of it when a block cannot be read, over any disk.

use crate::support::{Disk, EVENT_BYTES, Model, Node, NodeError, options};
use std::path::Path;
use tickwheel_storage::{Admission, Damage, LogOptions, RecoverError, ReplayError};
use tickwheel_wire::PartitionId;

/// A disk whose files a test can damage. Clones are the same disk.
pub trait FragileDisk: Disk + Clone {
    /// Flips bits of a byte of a file.
    fn corrupt(&self, path: &str, offset: u64, mask: u8);
}

/// The first stream of a new data directory.
pub const SEGMENT: &str = "log/1/0.log";
pub const COMMITS: usize = 6;

/// Fills an empty disk with a log of [`COMMITS`] commits of one event of partition 0, each in a block of 4096 bytes, and returns
/// what it holds. `is_awaited` tells whether each is durable before the next.
pub fn write_log<K: FragileDisk>(disk: &K, is_awaited: bool, options: LogOptions) -> Model {
    let mut model = Model::new();
    let mut node = Node::start(disk.clone(), 1, options).expect("starts");
    model.commits = vec![Vec::new()];
    node.settle(&mut model).expect("settles");
    for _ in 0..COMMITS {
        node.append(&mut model, 0, &[(PartitionId(0), 1)], Admission::Ordinary).expect("appends");
        if is_awaited {
            node.settle(&mut model).expect("settles");
        }
    }
    node.settle(&mut model).expect("settles");
    model
}

pub fn block_offset(sequence: usize) -> u64 {
    4096 * sequence as u64
}

pub fn error_of<K: Disk + Clone>(disk: &K) -> RecoverError {
    match Node::start(disk.clone(), 1, options()) {
        Ok(_) => panic!("recovery should have stopped"),
        Err(NodeError::Recover(error) | NodeError::Replay(ReplayError::Recover(error))) => error,
        Err(other) => panic!("{other}"),
    }
}

/// Any block but the last was known to be durable by a later one, so it is missed.
pub fn check_damaged_block<K: FragileDisk>(new: impl Fn() -> K) {
    for sequence in 1..COMMITS {
        let disk = new();
        write_log(&disk, true, options());
        disk.corrupt(SEGMENT, block_offset(sequence) + 60, 1);
        let error = error_of(&disk);
        let RecoverError::Damaged { path, offset, damage } = error else { panic!("{error}") };
        assert_eq!((path.as_path(), offset), (Path::new(SEGMENT), block_offset(sequence)));
        assert_eq!(damage, Damage::Block { sequence: sequence as u64 });
    }
}

/// The last block may be what a crash left of it.
pub fn check_torn_tail<K: FragileDisk>(new: impl Fn() -> K) {
    for byte in [0, 4, 8, 24, 60, EVENT_BYTES as u64] {
        let disk = new();
        let model = write_log(&disk, true, options());
        disk.corrupt(SEGMENT, block_offset(COMMITS) + byte, 1);
        let node = Node::start(disk, 1, options()).expect("the tail is cut");
        assert_eq!(node.found[0], model.states[0][..COMMITS - 1]);
    }
}

/// Blocks that were in flight together are void from the torn one on, now and at every later start.
pub fn check_torn_in_flight<K: FragileDisk>(disk: &K) {
    let model = write_log(disk, false, LogOptions { in_flight_max: COMMITS, ..options() });
    disk.corrupt(SEGMENT, block_offset(2) + 60, 1);
    let node = Node::start(disk.clone(), 1, options()).expect("the tail is cut");
    assert_eq!(node.found[0], model.states[0][..1]);
    drop(node);
    let node = Node::start(disk.clone(), 1, options()).expect("the cut is for good");
    assert_eq!(node.found[0], model.states[0][..1]);
}
