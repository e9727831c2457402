//! What is found after the power has failed, or after the process was killed.
//!
//! The medium and its ways stay: seed, room, latency, faults, time, lies told and bytes that cannot be read. What was
//! to happen at a certain step does not.

use super::{
    DiskOptions,
    inode::{Change, Fate, Write},
    state::{Power, State},
};
use std::collections::BTreeMap;

impl State {
    /// The power fails, if it has not yet.
    pub fn after_power_failure(&mut self) -> Self {
        self.power = Power::Failed;
        let mut after = self.successor();
        after.names = self.names.after_power_failure(&mut self.random);
        let mut in_flight: BTreeMap<_, Vec<&Write>> = BTreeMap::new();
        for (inode, write) in self.in_flight.values() {
            in_flight.entry(*inode).or_default().push(write);
        }
        let named = after.names.referenced();
        for (id, inode) in self.inodes.iter().filter(|(id, _)| named.contains(id)) {
            let writes = in_flight.get(id).map(Vec::as_slice).unwrap_or_default();
            after.inodes.insert(*id, inode.after_power_failure(writes, &mut self.random));
        }
        after
    }

    /// The process dies and the machine lives: what was written is there, what was not synced is still not durable.
    pub fn after_kill(&mut self) -> Self {
        assert_ne!(self.power, Power::Failed, "a process that lost its power is not killed: ask for the crash");
        self.power = Power::Killed;
        let mut after = self.successor();
        after.names = self.names.clone();
        after.inodes = self.inodes.clone();
        for (inode, write) in self.in_flight.values() {
            // The kernel has it and may go on with it.
            let is_whole = self.random.below(3) > 0;
            for part in if is_whole { vec![write.clone()] } else { write.in_part(&mut self.random) } {
                if let Some(inode) = after.inodes.get_mut(inode) {
                    inode.apply(Change::Write(part), Fate::Volatile);
                }
            }
        }
        after
    }

    fn successor(&self) -> Self {
        let mut after = Self::new(DiskOptions { seed: self.random.seed(), ..self.options });
        (after.faults, after.now, after.next_inode) = (self.faults, self.now, self.next_inode);
        after.lies = self.lies.clone();
        after
    }
}
