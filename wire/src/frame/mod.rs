//! Frames: what clients, workers and nodes say to each other.
//!
//! ```text
//!  0        4      6       8
//!  | length | type | flags | body (length bytes)
//! ```
//!
//! A frame of an unknown type is skipped unless its `critical` flag is set. A session's lanes are the bidirectional streams that
//! its initiator opens: the first is the control lane, the next three carry work of priority P0, P1 and P2. An answer travels on
//! the lane of its question. Every request names its `request_id`, echoed in the answer, and the partition it concerns.
//!
//! [`session`] opens and ends a session, [`request`] is what clients ask and what they are told, [`work`] is the traffic
//! with workers.

pub mod request;
pub mod session;
pub mod work;

use crate::{
    DecodeError, Reader,
    layout::{FixedField, fixed_layout, wire_enum},
};

fixed_layout! {
    /// The eight bytes in front of every body.
    pub struct FrameHeader {
        /// Length of the body in bytes.
        pub body_bytes: u32,
        /// What the body is: a [`FrameType`] number, or one that this version does not know.
        pub frame_type: u16,
        /// [`FrameHeader::CRITICAL`]; the other bits are zero.
        pub flags: u16,
    }
}

const _: () = assert!(FrameHeader::BYTES == 8, "the header is eight bytes");

impl FrameHeader {
    /// Flag: a receiver that does not know the type must refuse the session instead of skipping the frame.
    pub const CRITICAL: u16 = 1;

    /// Whether the receiver must know the type.
    pub const fn is_critical(&self) -> bool {
        self.flags & Self::CRITICAL != 0
    }
}

wire_enum! {
    /// The types of frames.
    pub enum FrameType: u16 {
        /// [`session::Hello`]
        Hello = 0x0001 => "hello",
        /// [`session::Welcome`]
        Welcome = 0x0002 => "welcome",
        /// [`session::Refused`]
        Refused = 0x0003 => "refused",
        /// [`session::GoAway`]
        GoAway = 0x0004 => "go-away",
        /// [`request::SubmitJob`]
        SubmitJob = 0x0101 => "submit-job",
        /// [`request::JobCommand`]
        JobCommand = 0x0102 => "job-command",
        /// [`request::JobByName`]
        JobByName = 0x0103 => "job-by-name",
        /// [`request::ListJobs`]
        ListJobs = 0x0104 => "list-jobs",
        /// [`request::ListExecutions`]
        ListExecutions = 0x0105 => "list-executions",
        /// [`request::ExecutionById`]
        ExecutionById = 0x0106 => "execution-by-id",
        /// [`request::CancelExecution`]
        CancelExecution = 0x0107 => "cancel-execution",
        /// [`request::Watch`]
        Watch = 0x0108 => "watch",
        /// [`request::Unwatch`]
        Unwatch = 0x0109 => "unwatch",
        /// [`request::ReadCounters`]
        ReadCounters = 0x010A => "read-counters",
        /// [`request::ListDeadLetters`]
        ListDeadLetters = 0x010B => "list-dead-letters",
        /// [`request::RedriveExecution`]
        RedriveExecution = 0x010C => "redrive-execution",
        /// [`request::BackfillJob`]
        BackfillJob = 0x010D => "backfill-job",
        /// [`work::ReportStatus`]
        ReportStatus = 0x010E => "report-status",
        /// [`request::SetCalendar`]
        SetCalendar = 0x010F => "set-calendar",
        /// [`request::RemoveCalendar`]
        RemoveCalendar = 0x0110 => "remove-calendar",
        /// [`request::ListCalendars`]
        ListCalendars = 0x0111 => "list-calendars",
        /// [`request::Submitted`]
        Submitted = 0x0201 => "submitted",
        /// [`request::Done`]
        Done = 0x0202 => "done",
        /// [`request::JobView`]
        JobView = 0x0203 => "job-view",
        /// [`request::PageEnd`]
        PageEnd = 0x0204 => "page-end",
        /// [`request::ExecutionView`]
        ExecutionView = 0x0205 => "execution-view",
        /// [`request::Counters`]
        Counters = 0x0206 => "counters",
        /// [`request::BackfillTaken`]
        BackfillTaken = 0x0207 => "backfill-taken",
        /// [`request::Remark`]
        Remark = 0x0208 => "remark",
        /// [`request::CalendarView`]
        CalendarView = 0x0209 => "calendar-view",
        /// [`work::Attach`]
        Attach = 0x0301 => "attach",
        /// [`work::Attached`]
        Attached = 0x0302 => "attached",
        /// [`work::Dispatch`]
        Dispatch = 0x0303 => "dispatch",
        /// [`work::Complete`]
        Complete = 0x0304 => "complete",
        /// [`work::Completed`]
        Completed = 0x0305 => "completed",
        /// [`work::Heartbeat`]
        Heartbeat = 0x0306 => "heartbeat",
        /// [`work::CancelAttempt`]
        CancelAttempt = 0x0307 => "cancel-attempt",
        /// [`work::Reattach`]
        Reattach = 0x0308 => "reattach",
        /// [`work::Reattached`]
        Reattached = 0x0309 => "reattached",
        /// [`work::Capacity`]
        Capacity = 0x030A => "capacity",
    }
}

/// A frame's body: encodes to bytes and back.
pub trait Frame<'a>: Sized {
    /// The type in the header.
    const TYPE: FrameType;
    /// The flags in the header. Without [`FrameHeader::CRITICAL`] a peer that does not know the type goes on as if it had not come.
    const FLAGS: u16 = FrameHeader::CRITICAL;

    /// Appends the body to `out`.
    fn encode_body(&self, out: &mut Vec<u8>);

    /// Decodes a whole body.
    ///
    /// # Errors
    /// When the body is too short, too long, or a field is outside its range.
    fn decode_body(body: &'a [u8]) -> Result<Self, DecodeError>;

    /// Appends header and body to `out`.
    ///
    /// # Panics
    /// If the body is 4 GiB or longer.
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FrameHeader::BYTES]);
        self.encode_body(out);
        let body_bytes = u32::try_from(out.len() - start - FrameHeader::BYTES).expect("bodies are bounded at 1 MiB");
        let header = FrameHeader { body_bytes, frame_type: Self::TYPE.number(), flags: Self::FLAGS };
        out[start..start + FrameHeader::BYTES].copy_from_slice(&header.to_bytes());
    }
}

/// The first bytes of every client request's body.
pub const REQUEST_HEAD_BYTES: usize = 10;

/// The request id and the partition at the front of a client request's body (types 0x01xx), read without decoding the rest.
///
/// # Errors
/// When the body is too short.
pub fn request_head(body: &[u8]) -> Result<(u64, crate::PartitionId), DecodeError> {
    let mut input = Reader::new(body);
    Ok((input.u64("request_id")?, crate::PartitionId(input.u16("partition")?)))
}

/// The job that a worker's frame concerns (types [`FrameType::Complete`], [`FrameType::Heartbeat`], [`FrameType::Reattach`]), which stands in front
/// of its body and so tells the partition without decoding the rest.
///
/// # Errors
/// When the body is too short.
pub fn work_job(body: &[u8]) -> Result<crate::JobId, DecodeError> {
    if body.len() < crate::JobId::BYTES {
        return Err(DecodeError::Truncated { field: "job", needed: crate::JobId::BYTES - body.len() });
    }
    crate::JobId::pick(body, "job")
}

/// Frames whose layout is fixed, moved as one array.
macro_rules! fixed_frame {
    ($($name:ident)*) => {$(
        impl<'a> $crate::frame::Frame<'a> for $name {
            const TYPE: $crate::frame::FrameType = $crate::frame::FrameType::$name;

            #[inline]
            fn encode_body(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_bytes());
            }

            #[inline]
            fn decode_body(body: &'a [u8]) -> Result<Self, $crate::DecodeError> {
                let mut input = $crate::Reader::new(body);
                let frame = Self::take(&mut input)?;
                input.finish()?;
                Ok(frame)
            }
        }
    )*};
}

/// Frames with fields of any size.
macro_rules! variable_frame {
    (@one $flags:expr, $name:ident) => { $crate::frame::variable_frame!(@impl $flags, $name, 'a, $name); };
    (@one $flags:expr, $name:ident $life:lifetime) => {
        $crate::frame::variable_frame!(@impl $flags, $name, $life, $name<$life>);
    };
    (@impl $flags:expr, $name:ident, $life:lifetime, $type:ty) => {
        impl<$life> $crate::frame::Frame<$life> for $type {
            const TYPE: $crate::frame::FrameType = $crate::frame::FrameType::$name;
            const FLAGS: u16 = $flags;

            fn encode_body(&self, out: &mut Vec<u8>) {
                $crate::layout::Field::write(self, &mut $crate::Writer::new(out));
            }

            fn decode_body(body: &$life [u8]) -> Result<Self, $crate::DecodeError> {
                let mut input = $crate::Reader::new(body);
                let frame = $crate::layout::Field::read(&mut input, stringify!($name))?;
                input.finish()?;
                Ok(frame)
            }
        }
    };
    ($($name:ident $(<$life:lifetime>)?)*) => {$(
        $crate::frame::variable_frame!(@one $crate::frame::FrameHeader::CRITICAL, $name $($life)?);
    )*};
}

/// Frames with fields of any size that peers skip which do not know them.
macro_rules! skippable_frame {
    ($($name:ident $(<$life:lifetime>)?)*) => {$(
        $crate::frame::variable_frame!(@one 0, $name $($life)?);
    )*};
}

pub(crate) use {fixed_frame, skippable_frame, variable_frame};
