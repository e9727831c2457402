//! Filters: from the arguments to what the client library takes.

use super::{
    args::{ExecutionFilterArguments, JobFilterArguments, LetterFilterArguments, StateArgument},
    error::CliError,
    times,
};
use tickwheel_client::{DeadLetterFilter, ExecutionFilter, JobFilter, JobState};
use tickwheel_wire::job::LabelSelector;

/// A selector as it was written, if it is one.
///
/// # Errors
/// When it is none, or empty: that would pick everything.
pub(super) fn selector(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    LabelSelector::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl JobFilterArguments {
    /// Whether it picks all.
    pub fn is_open(&self) -> bool {
        self.prefix.is_none() && self.label.is_empty() && self.state.is_empty()
    }

    /// The filter; without a tenant all that the identity may see.
    pub fn resolve(&self, tenant: Option<&str>) -> JobFilter {
        JobFilter {
            tenant: tenant.unwrap_or_default().to_owned(),
            prefix: self.prefix.clone().unwrap_or_default(),
            labels: self.label.join(","),
            states: self.state.iter().map(|state| state.meaning()).collect(),
        }
    }
}

impl ExecutionFilterArguments {
    /// The filter; without a tenant all that the identity may see.
    pub fn resolve(&self, tenant: Option<&str>, in_flight: bool) -> ExecutionFilter {
        ExecutionFilter {
            tenant: tenant.unwrap_or_default().to_owned(),
            job: self.job.clone().unwrap_or_default(),
            prefix: self.prefix.clone().unwrap_or_default(),
            labels: self.label.join(","),
            in_flight,
        }
    }
}

impl LetterFilterArguments {
    /// Whether it picks all.
    pub fn is_open(&self) -> bool {
        let Self { jobs, since, until, error } = self;
        jobs.is_open() && since.is_none() && until.is_none() && error.is_none()
    }

    /// The filter; without a tenant all that the identity may see.
    ///
    /// # Errors
    /// Wrong usage, when a time is none.
    pub fn resolve(&self, tenant: Option<&str>) -> Result<DeadLetterFilter, CliError> {
        let time = |text: &Option<String>| text.as_deref().map(times::parse_or_ago).transpose();
        let (since, until) = (time(&self.since)?, time(&self.until)?);
        let error = self.error.clone().unwrap_or_default();
        Ok(DeadLetterFilter { since, until, error, ..self.jobs.resolve(tenant).into() })
    }
}

impl StateArgument {
    const fn meaning(self) -> JobState {
        match self {
            Self::Paused => JobState::Paused,
            Self::Active => JobState::Active,
            Self::Running => JobState::Running,
            Self::Failing => JobState::Failing,
            Self::Finished => JobState::Finished,
        }
    }
}
