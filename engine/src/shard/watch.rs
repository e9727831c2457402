//! Watching executions: a view at each transition, and when a running attempt gets another status, in order.
//!
//! Watches are volatile: they end with their session, and with a notice when a session would get more in one turn than it may.

use super::{Effects, Origin, Shard, jobs::Denial};
use crate::partition::execution::Execution;
use tickwheel_wire::{
    FireSequence, JobId, PartitionId, SessionRef, TenantId, Timestamp,
    frame::{
        Frame,
        request::{Done, ExecutionState, ExecutionView, Remark, Unwatch, Watch as WatchFrame},
        session::{RefusalCode, Refused},
    },
};

/// Most watches of one shard.
const WATCHES_MAX: usize = 65_536;

/// One watch.
#[derive(Debug)]
pub(super) struct Watch {
    session: SessionRef,
    lane: u8,
    request_id: u64,
    tenant: Option<TenantId>,
    /// Empty: every job.
    name: Box<str>,
}

impl Shard {
    pub(super) fn watch(
        &mut self,
        origin: &Origin<'_>,
        request: &WatchFrame<'_>,
        effects: &mut Effects,
    ) -> Result<(), Denial> {
        let id = self.partition_here(request.partition)?;
        let tenant = self.visible_tenant(origin, request.tenant)?;
        let session = origin.session;
        let watches = self.partitions.iter().flatten().flat_map(|owned| &owned.watches);
        let count = watches.filter(|watch| watch.session == session).count();
        if count >= usize::from(self.config.watches_per_session_max) || self.watch_count >= WATCHES_MAX {
            let message = "the session has as many watches as it may";
            return Err(Denial { field: "watches", ..Denial::new(RefusalCode::Overloaded, message) });
        }
        let (lane, request_id, name) = (origin.lane, request.request_id, request.name.into());
        let watch = Watch { session, lane, request_id, tenant, name };
        self.owned_mut(id).expect("it is here").watches.push(watch);
        self.watch_count += 1;
        origin.reply(effects, &done(request.request_id));
        Ok(())
    }

    pub(super) fn unwatch(
        &mut self,
        origin: &Origin<'_>,
        request: &Unwatch,
        effects: &mut Effects,
    ) -> Result<(), Denial> {
        let id = self.partition_here(request.partition)?;
        let owned = self.owned_mut(id).expect("it is here");
        let before = owned.watches.len();
        owned.watches.retain(|watch| watch.session != origin.session || watch.request_id != request.watch);
        let ended = before - owned.watches.len();
        self.watch_count -= ended;
        origin.reply(effects, &done(request.request_id));
        Ok(())
    }

    /// Ends all watches of a session; with a notice for each if there are effects to put it into.
    pub(super) fn end_watches(&mut self, session: SessionRef, effects: Option<&mut Effects>) {
        if self.watch_count == 0 {
            return;
        }
        let mut ended = Vec::new();
        for owned in self.partitions.iter_mut().flatten() {
            ended.extend(owned.watches.extract_if(.., |watch| watch.session == session));
        }
        self.watch_count -= ended.len();
        if let Some(effects) = effects {
            for watch in &ended {
                let refused = overrun(watch.request_id);
                effects.send(watch.session, watch.lane, |out| refused.encode(out));
            }
        }
    }

    /// Tells of an attempt that was dispatched, or asked to end.
    pub(super) fn notify_in_flight(&mut self, id: PartitionId, place: u32, effects: &mut Effects) {
        let owned = self.owned(id);
        if !owned.watches.is_empty() {
            let view = owned.partition.view_in_flight(place, 0);
            let tenant = owned.partition.tenant_of(owned.partition.executions().get(place).slot);
            let overrun = self.notify(id, self.remark(&view), &view, tenant, effects);
            self.end_overrun(overrun, effects);
        }
    }

    /// Tells of an attempt that ended just now.
    pub(super) fn notify_ended(&mut self, id: PartitionId, slot: u32, effects: &mut Effects) {
        let owned = self.owned(id);
        if owned.watches.is_empty() {
            return;
        }
        let tenant = owned.partition.tenant_of(slot);
        let newest = owned.partition.newest_ended().filter(|attempt| attempt.end.slot == slot);
        if let Some(attempt) = newest {
            let mut view = owned.partition.view_ended(&attempt, 0);
            let mut paused_after_failures = owned.partition.paused_after_failures(slot);
            if let Some(place) = owned.partition.place_of(slot, attempt.end.fire_sequence) {
                let in_flight = owned.partition.view_in_flight(place, 0);
                (view.state, view.finished_at) = (ExecutionState::Retrying, in_flight.finished_at);
                paused_after_failures = 0;
            }
            if matches!(view.state, ExecutionState::Succeeded | ExecutionState::Cancelled) {
                paused_after_failures = 0;
            }
            let remark =
                (paused_after_failures > 0).then_some(Remark { request_id: 0, paused_after_failures, status: "" });
            let overrun = self.notify(id, remark, &view, tenant, effects);
            self.end_overrun(overrun, effects);
        }
    }

    /// Tells of the executions that were given up just now because they were too late.
    pub(super) fn notify_too_late(&mut self, id: PartitionId, slot: u32, count: u32, effects: &mut Effects) {
        let owned = self.owned(id);
        if owned.watches.is_empty() || count == 0 {
            return;
        }
        let tenant = owned.partition.tenant_of(slot);
        let mut newest: Vec<_> = owned.partition.recent().iter().rev().take(count as usize).collect();
        newest.reverse();
        let mut overrun = Vec::new();
        for attempt in newest {
            let view = owned.partition.view_ended(&attempt, 0);
            overrun.extend(self.notify(id, None, &view, tenant, effects));
        }
        self.end_overrun(overrun, effects);
    }

    /// Tells of an execution that was cancelled while no attempt ran.
    pub(super) fn notify_cancelled(
        &mut self,
        id: PartitionId,
        slot: u32,
        execution: Option<&Execution>,
        due_at: Timestamp,
        effects: &mut Effects,
    ) {
        let owned = self.owned(id);
        let Some(record) = owned.partition.job(slot).filter(|_| !owned.watches.is_empty()) else { return };
        let view = ExecutionView {
            request_id: 0,
            job: owned.partition.job_id(slot),
            fire_sequence: execution.map_or(FireSequence(record.fire_sequence()), |execution| execution.fire_sequence),
            token: execution.map_or(record.token(), |execution| execution.token),
            attempt: execution.map_or(0, |execution| execution.attempt),
            state: ExecutionState::Cancelled,
            cancel_requested: true,
            progress_permille: 0,
            scheduled_at: execution.map_or(due_at, |execution| execution.scheduled_at),
            dispatched_at: execution.map_or(Timestamp::EPOCH, |execution| execution.dispatched_at),
            finished_at: self.now.wall,
            run_us: 0,
            tenant: &owned.partition.policy(record).tenant_name,
            name: owned.partition.entry(record).name,
            worker: "",
            error: "",
            output: &[],
        };
        let overrun = self.notify(id, None, &view, owned.partition.tenant_of(slot), effects);
        self.end_overrun(overrun, effects);
    }

    /// Sends a view, behind what more there is to say of it, to all who watch it; returns the sessions that would get too much.
    fn notify(
        &self,
        id: PartitionId,
        remark: Option<Remark<'_>>,
        view: &ExecutionView<'_>,
        tenant: TenantId,
        effects: &mut Effects,
    ) -> Vec<SessionRef> {
        let mut overrun = Vec::new();
        for watch in &self.owned(id).watches {
            let wanted = watch.tenant.is_none_or(|wanted| wanted == tenant)
                && (watch.name.is_empty() || *watch.name == *view.name);
            if !wanted {
                continue;
            }
            let view = ExecutionView { request_id: watch.request_id, ..*view };
            let before = effects.output_bytes();
            effects.send(watch.session, watch.lane, |out| {
                if let Some(remark) = remark {
                    Remark { request_id: watch.request_id, ..remark }.encode(out);
                }
                view.encode(out);
            });
            let sent = effects.output_bytes() - before;
            if effects.count_watched(watch.session, sent) > self.config.watch_bytes_per_turn_max {
                overrun.push(watch.session);
            }
        }
        overrun
    }

    fn end_overrun(&mut self, sessions: Vec<SessionRef>, effects: &mut Effects) {
        for session in sessions {
            self.end_watches(session, Some(effects));
        }
    }
}

impl Effects {
    /// Counts bytes of transitions that a session gets in this turn, and returns how many it got.
    fn count_watched(&mut self, session: SessionRef, bytes: usize) -> usize {
        let counted = self.watched.entry(session).or_insert(0);
        *counted += bytes;
        *counted
    }
}

const fn done(request_id: u64) -> Done {
    Done { request_id, job: JobId::from_raw(0), next_fire: Timestamp::MAX }
}

const fn overrun(request_id: u64) -> Refused<'static> {
    Refused {
        request_id,
        code: RefusalCode::WatchOverrun,
        detail: 0,
        field: "",
        message: "the session reads too slowly for what it watches; the watch has ended",
    }
}
