//! Watches: transitions of executions as they happen.

use super::request::Command;
use crate::{error::RequestError, types::Transition};
use tickwheel_wire::PartitionId;
use tokio::sync::mpsc;

/// Transitions that wait for the program at most; a program that is slower loses the watch.
pub(super) const EVENTS_MAX: usize = 4096;

/// The partitions of a watch that one shard owns.
#[derive(Debug)]
pub(super) struct Share {
    pub link: mpsc::Sender<Command>,
    /// Request id and partition.
    pub requests: Vec<(u64, PartitionId)>,
}

/// A watch; see [`super::Client::watch`]. It ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    pub(super) events: mpsc::Receiver<Result<Transition, RequestError>>,
    pub(super) shares: Vec<Share>,
    pub(super) resumed: bool,
    pub(super) failed: bool,
}

impl Watch {
    /// The next transition; none after an error and after the client was closed.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// A refusal `watch-overrun` when transitions came faster than they were read, and the refusals of the node.
    pub async fn next(&mut self) -> Option<Result<Transition, RequestError>> {
        loop {
            if self.failed {
                return None;
            }
            let event = self.events.recv().await?;
            self.failed = event.is_err();
            // Every partition tells that it was resumed; once is enough.
            let again = std::mem::replace(&mut self.resumed, matches!(event, Ok(Transition::Resumed)));
            if !(again && self.resumed) {
                return Some(event);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for share in self.shares.drain(..) {
            // Should the queue be full, the task finds out with the next transition.
            let _ = share.link.try_send(Command::Unwatch(share.requests));
        }
    }
}
