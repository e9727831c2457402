//! Frames of workers: attaching, reporting, signs of life, claiming after a reconnect.

use super::{AbandonedPlace, Effects, Origin, PeerMessage, Refusal, Shard, WorkerProfile};
use crate::{
    dispatcher::{AttachError, Capacity, PoolSet, WorkerHandle},
    partition::{CompleteError, Report, execution::WorkerPlace},
};
use std::{sync::Arc, time::Duration};
use tickwheel_wire::{
    DecodeError, FireSequence, InstanceId, JobId, PartitionId, SessionRef, Token,
    frame::{
        Frame, FrameType,
        session::RefusalCode,
        work::{
            Attach, Attached, CancelAttempt, CancelReason, Capacity as CapacityFrame, Complete, Completed, Heartbeat,
            Outcome, Reattach, Reattached, ReportStatus, Verdict, status_front,
        },
    },
    planted::Mistake,
};

/// Most executions that one worker may hold.
const CAPACITY_MAX: u32 = 1 << 20;

impl Shard {
    pub(super) fn handle_work(
        &mut self,
        origin: &Origin<'_>,
        frame_type: FrameType,
        body: &[u8],
        effects: &mut Effects,
    ) -> Result<(), DecodeError> {
        match frame_type {
            FrameType::Complete => self.complete(origin, &Complete::decode_body(body)?, effects),
            FrameType::Heartbeat => self.heartbeat(origin, &Heartbeat::decode_body(body)?, effects),
            FrameType::ReportStatus => self.report_status(origin, &ReportStatus::decode_body(body)?, effects),
            FrameType::Reattach => self.reattach(origin, &Reattach::decode_body(body)?, effects),
            FrameType::Attach => self.attach(origin, &Attach::decode_body(body)?, effects),
            FrameType::Capacity => self.set_capacity(origin, &CapacityFrame::decode_body(body)?, effects),
            _ => {
                let request_id = super::request_id_of(frame_type, body);
                let message = "a worker may not send this frame";
                origin.refuse(effects, &Refusal::new(request_id, RefusalCode::WrongRole, message));
            }
        }
        Ok(())
    }

    fn attach(&mut self, origin: &Origin<'_>, attach: &Attach<'_>, effects: &mut Effects) {
        let outcome = self.try_attach(origin, attach);
        match outcome {
            Ok(()) => {
                let reattach_ms = self.config.reattach_ms;
                origin.reply(effects, &Attached { request_id: attach.request_id, reattach_ms });
            }
            Err((code, field, detail, message)) => {
                origin.refuse(
                    effects,
                    &Refusal { request_id: attach.request_id, code, detail, field, message: &message },
                );
            }
        }
    }

    fn try_attach(
        &mut self,
        origin: &Origin<'_>,
        attach: &Attach<'_>,
    ) -> Result<(), (RefusalCode, &'static str, u64, String)> {
        if origin.session.shard != self.config.shard {
            return Err((RefusalCode::NotOwner, "", 0, "a worker attaches to its session's own shard".to_owned()));
        }
        if self.workers.by_session(origin.session).is_some() {
            return Err((RefusalCode::OutOfOrder, "", 0, "the session is attached already".to_owned()));
        }
        if !(1..=CAPACITY_MAX).contains(&attach.capacity) {
            let message = format!("`capacity` is {}; allowed are 1 to {CAPACITY_MAX}", attach.capacity);
            return Err((RefusalCode::InvalidField, "capacity", CAPACITY_MAX.into(), message));
        }
        if attach.instance == InstanceId(0) {
            return Err((RefusalCode::InvalidField, "instance", 0, "`instance` is 0".to_owned()));
        }
        let pools = self.pools_of(origin, attach.pools)?;
        let capacity = Capacity { concurrency: attach.capacity, prefetch: 0 };
        let handle = self.dispatcher.attach(origin.session, pools, capacity).map_err(|error| match error {
            AttachError::Pools { .. } => (RefusalCode::InvalidField, "pools", 0, error.to_string()),
            _ => (RefusalCode::Overloaded, "workers", 0, error.to_string()),
        })?;
        let (session, instance) = (origin.session, attach.instance);
        let profile = WorkerProfile { session, instance, name: origin.identity.name.clone(), pools };
        self.worker_up(&profile, Some(handle));
        self.tell_peers(&PeerMessage::WorkerUp(Arc::new(profile)));
        Ok(())
    }

    /// The pools that a worker asks for, all of which its certificate must name.
    fn pools_of(&self, origin: &Origin<'_>, names: &str) -> Result<PoolSet, (RefusalCode, &'static str, u64, String)> {
        let allowed = origin.identity.pools;
        let mut pools = if names.is_empty() { allowed } else { PoolSet::EMPTY };
        for name in names.split(',').filter(|name| !name.is_empty()) {
            match self.config.directory.pool(name).filter(|pool| allowed.contains(*pool)) {
                Some(pool) => pools.insert(pool),
                None => {
                    let message = format!("the certificate does not allow the pool `{name}`");
                    return Err((RefusalCode::Forbidden, "pools", 0, message));
                }
            }
        }
        if let Some(tenant) = origin.identity.tenant
            && let Some(shared) = pools.iter().find(|pool| !self.config.directory.pool_confines(*pool, tenant))
        {
            let name = self.config.directory.pools().nth(usize::from(shared.0)).map_or("", |(_, pool)| &pool.name);
            let message = format!("the pool `{name}` is shared by tenants, and this worker belongs to one of them");
            return Err((RefusalCode::Forbidden, "pools", 0, message));
        }
        Ok(pools)
    }

    /// Notes a worker that attached here (with its handle) or to a sibling.
    pub(super) fn worker_up(&mut self, profile: &WorkerProfile, handle: Option<WorkerHandle>) {
        let until = self.now.monotonic + Duration::from_millis(self.config.reattach_ms.into());
        let WorkerProfile { session, instance, name, pools } = profile;
        let former = self.workers.attach(*instance, name, *session, *pools, handle, until);
        if let Some(former) = former {
            self.detach_handle(former);
        }
        self.unfinished = true;
    }

    /// What follows the end of a session, here or on a sibling.
    pub(super) fn close_session(&mut self, session: SessionRef) {
        let until = self.now.monotonic + Duration::from_millis(self.config.reattach_ms.into());
        if let Some(handle) = self.workers.detach(session, until) {
            self.detach_handle(handle);
        }
        self.forget_abandoned(session);
        self.end_watches(session, None);
    }

    fn detach_handle(&mut self, handle: WorkerHandle) {
        let session = self.dispatcher.session(handle);
        self.dispatcher.detach(handle);
        if let Some(session) = session {
            self.forget_abandoned(session);
        }
    }

    /// Forgets the kept slots of a worker whose session is over; its slots are gone with it.
    fn forget_abandoned(&mut self, ended: SessionRef) {
        let dispatcher = &self.dispatcher;
        self.abandoned.retain(|_, place| match place {
            AbandonedPlace::Here(handle) => dispatcher.session(*handle).is_some_and(|session| session != ended),
            AbandonedPlace::AtHome(session) => *session != ended,
        });
    }

    fn set_capacity(&mut self, origin: &Origin<'_>, frame: &CapacityFrame, effects: &mut Effects) {
        let handle = self.workers.handle_of(origin.session);
        let refusal = match handle {
            None => Some((RefusalCode::OutOfOrder, "the session is not attached")),
            Some(_) if frame.capacity > CAPACITY_MAX => Some((RefusalCode::InvalidField, "`capacity` is too large")),
            Some(handle) => {
                let capacity = Capacity { concurrency: frame.capacity, prefetch: 0 };
                let set = self.dispatcher.set_capacity(handle, capacity);
                set.err().map(|_| (RefusalCode::InvalidField, "`capacity` is too large"))
            }
        };
        if let Some((code, message)) = refusal {
            let refusal = Refusal { field: "capacity", ..Refusal::new(0, code, message) };
            origin.refuse(effects, &refusal);
        }
        self.unfinished = true;
    }

    #[inline]
    fn complete(&mut self, origin: &Origin<'_>, complete: &Complete<'_>, effects: &mut Effects) {
        let head = complete.head;
        let verdict = self.take_report(origin, complete, effects);
        if verdict == Verdict::StaleToken || verdict == Verdict::UnknownJob {
            self.vacate_abandoned(head.job, head.token, origin.session);
        }
        let (job, fire_sequence, token) = (head.job, head.fire_sequence, head.token);
        origin.reply(effects, &Completed { job, fire_sequence, token, verdict });
    }

    #[inline]
    fn take_report(&mut self, origin: &Origin<'_>, complete: &Complete<'_>, effects: &mut Effects) -> Verdict {
        let head = complete.head;
        let id = head.job.partition();
        let Some((_, worker)) = self.workers.by_session(origin.session) else { return Verdict::Overloaded };
        let instance = worker.instance;
        if self.partition(id).is_none() || !self.takes_reports {
            return Verdict::Overloaded;
        }
        let report = Report {
            job: head.job,
            token: head.token,
            instance,
            outcome: head.outcome,
            run_us: head.run_us,
            error: complete.error,
            output: complete.own_output(),
            retry_after: complete.retry_after_ms().map(|delay_ms| Duration::from_millis(delay_ms.into())),
        };
        match self.decide(id, effects, |partition, turn| partition.complete(&report, turn)) {
            Ok(None) => Verdict::Accepted,
            Ok(Some(ended)) => {
                let slot = ended.slot;
                self.statuses.forget(head.job, head.token);
                if !(Mistake::SlotLeaked.is_made() && head.outcome == Outcome::Failed) {
                    self.vacate(ended.volatile.place);
                }
                self.after_attempt(id, slot, effects);
                self.after_report(id, slot, effects);
                Verdict::Accepted
            }
            Err(CompleteError::UnknownJob) => Verdict::UnknownJob,
            Err(CompleteError::StaleToken) => Verdict::StaleToken,
        }
    }

    /// Sees to the job's next step: another attempt may be due earlier than its wheel entry.
    #[inline]
    fn after_report(&mut self, id: PartitionId, slot: u32, effects: &mut Effects) {
        let partition = &self.owned(id).partition;
        if partition.job(slot).is_some() && partition.in_flight(slot).next().is_some() {
            self.arrange(id, slot, effects);
        } else {
            self.arrange_later(id, slot, effects);
        }
    }

    fn heartbeat(&mut self, origin: &Origin<'_>, heartbeat: &Heartbeat, effects: &mut Effects) {
        let Heartbeat { job, fire_sequence, token, progress_permille } = *heartbeat;
        match self.running_for(origin, job, token) {
            Ok((id, place)) => {
                let now = self.now.monotonic;
                let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("it was looked up");
                let slot = owned.partition.executions().get(place).slot;
                let heartbeat_ms = owned.partition.policy(owned.partition.slot(slot)).heartbeat_ms;
                let volatile = &mut owned.partition.executions_mut().get_mut(place).volatile;
                volatile.progress_permille = progress_permille.min(1_000);
                if heartbeat_ms > 0 {
                    volatile.heartbeat_deadline = Some(now + Duration::from_millis(heartbeat_ms.into()));
                }
            }
            // The worker is not known here yet, or the partition is on its way: the next sign of life may find both.
            Err(Verdict::Overloaded) => {}
            // The completion may have overtaken the sign of life; a worker that does not run the attempt ignores this.
            Err(_) => self.tell_stale(origin, job, fire_sequence, token, effects),
        }
    }

    /// Keeps what the handler of a running attempt says, and tells watchers if it is something else. Of any other attempt it is ignored: the
    /// heartbeat that came before it has told its worker.
    fn report_status(&mut self, origin: &Origin<'_>, report: &ReportStatus<'_>, effects: &mut Effects) {
        let Ok((id, slot)) = self.running_for(origin, report.job, report.token) else { return };
        let is_other = self.statuses.set(report.job, report.token, status_front(report.status));
        if is_other && self.watch_count > 0 {
            self.notify_in_flight(id, slot, effects);
        }
    }

    fn tell_stale(
        &self,
        origin: &Origin<'_>,
        job: JobId,
        fire_sequence: FireSequence,
        token: Token,
        effects: &mut Effects,
    ) {
        origin.reply(effects, &CancelAttempt { job, fire_sequence, token, reason: CancelReason::StaleToken });
    }

    fn reattach(&mut self, origin: &Origin<'_>, reattach: &Reattach, effects: &mut Effects) {
        let Reattach { job, fire_sequence, token } = *reattach;
        let verdict = match self.running_for(origin, job, token) {
            Ok((id, place)) => {
                self.claim(origin.session, id, place, effects);
                Verdict::Accepted
            }
            Err(verdict) => verdict,
        };
        origin.reply(effects, &Reattached { job, fire_sequence, token, verdict });
    }

    /// Notes that the attempt that runs at `place` is with its worker's present attachment.
    fn claim(&mut self, session: SessionRef, id: PartitionId, place: u32, effects: &mut Effects) {
        let (_, worker) = self.workers.by_session(session).expect("the caller looked it up");
        let (attachment, handle) = (worker.attachment, worker.handle);
        let execution = *self.owned(id).partition.executions().get(place);
        let slot = execution.slot;
        if execution.volatile.attachment == attachment {
            return;
        }
        let taken = match handle {
            Some(handle) => {
                self.dispatcher.occupy(handle);
                WorkerPlace::Here(handle)
            }
            None => {
                self.outbox.push_back((session.shard, PeerMessage::Occupied(session)));
                WorkerPlace::AtHome(session)
            }
        };
        let now = self.now.monotonic;
        let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("the caller has it");
        let heartbeat_ms = owned.partition.policy(owned.partition.slot(slot)).heartbeat_ms;
        let volatile = &mut owned.partition.executions_mut().get_mut(place).volatile;
        volatile.attachment = attachment;
        volatile.place = taken;
        if heartbeat_ms > 0 {
            volatile.heartbeat_deadline = Some(now + Duration::from_millis(heartbeat_ms.into()));
        }
        if execution.cancel_requested {
            self.tell_to_stop(id, &execution, CancelReason::Requested, effects);
        }
        self.arrange(id, slot, effects);
    }

    /// Partition and place of the attempt that `token` names, if it runs on the sender.
    fn running_for(&self, origin: &Origin<'_>, job: JobId, token: Token) -> Result<(PartitionId, u32), Verdict> {
        let id = job.partition();
        let Some((_, worker)) = self.workers.by_session(origin.session) else { return Err(Verdict::Overloaded) };
        let Some(partition) = self.partition(id) else { return Err(Verdict::Overloaded) };
        let slot = partition.slot_of(job).ok_or(Verdict::UnknownJob)?;
        let place = partition.running(slot, token, worker.instance);
        place.map(|place| (id, place)).ok_or(Verdict::StaleToken)
    }
}
