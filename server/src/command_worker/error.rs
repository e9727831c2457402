//! How a command fails.

use std::io;
use tickwheel_client::{Failure, StopReason};

/// Why a command did not succeed. [`CommandError::kind`] is its name in the completion.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The payload is not a [`super::CommandPayload`]. Kind `payload`, permanent.
    #[error("the payload is not a command: {problem}")]
    Payload {
        /// What is wrong, and where.
        problem: String,
    },
    /// The program is not on the worker's list. Kind `command-not-allowed`, permanent.
    #[error("`{program}` is not among the commands that this worker allows")]
    CommandNotAllowed {
        /// The program that the payload names.
        program: String,
    },
    /// A variable could turn an allowed program into another one. Kind `environment-not-allowed`, permanent.
    #[error("a worker that allows certain commands only does not let jobs set `{name}`")]
    EnvironmentNotAllowed {
        /// The variable.
        name: String,
    },
    /// The command cannot run as the user that the payload names. Kind `user-not-allowed`, permanent.
    #[error("cannot run as user `{user}`: {reason}")]
    UserNotAllowed {
        /// The user.
        user: String,
        /// Why not.
        reason: String,
    },
    /// The command could not be started. Kind `spawn`; permanent unless the system lacked something that may come back, such as
    /// memory or process ids.
    #[error("cannot start `{program}`: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// It ended with a status other than 0. Kind `exit-status`.
    #[error("exit status {code}")]
    ExitStatus {
        /// The status, 1 to 255.
        code: i32,
        /// What it wrote.
        output: Vec<u8>,
    },
    /// A signal that this worker did not send ended it. Kind `signal`.
    #[error("ended by signal {signal}")]
    Signal {
        /// The signal's number.
        signal: i32,
        /// What it wrote.
        output: Vec<u8>,
    },
    /// It was stopped. Kind `stopped`.
    #[error("stopped: {}", describe(*.reason))]
    Stopped {
        /// Why.
        reason: StopReason,
        /// What it wrote.
        output: Vec<u8>,
    },
    /// The worker could not follow the command, and killed it. Kind `lost`.
    #[error("cannot follow the command: {0}")]
    Lost(io::Error),
}

fn describe(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Requested => "its cancellation was asked for",
        StopReason::TimedOut => "its time-out has passed",
        StopReason::JobDeleted => "its job was deleted",
        StopReason::Superseded => "another attempt has taken over",
        StopReason::Draining => "the worker drains",
        _ => "the worker was told so",
    }
}

impl CommandError {
    /// The error's name, for policies and for people.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::CommandNotAllowed { .. } => "command-not-allowed",
            Self::EnvironmentNotAllowed { .. } => "environment-not-allowed",
            Self::UserNotAllowed { .. } => "user-not-allowed",
            Self::Spawn { .. } => "spawn",
            Self::ExitStatus { .. } => "exit-status",
            Self::Signal { .. } => "signal",
            Self::Stopped { .. } => "stopped",
            Self::Lost(_) => "lost",
        }
    }

    /// Whether trying again is pointless.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Payload { .. }
            | Self::CommandNotAllowed { .. }
            | Self::EnvironmentNotAllowed { .. }
            | Self::UserNotAllowed { .. } => true,
            Self::Spawn { source, .. } => !is_shortage(source),
            Self::ExitStatus { .. } | Self::Signal { .. } | Self::Stopped { .. } | Self::Lost(_) => false,
        }
    }

    /// What the command wrote before it failed.
    pub fn output(&self) -> &[u8] {
        match self {
            Self::ExitStatus { output, .. } | Self::Signal { output, .. } | Self::Stopped { output, .. } => output,
            _ => &[],
        }
    }

    /// As the worker library hands it to the node: the message's first line is the error, what the command wrote follows.
    pub fn into_failure(self) -> Failure {
        let (kind, mut message) = (self.kind(), self.to_string());
        if !self.output().is_empty() {
            message.push('\n');
            push_readable(&mut message, self.output());
        }
        if self.is_permanent() { Failure::permanent(kind, message) } else { Failure::retryable(kind, message) }
    }
}

/// Appends bytes as text. What is not UTF-8 becomes question marks, which, unlike the replacement character, never take more
/// room than the bytes did.
fn push_readable(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ETXTBSY, libc::EINTR];
    error.raw_os_error().is_some_and(|code| shortages.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_status_first_and_then_what_was_written() {
        let error = CommandError::ExitStatus { code: 3, output: b"one \xFF\xFE two".to_vec() };
        assert_eq!(error.into_failure(), Failure::retryable("exit-status", "exit status 3\none ?? two"));
        let error = CommandError::CommandNotAllowed { program: "/bin/rm".to_owned() };
        assert_eq!((error.kind(), error.is_permanent()), ("command-not-allowed", true));
    }

    #[test]
    fn only_a_shortage_makes_a_failed_start_worth_repeating() {
        for (code, permanent) in
            [(libc::ENOENT, true), (libc::EACCES, true), (libc::EAGAIN, false), (libc::ENOMEM, false)]
        {
            let source = io::Error::from_raw_os_error(code);
            assert_eq!(CommandError::Spawn { program: "x".to_owned(), source }.is_permanent(), permanent, "{code}");
        }
    }
}
