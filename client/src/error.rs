//! What can go wrong, one enum per operation.
//!
//! [`ConnectError`]: opening a session. [`SessionError`]: an open session's end. [`RequestError`]: one request of a client.
//! `WorkerError` lives with the worker.

use std::io;
use tickwheel_wire::{
    DecodeError,
    frame::session::{RefusalCode, Refused},
    job::JobSpecError,
};

/// Close codes that say that the same attempt would fail again: identity, version, role, tenant.
const PERMANENT_CLOSE_CODES: [u64; 4] = [5, 9, 10, 11];

/// A refusal as the node worded it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// The field that is at fault; may be empty.
    pub field: String,
    /// A number that the code explains: a limit, or what was found.
    pub detail: u64,
    /// One sentence for a person.
    pub message: String,
}

impl From<&Refused<'_>> for Refusal {
    fn from(refused: &Refused<'_>) -> Self {
        Self {
            code: refused.code,
            field: refused.field.to_owned(),
            detail: refused.detail,
            message: refused.message.to_owned(),
        }
    }
}

/// Why no session could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A certificate or key cannot be used.
    #[error("credentials: {0}")]
    Credentials(String),
    /// A setting is outside its range.
    #[error("`{setting}` must be {range}, not {value}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        range: String,
    },
    /// The address is no `host:port`, or the host is unknown.
    #[error("the address {address} cannot be resolved: {source}")]
    Resolve {
        /// What was to be resolved.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// No UDP socket could be had.
    #[error("no local socket: {0}")]
    Bind(#[source] io::Error),
    /// Nothing answered in time.
    #[error("no answer from {address} within {waited_ms} ms")]
    TimedOut {
        /// Where.
        address: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The TLS handshake failed: certificates do not fit, or the protocol name.
    #[error("TLS handshake: {0}")]
    Tls(String),
    /// The node refused the session.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The node speaks a version that was not offered.
    #[error("the node chose protocol version {0}, which was not offered")]
    Version(u16),
    /// The session ended before the node's `Welcome`.
    #[error("session: {0}")]
    Session(#[from] SessionError),
}

impl ConnectError {
    /// Whether trying again is pointless until somebody changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Credentials(_) | Self::Setting { .. } | Self::Tls(_) | Self::Version(_) => true,
            Self::Refused(refusal) => is_permanent(refusal.code),
            Self::Session(error) => error.is_permanent(),
            Self::Resolve { .. } | Self::Bind(_) | Self::TimedOut { .. } => false,
        }
    }
}

const fn is_permanent(code: RefusalCode) -> bool {
    use RefusalCode as Code;
    matches!(
        code,
        Code::UnsupportedVersion | Code::WrongRole | Code::Forbidden | Code::UnknownTenant | Code::UnknownFrame
    )
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// This side closed it.
    #[error("closed here")]
    ClosedHere,
    /// The node closed it.
    #[error("closed by the node (code {code}): {reason}")]
    ClosedByNode {
        /// The close code; the protocol's documentation lists them.
        code: u64,
        /// The node's words.
        reason: String,
    },
    /// The node refused the session as a whole.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Nothing was heard for the idle time-out.
    #[error("the connection timed out")]
    TimedOut,
    /// The node lost the connection's state, usually because it restarted.
    #[error("the connection was reset")]
    Reset,
    /// QUIC failed.
    #[error("transport: {0}")]
    Transport(String),
    /// The node ended a lane; lanes live as long as their session.
    #[error("the node closed a lane")]
    LaneClosed,
    /// The node sent something that is no frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] DecodeError),
    /// The node sent a longer frame than allowed.
    #[error("a frame of {bytes} bytes; allowed are {bytes_max}")]
    FrameTooLarge {
        /// Its length.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// The node sent a critical frame of a type that this version does not know.
    #[error("unknown critical frame type {0:#06x}")]
    UnknownFrame(u16),
    /// The node broke another rule of the protocol.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
}

impl SessionError {
    /// Whether a new session would end the same way until somebody changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::ClosedByNode { code, .. } => PERMANENT_CLOSE_CODES.contains(code),
            Self::Refused(refusal) => is_permanent(refusal.code),
            Self::UnknownFrame(_) => true,
            _ => false,
        }
    }
}

impl From<quinn::ConnectionError> for SessionError {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Quic;
        match error {
            Quic::ApplicationClosed(close) => Self::ClosedByNode {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            Quic::TimedOut => Self::TimedOut,
            Quic::Reset => Self::Reset,
            Quic::LocallyClosed => Self::ClosedHere,
            other => Self::Transport(other.to_string()),
        }
    }
}

impl From<quinn::ReadError> for SessionError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(lost) => lost.into(),
            quinn::ReadError::Reset(_) => Self::LaneClosed,
            other => Self::Transport(other.to_string()),
        }
    }
}

impl From<quinn::WriteError> for SessionError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(lost) => lost.into(),
            quinn::WriteError::Stopped(_) => Self::LaneClosed,
            other => Self::Transport(other.to_string()),
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The node refused it.
    #[error("{0}")]
    Refused(Refusal),
    /// The definition breaks a rule that is checked before it is sent.
    #[error("invalid definition: {0}")]
    Invalid(#[from] JobSpecError),
    /// A field is longer than the protocol carries.
    #[error("`{field}` has {bytes} bytes; allowed are {bytes_max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A filter means nothing, or cannot be used for this.
    #[error("`{field}`: {problem}")]
    Filter {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No answer came in time. Whether the request took effect is unknown.
    #[error("no answer within {waited_ms} ms")]
    Timeout {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The session was lost after the request was sent, and it is not safe to repeat: whether it took effect is unknown.
    #[error("the session was lost while waiting for the answer")]
    Disconnected,
    /// No session can be opened, now or later.
    #[error("no session: {0}")]
    Unreachable(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The node's answer does not fit the question.
    #[error("unexpected answer: {0}")]
    UnexpectedAnswer(String),
}

impl RequestError {
    /// The refusal's code, if it was refused.
    pub fn refusal_code(&self) -> Option<RefusalCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}
