//! Imports crontabs: every line that can be honoured becomes a job of the handler `exec`, every other one is refused by line
//! with its reason, and nothing of it is created.
//!
//! A job does what cron would do: `SHELL -c` with cron's few variables and those of the file, in the home directory, as the user
//! of the line, without retries and without a time limit, on the wall clock of `CRON_TZ` or else of the machine that imports.
//! Three things differ, because they are rules of the scheduler: a run that is due while the previous one goes on is
//! skipped, one run stands for all that were missed, and output is kept with the execution instead of being mailed.
//!
//! Invariants: equal files give equal jobs in the order of their lines; names depend on the file's name, the user and the command
//! alone, so a changed schedule changes its job, and a changed command makes another one.
//!
//! Source: crontab(5) of Vixie cron as Debian ships it; `CRON_TZ` and the leading `-` are from cronie. Deliberately absent:
//! `@reboot`, which names no time; mail; anacron's tables; deleting the jobs of lines that are gone.

mod command;
mod line;
mod name;

use super::{ImportedJob, zone};
use crate::command_worker::{CommandPayload, HANDLER, is_user};
use command::Command;
use line::{Entry, Line};
use name::Names;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tickwheel_client::{JobBuilder, RetryPolicy};
use tickwheel_engine::schedule::{CronError, Schedule, Zones};
use tickwheel_wire::job::JobSpecError;

/// The shell of a file that names none.
const SHELL_DEFAULT: &str = "/bin/sh";

/// The two forms of a crontab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A user's own, as `crontab -l` shows it: schedule and command.
    User,
    /// `/etc/crontab` and the files of `/etc/cron.d`: schedule, user and command.
    System,
}

impl Format {
    /// The form of the file at `path`, an absolute one, as far as the path tells.
    pub fn of(path: &Path) -> Self {
        let is_system = path == "/etc/crontab" || path.parent().is_some_and(|folder| folder == "/etc/cron.d");
        if is_system { Self::System } else { Self::User }
    }
}

/// What became of a crontab: a job for each line that can be honoured, and the lines that cannot.
pub type Import = super::Import<RefusedReason>;

/// Why a line cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The schedule is wrong, or `@reboot`.
    #[error(transparent)]
    Schedule(#[from] CronError),
    /// `CRON_TZ` names a zone that nobody knows. The lines that follow are refused as well.
    #[error("`CRON_TZ` on line {line}: {error}")]
    Zone {
        /// Where it was set.
        line: usize,
        /// What is wrong.
        error: CronError,
    },
    /// A line of a system crontab has no user.
    #[error("the user is missing after the schedule; is this a user's crontab?")]
    NoUser,
    /// What stands where the user should cannot be one.
    #[error("`{text}` is not a user's name; is this a user's crontab?")]
    NotAUser {
        /// What stands there.
        text: String,
    },
    /// There is nothing to run.
    #[error("the command is missing")]
    NoCommand,
    /// No program can be told of a text with a NUL.
    #[error("the line holds a NUL")]
    Nul,
    /// The job that the line would make is out of bounds.
    #[error(transparent)]
    Job(#[from] JobSpecError),
}

/// Imports the crontab `text`. `path`, where it came from, gives the jobs their names, and a user's crontab from cron's own
/// folder (`/var/spool/cron`) its user; it is not opened.
///
/// Schedules without a `CRON_TZ` are in the time zone of this machine.
pub fn import(text: &str, path: &Path, format: Format) -> Import {
    import_in_zone(text, path, format, &zone::local())
}

/// As [`import`], with another zone than that of this machine.
pub fn import_in_zone(text: &str, path: &Path, format: Format, zone: &str) -> Import {
    let mut importer = Importer::new(path, format, zone);
    let complete = text.is_empty() || text.ends_with('\n');
    let count = text.lines().count();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if number == count && !complete {
            importer.note("the file's last line has no end; cron would ignore it".to_owned());
        }
        if let Err(reason) = importer.line(number, line) {
            importer.import.refuse(path, Some(number), line, reason);
        }
    }
    importer.import
}

/// What the lines so far have set.
struct Importer {
    file: PathBuf,
    format: Format,
    /// The user of a user's crontab in cron's own folder.
    owner: Option<String>,
    names: Names,
    zones: Zones,
    zone: Result<String, RefusedReason>,
    env: BTreeMap<String, String>,
    /// For the next job.
    notes: Vec<String>,
    import: Import,
}

impl Importer {
    fn new(path: &Path, format: Format, zone: &str) -> Self {
        Self {
            file: path.to_owned(),
            format,
            owner: name::owner(path).filter(|_| format == Format::User),
            names: Names::new(path),
            zones: Zones::new(),
            zone: Ok(zone.to_owned()),
            env: BTreeMap::new(),
            notes: Vec::new(),
            import: Import::new(),
        }
    }

    fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn line(&mut self, number: usize, text: &str) -> Result<(), RefusedReason> {
        if text.contains('\0') {
            return Err(RefusedReason::Nul);
        }
        match Line::parse(text, self.format)? {
            Line::Nothing => Ok(()),
            Line::Assignment { name, value } => self.assign(number, name, value),
            Line::Entry(entry) => self.entry(number, &entry),
        }
    }

    fn assign(&mut self, number: usize, name: &str, value: &str) -> Result<(), RefusedReason> {
        match name {
            "CRON_TZ" => {
                let known = self.zones.get(value).map(|zone| zone.name().to_owned());
                self.zone = known.map_err(|error| RefusedReason::Zone { line: number, error });
                self.zone.clone().map(drop)
            }
            "LOGNAME" => {
                self.note(format!("`LOGNAME` on line {number} has no effect, as with cron"));
                Ok(())
            }
            _ => {
                if name == "MAILTO" && !value.is_empty() {
                    self.note(format!("`MAILTO` on line {number}: output is kept with the execution, no mail is sent"));
                }
                if value.contains('$') {
                    self.note(format!("`{name}` on line {number}: `$` stays as it is, as with cron"));
                }
                self.env.insert(name.to_owned(), value.to_owned());
                Ok(())
            }
        }
    }

    fn entry(&mut self, number: usize, entry: &Entry<'_>) -> Result<(), RefusedReason> {
        let zone = self.zone.clone()?;
        Schedule::cron(&entry.expression, &zone, &mut self.zones)?;
        if let Some(name) = entry.command.split([' ', '\t']).next()
            && self.format == Format::User
            && is_user(name)
        {
            self.note(format!(
                "`{name}` is taken for the command, but is a user here; if this is a system crontab, say so"
            ));
        }
        let user = entry.user.map(str::to_owned).or_else(|| self.owner.clone());
        let command = Command::parse(entry.command)?;
        let name = self.names.of(user.as_deref(), entry.command);
        let definition = JobBuilder::new(name)
            .handler(HANDLER)
            .cron(&entry.expression)
            .zone(zone)
            .payload(self.payload(user, &command).encode())
            .retry(RetryPolicy { attempts_max: 1, ..RetryPolicy::default() })
            .start_to_close(None)
            .definition()
            .clone();
        super::check(&definition)?;
        if entry.is_silent {
            self.note("the leading `-` has no effect".to_owned());
        }
        if command.has_double_backslash {
            self.note("`\\\\` is handed to the shell as it stands; some crons make one backslash of it".to_owned());
        }
        let notes = std::mem::take(&mut self.notes);
        let file = self.file.clone();
        self.import.jobs.push(ImportedJob { file, line: number, definition, paused: None, notes });
        Ok(())
    }

    fn payload(&self, user: Option<String>, command: &Command) -> CommandPayload {
        let shell = self.env.get("SHELL").filter(|shell| !shell.is_empty());
        let shell = shell.map_or(SHELL_DEFAULT, String::as_str);
        CommandPayload {
            env: self.env.clone(),
            stdin: command.stdin.clone(),
            user,
            clean_env: true,
            ..CommandPayload::new(vec![shell.to_owned(), "-c".to_owned(), command.text.clone()])
        }
    }
}
