//! What jobs have to make up for: dead letters that are tried again, firings of the past that are executed after all.

use super::{
    args::{BackfillArguments, DeadLettersArguments, OutputFormat, RedriveArguments},
    connection::{present, with_client},
    error::CliError,
    execution, output, times,
    views::{BackfillAnswer, RedrivenRow},
};
use std::{collections::BTreeMap, time::Duration};
use tickwheel_client::{Client, Execution, ExecutionId, JobFilter, RefusalCode, RequestError};
use tokio::{task::JoinSet, time::sleep};

/// Redrives that are on their way at a time.
const REDRIVES_AHEAD: usize = 64;
/// How long a backfill waits before it asks for room again.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn dead_letters(arguments: &DeadLettersArguments) -> Result<(), CliError> {
    let filter = filter(arguments.connection.tenant.as_deref(), &arguments.prefix);
    let limit = arguments.limit as usize;
    let mut letters = with_client(&arguments.connection, async |client| collect(&client, filter).await)?;
    execution::keep_newest(&mut letters, limit);
    execution::show(&letters, arguments.output.output)
}

fn filter(tenant: Option<&str>, prefix: &str) -> JobFilter {
    JobFilter { tenant: tenant.unwrap_or_default().to_owned(), prefix: prefix.to_owned(), ..JobFilter::default() }
}

async fn collect(client: &Client, filter: JobFilter) -> Result<Vec<Execution>, CliError> {
    let (mut pager, mut letters) = (client.dead_letters(filter)?, Vec::new());
    while let Some(letter) = pager.next().await {
        letters.extend(present(letter)?);
    }
    // Oldest first: so each job's are tried in the order in which they failed.
    letters.sort_by_key(|letter| (letter.scheduled_at, letter.id));
    Ok(letters)
}

/// One dead letter, or many: a row for each, and a failure if any could not be redriven.
pub(super) fn redrive(arguments: &RedriveArguments) -> Result<(), CliError> {
    let format = arguments.output.output;
    if let Some(id) = &arguments.id {
        let id = execution::parse_id(id)?;
        let redrive = async |client: Client| client.redrive(id).await.map_err(|error| no_dead_letter(error, id));
        with_client(&arguments.connection, redrive)?;
        return output::write(&format!("{id} is to be tried again\n"));
    }
    let filter = filter(arguments.connection.tenant.as_deref(), arguments.prefix.as_deref().unwrap_or_default());
    let rows = with_client(&arguments.connection, async |client| {
        let letters = collect(&client, filter).await?;
        if arguments.dry_run {
            return Ok(letters.iter().map(|letter| RedrivenRow::of(letter, "would be redriven", None)).collect());
        }
        redrive_all(&client, letters).await
    })?;
    let failed = rows.iter().filter(|row| row.error.is_some()).count();
    match format {
        OutputFormat::Json => output::json(&rows)?,
        OutputFormat::Table => {
            let cells = rows.iter().map(|row| {
                let error = row.error.clone().unwrap_or_default();
                [
                    row.id.clone(),
                    row.job.clone(),
                    row.scheduled_at.clone().unwrap_or_else(|| times::NO_TIME.to_owned()),
                    row.action.to_owned(),
                    error,
                ]
            });
            output::table(["ID", "JOB", "SCHEDULED", "RESULT", "ERROR"], cells)?;
        }
    }
    eprintln!("{} of {} dead letters", rows.len() - failed, rows.len());
    if failed == 0 { Ok(()) } else { Err(CliError::Told) }
}

fn no_dead_letter(error: RequestError, id: ExecutionId) -> CliError {
    match error.refusal_code() {
        Some(RefusalCode::UnknownJob | RefusalCode::UnknownExecution) => CliError::Failed(format!(
            "unknown-execution: {id} is no dead letter that is remembered; `tickwheel execution dead-letters` shows those that are"
        )),
        _ => error.into(),
    }
}

/// The jobs at the same time, the dead letters of each in their order.
async fn redrive_all(client: &Client, letters: Vec<Execution>) -> Result<Vec<RedrivenRow>, CliError> {
    let (mut tasks, mut rows) = (JoinSet::new(), Vec::with_capacity(letters.len()));
    let mut by_job = BTreeMap::<_, Vec<_>>::new();
    for letter in letters {
        by_job.entry(letter.id.job).or_default().push(letter);
    }
    for letters in by_job.into_values() {
        if tasks.len() == REDRIVES_AHEAD {
            rows.extend(tasks.join_next().await.expect("there are tasks").map_err(CliError::failed)?);
        }
        let client = client.clone();
        tasks.spawn(async move {
            let mut rows = Vec::with_capacity(letters.len());
            for letter in letters {
                let error = client.redrive(letter.id).await.err().map(|error| error.to_string());
                let action = if error.is_none() { "redriven" } else { "failed" };
                rows.push(RedrivenRow::of(&letter, action, error));
            }
            rows
        });
    }
    while let Some(done) = tasks.join_next().await {
        rows.extend(done.map_err(CliError::failed)?);
    }
    rows.sort_by(|a, b| (&a.scheduled_at, &a.id).cmp(&(&b.scheduled_at, &b.id)));
    Ok(rows)
}

/// As often as it takes until the whole range is in the job's backlog, or counted.
pub(super) fn backfill(arguments: &BackfillArguments) -> Result<(), CliError> {
    let BackfillArguments { name, from, until, dry_run, .. } = arguments;
    let from = times::parse(from)?;
    let until = until.as_deref().map_or_else(|| Ok(times::now()), times::parse)?;
    let count = with_client(&arguments.connection, async |client| {
        let (mut count, mut from) = (0, from);
        loop {
            let taken = client.backfill(name, from, until, *dry_run).await?;
            count += u64::from(taken.count);
            from = taken.until;
            if from >= until {
                return Ok(count);
            }
            if !dry_run {
                eprintln!("{count} firings up to {}; {} wait", times::column(Some(from)), taken.backlog);
                sleep(ROOM_INTERVAL).await;
            }
        }
    })?;
    let answer = BackfillAnswer { name: name.clone(), count, dry_run: *dry_run };
    if arguments.output.output == OutputFormat::Json {
        return output::json(&answer);
    }
    let (done, name) = (if *dry_run { "would be" } else { "are to be" }, output::printable(name));
    output::write(&format!(
        "{count} firings of {name} {done} executed; `tickwheel execution list --job {name}` shows how it goes\n"
    ))
}
