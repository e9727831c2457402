//! `tickwheel job import`: jobs from what other schedulers run; see [`crate::import`].
//!
//! What cannot be honoured is told by file and line and fails the command, after everything else was imported. Deliberately absent:
//! deleting jobs that are gone from the files.

use super::{
    apply,
    args::{ImportArguments, OutputFormat},
    connection::with_client,
    error::CliError,
    job, output,
    plan::Plan,
    source, times,
    views::{self, AppliedRow, FireRow, ImportAnswer, ImportedRow, RefusedPartRow, SkippedRow},
};
use crate::{
    import::{
        Form, Import, ImportedJob,
        crontab::{self, Format},
        kubernetes, systemd,
    },
    jobs_file::FileJob,
};
use std::{io, path::Path, time::Duration};
use tickwheel_client::{FiringRules, JobDefinition, Schedule, Timestamp};
use tickwheel_engine::schedule::{Cron, CronOptions, Exclusions, Zones};

/// Fires that are shown of each job.
const FIRE_COUNT: u32 = 3;

pub(super) fn run(arguments: &ImportArguments) -> Result<(), CliError> {
    let Import { jobs, refused, skipped } = import(arguments)?;
    let mut rows = rows(&jobs);
    if !arguments.dry_run && !jobs.is_empty() {
        let wanted = jobs.into_iter().map(|job| FileJob { definition: job.definition, paused: job.paused }).collect();
        let applied = with_client(&arguments.connection, async |client| {
            Ok(Plan::make(&client, wanted, false).await?.carry_out(&client).await)
        })?;
        for (row, applied) in rows.iter_mut().zip(applied) {
            row.applied = Some(applied);
        }
    }
    let refused = refused.into_iter().map(|part| RefusedPartRow {
        file: source::name(&part.file),
        line: part.line,
        text: part.text,
        reason: part.reason,
    });
    let skipped =
        skipped.into_iter().map(|part| SkippedRow { file: source::name(&part.file), line: part.line, note: part.note });
    let answer = ImportAnswer { jobs: rows, refused: refused.collect(), skipped: skipped.collect() };
    match arguments.output.output {
        OutputFormat::Json => output::json(&answer)?,
        OutputFormat::Table => table(&answer)?,
    }
    tell_refused(&answer)
}

/// What the path of the arguments holds, read by its form.
fn import(arguments: &ImportArguments) -> Result<Import<String>, CliError> {
    let ImportArguments { path, from, crontab, system, .. } = arguments;
    let path = path.as_ref().or(crontab.as_ref()).expect("one of them is required");
    let failed = |error: io::Error| CliError::Failed(format!("{}: {error}", path.display()));
    let from = from.or_else(|| crontab.as_ref().map(|_| Form::Crontab)).or_else(|| Form::of_name(path));
    if path.is_dir() || (from == Some(Form::Systemd) && path != source::STDIN) {
        if from.is_some_and(|from| from != Form::Systemd) || *system {
            return Err(CliError::Usage(format!("{}: a folder holds timers of systemd", path.display())));
        }
        return systemd::import(path).map(Import::told).map_err(failed);
    }
    let text = source::read(path)?;
    let from = from.unwrap_or_else(|| if *system { Form::Crontab } else { Form::of_text(&text) });
    match from {
        Form::Crontab => Ok(crontab::import(&text, path, format(path, *system)).told()),
        _ if *system => Err(CliError::Usage("`--system` says something about a crontab, and this is none".to_owned())),
        Form::Kubernetes => Ok(kubernetes::import(&text, path).told()),
        Form::Systemd => Err(CliError::Usage(
            "a timer needs its service beside it: name the .timer file, or the folder of both".to_owned(),
        )),
    }
}

/// The form of the crontab at `path`.
fn format(path: &Path, system: bool) -> Format {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if system { Format::System } else { Format::of(&absolute) }
}

fn rows(jobs: &[ImportedJob]) -> Vec<ImportedRow> {
    let mut zones = Zones::new();
    let row = |job: &ImportedJob| ImportedRow {
        file: source::name(&job.file),
        line: job.line,
        name: job.definition.name.clone(),
        schedule: (&job.definition.schedule).into(),
        also: views::also(&job.definition),
        schedule_text: job::schedules(&job.definition),
        next_fires: fires(&job.definition, &mut zones),
        notes: job.notes.clone(),
        applied: None,
    };
    jobs.iter().map(row).collect()
}

/// The next fires of a job that is submitted now, as far as they are known.
fn fires(definition: &JobDefinition, zones: &mut Zones) -> Vec<FireRow> {
    let mut fires: Vec<_> =
        definition.schedules().flat_map(|schedule| fires_of(&schedule, &definition.rules, zones)).collect();
    fires.sort_by_key(|(at, _)| *at);
    fires.dedup_by_key(|(at, _)| *at);
    fires.into_iter().take(FIRE_COUNT as usize).map(|(_, at)| FireRow { at }).collect()
}

/// The next fires of a schedule, as times and in words.
fn fires_of(schedule: &Schedule, rules: &FiringRules, zones: &mut Zones) -> Vec<(Timestamp, String)> {
    let now = times::now();
    let later = |delay: Duration| now.saturating_add(delay);
    let fire = |at| times::rfc3339(at).map(|text| (at, text));
    match schedule {
        Schedule::Cron { expression, zone } => {
            let options = CronOptions::of(rules.into());
            let cron = zones.get(zone).and_then(|zone| Cron::with_options(expression, zone, options));
            cron.map_or_else(
                |_| Vec::new(),
                |cron| super::cron::fires(&cron, &Exclusions::default(), now).take(FIRE_COUNT as usize).collect(),
            )
        }
        Schedule::Interval { every, .. } => (1..=FIRE_COUNT).filter_map(|count| fire(later(*every * count))).collect(),
        Schedule::Once { at } => fire(*at).into_iter().collect(),
        Schedule::After { delay } | Schedule::FixedDelay { delay } => fire(later(*delay)).into_iter().collect(),
        _ => Vec::new(),
    }
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
            eprintln!("note: {}:{}: {}", job.file, job.line, output::printable(note));
        }
    }
    for SkippedRow { file, line, note } in &answer.skipped {
        eprintln!("note: {file}:{line}: {}", output::printable(note));
    }
    Ok(())
}

fn tell_refused(answer: &ImportAnswer) -> Result<(), CliError> {
    let mut outcome = apply::tell_failed(answer.jobs.iter().filter_map(|job| job.applied.as_ref()));
    for RefusedPartRow { file, line, text, reason } in &answer.refused {
        let (reason, text) = (output::printable(reason), output::printable(text));
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        eprintln!("error: {file}{line}: {reason}; nothing was created for `{text}`");
        outcome = Err(CliError::Told);
    }
    outcome
}
