//! `tickwheel job`: commands on jobs. Applying files is in `apply`, writing them in `export`, importing crontabs in `import`, changing
//! many in `bulk`.

use super::{
    apply,
    args::{JobChangeArguments, JobCommand, JobGetArguments, JobListArguments, OutputFormat},
    backlog, bulk,
    connection::{present, with_client},
    error::CliError,
    execution, export, import, output, times,
    views::{ChangedRow, JobRow},
};
use std::time::Duration;
use tickwheel_client::{ExecutionState, FiringRules, Job, JobDefinition, Schedule, Timestamp};
use tickwheel_wire::frame::request::JobVerb;

pub(super) fn run(command: &JobCommand) -> Result<(), CliError> {
    match command {
        JobCommand::Apply(arguments) => apply::run(arguments),
        JobCommand::Export(arguments) => export::run(arguments),
        JobCommand::Import(arguments) => import::run(arguments),
        JobCommand::List(arguments) => list(arguments),
        JobCommand::Get(arguments) => get(arguments),
        JobCommand::Pause(arguments) => change(arguments, JobVerb::Pause, false),
        JobCommand::Resume(arguments) => change(arguments, JobVerb::Resume, false),
        JobCommand::Trigger(arguments) => change(arguments, JobVerb::Trigger, false),
        JobCommand::Backfill(arguments) => backlog::backfill(arguments),
        JobCommand::ClearBacklog(arguments) => change(arguments, JobVerb::ClearBacklog, false),
        JobCommand::Delete(arguments) => change(&arguments.change, JobVerb::Delete, arguments.yes),
    }
}

fn list(arguments: &JobListArguments) -> Result<(), CliError> {
    let filter = arguments.filter.resolve(arguments.connection.tenant.as_deref());
    let limit = arguments.limit as usize;
    let mut jobs = with_client(&arguments.connection, async |client| {
        let (mut pager, mut jobs) = (client.list(filter)?, Vec::new());
        while jobs.len() <= limit
            && let Some(job) = pager.next().await
        {
            jobs.extend(present(job)?);
        }
        Ok(jobs)
    })?;
    if jobs.len() > limit {
        jobs.truncate(limit);
        eprintln!("only the first {limit} jobs are shown; raise --limit, or narrow with --prefix, --label or --state");
    }
    jobs.sort_by(|a, b| (&a.definition.tenant, &a.definition.name).cmp(&(&b.definition.tenant, &b.definition.name)));
    match arguments.output.output {
        OutputFormat::Json => output::json(&jobs.iter().map(JobRow::from).collect::<Vec<_>>()),
        OutputFormat::Table => {
            let header = ["TENANT", "NAME", "SCHEDULE", "POOL", "STATE", "NEXT FIRE", "FIRED", "LAST"];
            output::table(header, jobs.iter().map(columns))
        }
    }
}

fn columns(job: &Job) -> [String; 8] {
    let definition = &job.definition;
    [
        definition.tenant.clone(),
        definition.name.clone(),
        schedules(definition),
        definition.pool.clone(),
        state(job),
        times::column(job.next_fire),
        job.fire_sequence.0.to_string(),
        job.last_state.to_string(),
    ]
}

fn state(job: &Job) -> String {
    let in_flight = matches!(job.last_state, ExecutionState::Running | ExecutionState::Retrying);
    match (job.paused, job.paused_after_failures, job.next_fire) {
        (true, Some(failures), _) => format!("paused after {}", execution::times_failed(failures)),
        (true, None, _) => "paused by request".to_owned(),
        (false, _, None) if !in_flight => "finished".to_owned(),
        (false, ..) => "active".to_owned(),
    }
}

/// A job's schedules in the words of the jobs file.
pub(super) fn schedules(definition: &JobDefinition) -> String {
    definition.schedules().map(|one| schedule(&one)).collect::<Vec<_>>().join("; ")
}

fn schedule(schedule: &Schedule) -> String {
    match schedule {
        Schedule::Cron { expression, zone } => format!("{expression} ({zone})"),
        Schedule::Interval { every, .. } => format!("every {}", times::friendly(*every)),
        Schedule::Once { at } => format!("at {}", times::column(Some(*at))),
        Schedule::After { delay } => format!("after {}", times::friendly(*delay)),
        Schedule::FixedDelay { delay } => format!("{} after each end", times::friendly(*delay)),
        other => format!("{other:?}"),
    }
}

fn get(arguments: &JobGetArguments) -> Result<(), CliError> {
    let job = with_client(&arguments.connection, async |client| Ok(client.get(&arguments.name).await?))?;
    match arguments.output.output {
        OutputFormat::Json => output::json(&JobRow::from(&job)),
        OutputFormat::Table => output::properties(&properties(&job)),
    }
}

fn properties(job: &Job) -> Vec<(&'static str, String)> {
    let definition = &job.definition;
    let retry = definition.retry;
    let limit = |limit: Option<_>| limit.map_or_else(|| "none".to_owned(), times::friendly);
    let mut properties = vec![
        ("id", job.id.to_string()),
        ("tenant", definition.tenant.clone()),
        ("name", definition.name.clone()),
        ("schedule", schedules(definition)),
        ("state", state(job)),
        ("next fire", times::column(job.next_fire)),
        ("fired", job.fire_sequence.0.to_string()),
        ("last", job.last_state.to_string()),
        ("last finished", times::column(job.last_finished_at)),
        ("handler", definition.handler.clone()),
        ("payload", String::from_utf8_lossy(&definition.payload).into_owned()),
        ("pool", definition.pool.clone()),
        ("priority", definition.priority.to_string()),
        ("attempts", retry.attempts_max.to_string()),
        ("timeout", limit(definition.start_to_close)),
        ("heartbeat", limit(definition.heartbeat)),
        ("misfire", definition.rules.misfire.to_string()),
        ("overlap", definition.rules.overlap.to_string()),
    ];
    properties.extend(special(definition));
    properties.push(("revision", job.revision.to_string()));
    properties.push(("created", times::column(Some(job.created_at))));
    properties
}

/// The rules that most jobs do not have.
fn special(definition: &JobDefinition) -> Vec<(&'static str, String)> {
    let (rules, plain) = (definition.rules, FiringRules::PLAIN);
    let millis = |value: u32| times::friendly(Duration::from_millis(value.into()));
    let all = [
        ("excluded", definition.exclusions.replace('\n', "; "), !definition.exclusions.is_empty()),
        ("misfire max", rules.misfire_max.to_string(), rules.misfire_max != plain.misfire_max),
        ("misfire grace", millis(rules.misfire_grace_ms), rules.misfire_grace_ms > 0),
        ("overlap max", rules.overlap_max.to_string(), rules.overlap_max != plain.overlap_max),
        ("schedule to start", millis(rules.schedule_to_start_ms), rules.schedule_to_start_ms > 0),
        ("pause after failures", rules.pause_after_failures.to_string(), rules.pause_after_failures > 0),
        ("starts", times::column(Some(rules.starts_at)), rules.starts_at != plain.starts_at),
        ("ends", times::column(Some(rules.ends_at)), rules.ends_at != plain.ends_at),
        ("executions max", rules.executions_max.to_string(), rules.executions_max > 0),
        ("jitter", millis(rules.jitter_ms), rules.jitter_ms > 0),
        ("dst gap", rules.dst_gap.to_string(), rules.dst_gap != plain.dst_gap),
        ("dst overlap", rules.dst_overlap.to_string(), rules.dst_overlap != plain.dst_overlap),
        ("day rule", rules.day_rule.to_string(), rules.day_rule != plain.day_rule),
        ("non-retryable", definition.non_retryable.clone(), !definition.non_retryable.is_empty()),
        ("labels", definition.labels.replace(',', ", "), !definition.labels.is_empty()),
    ];
    all.into_iter().filter(|(.., is_special)| *is_special).map(|(name, value, _)| (name, value)).collect()
}

fn change(arguments: &JobChangeArguments, verb: JobVerb, yes: bool) -> Result<(), CliError> {
    let Some(name) = &arguments.name else { return bulk::jobs(arguments, verb, yes) };
    let (tenant, done) = with_client(&arguments.connection, async |client| {
        let done = match verb {
            JobVerb::Pause => client.pause(name).await?,
            JobVerb::Resume => client.resume(name).await?,
            JobVerb::Trigger => client.trigger(name).await?,
            JobVerb::Delete => client.delete(name).await?,
            JobVerb::ClearBacklog => client.clear_backlog(name).await?,
        };
        Ok((client.tenant().to_owned(), done))
    })?;
    if arguments.output.output == OutputFormat::Json {
        return output::json(&[ChangedRow {
            tenant,
            name: name.clone(),
            job_id: done.job.to_string(),
            execution_id: None,
            scheduled_at: None,
            scheduled_at_us: None,
            action: bulk::done(verb),
            dry_run: false,
            revision: None,
            next_fire_at: done.next_fire.and_then(times::rfc3339),
            next_fire_at_us: done.next_fire.map(Timestamp::as_micros),
            reason: None,
        }]);
    }
    let next = times::column(done.next_fire);
    let text = match verb {
        JobVerb::Pause => format!("{name} is paused"),
        JobVerb::Resume => format!("{name} fires again, next at {next}"),
        JobVerb::Trigger => format!("{name} was triggered; `tickwheel execution list --job {name}` shows how it goes"),
        JobVerb::Delete => format!("{name} is deleted"),
        JobVerb::ClearBacklog => format!("{name} has nothing to make up for any more"),
    };
    output::write(&format!("{}\n", output::printable(&text)))
}
