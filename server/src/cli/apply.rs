//! `tickwheel job apply`: makes the server's jobs equal to those of a file.
//!
//! Each job is compared with what the server has, and submitted only when they differ, with the revision that was compared, so that
//! a change by someone else meanwhile is refused instead of lost. A job that is paused stays paused unless the file says
//! otherwise; an interval keeps its phase. `after` counts from each apply, so such a job is always submitted again.
//! Deliberately absent: deleting what is not in the file.

use super::{
    args::{ApplyArguments, OutputFormat},
    connection::with_client,
    error::CliError,
    output, times,
    views::AppliedRow,
};
use crate::jobs_file::{self, FILE_BYTES_MAX, FileJob};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};
use tickwheel_client::{
    Client, Job, JobBuilder, JobDefinition, RefusalCode, RequestError, Schedule, Submission, SubmitMode, Timestamp,
};

pub(super) fn run(arguments: &ApplyArguments) -> Result<(), CliError> {
    let (file, text) = read(&arguments.file)?;
    let jobs = jobs_file::parse(&text, &file).map_err(|errors| {
        for error in &errors {
            eprintln!("error: {}", output::printable(&error.to_string()));
        }
        CliError::Told
    })?;
    if jobs.is_empty() {
        return Err(CliError::Failed(format!("{file}: no jobs in it; a job is a [[job]] table")));
    }
    let rows = with_client(&arguments.connection, async |client| Ok(apply(&client, jobs, arguments.dry_run).await))?;
    match arguments.output.output {
        OutputFormat::Json => output::json(&rows)?,
        OutputFormat::Table => table(&rows, arguments.dry_run)?,
    }
    tell_refused(&rows)
}

/// Name and text of a file; `-` is the standard input.
fn read(path: &Path) -> Result<(String, String), CliError> {
    let name = if path == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let source: io::Result<Box<dyn Read>> = if path == "-" {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut text = String::new();
    let read = source.and_then(|source| source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| CliError::Failed(format!("{name}: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(CliError::Failed(format!("{name}: longer than {FILE_BYTES_MAX} bytes; split it")));
    }
    Ok((name, text))
}

/// Applies `jobs`; a row for each, in their order.
pub(super) async fn apply(client: &Client, jobs: Vec<FileJob>, dry_run: bool) -> Vec<AppliedRow> {
    let mut rows = Vec::with_capacity(jobs.len());
    let mut differing = Vec::new();
    for mut job in jobs {
        if job.definition.tenant.is_empty() {
            job.definition.tenant = client.tenant().to_owned();
        }
        let found = match client.for_tenant(&job.definition.tenant).get(&job.definition.name).await {
            Ok(found) => Some(found),
            Err(RequestError::Refused(refusal)) if refusal.code == RefusalCode::UnknownJob => None,
            Err(error) => {
                rows.push(refused(&job.definition, dry_run, error));
                continue;
            }
        };
        let row = compare(&mut job, found.as_ref(), dry_run);
        if row.action != "unchanged" && !dry_run {
            let revision = found.map_or(0, |found| found.revision);
            differing.push((rows.len(), JobBuilder::from(job.definition).expected_revision(revision)));
        }
        rows.push(row);
    }
    let answers = client.submit_many(differing.iter().map(|(_, builder)| builder), SubmitMode::Upsert).await;
    for ((index, builder), answer) in differing.iter().zip(answers) {
        rows[*index] = match answer {
            Ok(submission) => submitted(builder.definition(), &submission),
            Err(error) => refused(builder.definition(), false, error),
        };
    }
    rows
}

/// What is to be done about `job`, whose definition takes over from `found` what the file leaves open.
fn compare(job: &mut FileJob, found: Option<&Job>, dry_run: bool) -> AppliedRow {
    let wanted = &mut job.definition;
    let mut row = row(wanted, "created", dry_run);
    let Some(found) = found else { return row };
    wanted.paused = job.paused.unwrap_or(found.paused);
    if let (Schedule::Interval { every, anchor }, Schedule::Interval { every: old_every, anchor: old_anchor }) =
        (&mut wanted.schedule, &found.definition.schedule)
        && every == old_every
        && anchor.is_none()
    {
        *anchor = *old_anchor;
    }
    let mut current = found.definition.clone();
    current.paused = found.paused;
    row.action = if *wanted == current { "unchanged" } else { "updated" };
    row.revision = Some(found.revision);
    (row.next_fire_at, row.next_fire_at_us) = time(found.next_fire);
    row
}

fn submitted(definition: &JobDefinition, submission: &Submission) -> AppliedRow {
    let action = if submission.created { "created" } else { "updated" };
    let (next_fire_at, next_fire_at_us) = time(submission.next_fire);
    AppliedRow { revision: Some(submission.revision), next_fire_at, next_fire_at_us, ..row(definition, action, false) }
}

fn refused(definition: &JobDefinition, dry_run: bool, error: RequestError) -> AppliedRow {
    AppliedRow { reason: CliError::from(error).line(), ..row(definition, "refused", dry_run) }
}

fn row(definition: &JobDefinition, action: &'static str, dry_run: bool) -> AppliedRow {
    AppliedRow {
        tenant: definition.tenant.clone(),
        name: definition.name.clone(),
        action,
        dry_run,
        revision: None,
        next_fire_at: None,
        next_fire_at_us: None,
        reason: None,
    }
}

fn time(at: Option<Timestamp>) -> (Option<String>, Option<u64>) {
    (at.and_then(times::rfc3339), at.map(Timestamp::as_micros))
}

fn table(rows: &[AppliedRow], dry_run: bool) -> Result<(), CliError> {
    let cells = rows.iter().map(|row| {
        let next = row.next_fire_at_us.map(Timestamp::from_micros);
        [row.tenant.clone(), row.name.clone(), row.action.to_owned(), times::column(next)]
    });
    let action = if dry_run { "WOULD BE" } else { "RESULT" };
    output::table(["TENANT", "NAME", action, "NEXT FIRE"], cells)
}

/// A line for each refusal; an error if there is any.
pub(super) fn tell_refused<'a>(rows: impl IntoIterator<Item = &'a AppliedRow>) -> Result<(), CliError> {
    let mut outcome = Ok(());
    for row in rows {
        if let Some(reason) = &row.reason {
            eprintln!("error: job {:?} of tenant {:?}: {}", row.name, row.tenant, output::printable(reason));
            outcome = Err(CliError::Told);
        }
    }
    outcome
}
