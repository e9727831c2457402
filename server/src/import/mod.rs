//! Imports what other schedulers run: one folder for each form of their files.
//!
//! Invariants: what is imported fires as it did, and what differs is noted with the job; what cannot be honoured is refused by file
//! and line with its reason, and nothing of it is created. Equal files give equal jobs in the order of the files. Names of jobs
//! depend on names in the files, not on schedules, so importing a changed file again changes its jobs.
//!
//! Deliberately absent: the server; deleting the jobs of what is gone.

pub mod crontab;
mod form;
pub mod kubernetes;
mod printed;
pub mod systemd;
mod variables;
mod zone;

pub use form::Form;

use crate::command_worker::CommandPayload;
use std::path::{Path, PathBuf};
use tickwheel_client::JobDefinition;
use tickwheel_wire::{
    job::{JobSpec, JobSpecError},
    limits,
};

/// Stands in for the tenant, which the client fills in, while a definition is checked.
const ANY_TENANT: &str = "t";

/// What became of a file, or of a folder; `R` says why a part of it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import<R> {
    /// A job for each part that can be honoured.
    pub jobs: Vec<ImportedJob>,
    /// The parts that cannot.
    pub refused: Vec<Refused<R>>,
    /// The parts that are no jobs, and are left out.
    pub skipped: Vec<Skipped>,
}

/// A part that can be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedJob {
    /// Where it stands.
    pub file: PathBuf,
    /// The line there, from 1.
    pub line: usize,
    /// The job, checked but for its tenant, which is empty: the client's.
    pub definition: JobDefinition,
    /// Whether it is to be paused; `None`: the file does not say.
    pub paused: Option<bool>,
    /// What whoever imports should know, in sentences without an end.
    pub notes: Vec<String>,
}

/// A part that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<R> {
    /// Where it stands.
    pub file: PathBuf,
    /// The line there, from 1; `None`: of no line in particular.
    pub line: Option<usize>,
    /// The part, or its name.
    pub text: String,
    /// Why.
    pub reason: R,
}

/// A part that is no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it stands.
    pub file: PathBuf,
    /// The line there, from 1.
    pub line: usize,
    /// What it is instead.
    pub note: String,
}

impl<R> Import<R> {
    /// Of nothing.
    pub const fn new() -> Self {
        Self { jobs: Vec::new(), refused: Vec::new(), skipped: Vec::new() }
    }

    fn refuse(&mut self, file: &Path, line: Option<usize>, text: impl Into<String>, reason: R) {
        self.refused.push(Refused { file: file.to_owned(), line, text: text.into(), reason });
    }
}

impl<R> Default for Import<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: ToString> Import<R> {
    /// With the reasons as texts.
    pub fn told(self) -> Import<String> {
        let told = |Refused { file, line, text, reason }: Refused<R>| {
            let reason = reason.to_string();
            Refused { file, line, text, reason }
        };
        Import { jobs: self.jobs, refused: self.refused.into_iter().map(told).collect(), skipped: self.skipped }
    }
}

/// Checks a definition as the server will, but for what only the server can know.
fn check(definition: &JobDefinition) -> Result<(), JobSpecError> {
    JobSpec { tenant: ANY_TENANT, ..definition.spec() }.validate(limits::PAYLOAD_BYTES_MAX)
}

/// Why no worker could run a command, if so.
fn payload_problem(payload: &CommandPayload) -> Option<String> {
    CommandPayload::decode(&payload.encode()).err().map(|error| error.to_string())
}
