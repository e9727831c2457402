//! What a shard counts about itself, so that cost per execution is known instead of guessed.
//!
//! Invariants: one thread writes a [`ShardCounters`], any thread reads; counts never decrease. System calls are
//! counted where this crate makes them, so what the kernel or a library does on its own is not in them. Deliberately
//! absent: rates, histograms and names for `/metrics`, which are the reader's business.

use std::sync::atomic::{AtomicU64, Ordering};

use super::allocations;

/// A count with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the owning shard may call this: two writers would lose counts.
    #[inline]
    pub fn add(&self, amount: u64) {
        // One writer needs no atomic addition, which costs 20 cycles more than a plain load and store.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The count.
    #[inline]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The counts of one shard, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// System calls made by the shard's own code.
    pub system_calls: Counter,
    /// Turns of the shard loop.
    pub turns: Counter,
    /// Times that the shard went to sleep.
    pub sleeps: Counter,
    /// Times that a waker, rather than a deadline or a descriptor, ended the sleep.
    pub wakes: Counter,
    /// Datagrams received, after splitting.
    pub datagrams_received: Counter,
    /// Calls that sent datagrams, each up to 64 of them.
    pub sends: Counter,
    /// Sends that the kernel refused for another reason than a full buffer; QUIC repeats their contents.
    pub sends_dropped: Counter,
    /// Writes handed to the log device.
    pub device_writes: Counter,
    /// Allocations on the shard's thread, as of its last [`ShardCounters::turn`]; zero unless the program's global
    /// allocator is [`allocations::CountingAllocator`].
    pub allocations: Counter,
    /// Those of them that were made while the QUIC library had the floor: its packets, frames and acknowledgements.
    pub allocations_quic: Counter,
}

impl ShardCounters {
    /// Counts a turn and publishes the calling thread's allocations. To be called once per turn by the shard.
    #[inline]
    pub fn turn(&self) {
        self.turns.add(1);
        self.allocations.set(allocations::on_this_thread());
    }

    /// Runs `body`, a call into the QUIC library, and counts its allocations apart.
    #[inline]
    pub fn in_quic<T>(&self, body: impl FnOnce() -> T) -> T {
        let before = allocations::on_this_thread();
        let result = body();
        self.allocations_quic.add(allocations::on_this_thread() - before);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::ShardCounters;

    #[test]
    fn counts_add_up_and_are_seen_by_other_threads() {
        let counters = ShardCounters::default();
        counters.system_calls.add(2);
        counters.system_calls.add(3);
        counters.turn();
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| (counters.system_calls.count(), counters.turns.count())).join().expect("no panic")
        });
        assert_eq!(seen, (5, 1));
    }
}
