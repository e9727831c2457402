//! A partition that no shard holds loses nothing, however long the others go on without it.

mod support;

use std::{collections::BTreeMap, path::PathBuf};
use support::{Model, Node, Recorder, Shard, assignment, options, partition_count};
use tickwheel_storage::{
    Admission, Log, SnapshotWriter, recover,
    simulated_disk::{DiskOptions, SimulatedDisk},
};
use tickwheel_wire::PartitionId;

const ASIDE: PartitionId = PartitionId(1);

/// Starts without [`ASIDE`], which is replayed first, as by a start that finds its fault, or only surveyed.
fn start_without(disk: &SimulatedDisk, shards: usize, is_replayed: bool, model: &mut Model) -> Node<SimulatedDisk> {
    let mut device = disk.device();
    let recovered = recover(&mut device, partition_count()).expect("recovers");
    let mut holdings = assignment(shards);
    let mut recorder = Recorder::default();
    let mut replayed = Vec::new();
    for held in &mut holdings {
        if !is_replayed {
            held.retain(|partition| *partition != ASIDE);
        }
        replayed.push(recovered.replay(&mut disk.device(), held, &mut recorder).expect("replays"));
        held.retain(|partition| *partition != ASIDE);
    }
    if !is_replayed {
        let survey = recovered.survey(&mut device, &[ASIDE]).expect("surveys");
        assert_eq!(survey.partitions[0].last_sequence, model.states[usize::from(ASIDE.0)].len() as u64);
        replayed.push(survey);
    }
    let (catalog, starts) =
        recovered.start_without(&mut device, &replayed, &holdings, &[ASIDE]).expect("starts without it");
    recorder.states.insert(ASIDE, model.states[usize::from(ASIDE.0)].clone());
    let found: Vec<_> = recorder.states.into_values().collect();
    assert_eq!(found, model.states, "the others are whole");
    model.adopt(&found);
    model.commits = vec![Vec::new(); shards];
    let shards = starts.into_iter().map(|start| Shard {
        log: Log::create(disk.device(), start.stream, &start.partitions, options()),
        snapshots: SnapshotWriter::new(disk.device()),
        partitions: start.partitions.iter().map(|(partition, _)| *partition).collect(),
    });
    let shards = shards.collect();
    Node { disk: disk.clone(), catalog, shards, found, replayed, sections: recorder.sections, discarded: 0 }
}

/// Traffic of all that the node holds, more than a segment, and a snapshot of each after it.
fn work(node: &mut Node<SimulatedDisk>, model: &mut Model, with_snapshots: bool) {
    for shard in 0..node.shards.len() {
        let held = node.shards[shard].partitions.clone();
        let counts: Vec<_> = held.iter().map(|partition| (*partition, 5)).collect();
        for _ in 0..20 {
            node.append(model, shard, &counts, Admission::Ordinary).expect("appends");
        }
        for partition in held.into_iter().filter(|_| with_snapshots) {
            node.snapshot(model, partition).expect("takes a snapshot");
        }
    }
    node.settle(model).expect("settles");
    node.trim(model).expect("trims");
}

/// The files that hold the events and snapshots of [`ASIDE`], with their contents.
fn files(disk: &SimulatedDisk, streams: &[String]) -> BTreeMap<PathBuf, Vec<u8>> {
    let snapshots = format!("snapshots/{}", ASIDE.0);
    let is_its = |path: &PathBuf| path.starts_with(&snapshots) || streams.iter().any(|stream| path.starts_with(stream));
    let paths = disk.paths().into_iter().filter(is_its);
    paths.map(|path| (path.clone(), disk.contents(&path).expect("it is listed"))).collect()
}

fn check(is_replayed: bool) {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut model = Model::new();
    let mut streams = Vec::new();
    for shards in [2, 1] {
        let mut node = Node::start_checked(disk.clone(), shards, &mut model).expect("starts");
        work(&mut node, &mut model, false);
        node.snapshot(&mut model, ASIDE).expect("takes a snapshot");
        work(&mut node, &mut model, false);
        let shard = node.shards.iter().find(|shard| shard.partitions.contains(&ASIDE)).expect("held");
        streams.push(format!("log/{}", shard.log.stream().0));
    }
    let mut kept = None;
    for (restart, shards) in [2, 1, 3, 1, 2].into_iter().enumerate() {
        let mut node = start_without(&disk, shards, is_replayed && restart == 0, &mut model);
        // The first start cuts what lies behind the end of the log; from then on nothing changes.
        let before = kept.get_or_insert_with(|| files(&disk, &streams)).clone();
        assert!(streams.iter().all(|stream| before.keys().any(|path| path.starts_with(stream))), "{:?}", before.keys());
        work(&mut node, &mut model, true);
        assert!(files(&disk, &streams) == before, "restart {restart} changed what belongs to {ASIDE:?}");
        let own = node.shards.iter().map(|shard| format!("log/{}", shard.log.stream().0)).collect::<Vec<_>>();
        let named: Vec<_> = node.catalog.streams().map(|stream| format!("log/{}", stream.0)).collect();
        assert!(streams.iter().all(|stream| named.contains(stream)), "its chain is in the map");
        assert!(named.iter().all(|stream| streams.contains(stream) || own.contains(stream)), "the rest is trimmed");
    }
    for shards in [2, 1] {
        let states = model.states.clone();
        let mut node = Node::start_checked(disk.clone(), shards, &mut model).expect("starts");
        assert_eq!(node.found, states, "it can be replayed, and goes on from there");
        work(&mut node, &mut model, false);
    }
    let states = model.states.clone();
    assert_eq!(Node::start_checked(disk, 2, &mut model).expect("starts").found, states);
}

#[test]
fn a_partition_set_aside_after_its_replay_keeps_chain_streams_and_snapshots() {
    check(true);
}

#[test]
fn a_partition_set_aside_while_its_stream_is_open_keeps_chain_streams_and_snapshots() {
    check(false);
}

#[test]
#[should_panic(expected = "every partition is in a shard or set aside")]
fn a_partition_that_is_merely_forgotten_is_noticed() {
    let disk = SimulatedDisk::new(DiskOptions::default());
    let mut device = disk.device();
    let recovered = recover(&mut device, partition_count()).expect("recovers");
    let mut holdings = assignment(1);
    let replayed = recovered.replay(&mut disk.device(), &holdings[0], &mut Recorder::default()).expect("replays");
    holdings[0].retain(|partition| *partition != ASIDE);
    let _ = recovered.start_without(&mut device, &[replayed], &holdings, &[]);
}
