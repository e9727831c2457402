//! Stands in for the server's `runtime/idle.rs`: a sleeper whose eventfd is a flag.

use crate::{handshake::Handshake, sync::Arc};
use loom::sync::{Condvar, Mutex};

/// Wakes one shard.
#[derive(Clone, Debug)]
pub struct ShardWaker {
    cell: Arc<Cell>,
}

#[derive(Debug)]
struct Cell {
    handshake: Handshake,
    is_signalled: Mutex<bool>,
    signalled: Condvar,
}

impl ShardWaker {
    /// A waker and, through [`ShardWaker::rest`], a sleeper.
    #[expect(clippy::new_without_default, reason = "as the real one, which can fail")]
    pub fn new() -> Self {
        let (is_signalled, signalled) = (Mutex::new(false), Condvar::new());
        Self { cell: Arc::new(Cell { handshake: Handshake::new(), is_signalled, signalled }) }
    }

    /// As the real one.
    pub fn wake(&self) -> bool {
        let wakes = self.cell.handshake.claim();
        if wakes {
            *self.cell.is_signalled.lock().expect("no model panics under the lock") = true;
            self.cell.signalled.notify_one();
        }
        wakes
    }

    /// Sleeps until it is signalled, unless there is work.
    pub fn rest(&self, has_work: impl FnOnce() -> bool) {
        self.cell.handshake.sleep_unless(has_work, || {
            let mut is_signalled = self.cell.is_signalled.lock().expect("no model panics under the lock");
            while !*is_signalled {
                is_signalled = self.cell.signalled.wait(is_signalled).expect("no model panics under the lock");
            }
            *is_signalled = false;
        });
    }

    /// A sleep that something else ends: a descriptor, or the deadline.
    pub fn rest_through<R>(&self, has_work: impl FnOnce() -> bool, block: impl FnOnce() -> R) -> Option<R> {
        self.cell.handshake.sleep_unless(has_work, block)
    }
}
