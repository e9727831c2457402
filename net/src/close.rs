//! Why sessions end: the application error codes of `CONNECTION_CLOSE`, and the reasons told to the shard loop.
//!
//! Invariants: a code's number never changes and is never reused; a code that this build does not know is still
//! reported with its number. Every session that was opened is closed exactly once, with exactly one [`CloseReason`].

use std::fmt;

/// Longest reason text sent with a close, in bytes: it has to fit the smallest packet beside the frame's own fields.
pub const REASON_BYTES_MAX: usize = 512;

/// Application error code of a close. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum CloseCode {
    /// The sender is done; nothing went wrong.
    Normal = 0,
    /// The server drains and stops; reconnect elsewhere or later.
    ShuttingDown = 1,
    /// A frame's header or body could not be decoded.
    MalformedFrame = 2,
    /// A frame is longer than the limit.
    FrameTooLarge = 3,
    /// A frame of unknown type was marked critical.
    UnknownFrame = 4,
    /// The certificate names no valid role, tenant, pool or name.
    InvalidIdentity = 5,
    /// The handshake did not finish in time.
    HandshakeTimeout = 6,
    /// The peer finished, reset or stopped a lane: lanes live as long as their session.
    LaneClosed = 7,
    /// The first frame of the control lane was not `Hello`.
    HelloExpected = 8,
    /// No common protocol version.
    UnsupportedVersion = 9,
    /// The peer's role does not permit what it sent.
    Forbidden = 10,
    /// The tenant of the certificate or the frame does not exist.
    UnknownTenant = 11,
    /// The peer does not read what is sent to it.
    SlowPeer = 12,
    /// The same worker instance connected again; the newer session wins.
    Replaced = 13,
    /// The peer broke another rule of the protocol; the reason says which.
    ProtocolViolation = 14,
    /// The sender hit an internal error.
    Internal = 15,
}

impl CloseCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 16] = [
        Self::Normal,
        Self::ShuttingDown,
        Self::MalformedFrame,
        Self::FrameTooLarge,
        Self::UnknownFrame,
        Self::InvalidIdentity,
        Self::HandshakeTimeout,
        Self::LaneClosed,
        Self::HelloExpected,
        Self::UnsupportedVersion,
        Self::Forbidden,
        Self::UnknownTenant,
        Self::SlowPeer,
        Self::Replaced,
        Self::ProtocolViolation,
        Self::Internal,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The code with this number, if this build knows one.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.number())
    }
}

/// A close that this side asks for: code and text for the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Close {
    /// The code.
    pub code: CloseCode,
    /// What a person should know; cut to [`REASON_BYTES_MAX`] bytes when it is sent.
    pub reason: String,
}

impl Close {
    /// A close with `code` and `reason`.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The reason as it goes on the wire: whole characters, at most [`REASON_BYTES_MAX`] bytes.
    pub(crate) fn wire_reason(&self) -> &str {
        let mut end = self.reason.len().min(REASON_BYTES_MAX);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        &self.reason[..end]
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed here: {0}")]
    Local(Close),
    /// The peer closed it with an application code, see [`CloseCode::from_number`].
    #[error("closed by the peer with code {number}: {reason}")]
    Peer {
        /// The code's number, known here or not.
        number: u64,
        /// The peer's text, lossily decoded.
        reason: String,
    },
    /// Nothing was heard for the idle timeout.
    #[error("timed out")]
    TimedOut,
    /// The peer lost the connection's state, usually because it restarted.
    #[error("reset by the peer")]
    Reset,
    /// QUIC or TLS failed: a bad certificate, a protocol violation.
    #[error("transport: {0}")]
    Transport(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_number_and_is_found_by_it() {
        for (index, code) in CloseCode::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), index);
            assert_eq!(CloseCode::from_number(index as u64), Some(code));
        }
        assert_eq!(CloseCode::from_number(CloseCode::ALL.len() as u64), None);
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let close = Close::new(CloseCode::Internal, "é".repeat(REASON_BYTES_MAX));
        assert!(close.wire_reason().len() <= REASON_BYTES_MAX);
        assert!(close.wire_reason().chars().all(|c| c == 'é'));
    }
}
