//! One worker connection: it takes dispatches by the batch and completes them at once.
//!
//! [`Instant`] is the part without IO: frames in, buffers of completions out, everything noted in the ledger and the thread's tally.
//! Per execution it decodes two fixed heads, touches one record of the ledger and allocates nothing. [`crate::fleet`] moves the
//! bytes. All of one batch counts as received when the batch is taken up, which is when a worker could start to work on it.
//!
//! Deliberately absent: work. What a handler does is not the scheduler's latency.

use crate::{
    clock,
    ledger::{Acknowledgement, Ledger, OutOfRange},
    tally::{Tally, Window},
};
use std::sync::Arc;
use tickwheel_client::{ConnectError, LANE_COUNT, Lane, RawFrame, SessionError};
use tickwheel_wire::{
    DecodeError, Reader, Timestamp,
    frame::{
        Frame as _, FrameType,
        session::{GoAway, Refused},
        work::{Complete, CompleteHead, Completed, Dispatch, DispatchHead, Outcome, Verdict},
    },
};

/// Name of the error with which executions of other runs are turned away.
const FOREIGN_ERROR: &str = "not-of-this-load";

/// What all workers of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub ledger: Ledger,
    pub window: Window,
    /// What the run's jobs ask for.
    pub handler: String,
}

/// Why a worker's session is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The session ended.
    #[error("session: {0}")]
    Session(#[from] SessionError),
    /// No session could be opened.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The server sent something that is no frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] DecodeError),
    /// The server refused the session, or the attachment.
    #[error("refused: {0}")]
    Refused(String),
    /// The server drains.
    #[error("the server goes away: {0}")]
    GoAway(String),
}

/// The worker of one connection, without its IO.
#[derive(Debug)]
pub(crate) struct Instant {
    shared: Arc<Shared>,
    /// Completions that wait to be sent, by lane.
    out: [Vec<u8>; LANE_COUNT],
    attached: bool,
}

impl Instant {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, out: Default::default(), attached: false }
    }

    /// Whether the server has taken it on.
    pub const fn is_attached(&self) -> bool {
        self.attached
    }

    /// Takes everything of a batch that was received at `now`.
    ///
    /// # Errors
    /// When the session is of no more use.
    pub fn take<'f>(
        &mut self,
        frames: impl Iterator<Item = RawFrame<'f>>,
        now: Timestamp,
        tally: &mut Tally,
    ) -> Result<(), WorkerError> {
        let judged = !self.shared.window.is_closed();
        for frame in frames {
            match frame.frame_type {
                FrameType::Dispatch => self.dispatched(frame, now, judged, tally)?,
                FrameType::Completed => self.completed(frame, now, judged, tally)?,
                _ => self.rare(frame, judged, tally)?,
            }
        }
        Ok(())
    }

    /// The completions that wait to be sent on a lane.
    pub fn out(&mut self, lane: Lane) -> &mut Vec<u8> {
        &mut self.out[lane as usize]
    }

    #[inline]
    fn dispatched(
        &mut self,
        frame: RawFrame<'_>,
        now: Timestamp,
        judged: bool,
        tally: &mut Tally,
    ) -> Result<(), WorkerError> {
        let mut input = Reader::new(frame.body);
        let head = DispatchHead::take(&mut input)?;
        input.take(usize::from(head.tenant_bytes) + usize::from(head.name_bytes), "name")?;
        let handler = input.take(usize::from(head.handler_bytes), "handler")?;
        if handler != self.shared.handler.as_bytes() {
            return self.turn_away(frame, judged, tally);
        }
        self.complete(frame.lane, &head, Outcome::Succeeded, "");
        if !judged {
            return Ok(());
        }
        tally.dispatched += 1;
        tally.dispatched_at = now;
        if now < head.scheduled_at {
            tally.early += 1;
        }
        if self.shared.window.holds(head.scheduled_at) {
            tally.lateness(head.priority, clock::micros(now.saturating_since(head.scheduled_at)));
        }
        match self.shared.ledger.dispatched(&head) {
            Ok(sighting) => {
                tally.lost += sighting.lost;
                tally.missed += sighting.missed;
                tally.retried += u64::from(sighting.retried);
                tally.duplicates += u64::from(sighting.duplicate);
                if sighting.misplaced {
                    tally.error("a firing at a time that is not the job's");
                }
            }
            Err(OutOfRange(_)) => tally.error("a dispatch of a job that cannot be of this run"),
        }
        Ok(())
    }

    #[inline]
    fn complete(&mut self, lane: Lane, head: &DispatchHead, outcome: Outcome, error: &str) {
        let error_bytes = u8::try_from(error.len()).expect("the errors are short");
        let head = CompleteHead {
            job: head.job,
            fire_sequence: head.fire_sequence,
            token: head.token,
            run_us: 0,
            outcome,
            error_bytes,
        };
        Complete { head, error, output: &[] }.encode(&mut self.out[lane as usize]);
    }

    /// Executions of other runs are failed, so that nobody mistakes this for having run them.
    #[cold]
    fn turn_away(&mut self, frame: RawFrame<'_>, judged: bool, tally: &mut Tally) -> Result<(), WorkerError> {
        let dispatch = Dispatch::decode_body(frame.body)?;
        self.complete(frame.lane, &dispatch.head, Outcome::Failed, FOREIGN_ERROR);
        if judged {
            tally.error(format!("a dispatch of another run, handler `{}`", dispatch.handler));
        }
        Ok(())
    }

    #[inline]
    fn completed(
        &mut self,
        frame: RawFrame<'_>,
        now: Timestamp,
        judged: bool,
        tally: &mut Tally,
    ) -> Result<(), WorkerError> {
        let completed = Completed::decode_body(frame.body)?;
        if completed.verdict != Verdict::Accepted {
            self.not_accepted(frame.lane, &completed, judged, tally);
            return Ok(());
        }
        if !judged {
            return Ok(());
        }
        match self.shared.ledger.acknowledged(&completed) {
            Ok(Acknowledgement::First(scheduled_at)) => {
                tally.acknowledged += 1;
                tally.acknowledged_at = now;
                tally.executions += u64::from(self.shared.window.holds(now));
                match scheduled_at {
                    Some(scheduled_at) if self.shared.window.holds(scheduled_at) => {
                        tally.completion_us.saturating_record(clock::micros(now.saturating_since(scheduled_at)));
                    }
                    Some(_) => {}
                    None => tally.unmeasured += 1,
                }
            }
            Ok(Acknowledgement::Repeated) => tally.duplicates += 1,
            // The answer to a dispatch that was turned away; that was counted then.
            Ok(Acknowledgement::Unseen) | Err(OutOfRange(_)) => {}
        }
        Ok(())
    }

    #[cold]
    fn not_accepted(&mut self, lane: Lane, completed: &Completed, judged: bool, tally: &mut Tally) {
        if completed.verdict == Verdict::Overloaded {
            tally.overloaded += u64::from(judged);
            let Completed { job, fire_sequence, token, .. } = *completed;
            let head =
                CompleteHead { job, fire_sequence, token, run_us: 0, outcome: Outcome::Succeeded, error_bytes: 0 };
            Complete { head, error: "", output: &[] }.encode(&mut self.out[lane as usize]);
        } else if judged && !self.shared.window.is_outage() {
            tally.error(format!("a completion was refused: {}", completed.verdict));
        }
    }

    #[cold]
    fn rare(&mut self, frame: RawFrame<'_>, judged: bool, tally: &mut Tally) -> Result<(), WorkerError> {
        match frame.frame_type {
            FrameType::Attached => self.attached = true,
            FrameType::Refused => {
                let refused = Refused::decode_body(frame.body)?;
                return Err(WorkerError::Refused(format!("{}: {}", refused.code, refused.message)));
            }
            FrameType::GoAway => return Err(WorkerError::GoAway(GoAway::decode_body(frame.body)?.message.to_owned())),
            // Everything is complete before it can be cancelled; the server may not know yet.
            FrameType::CancelAttempt => {}
            other if judged => tally.error(format!("an unexpected frame of type {}", other.name())),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
