//! A node: its shards, and the control thread that starts, watches and ends them.
//!
//! Start: bind the sockets, recover the data, start one executor per shard. End: a signal (or a shard's failure) asks every shard to
//! drain; each finishes what runs within the limit, makes it durable and says good-bye.
//!
//! Invariant: nothing on disk changes before the system's limits are checked, every port is bound and every partition is replayed.

use crate::{
    certificates::Files,
    config::Configuration,
    data_directory::DataDirectory,
    fatal::Fatal,
    runtime::{
        counters::ShardCounters,
        executor::{self, CorePlan, Shards, StartError},
        huge_pages,
        idle::ShardWaker,
        queues::mesh,
        socket::{BindError, ShardSocket, SocketOptions},
        watchdog::{Watchdog, Watched},
    },
    shard::{
        router::NodeFacts,
        runner::ShardRunner,
        start::{
            Common, RecoveredShard, ShardParts, Shared, batch_bytes, blocking_device, endpoint_config, recover_all,
        },
    },
    zone_files,
};
use std::{
    fs, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};
use tickwheel_engine::shard::{Directory, Pool, ShardConfig, Tenant};
use tickwheel_net::ServerTls;
use tickwheel_storage::Catalog;
use tickwheel_wire::{PartitionId, ShardId, TenantId};

/// Messages that each queue between two shards holds.
const QUEUE_CAPACITY: usize = 1_024;

/// Where shards and node meet: the wish to stop, and news for the control thread.
#[derive(Debug)]
pub struct Control {
    drain: OnceLock<Duration>,
    finished: Vec<AtomicBool>,
    wakers: Vec<ShardWaker>,
    snapshots: Mutex<mpsc::Sender<(PartitionId, u64)>>,
}

impl Control {
    /// For the shards that `wakers` wake; `snapshots` is told which snapshots have become durable.
    pub fn new(wakers: Vec<ShardWaker>, snapshots: mpsc::Sender<(PartitionId, u64)>) -> Self {
        let finished = wakers.iter().map(|_| AtomicBool::new(false)).collect();
        Self { drain: OnceLock::new(), finished, wakers, snapshots: Mutex::new(snapshots) }
    }

    /// Asks every shard to drain, waiting at most `limit` for what runs. The first call counts.
    pub fn drain(&self, limit: Duration) {
        if self.drain.set(limit).is_ok() {
            for waker in &self.wakers {
                waker.wake();
            }
        }
    }

    /// How long a draining shard may wait; `None` while the node does not drain.
    pub fn drain_limit(&self) -> Option<Duration> {
        self.drain.get().copied()
    }

    /// Notes whether anything of a draining shard still runs.
    pub fn report_finished(&self, shard: ShardId, finished: bool) {
        self.finished[usize::from(shard.0)].store(finished, Ordering::Release);
    }

    /// Whether nothing runs on any shard.
    pub fn all_finished(&self) -> bool {
        self.finished.iter().all(|finished| finished.load(Ordering::Acquire))
    }

    /// Tells the control thread that a snapshot is durable.
    pub fn snapshot_taken(&self, partition: PartitionId, sequence: u64) {
        // While the node ends nobody listens; the next start finds the snapshot by itself.
        let _ = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).send((partition, sequence));
    }
}

/// A running node.
pub struct Node {
    shards: Shards<Result<(), Fatal>>,
    control: Arc<Control>,
    addresses: Vec<SocketAddr>,
    _watchdog: Watchdog,
}

impl Node {
    /// Starts the node that `configuration` describes on `directory`, with the certificate `server` of its folder.
    ///
    /// # Errors
    /// [`Fatal`], with its remedy; nothing runs then.
    pub fn start(configuration: Configuration, directory: &DataDirectory) -> Result<Self, Fatal> {
        executor::check_system().map_err(start_error)?;
        let configuration = Arc::new(configuration);
        let zones = zone_files::load(configuration.zone_files())?;
        let tls = Arc::new(load_tls(directory)?);
        let names = Arc::new(names(&configuration, directory)?);
        let shard_count = usize::from(configuration.shards());
        let counters: Vec<_> = (0..shard_count).map(|_| Arc::new(ShardCounters::default())).collect();
        let sockets = bind(&configuration, &counters)?;
        let addresses: Vec<_> = sockets.iter().map(ShardSocket::local_address).collect();
        let facts = Arc::new(NodeFacts {
            cluster: directory.cluster_id(),
            partition_count: directory.partitions(),
            frame_bytes_max: u32::try_from(configuration.frame_bytes_max()).unwrap_or(u32::MAX),
            payload_bytes_max: u32::try_from(configuration.payload_bytes_max()).unwrap_or(u32::MAX),
            shard_ports: addresses.iter().map(SocketAddr::port).collect(),
        });
        let core_config = {
            let (configuration, names, count) =
                (Arc::clone(&configuration), Arc::clone(&names), configuration.shards());
            let partitions = directory.partitions();
            move |shard| ShardConfig {
                zones: zones.clone(),
                ..core_config(shard, count, partitions, &configuration, &names)
            }
        };
        let (catalog, recovered) = recover_all(directory.path(), directory.partitions(), &facts, &core_config)?;
        let wakers = (0..shard_count).map(|_| ShardWaker::new()).collect::<io::Result<Vec<_>>>().map_err(system)?;
        let (snapshots, snapshots_taken) = mpsc::channel();
        let control = Arc::new(Control::new(wakers.clone(), snapshots));
        start_catalog(directory, catalog, snapshots_taken)?;
        let common = Common {
            facts,
            directory: names,
            tls,
            endpoint: endpoint_config(&configuration),
            batch_bytes: batch_bytes(&configuration),
            snapshot_log_bytes: configuration.snapshot_log_bytes(),
            control: Arc::clone(&control),
        };
        let shared = Shared { configuration, common };
        let plan = CorePlan::for_this_machine(shard_count).map_err(system)?;
        huge_pages::keep_stock(&plan.helper_cores).map_err(system)?;
        let parts = parts(sockets, &wakers, &counters, &plan, recovered);
        let bodies = parts.into_iter().map(|parts| body(parts, shared.clone(), core_config.clone())).collect();
        let shards = executor::start(&plan, bodies).map_err(start_error)?;
        let watched = (0..).map(ShardId).zip(wakers).zip(counters);
        let watched = watched.map(|((shard, waker), counters)| Watched { shard, waker, counters }).collect();
        let watchdog = Watchdog::start(watched).map_err(system)?;
        Ok(Self { shards, control, addresses, _watchdog: watchdog })
    }

    /// The address of each shard.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What asks the node to stop.
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Waits until every shard has ended.
    ///
    /// # Errors
    /// The first shard's [`Fatal`].
    pub fn join(self) -> Result<(), Fatal> {
        self.shards.join().into_iter().collect()
    }
}

fn body(
    parts: ShardParts,
    shared: Shared,
    core_config: impl Fn(ShardId) -> ShardConfig + Send + 'static,
) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = Result<(), Fatal>>>> + Send + 'static {
    move || {
        Box::pin(async move {
            let config = core_config(parts.id);
            let result = ShardRunner::assemble(parts, &shared, config).and_then(ShardRunner::run);
            if let Err(error) = &result {
                tracing::error!(%error, "a shard has failed");
                // The others hold promises of their own: they stop too, at once.
                shared.common.control.drain(Duration::ZERO);
            }
            result
        })
    }
}

fn parts(
    sockets: Vec<ShardSocket>,
    wakers: &[ShardWaker],
    counters: &[Arc<ShardCounters>],
    plan: &CorePlan,
    recovered: Vec<RecoveredShard>,
) -> Vec<ShardParts> {
    let ports = mesh(wakers, QUEUE_CAPACITY);
    let zipped = sockets.into_iter().zip(ports).zip(wakers).zip(counters).zip(recovered);
    (0..)
        .map(ShardId)
        .zip(zipped)
        .map(|(id, ((((socket, port), waker), counters), recovered))| ShardParts {
            id,
            socket,
            port,
            waker: waker.clone(),
            counters: Arc::clone(counters),
            helper_cores: plan.helper_cores.clone(),
            recovered,
        })
        .collect()
}

/// Forgets log and snapshots that newer snapshots have made superfluous.
fn start_catalog(
    directory: &DataDirectory,
    mut catalog: Catalog,
    snapshots: mpsc::Receiver<(PartitionId, u64)>,
) -> Result<(), Fatal> {
    let mut device = blocking_device(directory.path())?;
    let run = move || {
        while let Ok((partition, sequence)) = snapshots.recv() {
            catalog.snapshot_taken(partition, sequence);
            for (partition, sequence) in snapshots.try_iter() {
                catalog.snapshot_taken(partition, sequence);
            }
            if let Err(error) = catalog.trim(&mut device) {
                tracing::warn!(%error, "old log or snapshots could not be removed; tried again after the next snapshot");
            }
        }
    };
    thread::Builder::new().name("tw-catalog".to_owned()).spawn(run).map(drop).map_err(system)
}

fn core_config(
    shard: ShardId,
    shard_count: u16,
    partitions: tickwheel_wire::PartitionCount,
    configuration: &Configuration,
    names: &Arc<Directory>,
) -> ShardConfig {
    ShardConfig {
        reattach_ms: u32::try_from(configuration.reattach().as_millis()).unwrap_or(u32::MAX),
        payload_bytes_max: configuration.payload_bytes_max(),
        ..ShardConfig::new(shard, shard_count, partitions, Arc::clone(names))
    }
}

fn names(configuration: &Configuration, directory: &DataDirectory) -> Result<Directory, Fatal> {
    // A tenant that is no longer configured keeps its number and its jobs, with the least weight.
    let weight =
        |name: &str| configuration.tenants().iter().find(|tenant| tenant.name == name).map_or(1, |found| found.weight);
    let tenants =
        directory.tenants().iter().map(|name| Tenant { name: name.as_str().into(), weight: weight(name) }).collect();
    let tenant_id = |name: &String| {
        let unknown = || Fatal::Configuration(format!("pool.tenant: {name:?} is not a tenant"));
        let place = directory.tenants().iter().position(|tenant| tenant == name).ok_or_else(unknown)?;
        Ok(TenantId(u32::try_from(place).expect("tenants are few")))
    };
    let pools = configuration
        .pools()
        .iter()
        .map(|pool| {
            Ok(Pool { name: pool.name.as_str().into(), tenant: pool.tenant.as_ref().map(tenant_id).transpose()? })
        })
        .collect::<Result<_, Fatal>>()?;
    Directory::new(tenants, pools).map_err(|error| Fatal::Configuration(error.to_string()))
}

fn bind(configuration: &Configuration, counters: &[Arc<ShardCounters>]) -> Result<Vec<ShardSocket>, Fatal> {
    let mut sockets = Vec::with_capacity(counters.len());
    for (index, counters) in (0_u16..).zip(counters) {
        let mut address = configuration.listen();
        if address.port() != 0 {
            address.set_port(address.port() + index);
        }
        let socket = ShardSocket::bind(address, SocketOptions::default(), Arc::clone(counters));
        sockets.push(socket.map_err(|error| match error {
            BindError::InUse { address } => Fatal::Listen { address, error: io::Error::from(io::ErrorKind::AddrInUse) },
            other => Fatal::Listen { address, error: io::Error::other(other) },
        })?);
    }
    Ok(sockets)
}

fn load_tls(directory: &DataDirectory) -> Result<ServerTls, Fatal> {
    let folder = directory.certificates();
    let read = |path: std::path::PathBuf| {
        fs::read(&path).map_err(|error| {
            Fatal::Certificates(format!("{}: {error}; make them with `tickwheel certs`", path.display()))
        })
    };
    let authority = read(Files::of(&folder, "ca").certificate)?;
    let server = Files::of(&folder, "server");
    ServerTls::from_pem(&authority, &read(server.certificate)?, &read(server.key)?)
        .map_err(|error| Fatal::Certificates(error.to_string()))
}

fn start_error(error: StartError) -> Fatal {
    match &error {
        StartError::IoUringDenied { source } => Fatal::IoUring(source.to_string()),
        StartError::LockedMemory { limit_bytes } => {
            Fatal::LockedMemory(format!("only {limit_bytes} bytes of memory may be locked, 524288 are needed"))
        }
        StartError::Thread { shard, .. } | StartError::Executor { shard, .. } | StartError::TooSlow { shard } => {
            Fatal::Shard { shard: shard.0, reason: error.to_string() }
        }
    }
}

fn system(error: io::Error) -> Fatal {
    Fatal::Shard { shard: 0, reason: error.to_string() }
}
