//! How a command ends when it does not end well: one line for people, and an exit status for programs.

use crate::fatal::Fatal;
use std::{fmt, io};
use tickwheel_client::{ConnectError, RefusalCode, RequestError};

/// Why a command failed.
#[derive(Debug)]
pub(super) enum CliError {
    /// The command line is wrong: exit status 2.
    Usage(String),
    /// What was asked for could not be done: exit status 1.
    Failed(String),
    /// A server cannot start or go on: its own exit statuses, from 10.
    Fatal(Fatal),
    /// Everything was said already: exit status 1, no line.
    Told,
    /// Nobody reads the output any more: no failure, and nothing to say.
    OutputClosed,
}

impl CliError {
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed(_) | Self::Told => 1,
            Self::Usage(_) => 2,
            Self::Fatal(fatal) => fatal.exit_status(),
        }
    }

    /// The line for people, without its line breaks: a message from elsewhere may have some.
    pub fn line(&self) -> Option<String> {
        let text = match self {
            Self::Usage(text) | Self::Failed(text) => text.clone(),
            Self::Fatal(fatal) => fatal.to_string(),
            Self::Told | Self::OutputClosed => return None,
        };
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    pub fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// No session with the server at `address`.
    pub fn connect(error: &ConnectError, address: &str) -> Self {
        let remedy = match error {
            ConnectError::Credentials(_) => "name the folder with --certs and the certificate with --cert",
            ConnectError::TimedOut { .. } => {
                "is a server running there? Start one with `tickwheel dev`, or name it with --server"
            }
            ConnectError::Resolve { .. } => "name the server as HOST:PORT with --server",
            ConnectError::Tls(_) => "use certificates that the server's own authority has issued (--certs, --cert)",
            _ => "",
        };
        Self::Failed(with_remedy(format!("server {address}: {error}"), remedy))
    }
}

impl From<Fatal> for CliError {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl From<RequestError> for CliError {
    fn from(error: RequestError) -> Self {
        if let RequestError::Filter { .. } = error {
            return Self::Usage(error.to_string());
        }
        let remedy = match error.refusal_code() {
            Some(RefusalCode::UnknownJob) => "`tickwheel job list` shows the jobs",
            Some(RefusalCode::UnknownCalendar) => "`tickwheel calendar list` shows the calendars",
            Some(RefusalCode::UnknownTenant) => "tenants stand in the server's configuration, as [[tenant]]",
            Some(RefusalCode::WrongRole | RefusalCode::Forbidden) => "use another certificate with --cert",
            Some(RefusalCode::Overloaded | RefusalCode::Draining) => "try again later",
            Some(RefusalCode::RevisionConflict) => "it was changed meanwhile; try again",
            Some(RefusalCode::WatchOverrun) => "the reader was too slow; watch one job with --job",
            _ => "",
        };
        Self::Failed(with_remedy(error.to_string(), remedy))
    }
}

/// Errors of writing the answer.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("cannot write the answer: {error}")),
        }
    }
}

fn with_remedy(text: String, remedy: &str) -> String {
    if remedy.is_empty() { text } else { format!("{text}; {remedy}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_is_made_of() {
        let error = CliError::failed("first\n  second\n");
        assert_eq!(error.line().as_deref(), Some("first second"));
        assert_eq!(error.exit_status(), 1);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit_status(), error.line()), (0, None));
        assert_eq!(CliError::from(io::Error::from(io::ErrorKind::StorageFull)).exit_status(), 1);
    }
}
