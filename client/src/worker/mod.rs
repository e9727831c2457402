//! The worker: handlers by name, run as the node dispatches them.
//!
//! A worker has an instance id that survives reconnects, sits at one shard of the node (its home, which lends its credit to the other
//! shards) or, when it is large, at all of them, and holds at most its concurrency plus its prefetch. `ledger` says what it
//! holds and what the node has to hear of it, `runner` runs one attempt, `station` is the loop around both.
//!
//! Handlers may run more than once for one execution (a worker lost at the wrong moment, a time-out): make them idempotent, or
//! hand the attempt's token to what they change. A handler that panics counts as a failure where panics unwind; in a program
//! built with `panic = "abort"` the process ends and the node sees a lost worker.

mod attempt;
mod ledger;
mod runner;
mod station;

pub use attempt::{Attempt, Failure, Output, StatusError, StopReason};

use crate::{
    backoff::Backoff,
    config::ConnectConfig,
    error::{ConnectError, SessionError},
    link::Directory,
    random::Random,
    session::Dialer,
};
use ledger::Bounds;
use runner::Handler;
use station::{Seat, Station};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tickwheel_wire::{InstanceId, ShardId, limits};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

/// Most executions that a worker may hold.
const CAPACITY_MAX: usize = 1 << 20;
/// Executions at a time of a worker that says nothing.
const CONCURRENCY_DEFAULT: usize = 16;
/// How long a worker that has ended waits for its last packets to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a worker could not be built or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// A setting is outside its range.
    #[error("`{setting}` must be {range}, not {value}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: String,
    },
    /// There is no handler at all.
    #[error("a worker needs at least one handler")]
    NoHandler,
    /// No session can be opened, now or later.
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    /// The node refuses this worker.
    #[error("the session has ended for good: {0}")]
    Session(#[source] SessionError),
    /// The worker has drained, but the node did not acknowledge everything in time: it may have those executions repeated.
    #[error("{completion_count} completions were not acknowledged before the worker had to end")]
    Unacknowledged {
        /// How many.
        completion_count: usize,
    },
    /// A part of the worker panicked.
    #[error("the worker failed: {0}")]
    Internal(String),
}

/// Which shards of the node a worker sits at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shards {
    /// One, picked by the instance id, so that many workers spread evenly; the node lends its credit to the other shards.
    #[default]
    Home,
    /// Every one, with the concurrency and the prefetch split between them; for workers that keep several cores of the node
    /// busy. With fewer slots than shards, as many shards as slots.
    All,
}

/// Settings and handlers of a worker in the making; see [`Worker::builder`].
#[must_use]
pub struct WorkerBuilder {
    config: ConnectConfig,
    pools: Vec<String>,
    concurrency: usize,
    prefetch: usize,
    shards: Shards,
    drain_timeout: Duration,
    cancel_grace: Duration,
    handlers: HashMap<String, Handler>,
    default_handler: Option<Handler>,
}

impl std::fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("WorkerBuilder");
        out.field("pools", &self.pools).field("concurrency", &self.concurrency).field("prefetch", &self.prefetch);
        out.field("handlers", &self.handlers.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    /// Serves this pool; call it once per pool, at most sixteen times. Default: the pools of the certificate.
    pub fn pool(mut self, name: impl Into<String>) -> Self {
        self.pools.push(name.into());
        self
    }

    /// How many attempts run at a time, from 1. Default 16.
    pub const fn concurrency(mut self, count: usize) -> Self {
        self.concurrency = count;
        self
    }

    /// How many more attempts may wait here for a free slot; they save short handlers the round trip, but what waits here
    /// cannot run elsewhere. Default 0.
    pub const fn prefetch(mut self, count: usize) -> Self {
        self.prefetch = count;
        self
    }

    /// Which shards to sit at. Default [`Shards::Home`].
    pub const fn shards(mut self, shards: Shards) -> Self {
        self.shards = shards;
        self
    }

    /// How long a drain waits for what runs before it is told to stop. Default 30 s.
    pub const fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain_timeout = limit;
        self
    }

    /// How long a handler that was told to stop may go on before it is dropped. Default 5 s.
    pub const fn cancel_grace(mut self, limit: Duration) -> Self {
        self.cancel_grace = limit;
        self
    }

    /// Runs `body` for jobs whose handler has this name.
    pub fn handler<F>(mut self, name: impl Into<String>, body: impl Fn(Attempt) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Output, Failure>> + Send + 'static,
    {
        self.handlers.insert(name.into(), boxed(body));
        self
    }

    /// Runs `body` for jobs whose handler has no other name here. Without one such attempts fail, to be tried again by a worker
    /// that knows the name.
    pub fn default_handler<F>(mut self, body: impl Fn(Attempt) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Output, Failure>> + Send + 'static,
    {
        self.default_handler = Some(boxed(body));
        self
    }

    /// Checks the settings. Nothing is connected yet.
    ///
    /// # Errors
    /// Names the first setting outside its range.
    pub fn build(self) -> Result<Worker, WorkerError> {
        let capacity = self.concurrency.saturating_add(self.prefetch);
        let slots = format!("from 1 to {CAPACITY_MAX}, prefetch included");
        check("concurrency", &self.concurrency, &slots, (1..=CAPACITY_MAX).contains(&self.concurrency))?;
        check("prefetch", &self.prefetch, &slots, capacity <= CAPACITY_MAX)?;
        let pools_max = format!("at most {}", limits::WORKER_POOLS_MAX);
        check("pools", &self.pools.len(), &pools_max, self.pools.len() <= limits::WORKER_POOLS_MAX)?;
        for pool in &self.pools {
            let good = (1..=limits::POOL_NAME_BYTES_MAX).contains(&pool.len()) && !pool.contains(',');
            check("pool", pool, "1 to 64 bytes without a comma", good)?;
        }
        if self.handlers.is_empty() && self.default_handler.is_none() {
            return Err(WorkerError::NoHandler);
        }
        let core = Core {
            directory: Directory::new(Dialer::new(self.config)?),
            pools: self.pools.join(","),
            drain_timeout: self.drain_timeout,
            cancel_grace: self.cancel_grace,
            handlers: self.handlers,
            default_handler: self.default_handler,
        };
        let bounds = Bounds { concurrency: self.concurrency, capacity };
        Ok(Worker { core: Arc::new(core), bounds, shards: self.shards, instance: InstanceId(Random::wide()) })
    }
}

fn check(setting: &'static str, value: &dyn ToString, range: &str, good: bool) -> Result<(), WorkerError> {
    let error = || WorkerError::Setting { setting, value: value.to_string(), range: range.to_owned() };
    if good { Ok(()) } else { Err(error()) }
}

fn boxed<F>(body: impl Fn(Attempt) -> F + Send + Sync + 'static) -> Handler
where
    F: Future<Output = runner::HandlerResult> + Send + 'static,
{
    Arc::new(move |attempt| Box::pin(body(attempt)))
}

/// What the stations of one worker share.
struct Core {
    directory: Directory,
    pools: String,
    drain_timeout: Duration,
    cancel_grace: Duration,
    handlers: HashMap<String, Handler>,
    default_handler: Option<Handler>,
}

impl Core {
    fn handler(&self, name: &str) -> Option<Handler> {
        self.handlers.get(name).or(self.default_handler.as_ref()).cloned()
    }
}

/// A worker, ready to run.
pub struct Worker {
    core: Arc<Core>,
    bounds: Bounds,
    shards: Shards,
    instance: InstanceId,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("instance", &self.instance).field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker in the making.
    pub fn builder(config: ConnectConfig) -> WorkerBuilder {
        WorkerBuilder {
            config,
            pools: Vec::new(),
            concurrency: CONCURRENCY_DEFAULT,
            prefetch: 0,
            shards: Shards::Home,
            drain_timeout: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(5),
            handlers: HashMap::new(),
            default_handler: None,
        }
    }

    /// The instance id: random, the same for as long as this worker runs. A worker at several shards counts upward from it.
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Runs until `shutdown` resolves, then drains: takes nothing new, finishes what it holds within the drain time-out, waits for
    /// the acknowledgements, and closes. Reconnects as often as needed meanwhile.
    ///
    /// # Errors
    /// When the node will never accept this worker, or did not acknowledge everything before the end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        let (drain, drain_asked) = watch::channel(false);
        let mut work = std::pin::pin!(self.work(&drain, drain_asked));
        tokio::select! {
            result = &mut work => return result,
            () = shutdown => drain.send_replace(true),
        };
        work.await
    }

    /// Runs as a task of the present tokio runtime.
    pub fn start(self) -> WorkerHandle {
        let (drain, mut drain_asked) = watch::channel(false);
        let instance = self.instance;
        let task = tokio::spawn(self.run(async move {
            // Like a drained worker, an abandoned one ends.
            let _ = drain_asked.wait_for(|asked| *asked).await;
        }));
        WorkerHandle { drain, task, instance }
    }

    async fn work(
        self,
        drain: &watch::Sender<bool>,
        mut drain_asked: watch::Receiver<bool>,
    ) -> Result<(), WorkerError> {
        let seats = tokio::select! {
            seats = self.seats() => seats?,
            _ = drain_asked.wait_for(|asked| *asked) => return Ok(()),
        };
        let mut stations = JoinSet::new();
        for (index, (seat, bounds)) in seats.into_iter().enumerate() {
            let instance = InstanceId(self.instance.0.wrapping_add(index as u128));
            stations.spawn(Station::new(Arc::clone(&self.core), seat, instance, bounds, drain_asked.clone()).run());
        }
        let mut outcome = Ok(());
        while let Some(joined) = stations.join_next().await {
            let result = joined.unwrap_or_else(|error| Err(WorkerError::Internal(error.to_string())));
            if result.is_err() {
                // One shard that refuses this worker for good is enough; the others may finish what they hold.
                drain.send_replace(true);
                outcome = outcome.and(result);
            }
        }
        let _ = timeout(CLOSE_TIMEOUT, self.core.directory.dialer().wait_idle()).await;
        outcome
    }

    /// The shards to sit at, each with its part of the slots. Like a station, it tries until it is told that it never will.
    async fn seats(&self) -> Result<Vec<(Seat, Bounds)>, ConnectError> {
        if self.shards == Shards::Home {
            return Ok(vec![(Seat::Home, self.bounds)]);
        }
        let mut backoff = Backoff::new();
        loop {
            match self.core.directory.open(|topology| topology.shard, true).await {
                Ok(session) => {
                    let shard_count = session.topology().shard_count();
                    session.close();
                    let seat = |(index, bounds)| (Seat::Shard(ShardId(index)), bounds);
                    return Ok((0..).zip(split(self.bounds, shard_count.into())).map(seat).collect());
                }
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the worker cannot connect");
                    sleep(backoff.failed()).await;
                }
            }
        }
    }
}

/// Splits slots as evenly as possible, over no more parts than there are slots that can run something.
fn split(bounds: Bounds, parts_max: usize) -> Vec<Bounds> {
    let parts = parts_max.min(bounds.concurrency);
    let part_of = |whole: usize, index: usize| whole / parts + usize::from(index < whole % parts);
    let prefetch = bounds.capacity - bounds.concurrency;
    let part = |index| {
        let concurrency = part_of(bounds.concurrency, index);
        Bounds { concurrency, capacity: concurrency + part_of(prefetch, index) }
    };
    (0..parts).map(part).collect()
}

/// A worker that runs; when the handle is dropped, it drains by itself.
#[derive(Debug)]
pub struct WorkerHandle {
    drain: watch::Sender<bool>,
    task: JoinHandle<Result<(), WorkerError>>,
    instance: InstanceId,
}

impl WorkerHandle {
    /// See [`Worker::instance`].
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Whether the worker has ended; see [`WorkerHandle::drain`] for how.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Asks the worker to drain and waits until it has ended.
    ///
    /// # Errors
    /// Those of [`Worker::run`].
    pub async fn drain(self) -> Result<(), WorkerError> {
        self.drain.send_replace(true);
        self.task.await.unwrap_or_else(|error| Err(WorkerError::Internal(error.to_string())))
    }
}

#[cfg(test)]
mod test_support;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_split_without_loss_and_no_shard_gets_none() {
        for (concurrency, prefetch, parts_max) in [(16, 0, 3), (2, 5, 4), (1, 0, 8), (7, 3, 7)] {
            let bounds = Bounds { concurrency, capacity: concurrency + prefetch };
            let parts = split(bounds, parts_max);
            assert!(parts.len() <= parts_max && parts.iter().all(|part| part.concurrency >= 1));
            assert_eq!(parts.iter().map(|part| part.concurrency).sum::<usize>(), concurrency);
            assert_eq!(parts.iter().map(|part| part.capacity).sum::<usize>(), bounds.capacity);
        }
    }
}
