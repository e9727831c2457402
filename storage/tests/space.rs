//! A full disk refuses new work, still logs completions from the reserve, and recovers when space returns; a disk that fails ends the log.

mod support;

use support::{EVENT_BYTES, Model, Node, NodeError, POLLS_MAX, options};
use tickwheel_storage::{
    Admission, AppendError, LogError, LogOptions, SpaceState,
    simulated_disk::{DiskOptions, SimulatedDisk},
};
use tickwheel_wire::PartitionId;

const ONE: [(PartitionId, usize); 1] = [(PartitionId(0), 15)];

/// Appends until the log refuses for good; returns how often it accepted.
fn fill(node: &mut Node<SimulatedDisk>, model: &mut Model, admission: Admission) -> usize {
    for accepted in 0..POLLS_MAX {
        match node.append(model, 0, &ONE, admission) {
            Ok(()) => {}
            Err(NodeError::Append(AppendError::OutOfSpace)) => return accepted,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the disk never filled");
}

#[test]
fn completions_are_logged_from_the_reserve_until_space_returns() {
    let segment = options().segment_bytes;
    let disk = SimulatedDisk::new(DiskOptions { capacity_bytes: segment * 4 + 4096, ..DiskOptions::default() });
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    assert!(fill(&mut node, &mut model, Admission::Ordinary) > 5);
    let SpaceState::Reserve { left_bytes } = node.shards[0].log.space_state() else { panic!("the disk is full") };
    assert!(left_bytes >= segment - 4096, "at least the reserve is left: {left_bytes}");
    assert!(fill(&mut node, &mut model, Admission::Reserve) >= 5, "the reserve takes completions");
    assert!(matches!(node.try_append(&mut model, 0, &ONE, Admission::Reserve), Err(AppendError::OutOfSpace)));
    assert_eq!(node.shards[0].log.space_state(), SpaceState::UsedUp);
    node.shards[0].log.retry_space();
    for _ in 0..10 {
        node.poll(&mut model).expect("polls");
    }
    assert!(matches!(node.try_append(&mut model, 0, &ONE, Admission::Ordinary), Err(AppendError::OutOfSpace)));
    disk.set_capacity_bytes(u64::MAX);
    node.shards[0].log.retry_space();
    for _ in 0..10 {
        node.poll(&mut model).expect("polls");
    }
    assert_eq!(node.shards[0].log.space_state(), SpaceState::Ample);
    node.append(&mut model, 0, &ONE, Admission::Ordinary).expect("space has returned");
    node.settle(&mut model).expect("settles");
    let before = model.states.clone();
    assert_eq!(model.reported[0], before[0].len());
    let node = Node::start_checked(disk.crash(), 1, &mut model).expect("starts");
    assert_eq!(node.found, before);
}

#[test]
fn the_reserve_is_not_touched_while_there_is_space() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let options = LogOptions { in_flight_max: 100, ..options() };
    let mut node = Node::start(disk, 1, options).expect("starts");
    let mut model = Model::new();
    model.commits = vec![Vec::new()];
    for _ in 0..20 {
        node.poll(&mut model).expect("polls");
    }
    // Nothing is polled from here on, so no segment gets ready besides the one in use and the reserve.
    let accepted = (0..100).take_while(|_| node.try_append(&mut model, 0, &ONE, Admission::Reserve).is_ok()).count();
    let commit_bytes = u64::try_from(15 * EVENT_BYTES).expect("small").next_multiple_of(4096);
    assert_eq!(accepted as u64, (options.segment_bytes - 4096) / commit_bytes, "one segment was filled");
    assert!(matches!(node.try_append(&mut model, 0, &ONE, Admission::Reserve), Err(AppendError::Full)));
    node.settle(&mut model).expect("settles");
    node.append(&mut model, 0, &ONE, Admission::Ordinary).expect("the next segment is ready by now");
}

#[test]
fn trimming_gives_space_back_by_itself() {
    let segment = options().segment_bytes;
    let disk = SimulatedDisk::new(DiskOptions { capacity_bytes: segment * 6, ..DiskOptions::default() });
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    fill(&mut node, &mut model, Admission::Ordinary);
    let retained = node.shards[0].log.retained_bytes();
    node.shards[0].log.snapshot_taken(PartitionId(0), model.states[0].len() as u64);
    for _ in 0..100 {
        node.poll(&mut model).expect("polls");
    }
    assert!(node.shards[0].log.retained_bytes() < retained);
    assert_eq!(node.shards[0].log.space_state(), SpaceState::Ample);
    assert!(fill(&mut node, &mut model, Admission::Ordinary) > 3);
}

#[test]
fn a_disk_that_is_full_from_the_start_says_so() {
    let disk = SimulatedDisk::new(DiskOptions { capacity_bytes: 10_000, ..DiskOptions::default() });
    let mut model = Model::new();
    let mut node = Node::start_checked(disk, 1, &mut model).expect("starts");
    for _ in 0..10 {
        node.poll(&mut model).expect("polls");
    }
    let log = &node.shards[0].log;
    assert!(!log.is_ready());
    assert_eq!(log.space_state(), SpaceState::UsedUp);
}

#[test]
fn a_failed_write_ends_the_log_and_names_file_and_offset() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk.clone(), 1, &mut model).expect("starts");
    node.append(&mut model, 0, &ONE, Admission::Ordinary).expect("appends");
    node.settle(&mut model).expect("settles");
    for _ in 0..20 {
        node.poll(&mut model).expect("polls");
    }
    node.append(&mut model, 0, &ONE, Admission::Ordinary).expect("appends");
    disk.fail_at(disk.op_count() + 1, std::io::ErrorKind::Other);
    let error = node.settle(&mut model).expect_err("the write fails");
    let NodeError::Log(LogError::Device { source, .. }) = error else { panic!("{error}") };
    assert_eq!((source.path.to_str(), source.offset), (Some("log/1/0.log"), 8192));
    let steps = disk.op_count();
    assert!(matches!(node.try_append(&mut model, 0, &ONE, Admission::Reserve), Err(AppendError::Failed(_))));
    assert!(node.poll(&mut model).is_err());
    assert_eq!(disk.op_count(), steps, "nothing is tried again");
    let node = Node::start_checked(disk.crash(), 1, &mut model).expect("recovers");
    assert!(node.found[0].len() >= 15, "what was reported is there");
}

#[test]
fn a_batch_that_can_never_fit_is_refused_and_changes_nothing() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk, 1, &mut model).expect("starts");
    let result = node.append(&mut model, 0, &[(PartitionId(0), 100)], Admission::Ordinary);
    let bytes_max = options().batch_bytes_max;
    assert!(
        matches!(result, Err(NodeError::Append(AppendError::TooLarge { bytes_max: limit, .. })) if limit == bytes_max)
    );
    node.append(&mut model, 0, &ONE, Admission::Ordinary).expect("the sequence was not consumed");
}

#[test]
#[should_panic(expected = "a section continues its partition 0")]
fn a_section_that_skips_events_is_a_broken_invariant() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut node = Node::start_checked(disk, 1, &mut model).expect("starts");
    node.settle(&mut model).expect("settles");
    model.states[0].push(1);
    let _ = node.try_append(&mut model, 0, &ONE, Admission::Ordinary);
}
