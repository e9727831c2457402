//! Messages between the shards of a node: one bounded lock-free queue per ordered pair of shards.
//!
//! Invariants: messages from one shard to another arrive in the order in which they were sent; a full queue refuses and never waits;
//! a shard that floods a sibling fills its own queue only, never that of a third. Memory: `shards * (shards - 1) *
//! capacity` messages, allocated at the start, none later.
//!
//! A sender calls [`Port::flush`] once per turn, after its sends: that is when sleeping receivers are woken, so a turn pays one fence
//! per receiver instead of one per message. Deliberately absent: priorities and broadcast.

use tickwheel_wire::ShardId;

use super::{
    idle::ShardWaker,
    sync::{Arc, ArrayQueue},
};

/// Most shards of one node: a bound on the memory of the queues.
pub const SHARDS_MAX: usize = 64;

/// The receiver's queue is full; here is the message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue to the shard is full")]
pub struct Full<T>(pub T);

/// One shard's end of the queues to and from all its siblings.
#[derive(Debug)]
pub struct Port<T> {
    shard: ShardId,
    /// By receiver; `None` at the shard's own place.
    outgoing: Vec<Option<Outgoing<T>>>,
    incoming: Vec<(ShardId, Arc<ArrayQueue<T>>)>,
    /// Which of `incoming` is asked first, so that none is starved.
    next: usize,
}

#[derive(Debug)]
struct Outgoing<T> {
    queue: Arc<ArrayQueue<T>>,
    waker: ShardWaker,
    /// Whether something was sent since the last flush.
    dirty: bool,
}

/// Connects the shards whose wakers are given, in the order of their ids; each queue holds up to `capacity` messages.
///
/// # Panics
/// If there are more than [`SHARDS_MAX`] shards, or `capacity` is 0.
pub fn mesh<T>(wakers: &[ShardWaker], capacity: usize) -> Vec<Port<T>> {
    assert!(wakers.len() <= SHARDS_MAX, "{} shards, at most {SHARDS_MAX}", wakers.len());
    assert!(capacity > 0, "a queue without places would refuse everything");
    let shard_ids = || (0..wakers.len()).map(|index| ShardId(u16::try_from(index).expect("at most SHARDS_MAX")));
    let mut ports: Vec<Port<T>> =
        shard_ids().map(|shard| Port { shard, outgoing: Vec::new(), incoming: Vec::new(), next: 0 }).collect();
    for from in shard_ids() {
        for (to, waker) in shard_ids().zip(wakers) {
            let outgoing = (from != to).then(|| Arc::new(ArrayQueue::new(capacity))).map(|queue| {
                ports[usize::from(to.0)].incoming.push((from, Arc::clone(&queue)));
                Outgoing { queue, waker: waker.clone(), dirty: false }
            });
            ports[usize::from(from.0)].outgoing.push(outgoing);
        }
    }
    ports
}

impl<T> Port<T> {
    /// The shard whose end this is.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// How many shards there are, this one included.
    pub fn shard_count(&self) -> usize {
        self.outgoing.len()
    }

    /// Puts `message` into the queue to the shard `to`, which sees it at the latest after [`Port::flush`].
    ///
    /// # Errors
    /// [`Full`] with the message when the queue has no place left.
    ///
    /// # Panics
    /// If `to` is this shard or none.
    #[inline]
    pub fn try_send(&mut self, to: ShardId, message: T) -> Result<(), Full<T>> {
        let outgoing = self.outgoing[usize::from(to.0)].as_mut().expect("a shard sends nothing to itself");
        outgoing.dirty = true;
        outgoing.queue.push(message).map_err(Full)
    }

    /// Wakes the receivers of what was sent since the last call, those that sleep; tells how many that were, which is
    /// how many system calls it took. To be called at the end of every turn that sent.
    #[inline]
    pub fn flush(&mut self) -> u64 {
        let mut woken_count = 0;
        for outgoing in self.outgoing.iter_mut().flatten() {
            if std::mem::take(&mut outgoing.dirty) {
                woken_count += u64::from(outgoing.waker.wake());
            }
        }
        woken_count
    }

    /// The next message and its sender, taking the senders in turn.
    #[inline]
    pub fn try_receive(&mut self) -> Option<(ShardId, T)> {
        for _ in 0..self.incoming.len() {
            let (from, queue) = &self.incoming[self.next];
            self.next = if self.next + 1 == self.incoming.len() { 0 } else { self.next + 1 };
            if let Some(message) = queue.pop() {
                return Some((*from, message));
            }
        }
        None
    }

    /// Whether a message waits. Safe to be asked right before a sleep: a message sent by a sibling that has not woken this shard
    /// is seen.
    #[inline]
    pub fn has_messages(&self) -> bool {
        self.incoming.iter().any(|(_, queue)| !queue.is_empty())
    }
}
