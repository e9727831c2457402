//! Giving ready executions to workers with free slots, and ending attempts that nobody reports on.

use super::{AHEAD, AbandonedPlace, Effects, PeerMessage, Shard, split_key};
use crate::{
    dispatcher::{ReadyKey, WorkerHandle},
    partition::{
        Partition, Started,
        complete::Ending,
        execution::{Execution, WorkerPlace},
        record::Flag,
    },
};
use std::time::Duration;
use tickwheel_wire::{
    InstanceId, JobId, PartitionId, SessionRef, Token,
    event::AttemptOutcome,
    frame::{
        Frame,
        work::{CancelAttempt, CancelReason, Dispatch, DispatchHead},
    },
    planted::Mistake,
};

/// The control lane.
const LANE_CONTROL: u8 = 0;

/// The worker that an execution is offered to.
struct Candidate {
    handle: WorkerHandle,
    session: SessionRef,
    index: u32,
    instance: InstanceId,
    attachment: u32,
}

/// What became of an offer.
enum Offered {
    Taken,
    /// The job is not ready any more.
    Stale,
    /// This worker cannot take it; no more is dispatched in this turn, as the next may meet the same.
    Refused,
}

impl Shard {
    /// Dispatches while there is work, a free slot, and room in the turn.
    pub(super) fn dispatch_ready(&mut self, effects: &mut Effects) {
        let mut offers = std::mem::take(&mut self.offers);
        let mut left = self.config.executions_per_turn_max as usize;
        while left > 0 {
            self.take_ready(left.min(AHEAD), &mut offers);
            if offers.is_empty() {
                break;
            }
            left -= offers.len();
            for &(key, handle) in &offers {
                let (id, slot) = split_key(key);
                match self.offer(id, slot, handle, effects) {
                    Offered::Taken => {}
                    Offered::Stale => self.vacate(WorkerPlace::Here(handle)),
                    Offered::Refused => {
                        self.vacate(WorkerPlace::Here(handle));
                        left = 0;
                    }
                }
            }
            self.unfinished |= left == 0;
            offers.clear();
        }
        self.offers = offers;
    }

    /// Takes up to `count` executions out of the ready queue, with a slot each, and asks for their memory.
    fn take_ready(&mut self, count: usize, offers: &mut Vec<(u64, WorkerHandle)>) {
        while offers.len() < count
            && let Some((ReadyKey(key), handle)) = self.dispatcher.next()
        {
            self.dispatcher.assign(handle);
            self.prefetch(key, Partition::prefetch_record);
            offers.push((key, handle));
        }
        for &(key, _) in &*offers {
            self.prefetch(key, Partition::prefetch_entry);
        }
    }

    /// Dispatches the job in `slot` to a worker whose slot is taken for it, if it is still ready.
    #[inline]
    fn offer(&mut self, id: PartitionId, slot: u32, handle: WorkerHandle, effects: &mut Effects) -> Offered {
        let now = self.now.wall;
        let Some(owned) = self.owned_mut(id) else { return Offered::Stale };
        owned.partition.volatile(slot).set(Flag::QUEUED, false);
        let Some(ready) = owned.partition.ready(slot, now) else {
            self.arrange(id, slot, effects);
            return Offered::Stale;
        };
        let Some(candidate) = self.candidate(id, slot, handle) else {
            // The job changed its pool while it was queued, or the worker is not known yet.
            self.arrange(id, slot, effects);
            return Offered::Refused;
        };
        let Some(worker) = self.worker_number(id, &candidate, effects) else {
            self.arrange(id, slot, effects);
            return Offered::Refused;
        };
        let started = self.decide(id, effects, |partition, turn| partition.dispatch(slot, ready, worker, turn));
        self.begin(id, slot, &candidate, &started);
        self.arrange(id, slot, effects);
        self.send_dispatch(id, slot, &candidate, &started, effects);
        if self.watch_count > 0 {
            self.notify_in_flight(id, started.place, effects);
        }
        Offered::Taken
    }

    #[inline]
    fn candidate(&mut self, id: PartitionId, slot: u32, handle: WorkerHandle) -> Option<Candidate> {
        let session = self.dispatcher.session(handle)?;
        let (index, worker) = self.workers.by_session(session)?;
        let (instance, attachment, pools) = (worker.instance, worker.attachment, worker.pools);
        let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("the caller has it");
        let entry = owned.partition.policy_entry(slot);
        let directory = &self.config.directory;
        let pool = *entry.pool.get_or_insert_with(|| directory.pool_or_default(&entry.policy.pool));
        pools.contains(pool).then_some(Candidate { handle, session, index, instance, attachment })
    }

    /// The partition's number for a worker.
    #[inline]
    fn worker_number(&mut self, id: PartitionId, candidate: &Candidate, effects: &mut Effects) -> Option<u16> {
        let place = candidate.index as usize;
        let hint = self.owned(id).worker_hints.get(place).copied();
        let known = hint.and_then(|hint| self.owned(id).partition.workers().get(hint));
        if known.is_some_and(|entry| entry.instance == candidate.instance) {
            return hint;
        }
        let name = self.workers.by_session(candidate.session).map(|(_, worker)| worker.name.clone())?;
        let number =
            self.decide(id, effects, |partition, turn| partition.worker_index(None, candidate.instance, &name, turn))?;
        let hints = &mut self.owned_mut(id).expect("the caller has it").worker_hints;
        if hints.len() <= place {
            hints.resize(place + 1, u16::MAX);
        }
        hints[place] = number;
        Some(number)
    }

    /// Sets what is volatile about an attempt that was just given out.
    #[inline]
    fn begin(&mut self, id: PartitionId, slot: u32, candidate: &Candidate, started: &Started) {
        let now = self.now.monotonic;
        let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("the caller has it");
        let policy = owned.partition.policy(owned.partition.slot(slot));
        let limit = |limit_ms: u32| (limit_ms > 0).then(|| now + Duration::from_millis(limit_ms.into()));
        let (deadline, heartbeat_deadline) = (limit(policy.start_to_close_ms), limit(policy.heartbeat_ms));
        let volatile = &mut owned.partition.executions_mut().get_mut(started.place).volatile;
        volatile.deadline = deadline;
        volatile.heartbeat_deadline = heartbeat_deadline.filter(|_| !Mistake::SilenceNotLimited.is_made());
        volatile.place = WorkerPlace::Here(candidate.handle);
        volatile.attachment = candidate.attachment;
    }

    #[inline]
    fn send_dispatch(
        &self,
        id: PartitionId,
        slot: u32,
        candidate: &Candidate,
        started: &Started,
        effects: &mut Effects,
    ) {
        let partition = &self.owned(id).partition;
        let record = partition.slot(slot);
        let (policy, entry) = (partition.policy(record), partition.entry(record));
        let length = |text: &str| u8::try_from(text.len()).expect("names are at most 255 bytes");
        let head = DispatchHead {
            job: partition.job_id(slot),
            fire_sequence: started.fire_sequence,
            token: started.token,
            scheduled_at: started.scheduled_at,
            start_to_close_ms: policy.start_to_close_ms,
            heartbeat_ms: policy.heartbeat_ms,
            attempt: started.attempt,
            priority: policy.priority,
            tenant_bytes: length(&policy.tenant_name),
            name_bytes: length(entry.name),
            handler_bytes: length(&policy.handler),
        };
        let (tenant, handler) = (&*policy.tenant_name, &*policy.handler);
        let dispatch = Dispatch { head, tenant, name: entry.name, handler, payload: entry.payload };
        effects.send(candidate.session, 1 + policy.priority.number(), |out| dispatch.encode(out));
    }

    /// Ends a running attempt that is past one of its limits.
    pub(super) fn time_out(&mut self, id: PartitionId, place: u32, effects: &mut Effects) {
        self.stop_attempt(id, place, AttemptOutcome::TimedOut, CancelReason::TimedOut, effects);
    }

    /// Gives up what is due and too late.
    pub(super) fn drop_late(&mut self, id: PartitionId, slot: u32, effects: &mut Effects) {
        let recorded = self.decide(id, effects, |partition, turn| partition.drop_late(slot, turn));
        if self.watch_count > 0 {
            self.notify_too_late(id, slot, recorded, effects);
        }
        self.expire_excess(id, effects);
    }

    /// Makes room for what is due: overlap policies `cancel-running` and `terminate-running`.
    pub(super) fn supersede(&mut self, id: PartitionId, place: u32, terminate: bool, effects: &mut Effects) {
        let partition = &self.owned(id).partition;
        let Execution { slot, fire_sequence, retrying, .. } = *partition.executions().get(place);
        if !retrying && terminate {
            return self.stop_attempt(id, place, AttemptOutcome::Cancelled, CancelReason::Requested, effects);
        }
        let job = partition.job_id(slot);
        let cancelled = self.decide(id, effects, |partition, turn| partition.cancel(job, fire_sequence, turn));
        self.after_cancel(id, &cancelled.expect("the execution is in flight"), effects);
    }

    /// Ends a running attempt by the server's decision, and tells its worker if that is attached.
    pub(super) fn stop_attempt(
        &mut self,
        id: PartitionId,
        place: u32,
        outcome: AttemptOutcome,
        reason: CancelReason,
        effects: &mut Effects,
    ) {
        let ended =
            self.decide(id, effects, |partition, turn| partition.end_attempt(place, &Ending::by_server(outcome), turn));
        let slot = ended.slot;
        let job = self.owned(id).partition.job_id(slot);
        self.statuses.forget(job, ended.token);
        if matches!(outcome, AttemptOutcome::TimedOut | AttemptOutcome::Cancelled) {
            self.tell_to_stop(id, &ended, reason, effects);
            self.abandon(job, ended.token, ended.volatile.place);
        }
        if Mistake::EndNotWatched.is_made() {
            return self.expire_excess(id, effects);
        }
        self.after_attempt(id, slot, effects);
    }

    /// What follows the end of an attempt whoever ended it, but for its slot and the job's next entry.
    pub(super) fn after_attempt(&mut self, id: PartitionId, slot: u32, effects: &mut Effects) {
        if self.watch_count > 0 {
            self.notify_ended(id, slot, effects);
        }
        self.expire_excess(id, effects);
    }

    /// Tells the worker of an attempt to stop it, if it is attached.
    pub(super) fn tell_to_stop(
        &self,
        id: PartitionId,
        execution: &Execution,
        reason: CancelReason,
        effects: &mut Effects,
    ) {
        let partition = &self.owned(id).partition;
        let Some(worker) = partition.workers().get(execution.worker) else { return };
        let session = self.workers.by_instance(worker.instance).and_then(|worker| worker.session);
        if let Some(session) = session {
            let (job, Execution { fire_sequence, token, .. }) = (partition.job_id(execution.slot), *execution);
            let frame = CancelAttempt { job, fire_sequence, token, reason };
            effects.send(session, LANE_CONTROL, |out| frame.encode(out));
        }
    }

    /// Keeps the slot of an attempt that ended here until its worker, if that is attached, reports on it: it still runs there.
    pub(super) fn abandon(&mut self, job: JobId, token: Token, place: WorkerPlace) {
        let kept = match place {
            WorkerPlace::Here(handle) if self.dispatcher.session(handle).is_some() => AbandonedPlace::Here(handle),
            WorkerPlace::AtHome(session) if self.workers.by_session(session).is_some() => {
                AbandonedPlace::AtHome(session)
            }
            _ => return,
        };
        self.abandoned.insert((job, token), kept);
    }

    /// Frees the slot of an attempt that ended.
    #[inline]
    pub(super) fn vacate(&mut self, place: WorkerPlace) {
        match place {
            WorkerPlace::None => {}
            WorkerPlace::Here(handle) => {
                self.dispatcher.release(handle);
            }
            WorkerPlace::AtHome(session) => self.outbox.push_back((session.shard, PeerMessage::Vacated(session))),
        }
    }

    /// Frees the slot that was kept for an attempt, now that its worker has reported through `session`. Nobody else's report does.
    pub(super) fn vacate_abandoned(&mut self, job: JobId, token: Token, session: SessionRef) {
        let holder = match self.abandoned.get(&(job, token)) {
            Some(AbandonedPlace::Here(handle)) => self.dispatcher.session(*handle),
            Some(AbandonedPlace::AtHome(session)) => Some(*session),
            None => None,
        };
        if holder != Some(session) {
            return;
        }
        match self.abandoned.remove(&(job, token)) {
            Some(AbandonedPlace::Here(handle)) => self.vacate(WorkerPlace::Here(handle)),
            Some(AbandonedPlace::AtHome(session)) => self.vacate(WorkerPlace::AtHome(session)),
            None => {}
        }
    }
}
