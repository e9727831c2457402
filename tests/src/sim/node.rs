//! A simulated node: real shards over a simulated disk or store, sockets and clocks, with the life of a process: it starts, recovers,
//! runs, is killed, loses its power.

use super::{
    log::{SimulatedLog, Store},
    plan::{Backend, Settings},
    random::Stream,
    session::server_tls,
    socket::SimulatedSocket,
    violation::{Promise, Violation},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tickwheel_engine::{
    partition::Partition,
    shard::{Directory, PartitionLimits, Pool, ShardConfig, Tenant},
};
use tickwheel_net::EndpointConfig;
use tickwheel_server::{
    fatal::Fatal,
    node::Control,
    runtime::{
        clock::{COMPARE_INTERVAL, Reading, SlewedClock},
        counters::ShardCounters,
        idle::ShardWaker,
        queues::mesh,
    },
    shard::{
        ShardLoop,
        router::NodeFacts,
        start::{Common, LoopParts, rebuild},
    },
};
use tickwheel_storage::{
    Catalog, Log, LogOptions, RecoverError, ReplayError, recover,
    simulated_disk::{DiskOptions, Latency, SimulatedDevice, SimulatedDisk},
};
use tickwheel_wire::{Now, PartitionCount, PartitionId, ShardId, Timestamp, frame::FrameType};

/// A shard's real loop on simulated ground.
pub type SimulatedShard = ShardLoop<SimulatedLog, SimulatedDevice, SimulatedSocket>;

/// The port of the first shard.
const PORT: u16 = 7_400;
/// Messages that a queue between two shards holds: few, so that full queues are met.
const QUEUE_CAPACITY: usize = 2;
/// Attempts that a partition remembers.
pub const RECENT_MAX: u32 = 32;

/// The address of a shard.
pub fn shard_address(index: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], PORT + index))
}

/// A shard and when it turns.
pub struct Running {
    /// The loop.
    pub shard: SimulatedShard,
    clock: ShardClock,
    /// Until when the turn under way takes.
    pub busy_until: Duration,
    /// Someone has woken it.
    is_woken: bool,
}

/// The clock of a shard, as `server` keeps it, over the simulated system clock.
struct ShardClock {
    slewed: SlewedClock,
    compare_at: Duration,
}

impl ShardClock {
    fn new(now: Duration, system: Timestamp) -> Self {
        Self { slewed: SlewedClock::new(now, system), compare_at: now + COMPARE_INTERVAL }
    }

    fn now(&mut self, now: Duration, system: Timestamp) -> Now {
        if now >= self.compare_at {
            self.slewed.compare(now, system);
            self.compare_at = now + COMPARE_INTERVAL;
        }
        Now { wall: self.slewed.wall(now), monotonic: now }
    }
}

/// A node's process.
pub struct Process {
    /// Its shards.
    pub shards: Vec<Running>,
    /// What asks it to stop.
    pub control: Arc<Control>,
    snapshots: mpsc::Receiver<(PartitionId, u64)>,
    catalog: Option<(Catalog, SimulatedDevice)>,
}

/// What a start found.
pub struct Recovery {
    /// The running process.
    pub process: Process,
    /// Each partition's newest event, and the digest of its state.
    pub partitions: BTreeMap<PartitionId, (u64, u64)>,
}

/// Why a node did not start.
#[derive(Debug)]
pub enum StartFailure {
    /// The power failed, or the disk refused, meanwhile.
    Disk(String),
    /// The disk is full.
    OutOfSpace,
    /// Damage was found.
    Damage(String),
}

/// What stays of a node when its process ends.
pub struct Node {
    settings: Settings,
    base: Instant,
    seed: u64,
    starts: u64,
    /// Its disk.
    pub disk: SimulatedDisk,
    /// Its store, where it has one.
    pub store: Store,
    directory: Arc<Directory>,
}

impl Node {
    /// A node on an empty disk.
    pub fn new(settings: Settings, base: Instant, seed: u64) -> Self {
        let latency = Latency { min: Duration::from_micros(10), max: Duration::from_micros(settings.disk_us_max) };
        let options = DiskOptions { seed, latency: Some(latency), ..DiskOptions::default() };
        let tenants = super::plan::TENANTS.map(|name| Tenant { name: name.into(), weight: 1 }).to_vec();
        let directory = Directory::new(tenants, vec![Pool::shared("standard")]).expect("valid names");
        let (disk, store) = (SimulatedDisk::new(options), Store::new(seed));
        Self { settings, base, seed, starts: 0, disk, store, directory: Arc::new(directory) }
    }

    /// A moment as the libraries take it.
    pub fn instant(&self, now: Duration) -> Instant {
        self.base + now
    }

    /// The number of partitions.
    pub fn partition_count(&self) -> PartitionCount {
        PartitionCount::new(self.settings.partitions.into()).expect("a power of two")
    }

    fn core_config(&self, shard: ShardId, shards: u16) -> ShardConfig {
        let finished_us = self.settings.finished_ms * 1_000;
        ShardConfig {
            reattach_ms: self.settings.reattach_ms,
            cancel_grace_ms: self.settings.cancel_grace_ms,
            executions_per_turn_max: 8,
            // Short rings, so that they are seen to turn.
            partition: PartitionLimits {
                finished_us,
                recent_max: RECENT_MAX,
                dead_letters_max: 16,
                ..PartitionLimits::default()
            },
            ..ShardConfig::new(shard, shards, self.partition_count(), Arc::clone(&self.directory))
        }
    }

    /// Starts the node with so many shards.
    ///
    /// # Errors
    /// When it cannot start; trying again later may help.
    pub fn start(&mut self, now: Duration, system: Timestamp, shards: u16) -> Result<Recovery, StartFailure> {
        self.starts += 1;
        let holdings: Vec<Vec<PartitionId>> = (0..shards)
            .map(|shard| (0..self.settings.partitions).filter(|id| id % shards == shard).map(PartitionId).collect())
            .collect();
        let (partitions, logs, catalog) = match self.settings.backend {
            Backend::Files => self.recover_files(&holdings, shards)?,
            Backend::Transactions => self.recover_store(&holdings, shards),
        };
        let found = partitions.iter().flatten();
        let found = found.map(|partition| (partition.id(), (partition.sequence(), partition.digest()))).collect();
        let wakers: Vec<_> = (0..shards).map(|_| ShardWaker::new().expect("descriptors are left")).collect();
        let (sender, snapshots) = mpsc::channel();
        let control = Arc::new(Control::new(wakers.clone(), sender));
        let common = self.common(shards, &control);
        let ports = mesh(&wakers, QUEUE_CAPACITY);
        let mut running = Vec::new();
        for (((index, port), partitions), (log, replayed)) in (0..).zip(ports).zip(partitions).zip(logs) {
            let mut clock = ShardClock::new(now, system);
            let reading = Reading { now: clock.now(now, system), instant: self.instant(now) };
            let parts = LoopParts {
                id: ShardId(index),
                log,
                snapshot_device: self.disk.device(),
                socket: SimulatedSocket::default(),
                port,
                counters: Arc::new(ShardCounters::default()),
                partitions,
                replayed,
            };
            let config = self.core_config(ShardId(index), shards);
            let shard = ShardLoop::assemble(parts, &common, config, &reading).expect("valid settings");
            running.push(Running { shard, clock, busy_until: now, is_woken: true });
        }
        let process = Process { shards: running, control, snapshots, catalog };
        Ok(Recovery { process, partitions: found })
    }

    fn common(&self, shards: u16, control: &Arc<Control>) -> Common {
        let mut random_seed = [0; 32];
        let mut stream = Stream::new(self.seed, "endpoint", self.starts);
        random_seed[..8].copy_from_slice(&stream.draw().to_le_bytes());
        Common {
            facts: Arc::new(NodeFacts {
                cluster: 1,
                partition_count: self.partition_count(),
                frame_bytes_max: 1 << 20,
                payload_bytes_max: 256 << 10,
                shard_ports: (0..shards).map(|index| shard_address(index).port()).collect(),
            }),
            directory: Arc::clone(&self.directory),
            tls: Arc::new(server_tls().clone()),
            endpoint: EndpointConfig {
                is_known_frame: |frame_type| FrameType::from_number(frame_type).is_some(),
                random_seed: Some(random_seed),
                mtu_bytes: 1_452,
                ..EndpointConfig::default()
            },
            batch_bytes: self.settings.batch_bytes(),
            snapshot_log_bytes: match self.settings.backend {
                Backend::Files => self.settings.snapshot_log_bytes,
                Backend::Transactions => u64::MAX,
            },
            control: Arc::clone(control),
        }
    }

    #[expect(clippy::type_complexity, reason = "partitions, logs and catalog of a start")]
    fn recover_files(
        &self,
        holdings: &[Vec<PartitionId>],
        shards: u16,
    ) -> Result<
        (Vec<Vec<Partition>>, Vec<(SimulatedLog, Vec<(PartitionId, u64)>)>, Option<(Catalog, SimulatedDevice)>),
        StartFailure,
    > {
        let mut device = self.disk.device();
        let recovered = recover(&mut device, self.partition_count()).map_err(start_failure)?;
        let (mut partitions, mut replayed) = (Vec::new(), Vec::new());
        for (index, held) in (0..).zip(holdings) {
            let config = self.core_config(ShardId(index), shards);
            let shard = rebuild(&mut device, &recovered, held, &config).map_err(|error| match error {
                ReplayError::Recover(error) => start_failure(error),
                other => StartFailure::Damage(other.to_string()),
            })?;
            if let Some(failure) = shard.failures.first() {
                return Err(StartFailure::Damage(format!("{failure:?}")));
            }
            partitions.push(shard.partitions);
            replayed.push(shard.replayed);
        }
        let (catalog, starts) = recovered.start(&mut device, &replayed, holdings).map_err(start_failure)?;
        let options = LogOptions {
            segment_bytes: self.settings.segment_bytes,
            batch_bytes_max: usize::try_from(self.settings.segment_bytes / 4).expect("small"),
            in_flight_max: self.settings.in_flight_max,
            salt: u32::try_from(self.starts).unwrap_or_default(),
            ..LogOptions::default()
        };
        let logs = starts.into_iter().zip(&replayed).map(|(start, replayed)| {
            let log = Log::create(self.disk.device(), start.stream, &start.partitions, options);
            let bytes = replayed.partitions.iter().map(|end| (end.partition, end.replayed_bytes)).collect();
            (SimulatedLog::Files(log), bytes)
        });
        Ok((partitions, logs.collect(), Some((catalog, device))))
    }

    #[expect(clippy::type_complexity, reason = "partitions, logs and catalog of a start")]
    fn recover_store(
        &self,
        holdings: &[Vec<PartitionId>],
        shards: u16,
    ) -> (Vec<Vec<Partition>>, Vec<(SimulatedLog, Vec<(PartitionId, u64)>)>, Option<(Catalog, SimulatedDevice)>) {
        let limits = self.core_config(ShardId(0), shards).partition;
        let mut all: BTreeMap<PartitionId, Partition> = (0..self.settings.partitions)
            .map(|id| (PartitionId(id), Partition::new(PartitionId(id), limits)))
            .collect();
        for section in self.store.take_over() {
            let partition = all.get_mut(&section.partition).expect("a partition of this cluster");
            partition
                .apply_section(section.first_sequence, section.event_count, &section.bytes)
                .expect("streams are taken over in order");
        }
        let take = |held: &Vec<PartitionId>| held.iter().filter_map(|id| all.remove(id)).collect();
        let partitions = holdings.iter().map(take).collect();
        let logs = holdings
            .iter()
            .map(|held| (SimulatedLog::Transactions(self.store.open()), held.iter().map(|id| (*id, 0)).collect()));
        (partitions, logs.collect(), None)
    }
}

impl Process {
    /// The next moment at which shard `index` has to turn, if any; now, if it has something to do.
    pub fn next_turn(&mut self, index: usize, base: Instant) -> Option<Duration> {
        let Running { shard, busy_until, is_woken, .. } = &mut self.shards[index];
        if *is_woken || shard.has_work() || shard.socket_mut().is_readable() {
            return Some(*busy_until);
        }
        // A deadline is asked for with the reading of the last turn; it is an instant, so any later reading does.
        let completions = [shard.log_mut().next_completion(), shard.snapshot_device_mut().next_completion()];
        let completion = completions.into_iter().flatten().min();
        let deadline = self.deadline(index, base);
        let busy_until = self.shards[index].busy_until;
        completion.into_iter().chain(deadline).min().map(|at| at.max(busy_until))
    }

    fn deadline(&self, index: usize, base: Instant) -> Option<Duration> {
        let Running { shard, clock, busy_until, .. } = &self.shards[index];
        let at = *busy_until;
        let reading = Reading { now: Now { wall: clock.slewed.wall(at), monotonic: at }, instant: base + at };
        shard.deadline(&reading).map(|deadline| deadline.saturating_duration_since(base))
    }

    /// Reads shard `index`'s clock.
    pub fn reading(&mut self, index: usize, now: Duration, system: Timestamp, base: Instant) -> Reading {
        let Running { clock, is_woken, .. } = &mut self.shards[index];
        *is_woken = false;
        Reading { now: clock.now(now, system), instant: base + now }
    }

    /// Whether a shard waits for its log.
    pub fn has_commits_in_flight(&self) -> bool {
        self.shards.iter().any(|running| running.shard.commits().0 > running.shard.commits().1)
    }

    /// Wakes every shard, as the control does.
    pub fn wake_all(&mut self) {
        self.shards.iter_mut().for_each(|running| running.is_woken = true);
    }

    /// The latest that a shard's clock shows.
    pub fn wall(&self, now: Duration) -> Timestamp {
        let clocks = self.shards.iter().map(|running| running.clock.slewed.wall(now));
        clocks.max().expect("a node has a shard")
    }

    /// Does what the control thread does: forgets what new snapshots have made superfluous.
    pub fn tend_catalog(&mut self) {
        let Some((catalog, device)) = &mut self.catalog else { return };
        let mut any = false;
        for (partition, sequence) in self.snapshots.try_iter() {
            catalog.snapshot_taken(partition, sequence);
            any = true;
        }
        if any {
            // What fails is tried again after the next snapshot.
            let _ = catalog.trim(device);
        }
    }
}

fn start_failure(error: RecoverError) -> StartFailure {
    match error {
        RecoverError::Device(error) if error.is_out_of_space() => StartFailure::OutOfSpace,
        RecoverError::Device(error) => StartFailure::Disk(error.to_string()),
        other => StartFailure::Damage(other.to_string()),
    }
}

/// What a shard's end means: a failed log is an end for a reason, everything else is none.
///
/// # Errors
/// The violation, when there was no reason.
pub fn judge_fatal(fatal: &Fatal, is_disk_bad: bool) -> Result<(), Violation> {
    match fatal {
        Fatal::LogFailed { .. } if is_disk_bad => Ok(()),
        other => Err(Violation::new(Promise::Alive, format!("a shard ended: {other}"))),
    }
}
