//! Runs a shard on its core: reads the clock, turns the loop, and sleeps when there is nothing to do.
//!
//! Invariant: before a sleep every source of work has been asked, after the wish to sleep was published
//! ([`crate::runtime::idle`]), so that nothing waits for an unrelated wake-up.

use super::ShardLoop;
use crate::{
    fatal::Fatal,
    runtime::{
        clock::{Clock, Reading},
        device::UringDevice,
        idle::Idle,
        socket::ShardSocket,
    },
};
use std::os::fd::{AsFd as _, OwnedFd};
use tickwheel_storage::Log;

/// A shard of a real node.
pub struct ShardRunner {
    pub(super) shard: ShardLoop<Log<UringDevice>, UringDevice, ShardSocket>,
    pub(super) log_fd: OwnedFd,
    pub(super) idle: Idle,
    pub(super) clock: Clock,
}

impl ShardRunner {
    /// Runs until the node drains or the log fails.
    ///
    /// # Errors
    /// [`Fatal`] when the shard cannot go on; everything acknowledged is in the log.
    pub fn run(mut self) -> Result<(), Fatal> {
        loop {
            let reading = self.clock.now();
            let worked = self.shard.turn(&reading)?;
            if self.shard.is_over(&reading) {
                return Ok(());
            }
            if worked {
                self.idle.worked(reading.instant);
            } else if !self.shard.core().has_work() {
                self.rest(&reading);
            }
        }
    }

    fn rest(&mut self, reading: &Reading) {
        let deadline = self.shard.deadline(reading);
        let Self { shard, log_fd, idle, .. } = self;
        let ShardLoop { router, log, endpoint, socket, snapshots, .. } = shard;
        let sources = [socket.as_fd(), log_fd.as_fd()];
        idle.rest(reading.instant, deadline, &sources, || {
            let devices_have_work = log.device_mut().has_work() || snapshots.device_mut().has_work();
            devices_have_work || router.peers.has_messages() || endpoint.has_work() || snapshots.is_walking()
        });
    }
}
