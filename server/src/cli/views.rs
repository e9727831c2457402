//! The JSON that the reading commands write. Its keys are stable: keys are added, never renamed or dropped.
//!
//! Rules: keys are `snake_case`; a time `x` is RFC 3339 in UTC, and `x_us` beside it the same in microseconds since 1970; what does not exist
//! is `null`, never left out; ids are strings; bytes are text, with what is no UTF-8 replaced.
//!
//! | command | JSON |
//! |---|---|
//! | `job list` | array of [`JobRow`] |
//! | `job get` | [`JobRow`] |
//! | `job apply` | array of [`AppliedRow`] |
//! | `job export` | array of the keys of each job, as the jobs file has them; no others |
//! | `job import` | [`ImportAnswer`] |
//! | `job pause`, `resume`, `trigger`, `delete`, `execution cancel`, `redrive` | array of [`ChangedRow`] |
//! | `execution list`, `dead-letters` | array of [`ExecutionRow`] |
//! | `execution get` | [`ExecutionRow`] |
//! | `execution watch` | [`ExecutionRow`], one line each |
//! | `calendar list` | array of [`CalendarRow`] |
//! | `calendar get` | [`CalendarRow`] |
//! | `calendar set`, `delete` | [`CalendarChange`] |
//! | `cron next` | array of [`FireRow`] |
//! | `cron explain` | [`ExplanationAnswer`] |

use super::times::rfc3339;
use crate::jobs_file::write::Keys;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use tickwheel_client::{Calendar, Execution, FiringRules, Job, JobDefinition, RetryPolicy, Schedule, Timestamp};
use tickwheel_engine::schedule::{ClockChange, ClockChangeEffect, Fires, ZonedTime};

#[derive(Debug, Serialize)]
pub(super) struct JobRow {
    id: String,
    tenant: String,
    name: String,
    handler: String,
    schedule: ScheduleRow,
    /// Further schedules.
    also: Vec<ScheduleRow>,
    /// Entries of times at which it does not fire.
    exclusions: Vec<String>,
    payload: String,
    payload_bytes: usize,
    pool: String,
    priority: &'static str,
    retry: RetryRow,
    /// `null`: without limit.
    timeout_ms: Option<u64>,
    heartbeat_ms: Option<u64>,
    #[serde(flatten)]
    rules: RulesRow,
    labels: BTreeMap<String, String>,
    paused: bool,
    /// `by-request` or `after-failures`; `null`: it is not paused.
    pause_reason: Option<&'static str>,
    /// With `after-failures`: after how many one after another.
    paused_after_failures: Option<u16>,
    revision: u64,
    created_at: Option<String>,
    created_at_us: u64,
    /// `null`: it fires no more. While it is paused it does not fire at that time.
    next_fire_at: Option<String>,
    next_fire_at_us: Option<u64>,
    /// How often it has fired.
    fire_sequence: u64,
    /// `none`, `running`, `retrying`, `succeeded`, `failed`, `cancelled`, `timed-out`, `worker-lost`, `too-late`.
    last_state: &'static str,
    last_finished_at: Option<String>,
    last_finished_at_us: Option<u64>,
}

/// Which of a job's firings are executed.
#[derive(Debug, Serialize)]
struct RulesRow {
    misfire: &'static str,
    misfire_max: u32,
    /// `null`: `skip` allows a minute, the others any time.
    misfire_grace_ms: Option<u32>,
    overlap: &'static str,
    overlap_max: u32,
    /// `null`: without limit; so the next, and `executions_max`.
    schedule_to_start_ms: Option<u32>,
    pause_after_failures: Option<u16>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    executions_max: Option<u32>,
    jitter_ms: u32,
    dst_gap: &'static str,
    dst_overlap: &'static str,
    day_rule: &'static str,
}

impl From<FiringRules> for RulesRow {
    fn from(rules: FiringRules) -> Self {
        let given = |value: u32| Some(value).filter(|value| *value > 0);
        Self {
            misfire: rules.misfire.name(),
            misfire_max: rules.misfire_max,
            misfire_grace_ms: given(rules.misfire_grace_ms),
            overlap: rules.overlap.name(),
            overlap_max: rules.overlap_max,
            schedule_to_start_ms: given(rules.schedule_to_start_ms),
            pause_after_failures: Some(rules.pause_after_failures).filter(|count| *count > 0),
            starts_at: Some(rules.starts_at).filter(|at| *at > Timestamp::EPOCH).and_then(rfc3339),
            ends_at: Some(rules.ends_at).filter(|at| !at.is_never()).and_then(rfc3339),
            executions_max: given(rules.executions_max),
            jitter_ms: rules.jitter_ms,
            dst_gap: rules.dst_gap.name(),
            dst_overlap: rules.dst_overlap.name(),
            day_rule: rules.day_rule.name(),
        }
    }
}

/// `type` says which.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ScheduleRow {
    Cron { expression: String, zone: String },
    Interval { every_us: u64, anchor: Option<String>, anchor_us: Option<u64> },
    Once { at: Option<String>, at_us: u64 },
    After { delay_us: u64 },
    FixedDelay { delay_us: u64 },
    Unknown,
}

#[derive(Debug, Serialize)]
pub(super) struct RetryRow {
    attempts_max: u16,
    initial_ms: u32,
    multiplier: f64,
    delay_ms_max: u32,
    jitter_percent: u8,
    non_retryable: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ExecutionRow {
    id: String,
    job_id: String,
    fire_sequence: u64,
    tenant: String,
    job: String,
    token: u64,
    attempt: u16,
    /// As `last_state` of a job.
    state: &'static str,
    cancel_requested: bool,
    progress_permille: u16,
    /// What its handler says about a running attempt; `null`: nothing.
    status: Option<String>,
    /// In a watch: the end of the execution paused the job, after so many failures one after another.
    paused_job_after_failures: Option<u16>,
    scheduled_at: Option<String>,
    scheduled_at_us: u64,
    dispatched_at: Option<String>,
    dispatched_at_us: u64,
    /// When the attempt ended, or, when retrying, the next one starts.
    finished_at: Option<String>,
    finished_at_us: Option<u64>,
    run_us: u64,
    worker: String,
    error: Option<String>,
    output: String,
}

#[derive(Debug, Serialize)]
pub(super) struct BackfillAnswer {
    pub name: String,
    /// How many firings.
    pub count: u64,
    /// Whether they were only counted.
    pub dry_run: bool,
}

/// A calendar that the server keeps.
#[derive(Debug, Serialize)]
pub(super) struct CalendarRow {
    pub tenant: String,
    pub name: String,
    /// Its entries.
    pub exclusions: Vec<String>,
}

impl From<Calendar> for CalendarRow {
    fn from(calendar: Calendar) -> Self {
        let Calendar { tenant, name, exclusions, .. } = calendar;
        Self { tenant, name, exclusions: exclusions.lines().map(str::to_owned).collect() }
    }
}

/// What has become of a calendar.
#[derive(Debug, Serialize)]
pub(super) struct CalendarChange {
    pub tenant: String,
    pub name: String,
    /// `set` or `deleted`.
    pub action: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct AppliedRow {
    pub tenant: String,
    pub name: String,
    /// `create`, `change`, `unchanged` or `delete`; `null`: the server would not say how the job stands.
    pub plan: Option<&'static str>,
    /// With `change`: the keys in which it differs.
    pub changes: Vec<ChangeRow>,
    /// `created`, `changed`, `unchanged`, `deleted`, `conflict` or `refused`.
    pub action: &'static str,
    /// Whether it was only asked what would be done.
    pub dry_run: bool,
    /// Of a conflict: that which was found. Of what was deleted or refused: that which the plan has seen. `null`: there is no job.
    pub revision: Option<u64>,
    pub next_fire_at: Option<String>,
    pub next_fire_at_us: Option<u64>,
    /// Why it was refused, or what is in conflict.
    pub reason: Option<String>,
}

/// A job or an execution that was to be changed.
#[derive(Debug, Serialize)]
pub(super) struct ChangedRow {
    pub tenant: String,
    pub name: String,
    pub job_id: String,
    /// `null`: it is a job; so `scheduled_at`.
    pub execution_id: Option<String>,
    /// When the execution was to fire.
    pub scheduled_at: Option<String>,
    pub scheduled_at_us: Option<u64>,
    /// `paused`, `resumed`, `triggered`, `deleted`, `cancelled` (its worker is told to end it), `redriven` (it is to be tried again), `unchanged`
    /// (it was so already), `conflict` (it was changed meanwhile) or `failed`.
    pub action: &'static str,
    /// Whether it was only asked what would be done.
    pub dry_run: bool,
    /// Of many jobs: that which each had to have.
    pub revision: Option<u64>,
    pub next_fire_at: Option<String>,
    pub next_fire_at_us: Option<u64>,
    /// Why it failed, or what is in conflict.
    pub reason: Option<String>,
}

impl ChangedRow {
    /// The row of one execution with which something was done.
    pub fn of(execution: &Execution, action: &'static str) -> Self {
        Self {
            tenant: execution.tenant.clone(),
            name: execution.job_name.clone(),
            job_id: execution.id.job.to_string(),
            execution_id: Some(execution.id.to_string()),
            scheduled_at: rfc3339(execution.scheduled_at),
            scheduled_at_us: Some(execution.scheduled_at.as_micros()),
            action,
            dry_run: false,
            revision: None,
            next_fire_at: None,
            next_fire_at_us: None,
            reason: None,
        }
    }
}

/// A key of the jobs file that changes; those of tables are told one by one, as in `retry.initial`.
#[derive(Debug, Serialize)]
pub(super) struct ChangeRow {
    pub key: String,
    /// `null`: the key is not given; so `to`.
    #[serde(serialize_with = "optional_value")]
    pub from: Option<toml::Value>,
    #[serde(serialize_with = "optional_value")]
    pub to: Option<toml::Value>,
}

#[derive(Debug, Serialize)]
pub(super) struct ImportAnswer {
    pub jobs: Vec<ImportedRow>,
    pub refused: Vec<RefusedPartRow>,
    /// What is no job.
    pub skipped: Vec<SkippedRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct ImportedRow {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub name: String,
    pub schedule: ScheduleRow,
    /// Further schedules.
    pub also: Vec<ScheduleRow>,
    #[serde(skip)]
    pub schedule_text: String,
    pub next_fires: Vec<FireRow>,
    pub notes: Vec<String>,
    /// What became of it; `null` in a dry run.
    pub applied: Option<AppliedRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct RefusedPartRow {
    pub file: String,
    /// From 1; `null`: of no line in particular.
    pub line: Option<usize>,
    pub text: String,
    pub reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct SkippedRow {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub note: String,
}

#[derive(Debug, Serialize)]
pub(super) struct FireRow {
    /// RFC 3339 with the zone's offset at that time.
    pub at: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ExplanationAnswer {
    /// As it was written.
    pub expression: String,
    /// With the values that a job's name chooses in place of `H`.
    pub settled: String,
    pub zone: String,
    /// `skip` or `fire-after`.
    pub gap: &'static str,
    /// `first`, `second` or `both`.
    pub overlap: &'static str,
    /// `or` or `and`.
    pub day_rule: &'static str,
    /// What the expression says, in words.
    pub text: String,
    pub next: Vec<FireRow>,
    /// The next two within two years.
    pub clock_changes: Vec<ClockChangeRow>,
}

/// Times have the zone's offset at that time.
#[derive(Debug, Serialize)]
pub(super) struct ClockChangeRow {
    /// The first instant with the new offset.
    pub at: String,
    /// `gap` or `overlap`.
    pub kind: &'static str,
    pub offset_before_s: i32,
    pub offset_after_s: i32,
    /// What the clock shows at the change by the offset before, without an offset.
    pub local_before: String,
    /// And by the offset after.
    pub local_after: String,
    /// The first few of the expression's local times that are left out or shown twice, without an offset.
    pub times: Vec<String>,
    /// How many there are.
    pub time_count: u32,
    /// `gap`: the fire that stands for all of them.
    pub fire_at: Option<String>,
    /// `gap`: the first fire from the change on.
    pub next_fire_at: Option<String>,
    /// `overlap`: the fires when they are shown first.
    pub first: Option<FiresRow>,
    /// `overlap`: the fires when they are shown again.
    pub second: Option<FiresRow>,
    /// All this in words.
    pub text: String,
}

#[derive(Debug, Serialize)]
pub(super) struct FiresRow {
    pub count: u32,
    pub first_at: String,
    pub last_at: String,
}

impl From<Fires> for FiresRow {
    fn from(fires: Fires) -> Self {
        Self { count: fires.count, first_at: fires.first.to_string(), last_at: fires.last.to_string() }
    }
}

impl From<&ClockChange> for ClockChangeRow {
    fn from(change: &ClockChange) -> Self {
        let ClockChange { at, offset_before_s, offset_after_s, ref times, time_count, ref effect } = *change;
        let (local_before, local_after) = change.local();
        let shown = |time: Option<ZonedTime>| time.map(|time| time.to_string());
        let (kind, fire_at, next_fire_at, first, second) = match *effect {
            ClockChangeEffect::Gap { fire, next } => ("gap", shown(fire), shown(next), None, None),
            ClockChangeEffect::Overlap { first, second } => {
                ("overlap", None, None, first.map(FiresRow::from), second.map(FiresRow::from))
            }
            _ => ("unknown", None, None, None, None),
        };
        Self {
            at: ZonedTime { at, offset_s: offset_after_s }.to_string(),
            kind,
            offset_before_s,
            offset_after_s,
            local_before: local_before.to_string(),
            local_after: local_after.to_string(),
            times: times.iter().map(ToString::to_string).collect(),
            time_count,
            fire_at,
            next_fire_at,
            first,
            second,
            text: change.to_string(),
        }
    }
}

impl From<&Job> for JobRow {
    fn from(job: &Job) -> Self {
        let JobDefinition { tenant, name, handler, schedule, payload, pool, .. } = &job.definition;
        Self {
            id: job.id.to_string(),
            tenant: tenant.clone(),
            name: name.clone(),
            handler: handler.clone(),
            schedule: schedule.into(),
            also: also(&job.definition),
            exclusions: job.definition.exclusions.lines().map(str::to_owned).collect(),
            payload: text(payload),
            payload_bytes: payload.len(),
            pool: pool.clone(),
            priority: job.definition.priority.name(),
            retry: (&job.definition).into(),
            timeout_ms: job.definition.start_to_close.map(millis),
            heartbeat_ms: job.definition.heartbeat.map(millis),
            rules: job.definition.rules.into(),
            labels: job.definition.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            paused: job.paused,
            pause_reason: job.paused.then_some(match job.paused_after_failures {
                Some(_) => "after-failures",
                None => "by-request",
            }),
            paused_after_failures: job.paused_after_failures,
            revision: job.revision,
            created_at: rfc3339(job.created_at),
            created_at_us: job.created_at.as_micros(),
            next_fire_at: job.next_fire.and_then(rfc3339),
            next_fire_at_us: job.next_fire.map(Timestamp::as_micros),
            fire_sequence: job.fire_sequence.0,
            last_state: job.last_state.name(),
            last_finished_at: job.last_finished_at.and_then(rfc3339),
            last_finished_at_us: job.last_finished_at.map(Timestamp::as_micros),
        }
    }
}

impl From<&Schedule> for ScheduleRow {
    fn from(schedule: &Schedule) -> Self {
        match schedule {
            Schedule::Cron { expression, zone } => Self::Cron { expression: expression.clone(), zone: zone.clone() },
            Schedule::Interval { every, anchor } => Self::Interval {
                every_us: micros(*every),
                anchor: anchor.and_then(rfc3339),
                anchor_us: anchor.map(Timestamp::as_micros),
            },
            Schedule::Once { at } => Self::Once { at: rfc3339(*at), at_us: at.as_micros() },
            Schedule::After { delay } => Self::After { delay_us: micros(*delay) },
            Schedule::FixedDelay { delay } => Self::FixedDelay { delay_us: micros(*delay) },
            _ => Self::Unknown,
        }
    }
}

/// The schedules of a job besides its first.
pub(super) fn also(definition: &JobDefinition) -> Vec<ScheduleRow> {
    definition.schedules().skip(1).map(|schedule| ScheduleRow::from(&schedule)).collect()
}

impl From<&JobDefinition> for RetryRow {
    fn from(definition: &JobDefinition) -> Self {
        let RetryPolicy { attempts_max, initial_ms, multiplier_milli, delay_ms_max, jitter_percent } = definition.retry;
        let names = definition.non_retryable.split(',').filter(|name| !name.is_empty());
        Self {
            attempts_max,
            initial_ms,
            multiplier: f64::from(multiplier_milli) / 1_000.0,
            delay_ms_max,
            jitter_percent,
            non_retryable: names.map(str::to_owned).collect(),
        }
    }
}

impl From<&Execution> for ExecutionRow {
    fn from(execution: &Execution) -> Self {
        Self {
            id: execution.id.to_string(),
            job_id: execution.id.job.to_string(),
            fire_sequence: execution.id.fire_sequence.0,
            tenant: execution.tenant.clone(),
            job: execution.job_name.clone(),
            token: execution.token.0,
            attempt: execution.attempt,
            state: execution.state.name(),
            cancel_requested: execution.cancel_requested,
            progress_permille: execution.progress_permille,
            status: (!execution.status.is_empty()).then(|| execution.status.clone()),
            paused_job_after_failures: execution.paused_job_after_failures,
            scheduled_at: rfc3339(execution.scheduled_at),
            scheduled_at_us: execution.scheduled_at.as_micros(),
            dispatched_at: rfc3339(execution.dispatched_at),
            dispatched_at_us: execution.dispatched_at.as_micros(),
            finished_at: execution.finished_at.and_then(rfc3339),
            finished_at_us: execution.finished_at.map(Timestamp::as_micros),
            run_us: micros(execution.run_time),
            worker: execution.worker.clone(),
            error: (!execution.error.is_empty()).then(|| execution.error.clone()),
            output: text(&execution.output),
        }
    }
}

/// The keys of a jobs file in JSON.
pub(super) fn keys(keys: &Keys) -> serde_json::Value {
    value(&toml::Value::Table(keys.table()))
}

/// A value of a jobs file in JSON; times become texts.
pub(super) fn value(toml: &toml::Value) -> serde_json::Value {
    match toml {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(flag) => (*flag).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.iter().map(value).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, inner)| (key.clone(), value(inner))).collect(),
    }
}

fn optional_value<S: Serializer>(toml: &Option<toml::Value>, serializer: S) -> Result<S::Ok, S::Error> {
    toml.as_ref().map(value).serialize(serializer)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
