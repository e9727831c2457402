//! What jobs have to make up for: dead letters that are tried again, firings of the past that are executed after all.

use super::{
    args::{BackfillArguments, DeadLettersArguments, OutputFormat, RedriveArguments},
    bulk,
    connection::{present, with_client},
    error::CliError,
    execution, output, times,
    views::{BackfillAnswer, ChangedRow},
};
use std::time::Duration;
use tickwheel_client::{ExecutionId, RefusalCode, RequestError};
use tokio::time::sleep;

/// How long a backfill waits before it asks for room again.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn dead_letters(arguments: &DeadLettersArguments) -> Result<(), CliError> {
    let filter = arguments.filter.resolve(arguments.connection.tenant.as_deref())?;
    let limit = arguments.limit as usize;
    let letters = with_client(&arguments.connection, async |client| {
        let (mut pager, mut letters) = (client.dead_letters(filter)?, Vec::new());
        while let Some(letter) = pager.next().await {
            letters.extend(present(letter)?);
            if letters.len() >= 2 * limit {
                execution::keep_newest(&mut letters, limit);
            }
        }
        execution::keep_newest(&mut letters, limit);
        Ok(letters)
    })?;
    execution::show(&letters, arguments.output.output)
}

/// One dead letter, or many.
pub(super) fn redrive(arguments: &RedriveArguments) -> Result<(), CliError> {
    let Some(id) = &arguments.id else { return bulk::dead_letters(arguments) };
    let id = execution::parse_id(id)?;
    let is_told = arguments.output.output == OutputFormat::Json;
    let letter = with_client(&arguments.connection, async |client| {
        let letter = if is_told { client.execution(id).await.ok() } else { None };
        client.redrive(id).await.map_err(|error| no_dead_letter(error, id))?;
        Ok(letter)
    })?;
    match letter {
        Some(letter) => output::json(&[ChangedRow::of(&letter, bulk::REDRIVEN)]),
        None => output::write(&format!("{id} is to be tried again\n")),
    }
}

fn no_dead_letter(error: RequestError, id: ExecutionId) -> CliError {
    match error.refusal_code() {
        Some(RefusalCode::UnknownJob | RefusalCode::UnknownExecution) => CliError::Failed(format!(
            "unknown-execution: {id} is no dead letter that is remembered; `tickwheel execution dead-letters` shows those that are"
        )),
        _ => error.into(),
    }
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
