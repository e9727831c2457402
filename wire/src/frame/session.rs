//! Frames that open, refuse and end a session.

use super::variable_frame;
use crate::layout::{variable_layout, wire_enum};

/// The protocol version that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;

variable_layout! {
    /// First frame of a session, from its initiator, on the control lane.
    pub struct Hello<'a> {
        /// Oldest protocol version that the initiator speaks.
        pub version_min: u16,
        /// Newest protocol version that the initiator speaks.
        pub version_max: u16,
        /// Name and version of the software, for the log of the node; at most 64 bytes.
        pub software: &'a str,
    }
}

variable_layout! {
    /// The node's answer to [`Hello`].
    pub struct Welcome<'a> {
        /// The version that both will speak.
        pub version: u16,
        /// The cluster's id.
        pub cluster: u128,
        /// The shard that holds this session.
        pub shard: u16,
        /// Longest body that the node accepts, in bytes.
        pub frame_bytes_max: u32,
        /// Longest job payload that the node accepts, in bytes.
        pub payload_bytes_max: u32,
        /// Tenant of the session's identity; empty for an identity that may speak for any.
        pub tenant: &'a str,
        /// UDP port of each shard, two bytes each, by shard number.
        pub shard_ports: &'a [u8],
        /// Owning shard of each partition, two bytes each, by partition number.
        pub partition_shards: &'a [u8],
    }
}

wire_enum! {
    /// Why something was refused. The text and the detail of [`Refused`] say more.
    pub enum RefusalCode: u16 {
        /// The frame could not be decoded.
        Malformed = 1 => "malformed",
        /// No common protocol version; `detail` is the node's newest.
        UnsupportedVersion = 2 => "unsupported-version",
        /// The first frame was not a `Hello`, or there was a second one.
        OutOfOrder = 3 => "out-of-order",
        /// The identity's role may not send this frame.
        WrongRole = 4 => "wrong-role",
        /// The identity may not act for this tenant or this pool.
        Forbidden = 5 => "forbidden",
        /// The tenant is not configured.
        UnknownTenant = 6 => "unknown-tenant",
        /// There is no such job.
        UnknownJob = 7 => "unknown-job",
        /// There is no such execution.
        UnknownExecution = 8 => "unknown-execution",
        /// A job with this name exists.
        AlreadyExists = 9 => "already-exists",
        /// The job's revision is another one, which is the `detail`.
        RevisionConflict = 10 => "revision-conflict",
        /// A field of the definition is invalid; `field` names it, `detail` is the limit where there is one.
        InvalidField = 11 => "invalid-field",
        /// The idempotency key was used for another submission.
        IdempotencyConflict = 12 => "idempotency-conflict",
        /// The token is not that of the running attempt, or the sender does not hold it.
        StaleToken = 13 => "stale-token",
        /// The job runs and its overlap policy is `skip`.
        OverlapSkipped = 14 => "overlap-skipped",
        /// A bound is reached; `field` names it. Try again later.
        Overloaded = 15 => "overloaded",
        /// No space on disk for new submissions.
        OutOfSpace = 16 => "out-of-space",
        /// The node drains and accepts nothing new.
        Draining = 17 => "draining",
        /// The partition is not on this node, or the name does not belong to the partition named.
        NotOwner = 18 => "not-owner",
        /// The job can fire no more: nothing is due after now.
        NeverFires = 19 => "never-fires",
        /// The watch ended because its session read too slowly.
        WatchOverrun = 20 => "watch-overrun",
        /// A payload or frame is longer than the node accepts; `detail` is the limit in bytes.
        TooLarge = 21 => "too-large",
        /// The frame's type is unknown and critical; `detail` is its number.
        UnknownFrame = 22 => "unknown-frame",
        /// There is no such calendar.
        UnknownCalendar = 23 => "unknown-calendar",
    }
}

variable_layout! {
    /// A typed refusal, of a request or (request id 0) of the session.
    pub struct Refused<'a> {
        /// The request, or 0.
        pub request_id: u64,
        /// Why.
        pub code: RefusalCode,
        /// A number that the code explains: a limit, or what was found.
        pub detail: u64,
        /// The field that is at fault; may be empty.
        pub field: &'a str,
        /// One sentence for a person.
        pub message: &'a str,
    }
}

variable_layout! {
    /// The node drains: finish what runs, connect again later.
    pub struct GoAway<'a> {
        /// Advice: milliseconds to wait before connecting again.
        pub retry_ms: u32,
        /// One sentence for a person.
        pub message: &'a str,
    }
}

variable_frame! { Hello<'a> Welcome<'a> Refused<'a> GoAway<'a> }
