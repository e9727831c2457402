//! Tests of recovery's errors; what a partition does is tested through the shard core.

use super::*;
use tickwheel_wire::{
    event::JobChange,
    job::{JobSpec, ScheduleListBuf, ScheduleSpec},
};

fn limits() -> PartitionLimits {
    PartitionLimits::default()
}

/// A partition with `count` jobs, and the section that made it.
fn filled(count: u32) -> (Partition, EventBuffer) {
    let mut partition = Partition::new(PartitionId(3), limits());
    let (mut events, mut zones) = (EventBuffer::default(), Zones::new());
    // Miri takes half a minute to read a zone with daylight saving time.
    let zone = if cfg!(miri) { "UTC" } else { "Europe/Berlin" };
    for number in 0..count {
        let name = format!("job-{number}");
        let schedule = ScheduleSpec::Cron { expression: "*/5 * * * *", zone };
        let spec = JobSpec { payload: &[1; 200], ..JobSpec::new("acme", &name, "run", schedule) };
        create(&mut partition, &spec, &mut zones, &mut events);
    }
    (partition, events)
}

fn create(partition: &mut Partition, spec: &JobSpec<'_>, zones: &mut Zones, events: &mut EventBuffer) {
    let mut spec_bytes = Vec::new();
    spec.encode(&mut spec_bytes);
    let request = submit::SubmitRequest {
        tenant: TenantId(0),
        spec,
        spec_bytes: &spec_bytes,
        mode: tickwheel_wire::frame::request::SubmitMode::Create,
        expected_revision: 0,
        idempotency_key: 0,
        idempotency_window: std::time::Duration::ZERO,
    };
    let now = Now { wall: Timestamp::from_secs(1_800_000_000), ..Now::default() };
    let mut turn = Turn { now, zones, events };
    partition.submit(&request, &mut turn).unwrap();
}

fn snapshot(partition: &mut Partition) -> Vec<Vec<u8>> {
    assert!(partition.begin_snapshot());
    assert!(!partition.begin_snapshot(), "one at a time");
    let mut chunks = Vec::new();
    loop {
        let mut chunk = Vec::new();
        let step = partition.snapshot_step(&mut chunk);
        chunks.push(chunk);
        if let SnapshotStep::Done { .. } = step {
            return chunks;
        }
    }
}

fn restore(chunks: &[Vec<u8>]) -> Result<Partition, SnapshotError> {
    let mut reader = SnapshotReader::new(PartitionId(3), limits());
    for chunk in chunks {
        reader.chunk(chunk)?;
    }
    reader.finish(true)
}

#[test]
fn a_snapshot_of_many_chunks_restores_the_same_state() {
    const COUNT: u32 = if cfg!(miri) { 20 } else { 20_000 };
    let (mut partition, _) = filled(COUNT);
    let chunks = snapshot(&mut partition);
    assert!(chunks.len() > if cfg!(miri) { 1 } else { 5 } && chunks.iter().all(|chunk| chunk.len() <= 5 << 20));
    let restored = restore(&chunks).unwrap();
    assert_eq!((restored.digest(), restored.sequence()), (partition.digest(), COUNT.into()));
}

#[test]
fn restored_jobs_fire_at_the_times_that_their_own_names_choose() {
    let mut partition = Partition::new(PartitionId(3), limits());
    let (mut events, mut zones) = (EventBuffer::default(), Zones::new());
    let hashed = ScheduleSpec::Cron { expression: "H * * * *", zone: "UTC" };
    let later: ScheduleListBuf = [ScheduleSpec::Once { at: Timestamp::from_secs(1_900_000_000) }].into_iter().collect();
    for number in 0..20 {
        let (alone, one_of_several) = (format!("alone-{number}"), format!("several-{number}"));
        create(&mut partition, &JobSpec::new("acme", &alone, "run", hashed), &mut zones, &mut events);
        let several = JobSpec { also: later.as_list(), ..JobSpec::new("acme", &one_of_several, "run", hashed) };
        create(&mut partition, &several, &mut zones, &mut events);
    }
    let mut restored = restore(&snapshot(&mut partition)).unwrap();
    for slot in 0..40 {
        let fire = partition.slot(slot).next_fire();
        let now = Now { wall: fire, ..Now::default() };
        let mut turn = Turn { now, zones: &mut zones, events: &mut events };
        let expected = policy::Progress { missed: 0, next: fire.saturating_add(std::time::Duration::from_secs(3_600)) };
        assert_eq!(partition.progress(slot, &mut turn), expected, "{slot}");
        assert_eq!(restored.progress(slot, &mut turn), expected, "{slot} restored");
    }
}

#[test]
fn broken_snapshots_are_refused() {
    let (mut partition, _) = filled(10);
    let chunks = snapshot(&mut partition);
    assert!(matches!(restore(&chunks[..chunks.len() - 1]), Err(SnapshotError::Incomplete { .. })));
    assert!(matches!(restore(&chunks[1..]), Err(SnapshotError::Malformed { chunk: 0, .. })));
    let mut cut = chunks.clone();
    cut[1].truncate(17);
    assert!(matches!(restore(&cut), Err(SnapshotError::Malformed { chunk: 1, .. })));
    let mut reader = SnapshotReader::new(PartitionId(4), limits());
    assert_eq!(reader.chunk(&chunks[0]), Err(SnapshotError::OtherPartition { found: 3 }));
}

#[test]
fn sections_apply_once_and_without_gaps() {
    let (partition, events) = filled(4);
    let mut replica = Partition::new(PartitionId(3), limits());
    replica.apply_section(1, 4, events.bytes()).unwrap();
    replica.apply_section(1, 4, events.bytes()).unwrap();
    assert_eq!(replica.digest(), partition.digest());
    let gap = replica.apply_section(6, 1, &[]).unwrap_err();
    assert_eq!(gap, ReplayError::Gap { partition: PartitionId(3), sequence: 4, first_sequence: 6 });
    assert!(matches!(replica.apply_section(5, 1, &[250]), Err(ReplayError::Event { sequence: 5, .. })));
}

#[test]
fn the_digest_sees_a_single_change() {
    let (mut partition, _) = filled(4);
    let before = partition.digest();
    let change = JobChange { slot: 2, at: Timestamp::EPOCH, next_fire: Timestamp::MAX };
    partition.apply(&Event::JobPaused(change));
    let paused = partition.digest();
    assert_ne!(before, paused);
    // The same events but for their number: the digest covers the sequence too.
    partition.apply(&Event::JobPaused(change));
    assert_ne!(paused, partition.digest());
}
