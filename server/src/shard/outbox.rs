//! Nothing leaves before it is durable: the outputs of each turn wait here for the commit that holds their events.
//!
//! Invariants: outputs leave in the order in which they were produced, and only once the log's contiguous durable prefix has
//! reached their commit. A turn without events waits for the last commit before it, because what it tells rests on that.

use std::collections::VecDeque;
use tickwheel_engine::shard::{Effects, Output};
use tickwheel_storage::CommitSequence;

/// Emptied buffers kept for reuse.
const SPARE_MAX: usize = 16;

/// The outputs of the turns that are not durable yet.
#[derive(Debug, Default)]
pub struct Outbox {
    held: VecDeque<Held>,
    spare: Vec<Held>,
}

#[derive(Debug, Default)]
struct Held {
    commit: CommitSequence,
    outputs: Vec<Output>,
    bytes: Vec<u8>,
}

impl Outbox {
    /// Holds the outputs of `effects` until `commit` is durable.
    pub fn hold(&mut self, effects: &mut Effects, commit: CommitSequence) {
        if effects.outputs().is_empty() {
            return;
        }
        debug_assert!(self.held.back().is_none_or(|last| last.commit <= commit), "commits grow");
        let mut held = self.spare.pop().unwrap_or_default();
        held.commit = commit;
        effects.swap_outputs(&mut held.outputs, &mut held.bytes);
        self.held.push_back(held);
    }

    /// Hands everything that `durable` covers to `send`, in order; whether there was anything.
    pub fn release(&mut self, durable: CommitSequence, mut send: impl FnMut(&Output, &[u8])) -> bool {
        let mut released = false;
        while self.held.front().is_some_and(|held| held.commit <= durable) {
            let Some(mut held) = self.held.pop_front() else { break };
            for output in &held.outputs {
                send(output, &held.bytes[output.range.clone()]);
            }
            released = true;
            if self.spare.len() < SPARE_MAX {
                held.outputs.clear();
                held.bytes.clear();
                self.spare.push(held);
            }
        }
        released
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
