//! Storage's own suite over the device that a server runs on: io_uring, direct writes, a real file system.
//!
//! The bodies are those of `storage/tests/`, which runs them over the simulated disk and over plain files.

#[path = "../../storage/tests/support/conformance.rs"]
mod conformance;
#[path = "../../storage/tests/support/damage.rs"]
mod damage;
#[path = "../../storage/tests/support/history.rs"]
mod history;
#[path = "../../storage/tests/support/restarts.rs"]
mod restarts;
mod storage_support;
#[path = "../../storage/tests/support/mod.rs"]
mod support;

use conformance::Backend;
use history::MortalDisk;
use storage_support::{RingDevice, RingDisk};
use support::{Model, Node, States, options};
use tickwheel_storage::Log;

/// A log over io_uring.
struct Ring<const IS_OFFLOADED: bool> {
    /// `None` once its owner has stopped.
    log: Option<Log<RingDevice>>,
    disk: RingDisk,
}

impl<const IS_OFFLOADED: bool> Backend for Ring<IS_OFFLOADED> {
    type Log = Log<RingDevice>;

    fn new(_: u64) -> Self {
        let disk = RingDisk::new(IS_OFFLOADED);
        let node = Node::start(disk.clone(), 1, options()).expect("an empty directory");
        let log = node.shards.into_iter().next().expect("one shard").log;
        Self { log: Some(log), disk }
    }

    fn log(&mut self) -> &mut Self::Log {
        self.log.as_mut().expect("its owner has not stopped")
    }

    fn take_over(&mut self) -> States {
        drop(self.log.take());
        Node::start(self.disk.crash(), 2, options()).expect("recovers").found
    }
}

#[test]
fn the_ring_keeps_the_promises_of_a_commit_log() {
    conformance::check::<Ring<false>>(0..20);
}

#[test]
fn a_ring_of_the_kernels_workers_keeps_the_promises_of_a_commit_log() {
    conformance::check::<Ring<true>>(0..20);
}

#[test]
fn any_number_of_shards_finds_the_same_states() {
    for with_snapshots in [false, true] {
        let disk = RingDisk::new(false);
        restarts::check(|| disk.clone(), with_snapshots);
    }
}

#[test]
fn streams_are_removed_once_snapshots_cover_them() {
    restarts::check_removal(&RingDisk::new(false));
}

#[test]
fn a_covered_segment_is_removed_under_load_and_its_owner_may_die_meanwhile() {
    let whole = RingDisk::new(false);
    history::removal_under_load(&whole, &mut Model::new()).expect("the first segment goes");
    for crash_at in (1..).step_by(3) {
        let (disk, mut model) = (RingDisk::new(false), Model::new());
        disk.crash_at(crash_at);
        history::check_off(&disk, history::removal_under_load(&disk, &mut model)).expect("only the death stops it");
        let after = Node::start_checked(disk.crash(), 1, &mut model);
        after.map(drop).unwrap_or_else(|error| panic!("step {crash_at}: {error}"));
        if !disk.is_off() {
            break;
        }
    }
}

#[test]
fn an_owner_that_dies_at_any_step_loses_nothing_that_was_reported() {
    // How many steps a history takes depends on the disk, so it is tried until one ends before its owner would die.
    let mut deaths = 0;
    for crash_at in (1..).step_by(5) {
        let disk = RingDisk::new(crash_at % 2 == 0);
        history::run(&disk, crash_at, crash_at).unwrap_or_else(|error| panic!("step {crash_at}: {error}"));
        if !disk.is_off() {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 30, "the history is worth it: {deaths} deaths");
}

#[test]
fn an_undisturbed_history_is_found_whole() {
    let (disk, mut model) = (RingDisk::new(false), Model::new());
    history::history(&disk, 1, &mut model).expect("nothing disturbs it");
    let found = Node::start(disk, 2, options()).expect("starts").found;
    assert_eq!(found, model.states);
}

#[test]
fn an_unreadable_block_is_damage_if_a_later_one_knew_it_durable() {
    damage::check_damaged_block(|| RingDisk::new(false));
}

#[test]
fn an_unreadable_last_block_is_the_torn_tail() {
    damage::check_torn_tail(|| RingDisk::new(false));
}

#[test]
fn blocks_in_flight_behind_a_torn_one_are_void() {
    damage::check_torn_in_flight(&RingDisk::new(false));
}
