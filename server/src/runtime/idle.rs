//! How a shard sleeps, and how it is woken.
//!
//! A shard that has nothing to do blocks in one `ppoll` on its wake-up descriptor, its socket and its log device, until the
//! next deadline: never a fixed poll, so an idle shard costs nothing. A sibling or the control plane wakes it through
//! a [`ShardWaker`], which makes a system call only when the shard really sleeps.
//!
//! Invariants: no wake-up is lost, which is the business of `handshake.rs`. A wake-up may be spurious, and the caller looks for work
//! after each.
//!
//! Deliberately absent: timers. There is one deadline, the nearest, and the caller knows it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{clock::since_origin, counters::ShardCounters, handshake::Handshake, sys};

/// Most descriptors, besides the wake-up one, that can end a sleep.
pub const SOURCES_MAX: usize = sys::SOURCES_MAX - 1;

/// The time slice that a shard asks for: the least that Linux grants. With the usual 3 ms a shard that is woken while another
/// thread runs on its core waits for up to a scheduler's tick, 4 ms.
const TIME_SLICE: Duration = Duration::from_micros(100);

/// No published deadline: the shard sleeps until something wakes it.
const NO_DEADLINE: u64 = u64::MAX;

/// Wakes one shard from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ShardWaker {
    cell: Arc<SleepCell>,
}

#[derive(Debug)]
#[repr(align(128))]
struct SleepCell {
    handshake: Handshake,
    /// Nanoseconds since the process's origin; meaningful while the shard sleeps.
    deadline_ns: AtomicU64,
    eventfd: File,
}

impl ShardWaker {
    /// A waker for a shard that does not exist yet; [`Idle::new`] takes a clone of it.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let cell = SleepCell {
            handshake: Handshake::new(),
            deadline_ns: AtomicU64::new(NO_DEADLINE),
            eventfd: sys::eventfd()?,
        };
        Ok(Self { cell: Arc::new(cell) })
    }

    /// Wakes the shard if it sleeps; everything the caller wrote before is then visible to it. Tells whether that took a
    /// system call: none is made for a shard that runs, or that another waker has woken already.
    #[inline]
    pub fn wake(&self) -> bool {
        let wakes = self.cell.handshake.claim();
        if wakes {
            self.signal();
        }
        wakes
    }

    /// Ends the shard's present or next sleep, whatever its flag says. For the watchdog.
    pub(super) fn signal(&self) {
        match (&self.cell.eventfd).write(&1_u64.to_ne_bytes()) {
            Ok(_) => {}
            // The count is at its maximum: the shard has a wake-up waiting already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("an eventfd that is open can be written: {error}"),
        }
    }

    /// Whether the shard sleeps.
    pub(super) fn is_asleep(&self) -> bool {
        self.cell.handshake.is_asleep()
    }

    /// When the shard promised to be awake again, since the process's origin; `None` while it runs, or sleeps without one.
    pub(super) fn sleeps_until(&self) -> Option<Duration> {
        let sleeping = self.cell.handshake.is_asleep();
        let deadline_ns = self.cell.deadline_ns.load(Ordering::Relaxed);
        (sleeping && deadline_ns != NO_DEADLINE).then(|| Duration::from_nanos(deadline_ns))
    }
}

/// When to sleep rather than to turn once more.
#[derive(Clone, Copy, Debug)]
pub struct IdleStrategy {
    /// How long to go on turning after the last turn that found something to do. Falling asleep and being woken costs about
    /// 10 us; spinning for as long wastes at most as much again. Default 10 us.
    pub spin: Duration,
    /// How long before a deadline to wake up and turn until it has come: hides the 40-90 us by which the kernel's timers are
    /// late in a virtual machine, at the price of as much time on the core per deadline. Default 0.
    pub timer_lead: Duration,
}

impl Default for IdleStrategy {
    fn default() -> Self {
        Self { spin: Duration::from_micros(10), timer_lead: Duration::ZERO }
    }
}

/// Why [`Idle::rest`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rest {
    /// It did not sleep: the last work is too recent, or the deadline is too near.
    Spun,
    /// It did not sleep: `has_work` found something.
    Work,
    /// A waker (or the watchdog) ended the sleep.
    Woken,
    /// A descriptor is ready.
    Ready,
    /// The deadline has come.
    Deadline,
    /// A signal ended the sleep.
    Interrupted,
}

/// The sleeper of one shard. Stays on the thread that made it.
#[derive(Debug)]
pub struct Idle {
    waker: ShardWaker,
    counters: Arc<ShardCounters>,
    strategy: IdleStrategy,
    worked_at: Instant,
}

impl Idle {
    /// The sleeper that `waker` wakes. Makes the calling thread's timers precise, and asks for it to be let in soon when it is woken.
    ///
    /// # Errors
    /// When the system refuses precise timers.
    pub fn new(waker: ShardWaker, strategy: IdleStrategy, counters: Arc<ShardCounters>) -> io::Result<Self> {
        sys::request_precise_timers()?;
        if let Err(error) = sys::request_time_slice(TIME_SLICE) {
            // A sandbox may refuse it; what is lost is some of the tail.
            tracing::debug!(%error, "the system grants no short time slice");
        }
        Ok(Self { waker, counters, strategy, worked_at: Instant::now() })
    }

    /// Notes that the turn at `now` found something to do.
    #[inline]
    pub fn worked(&mut self, now: Instant) {
        self.worked_at = now;
    }

    /// Called at the end of every turn: sleeps until one of `sources` is readable, a waker calls or `deadline` has come (`None`:
    /// no deadline), unless it is not worth while yet.
    ///
    /// `has_work` looks for work that no descriptor announces (the queues from the siblings) and for completions that are
    /// visible already; it is asked once, right before the sleep, and must not make system calls.
    ///
    /// # Panics
    /// If there are more than [`SOURCES_MAX`] sources, or one of them is not an open descriptor.
    pub fn rest(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        sources: &[BorrowedFd<'_>],
        has_work: impl FnOnce() -> bool,
    ) -> Rest {
        let until = deadline.map(|deadline| deadline.checked_sub(self.strategy.timer_lead).unwrap_or(now));
        if now.saturating_duration_since(self.worked_at) < self.strategy.spin || until.is_some_and(|until| until <= now)
        {
            return Rest::Spun;
        }
        self.publish_deadline(deadline);
        let slept = self.waker.cell.handshake.sleep_unless(has_work, || self.sleep(until, sources));
        let rest = slept.unwrap_or(Rest::Work);
        if rest == Rest::Woken {
            self.counters.wakes.add(1);
            self.take_signal();
        }
        rest
    }

    /// Tells wakers and the watchdog that the shard sleeps, until `deadline` at most.
    #[cfg(test)]
    pub(super) fn publish_sleep(&self, deadline: Option<Instant>) {
        self.publish_deadline(deadline);
        self.waker.cell.handshake.publish();
    }

    /// Says how long the sleep will take at most that begins now.
    fn publish_deadline(&self, deadline: Option<Instant>) {
        let deadline_ns = deadline
            .map_or(NO_DEADLINE, |deadline| u64::try_from(since_origin(deadline).as_nanos()).unwrap_or(NO_DEADLINE));
        self.waker.cell.deadline_ns.store(deadline_ns, Ordering::Relaxed);
    }

    /// Blocks, whatever was published.
    pub(super) fn sleep(&self, until: Option<Instant>, sources: &[BorrowedFd<'_>]) -> Rest {
        assert!(sources.len() <= SOURCES_MAX, "a shard has a socket and a log device");
        let mut watched = [self.waker.cell.eventfd.as_fd(); sys::SOURCES_MAX];
        watched[1..=sources.len()].copy_from_slice(sources);
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        self.counters.sleeps.add(1);
        self.counters.system_calls.add(1);
        match sys::wait_readable(&watched[..=sources.len()], timeout) {
            Ok(0) => Rest::Deadline,
            Ok(ready) if ready & 1 != 0 => Rest::Woken,
            Ok(_) => Rest::Ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Rest::Interrupted,
            Err(error) => panic!("the shard cannot sleep: {error}"),
        }
    }

    pub(super) fn take_signal(&self) {
        self.counters.system_calls.add(1);
        // Either the count is taken, or there was none; both leave it at zero.
        let _ = (&self.waker.cell.eventfd).read(&mut [0; 8]);
    }
}
