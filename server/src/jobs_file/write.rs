//! From a job to the words of the file: the inverse of `resolve`.
//!
//! Invariants: what is written is read as the same job; a key whose value is the default is left out; equal jobs have equal
//! words. A payload for `exec` that a command would have is written as that command.

#[cfg(test)]
mod tests;

use super::{FileJob, base64, duration, point, resolve::ZONE_DEFAULT};
use crate::command_worker::{CommandPayload, HANDLER};
use std::{fmt::Write as _, time::Duration};
use tickwheel_client::{FiringRules, Priority, RetryPolicy, Timestamp};
use tickwheel_wire::job::{JobSpec, POOL_DEFAULT, START_TO_CLOSE_MS_DEFAULT, ScheduleSpec, labels};
use toml::{Table, Value};

/// Longest line that a list or a table is written in, in characters.
const LINE_CHARS_MAX: usize = 120;

/// A job that the file has no words for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnwritableError {
    /// A time has no notation.
    #[error("`{key}` is beyond the year 9999, for which a jobs file has no words")]
    BeyondYears {
        /// The key.
        key: &'static str,
    },
}

/// The keys of a job with their values, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys(Vec<(&'static str, Value)>);

impl Keys {
    /// The keys of `job`. Whether it is paused is written if [`FileJob::paused`] says so.
    ///
    /// # Errors
    /// When the file has no words for it.
    pub fn of(job: &FileJob) -> Result<Self, UnwritableError> {
        let spec = job.definition.spec();
        let JobSpec { tenant, name, handler, schedule, also, exclusions, payload, pool, priority, .. } = spec;
        let JobSpec { retry, start_to_close_ms, heartbeat_ms, non_retryable, rules, paused: _, labels: text, .. } =
            spec;
        let mut keys = Self::default();
        keys.add("name", name);
        keys.add_if(!tenant.is_empty(), "tenant", tenant);
        if also.is_empty() {
            keys.add_schedule(&schedule)?;
        } else {
            keys.add_schedules(spec.schedules())?;
        }
        let entries: Vec<_> = exclusions.lines().map(Value::from).collect();
        keys.add_if(!entries.is_empty(), "exclude", Value::Array(entries));
        keys.add_work(handler, payload);
        keys.add_if(pool != POOL_DEFAULT, "pool", pool);
        keys.add_if(priority != Priority::P1, "priority", priority.name());
        let retry = retry_table(retry, non_retryable);
        keys.add_if(!retry.is_empty(), "retry", retry);
        keys.add_if(start_to_close_ms != START_TO_CLOSE_MS_DEFAULT, "timeout", limit(start_to_close_ms));
        keys.add_if(heartbeat_ms != 0, "heartbeat", limit(heartbeat_ms));
        keys.add_rules(&rules)?;
        let labels: Table = labels(text).map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
        keys.add_if(!labels.is_empty(), "labels", labels);
        if let Some(paused) = job.paused {
            keys.add("paused", paused);
        }
        Ok(keys)
    }

    /// The keys and their values, those of tables too, as in `retry.initial`.
    pub fn flat(&self) -> impl Iterator<Item = (String, &Value)> {
        self.0.iter().flat_map(|(key, value)| match value {
            Value::Table(table) => table.iter().map(|(inner, value)| (format!("{key}.{inner}"), value)).collect(),
            value => vec![((*key).to_owned(), value)],
        })
    }

    /// The keys as one table, without their order.
    pub fn table(&self) -> Table {
        self.0.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    }

    /// The job as it stands in a file, its `[[job]]` line included.
    pub fn text(&self) -> String {
        let (mut out, mut tables) = ("[[job]]\n".to_owned(), String::new());
        for (key, value) in &self.0 {
            let line = format!("{key} = {value}\n");
            let fits = line.chars().count() <= LINE_CHARS_MAX + 1 && line.matches('\n').count() == 1;
            match value {
                Value::Array(values) if !fits => array(&mut out, key, values),
                Value::Table(table) if !fits => write!(tables, "[job.{key}]\n{table}").expect("a string takes all"),
                _ => out.push_str(&line),
            }
        }
        out + &tables
    }

    fn add(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push((key, value.into()));
    }

    fn add_if(&mut self, condition: bool, key: &'static str, value: impl Into<Value>) {
        if condition {
            self.add(key, value);
        }
    }

    fn add_time(&mut self, key: &'static str, at: Timestamp) -> Result<(), UnwritableError> {
        let text = point::rfc3339(at).ok_or(UnwritableError::BeyondYears { key })?;
        self.add(key, text.parse::<toml::value::Datetime>().expect("RFC 3339 is a notation of TOML"));
        Ok(())
    }

    fn add_schedule(&mut self, schedule: &ScheduleSpec<'_>) -> Result<(), UnwritableError> {
        match *schedule {
            ScheduleSpec::Cron { expression, zone } => {
                self.add("cron", expression);
                self.add_if(zone != ZONE_DEFAULT, "zone", zone);
            }
            ScheduleSpec::Interval { every_us, anchor } => {
                self.add("every", micros(every_us));
                if !anchor.is_never() {
                    self.add_time("anchor", anchor)?;
                }
            }
            ScheduleSpec::Once { at } => self.add_time("at", at)?,
            ScheduleSpec::After { delay_us } => self.add("after", micros(delay_us)),
            ScheduleSpec::FixedDelay { delay_us } => self.add("delay", micros(delay_us)),
        }
        Ok(())
    }

    fn add_schedules<'a>(&mut self, schedules: impl Iterator<Item = ScheduleSpec<'a>>) -> Result<(), UnwritableError> {
        let tables = schedules.map(|schedule| {
            let mut keys = Self::default();
            keys.add_schedule(&schedule)?;
            Ok(Value::Table(keys.table()))
        });
        self.add("schedules", Value::Array(tables.collect::<Result<_, _>>()?));
        Ok(())
    }

    fn add_work(&mut self, handler: &str, payload: &[u8]) {
        if let Some(command) = command(handler, payload) {
            return self.add_command(command);
        }
        self.add("handler", handler);
        match str::from_utf8(payload) {
            Ok(text) => self.add_if(!text.is_empty(), "payload", text),
            Err(_) => self.add("payload_base64", base64::write(payload)),
        }
    }

    fn add_command(&mut self, command: CommandPayload) {
        let CommandPayload { argv, env, dir, stdin, user, clean_env, output_bytes_max } = command;
        self.add("command", argv);
        let env: Table = env.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        self.add_if(!env.is_empty(), "env", env);
        self.add_if(clean_env, "clean_env", true);
        for (key, value) in [("stdin", stdin), ("dir", dir), ("user", user)] {
            if let Some(value) = value {
                self.add(key, value);
            }
        }
        if let Some(bytes_max) = output_bytes_max {
            self.add("output_bytes_max", bytes_max);
        }
    }

    fn add_rules(&mut self, rules: &FiringRules) -> Result<(), UnwritableError> {
        let plain = FiringRules::PLAIN;
        let FiringRules { misfire, misfire_max, misfire_grace_ms, overlap, overlap_max, .. } = *rules;
        let FiringRules { schedule_to_start_ms, pause_after_failures, starts_at, ends_at, .. } = *rules;
        let FiringRules { executions_max, jitter_ms, dst_gap, dst_overlap, day_rule, .. } = *rules;
        self.add_if(misfire != plain.misfire, "misfire", misfire.name());
        self.add_if(misfire_max != plain.misfire_max, "misfire_max", misfire_max);
        self.add_if(misfire_grace_ms != plain.misfire_grace_ms, "misfire_grace", limit(misfire_grace_ms));
        self.add_if(overlap != plain.overlap, "overlap", overlap.name());
        self.add_if(overlap_max != plain.overlap_max, "overlap_max", overlap_max);
        let schedule_to_start = limit(schedule_to_start_ms);
        self.add_if(schedule_to_start_ms != plain.schedule_to_start_ms, "schedule_to_start", schedule_to_start);
        let is_given = pause_after_failures != plain.pause_after_failures;
        self.add_if(is_given, "pause_after_failures", u32::from(pause_after_failures));
        if starts_at != plain.starts_at {
            self.add_time("starts_at", starts_at)?;
        }
        if ends_at != plain.ends_at {
            self.add_time("ends_at", ends_at)?;
        }
        self.add_if(executions_max != plain.executions_max, "executions_max", executions_max);
        self.add_if(jitter_ms != plain.jitter_ms, "jitter", millis(jitter_ms));
        self.add_if(dst_gap != plain.dst_gap, "dst_gap", dst_gap.name());
        self.add_if(dst_overlap != plain.dst_overlap, "dst_overlap", dst_overlap.name());
        self.add_if(day_rule != plain.day_rule, "day_rule", day_rule.name());
        Ok(())
    }
}

/// The command that has exactly this payload.
fn command(handler: &str, payload: &[u8]) -> Option<CommandPayload> {
    let command = CommandPayload::decode(payload).ok().filter(|_| handler == HANDLER)?;
    (command.encode() == payload).then_some(command)
}

fn retry_table(retry: RetryPolicy, non_retryable: &str) -> Table {
    let RetryPolicy { attempts_max, initial_ms, multiplier_milli, delay_ms_max, jitter_percent } = retry;
    let default = RetryPolicy::default();
    let names: Vec<Value> = non_retryable.split(',').filter(|name| !name.is_empty()).map(Value::from).collect();
    let all = [
        ("attempts_max", u32::from(attempts_max).into(), attempts_max != default.attempts_max),
        ("initial", millis(initial_ms), initial_ms != default.initial_ms),
        ("multiplier", (f64::from(multiplier_milli) / 1_000.0).into(), multiplier_milli != default.multiplier_milli),
        ("max", millis(delay_ms_max), delay_ms_max != default.delay_ms_max),
        ("jitter_percent", jitter_percent.into(), jitter_percent != default.jitter_percent),
        ("non_retryable", Value::Array(names), !non_retryable.is_empty()),
    ];
    all.into_iter().filter(|(.., is_given)| *is_given).map(|(key, value, _)| (key.to_owned(), value)).collect()
}

/// A list, an element per line.
fn array(out: &mut String, key: &str, values: &[Value]) {
    writeln!(out, "{key} = [").expect("a string takes all");
    for value in values {
        writeln!(out, "    {value},").expect("a string takes all");
    }
    out.push_str("]\n");
}

/// A limit of which 0 means that there is none.
fn limit(limit_ms: u32) -> Value {
    if limit_ms == 0 { duration::NONE.into() } else { millis(limit_ms) }
}

fn millis(millis: u32) -> Value {
    duration::write(Duration::from_millis(millis.into())).into()
}

fn micros(micros: u64) -> Value {
    duration::write(Duration::from_micros(micros)).into()
}
