//! `tickwheel job apply`: makes the server's jobs equal to those of a file.
//!
//! First it plans, comparing each job with what the server has, and shows the plan; then it does what the plan says. A job that
//! is paused stays paused unless the file says otherwise; an interval keeps its phase. `after` counts from each apply, so such a
//! job is always submitted again. What is not in the file is left alone without `--prune`.

use super::{
    args::{ApplyArguments, OutputFormat},
    connection::with_client,
    error::CliError,
    output,
    plan::Plan,
    source, times,
    views::AppliedRow,
};
use crate::jobs_file;
use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};
use tickwheel_client::Timestamp;

/// How many jobs a plan creates, changes, deletes and leaves.
#[derive(Default)]
struct Summary(BTreeMap<&'static str, usize>);

/// Longest text of a value in a plan, in characters.
const VALUE_CHARS_MAX: usize = 60;
/// What a plan shows where a key is not given.
const ABSENT: &str = "(absent)";

pub(super) fn run(arguments: &ApplyArguments) -> Result<(), CliError> {
    let (file, text) = (source::name(&arguments.file), source::read(&arguments.file)?);
    let folder = source::folder(&arguments.file);
    let jobs = jobs_file::parse(&text, &file, Some(&folder)).map_err(|errors| {
        for error in &errors {
            eprintln!("error: {}", output::printable(&error.to_string()));
        }
        CliError::Told
    })?;
    if jobs.is_empty() {
        return Err(CliError::Failed(format!("{file}: no jobs in it; a job is a [[job]] table")));
    }
    let form = arguments.output.output;
    let (rows, shown) = with_client(&arguments.connection, async |client| {
        let plan = Plan::make(&client, jobs, arguments.prune).await?;
        // A plan that nobody reads is carried out all the same; that it could not be shown is told at the end.
        let shown = if form == OutputFormat::Table { show_plan(plan.rows()) } else { Ok(()) };
        let rows = if arguments.dry_run { plan.into_rows() } else { plan.carry_out(&client).await };
        Ok((rows, shown))
    })?;
    let shown = shown.and_then(|()| match form {
        OutputFormat::Json => output::json(&rows),
        OutputFormat::Table if arguments.dry_run => Ok(()),
        OutputFormat::Table => show_outcome(&rows),
    });
    tell_failed(&rows).and(shown)
}

/// A line for each job, and for each key that changes.
fn show_plan<'a>(rows: impl Iterator<Item = &'a AppliedRow>) -> Result<(), CliError> {
    let (mut cells, mut summary) = (Vec::new(), Summary::default());
    for row in rows {
        let plan = row.plan.unwrap_or(row.action);
        *summary.0.entry(plan).or_default() += 1;
        let mut who = [plan.to_owned(), row.tenant.clone(), row.name.clone()];
        for change in &row.changes {
            let [plan, tenant, name] = std::mem::take(&mut who);
            cells.push([
                plan,
                tenant,
                name,
                change.key.clone(),
                value(change.from.as_ref()),
                value(change.to.as_ref()),
            ]);
        }
        if row.changes.is_empty() {
            let [plan, tenant, name] = who;
            cells.push([plan, tenant, name, String::new(), String::new(), String::new()]);
        }
    }
    output::table(["PLAN", "TENANT", "NAME", "KEY", "FROM", "TO"], cells)?;
    output::write(&format!("\n{summary}\n"))
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = |name| self.0.get(name).copied().unwrap_or_default();
        let (create, change, delete, same) = (count("create"), count("change"), count("delete"), count("unchanged"));
        write!(f, "{create} to create, {change} to change, {delete} to delete, {same} unchanged")
    }
}

/// A value as the jobs file has it, cut if it is long.
fn value(value: Option<&toml::Value>) -> String {
    let text = value.map_or_else(|| ABSENT.to_owned(), ToString::to_string);
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn show_outcome(rows: &[AppliedRow]) -> Result<(), CliError> {
    let cells = rows.iter().map(|row| {
        let next = row.next_fire_at_us.map(Timestamp::from_micros);
        [row.tenant.clone(), row.name.clone(), row.action.to_owned(), times::column(next)]
    });
    output::write("\n")?;
    output::table(["TENANT", "NAME", "RESULT", "NEXT FIRE"], cells)
}

/// A line for each conflict and refusal; an error if there is any.
pub(super) fn tell_failed<'a>(rows: impl IntoIterator<Item = &'a AppliedRow>) -> Result<(), CliError> {
    let mut outcome = Ok(());
    for row in rows {
        if let Some(reason) = &row.reason {
            eprintln!("error: job {:?} of tenant {:?}: {}", row.name, row.tenant, output::printable(reason));
            outcome = Err(CliError::Told);
        }
    }
    outcome
}
