//! The agreement between a shard that falls asleep and those who have work for it, apart from how a shard sleeps.
//!
//! Invariants: no wake-up is lost. The sleeper publishes that it sleeps and *then* looks for work once more; the waker makes
//! its work visible and *then* looks whether the shard sleeps; both put a sequentially consistent fence in between, so at
//! least one of them sees the other (Dekker's argument). Of several wakers one is told to end the sleep.
//!
//! `tests/loom` checks this file and `queues.rs` together, over every order of their steps.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether a shard sleeps. One thread calls [`Handshake::sleep_unless`], any number call [`Handshake::claim`].
#[derive(Debug)]
pub struct Handshake {
    sleeping: AtomicBool,
}

impl Handshake {
    /// Of a shard that runs.
    pub fn new() -> Self {
        Self { sleeping: AtomicBool::new(false) }
    }

    /// Publishes that the shard sleeps, and calls `block`, which returns when it is signalled or sooner, unless `has_work` finds
    /// something after all: then `None`. A waker that was told to signal does so sooner or later, so a signal may be left for the next sleep.
    #[inline]
    pub fn sleep_unless<R>(&self, has_work: impl FnOnce() -> bool, block: impl FnOnce() -> R) -> Option<R> {
        self.publish();
        let blocked = if has_work() { None } else { Some(block()) };
        // An exchange, where a store would do: a change that reads the one before it is ordered after it in the model too, which
        // knows nothing else about the order of two threads' changes.
        self.sleeping.swap(false, Ordering::SeqCst);
        blocked
    }

    /// Says that the shard sleeps; what the caller looks at afterwards is as new as what a waker that missed it has written.
    #[inline]
    pub fn publish(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether the shard sleeps and the caller is the one to signal it; asked after making the work visible.
    #[inline]
    pub fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        let exchange = || self.sleeping.compare_exchange(true, false, Ordering::SeqCst, Ordering::Relaxed);
        self.sleeping.load(Ordering::Relaxed) && exchange().is_ok()
    }

    /// Whether the shard sleeps and nobody has claimed to end it.
    pub fn is_asleep(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst)
    }
}
