//! Creating a job, or replacing its definition.
//!
//! A replaced job keeps its identity, fire sequence and token; an execution in flight runs on, and a pending trigger stays.
//! The idempotency key is looked at first: a repeated submission gets the first one's answer and changes nothing.

use super::{
    Flag, NONE, Partition, Turn,
    arena::Entry,
    due::RulesExt,
    idempotency::Submission,
    name_key,
    policy::{Policy, PolicyEntry, Rhythm, Timing},
};
use crate::schedule::{CronError, ExclusionError, Exclusions};
use std::time::Duration;
use tickwheel_wire::{
    JobId, TenantId, Timestamp,
    event::{Event, JobCreated, JobReplaced},
    frame::request::SubmitMode,
    job::JobSpec,
    planted::Mistake,
};
use xxhash_rust::xxh3::xxh3_128;

/// A submission whose fields were checked.
pub(crate) struct SubmitRequest<'a> {
    pub tenant: TenantId,
    pub spec: &'a JobSpec<'a>,
    /// The definition's encoding, which is what is logged.
    pub spec_bytes: &'a [u8],
    pub mode: SubmitMode,
    /// 0: any.
    pub expected_revision: u64,
    /// Hash of the key; 0: none.
    pub idempotency_key: u128,
    pub idempotency_window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubmitAnswer {
    pub job: JobId,
    pub revision: u32,
    pub next_fire: Timestamp,
    pub created: bool,
}

/// Why a submission is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SubmitError {
    #[error("a job with this name exists")]
    AlreadyExists,
    #[error("the job has revision {found}")]
    RevisionConflict { found: u32 },
    #[error("the idempotency key was used for another submission")]
    IdempotencyConflict,
    #[error("the partition remembers as many idempotency keys as it may")]
    IdempotencyFull,
    #[error("the partition has as many jobs as it may")]
    JobsFull,
    #[error("the schedule never fires after now")]
    NeverFires,
    #[error(transparent)]
    Cron(#[from] CronError),
    #[error(transparent)]
    Exclusions(#[from] ExclusionError),
    #[error("the tenant has no calendar `{0}`")]
    UnknownCalendar(Box<str>),
}

impl Partition {
    /// Creates or replaces a job.
    pub(crate) fn submit(
        &mut self,
        request: &SubmitRequest<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<SubmitAnswer, SubmitError> {
        let spec_hash = xxh3_128(request.spec_bytes);
        if let Some(answer) = self.repeated(request, spec_hash, turn.now.wall)? {
            return Ok(answer);
        }
        let existing = self.slot_by_name(request.tenant, request.spec.name);
        let found = existing.map_or(0, |slot| self.revision(slot));
        if existing.is_some() && request.mode == SubmitMode::Create {
            return Err(SubmitError::AlreadyExists);
        }
        if request.mode == SubmitMode::Upsert
            && request.expected_revision != 0
            && request.expected_revision != u64::from(found)
        {
            return Err(SubmitError::RevisionConflict { found });
        }
        if !self.arena.has_room() || (existing.is_none() && self.table.alive_count() >= self.limits.jobs_max) {
            return Err(SubmitError::JobsFull);
        }
        let next_fire = self.first_fire(existing, request, turn)?;
        let slot = match existing {
            Some(slot) => self.replace(slot, request, next_fire, turn),
            None => self.create(request, next_fire, turn),
        };
        let (job, revision) = (self.job_id(slot), self.revision(slot));
        Ok(SubmitAnswer { job, revision, next_fire, created: existing.is_none() })
    }

    /// The answer to a submission that was made before with the same key.
    fn repeated(
        &self,
        request: &SubmitRequest<'_>,
        spec_hash: u128,
        now: Timestamp,
    ) -> Result<Option<SubmitAnswer>, SubmitError> {
        if request.idempotency_key == 0 {
            return Ok(None);
        }
        let Some(first) = self.idempotency.find(request.idempotency_key, now) else {
            let room = self.idempotency.has_room(self.limits.idempotency_keys_max, now);
            return if room { Ok(None) } else { Err(SubmitError::IdempotencyFull) };
        };
        if first.spec_hash != spec_hash {
            return Err(SubmitError::IdempotencyConflict);
        }
        let next_fire = self.slot_of(first.job).map_or(Timestamp::MAX, |slot| self.table.record(slot).next_fire());
        Ok(Some(SubmitAnswer { job: first.job, revision: first.revision, next_fire, created: first.created }))
    }

    /// The first fire time of a definition, without interning it: it may be refused.
    fn first_fire(
        &mut self,
        existing: Option<u32>,
        request: &SubmitRequest<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Timestamp, SubmitError> {
        let spec = request.spec;
        let mut named = Exclusions::calendars_named(spec.exclusions);
        if let Some(name) = named.find(|name| self.calendars.get(request.tenant, name).is_none()) {
            return Err(SubmitError::UnknownCalendar(name.into()));
        }
        let (timing, own) = Timing::of(spec, turn.now.wall);
        let job = match existing {
            Some(slot) => self.job_id(slot),
            None => {
                let slot = self.table.next_slot();
                JobId::new(self.id, self.table.next_generation(slot), slot)
            }
        };
        let schedule = self.rhythms.acquire(Rhythm::new(timing));
        let policy = (!spec.exclusions.is_empty())
            .then(|| self.policies.acquire(PolicyEntry::new(Policy::of(request.tenant, spec))));
        let none = Exclusions::default();
        let exclusions = match policy {
            _ if Mistake::ExclusionsForgottenAtReplacement.is_made() && existing.is_some() => Ok(&none),
            Some(place) => {
                self.policies.value_mut(place).exclusions(&self.calendars, turn.zones).map_err(SubmitError::from)
            }
            None => Ok(&none),
        };
        let rhythm = self.rhythms.value_mut(schedule);
        let first = exclusions.and_then(|exclusions| {
            let mut error = None;
            let first = spec.rules.firing_after(job.raw(), turn.now.wall, |after| {
                let schedule = |after| {
                    let next = rhythm.first_after(own, after, turn.zones);
                    next.unwrap_or_else(|cause| error.replace(cause).and(None))
                };
                exclusions.first_allowed(after, schedule).unwrap_or(Timestamp::MAX)
            });
            error.map_or(Ok(first), |error| Err(error.into()))
        });
        self.rhythms.release(schedule);
        if let Some(policy) = policy {
            self.policies.release(policy);
        }
        match first {
            Ok(first) if first.is_never() => Err(SubmitError::NeverFires),
            // One that has had all its executions already stays finished.
            Ok(_) if existing.is_some_and(|slot| spec.rules.is_used_up(self.table.record(slot).fire_sequence())) => {
                Ok(Timestamp::MAX)
            }
            first => first,
        }
    }

    fn create(&mut self, request: &SubmitRequest<'_>, next_fire: Timestamp, turn: &mut Turn<'_>) -> u32 {
        let slot = self.table.next_slot();
        let at = turn.now.wall;
        let created = JobCreated {
            slot,
            generation: self.table.next_generation(slot),
            tenant: request.tenant,
            at,
            next_fire,
            idempotency_key: request.idempotency_key,
            idempotency_until: at.saturating_add(request.idempotency_window),
            spec: request.spec_bytes,
        };
        self.emit(turn.events, &Event::JobCreated(created));
        slot
    }

    fn replace(&mut self, slot: u32, request: &SubmitRequest<'_>, next_fire: Timestamp, turn: &mut Turn<'_>) -> u32 {
        let at = turn.now.wall;
        let replaced = JobReplaced {
            slot,
            at,
            next_fire,
            idempotency_key: request.idempotency_key,
            idempotency_until: at.saturating_add(request.idempotency_window),
            spec: request.spec_bytes,
        };
        self.emit(turn.events, &Event::JobReplaced(replaced));
        slot
    }

    pub(super) fn apply_created(&mut self, created: &JobCreated<'_>) {
        let spec = decode(created.spec);
        if let Some(walk) = &mut self.snapshot {
            walk.keep(created.slot, &self.table);
        }
        self.table.take(created.slot, created.generation);
        self.define(created.slot, created.tenant, &spec, created.at, 1, created.at);
        let record = self.table.record_mut(created.slot);
        record.next_fire_raw = created.next_fire.as_micros();
        record.set(Flag::PAUSED, spec.paused);
        let (table, arena, policies) = (&self.table, &self.arena, &self.policies);
        self.names.insert(name_key(created.tenant, spec.name), created.slot, |slot| {
            let record = table.record(slot);
            name_key(policies.value(record.policy).policy.tenant, arena.entry(record.data).name)
        });
        let (key, until) = (created.idempotency_key, created.idempotency_until);
        self.remember(key, until, created.spec, created.slot, created.at, true);
    }

    pub(super) fn apply_replaced(&mut self, replaced: &JobReplaced<'_>) {
        let spec = decode(replaced.spec);
        let slot = replaced.slot;
        self.unfinish(slot);
        let old = *self.change(slot);
        let tenant = self.policies.value(old.policy).policy.tenant;
        let entry = self.arena.entry(old.data);
        let (revision, created_at) = (entry.revision.saturating_add(1), Timestamp::from_micros(entry.created_at));
        self.define(slot, tenant, &spec, created_at, revision, replaced.at);
        self.retire(old.data, old.policy, old.schedule);
        let record = self.table.record_mut(slot);
        record.next_fire_raw = replaced.next_fire.as_micros();
        record.set(Flag::PAUSED, spec.paused);
        self.standings.remove(slot);
        self.settle(slot, replaced.at);
        self.remember(replaced.idempotency_key, replaced.idempotency_until, replaced.spec, slot, replaced.at, false);
    }

    /// Stores a definition and points the record to it.
    fn define(
        &mut self,
        slot: u32,
        tenant: TenantId,
        spec: &JobSpec<'_>,
        created_at: Timestamp,
        revision: u32,
        at: Timestamp,
    ) {
        let (timing, own) = Timing::of(spec, at);
        // What equals the time of creation is not stored twice.
        let parameter = own.filter(|own| *own != created_at).map(Timestamp::as_micros);
        let created_at = created_at.as_micros();
        let entry = Entry { slot, revision, created_at, parameter, name: spec.name, payload: spec.payload };
        let data = self.arena.insert(&entry);
        let mut policy = Policy::of(tenant, spec);
        if Mistake::ReplacedJobKeepsLabels.is_made() && revision > 1 {
            policy.labels = self.policies.value(self.table.record(slot).policy).policy.labels.clone();
        }
        let is_ruled = policy.is_ruled(&timing);
        let policy = self.policies.acquire(PolicyEntry::new(policy));
        let schedule = self.rhythms.acquire(Rhythm::new(timing));
        let record = self.table.record_mut(slot);
        record.set(Flag::RULED, is_ruled);
        (record.data, record.policy, record.schedule) = (data, policy, schedule);
    }

    /// Gives up what a record pointed to; while a snapshot is written, later.
    pub(super) fn retire(&mut self, data: u32, policy: u32, schedule: u32) {
        assert!(data != NONE && policy != NONE && schedule != NONE, "a job has a definition");
        if let Some(walk) = &mut self.snapshot {
            walk.retired.push((data, policy, schedule));
            return;
        }
        self.arena.release(data, &mut self.table);
        self.policies.release(policy);
        self.rhythms.release(schedule);
    }

    fn remember(&mut self, key: u128, until: Timestamp, spec: &[u8], slot: u32, at: Timestamp, created: bool) {
        if key != 0 {
            let (job, revision) = (self.job_id(slot), self.revision(slot));
            let submission = Submission { spec_hash: xxh3_128(spec), job, revision, created, until };
            self.idempotency.insert(key, submission, at);
        }
    }

    pub(crate) fn revision(&self, slot: u32) -> u32 {
        self.arena.entry(self.table.record(slot).data).revision
    }
}

fn decode(bytes: &[u8]) -> JobSpec<'_> {
    JobSpec::decode(bytes).expect("a definition is logged only when it could be decoded")
}
