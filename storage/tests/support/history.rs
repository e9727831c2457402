//! A short history in which storage does everything that it does, cut off at any step.

use crate::support::{Disk, Model, Node, NodeError, PARTITIONS, POLLS_MAX, Random, options};
use std::path::Path;
use tickwheel_storage::{Admission, Device, LogOptions, RecoverError};
use tickwheel_wire::{PartitionId, mix64};

/// A disk whose owner can die at a chosen step.
pub trait MortalDisk: Disk + Clone {
    /// From step `step` on nothing happens and every call fails.
    fn crash_at(&self, step: u64);
    /// Whether that step has come.
    fn is_off(&self) -> bool;
    /// What the next owner finds. Devices of this disk are gone or of no effect.
    fn crash(&self) -> Self;
}

/// Some rounds of commits over all shards, with a poll now and then.
fn work<K: Disk>(node: &mut Node<K>, model: &mut Model, random: &mut Random, rounds: usize) -> Result<(), NodeError> {
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
pub fn history<K: MortalDisk>(disk: &K, seed: u64, model: &mut Model) -> Result<(), NodeError> {
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

/// Runs the history on an empty disk that fails at `crash_at`, then again while it recovers and goes on, then recovers for good.
pub fn run<K: MortalDisk>(first: &K, seed: u64, crash_at: u64) -> Result<(), String> {
    first.crash_at(crash_at);
    let mut model = Model::new();
    let result = history(first, seed, &mut model);
    check_off(first, result)?;
    let mut random = Random(mix64(seed) ^ crash_at);
    let mut go_on = |disk: &K| {
        let mut node = Node::start_checked(disk.clone(), 1 + random.below(3), &mut model)?;
        work(&mut node, &mut model, &mut random, 5)
    };
    let second = first.crash();
    second.crash_at(1 + crash_at % 40);
    check_off(&second, go_on(&second))?;
    let third = second.crash();
    go_on(&third).map_err(|error| format!("after two crashes: {error}"))
}

/// An error is right only if the disk has failed.
pub fn check_off<K: MortalDisk>(disk: &K, result: Result<(), NodeError>) -> Result<(), String> {
    match result {
        Err(error) if !disk.is_off() => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Segment 0 is covered by snapshots while all that follows is still on its way to the disk.
pub fn removal_under_load<K: MortalDisk>(disk: &K, model: &mut Model) -> Result<(), NodeError> {
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
    let mut onlooker = disk.device();
    for _ in 0..POLLS_MAX {
        node.poll(model)?;
        let left = onlooker.list(Path::new("log/1")).map_err(RecoverError::from)?;
        if left.iter().all(|entry| entry.name != "0.log") {
            return Ok(());
        }
    }
    Err(NodeError::Stuck)
}
