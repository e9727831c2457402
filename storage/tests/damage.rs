//! The torn tail of a crash is cut; damage stops recovery and names file and offset.

#[path = "support/damage.rs"]
mod damage;
mod support;

use damage::{
    COMMITS, FragileDisk, SEGMENT, block_offset, check_damaged_block, check_torn_in_flight, check_torn_tail, error_of,
    write_log,
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use support::{Model, Node, options};
use tickwheel_storage::{
    Admission, CommitLog, Damage, Device, LogOptions, MAP_VERSION, RecoverError, SEGMENT_VERSION, SNAPSHOT_VERSION,
    Section,
    simulated_disk::{DiskOptions, SimulatedDisk},
};
use tickwheel_wire::PartitionId;

impl FragileDisk for SimulatedDisk {
    fn corrupt(&self, path: &str, offset: u64, mask: u8) {
        Self::corrupt(self, path, offset, mask);
    }
}

fn empty_disk() -> SimulatedDisk {
    SimulatedDisk::new(DiskOptions::default())
}

fn disk_with_log(is_awaited: bool, options: LogOptions) -> (SimulatedDisk, Model) {
    let disk = empty_disk();
    let model = write_log(&disk, is_awaited, options);
    (disk, model)
}

#[test]
fn an_unreadable_block_is_damage_if_a_later_one_knew_it_durable() {
    check_damaged_block(empty_disk);
}

#[test]
fn an_unreadable_last_block_is_the_torn_tail() {
    check_torn_tail(empty_disk);
}

#[test]
fn blocks_in_flight_behind_a_torn_one_are_void() {
    check_torn_in_flight(&empty_disk());
}

#[test]
fn an_empty_commit_guards_the_one_before_it() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    node.append(&mut model, 0, &[(PartitionId(0), 1)], Admission::Ordinary).expect("appends");
    node.settle(&mut model).expect("settles");
    node.append(&mut model, 0, &[], Admission::Ordinary).expect("appends");
    node.settle(&mut model).expect("settles");
    disk.corrupt(SEGMENT, block_offset(1) + 60, 1);
    assert!(matches!(error_of(&disk), RecoverError::Damaged { damage: Damage::Block { sequence: 1 }, .. }));
}

#[test]
fn a_closed_stream_is_damaged_wherever_it_cannot_be_read() {
    let (disk, _) = disk_with_log(true, options());
    drop(Node::start(disk.clone(), 1, options()).expect("closes the stream"));
    disk.corrupt(SEGMENT, block_offset(COMMITS) + 60, 1);
    let error = error_of(&disk);
    let RecoverError::Damaged { path, offset, .. } = error else { panic!("{error}") };
    assert_eq!((path.as_path(), offset), (Path::new(SEGMENT), block_offset(COMMITS)));
}

/// Appends `payload` as the last commit and tears its block.
fn torn_payload(options: LogOptions, payload: &[u8]) -> SimulatedDisk {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start(disk.clone(), 1, options).expect("starts");
    model.commits = vec![Vec::new()];
    node.settle(&mut model).expect("settles");
    let section = Section { partition: PartitionId(0), first_sequence: 1, event_count: 1, bytes: payload };
    node.shards[0].log.append([section], Admission::Ordinary).expect("appends");
    node.settle(&mut model).expect("settles");
    disk.corrupt(SEGMENT, block_offset(1), 1);
    disk
}

#[test]
fn a_payload_cannot_pose_as_a_later_block() {
    let (other, _) = disk_with_log(true, options());
    let from = usize::try_from(block_offset(COMMITS)).expect("small");
    let block = &other.contents(SEGMENT).expect("a segment")[from..from + 4096];
    // Block and section headers take 72 bytes; the forged block falls on the next aligned offset.
    let mut payload = vec![0; 4096 - 72];
    payload.extend_from_slice(block);
    let same_salt = torn_payload(options(), &payload);
    assert!(matches!(error_of(&same_salt), RecoverError::Damaged { .. }), "whoever knows the salt can forge");
    let disk = torn_payload(LogOptions { salt: 99, ..options() }, &payload);
    let node = Node::start(disk, 1, options()).expect("the tail is cut");
    assert!(node.found[0].is_empty());
}

#[test]
fn a_missing_segment_or_stream_is_damage() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    for _ in 0..30 {
        node.append(&mut model, 0, &[(PartitionId(0), 20)], Admission::Ordinary).expect("appends");
    }
    node.settle(&mut model).expect("settles");
    drop(node);
    let segments = disk.paths().iter().filter(|path| path.starts_with("log")).count();
    assert!(segments > 4, "{segments} segments");
    for index in 0..segments {
        let image = disk.crash();
        let path = PathBuf::from(format!("log/1/{index}.log"));
        let mut device = image.device();
        device.remove(&path).expect("removes");
        let result = Node::start(image.clone(), 1, options());
        if index + 2 >= segments {
            // The last two were prepared and not used.
            assert_eq!(result.expect("they hold nothing").found, model.states);
        } else {
            assert!(result.is_err(), "segment {index}");
        }
    }
    let image = disk.crash();
    let mut device = image.device();
    for index in 0..segments {
        let path = PathBuf::from(format!("log/1/{index}.log"));
        device.remove(&path).expect("removes");
    }
    device.remove_directory(Path::new("log/1")).expect("removes");
    assert!(matches!(error_of(&image), RecoverError::Damaged { damage: Damage::Missing, .. }));
}

#[test]
fn damage_in_front_of_a_segment_is_named_there() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    for _ in 0..30 {
        node.append(&mut model, 0, &[(PartitionId(0), 20)], Admission::Ordinary).expect("appends");
    }
    node.settle(&mut model).expect("settles");
    for byte in [0, 4, 24, 100] {
        disk.corrupt("log/1/1.log", 4096 + byte, 1);
        let error = error_of(&disk);
        let RecoverError::Damaged { path, offset, .. } = error else { panic!("{error}") };
        assert_eq!((path.as_path(), offset), (Path::new("log/1/1.log"), 4096));
        disk.corrupt("log/1/1.log", 4096 + byte, 1);
    }
}

/// A history with two closed streams, one that is open, and snapshots.
fn rich_disk() -> (SimulatedDisk, Model) {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    for shards in [2, 1] {
        let mut node = Node::start_checked(disk.clone(), shards, &mut model).expect("starts");
        for turn in 0..10 {
            let counts: Vec<_> =
                node.shards[turn % shards].partitions.iter().map(|partition| (*partition, 1 + turn)).collect();
            node.append(&mut model, turn % shards, &counts, Admission::Ordinary).expect("appends");
        }
        node.snapshot(&mut model, PartitionId(1)).expect("takes a snapshot");
        node.append(&mut model, shards - 1, &[(node.shards[shards - 1].partitions[0], 2)], Admission::Ordinary)
            .expect("appends");
        node.settle(&mut model).expect("settles");
    }
    (disk, model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_damaged_recovery_gives_a_prefix_or_an_error(
        flips in proptest::collection::vec((any::<usize>(), any::<u64>(), 1u8..), 0..4),
        cuts in proptest::collection::vec((any::<usize>(), any::<u64>()), 0..2),
    ) {
        let (disk, model) = rich_disk();
        let paths = disk.paths();
        // Most of a segment is zeroes: look where something is.
        let used = |path: &PathBuf| {
            let contents = disk.contents(path).expect("a file");
            contents.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
        };
        for (file, offset, mask) in &flips {
            let path = &paths[file % paths.len()];
            if used(path) > 0 {
                disk.corrupt(path, offset % used(path), *mask);
            }
        }
        for (file, length) in &cuts {
            let path = &paths[file % paths.len()];
            disk.device().truncate(path, length % (used(path) + 1)).expect("truncates");
        }
        if let Ok(node) = Node::start(disk, 2, options()) {
            for (found, state) in node.found.iter().zip(&model.states) {
                prop_assert!(state.starts_with(found));
            }
        }
        if flips.is_empty() && cuts.is_empty() {
            prop_assert_eq!(Node::start(rich_disk().0, 3, options()).expect("intact").found, model.states);
        }
    }
}

#[test]
fn a_lost_partition_map_is_noticed() {
    let (disk, _) = disk_with_log(true, options());
    let mut device = disk.device();
    device.remove(Path::new("partitions.map")).expect("removes");
    let error = error_of(&disk);
    assert!(matches!(error, RecoverError::Damaged { damage: Damage::UnknownStream { .. }, .. }), "{error}");
}

#[test]
fn every_changed_byte_of_the_map_stops_recovery() {
    let (disk, _) = disk_with_log(true, options());
    let length = disk.contents("partitions.map").expect("a map").len() as u64;
    for offset in 0..length {
        disk.corrupt("partitions.map", offset, 0x80);
        assert!(Node::start(disk.clone(), 1, options()).is_err(), "byte {offset}");
        disk.corrupt("partitions.map", offset, 0x80);
    }
}

#[test]
fn a_newer_format_is_refused_naming_both_versions() {
    let (disk, mut model) = disk_with_log(true, options());
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    node.snapshot(&mut model, PartitionId(0)).expect("takes a snapshot");
    drop(node);
    let snapshot = format!("snapshots/0/{COMMITS}.snap");
    for (path, offset, supported) in [
        ("log/2/0.log", 8, SEGMENT_VERSION),
        (snapshot.as_str(), 8, SNAPSHOT_VERSION),
        ("partitions.map", 8, MAP_VERSION),
    ] {
        disk.corrupt(path, offset, 0x40);
        let error = error_of(&disk);
        let RecoverError::Version { path: named, found, supported: known } = &error else { panic!("{error}") };
        assert_eq!((named.as_path(), *found, *known), (Path::new(path), supported ^ 0x40, supported));
        let text = error.to_string();
        assert!(text.contains(&found.to_string()) && text.contains(&known.to_string()), "{text}");
        disk.corrupt(path, offset, 0x40);
    }
    Node::start(disk, 1, options()).expect("nothing was changed on disk meanwhile");
}
