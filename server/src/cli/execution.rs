//! `tickwheel execution`: what runs and what ran.

use super::{
    args::{
        ExecutionCancelArguments, ExecutionCommand, ExecutionGetArguments, ExecutionListArguments,
        ExecutionWatchArguments, OutputFormat,
    },
    backlog, bulk,
    connection::{present, with_client},
    error::CliError,
    output, times,
    views::{ChangedRow, ExecutionRow},
};
use std::cmp::Reverse;
use tickwheel_client::{
    Execution, ExecutionFilter, ExecutionId, ExecutionState, FireSequence, JobId, PartitionId, RefusalCode,
    RequestError, Transition,
};
use tickwheel_wire::PartitionCount;

pub(super) fn run(command: &ExecutionCommand) -> Result<(), CliError> {
    match command {
        ExecutionCommand::List(arguments) => list(arguments),
        ExecutionCommand::Get(arguments) => get(arguments),
        ExecutionCommand::Cancel(arguments) => cancel(arguments),
        ExecutionCommand::DeadLetters(arguments) => backlog::dead_letters(arguments),
        ExecutionCommand::Redrive(arguments) => backlog::redrive(arguments),
        ExecutionCommand::Watch(arguments) => watch(arguments),
    }
}

/// Parses an id as it is displayed: `partition.slot.generation/sequence`.
pub(super) fn parse_id(text: &str) -> Result<ExecutionId, CliError> {
    let wrong = || {
        CliError::Usage(format!(
            "{text:?} is not the id of an execution; `tickwheel execution list` shows ids such as 12.34.5/6"
        ))
    };
    let (job, sequence) = text.split_once('/').ok_or_else(wrong)?;
    let mut parts = job.split('.').map(str::parse::<u32>);
    let mut part = || parts.next().and_then(Result::ok).ok_or_else(wrong);
    let (partition, slot, generation) = (part()?, part()?, part()?);
    let partition = u16::try_from(partition).ok().filter(|partition| *partition < PartitionCount::MAX);
    let partition = PartitionId(partition.ok_or_else(wrong)?);
    if parts.next().is_some() || generation > JobId::GENERATION_MAX {
        return Err(wrong());
    }
    let fire_sequence = FireSequence(sequence.parse().map_err(|_| wrong())?);
    Ok(ExecutionId { job: JobId::new(partition, generation, slot), fire_sequence })
}

fn list(arguments: &ExecutionListArguments) -> Result<(), CliError> {
    let filter = arguments.filter.resolve(arguments.connection.tenant.as_deref(), arguments.in_flight);
    let limit = arguments.limit as usize;
    let executions = with_client(&arguments.connection, async |client| {
        let (mut pager, mut newest) = (client.executions(filter)?, Vec::new());
        while let Some(execution) = pager.next().await {
            newest.extend(present(execution)?);
            // Partitions come one after the other, so that the newest are known only at the end.
            if newest.len() >= 2 * limit {
                keep_newest(&mut newest, limit);
            }
        }
        keep_newest(&mut newest, limit);
        Ok(newest)
    })?;
    show(&executions, arguments.output.output)
}

pub(super) fn show(executions: &[Execution], format: OutputFormat) -> Result<(), CliError> {
    match format {
        OutputFormat::Json => output::json(&executions.iter().map(ExecutionRow::from).collect::<Vec<_>>()),
        OutputFormat::Table => {
            let header = ["ID", "JOB", "STATE", "ATTEMPT", "SCHEDULED", "FINISHED", "RAN", "ERROR", "WORKER", "STATUS"];
            output::table(header, executions.iter().map(columns))
        }
    }
}

pub(super) fn keep_newest(executions: &mut Vec<Execution>, limit: usize) {
    executions.sort_by_key(|execution| Reverse((execution.scheduled_at, execution.id, execution.attempt)));
    executions.truncate(limit);
}

fn columns(execution: &Execution) -> [String; 10] {
    [
        execution.id.to_string(),
        execution.job_name.clone(),
        state(execution),
        execution.attempt.to_string(),
        times::column(Some(execution.scheduled_at)),
        times::column(execution.finished_at),
        ran(execution),
        dash_if_empty(&execution.error),
        dash_if_empty(&execution.worker),
        dash_if_empty(&execution.status),
    ]
}

fn state(execution: &Execution) -> String {
    match (execution.state, execution.cancel_requested) {
        (ExecutionState::Running | ExecutionState::Retrying, true) => "cancelling".to_owned(),
        (ExecutionState::Running, false) if execution.progress_permille > 0 => {
            format!("running {}%", execution.progress_permille / 10)
        }
        (state, _) => state.to_string(),
    }
}

/// So many failures one after another.
pub(super) fn times_failed(count: u16) -> String {
    format!("{count} failure{}", if count == 1 { "" } else { "s" })
}

fn ran(execution: &Execution) -> String {
    if execution.run_time.is_zero() { times::NO_TIME.to_owned() } else { times::friendly(execution.run_time) }
}

fn dash_if_empty(text: &str) -> String {
    if text.is_empty() { times::NO_TIME.to_owned() } else { text.to_owned() }
}

fn get(arguments: &ExecutionGetArguments) -> Result<(), CliError> {
    let id = parse_id(&arguments.id)?;
    let execution = with_client(&arguments.connection, async |client| {
        client.execution(id).await.map_err(|error| unknown(error, id))
    })?;
    if arguments.output.output == OutputFormat::Json {
        return output::json(&ExecutionRow::from(&execution));
    }
    output::properties(&[
        ("id", execution.id.to_string()),
        ("tenant", execution.tenant.clone()),
        ("job", execution.job_name.clone()),
        ("state", state(&execution)),
        ("status", dash_if_empty(&execution.status)),
        ("attempt", execution.attempt.to_string()),
        ("token", execution.token.0.to_string()),
        ("scheduled", times::column(Some(execution.scheduled_at))),
        ("dispatched", times::column(Some(execution.dispatched_at))),
        ("finished", times::column(execution.finished_at)),
        ("ran", ran(&execution)),
        ("worker", dash_if_empty(&execution.worker)),
        ("error", dash_if_empty(&execution.error)),
    ])?;
    if execution.output.is_empty() {
        return Ok(());
    }
    let text = output::printable_lines(&String::from_utf8_lossy(&execution.output));
    output::write(&format!("\n{}\n", text.trim_end()))
}

/// Without its job the server cannot tell an execution that it has forgotten from one that never was.
fn unknown(error: RequestError, id: ExecutionId) -> CliError {
    match error.refusal_code() {
        Some(RefusalCode::UnknownJob | RefusalCode::UnknownExecution) => CliError::Failed(format!(
            "unknown-execution: {id} is not remembered; `tickwheel execution list` shows those that are"
        )),
        _ => error.into(),
    }
}

fn cancel(arguments: &ExecutionCancelArguments) -> Result<(), CliError> {
    let Some(id) = &arguments.id else { return bulk::executions(arguments) };
    let id = parse_id(id)?;
    let is_told = arguments.output.output == OutputFormat::Json;
    let execution = with_client(&arguments.connection, async |client| {
        let unknown = |error| unknown(error, id);
        let execution = if is_told { Some(client.execution(id).await.map_err(unknown)?) } else { None };
        client.cancel(id).await.map_err(unknown)?;
        Ok(execution)
    })?;
    if let Some(execution) = execution {
        return output::json(&[ChangedRow::of(&execution, bulk::CANCELLED)]);
    }
    output::write(&format!("{id} is to be cancelled; `tickwheel execution get {id}` shows what became of it\n"))
}

fn watch(arguments: &ExecutionWatchArguments) -> Result<(), CliError> {
    let tenant = arguments.connection.tenant.clone().unwrap_or_default();
    let filter = ExecutionFilter { tenant, job: arguments.job.clone(), ..ExecutionFilter::default() };
    let format = arguments.output.output;
    with_client(&arguments.connection, async |client| {
        let mut watch = client.watch(filter).await?;
        eprintln!("watching; Ctrl-C ends");
        while let Some(transition) = watch.next().await {
            match transition? {
                Transition::Execution(execution) => tell(&execution, format)?,
                Transition::Resumed => {
                    eprintln!("the connection was lost and is back; `tickwheel execution list` shows what was missed");
                }
                _ => {}
            }
        }
        Ok(())
    })
}

fn tell(execution: &Execution, format: OutputFormat) -> Result<(), CliError> {
    if format == OutputFormat::Json {
        return output::json_line(&ExecutionRow::from(execution));
    }
    let at = times::column(execution.finished_at.or(Some(execution.dispatched_at)));
    let (id, job, state, attempt) = (execution.id, &execution.job_name, state(execution), execution.attempt);
    let mut line = format!("{at}  {id}  {job}  {state}  attempt {attempt}");
    for text in [&execution.error, &execution.status].into_iter().filter(|text| !text.is_empty()) {
        line.push_str("  ");
        line.push_str(text);
    }
    if let Some(failures) = execution.paused_job_after_failures {
        line.push_str(&format!("  the job is paused after {}", times_failed(failures)));
    }
    output::write(&format!("{}\n", output::printable(&line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for id in [
            ExecutionId { job: JobId::new(PartitionId(0), 0, 0), fire_sequence: FireSequence(1) },
            ExecutionId {
                job: JobId::new(PartitionId(4_095), JobId::GENERATION_MAX, u32::MAX),
                fire_sequence: FireSequence(u64::MAX),
            },
        ] {
            assert_eq!(parse_id(&id.to_string()).expect("an id"), id);
        }
    }

    #[test]
    fn what_is_no_id_is_wrong_usage() {
        for text in
            ["", "1", "1.2.3", "1.2/3", "1.2.3.4/5", "4096.0.0/1", "1.2.1048576/1", "a.b.c/d", "1.2.3/-1", "1.2.3/4/5"]
        {
            assert_eq!(parse_id(text).expect_err(text).exit_status(), 2, "{text}");
        }
    }
}
