//! From a data directory to the parts of running shards.
//!
//! Recovery reads the partition map, replays each shard's partitions on a thread of its own, gives every shard a new stream, and only then
//! changes anything on disk. The number of shards may differ from the last run's. A partition whose events cannot be applied does not
//! stop the replay of the others; [`crate::quarantine`] decides whether the node starts without it.

use super::{
    Drain, ShardLog, ShardLoop,
    outbox::Outbox,
    pacing::Pace,
    peers::{Envelope, Peers},
    router::{NodeFacts, Router},
    runner::ShardRunner,
    snapshots::Snapshots,
};
use crate::{
    config::Configuration,
    data_directory::FREE_BYTES_MIN,
    fatal::Fatal,
    node::Control,
    quarantine::{self, Failure, Quarantine},
    runtime::{
        clock::{Clock, Reading},
        counters::ShardCounters,
        device::{DeviceOptions, UringDevice},
        idle::{Idle, IdleStrategy, ShardWaker},
        queues::Port,
        socket::{DatagramSocket, ShardSocket},
    },
};
use std::{collections::BTreeMap, os::fd::AsFd as _, path::Path, sync::Arc, thread};
use tickwheel_engine::{
    partition::{Partition, ReplayError as ApplyError, SnapshotReader},
    shard::{Directory, Effects, Gate, Shard as Core, ShardConfig},
};
use tickwheel_net::{Endpoint, EndpointConfig, ServerTls};
use tickwheel_storage::{
    Catalog, CommitSequence, Device, DeviceError, Log, LogOptions, RecoverError, Recovered, ReplayError, ReplaySink,
    Replayed, ShardStart, SnapshotWriter, recover,
};
use tickwheel_wire::{PartitionCount, PartitionId, ShardId, Timestamp, frame::FrameType};

/// What a batch takes in the log besides its events: headers and padding of as many sections as there can be partitions.
const BATCH_OVERHEAD_BYTES: usize = 256 << 10;

/// A shard's recovered partitions and where its log goes on.
pub struct RecoveredShard {
    partitions: Vec<Partition>,
    replayed: Vec<(PartitionId, u64)>,
    start: ShardStart,
}

/// What every shard of the node shares at its start.
#[derive(Clone)]
pub struct Shared {
    /// The settings.
    pub configuration: Arc<Configuration>,
    /// What its shards' loops share.
    pub common: Common,
}

/// What the loops of a node's shards share.
#[derive(Clone)]
pub struct Common {
    /// What sessions are told.
    pub facts: Arc<NodeFacts>,
    /// Tenants and pools.
    pub directory: Arc<Directory>,
    /// The server's certificate and its authority.
    pub tls: Arc<ServerTls>,
    /// Limits and timings of the sessions.
    pub endpoint: EndpointConfig,
    /// Events that wait for the log above which no more is decided, in bytes; also what closes a batch for it.
    pub batch_bytes: usize,
    /// Bytes of events in the log after which a snapshot of their partitions is due.
    pub snapshot_log_bytes: u64,
    /// Where shards and node meet.
    pub control: Arc<Control>,
}

/// Reads everything that the data directory `root` holds, and opens a stream for each shard.
///
/// # Errors
/// [`Fatal`] when the data is damaged, a partition's events cannot be applied for the first time, or the disk refuses. Nothing but
/// the note of that failure was changed then, or it can be tried again.
pub fn recover_all(
    root: &Path,
    partition_count: PartitionCount,
    facts: &NodeFacts,
    core_of: &(dyn Fn(ShardId) -> ShardConfig + Sync),
) -> Result<(Catalog, Vec<RecoveredShard>), Fatal> {
    let mut device = blocking_device(root)?;
    let mut quarantine = Quarantine::load(root, partition_count)?;
    let recovered = recover(&mut device, partition_count).map_err(|error| recover_error(root, error))?;
    let mut holdings = vec![Vec::new(); facts.shard_ports.len()];
    for partition in (0..partition_count.count()).map(PartitionId).filter(|id| !quarantine.contains(*id)) {
        holdings[usize::from(facts.shard_of(partition).0)].push(partition);
    }
    let (mut partitions, mut replayed, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for result in replay_all(root, &recovered, &holdings, core_of) {
        let shard = result?;
        for path in &shard.replayed.damaged_snapshots {
            tracing::warn!(path = %path.display(), "a damaged snapshot was passed over");
        }
        partitions.push(shard.partitions);
        replayed.push(shard.replayed);
        failures.extend(shard.failures);
    }
    let survey = recovered.survey(&mut device, &quarantine.partitions()).map_err(|error| recover_error(root, error))?;
    quarantine.judge(&failures)?;
    quarantine.warn();
    for held in &mut holdings {
        held.retain(|partition| !quarantine.contains(*partition));
    }
    let replayed_bytes: Vec<Vec<_>> = replayed.iter().map(|shard| replayed_bytes(shard, &quarantine)).collect();
    replayed.push(survey);
    let (catalog, starts) = recovered
        .start_without(&mut device, &replayed, &holdings, &quarantine.partitions())
        .map_err(|error| recover_error(root, error))?;
    let shards = partitions
        .into_iter()
        .zip(starts)
        .zip(replayed_bytes)
        .map(|((partitions, start), replayed)| RecoveredShard { partitions, replayed, start })
        .collect();
    Ok((catalog, shards))
}

/// What the replay of a shard's partitions gave.
pub struct ShardReplay {
    /// The partitions, without those that failed.
    pub partitions: Vec<Partition>,
    /// What was read for them.
    pub replayed: Replayed,
    /// The first event that could not be applied, for each that failed.
    pub failures: Vec<Failure>,
}

/// How many bytes of events were replayed for each partition that the shard will hold.
fn replayed_bytes(shard: &Replayed, quarantine: &Quarantine) -> Vec<(PartitionId, u64)> {
    let held = shard.partitions.iter().filter(|end| !quarantine.contains(end.partition));
    held.map(|end| (end.partition, end.replayed_bytes)).collect()
}

fn replay_all(
    root: &Path,
    recovered: &Recovered,
    holdings: &[Vec<PartitionId>],
    core_of: &(dyn Fn(ShardId) -> ShardConfig + Sync),
) -> Vec<Result<ShardReplay, Fatal>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .map(ShardId)
            .zip(holdings)
            .map(|(shard, partitions)| scope.spawn(move || replay(root, recovered, partitions, &core_of(shard))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// A device for start-up and the control thread, which may block.
///
/// # Errors
/// [`Fatal`] when the system denies it.
pub fn blocking_device(root: &Path) -> Result<UringDevice, Fatal> {
    UringDevice::new(DeviceOptions::new(root), Arc::new(ShardCounters::default()))
        .map_err(|error| Fatal::IoUring(error.to_string()))
}

fn replay(
    root: &Path,
    recovered: &Recovered,
    partitions: &[PartitionId],
    config: &ShardConfig,
) -> Result<ShardReplay, Fatal> {
    rebuild(&mut blocking_device(root)?, recovered, partitions, config).map_err(|error| match error {
        ReplayError::Recover(error) => recover_error(root, error),
        other => Fatal::Damaged(other.to_string()),
    })
}

/// Builds `partitions` from what `device` holds.
///
/// # Errors
/// When the data cannot be read, is damaged, or a snapshot cannot be restored.
pub fn rebuild(
    device: &mut impl Device,
    recovered: &Recovered,
    partitions: &[PartitionId],
    config: &ShardConfig,
) -> Result<ShardReplay, ReplayError<String>> {
    let mut sink = Rebuild::new(partitions, config);
    let replayed = recovered.replay(device, partitions, &mut sink)?;
    Ok(ShardReplay { partitions: sink.partitions.into_values().collect(), replayed, failures: sink.failures })
}

/// What the disk refuses has another remedy than what it has damaged.
fn recover_error(root: &Path, error: RecoverError) -> Fatal {
    match error {
        RecoverError::Device(error) if error.is_out_of_space() => {
            Fatal::OutOfSpace { path: root.to_owned(), needed_bytes: FREE_BYTES_MIN }
        }
        RecoverError::Device(DeviceError { path, source, .. }) => {
            Fatal::DataDirectory { path: root.join(path), error: source }
        }
        other => Fatal::Damaged(other.to_string()),
    }
}

/// Builds partitions from snapshots and events.
struct Rebuild<'a> {
    config: &'a ShardConfig,
    /// Those that have not failed.
    partitions: BTreeMap<PartitionId, Partition>,
    snapshots: BTreeMap<PartitionId, SnapshotReader>,
    failures: Vec<Failure>,
}

impl<'a> Rebuild<'a> {
    fn new(partitions: &[PartitionId], config: &'a ShardConfig) -> Self {
        let partitions = partitions.iter().map(|id| (*id, Partition::new(*id, config.partition))).collect();
        Self { config, partitions, snapshots: BTreeMap::new(), failures: Vec::new() }
    }
}

impl ReplaySink for Rebuild<'_> {
    type Error = String;

    fn snapshot_chunk(&mut self, partition: PartitionId, chunk: &[u8]) -> Result<(), String> {
        self.snapshots
            .entry(partition)
            .or_insert_with(|| SnapshotReader::new(partition, self.config.partition))
            .chunk(chunk)
            .map_err(|error| format!("snapshot of partition {}: {error}", partition.0))
    }

    fn snapshot_done(&mut self, partition: PartitionId, sequence: u64, _digest: u64) -> Result<(), String> {
        let failed = |reason: String| format!("snapshot of partition {} at event {sequence}: {reason}", partition.0);
        let reader = self.snapshots.remove(&partition).ok_or_else(|| failed("it is empty".to_owned()))?;
        // Every chunk was checked by its CRC; comparing the digest as well would walk 50 M jobs once more at every start.
        let restored = reader.finish(false).map_err(|error| failed(error.to_string()))?;
        if restored.sequence() != sequence {
            return Err(failed(format!("it ends with event {}", restored.sequence())));
        }
        self.partitions.insert(partition, restored);
        Ok(())
    }

    fn snapshot_discarded(&mut self, partition: PartitionId) -> Result<(), String> {
        self.snapshots.remove(&partition);
        Ok(())
    }

    fn section(&mut self, partition: PartitionId, first: u64, event_count: u32, bytes: &[u8]) -> Result<(), String> {
        // The log is read on behind a failure: where the partition's chain ends has to be known even if nobody holds it.
        let Some(target) = self.partitions.get_mut(&partition) else { return Ok(()) };
        let (event, reason) = match quarantine::guarded(|| target.apply_section(first, event_count, bytes)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ApplyError::Event { sequence, error, .. })) => (sequence, error.to_string()),
            Ok(Err(error)) => (first, error.to_string()),
            // An event is counted before it is applied.
            Err(panic) => (target.sequence(), panic),
        };
        self.partitions.remove(&partition);
        self.failures.push(Failure { partition, event, reason });
        Ok(())
    }
}

/// What one shard is made of, ready to move to its own thread.
pub struct ShardParts {
    /// Which shard.
    pub id: ShardId,
    /// Its socket, bound.
    pub socket: ShardSocket,
    /// Its queues to the siblings.
    pub port: Port<Envelope>,
    /// What wakes it.
    pub waker: ShardWaker,
    /// What it counts.
    pub counters: Arc<ShardCounters>,
    /// Cores for helper threads.
    pub helper_cores: Vec<usize>,
    /// Its partitions and its stream.
    pub recovered: RecoveredShard,
}

/// What a shard's loop is made of.
pub struct LoopParts<L, D, S> {
    /// Which shard.
    pub id: ShardId,
    /// Its log.
    pub log: L,
    /// What its snapshots are written through.
    pub snapshot_device: D,
    /// Its socket.
    pub socket: S,
    /// Its queues to the siblings.
    pub port: Port<Envelope>,
    /// What it counts.
    pub counters: Arc<ShardCounters>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// How many bytes of events were replayed for each.
    pub replayed: Vec<(PartitionId, u64)>,
}

impl<L: ShardLog, D: Device, S: DatagramSocket> ShardLoop<L, D, S> {
    /// Assembles a shard whose life begins at `reading`.
    ///
    /// # Errors
    /// [`Fatal`] when the sessions' settings are outside their ranges.
    pub fn assemble(
        parts: LoopParts<L, D, S>,
        common: &Common,
        core_config: ShardConfig,
        reading: &Reading,
    ) -> Result<Self, Fatal> {
        let LoopParts { id, log, snapshot_device, socket, port, counters, partitions, replayed } = parts;
        let mut core = Core::new(core_config, reading.now);
        for partition in partitions {
            core.adopt(partition, reading.now);
        }
        let endpoint = Endpoint::new(common.endpoint.clone(), &common.tls, reading.instant)
            .map_err(|error| Fatal::Configuration(error.to_string()))?;
        let writer = SnapshotWriter::new(snapshot_device);
        let effects = Effects::split_at(common.batch_bytes);
        let (facts, directory) = (Arc::clone(&common.facts), Arc::clone(&common.directory));
        Ok(Self {
            id,
            control: Arc::clone(&common.control),
            router: Router::new(id, facts, directory, Arc::clone(&counters), core, effects, Peers::new(port)),
            outbox: Outbox::default(),
            endpoint,
            socket,
            blocked: None,
            send_buffer: Vec::with_capacity(64 << 10),
            log,
            appended: CommitSequence::default(),
            durable: CommitSequence::default(),
            pace: Pace::new(reading.instant),
            batch_bytes: common.batch_bytes,
            space_retry_at: reading.instant,
            snapshots: Snapshots::new(writer, &replayed, common.snapshot_log_bytes),
            counters,
            gate: Gate::Open,
            takes_reports: true,
            drain: Drain::No,
        })
    }
}

impl ShardRunner {
    /// Assembles a shard of a real node, on its own thread.
    ///
    /// # Errors
    /// [`Fatal`] when the system denies a ring or timers.
    pub fn assemble(parts: ShardParts, shared: &Shared, core_config: ShardConfig) -> Result<Self, Fatal> {
        let ShardParts { id, socket, port, waker, counters, helper_cores, recovered } = parts;
        let configuration = &shared.configuration;
        let failed = |reason: String| Fatal::Shard { shard: id.0, reason };
        let device = || {
            let mut options = DeviceOptions::new(configuration.data());
            options.helper_cores.clone_from(&helper_cores);
            options.waker = Some(waker.clone());
            UringDevice::new(options, Arc::clone(&counters)).map_err(|error| Fatal::IoUring(error.to_string()))
        };
        let log_device = device()?;
        let log_fd = log_device.as_fd().try_clone_to_owned().map_err(|error| failed(error.to_string()))?;
        let RecoveredShard { partitions, replayed, start } = recovered;
        let log = Log::create(log_device, start.stream, &start.partitions, log_options(configuration));
        let strategy = IdleStrategy { spin: configuration.spin(), ..IdleStrategy::default() };
        let idle =
            Idle::new(waker.clone(), strategy, Arc::clone(&counters)).map_err(|error| failed(error.to_string()))?;
        let snapshot_device = device()?;
        let mut clock = Clock::new(Timestamp::EPOCH);
        let parts = LoopParts { id, log, snapshot_device, socket, port, counters, partitions, replayed };
        let shard = ShardLoop::assemble(parts, &shared.common, core_config, &clock.now())?;
        Ok(Self { shard, log_fd, idle, clock })
    }
}

/// Events that wait for the log above which no more is decided, in bytes: a quarter of a segment, at most 4 MiB.
pub fn batch_bytes(configuration: &Configuration) -> usize {
    usize::try_from(configuration.segment_bytes() / 4).unwrap_or(usize::MAX).min(4 << 20)
}

fn log_options(configuration: &Configuration) -> LogOptions {
    let segment_bytes = configuration.segment_bytes() / 4_096 * 4_096;
    // A batch is closed before the decision after `batch_bytes`, and one decision logs at most what one frame carries.
    let batch_bytes_max = batch_bytes(configuration) + configuration.frame_bytes_max() + BATCH_OVERHEAD_BYTES;
    // Any value serves that no client can guess: the clock's nanoseconds at the start are such a one.
    let salt = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
    LogOptions {
        segment_bytes,
        batch_bytes_max,
        in_flight_max: configuration.commits_in_flight_max(),
        salt: u32::try_from(salt >> 32).unwrap_or_default(),
        ..LogOptions::default()
    }
}

/// The settings of a node's sessions.
pub fn endpoint_config(configuration: &Configuration) -> EndpointConfig {
    EndpointConfig {
        sessions_max: configuration.sessions_max(),
        mtu_bytes: configuration.mtu_bytes(),
        frame_bytes_max: u32::try_from(configuration.frame_bytes_max()).unwrap_or(u32::MAX),
        is_known_frame: |frame_type| FrameType::from_number(frame_type).is_some(),
        ..EndpointConfig::default()
    }
}
