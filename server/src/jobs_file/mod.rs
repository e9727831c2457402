//! The jobs file: jobs written down in TOML, one `[[job]]` table each, for `tickwheel job apply` and from `tickwheel job export`.
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `name` | unique in its tenant | required |
//! | `tenant` | owner | the client's |
//! | `command` | program and arguments; no shell is involved | |
//! | `env`, `clean_env`, `stdin`, `dir`, `user`, `output_bytes_max` | with `command`: as in [`CommandPayload`] | |
//! | `handler`, `payload` | without `command`: the worker's handler, and a text for it | `exec` with `command` |
//! | `payload_base64` | instead of `payload`: bytes for the handler, in base64 | |
//! | `cron`, `zone` | a cron expression and its IANA zone | zone `UTC` |
//! | `dst_gap`, `dst_overlap` | with `cron`: what becomes of local times that a change of the clock leaves out (`skip`, `fire-after`) or shows twice (`first`, `second`, `both`) | `vixie` |
//! | `day_rule` | with `cron`: a day matches one of two restricted day fields (`or`) or both (`and`) | `or` |
//! | `every`, `anchor` | a fixed interval, and a time that it is counted from | the first apply |
//! | `delay` | a time after the end of each execution | |
//! | `at` | one time, RFC 3339 with an offset | |
//! | `after` | one time, counted from each apply | |
//! | `schedules` | further schedules: tables of `cron` and `zone`, `every` and `anchor`, or `at` | none |
//! | `exclude` | times at which it does not fire: names of calendars of the file, and entries such as `12-25`, or `calendar holidays` for one that the server keeps, as in [`Exclusions`] | none |
//! | `pool`, `priority` | which workers run it, how urgent (`P0`, `P1`, `P2`) | `standard`, `P1` |
//! | `starts_at`, `ends_at` | no firing comes before the one, none at or after the other | |
//! | `executions_max` | executions in all, after which the job has finished | without limit |
//! | `jitter` | how far each firing may be put off | `0s` |
//! | `delivery` | `at-least-once`, or `at-most-once`: one attempt | `at-least-once` |
//! | `retry` | table of `attempts_max`, `initial`, `multiplier`, `max`, `jitter_percent`, `non_retryable` | 3, 1s, 2.0, 5m, 20, [] |
//! | `timeout` | longest run of an attempt, or `none` | 1h |
//! | `heartbeat` | longest silence of a running attempt, or `none` | `none` |
//! | `misfire` | what becomes of missed firings: `fire-once`, `fire-all`, `skip` | `fire-once` |
//! | `misfire_max`, `misfire_grace` | with `fire-all` how many at most; how late a firing may be | 100; `skip`: 1m |
//! | `overlap` | what becomes of firings while it runs: `skip`, `allow`, `buffer-one`, `buffer-all`, `cancel-running`, `terminate-running` | `skip` |
//! | `overlap_max` | how many at most wait with `buffer-all`, run with `allow` | 100 |
//! | `schedule_to_start` | how late an execution may begin, or `none` | `none` |
//! | `pause_after_failures` | executions failing one after another that pause the job | never |
//! | `labels` | table of texts by which jobs are told apart and picked | none |
//! | `paused` | whether it is paused; absent: as it is, a new job is not | |
//!
//! One of `cron`, `every`, `delay`, `at` and `after` says when it fires, or `schedules` does, or both do together.
//!
//! A `[[calendar]]` gives a name to times that jobs exclude:
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `name` | what `exclude` calls it; no entry itself | required |
//! | `zone` | the zone of its days and times | that of the job's first `cron`, or else `UTC` |
//! | `dates` | `2026-12-25`, `2026-12-24..2027-01-01`, `12-25`, `2026-12-24T14:00..2026-12-24T18:00` | none |
//! | `weekdays` | `SAT,SUN`, `weekends` | none |
//! | `cron` | expressions of times that are excluded; without seconds whole minutes | none |
//! | `ics` | an iCalendar file, from the folder of the jobs file; see `ics.rs` | none |
//!
//! Invariants: an unknown key is an error; every error names file,
//! job and key; a file with an error yields no jobs at all. Deliberately absent: the server; what only it can know (its tenants,
//! its pools, its limits) it says itself.
//!
//! [`Exclusions`]: tickwheel_engine::schedule::Exclusions
//! [`CommandPayload`]: crate::command_worker::CommandPayload

mod base64;
mod calendar;
pub mod duration;
mod ics;
pub mod point;
mod resolve;
mod rules;
mod section;
#[cfg(test)]
mod tests;
pub mod write;

use calendar::Calendars;
pub(crate) use calendar::entries_of_ics;
use section::JobSection;
use serde::Deserialize;
use std::{collections::HashSet, path::Path};
use tickwheel_client::JobDefinition;
use tickwheel_engine::schedule::Zones;
use tickwheel_wire::job::JobSpecError;
use toml::{Table, Value};

/// Longest jobs file, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// How much of a wrong line an error repeats.
const QUOTE_CHARS_MAX: usize = 64;

/// A job of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileJob {
    /// Its definition; an empty tenant is the client's own.
    pub definition: JobDefinition,
    /// Whether it is to be paused; `None`: the file does not say.
    pub paused: Option<bool>,
}

/// Why a file yields no jobs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobsFileError {
    /// It is not TOML.
    #[error("{file}:{line}: {problem}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// Something besides `[[job]]` and `[[calendar]]` tables is in it.
    #[error("{file}: {problem}")]
    Layout {
        /// The file.
        file: String,
        /// What the parser says.
        problem: String,
    },
    /// A calendar is wrong.
    #[error("{file}: calendar {calendar}: {problem}")]
    Calendar {
        /// The file.
        file: String,
        /// The calendar's name, or its place in the file when it has none.
        calendar: String,
        /// What is wrong.
        problem: JobProblem,
    },
    /// A job is wrong.
    #[error("{file}: job {job}: {problem}")]
    Job {
        /// The file.
        file: String,
        /// The job's name, or its place in the file when it has none.
        job: String,
        /// What is wrong.
        problem: JobProblem,
    },
}

/// What is wrong with a job or a calendar.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobProblem {
    /// An unknown key, a missing one, or a value of another type.
    #[error("{0}")]
    Keys(String),
    /// A value means nothing.
    #[error("`{key}`: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// It says in no way, or in several ways, when it fires.
    #[error(
        "exactly one of `cron`, `every`, `delay`, `at` and `after` must be given, not {count}; several go into `schedules`"
    )]
    Schedules {
        /// How many are given.
        count: usize,
    },
    /// Neither a command nor a handler.
    #[error("`command` (a program with its arguments) or `handler` is missing")]
    NoWork,
    /// A key that only makes sense with another, or without.
    #[error("`{key}` {relation} `{other}`")]
    Together {
        /// The key.
        key: &'static str,
        /// How they relate.
        relation: &'static str,
        /// The other.
        other: &'static str,
    },
    /// The name stands twice.
    #[error("stands twice in the file; names of jobs are unique in a tenant, and those of calendars in a file")]
    Duplicate,
    /// A rule of all definitions is broken.
    #[error(transparent)]
    Spec(#[from] JobSpecError),
}

/// The whole file, its jobs still as they are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    calendar: Vec<Table>,
    #[serde(default)]
    job: Vec<Table>,
}

/// Parses a file; `file` is its name, for errors, and `folder` where the files are that it names. Without a folder none is opened.
///
/// # Errors
/// Everything that is wrong, at most one error per job; where calendars are wrong, those only.
pub fn parse(text: &str, file: &str, folder: Option<&Path>) -> Result<Vec<FileJob>, Vec<JobsFileError>> {
    let document: Table = text.parse().map_err(|error| vec![syntax(file, text, &error)])?;
    let layout = |error: toml::de::Error| JobsFileError::Layout { file: file.to_owned(), problem: one_line(&error) };
    let tables: Tables = Value::Table(document).try_into().map_err(|error| vec![layout(error)])?;
    let (mut jobs, mut errors, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    let mut zones = Zones::new();
    let calendars = Calendars::read(tables.calendar, file, folder, &mut zones)?;
    for (index, table) in tables.job.into_iter().enumerate() {
        let name = table.get("name").and_then(Value::as_str).map(str::to_owned);
        match job(table, &calendars, &mut zones, &mut seen) {
            Ok(job) => jobs.push(job),
            Err(problem) => {
                let job = name.map_or_else(|| format!("number {}", index + 1), |name| format!("{name:?}"));
                errors.push(JobsFileError::Job { file: file.to_owned(), job, problem });
            }
        }
    }
    if errors.is_empty() { Ok(jobs) } else { Err(errors) }
}

fn job(
    table: Table,
    calendars: &Calendars,
    zones: &mut Zones,
    seen: &mut HashSet<(String, String)>,
) -> Result<FileJob, JobProblem> {
    let section: JobSection = Value::Table(table).try_into().map_err(|error| JobProblem::Keys(one_line(&error)))?;
    let job = resolve::resolve(section, calendars, zones)?;
    let identity = (job.definition.tenant.clone(), job.definition.name.clone());
    if seen.insert(identity) { Ok(job) } else { Err(JobProblem::Duplicate) }
}

fn syntax(file: &str, text: &str, error: &toml::de::Error) -> JobsFileError {
    let (line, problem) = located(text, error);
    JobsFileError::Syntax { file: file.to_owned(), line, problem }
}

/// The line of `text`, from 1, that an error of its parser is about, and what is wrong there.
pub(crate) fn located(text: &str, error: &toml::de::Error) -> (usize, String) {
    let at = error.span().map_or(0, |span| span.start);
    let index = text.get(..at).unwrap_or(text).matches('\n').count();
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let written: String = text.lines().nth(index).unwrap_or_default().trim().chars().take(QUOTE_CHARS_MAX).collect();
    let problem = if written.is_empty() { message } else { format!("{message}, in `{written}`") };
    (index + 1, problem)
}

/// What the parser says, the key included, without line breaks.
fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
