//! From a table's words to a definition.

use super::{
    FileJob, JobProblem, base64,
    calendar::Calendars,
    duration::{self, DurationError},
    point as time, rules,
    section::{JobSection, RetrySection, ScheduleSection},
};
use crate::command_worker::{CommandPayload, HANDLER};
use std::time::Duration;
use tickwheel_client::{FiringRules, JobBuilder, Priority, RetryPolicy, Schedule, Timestamp};
use tickwheel_engine::schedule::{Cron, CronError, Zones};
use tickwheel_wire::{
    job::{DELAY_US_MAX, JobSpec, JobSpecError, labels_text},
    name_hash,
};

/// Zone of a cron expression that names none.
pub(super) const ZONE_DEFAULT: &str = "UTC";

pub(super) fn resolve(section: JobSection, calendars: &Calendars, zones: &mut Zones) -> Result<FileJob, JobProblem> {
    let mut section = section;
    let rules = rules::rules(&mut section)?;
    let at_most_once = rules::is_at_most_once(&section)?;
    let (schedule, also) = schedules(&mut section, &rules, zones)?;
    let (handler, payload) = work(&mut section)?;
    let mut builder = JobBuilder::new(section.name).handler(handler).schedule(schedule).payload(payload).rules(rules);
    builder = also.iter().fold(builder, JobBuilder::also);
    if let Some(exclude) = section.exclude {
        let zone = builder.definition().spec().exclusion_zone().to_owned();
        let exclusions = calendars.resolve(&exclude, &zone, zones)?;
        builder = if exclusions.is_empty() { builder } else { builder.exclude(exclusions) };
    }
    if let Some(tenant) = section.tenant {
        builder = builder.tenant(tenant);
    }
    if let Some(pool) = section.pool {
        builder = builder.pool(pool);
    }
    if let Some(name) = section.priority {
        let names = Priority::ALL.iter().map(ToString::to_string);
        builder = builder.priority(named("priority", &name, Priority::from_name(&name), names)?);
    }
    if let Some(retry) = section.retry {
        builder = builder.retry(retry_policy(&retry)?);
        for name in retry.non_retryable.unwrap_or_default() {
            if name.is_empty() || name.contains(',') {
                return Err(value("retry.non_retryable", &format!("{name:?} is empty or holds a comma")));
            }
            builder = builder.non_retryable(name);
        }
    }
    if at_most_once {
        builder = builder.at_most_once();
    }
    if let Some(text) = section.timeout {
        builder = builder.start_to_close(limit("timeout", &text)?);
    }
    if let Some(text) = section.heartbeat {
        builder = builder.heartbeat(limit("heartbeat", &text)?);
    }
    let mut definition = builder.paused(section.paused.unwrap_or(false)).definition().clone();
    if let Some(labels) = section.labels {
        let pairs = labels.iter().map(|(key, value)| (&**key, &**value));
        definition.labels = labels_text(pairs).map_err(JobSpecError::from)?;
    }
    let spec = definition.spec();
    // Without a tenant of its own the job gets the client's. How long a payload may be is the server's to say.
    let tenant = if spec.tenant.is_empty() { crate::config::TENANT_DEFAULT } else { spec.tenant };
    JobSpec { tenant, ..spec }.validate(usize::MAX)?;
    Ok(FileJob { definition, paused: section.paused })
}

/// The schedules, those of `schedules` behind the one that stands alone.
fn schedules(
    section: &mut JobSection,
    rules: &FiringRules,
    zones: &mut Zones,
) -> Result<(Schedule, Vec<Schedule>), JobProblem> {
    let tenant = section.tenant.as_deref().unwrap_or(crate::config::TENANT_DEFAULT);
    let hash = name_hash(tenant, &section.name);
    let sections = section.take_schedule().into_iter().chain(section.schedules.take().unwrap_or_default());
    let mut schedules = sections.map(|section| schedule(section, hash, rules, zones)).collect::<Result<Vec<_>, _>>()?;
    if schedules.is_empty() {
        return Err(JobProblem::Schedules { count: 0 });
    }
    Ok((schedules.remove(0), schedules))
}

fn schedule(
    section: ScheduleSection,
    hash: u64,
    rules: &FiringRules,
    zones: &mut Zones,
) -> Result<Schedule, JobProblem> {
    let ScheduleSection { cron, zone, every, anchor, delay: after_each, at, after } = section;
    let given = [cron.is_some(), every.is_some(), after_each.is_some(), at.is_some(), after.is_some()];
    let count = given.into_iter().filter(|given| *given).count();
    if count != 1 {
        return Err(JobProblem::Schedules { count });
    }
    let anchor = anchor.map(|anchor| point("anchor", &anchor.into_text())).transpose()?;
    if anchor.is_some() && every.is_none() {
        return Err(JobProblem::Together { key: "anchor", relation: "is of use only with", other: "every" });
    }
    if let Some(expression) = cron {
        let zone = zone.unwrap_or_else(|| ZONE_DEFAULT.to_owned());
        Cron::of_job(&expression, &zone, rules, hash, zones).map_err(cron_problem)?;
        return Ok(Schedule::Cron { expression, zone });
    }
    if zone.is_some() {
        return Err(JobProblem::Together { key: "zone", relation: "is of use only with", other: "cron" });
    }
    if let Some(text) = every {
        let every = delay("every", &text, Duration::from_millis(1))?;
        return Ok(Schedule::Interval { every, anchor });
    }
    if let Some(text) = after_each {
        return Ok(Schedule::FixedDelay { delay: delay("delay", &text, Duration::from_millis(1))? });
    }
    if let Some(text) = after {
        return Ok(Schedule::After { delay: delay("after", &text, Duration::ZERO)? });
    }
    let text = at.expect("one of the five is given").into_text();
    point("at", &text).map(|at| Schedule::Once { at })
}

fn cron_problem(error: CronError) -> JobProblem {
    let key = if matches!(error, CronError::UnknownZone { .. }) { "zone" } else { "cron" };
    JobProblem::Value { key, problem: error.to_string() }
}

/// Handler and payload.
fn work(section: &mut JobSection) -> Result<(String, Vec<u8>), JobProblem> {
    let Some(argv) = section.command.take() else {
        let of_commands = [
            ("env", section.env.is_some()),
            ("clean_env", section.clean_env.is_some()),
            ("stdin", section.stdin.is_some()),
            ("dir", section.dir.is_some()),
            ("user", section.user.is_some()),
            ("output_bytes_max", section.output_bytes_max.is_some()),
        ];
        if let Some((key, _)) = of_commands.into_iter().find(|(_, given)| *given) {
            return Err(JobProblem::Together { key, relation: "is of use only with", other: "command" });
        }
        let handler = section.handler.take().ok_or(JobProblem::NoWork)?;
        return Ok((handler, payload(section)?));
    };
    let payloads = [("payload", section.payload.is_some()), ("payload_base64", section.payload_base64.is_some())];
    if let Some((key, _)) = payloads.into_iter().find(|(_, given)| *given) {
        return Err(JobProblem::Together { key, relation: "cannot be given with", other: "command" });
    }
    let handler = section.handler.take().unwrap_or_else(|| HANDLER.to_owned());
    if argv.first().is_none_or(String::is_empty) {
        return Err(value("command", "the program is missing"));
    }
    let payload = CommandPayload {
        env: section.env.take().unwrap_or_default(),
        dir: section.dir.take(),
        stdin: section.stdin.take(),
        user: section.user.take(),
        clean_env: section.clean_env.unwrap_or(false),
        output_bytes_max: section.output_bytes_max,
        ..CommandPayload::new(argv)
    };
    Ok((handler, payload.encode()))
}

/// The payload of a job that is no command.
fn payload(section: &mut JobSection) -> Result<Vec<u8>, JobProblem> {
    let text = section.payload.take();
    let Some(encoded) = section.payload_base64.take() else { return Ok(text.unwrap_or_default().into_bytes()) };
    if text.is_some() {
        return Err(JobProblem::Together { key: "payload_base64", relation: "cannot be given with", other: "payload" });
    }
    base64::parse(&encoded).ok_or_else(|| value("payload_base64", "it is not base64 with padding"))
}

fn retry_policy(section: &RetrySection) -> Result<RetryPolicy, JobProblem> {
    let mut policy = RetryPolicy::default();
    if let Some(attempts_max) = section.attempts_max {
        policy.attempts_max = attempts_max;
    }
    if let Some(text) = &section.initial {
        policy.initial_ms = millis("retry.initial", text)?;
    }
    if let Some(text) = &section.max {
        policy.delay_ms_max = millis("retry.max", text)?;
    }
    if let Some(multiplier) = section.multiplier {
        policy.multiplier_milli = multiplier_milli(multiplier)?;
    }
    if let Some(jitter_percent) = section.jitter_percent {
        policy.jitter_percent = jitter_percent;
    }
    Ok(policy)
}

fn multiplier_milli(multiplier: f64) -> Result<u16, JobProblem> {
    if !(1.0..=10.0).contains(&multiplier) {
        return Err(value("retry.multiplier", &format!("{multiplier} is not from 1.0 to 10.0")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    Ok((multiplier * 1_000.0).round() as u16)
}

fn millis(key: &'static str, text: &str) -> Result<u32, JobProblem> {
    let duration = duration::parse(text).map_err(|error| unreadable(key, &error))?;
    u32::try_from(duration.as_millis()).map_err(|_| value(key, &format!("{text:?} is longer than 49 days")))
}

/// A time-out; zero would mean "without limit" on the wire, so it has to be said as that.
pub(super) fn limit(key: &'static str, text: &str) -> Result<Option<Duration>, JobProblem> {
    let Some(limit) = duration::parse_limit(text).map_err(|error| unreadable(key, &error))? else {
        return Ok(None);
    };
    if (1..=u128::from(u32::MAX)).contains(&limit.as_millis()) {
        return Ok(Some(limit));
    }
    Err(value(key, &format!("{text:?} is not from 1 ms to 49 days; for no limit write \"none\"")))
}

pub(super) fn delay(key: &'static str, text: &str, least: Duration) -> Result<Duration, JobProblem> {
    let delay = duration::parse(text).map_err(|error| unreadable(key, &error))?;
    if delay < least {
        return Err(value(key, &format!("{text:?} is shorter than 1 ms")));
    }
    if delay.as_micros() > u128::from(DELAY_US_MAX) {
        return Err(value(key, &format!("{text:?} is longer than 100 years")));
    }
    Ok(delay)
}

pub(super) fn point(key: &'static str, text: &str) -> Result<Timestamp, JobProblem> {
    let problem =
        || value(key, &format!("{text:?} is not a time since 1970 with an offset, such as 2030-01-31T09:00:00Z"));
    time::parse(text).ok_or_else(problem)
}

pub(super) fn named<T>(
    key: &'static str,
    text: &str,
    found: Option<T>,
    names: impl Iterator<Item = impl ToString>,
) -> Result<T, JobProblem> {
    let allowed = || names.map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| value(key, &format!("{text:?} is unknown; allowed are {}", allowed())))
}

pub(super) fn value(key: &'static str, problem: &str) -> JobProblem {
    JobProblem::Value { key, problem: problem.to_owned() }
}

fn unreadable(key: &'static str, error: &DurationError) -> JobProblem {
    value(key, &error.to_string())
}
