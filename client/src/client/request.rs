//! A request on its way and the place where its answer goes.

use crate::{
    batch::RawFrame,
    error::{Refusal, RequestError},
    types::{Backfill, Calendar, CommandDone, Execution, Job, OwnedRemark, Submission, Transition},
};
use std::time::Duration;
use tickwheel_wire::{
    DecodeError, PartitionId,
    frame::{
        Frame, FrameType,
        request::{BackfillTaken, CalendarView, Done, ExecutionView, JobView, PageEnd, Remark, Submitted},
        session::Refused,
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

/// What a shard's link is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Call(Call),
    /// Forget these watches (request id, partition) and tell the node.
    Unwatch(Vec<(u64, PartitionId)>),
}

/// One request.
#[derive(Debug)]
pub(super) struct Call {
    pub request_id: u64,
    /// The encoded frame.
    pub frame: Vec<u8>,
    /// Whether it may be sent again when the session was lost before the answer.
    pub repeatable: bool,
    pub sink: Sink,
}

/// An answer.
#[derive(Debug)]
pub(super) enum Reply {
    Submitted(Submission),
    Done(CommandDone),
    Backfill(Backfill),
    Job(Box<Job>),
    Execution(Box<Execution>),
    Jobs(Vec<Job>, u64),
    Executions(Vec<Execution>, u64),
    Calendars(Vec<Calendar>, u64),
}

type Answer = oneshot::Sender<Result<Reply, RequestError>>;

/// Where answers go.
#[derive(Debug)]
pub(super) enum Sink {
    /// The first frame is the answer.
    Single(Answer),
    /// Rows, then the page's end.
    Jobs(Vec<Job>, Answer),
    /// Rows, then the page's end.
    Executions(Vec<Execution>, Answer),
    /// Rows, then the page's end.
    Calendars(Vec<Calendar>, Answer),
    /// A first `Done`, then transitions.
    Watch(WatchSink),
}

/// The sending end of a watch.
#[derive(Debug)]
pub(super) struct WatchSink {
    /// Until the node has confirmed the watch.
    pub ready: Option<Answer>,
    pub events: mpsc::Sender<Result<Transition, RequestError>>,
    /// Room in `events` that is kept for the last words of every partition.
    pub reserve: usize,
}

/// What is to be done with a request after a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More frames will follow.
    More,
    /// It is answered.
    Finished,
    /// It is a watch that nobody listens to any more: tell the node.
    Unwatch,
}

impl Sink {
    /// Whether nobody waits for the answer any more.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Single(answer) | Self::Jobs(_, answer) | Self::Executions(_, answer) | Self::Calendars(_, answer) => {
                answer.is_closed()
            }
            Self::Watch(watch) => watch.events.is_closed(),
        }
    }

    /// The same for a request that is sent again: the rows of a page that was cut off come once more.
    pub fn anew(self) -> Self {
        match self {
            Self::Jobs(_, answer) => Self::Jobs(Vec::new(), answer),
            Self::Executions(_, answer) => Self::Executions(Vec::new(), answer),
            Self::Calendars(_, answer) => Self::Calendars(Vec::new(), answer),
            sink @ (Self::Single(_) | Self::Watch(_)) => sink,
        }
    }

    /// Ends the request with an error.
    pub fn fail(self, error: RequestError) {
        // A receiver that is gone has no use for the error.
        match self {
            Self::Single(answer) | Self::Jobs(_, answer) | Self::Executions(_, answer) | Self::Calendars(_, answer) => {
                drop(answer.send(Err(error)));
            }
            Self::Watch(WatchSink { ready: Some(answer), .. }) => drop(answer.send(Err(error))),
            Self::Watch(watch) => drop(watch.events.try_send(Err(error))),
        }
    }

    /// Takes a frame with this request's id; on [`Step::Finished`] and [`Step::Unwatch`] the answer is still to be sent with
    /// [`Sink::finish`]. `remark` is what was remarked on the view that is to come.
    pub fn accept(
        &mut self,
        frame: RawFrame<'_>,
        remark: &mut OwnedRemark,
    ) -> Result<(Step, Option<Result<Reply, RequestError>>), DecodeError> {
        if frame.frame_type == FrameType::Remark {
            *remark = OwnedRemark::from(&Remark::decode_body(frame.body)?);
            return Ok((Step::More, None));
        }
        let remark = std::mem::take(remark);
        if frame.frame_type == FrameType::Refused {
            let refusal = Refusal::from(&Refused::decode_body(frame.body)?);
            return Ok((Step::Finished, Some(Err(RequestError::Refused(refusal)))));
        }
        match self {
            Self::Single(_) => Ok((Step::Finished, Some(single(frame, remark)?))),
            Self::Jobs(rows, _) => page(frame, remark, rows, job_row, Reply::Jobs),
            Self::Executions(rows, _) => page(frame, remark, rows, execution_row, Reply::Executions),
            Self::Calendars(rows, _) => page(frame, remark, rows, calendar_row, Reply::Calendars),
            Self::Watch(watch) => watch.accept(frame, remark),
        }
    }

    /// Sends the answer.
    pub fn finish(self, answer: Result<Reply, RequestError>) {
        match (self, answer) {
            (sink, Err(error)) => sink.fail(error),
            (
                Self::Single(sender) | Self::Jobs(_, sender) | Self::Executions(_, sender) | Self::Calendars(_, sender),
                reply,
            ) => drop(sender.send(reply)),
            (Self::Watch(_), Ok(_)) => {}
        }
    }
}

fn unexpected(frame_type: FrameType) -> RequestError {
    RequestError::UnexpectedAnswer(format!("a `{frame_type}` frame"))
}

fn single(frame: RawFrame<'_>, remark: OwnedRemark) -> Result<Result<Reply, RequestError>, DecodeError> {
    Ok(match frame.frame_type {
        FrameType::Submitted => Ok(Reply::Submitted(Submitted::decode_body(frame.body)?.into())),
        FrameType::Done => Ok(Reply::Done(Done::decode_body(frame.body)?.into())),
        FrameType::BackfillTaken => Ok(Reply::Backfill(BackfillTaken::decode_body(frame.body)?.into())),
        FrameType::JobView => job_row(frame.body, remark)?.map(|job| Reply::Job(Box::new(job))),
        FrameType::ExecutionView => execution_row(frame.body, remark)?.map(|row| Reply::Execution(Box::new(row))),
        other => Err(unexpected(other)),
    })
}

fn job_row(body: &[u8], remark: OwnedRemark) -> Result<Result<Job, RequestError>, DecodeError> {
    Ok(Job::from_frame(&JobView::decode_body(body)?, remark))
}

fn execution_row(body: &[u8], remark: OwnedRemark) -> Result<Result<Execution, RequestError>, DecodeError> {
    Ok(Ok(Execution::from_frame(&ExecutionView::decode_body(body)?, remark)))
}

fn calendar_row(body: &[u8], _remark: OwnedRemark) -> Result<Result<Calendar, RequestError>, DecodeError> {
    Ok(Ok(Calendar::from(&CalendarView::decode_body(body)?)))
}

type Decoded<T> = Result<Result<T, RequestError>, DecodeError>;
type Accepted = Result<(Step, Option<Result<Reply, RequestError>>), DecodeError>;

fn page<T>(
    frame: RawFrame<'_>,
    remark: OwnedRemark,
    rows: &mut Vec<T>,
    row: fn(&[u8], OwnedRemark) -> Decoded<T>,
    reply: fn(Vec<T>, u64) -> Reply,
) -> Accepted {
    match frame.frame_type {
        FrameType::PageEnd => {
            let cursor = PageEnd::decode_body(frame.body)?.cursor;
            Ok((Step::Finished, Some(Ok(reply(std::mem::take(rows), cursor)))))
        }
        FrameType::JobView | FrameType::ExecutionView | FrameType::CalendarView
            if rows.len() < usize::from(super::pager::PAGE_ENTRIES) =>
        {
            match row(frame.body, remark)? {
                Ok(row) => {
                    rows.push(row);
                    Ok((Step::More, None))
                }
                Err(error) => Ok((Step::Finished, Some(Err(error)))),
            }
        }
        other => Ok((Step::Finished, Some(Err(unexpected(other))))),
    }
}

impl WatchSink {
    fn accept(&mut self, frame: RawFrame<'_>, remark: OwnedRemark) -> Accepted {
        match frame.frame_type {
            FrameType::Done => {
                let done = Done::decode_body(frame.body)?;
                if let Some(ready) = self.ready.take() {
                    drop(ready.send(Ok(Reply::Done(done.into()))));
                }
                Ok((Step::More, None))
            }
            FrameType::ExecutionView => {
                let row = Execution::from_frame(&ExecutionView::decode_body(frame.body)?, remark);
                Ok(self.tell(Transition::Execution(row)))
            }
            other => Ok((Step::Unwatch, Some(Err(unexpected(other))))),
        }
    }

    /// Hands a transition to the listener, or ends the watch when it does not listen or listens too slowly.
    pub fn tell(&self, transition: Transition) -> (Step, Option<Result<Reply, RequestError>>) {
        if self.events.capacity() <= self.reserve && !self.events.is_closed() {
            return (Step::Unwatch, Some(Err(RequestError::Refused(overrun()))));
        }
        match self.events.try_send(Ok(transition)) {
            Ok(()) => (Step::More, None),
            Err(_) => (Step::Unwatch, None),
        }
    }
}

/// The node's own words for a watch that is read too slowly; here it is this side's buffer that is full.
fn overrun() -> Refusal {
    Refusal {
        code: tickwheel_wire::frame::session::RefusalCode::WatchOverrun,
        field: String::new(),
        detail: super::watch::EVENTS_MAX as u64,
        message: "the program reads the watch too slowly".to_owned(),
    }
}

/// A request whose answer is awaited.
#[derive(Debug)]
#[must_use]
pub(super) struct InFlight {
    pub receiver: oneshot::Receiver<Result<Reply, RequestError>>,
    pub deadline: Instant,
    pub limit: Duration,
}

impl InFlight {
    /// Waits for the answer.
    pub async fn answer(self) -> Result<Reply, RequestError> {
        match timeout_at(self.deadline, self.receiver).await {
            Ok(Ok(answer)) => answer,
            // Without a deadline passed, only a closed client lets go of a request.
            Ok(Err(_)) if Instant::now() < self.deadline => Err(RequestError::Closed),
            Ok(Err(_)) | Err(_) => {
                Err(RequestError::Timeout { waited_ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX) })
            }
        }
    }
}
