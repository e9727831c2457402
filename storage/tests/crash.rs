//! The power fails at every step of a short history, and what is recovered holds all that was reported durable.

mod support;

use support::{Model, Node, NodeError, PARTITIONS, Random, options};
use tickwheel_storage::{
    Admission, LogOptions,
    simulated_disk::{DiskOptions, SimulatedDisk},
};
use tickwheel_wire::{PartitionId, mix64};

/// Some rounds of commits over all shards, with a poll now and then.
fn work(
    node: &mut Node<SimulatedDisk>,
    model: &mut Model,
    random: &mut Random,
    rounds: usize,
) -> Result<(), NodeError> {
    for _ in 0..rounds {
        let shard = random.below(node.shards.len());
        let partitions = node.shards[shard].partitions.clone();
        let kept: Vec<_> = partitions.into_iter().filter(|_| random.below(3) > 0).collect();
        let counts: Vec<_> = kept.into_iter().map(|partition| (partition, 1 + random.below(12))).collect();
        node.append(model, shard, &counts, Admission::Ordinary)?;
        for _ in 0..random.below(3) {
            node.poll(model)?;
        }
    }
    Ok(())
}

/// Everything that storage does: commits over several segments, snapshots, trimming, restarts with 1, 2 and 3 shards.
fn history(disk: &SimulatedDisk, seed: u64, model: &mut Model) -> Result<(), NodeError> {
    let mut random = Random(seed);
    for shards in [1, 2, 3] {
        let mut node = Node::start_checked(disk.clone(), shards, model)?;
        work(&mut node, model, &mut random, 8)?;
        for partition in 0..PARTITIONS {
            node.snapshot(model, PartitionId(partition))?;
            work(&mut node, model, &mut random, 2)?;
        }
        node.trim(model)?;
        work(&mut node, model, &mut random, 3)?;
        node.settle(model)?;
    }
    Ok(())
}

fn disk(seed: u64, is_sync_ignored: bool) -> SimulatedDisk {
    SimulatedDisk::new(DiskOptions { seed, is_sync_ignored, ..DiskOptions::default() })
}

/// Runs the history with the power failing at `crash_at`, then again while it recovers and goes on, then recovers for good.
fn run(seed: u64, crash_at: u64, is_sync_ignored: bool) -> Result<(), String> {
    let first = disk(seed, is_sync_ignored);
    first.crash_at(crash_at);
    let mut model = Model::new();
    let result = history(&first, seed, &mut model);
    check_off(&first, result)?;
    let mut random = Random(mix64(seed) ^ crash_at);
    let mut go_on = |disk: &SimulatedDisk| {
        let mut node = Node::start_checked(disk.clone(), 1 + random.below(3), &mut model)?;
        work(&mut node, &mut model, &mut random, 5)
    };
    let second = first.crash();
    second.crash_at(1 + crash_at % 40);
    check_off(&second, go_on(&second))?;
    let third = second.crash();
    go_on(&third).map_err(|error| format!("after two crashes: {error}"))
}

/// An error is right only if the power has failed.
fn check_off(disk: &SimulatedDisk, result: Result<(), NodeError>) -> Result<(), String> {
    match result {
        Err(error) if !disk.is_off() => Err(error.to_string()),
        _ => Ok(()),
    }
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
            run(seed, crash_at, false).unwrap_or_else(|error| panic!("seed {seed}, step {crash_at}: {error}"));
        }
    }
}

#[test]
fn a_disk_that_ignores_syncs_is_found_out() {
    let failures = (1..=steps(0)).filter(|crash_at| run(0, *crash_at, true).is_err()).count();
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

/// Segment 0 is covered by snapshots while all that follows is still on its way to the disk.
fn removal_under_load(disk: &SimulatedDisk, model: &mut Model) -> Result<(), NodeError> {
    let mut node = Node::start(disk.clone(), 1, LogOptions { in_flight_max: 100, ahead_segments: 4, ..options() })?;
    model.commits = vec![Vec::new()];
    let one = [(PartitionId(0), 15)];
    for _ in 0..40 {
        node.poll(model)?;
    }
    for _ in 0..7 {
        node.append(model, 0, &one, Admission::Ordinary)?;
    }
    node.snapshot(model, PartitionId(0))?;
    for _ in 0..16 {
        node.append(model, 0, &one, Admission::Ordinary)?;
    }
    for _ in 0..60 {
        node.poll(model)?;
    }
    Ok(())
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
