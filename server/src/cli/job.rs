//! `tickwheel job`: commands on jobs. Applying files is in `apply`, writing them in `export`, importing crontabs in `import`.

use super::{
    apply,
    args::{JobCommand, JobGetArguments, JobListArguments, JobNameArguments, OutputFormat},
    connection::{present, with_client},
    error::CliError,
    export, import, output, times,
    views::JobRow,
};
use std::time::Duration;
use tickwheel_client::{FiringRules, Job, JobDefinition, JobFilter, Schedule};

/// What the four commands on one job do.
#[derive(Clone, Copy)]
enum Verb {
    Pause,
    Resume,
    Trigger,
    Delete,
}

pub(super) fn run(command: &JobCommand) -> Result<(), CliError> {
    match command {
        JobCommand::Apply(arguments) => apply::run(arguments),
        JobCommand::Export(arguments) => export::run(arguments),
        JobCommand::Import(arguments) => import::run(arguments),
        JobCommand::List(arguments) => list(arguments),
        JobCommand::Get(arguments) => get(arguments),
        JobCommand::Pause(arguments) => change(arguments, Verb::Pause),
        JobCommand::Resume(arguments) => change(arguments, Verb::Resume),
        JobCommand::Trigger(arguments) => change(arguments, Verb::Trigger),
        JobCommand::Delete(arguments) => change(arguments, Verb::Delete),
    }
}

fn list(arguments: &JobListArguments) -> Result<(), CliError> {
    let filter =
        JobFilter { tenant: arguments.connection.tenant.clone().unwrap_or_default(), prefix: arguments.prefix.clone() };
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
        eprintln!("only the first {limit} jobs are shown; raise --limit, or narrow with --prefix");
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
        state(job).to_owned(),
        times::column(job.next_fire),
        job.fire_sequence.0.to_string(),
        job.last_state.to_string(),
    ]
}

fn state(job: &Job) -> &'static str {
    match (job.paused, job.next_fire) {
        (true, _) => "paused",
        (false, Some(_)) => "active",
        (false, None) => "finished",
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
        ("state", state(job).to_owned()),
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
        ("non-retryable", definition.non_retryable.clone(), !definition.non_retryable.is_empty()),
    ];
    all.into_iter().filter(|(.., is_special)| *is_special).map(|(name, value, _)| (name, value)).collect()
}

fn change(arguments: &JobNameArguments, verb: Verb) -> Result<(), CliError> {
    let name = &arguments.name;
    let done = with_client(&arguments.connection, async |client| {
        Ok(match verb {
            Verb::Pause => client.pause(name).await?,
            Verb::Resume => client.resume(name).await?,
            Verb::Trigger => client.trigger(name).await?,
            Verb::Delete => client.delete(name).await?,
        })
    })?;
    let next = times::column(done.next_fire);
    let text = match verb {
        Verb::Pause => format!("{name} is paused"),
        Verb::Resume => format!("{name} fires again, next at {next}"),
        Verb::Trigger => format!("{name} was triggered; `tickwheel execution list --job {name}` shows how it goes"),
        Verb::Delete => format!("{name} is deleted"),
    };
    output::write(&format!("{}\n", output::printable(&text)))
}
