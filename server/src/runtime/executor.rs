//! Starts the shards: one glommio executor each, on a thread of its own, pinned to a core of its own where there are enough.
//!
//! Invariants: either every shard has started, or none runs and the error says what to do; each is the only task of its executor.
//! Shards sleep in [`super::idle`], not in glommio's reactor, so the executor's time slice means nothing here and is
//! set beyond any run: glommio 0.9.0 may park with work still runnable when the slice is over before anything ran.
//!
//! Deliberately absent: restarting a shard. A shard that ends has failed, and recovery is a new start.

use std::{
    future::Future,
    io,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use tickwheel_wire::ShardId;

use super::sys;

/// Locked memory that an executor needs, in bytes: glommio refuses to start below.
pub const LOCKED_MEMORY_BYTES_MIN: u64 = 512 * 1024;

/// The executor's time slice: longer than any run, see the module.
const TIME_SLICE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// glommio's own memory for files, which the shards do not use; it takes no less.
const GLOMMIO_FILE_BYTES: usize = 64 * 1024;
/// How long a shard may take from the making of its thread to its first instruction.
const START_MAX: Duration = Duration::from_secs(20);

/// Why the shards did not start. None of them runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system does not allow io_uring.
    #[error(
        "io_uring is denied ({source}): Tickwheel needs it; set the sysctl kernel.io_uring_disabled to 0, and in a container \
         allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (Linux 5.19 or newer)"
    )]
    IoUringDenied {
        /// What the system said.
        source: io::Error,
    },
    /// The limit of locked memory is too low and could not be raised.
    #[error(
        "only {limit_bytes} bytes of memory may be locked and {LOCKED_MEMORY_BYTES_MIN} are needed: raise the limit with `ulimit -l 512`, \
         LimitMEMLOCK=512K in the systemd unit, or --ulimit memlock=524288 for a container"
    )]
    LockedMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The system refused a thread.
    #[error("cannot start the thread of shard {}: {source}", shard.0)]
    Thread {
        /// Which shard.
        shard: ShardId,
        /// What the system said.
        source: io::Error,
    },
    /// The executor could not be made.
    #[error("cannot start the executor of shard {}: {reason}", shard.0)]
    Executor {
        /// Which shard.
        shard: ShardId,
        /// What glommio said.
        reason: String,
    },
    /// A shard did not come to life in time.
    #[error("shard {} did not start within {} s: the machine is overloaded", shard.0, START_MAX.as_secs())]
    TooSlow {
        /// Which shard.
        shard: ShardId,
    },
}

/// Which cores the shards run on, and which are left for their helpers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePlan {
    /// The core of each shard; `None` leaves it to the system.
    pub shard_cores: Vec<Option<usize>>,
    /// The cores for helper threads and the kernel's workers: those that no shard has, or all if none is left.
    pub helper_cores: Vec<usize>,
}

impl CorePlan {
    /// The plan for `shard_count` shards on the cores that the calling thread may use: one core each, from the lowest on, if there are
    /// at least as many cores as shards; otherwise none is pinned.
    ///
    /// # Errors
    /// When the system does not tell which cores may be used.
    pub fn for_this_machine(shard_count: usize) -> io::Result<Self> {
        Ok(Self::on(shard_count, &sys::allowed_cores()?))
    }

    /// The plan for `shard_count` shards on `cores`.
    pub fn on(shard_count: usize, cores: &[usize]) -> Self {
        if shard_count > cores.len() {
            return Self { shard_cores: vec![None; shard_count], helper_cores: cores.to_vec() };
        }
        let (pinned, rest) = cores.split_at(shard_count);
        let helper_cores = if rest.is_empty() { cores } else { rest };
        Self { shard_cores: pinned.iter().copied().map(Some).collect(), helper_cores: helper_cores.to_vec() }
    }
}

/// The running shards.
#[derive(Debug)]
pub struct Shards<T> {
    threads: Vec<JoinHandle<Option<T>>>,
}

impl<T> Shards<T> {
    /// Waits for all shards to end; what each returned, in the order of their ids.
    ///
    /// # Panics
    /// If a shard panicked.
    pub fn join(self) -> Vec<T> {
        let join = |thread: JoinHandle<Option<T>>| match thread.join() {
            Ok(result) => result.expect("a shard that was started ends with its body"),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        self.threads.into_iter().map(join).collect()
    }
}

/// Starts one shard per entry of `bodies`, on the cores of `plan`; each body makes the shard's task on the shard's own thread, named
/// `tw-shard-N`. All executors are ready before the first task runs.
///
/// Raises the limit of locked memory if it is too low and may be raised.
///
/// # Errors
/// When the system denies what an executor needs. No body has run then.
///
/// # Panics
/// If `plan` is for another number of shards.
pub fn start<B, F, T>(plan: &CorePlan, bodies: Vec<B>) -> Result<Shards<T>, StartError>
where
    B: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    assert_eq!(plan.shard_cores.len(), bodies.len(), "one core, or none, for each shard");
    check_system()?;
    let mut starting = Vec::with_capacity(bodies.len());
    for (index, (body, &core)) in bodies.into_iter().zip(&plan.shard_cores).enumerate() {
        let shard = ShardId(u16::try_from(index).expect("shard ids have 16 bits"));
        starting.push(Starting::spawn(shard, core, body)?);
    }
    for shard in &starting {
        shard.wait_until_ready()?;
    }
    // From here on nothing can fail. Dropping `starting` before this point ends the threads without their bodies.
    Ok(Shards { threads: starting.into_iter().map(Starting::go).collect() })
}

/// A shard whose thread exists and whose body waits for the others.
struct Starting<T> {
    shard: ShardId,
    thread: JoinHandle<Option<T>>,
    ready: mpsc::Receiver<Result<(), String>>,
    go: mpsc::Sender<()>,
}

impl<T: Send + 'static> Starting<T> {
    fn spawn<B, F>(shard: ShardId, core: Option<usize>, body: B) -> Result<Self, StartError>
    where
        B: FnOnce() -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (ready_sender, ready) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        let run = move || {
            let executor = match make_executor(core) {
                Ok(executor) => executor,
                Err(reason) => {
                    // Nobody listens if another shard has failed already.
                    let _ = ready_sender.send(Err(reason));
                    return None;
                }
            };
            executor.run(async move {
                let _ = ready_sender.send(Ok(()));
                match gone.recv() {
                    Ok(()) => Some(body().await),
                    Err(mpsc::RecvError) => None,
                }
            })
        };
        let thread = thread::Builder::new()
            .name(format!("tw-shard-{}", shard.0))
            .spawn(run)
            .map_err(|source| StartError::Thread { shard, source })?;
        Ok(Self { shard, thread, ready, go })
    }

    fn wait_until_ready(&self) -> Result<(), StartError> {
        let shard = self.shard;
        match self.ready.recv_timeout(START_MAX) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(StartError::Executor { shard, reason }),
            Err(RecvTimeoutError::Timeout) => Err(StartError::TooSlow { shard }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(StartError::Executor { shard, reason: "its thread has panicked".into() })
            }
        }
    }

    fn go(self) -> JoinHandle<Option<T>> {
        // A thread that is gone has panicked, and `Shards::join` tells.
        let _ = self.go.send(());
        self.thread
    }
}

fn make_executor(core: Option<usize>) -> Result<LocalExecutor, String> {
    LocalExecutorBuilder::new(core.map_or(Placement::Unbound, Placement::Fixed))
        .preempt_timer(TIME_SLICE)
        .io_memory(GLOMMIO_FILE_BYTES)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .make()
        .map_err(|error| error.to_string())
}

/// Whether the system gives what executors need; [`start`] asks again. For a caller that changes something before it starts them.
///
/// # Errors
/// [`StartError::LockedMemory`] or [`StartError::IoUringDenied`].
pub fn check_system() -> Result<(), StartError> {
    ensure_locked_memory()?;
    ensure_io_uring()
}

/// Makes and drops a small ring, so that a denial is told apart from other failures.
fn ensure_io_uring() -> Result<(), StartError> {
    io_uring::IoUring::new(2).map(drop).map_err(|source| StartError::IoUringDenied { source })
}

/// Raises the soft limit to what is needed; beyond the hard one if the process may.
fn ensure_locked_memory() -> Result<(), StartError> {
    let too_low = |limit_bytes| StartError::LockedMemory { limit_bytes };
    let (soft_bytes, hard_bytes) = sys::locked_memory_limits().map_err(|_| too_low(0))?;
    if soft_bytes >= LOCKED_MEMORY_BYTES_MIN {
        return Ok(());
    }
    sys::set_locked_memory_limits(LOCKED_MEMORY_BYTES_MIN, hard_bytes.max(LOCKED_MEMORY_BYTES_MIN))
        .map_err(|_| too_low(soft_bytes))
}
