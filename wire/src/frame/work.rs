//! The traffic between a node and its workers. The hot frames have a fixed head, moved as one array.
//!
//! A worker attaches once per session, says how many executions it can hold, and gets dispatches up to that. It answers each with
//! one [`Complete`] and keeps that until the node's [`Completed`], across reconnects. After a reconnect it presents what still runs
//! ([`Reattach`]); the owner says whether the attempt is still its own.

use super::{Frame, FrameType, fixed_frame, skippable_frame, variable_frame};
use crate::{
    DecodeError, FireSequence, InstanceId, JobId, PartitionId, Reader, Timestamp, Token,
    job::Priority,
    layout::{FixedField, fixed_layout, variable_layout, wire_enum},
    limits::STATUS_BYTES_MAX,
};

variable_layout! {
    /// A worker offers itself. Answer: [`Attached`].
    pub struct Attach<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The worker process; kept across reconnects.
        pub instance: InstanceId,
        /// How many executions it may hold at a time, its prefetch included: 1 to 1,048,576.
        pub capacity: u32,
        /// The pools it serves, separated by commas; empty: those of its certificate.
        pub pools: &'a str,
    }
}

variable_layout! {
    /// The worker is attached.
    pub struct Attached {
        /// The request.
        pub request_id: u64,
        /// How long executions wait for their worker to come back, in milliseconds.
        pub reattach_ms: u32,
    }
}

fixed_layout! {
    /// The fixed head of a [`Dispatch`].
    pub struct DispatchHead {
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
        /// The attempt's fencing token.
        pub token: Token,
        /// When it was to fire.
        pub scheduled_at: Timestamp,
        /// Longest run, in milliseconds; 0: without limit.
        pub start_to_close_ms: u32,
        /// Longest silence, in milliseconds; 0: no heartbeats asked for.
        pub heartbeat_ms: u32,
        /// The attempt, from 1.
        pub attempt: u16,
        /// How urgent it is.
        pub priority: Priority,
        /// Length of the tenant's name.
        pub tenant_bytes: u8,
        /// Length of the job's name.
        pub name_bytes: u8,
        /// Length of the handler's name.
        pub handler_bytes: u8,
    }
}

const _: () = assert!(DispatchHead::BYTES == 46);

/// An attempt for a worker to run: the head, then tenant, name, handler and payload (the rest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch<'a> {
    /// The fixed head; its three lengths are those of the texts below.
    pub head: DispatchHead,
    /// The job's tenant.
    pub tenant: &'a str,
    /// The job's name.
    pub name: &'a str,
    /// What to run.
    pub handler: &'a str,
    /// Bytes for the handler.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> for Dispatch<'a> {
    const TYPE: FrameType = FrameType::Dispatch;

    #[inline]
    fn encode_body(&self, out: &mut Vec<u8>) {
        debug_assert_eq!(usize::from(self.head.tenant_bytes), self.tenant.len());
        debug_assert_eq!(usize::from(self.head.name_bytes), self.name.len());
        debug_assert_eq!(usize::from(self.head.handler_bytes), self.handler.len());
        out.reserve(
            DispatchHead::BYTES + self.tenant.len() + self.name.len() + self.handler.len() + self.payload.len(),
        );
        out.extend_from_slice(&self.head.to_bytes());
        out.extend_from_slice(self.tenant.as_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(self.handler.as_bytes());
        out.extend_from_slice(self.payload);
    }

    #[inline]
    fn decode_body(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(body);
        let head = DispatchHead::take(&mut input)?;
        let tenant = short_text(&mut input, head.tenant_bytes, "tenant")?;
        let name = short_text(&mut input, head.name_bytes, "name")?;
        let handler = short_text(&mut input, head.handler_bytes, "handler")?;
        Ok(Self { head, tenant, name, handler, payload: input.rest() })
    }
}

wire_enum! {
    /// How an attempt ended, as the worker tells it.
    pub enum Outcome: u8 {
        /// Well.
        Succeeded = 0 => "succeeded",
        /// Failed; may be tried again.
        Failed = 1 => "failed",
        /// Failed; trying again is pointless.
        FailedForGood = 2 => "failed-for-good",
        /// Stopped because its cancellation was asked for.
        Cancelled = 3 => "cancelled",
        /// Stopped by the worker because it ran longer than its time-out.
        TimedOut = 4 => "timed-out",
        /// Failed; may be tried again, after the time that the output begins with.
        FailedForNow = 5 => "failed-for-now",
    }
}

fixed_layout! {
    /// The fixed head of a [`Complete`].
    pub struct CompleteHead {
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
        /// The attempt's fencing token.
        pub token: Token,
        /// How long the handler ran, in microseconds.
        pub run_us: u32,
        /// How it ended.
        pub outcome: Outcome,
        /// Length of the error's name.
        pub error_bytes: u8,
    }
}

const _: () = assert!(CompleteHead::BYTES == 30);

/// An attempt has ended: the head, then the error's name and the output (the rest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete<'a> {
    /// The fixed head; its length is that of the text below.
    pub head: CompleteHead,
    /// Name of the error; empty: none.
    pub error: &'a str,
    /// Output, or the error's message. Beyond 4 KiB it is cut. With `failed-for-now` the delay before the next attempt comes first, in
    /// milliseconds, 4 bytes; see [`Complete::retry_after_ms`].
    pub output: &'a [u8],
}

impl<'a> Complete<'a> {
    /// The delay before the next attempt, which the worker asks for instead of the job's own; `None`: the job's own.
    pub fn retry_after_ms(&self) -> Option<u32> {
        self.delay_and_output().0.map(|delay| u32::from_le_bytes(*delay))
    }

    /// Output or message, without the delay.
    pub fn own_output(&self) -> &'a [u8] {
        self.delay_and_output().1
    }

    fn delay_and_output(&self) -> (Option<&'a [u8; 4]>, &'a [u8]) {
        match self.output.split_first_chunk() {
            Some((delay, output)) if self.head.outcome == Outcome::FailedForNow => (Some(delay), output),
            _ => (None, self.output),
        }
    }
}

impl<'a> Frame<'a> for Complete<'a> {
    const TYPE: FrameType = FrameType::Complete;

    #[inline]
    fn encode_body(&self, out: &mut Vec<u8>) {
        debug_assert_eq!(usize::from(self.head.error_bytes), self.error.len());
        out.extend_from_slice(&self.head.to_bytes());
        out.extend_from_slice(self.error.as_bytes());
        out.extend_from_slice(self.output);
    }

    #[inline]
    fn decode_body(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(body);
        let head = CompleteHead::take(&mut input)?;
        let error = short_text(&mut input, head.error_bytes, "error")?;
        let output = input.rest();
        if head.outcome == Outcome::FailedForNow {
            Reader::new(output).u32("retry_after_ms")?;
        }
        Ok(Self { head, error, output })
    }
}

#[inline]
fn short_text<'a>(input: &mut Reader<'a>, length: u8, field: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(input.take(usize::from(length), field)?).map_err(|_| DecodeError::NotUtf8 { field })
}

wire_enum! {
    /// What became of a completion or of a re-attachment.
    pub enum Verdict: u8 {
        /// It counts (and is durable), or the attempt is still the worker's.
        Accepted = 0 => "accepted",
        /// The token is not that of the running attempt, or another worker holds it. The worker forgets the attempt.
        StaleToken = 1 => "stale-token",
        /// The job is gone. The worker forgets the attempt.
        UnknownJob = 2 => "unknown-job",
        /// The owner cannot take it now; present it again.
        Overloaded = 3 => "overloaded",
    }
}

fixed_layout! {
    /// The node's answer to [`Complete`]: the worker may forget the attempt, unless the verdict is `overloaded`.
    pub struct Completed {
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
        /// The attempt's fencing token.
        pub token: Token,
        /// What became of it.
        pub verdict: Verdict,
    }
}

fixed_layout! {
    /// A running attempt's sign of life.
    pub struct Heartbeat {
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
        /// The attempt's fencing token.
        pub token: Token,
        /// Progress in thousandths.
        pub progress_permille: u16,
    }
}

variable_layout! {
    /// What the handler of a running attempt says about it. Nothing answers. It follows a [`Heartbeat`] on its lane, and a node that does not
    /// know it skips it.
    pub struct ReportStatus<'a> {
        /// 0: there is no answer.
        pub request_id: u64,
        /// The job's partition.
        pub partition: PartitionId,
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
        /// The attempt's fencing token.
        pub token: Token,
        /// Text for people, in place of what was said before; empty: nothing any more. Only its [`status_front`] counts.
        pub status: &'a [u8],
    }
}

/// What is kept of a status: its front of at most 256 bytes, up to the first character that is a control character or is not UTF-8.
pub fn status_front(status: &[u8]) -> &str {
    let bytes = &status[..status.len().min(STATUS_BYTES_MAX)];
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    text.find(char::is_control).map_or(text, |end| &text[..end])
}

wire_enum! {
    /// Why a worker is told to stop an attempt.
    pub enum CancelReason: u8 {
        /// Someone asked for it.
        Requested = 0 => "requested",
        /// It ran longer than its time-out, or was silent for too long.
        TimedOut = 1 => "timed-out",
        /// The job was deleted.
        JobDeleted = 2 => "job-deleted",
        /// The attempt is no longer this worker's.
        StaleToken = 3 => "stale-token",
    }
}

fixed_layout! {
    /// The worker should stop an attempt, and complete it as cancelled.
    pub struct CancelAttempt {
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
        /// The attempt's fencing token.
        pub token: Token,
        /// Why.
        pub reason: CancelReason,
    }
}

fixed_layout! {
    /// After a reconnect: this attempt still runs here. Answer: [`Reattached`].
    pub struct Reattach {
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
        /// The attempt's fencing token.
        pub token: Token,
    }
}

fixed_layout! {
    /// The owner's answer to [`Reattach`]: `accepted`, or the worker stops and forgets the attempt.
    pub struct Reattached {
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
        /// The attempt's fencing token.
        pub token: Token,
        /// What became of it.
        pub verdict: Verdict,
    }
}

fixed_layout! {
    /// The worker changes how many executions it may hold; 0: it drains.
    pub struct Capacity {
        /// The new capacity.
        pub capacity: u32,
    }
}

const _: () = assert!(Completed::BYTES == 25 && Heartbeat::BYTES == 26 && CancelAttempt::BYTES == 25);
const _: () = assert!(Reattach::BYTES == 24 && Reattached::BYTES == 25 && Capacity::BYTES == 4);
const _: () = assert!(Priority::BYTES == 1 && Outcome::BYTES == 1);

variable_frame! { Attach<'a> Attached }
skippable_frame! { ReportStatus<'a> }
fixed_frame! { Completed Heartbeat CancelAttempt Reattach Reattached Capacity }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_kept_up_to_what_cannot_be_shown() {
        let long = "x".repeat(STATUS_BYTES_MAX - 1);
        let too_long = format!("{long}é");
        for (status, kept) in [
            (&b""[..], ""),
            ("3 of 9, à peu près".as_bytes(), "3 of 9, à peu près"),
            (b"first\nsecond", "first"),
            (b"\x1b[2Jcleared", ""),
            (b"half \xff rest", "half "),
            (b"cut \xe2\x82", "cut "),
            (too_long.as_bytes(), &long),
        ] {
            assert_eq!(status_front(status), kept, "{status:?}");
        }
    }
}
