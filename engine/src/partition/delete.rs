//! Deleting a job. Its slot's next job has another generation; what is in flight is abandoned, and what workers say
//! about it later concerns a job that is gone.

use super::{NONE, Partition, Turn, name_key};
use tickwheel_wire::{
    Timestamp,
    event::{Event, JobChange},
};

impl Partition {
    /// Deletes the job in `slot`, which exists.
    pub(crate) fn delete(&mut self, slot: u32, turn: &mut Turn<'_>) {
        let change = JobChange { slot, at: turn.now.wall, next_fire: Timestamp::MAX };
        self.emit(turn.events, &Event::JobDeleted(change));
    }

    /// Forgets a job that was deleted or has expired.
    pub(super) fn apply_removed(&mut self, slot: u32) {
        self.unfinish(slot);
        let record = *self.change(slot);
        let mut newest = record.execution;
        while newest != NONE {
            let (older, execution) = self.executions.end(newest, newest);
            newest = older;
            if !execution.retrying {
                self.workers.release(execution.worker);
            }
        }
        self.forget_asked_for(slot, &record);
        self.standings.remove(slot);
        let policy = &self.policies.value(record.policy).policy;
        let name = self.arena.entry(record.data).name;
        let newest = record.finished_secs;
        self.recent.name_attempts(slot, record.generation(), newest, &policy.tenant_name, name);
        self.names.remove(name_key(policy.tenant, name), slot);
        self.table.free(slot);
        self.retire(record.data, record.policy, record.schedule);
    }
}
