//! Stands in for the server's `runtime/sync.rs`.

pub use loom::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

use loom::sync::{Mutex, atomic::AtomicUsize};
use std::collections::VecDeque;

/// A bounded queue. Whether it is empty is asked without the lock, so that the lock orders nothing that the real queue does not.
#[derive(Debug)]
pub struct ArrayQueue<T> {
    entries: Mutex<VecDeque<T>>,
    capacity: usize,
    count: AtomicUsize,
}

impl<T> ArrayQueue<T> {
    /// An empty queue.
    pub fn new(capacity: usize) -> Self {
        Self { entries: Mutex::new(VecDeque::new()), capacity, count: AtomicUsize::new(0) }
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// Gives it back when the queue is full.
    pub fn push(&self, entry: T) -> Result<(), T> {
        let mut entries = self.entries.lock().expect("no model panics under the lock");
        if entries.len() == self.capacity {
            return Err(entry);
        }
        entries.push_back(entry);
        drop(entries);
        self.count.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes the oldest entry.
    pub fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let entry = self.entries.lock().expect("no model panics under the lock").pop_front();
        self.count.fetch_sub(1, Ordering::AcqRel);
        entry
    }

    /// Whether no entry is seen.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}
