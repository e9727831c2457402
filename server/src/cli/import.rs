//! `tickwheel job import`: jobs from a crontab.
//!
//! Jobs are named after the file and their command, so that importing a changed crontab again updates the jobs that it made. What
//! cannot be honoured is told by line and fails the command, after everything else was imported. Deliberately absent: deleting
//! jobs whose line is gone.

use super::{
    apply,
    args::{ImportArguments, OutputFormat},
    connection::with_client,
    cron,
    error::CliError,
    job, output, times,
    views::{AppliedRow, ImportAnswer, ImportedRow, RefusedLineRow},
};
use crate::{
    import::crontab::{self, Format, Import, ImportedJob},
    jobs_file::{FILE_BYTES_MAX, FileJob},
};
use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};
use tickwheel_client::Schedule;
use tickwheel_engine::schedule::Zones;

/// Fires that are shown of each job.
const FIRE_COUNT: u32 = 3;

pub(super) fn run(arguments: &ImportArguments) -> Result<(), CliError> {
    let path = &arguments.crontab;
    let text = read(path).map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))?;
    let absolute = path.canonicalize().unwrap_or_else(|_| path.clone());
    let format = if arguments.system { Format::System } else { Format::of(&absolute) };
    let Import { jobs, refused } = crontab::import(&text, path, format);
    let mut rows = rows(&jobs);
    if !arguments.dry_run && !jobs.is_empty() {
        let wanted = jobs.into_iter().map(|job| FileJob { definition: job.definition, paused: None }).collect();
        let applied =
            with_client(&arguments.connection, async |client| Ok(apply::apply(&client, wanted, false).await))?;
        for (row, applied) in rows.iter_mut().zip(applied) {
            row.applied = Some(applied);
        }
    }
    let refused = refused.into_iter().map(|line| RefusedLineRow {
        line: line.line,
        text: line.text,
        reason: line.reason.to_string(),
    });
    let answer = ImportAnswer { jobs: rows, refused: refused.collect() };
    match arguments.output.output {
        OutputFormat::Json => output::json(&answer)?,
        OutputFormat::Table => table(&answer)?,
    }
    tell_refused(&answer, path)
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8; convert it first"))
}

fn rows(jobs: &[ImportedJob]) -> Vec<ImportedRow> {
    let mut zones = Zones::new();
    let row = |job: &ImportedJob| ImportedRow {
        line: job.line,
        name: job.definition.name.clone(),
        schedule: (&job.definition.schedule).into(),
        schedule_text: job::schedule(&job.definition.schedule),
        next_fires: match &job.definition.schedule {
            Schedule::Cron { expression, zone } => {
                cron::fires(expression, zone, times::now(), FIRE_COUNT, &mut zones).unwrap_or_default()
            }
            _ => Vec::new(),
        },
        notes: job.notes.clone(),
        applied: None,
    };
    jobs.iter().map(row).collect()
}

fn table(answer: &ImportAnswer) -> Result<(), CliError> {
    let action = |applied: Option<&AppliedRow>| applied.map_or("not applied", |applied| applied.action).to_owned();
    let cells = answer.jobs.iter().map(|job| {
        let next: Vec<_> = job.next_fires.iter().map(|fire| fire.at.as_str()).collect();
        [
            job.line.to_string(),
            job.name.clone(),
            job.schedule_text.clone(),
            action(job.applied.as_ref()),
            next.join(" "),
        ]
    });
    output::table(["LINE", "NAME", "SCHEDULE", "RESULT", "NEXT FIRES"], cells)?;
    for job in &answer.jobs {
        for note in &job.notes {
            eprintln!("note: line {}: {}", job.line, output::printable(note));
        }
    }
    Ok(())
}

fn tell_refused(answer: &ImportAnswer, path: &Path) -> Result<(), CliError> {
    let mut outcome = apply::tell_refused(answer.jobs.iter().filter_map(|job| job.applied.as_ref()));
    for RefusedLineRow { line, text, reason } in &answer.refused {
        let (path, reason, text) = (path.display(), output::printable(reason), output::printable(text));
        eprintln!("error: {path}:{line}: {reason}; nothing was created for `{text}`");
        outcome = Err(CliError::Told);
    }
    outcome
}
