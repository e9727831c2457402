//! The commands that change one or many: `job pause`, `resume`, `trigger` and `delete`, and `execution cancel` and `redrive`.
//!
//! Invariants: an empty filter is refused, so that a variable of a script that is empty does not pick everything; many are deleted
//! only after `--yes` or a question that names their number; a refusal does not keep the others from being changed; the exit
//! status is 1 when anything failed, was not met, or the command was stopped. Deliberately absent: what is listed and commanded
//! when; that is the client library's.

use super::{
    args::{
        BulkArguments, ConnectionArguments, ExecutionCancelArguments, JobChangeArguments, OutputFormat,
        RedriveArguments,
    },
    connection::with_client,
    error::CliError,
    output, signals, times,
    views::ChangedRow,
};
use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};
use tickwheel_client::{
    Bulk, BulkAction, BulkOutcome, BulkProgress, BulkReport, Client, RefusalCode, RequestError, Timestamp,
};
use tickwheel_wire::frame::request::JobVerb;

/// How often a terminal is told how far it is.
const TERMINAL_EVERY: Duration = Duration::from_millis(100);
/// How often anything else is.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How many names stand in the question before a deletion.
const NAMES_ASKED: usize = 5;

/// The words for what is done, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words {
    plain: &'static str,
    done: &'static str,
    what: &'static str,
}

/// What an execution is afterwards, or will be.
pub(super) const CANCELLED: &str = "cancelled";
const CANCEL: Words = Words { plain: "cancel", done: CANCELLED, what: "execution" };
/// What a dead letter is afterwards.
pub(super) const REDRIVEN: &str = "redriven";
const REDRIVE: Words = Words { plain: "redrive", done: REDRIVEN, what: "dead letter" };

impl Words {
    const fn of(verb: JobVerb) -> Self {
        Self { plain: verb.name(), done: done(verb), what: "job" }
    }

    /// `count` of what it is done with.
    fn counted(self, count: u64) -> String {
        format!("{count} {}{}", self.what, if count == 1 { "" } else { "s" })
    }
}

/// What a job is afterwards.
pub(super) const fn done(verb: JobVerb) -> &'static str {
    match verb {
        JobVerb::Pause => "paused",
        JobVerb::Resume => "resumed",
        JobVerb::Trigger => "triggered",
        JobVerb::Delete => "deleted",
        JobVerb::ClearBacklog => "cleared",
    }
}

/// Does something with the jobs that the arguments pick.
pub(super) fn jobs(arguments: &JobChangeArguments, verb: JobVerb, yes: bool) -> Result<(), CliError> {
    let JobChangeArguments { filter, bulk, connection, .. } = arguments;
    check(bulk, filter.is_open(), [&filter.prefix])?;
    let asks = verb == JobVerb::Delete && !yes && !bulk.dry_run;
    if asks && !io::stdin().is_terminal() {
        let text = "to delete many jobs without being asked, add --yes; --dry-run shows which they are";
        return Err(CliError::Usage(text.to_owned()));
    }
    let filter = filter.resolve(connection.tenant.as_deref());
    let action = match verb {
        JobVerb::Pause => BulkAction::Pause(filter),
        JobVerb::Resume => BulkAction::Resume(filter),
        JobVerb::Trigger => BulkAction::Trigger(filter),
        JobVerb::Delete => BulkAction::Delete(filter),
        JobVerb::ClearBacklog => BulkAction::ClearBacklog(filter),
    };
    run(connection, action, &Telling::new(Words::of(verb), bulk, arguments.output.output), asks)
}

/// Cancels the executions that the arguments pick.
pub(super) fn executions(arguments: &ExecutionCancelArguments) -> Result<(), CliError> {
    let ExecutionCancelArguments { filter, bulk, connection, .. } = arguments;
    let is_open = filter.job.is_none() && filter.prefix.is_none() && filter.label.is_empty();
    check(bulk, is_open, [&filter.job, &filter.prefix])?;
    let action = BulkAction::Cancel(filter.resolve(connection.tenant.as_deref(), true));
    run(connection, action, &Telling::new(CANCEL, bulk, arguments.output.output), false)
}

/// Tries the dead letters again that the arguments pick.
pub(super) fn dead_letters(arguments: &RedriveArguments) -> Result<(), CliError> {
    let RedriveArguments { filter, bulk, connection, .. } = arguments;
    check(bulk, filter.is_open(), [&filter.jobs.prefix, &filter.error])?;
    let action = BulkAction::Redrive(filter.resolve(connection.tenant.as_deref())?);
    run(connection, action, &Telling::new(REDRIVE, bulk, arguments.output.output), false)
}

fn check<const N: usize>(bulk: &BulkArguments, is_open: bool, texts: [&Option<String>; N]) -> Result<(), CliError> {
    let problem = if bulk.all && !is_open {
        "--all goes with no other filter"
    } else if texts.into_iter().flatten().any(String::is_empty) {
        "an empty filter picks nothing; --all picks all"
    } else {
        return Ok(());
    };
    Err(CliError::Usage(problem.to_owned()))
}

fn run(connection: &ConnectionArguments, action: BulkAction, telling: &Telling, asks: bool) -> Result<(), CliError> {
    with_client(connection, async |client| {
        if asks {
            ask(client.bulk(action.clone())?.dry_run(true), &client).await?;
        }
        let bulk = client.bulk(action)?.dry_run(telling.dry_run);
        let stopper = bulk.stopper();
        signals::on_first(move || stopper.stop())?;
        telling.tell(bulk).await
    })
}

/// Asks whether what a dry run shows is to be deleted.
async fn ask(planned: Bulk, client: &Client) -> Result<(), CliError> {
    let (mut planned, mut names) = (planned, Vec::new());
    while let Some(report) = planned.next().await {
        match report {
            Ok(report) if names.len() < NAMES_ASKED => names.push(output::printable(&report.job_name)),
            Ok(_) => {}
            Err(error) => eprintln!("{}", gap(&error)),
        }
    }
    let count = planned.progress().done;
    if count == 0 {
        return Err(CliError::Failed("no job meets the filter; nothing was deleted".to_owned()));
    }
    let more = if count > names.len() as u64 { " ..." } else { "" };
    let (jobs, tenant, names) = (Words::of(JobVerb::Delete).counted(count), client.tenant(), names.join(", "));
    eprint!("{jobs} of tenant {tenant} would be deleted: {names}{more}\nDelete them? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::Failed("nothing was deleted".to_owned())),
    }
}

/// How reports are told.
struct Telling {
    words: Words,
    format: OutputFormat,
    dry_run: bool,
    progress: bool,
}

impl Telling {
    const fn new(words: Words, bulk: &BulkArguments, format: OutputFormat) -> Self {
        Self { words, format, dry_run: bulk.dry_run, progress: bulk.progress }
    }

    async fn tell(&self, bulk: Bulk) -> Result<(), CliError> {
        let (mut bulk, mut meter) = (bulk, Meter::new(self));
        let mut rows = 0_u64;
        while let Some(report) = bulk.next().await {
            match report {
                Ok(report) => self.report(&report, &mut rows, &mut meter)?,
                Err(error) => meter.line(&gap(&error)),
            }
            meter.show(&bulk.progress());
        }
        meter.clear();
        let progress = bulk.progress();
        let summary = self.summary(&progress);
        match self.format {
            OutputFormat::Json => {
                output::write(if rows == 0 { "[]\n" } else { "\n]\n" })?;
                eprintln!("{summary}");
            }
            OutputFormat::Table => output::write(&format!("{summary}\n"))?,
        }
        if progress.failed == 0 && progress.is_whole { Ok(()) } else { Err(CliError::Told) }
    }

    fn report(&self, report: &BulkReport, rows: &mut u64, meter: &mut Meter) -> Result<(), CliError> {
        match self.format {
            OutputFormat::Json => {
                let row = serde_json::to_string(&self.row(report)).map_err(CliError::failed)?;
                output::write(&format!("{}  {row}", if *rows == 0 { "[\n" } else { ",\n" }))?;
                *rows += 1;
            }
            OutputFormat::Table => {
                let name = output::printable(&named(report));
                match &report.outcome {
                    BulkOutcome::Planned => output::write(&format!("would {} {name}\n", self.words.plain))?,
                    BulkOutcome::Failed(error) => {
                        meter.line(&format!("error: {name}: {}", output::printable(&reason(error))));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn row(&self, report: &BulkReport) -> ChangedRow {
        let (action, next_fire, reason) = match &report.outcome {
            BulkOutcome::Planned => (self.words.done, report.next_fire, None),
            BulkOutcome::Done(done) => (self.words.done, done.next_fire, None),
            BulkOutcome::Failed(error) if error.refusal_code() == Some(RefusalCode::RevisionConflict) => {
                ("conflict", report.next_fire, Some(reason(error)))
            }
            BulkOutcome::Failed(error) => ("failed", report.next_fire, Some(reason(error))),
            _ => ("unchanged", report.next_fire, None),
        };
        ChangedRow {
            tenant: report.tenant.clone(),
            name: report.job_name.clone(),
            job_id: report.job.to_string(),
            execution_id: report.execution.map(|id| id.to_string()),
            scheduled_at: report.scheduled_at.and_then(times::rfc3339),
            scheduled_at_us: report.scheduled_at.map(Timestamp::as_micros),
            action,
            dry_run: self.dry_run,
            revision: report.revision,
            next_fire_at: next_fire.and_then(times::rfc3339),
            next_fire_at_us: next_fire.map(Timestamp::as_micros),
            reason,
        }
    }

    fn summary(&self, progress: &BulkProgress) -> String {
        let done = self.words.counted(progress.done);
        let mut text = match self.dry_run {
            true => format!("would {} {done}", self.words.plain),
            false => format!("{} {done}", self.words.done),
        };
        for (count, what) in [(progress.unchanged, "as they should be"), (progress.failed, "failed")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if !progress.is_whole {
            text.push_str("; it ended before all were met");
        }
        text
    }
}

fn named(report: &BulkReport) -> String {
    match report.execution {
        Some(id) => format!("{id} of {}", report.job_name),
        None => report.job_name.clone(),
    }
}

/// What the list could not tell. A partition that no shard holds, as one in quarantine, is left out.
fn gap(error: &RequestError) -> String {
    match error.refusal_code() {
        Some(RefusalCode::NotOwner) => format!("error: the list has a gap: {error}"),
        _ => format!("error: {}", output::printable(&reason(error))),
    }
}

fn reason(error: &RequestError) -> String {
    CliError::from(error.clone()).line().unwrap_or_default()
}

/// Tells the standard error how far it is: a terminal in one line that is written anew, anything else in lines.
struct Meter {
    words: Words,
    is_terminal: bool,
    /// `None`: it tells nothing.
    next: Option<Instant>,
    is_shown: bool,
}

impl Meter {
    fn new(telling: &Telling) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let tells = (is_terminal || telling.progress) && !telling.dry_run;
        Self { words: telling.words, is_terminal, next: tells.then(Instant::now), is_shown: false }
    }

    fn show(&mut self, progress: &BulkProgress) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        let (done, what) = (self.words.counted(progress.done), self.words.done);
        let text = format!("{what} {done}, {} failed, {} under way", progress.failed, progress.in_flight);
        if self.is_terminal {
            eprint!("\r\u{1b}[K{text}");
        } else {
            eprintln!("{text}");
        }
        self.is_shown = self.is_terminal;
        self.next = Some(now + if self.is_terminal { TERMINAL_EVERY } else { LINE_EVERY });
    }

    /// Writes a line of its own.
    fn line(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            eprint!("\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telling(words: Words, dry_run: bool) -> Telling {
        Telling { words, format: OutputFormat::Table, dry_run, progress: false }
    }

    #[test]
    fn a_summary_counts_what_became_of_them() {
        let mut progress = BulkProgress::default();
        (progress.done, progress.is_whole) = (1, true);
        assert_eq!(telling(Words::of(JobVerb::Pause), false).summary(&progress), "paused 1 job");
        (progress.done, progress.unchanged, progress.failed) = (20, 3, 2);
        let expected = "cancelled 20 executions, 3 as they should be, 2 failed";
        assert_eq!(telling(CANCEL, false).summary(&progress), expected);
        (progress.unchanged, progress.failed, progress.is_whole) = (0, 0, false);
        let expected = "would delete 20 jobs; it ended before all were met";
        assert_eq!(telling(Words::of(JobVerb::Delete), true).summary(&progress), expected);
    }
}
