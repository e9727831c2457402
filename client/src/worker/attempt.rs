//! What a handler sees of the attempt that it runs, and what it returns.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};
use tickwheel_wire::{
    ExecutionId, FireSequence, JobId, Timestamp, Token,
    frame::work::{CancelReason, Dispatch},
    job::Priority,
    limits::STATUS_BYTES_MAX,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// Progress of an attempt that is done, in thousandths.
const PROGRESS_MAX: u16 = 1000;

/// What tells attempts apart: a job's tokens never repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub job: JobId,
    pub token: Token,
}

/// Why an attempt should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// Its cancellation was asked for.
    Requested,
    /// It ran longer than its time-out, or was silent for too long.
    TimedOut,
    /// Its job was deleted.
    JobDeleted,
    /// It is no longer this worker's: its result will not count.
    Superseded,
    /// The worker drains and has waited long enough.
    Draining,
}

impl From<CancelReason> for StopReason {
    fn from(reason: CancelReason) -> Self {
        match reason {
            CancelReason::Requested => Self::Requested,
            CancelReason::TimedOut => Self::TimedOut,
            CancelReason::JobDeleted => Self::JobDeleted,
            CancelReason::StaleToken => Self::Superseded,
        }
    }
}

/// Why a status is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// It is too long.
    #[error("`status` has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        bytes_max: usize,
    },
    /// It holds a control character, such as the end of a line.
    #[error("`status` holds a control character")]
    ControlCharacter,
}

/// What the handler says about the attempt.
#[derive(Debug, Default)]
struct Status {
    text: String,
    /// Whether the handler has ever said anything.
    is_set: bool,
    /// Whether the text still waits to be told to the node.
    is_untold: bool,
}

/// One try of an execution, for its handler. Cheap to clone.
#[derive(Clone)]
pub struct Attempt {
    inner: Arc<Inner>,
}

struct Inner {
    key: Key,
    fire_sequence: FireSequence,
    number: u16,
    priority: Priority,
    tenant: String,
    job_name: String,
    handler: String,
    payload: Vec<u8>,
    scheduled_at: Timestamp,
    received_at: Instant,
    start_to_close: Option<Duration>,
    heartbeat: Option<Duration>,
    stop: watch::Sender<Option<StopReason>>,
    progress_permille: AtomicU16,
    status: Mutex<Status>,
    /// Whether the last progress or status still waits to be told to the node.
    untold: AtomicBool,
    progressed: mpsc::Sender<Key>,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Attempt");
        out.field("execution", &self.execution().to_string()).field("token", &self.token().0);
        out.field("tenant", &self.tenant()).field("job", &self.job_name()).field("number", &self.number()).finish()
    }
}

impl Attempt {
    pub(super) fn new(dispatch: &Dispatch<'_>, received_at: Instant, progressed: mpsc::Sender<Key>) -> Self {
        let head = &dispatch.head;
        let limit = |limit_ms: u32| (limit_ms != 0).then(|| Duration::from_millis(limit_ms.into()));
        Self {
            inner: Arc::new(Inner {
                key: Key { job: head.job, token: head.token },
                fire_sequence: head.fire_sequence,
                number: head.attempt,
                priority: head.priority,
                tenant: dispatch.tenant.to_owned(),
                job_name: dispatch.name.to_owned(),
                handler: dispatch.handler.to_owned(),
                payload: dispatch.payload.to_vec(),
                scheduled_at: head.scheduled_at,
                received_at,
                start_to_close: limit(head.start_to_close_ms),
                heartbeat: limit(head.heartbeat_ms),
                stop: watch::Sender::new(None),
                progress_permille: AtomicU16::new(0),
                status: Mutex::default(),
                untold: AtomicBool::new(false),
                progressed,
            }),
        }
    }

    /// The execution: the job and which of its firings.
    pub fn execution(&self) -> ExecutionId {
        ExecutionId { job: self.inner.key.job, fire_sequence: self.inner.fire_sequence }
    }

    /// The fencing token: grows over the job's whole life. Hand it to the resources that the handler changes, so that they can refuse
    /// an older attempt.
    pub fn token(&self) -> Token {
        self.inner.key.token
    }

    /// Which try of the execution it is, from 1.
    pub fn number(&self) -> u16 {
        self.inner.number
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.inner.priority
    }

    /// The job's tenant.
    pub fn tenant(&self) -> &str {
        &self.inner.tenant
    }

    /// The job's name.
    pub fn job_name(&self) -> &str {
        &self.inner.job_name
    }

    /// The handler's name in the job's definition.
    pub fn handler(&self) -> &str {
        &self.inner.handler
    }

    /// The job's payload.
    pub fn payload(&self) -> &[u8] {
        &self.inner.payload
    }

    /// When the execution was to fire.
    pub fn scheduled_at(&self) -> Timestamp {
        self.inner.scheduled_at
    }

    /// When the attempt has to end, counted from its receipt; none: no limit.
    pub fn deadline(&self) -> Option<Instant> {
        self.inner.start_to_close.map(|limit| self.inner.received_at + limit)
    }

    /// Tells the node how far the work is, in thousandths (more than 1,000 counts as 1,000). Cheap enough for inner loops: values
    /// that follow faster than they can be sent replace each other. It is a sign of life as well, though the library sends
    /// those by itself.
    pub fn progress(&self, permille: u16) {
        self.inner.progress_permille.store(permille.min(PROGRESS_MAX), Ordering::Relaxed);
        self.tell();
    }

    /// Tells the node in a few words what the work is at, for people who look at the execution or watch it: `copied 3 of 9 files`. It takes the
    /// place of what was said before; an empty text takes that away. Texts that follow faster than they can be sent replace each other. It
    /// goes with the attempt: an execution that has ended has none.
    ///
    /// # Errors
    /// [`StatusError`] when the text has more than 256 bytes or holds a control character; what was said before stays.
    pub fn status(&self, text: impl Into<String>) -> Result<(), StatusError> {
        let text = text.into();
        if text.len() > STATUS_BYTES_MAX {
            return Err(StatusError::TooLong { bytes: text.len(), bytes_max: STATUS_BYTES_MAX });
        }
        if text.chars().any(char::is_control) {
            return Err(StatusError::ControlCharacter);
        }
        let mut status = self.locked_status();
        if status.text != text {
            *status = Status { text, is_set: true, is_untold: true };
            drop(status);
            self.tell();
        }
        Ok(())
    }

    /// Asks for a heartbeat, unless one is to come.
    fn tell(&self) {
        if !self.inner.untold.swap(true, Ordering::AcqRel) && self.inner.progressed.try_send(self.inner.key).is_err() {
            self.inner.untold.store(false, Ordering::Release);
        }
    }

    /// Why the handler should stop, if it should.
    pub fn stop_reason(&self) -> Option<StopReason> {
        *self.inner.stop.borrow()
    }

    /// Whether the handler should stop.
    pub fn is_cancelled(&self) -> bool {
        self.stop_reason().is_some()
    }

    /// Waits until the handler should stop and says why. A handler that goes on regardless is dropped after the worker's
    /// grace period.
    pub async fn cancelled(&self) -> StopReason {
        let mut stop = self.inner.stop.subscribe();
        let reason = stop.wait_for(Option::is_some).await.expect("the sender lives as long as the attempt");
        reason.expect("it was waited for")
    }

    pub(super) fn key(&self) -> Key {
        self.inner.key
    }

    pub(super) fn heartbeat(&self) -> Option<Duration> {
        self.inner.heartbeat
    }

    /// Asks the handler to stop; the first reason stays.
    pub(super) fn stop(&self, reason: StopReason) {
        self.inner.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(reason);
            first
        });
    }

    fn locked_status(&self) -> MutexGuard<'_, Status> {
        self.inner.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status to tell, which is then told; none: nothing new.
    pub(super) fn take_status(&self) -> Option<String> {
        let mut status = self.locked_status();
        std::mem::take(&mut status.is_untold).then(|| status.text.clone())
    }

    /// A new session has to hear the status again. Whether there was ever one.
    pub(super) fn renew_status(&self) -> bool {
        let mut status = self.locked_status();
        status.is_untold = status.is_set;
        status.is_set
    }

    /// The progress to tell, which is then told.
    pub(super) fn take_progress(&self) -> u16 {
        self.inner.untold.store(false, Ordering::Release);
        self.inner.progress_permille.load(Ordering::Acquire)
    }
}

/// What a handler returns when all went well: bytes that the node keeps with the execution, the first 4 KiB of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output(pub Vec<u8>);

impl Output {
    /// Nothing to keep.
    pub const fn none() -> Self {
        Self(Vec::new())
    }
}

impl From<()> for Output {
    fn from((): ()) -> Self {
        Self::none()
    }
}

impl From<Vec<u8>> for Output {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&str> for Output {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// What a handler returns when it failed. Every error converts into a retryable one, so that `?` works in handlers.
///
/// Deliberately no [`std::error::Error`] itself: that is what makes the conversion possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) retryable: bool,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// Another attempt may succeed. `kind` names the error for policies (255 bytes at most are kept), `message` is for people
    /// (4 KiB at most).
    pub fn retryable(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), retryable: true, retry_after: None }
    }

    /// Another attempt may succeed, but not before `delay` is over: it takes the place of the job's own delay. For limits of rate, and services
    /// that say when they will be back. At most 2^32 - 1 ms (49 days).
    pub fn retry_after(delay: Duration, kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { retry_after: Some(delay), ..Self::retryable(kind, message) }
    }

    /// Trying again is pointless.
    pub fn permanent(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), retryable: false, retry_after: None }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retryable("error", error.to_string())
    }
}
