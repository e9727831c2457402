//! `tickwheel calendar`: the calendars of a tenant that the server keeps, which jobs name as `calendar NAME`.
//!
//! Entries are checked here before anything is sent, with the line of the file that they stand in; the server checks them again.

use super::{
    args::{
        CalendarCommand, CalendarDeleteArguments, CalendarGetArguments, CalendarListArguments, CalendarSetArguments,
        OutputFormat,
    },
    connection::{present, with_client},
    error::CliError,
    output, source,
    views::{CalendarChange, CalendarRow},
};
use crate::jobs_file;
use std::path::Path;
use tickwheel_client::{Client, JobFilter};
use tickwheel_engine::schedule::{Exclusions, Zones};

/// The zone that entries are tried with which name none: that of the jobs may be any.
const ANY_ZONE: &str = "UTC";
/// Jobs that a refusal names.
const JOBS_SHOWN: usize = 5;
/// Longest text of entries in a list, in characters.
const ENTRIES_CHARS_MAX: usize = 60;

pub(super) fn run(command: &CalendarCommand) -> Result<(), CliError> {
    match command {
        CalendarCommand::Set(arguments) => set(arguments),
        CalendarCommand::List(arguments) => list(arguments),
        CalendarCommand::Get(arguments) => get(arguments),
        CalendarCommand::Delete(arguments) => delete(arguments),
    }
}

fn set(arguments: &CalendarSetArguments) -> Result<(), CliError> {
    let (name, exclusions) = (&arguments.name, entries(arguments)?);
    let tenant = with_client(&arguments.connection, async |client| {
        client.set_calendar(name, &exclusions).await?;
        Ok(client.tenant().to_owned())
    })?;
    if arguments.output.output == OutputFormat::Json {
        return output::json(&CalendarChange { tenant, name: name.clone(), action: "set" });
    }
    let count = exclusions.lines().count();
    output::write(&format!("calendar {} is set, with {count} entries\n", output::printable(name)))
}

/// The calendar's text as the arguments give it.
fn entries(arguments: &CalendarSetArguments) -> Result<String, CliError> {
    let CalendarSetArguments { source, tz, .. } = arguments;
    let (from, text) = if let Some(path) = &source.file {
        (source::name(path), of_file(path)?)
    } else if let Some(path) = &source.ics {
        let text = jobs_file::entries_of_ics(path, tz.as_deref()).map_err(CliError::Failed)?;
        (path.display().to_string(), checked(&text, &path.display())?)
    } else {
        ("--exclude".to_owned(), checked(&source.exclude.join("\n"), &"--exclude")?)
    };
    if text.is_empty() {
        return Err(CliError::Failed(format!(
            "{from}: no entries in it; `tickwheel calendar delete` removes a calendar"
        )));
    }
    Ok(text)
}

/// The entries of a file, a line each; empty lines and those that begin with `#` are none.
fn of_file(path: &Path) -> Result<String, CliError> {
    let text = source::read(path)?;
    // A line that is no entry stays, empty: so errors tell the line of the file.
    let entry = |line: &str| if line.trim_start().starts_with('#') { String::new() } else { line.to_owned() };
    checked(&text.lines().map(entry).collect::<Vec<_>>().join("\n"), &source::name(path))
}

/// `text` without its empty lines and the blanks around entries, if all are entries.
fn checked(text: &str, from: &dyn std::fmt::Display) -> Result<String, CliError> {
    Exclusions::of_calendar(text, ANY_ZONE, &mut Zones::new())
        .map_err(|error| CliError::Failed(format!("{from}: {error}")))?;
    Ok(text.lines().map(str::trim).filter(|entry| !entry.is_empty()).collect::<Vec<_>>().join("\n"))
}

fn list(arguments: &CalendarListArguments) -> Result<(), CliError> {
    // As lists of jobs do: of all tenants that the identity may see, unless one is named.
    let tenant = arguments.connection.tenant.clone().unwrap_or_default();
    let calendars = with_client(&arguments.connection, async |client| {
        Ok(client.for_tenant(&tenant).calendars()?.collect().await?)
    })?;
    let mut rows: Vec<_> = calendars.into_iter().map(CalendarRow::from).collect();
    rows.sort_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
    if arguments.output.output == OutputFormat::Json {
        return output::json(&rows);
    }
    let cells = rows.into_iter().map(|row| [row.tenant, row.name, shortened(&row.exclusions.join("; "))]);
    output::table(["TENANT", "NAME", "ENTRIES"], cells)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(ENTRIES_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn get(arguments: &CalendarGetArguments) -> Result<(), CliError> {
    let name = &arguments.name;
    let found = with_client(&arguments.connection, async |client| {
        let mut calendars = client.calendars()?;
        while let Some(calendar) = calendars.next().await {
            let calendar = calendar?;
            if calendar.name == *name {
                return Ok(Some(calendar));
            }
        }
        Ok(None)
    })?;
    let Some(calendar) = found else {
        let problem = format!("unknown-calendar: there is no calendar {name:?}");
        return Err(CliError::Failed(format!("{problem}; `tickwheel calendar list` shows the calendars")));
    };
    match arguments.output.output {
        OutputFormat::Json => output::json(&CalendarRow::from(calendar)),
        OutputFormat::Table if calendar.exclusions.is_empty() => Ok(()),
        OutputFormat::Table => output::write(&format!("{}\n", output::printable_lines(&calendar.exclusions))),
    }
}

fn delete(arguments: &CalendarDeleteArguments) -> Result<(), CliError> {
    let name = &arguments.name;
    let tenant = with_client(&arguments.connection, async |client| {
        if !arguments.force {
            refuse_if_named(&client, name).await?;
        }
        client.remove_calendar(name).await?;
        Ok(client.tenant().to_owned())
    })?;
    if arguments.output.output == OutputFormat::Json {
        return output::json(&CalendarChange { tenant, name: name.clone(), action: "deleted" });
    }
    output::write(&format!("calendar {} is deleted\n", output::printable(name)))
}

/// Looks through the tenant's jobs for some that name the calendar.
async fn refuse_if_named(client: &Client, calendar: &str) -> Result<(), CliError> {
    let mut jobs = client.list(JobFilter { tenant: client.tenant().to_owned(), ..JobFilter::default() })?;
    let (mut count, mut first, mut complete) = (0, Vec::new(), true);
    while let Some(row) = jobs.next().await {
        let Some(job) = present(row)? else {
            complete = false;
            continue;
        };
        if Exclusions::calendars_named(&job.definition.exclusions).any(|named| named == calendar) {
            count += 1;
            first.push(job.definition.name);
            first.sort_unstable();
            first.truncate(JOBS_SHOWN);
        }
    }
    let problem = match count {
        0 if complete => return Ok(()),
        0 => "not all jobs could be looked at".to_owned(),
        _ => named_by(count, &first),
    };
    Err(CliError::Failed(format!(
        "calendar {calendar:?} stays: {problem}; with --force it is deleted all the same, and excludes nothing then"
    )))
}

fn named_by(count: usize, first: &[String]) -> String {
    let others = count - first.len();
    let more = if others == 0 { String::new() } else { format!(" and {others} more") };
    let jobs = if count == 1 { "job" } else { "jobs" };
    format!("it is named by {count} {jobs}: {}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_taken_without_blanks_and_comments_and_refused_with_their_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("holidays.txt");
        let of = |text: &str| {
            std::fs::write(&path, text).expect("written");
            of_file(&path).map_err(|error| error.line().expect("a line"))
        };
        let text = "# Bavaria\nzone Europe/Berlin\n\n  12-25 \r\ncron * 12 * * *\n  # none\nSAT,SUN";
        assert_eq!(of(text).as_deref(), Ok("zone Europe/Berlin\n12-25\ncron * 12 * * *\nSAT,SUN"));
        assert_eq!(of("# nothing\n\n").as_deref(), Ok(""));
        let wrong = of("# one\n12-25\n\nsomeday\n").expect_err("no entry");
        assert!(wrong.contains("holidays.txt: line 4, `someday`: an entry is"), "{wrong}");
        let nested = of("calendar others").expect_err("a calendar names none");
        assert!(nested.ends_with("line 1, `calendar others`: a calendar names no other"), "{nested}");
    }

    #[test]
    fn a_refusal_names_a_few_jobs_and_counts_the_others() {
        let names = ["a", "b"].map(str::to_owned);
        assert_eq!(named_by(1, &names[..1]), "it is named by 1 job: a");
        assert_eq!(named_by(2, &names), "it is named by 2 jobs: a, b");
        assert_eq!(named_by(9, &names), "it is named by 9 jobs: a, b and 7 more");
    }
}
