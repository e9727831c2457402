//! Requests that only look: one job, one execution, pages of both.
//!
//! A page looks at a bounded number of entries, labels counting for several, and holds a bounded number of bytes, so it may
//! be short, or empty, before the last: only the cursor tells the end. A job that appears or goes between two pages may be missed
//! or met twice; one that stays is met once.

use super::{
    Effects, Origin, Refusal, Shard,
    jobs::{Denial, unknown_job},
};
use crate::partition::{Partition, query::state_of, recent::Attempt, record::JobRecord};
use tickwheel_wire::{
    DecodeError, TenantId, Timestamp,
    frame::{
        Frame, FrameType,
        request::{
            ExecutionById, ExecutionSelection, ExecutionState, ExecutionView, JobByName, JobSelection, LetterSelection,
            ListCalendars, ListDeadLetters, ListExecutions, ListJobs, PageEnd, Remark, Unwatch, Watch,
        },
        session::RefusalCode,
    },
    job::{JobStates, LabelSelector},
    limits::PAGE_ENTRIES_MAX,
    planted::Mistake,
};

/// Entries that a page looks at.
const LOOKS_PER_PAGE: u64 = 8_192;
/// Looks in the time of which the labels of one policy are found and compared, however short; they lie elsewhere in memory.
const LOOKS_PER_LABELS: u64 = 15;
/// Bytes of labels that are compared in the time of one look.
const LABEL_BYTES_PER_LOOK: u64 = 64;
/// Policies whose labels a page remembers to have compared.
const POLICIES_REMEMBERED: usize = 64;
/// Bytes after which a page ends.
pub(super) const PAGE_BYTES: usize = 512 << 10;
/// In the cursor of a list of executions: the part that was reached is that of attempts which ended.
const CURSOR_ENDED: u64 = 1 << 63;

/// Which jobs a list is about, itself or by their executions.
struct Filter<'a> {
    tenant: Option<TenantId>,
    prefix: &'a str,
    /// Empty: any name.
    exact: &'a str,
    labels: LabelSelector<'a>,
    states: JobStates,
}

impl Filter<'_> {
    /// Whether a job that exists is one of them.
    fn admits(&self, partition: &Partition, record: &JobRecord, page: &mut Page) -> bool {
        let policy = partition.policy(record);
        self.tenant.is_none_or(|wanted| wanted == policy.tenant)
            && self.states.admits(partition.states_of(record))
            // Names lie elsewhere in memory; they are not asked for when any will do.
            && (self.is_of_any_name() || self.admits_name(partition.entry(record).name))
            && (self.labels.is_empty() || page.admits_labels(&self.labels, record.policy, &policy.labels))
    }

    /// Whether jobs that are gone can be among them, as far as the rest of it goes.
    fn is_of_gone_jobs(&self) -> bool {
        self.tenant.is_none() && self.labels.is_empty() && self.states == JobStates::NONE
    }

    const fn is_of_any_name(&self) -> bool {
        self.prefix.is_empty() && self.exact.is_empty()
    }

    fn admits_name(&self, name: &str) -> bool {
        name.starts_with(self.prefix) && (self.exact.is_empty() || name == self.exact)
    }
}

impl Shard {
    pub(super) fn handle_query(
        &mut self,
        origin: &Origin<'_>,
        frame_type: FrameType,
        body: &[u8],
        effects: &mut Effects,
    ) -> Result<(), DecodeError> {
        let (request_id, answered) = match frame_type {
            FrameType::JobByName => {
                let request = JobByName::decode_body(body)?;
                (request.request_id, self.job_by_name(origin, &request, effects))
            }
            FrameType::ListJobs => {
                let request = ListJobs::decode_body(body)?;
                (request.request_id, self.list_jobs(origin, &request, effects))
            }
            FrameType::ListExecutions => {
                let request = ListExecutions::decode_body(body)?;
                (request.request_id, self.list_executions(origin, &request, effects))
            }
            FrameType::ListDeadLetters => {
                let request = ListDeadLetters::decode_body(body)?;
                (request.request_id, self.list_dead_letters(origin, &request, effects))
            }
            FrameType::ListCalendars => {
                let request = ListCalendars::decode_body(body)?;
                (request.request_id, self.list_calendars(origin, &request, effects))
            }
            FrameType::ExecutionById => {
                let request = ExecutionById::decode_body(body)?;
                (request.request_id, self.execution_by_id(origin, &request, effects))
            }
            FrameType::Watch => {
                let request = Watch::decode_body(body)?;
                (request.request_id, self.watch(origin, &request, effects))
            }
            FrameType::Unwatch => {
                let request = Unwatch::decode_body(body)?;
                (request.request_id, self.unwatch(origin, &request, effects))
            }
            _ => {
                let request_id = super::request_id_of(frame_type, body);
                let message = "a client may not send this frame";
                origin.refuse(effects, &Refusal::new(request_id, RefusalCode::WrongRole, message));
                return Ok(());
            }
        };
        if let Err(denial) = answered {
            denial.send(origin, request_id, effects);
        }
        Ok(())
    }

    fn job_by_name(
        &mut self,
        origin: &Origin<'_>,
        request: &JobByName<'_>,
        effects: &mut Effects,
    ) -> Result<(), Denial> {
        let tenant = self.tenant(origin, request.tenant)?;
        let id = self.partition_of_name(request.partition, request.tenant, request.name)?;
        let slot = self.slot(id, tenant, request.name)?;
        let mut spec = std::mem::take(&mut self.scratch);
        reply_job(origin, &self.owned(id).partition, slot, request.request_id, &mut spec, effects);
        self.scratch = spec;
        Ok(())
    }

    fn list_jobs(&mut self, origin: &Origin<'_>, request: &ListJobs<'_>, effects: &mut Effects) -> Result<(), Denial> {
        let id = self.partition_here(request.partition)?;
        let tenant = self.visible_tenant(origin, request.tenant)?;
        let JobSelection { labels, states } = request.selection;
        let filter = Filter { tenant, prefix: request.prefix, exact: "", labels: selector(labels)?, states };
        let mut spec = std::mem::take(&mut self.scratch);
        let mut page = Page::new(request.limit, effects);
        let partition = &self.owned(id).partition;
        let slot_count = u64::from(partition.slot_count());
        let mut cursor = request.cursor;
        while cursor < slot_count && page.may_look(effects) {
            let slot = u32::try_from(cursor).expect("below the number of slots");
            cursor += 1;
            let Some(record) = partition.job(slot) else { continue };
            if filter.admits(partition, record, &mut page) {
                reply_job(origin, partition, slot, request.request_id, &mut spec, effects);
                page.count += 1;
            }
        }
        let cursor = cursor + u64::from(Mistake::PageSkipsJob.is_made());
        let cursor = if cursor < slot_count { cursor } else { PageEnd::LAST };
        origin.reply(effects, &PageEnd { request_id: request.request_id, cursor });
        self.scratch = spec;
        Ok(())
    }

    fn list_executions(
        &self,
        origin: &Origin<'_>,
        request: &ListExecutions<'_>,
        effects: &mut Effects,
    ) -> Result<(), Denial> {
        let id = self.partition_here(request.partition)?;
        let tenant = self.visible_tenant(origin, request.tenant)?;
        let ExecutionSelection { prefix, labels, in_flight } = request.selection;
        let (labels, states) = (selector(labels)?, JobStates::NONE);
        let filter = Filter { tenant, prefix, exact: request.name, labels, states };
        let partition = &self.owned(id).partition;
        let mut page = Page::new(request.limit, effects);
        let mut cursor = request.cursor;
        while cursor & CURSOR_ENDED == 0 && page.may_look(effects) {
            let Ok(place) = usize::try_from(cursor) else { break };
            if place >= partition.executions().place_count() {
                cursor = CURSOR_ENDED;
                break;
            }
            cursor += 1;
            let view = partition.executions().at(place).map(|_| {
                let place = u32::try_from(place).expect("places are numbered so");
                partition.view_in_flight(place, request.request_id)
            });
            if let Some(view) = view.filter(|view| page.admits(view, &filter, partition)) {
                self.reply_execution(origin, &view, effects);
            }
        }
        if cursor & CURSOR_ENDED != 0 && in_flight {
            cursor = PageEnd::LAST;
        } else if cursor & CURSOR_ENDED != 0 {
            cursor = self.list_ended(origin, request, cursor, &filter, &mut page, effects);
        }
        origin.reply(effects, &PageEnd { request_id: request.request_id, cursor });
        Ok(())
    }

    /// The executions that ended, the newest first; attempts that were followed by another are left out.
    fn list_ended(
        &self,
        origin: &Origin<'_>,
        request: &ListExecutions<'_>,
        cursor: u64,
        filter: &Filter<'_>,
        page: &mut Page,
        effects: &mut Effects,
    ) -> u64 {
        let partition = &self.owned(request.partition).partition;
        let first = usize::try_from(cursor & !CURSOR_ENDED).unwrap_or(usize::MAX);
        for (place, attempt) in partition.recent().iter().rev().enumerate().skip(first) {
            if !page.may_look(effects) {
                return CURSOR_ENDED | place as u64;
            }
            if is_final(&attempt) {
                let view = partition.view_ended(&attempt, request.request_id);
                if page.admits(&view, filter, partition) {
                    origin.reply(effects, &view);
                }
            }
        }
        PageEnd::LAST
    }

    fn list_dead_letters(
        &self,
        origin: &Origin<'_>,
        request: &ListDeadLetters<'_>,
        effects: &mut Effects,
    ) -> Result<(), Denial> {
        let id = self.partition_here(request.partition)?;
        let tenant = self.visible_tenant(origin, request.tenant)?;
        let LetterSelection { labels, states, oldest_first, .. } = request.selection;
        let filter = Filter { tenant, prefix: request.prefix, exact: "", labels: selector(labels)?, states };
        let partition = &self.owned(id).partition;
        let letters = partition.dead_letters();
        let mut page = Page::new(request.limit, effects);
        let mut cursor = request.cursor;
        // The cursor counts the letters from the newest, or is the number of the next one: so both go on where they were, whatever is
        // forgotten meanwhile.
        loop {
            let found = if oldest_first { letters.next_from(cursor) } else { letters.nth_newest(cursor) };
            let Some((place, letter)) = found else {
                cursor = PageEnd::LAST;
                break;
            };
            if !page.may_look(effects) {
                break;
            }
            cursor = place + 1;
            if letter.dead && is_selected(&letter, &request.selection) {
                let view = partition.view_ended(&letter, request.request_id);
                if page.admits(&view, &filter, partition) {
                    origin.reply(effects, &view);
                }
            }
        }
        origin.reply(effects, &PageEnd { request_id: request.request_id, cursor });
        Ok(())
    }

    fn execution_by_id(
        &self,
        origin: &Origin<'_>,
        request: &ExecutionById,
        effects: &mut Effects,
    ) -> Result<(), Denial> {
        let id = self.partition_of_id(request.partition, request.job)?;
        let partition = &self.owned(id).partition;
        let view = partition.view_execution(request.job, request.fire_sequence, request.request_id);
        let visible = view.filter(|view| {
            let tenant = self.config.directory.tenant(view.tenant);
            origin.identity.tenant.is_none() || tenant.is_some_and(|tenant| origin.identity.may_act_for(tenant))
        });
        let Some(view) = visible else {
            let gone = partition.slot_of(request.job).is_none();
            let message = "the execution is not in flight, and not among those that are remembered";
            return Err(if gone { unknown_job() } else { Denial::new(RefusalCode::UnknownExecution, message) });
        };
        self.reply_execution(origin, &view, effects);
        Ok(())
    }

    /// Answers with an execution, and before it with what more there is to say.
    fn reply_execution(&self, origin: &Origin<'_>, view: &ExecutionView<'_>, effects: &mut Effects) {
        if let Some(remark) = self.remark(view) {
            origin.reply(effects, &remark);
        }
        origin.reply(effects, view);
    }

    /// What its handler says about an attempt that runs.
    pub(super) fn remark(&self, view: &ExecutionView<'_>) -> Option<Remark<'_>> {
        let status = self.statuses.of(view.job, view.token);
        let is_shown = view.state == ExecutionState::Running && !status.is_empty();
        is_shown.then_some(Remark { request_id: view.request_id, paused_after_failures: 0, status })
    }

    /// The tenant that a list is about: the one named, or the sender's; `None`: all.
    pub(super) fn visible_tenant(&self, origin: &Origin<'_>, name: &str) -> Result<Option<TenantId>, Denial> {
        if name.is_empty() { Ok(origin.identity.tenant) } else { self.tenant(origin, name).map(Some) }
    }
}

/// Whether no other attempt followed.
const fn is_final(attempt: &Attempt<'_>) -> bool {
    attempt.retry_at == 0
}

fn selector(labels: &str) -> Result<LabelSelector<'_>, Denial> {
    LabelSelector::parse(labels).map_err(|error| {
        let message = format!("`labels`: {error}");
        Denial::of_field(RefusalCode::InvalidField, "labels", error.limit(), message)
    })
}

/// A page being filled.
struct Page {
    /// How many more entries it looks at.
    looks: u64,
    count: u16,
    limit: u16,
    bytes_end: usize,
    /// Policies, by the low bits of their places, and whether their labels were admitted.
    policies: [Option<(u32, bool)>; POLICIES_REMEMBERED],
}

impl Page {
    fn new(limit: u16, effects: &Effects) -> Self {
        let (limit, bytes_end) = (limit.clamp(1, PAGE_ENTRIES_MAX), effects.output_bytes() + PAGE_BYTES);
        Self { looks: LOOKS_PER_PAGE, count: 0, limit, bytes_end, policies: [None; POLICIES_REMEMBERED] }
    }

    /// Whether another entry may be looked at, which counts.
    fn may_look(&mut self, effects: &Effects) -> bool {
        let may = self.looks > 0 && self.count < self.limit && effects.output_bytes() < self.bytes_end;
        self.looks = self.looks.saturating_sub(1);
        may
    }

    /// Whether the labels of a policy are admitted. Many jobs share them, so that most are compared once.
    fn admits_labels(&mut self, selector: &LabelSelector<'_>, policy: u32, labels: &str) -> bool {
        let remembered = &mut self.policies[policy as usize % POLICIES_REMEMBERED];
        match *remembered {
            Some((known, admitted)) if known == policy => admitted,
            _ => {
                self.looks = self.looks.saturating_sub(LOOKS_PER_LABELS + labels.len() as u64 / LABEL_BYTES_PER_LOOK);
                let admitted = selector.admits(labels);
                *remembered = Some((policy, admitted));
                admitted
            }
        }
    }

    /// Whether the page is to hold a view, which counts.
    fn admits(&mut self, view: &ExecutionView<'_>, filter: &Filter<'_>, partition: &Partition) -> bool {
        let record = partition.slot_of(view.job).and_then(|slot| partition.job(slot));
        let admitted = match record {
            Some(record) => filter.admits(partition, record, self),
            // Of a job that is gone only the names are left, so its tenant is compared by the caller's right to see all.
            None => filter.is_of_gone_jobs() && filter.admits_name(view.name),
        };
        self.count += u16::from(admitted);
        admitted
    }
}

/// Answers with a job, and before it with what more there is to say.
fn reply_job(
    origin: &Origin<'_>,
    partition: &Partition,
    slot: u32,
    request_id: u64,
    spec: &mut Vec<u8>,
    effects: &mut Effects,
) {
    let paused_after_failures = partition.paused_after_failures(slot);
    if paused_after_failures > 0 {
        origin.reply(effects, &Remark { request_id, paused_after_failures, status: "" });
    }
    origin.reply(effects, &partition.job_view(slot, request_id, spec));
}

/// Whether a dead letter is one of those that are asked for by time and error.
fn is_selected(letter: &Attempt<'_>, selection: &LetterSelection<'_>) -> bool {
    let LetterSelection { since, until, error, .. } = *selection;
    let (ended_at, kind) = (letter.end.finished_at, letter.texts.error);
    let is_in_time = ended_at >= since && (until == Timestamp::EPOCH || ended_at < until);
    let is_named = || if kind.is_empty() { state_of(letter.end.outcome).name() == error } else { kind == error };
    is_in_time && (error.is_empty() || is_named())
}
