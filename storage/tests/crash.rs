//! The power fails at every step of a short history, and what is recovered holds all that was reported durable.

#[path = "support/history.rs"]
mod history;
mod support;

use history::{MortalDisk, check_off, history, removal_under_load, run};
use support::{Model, Node};
use tickwheel_storage::simulated_disk::{DiskOptions, SimulatedDisk};

impl MortalDisk for SimulatedDisk {
    fn crash_at(&self, step: u64) {
        Self::crash_at(self, step);
    }

    fn is_off(&self) -> bool {
        Self::is_off(self)
    }

    fn crash(&self) -> Self {
        Self::crash(self)
    }
}

fn disk(seed: u64, is_sync_ignored: bool) -> SimulatedDisk {
    SimulatedDisk::new(DiskOptions { seed, is_sync_ignored, ..DiskOptions::default() })
}

fn steps(seed: u64) -> u64 {
    let disk = disk(seed, false);
    let mut model = Model::new();
    history(&disk, seed, &mut model).expect("an undisturbed history");
    disk.op_count()
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_reported() {
    for seed in 0..3 {
        let steps = steps(seed);
        assert!(steps > 150, "the history is worth it: {steps} steps");
        for crash_at in 1..=steps {
            run(&disk(seed, false), seed, crash_at)
                .unwrap_or_else(|error| panic!("seed {seed}, step {crash_at}: {error}"));
        }
    }
}

#[test]
fn a_disk_that_ignores_syncs_is_found_out() {
    let failures = (1..=steps(0)).filter(|crash_at| run(&disk(0, true), 0, *crash_at).is_err()).count();
    assert!(failures > 10, "only {failures} crash points noticed that nothing was synced");
}

#[test]
fn the_same_seed_makes_the_same_history() {
    let image = |seed| {
        let disk = disk(seed, false);
        history(&disk, seed, &mut Model::new()).expect("an undisturbed history");
        let files: Vec<_> = disk.paths().into_iter().map(|path| (path.clone(), disk.contents(path))).collect();
        (disk.op_count(), files)
    };
    assert_eq!(image(3), image(3));
    assert_ne!(image(3).0, image(4).0);
}

#[test]
fn any_step_may_fail_and_nothing_reported_is_lost() {
    for (seed, stride) in [(1, 1), (2, 3)] {
        for fail_at in (1..=steps(seed)).step_by(stride) {
            let disk = disk(seed, false);
            disk.fail_at(fail_at, std::io::ErrorKind::Other);
            let mut model = Model::new();
            let result = history(&disk, seed, &mut model);
            let survivor = disk.crash();
            let after = Node::start_checked(survivor, 2, &mut model);
            after.map(drop).unwrap_or_else(|error| panic!("seed {seed}, step {fail_at} ({result:?}): {error}"));
        }
    }
}

#[test]
fn a_segment_is_removed_only_when_what_follows_can_be_told_from_damage() {
    let disk = |seed| SimulatedDisk::new(DiskOptions { seed, delay_polls_max: 30, ..DiskOptions::default() });
    for seed in 0..10 {
        let whole = disk(seed);
        removal_under_load(&whole, &mut Model::new()).expect("an undisturbed history");
        assert!(whole.contents("log/1/0.log").is_none(), "the first segment was removed");
        for crash_at in 1..=whole.op_count() {
            let (disk, mut model) = (disk(seed), Model::new());
            disk.crash_at(crash_at);
            check_off(&disk, removal_under_load(&disk, &mut model)).expect("only the crash stops it");
            let after = Node::start_checked(disk.crash(), 1, &mut model);
            after.map(drop).unwrap_or_else(|error| panic!("seed {seed}, step {crash_at}: {error}"));
        }
    }
}
