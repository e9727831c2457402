//! Imports timers of systemd: a `.timer` file becomes a job of the handler `exec` that runs what its service runs.
//!
//! The service lies in the same folder; drop-ins (`NAME.timer.d/*.conf`, `NAME.service.d/*.conf`) count. Triggers whose rules agree are schedules
//! of one job; the others are jobs of their own. A job is called `systemd/NAME`, or after the number of its first trigger `systemd/NAME-2`.
//!
//! | key | meaning here |
//! |---|---|
//! | `OnCalendar=` | a cron expression, in the zone of the event or else of this machine; see `calendar.rs` |
//! | `OnUnitActiveSec=`, `OnUnitInactiveSec=` | an interval; a delay after the end of each execution |
//! | `OnActiveSec=` | once after the import; beside the two above: without effect |
//! | `OnBootSec=`, `OnStartupSec=` | refused: an event; beside `OnUnit...Sec=`: without effect |
//! | `RandomizedDelaySec=` | `jitter` |
//! | `Persistent=` | `yes`: `misfire = fire-once`; `no`: `skip`, with a grace of a minute or `AccuracySec=`, whichever is longer |
//! | `ExecStart=` and kin, `Environment=`, `WorkingDirectory=`, `User=` | the command; see `service.rs` |
//! | `TimeoutStartSec=` of a oneshot, `RuntimeMaxSec=` of others | `timeout`; without one there is none |
//! | `Restart=on-failure`, `RestartSec=`, `StartLimitBurst=` | the attempts and the delay between them; otherwise one attempt |
//!
//! What is due while it runs is skipped, and a local time that a change of the clock leaves out too, as with systemd; one that comes twice
//! follows the scheduler's own rules. What else the files say has no effect, and is noted with the job.
//!
//! Source: systemd.timer(5). Deliberately absent: which timers are enabled; units in other folders.

mod calendar;
mod folder;
mod service;
mod span;
mod timer;
mod unit;
mod words;

use super::{ImportedJob, check, payload_problem, zone};
use crate::command_worker::HANDLER;
use folder::Folder;
use service::Run;
use std::{io, path::Path};
use tickwheel_client::{FiringRules, JobBuilder, Schedule};
use tickwheel_engine::schedule::{CronError, Zones};
use tickwheel_wire::{job::JobSpecError, limits::SCHEDULES_MAX};
use timer::Trigger;
use unit::{Assignment, Problem, Unit};

const SUFFIX: &str = ".timer";

/// What became of timers.
pub type Import = super::Import<RefusedReason>;

/// Why a timer, or one of its triggers, cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedReason {
    /// A file that cannot be read.
    #[error("{problem}")]
    Unreadable {
        /// Why.
        problem: String,
    },
    /// A line in front of the first section.
    #[error("the line stands in no section; one begins with `[Timer]` or the like")]
    NoSection,
    /// A line that says nothing.
    #[error("the line is no `Key=value`")]
    NoAssignment,
    /// A value that means nothing.
    #[error("the value is not {expected}")]
    Value {
        /// What it should be.
        expected: &'static str,
    },
    /// No calendar event.
    #[error("the value is no calendar event, such as `Mon..Fri *-*-* 06:30:00`")]
    Calendar,
    /// Fractions of a second.
    #[error("fractions of a second cannot be scheduled")]
    Fraction,
    /// No cron expression, or an unknown zone.
    #[error(transparent)]
    Schedule(#[from] CronError),
    /// Boot and start are no times.
    #[error("the machine's boot is an event, not a time, and cannot be scheduled")]
    Boot,
    /// Nothing sets it off.
    #[error("the timer has no trigger, such as `OnCalendar=`")]
    NoTrigger,
    /// A template is for instances.
    #[error("a template fires only as an instance; import a file of its name, such as `{example}`")]
    Template {
        /// Such a name.
        example: String,
    },
    /// It starts something else.
    #[error("only services can be run")]
    NoService,
    /// The service is not there.
    #[error("`{service}` does not lie beside the timer")]
    ServiceMissing {
        /// Its name.
        service: String,
    },
    /// The service runs nothing.
    #[error("`{service}` has no `ExecStart=`")]
    NoCommand {
        /// Its name.
        service: String,
    },
    /// No program after the prefixes.
    #[error("the line names no program")]
    NoProgram,
    /// A process that stays.
    #[error("a forking service leaves a process behind, which would be ended with its execution")]
    Forking,
    /// A key whose effect cannot be had.
    #[error("`{key}=`: {why}")]
    Unavailable {
        /// The key.
        key: String,
        /// Why not.
        why: &'static str,
    },
    /// A prefix of a command.
    #[error("the prefix `{prefix}` asks for other rights than those of `User=`, or for a shell of the user")]
    Prefix {
        /// The prefix.
        prefix: char,
    },
    /// Several commands in a line.
    #[error("`;` separates commands; give each a line of its own")]
    Semicolon,
    /// A quote without its end.
    #[error("a quote is not closed")]
    OpenQuote,
    /// An unknown escape.
    #[error("a backslash is followed by no escape that is known")]
    Escape,
    /// A specifier that the machine decides.
    #[error("the specifier `%{specifier}` is not known here; write its value")]
    Specifier {
        /// Its letter.
        specifier: char,
    },
    /// A variable without a value.
    #[error("the variable `{variable}` is not set by `Environment=`, so that its value is not known here")]
    UnknownVariable {
        /// Its name.
        variable: String,
    },
    /// It is started again whatever happens.
    #[error("a service that is started again after its end runs for ever, not by a timer")]
    RunsForEver,
    /// No worker could run it.
    #[error("{problem}")]
    Command {
        /// Why.
        problem: String,
    },
    /// The job that it would make is out of bounds.
    #[error(transparent)]
    Job(#[from] JobSpecError),
}

/// Imports the timer at `path`, or all timers of the folder there. Events without a zone are in that of this machine.
///
/// # Errors
/// When the folder cannot be read, or `path` is no timer.
pub fn import(path: &Path) -> io::Result<Import> {
    import_in_zone(path, &zone::local())
}

/// As [`import`], with another zone than that of this machine.
///
/// # Errors
/// As [`import`].
pub fn import_in_zone(path: &Path, zone: &str) -> io::Result<Import> {
    if path.is_dir() {
        let folder = Folder::read(path)?;
        if folder.timers().next().is_none() {
            return Err(io::Error::other("there is no timer (*.timer) in the folder"));
        }
        return Ok(Importer::new(zone).folder(&folder));
    }
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(SUFFIX));
    let name = name.ok_or_else(|| io::Error::other("a timer is a file NAME.timer, with its service beside it"))?;
    path.metadata()?;
    let parent = path.parent().filter(|parent| *parent != "").unwrap_or_else(|| Path::new("."));
    let mut importer = Importer::new(zone);
    importer.timer(&Folder::read(parent)?, name);
    Ok(importer.import)
}

/// As [`import_in_zone`], of a folder that is read already: texts by their paths in it (`a.timer`, `a.service`,
/// `a.timer.d/b.conf`). `path` is where it came from; it is not opened.
pub fn import_texts(path: &Path, texts: impl IntoIterator<Item = (String, String)>, zone: &str) -> Import {
    Importer::new(zone).folder(&Folder::of_texts(path, texts))
}

/// What the timers so far have given.
struct Importer<'a> {
    zone: &'a str,
    zones: Zones,
    import: Import,
}

impl<'a> Importer<'a> {
    fn new(zone: &'a str) -> Self {
        Self { zone, zones: Zones::new(), import: Import::new() }
    }

    fn folder(mut self, folder: &Folder) -> Import {
        for name in folder.timers() {
            self.timer(folder, name);
        }
        self.import
    }

    fn timer(&mut self, folder: &Folder, name: &str) {
        if let Err(problem) = self.read(folder, name) {
            self.refuse(problem);
        }
    }

    fn refuse(&mut self, Problem { file, line, text, reason }: Problem) {
        self.import.refuse(&file, line, text, reason);
    }

    fn read(&mut self, folder: &Folder, name: &str) -> Result<(), Problem> {
        let whole = |reason| Problem { file: folder.file(name), line: None, text: name.to_owned(), reason };
        let stem = name.strip_suffix(SUFFIX).unwrap_or(name);
        if let Some(prefix) = stem.strip_suffix('@') {
            return Err(whole(RefusedReason::Template { example: format!("{prefix}@main{SUFFIX}") }));
        }
        let unit = folder.unit(name)?.unwrap_or_default();
        let (triggers, notes) = timer::triggers(&unit, self.zone, &mut self.zones)?;
        let Some(first) = triggers.first() else { return Err(whole(RefusedReason::NoTrigger)) };
        let run = run(folder, &unit, name, first.line)?;
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (number, Trigger { line, schedule, rules }) in (1..).zip(triggers) {
            match schedule {
                Ok(schedule) => match groups.iter_mut().find(|group| group.takes(&schedule, &rules)) {
                    Some(group) => group.push(schedule, &rules),
                    None => groups.push(Group { number, line, schedules: vec![schedule], rules }),
                },
                Err(problem) => self.refuse(problem),
            }
        }
        let notes = timer::notes(&run, &notes, groups.len());
        for group in groups {
            match group.job(stem, &run) {
                Ok(job) => self.import.jobs.push(ImportedJob { notes: notes.clone(), ..job }),
                Err(problem) => self.refuse(problem),
            }
        }
        Ok(())
    }
}

/// Triggers that become one job.
struct Group<'a> {
    /// Of the first, from 1.
    number: usize,
    /// Of the first.
    line: &'a Assignment,
    schedules: Vec<Schedule>,
    rules: FiringRules,
}

impl Group<'_> {
    /// Whether the job may have another schedule with these rules.
    fn takes(&self, schedule: &Schedule, rules: &FiringRules) -> bool {
        let stands_alone =
            |schedule: &Schedule| matches!(schedule, Schedule::After { .. } | Schedule::FixedDelay { .. });
        // What a change of the clock does concerns cron expressions only, and those agree; so does the rule for days, which makes no difference
        // to those that do not need it.
        let rules = FiringRules { dst_gap: self.rules.dst_gap, day_rule: self.rules.day_rule, ..*rules };
        rules == self.rules
            && !stands_alone(schedule)
            && !stands_alone(&self.schedules[0])
            && (self.schedules.len() as u64) < SCHEDULES_MAX
    }

    fn push(&mut self, schedule: Schedule, rules: &FiringRules) {
        if matches!(schedule, Schedule::Cron { .. }) {
            self.rules.dst_gap = rules.dst_gap;
            self.rules.day_rule = self.rules.day_rule.max(rules.day_rule);
        }
        self.schedules.push(schedule);
    }

    fn job(self, stem: &str, run: &Run) -> Result<ImportedJob, Problem> {
        let Self { number, line, schedules, rules } = self;
        let name = if number == 1 { format!("systemd/{stem}") } else { format!("systemd/{stem}-{number}") };
        let builder = JobBuilder::new(name)
            .handler(HANDLER)
            .schedule(schedules[0].clone())
            .payload(run.payload.encode())
            .retry(run.retry)
            .start_to_close(run.timeout)
            .rules(rules);
        let definition = schedules[1..].iter().fold(builder, JobBuilder::also).definition().clone();
        if let Some(problem) = payload_problem(&run.payload) {
            return Err(line.problem(RefusedReason::Command { problem }));
        }
        check(&definition).map_err(|error| line.problem(error.into()))?;
        Ok(ImportedJob { file: line.file.clone(), line: line.line, definition, paused: None, notes: Vec::new() })
    }
}

/// What a timer's service runs.
fn run(folder: &Folder, unit: &Unit, timer: &str, trigger: &Assignment) -> Result<Run, Problem> {
    let service = timer::service(unit, timer)?;
    let Some(found) = folder.unit(&service)? else {
        return Err(trigger.problem(RefusedReason::ServiceMissing { service }));
    };
    service::read(&found, &service, trigger)
}
