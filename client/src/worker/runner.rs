//! Runs one attempt: the handler, its time-out, its cancellation.
//!
//! A handler that should stop is told, has a grace period to end by itself, and is dropped after that, which for async code is
//! the end of it. The time-out counts from the receipt of the dispatch, like the node's own, so that an attempt that waited too
//! long in the prefetch queue does not start at all.

use super::attempt::{Attempt, Failure, Output, StopReason};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tickwheel_wire::{frame::work::Outcome, limits};
use tokio::time::{Instant, sleep, sleep_until};

/// What a handler's future gives.
pub(super) type HandlerResult = Result<Output, Failure>;
/// A registered handler.
pub(super) type Handler = Arc<dyn Fn(Attempt) -> Pin<Box<dyn Future<Output = HandlerResult> + Send>> + Send + Sync>;

/// How an attempt ended, within the protocol's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub outcome: Outcome,
    /// At most 255 bytes.
    pub error: String,
    /// At most 4 KiB.
    pub output: Vec<u8>,
    pub run_us: u32,
}

impl Completion {
    /// A completion without output.
    pub fn failed(outcome: Outcome, error: &str, message: &str) -> Self {
        Self::new(outcome, error.to_owned(), message.to_owned())
    }

    /// A failure that says when the next attempt may begin.
    fn for_now(delay: Duration, error: String, message: String) -> Self {
        let plain = Self::new(Outcome::FailedForNow, error, message);
        let delay_ms = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        let output = [&delay_ms.to_le_bytes()[..], &plain.output].concat();
        Self { output, ..plain }
    }

    fn new(outcome: Outcome, mut error: String, mut message: String) -> Self {
        cut(&mut error, limits::ERROR_NAME_BYTES_MAX);
        cut(&mut message, limits::OUTPUT_BYTES_MAX);
        Self { outcome, error, output: message.into_bytes(), run_us: 0 }
    }
}

/// Shortens a text to whole characters within `bytes_max`.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rfind(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
}

/// Runs the attempt to its end.
pub(super) async fn run(handler: Option<Handler>, attempt: Attempt, grace: Duration) -> Completion {
    let started = Instant::now();
    if attempt.deadline().is_some_and(|deadline| deadline <= started) {
        return Completion::failed(
            Outcome::TimedOut,
            "timed-out",
            "the time-out passed before the attempt could start",
        );
    }
    let Some(handler) = handler else {
        let message = format!("this worker has no handler named `{}`", attempt.handler());
        return Completion::failed(Outcome::Failed, "unknown-handler", &message);
    };
    let result = tokio::select! {
        biased;
        result = handler(attempt.clone()) => Some(result),
        () = out_of_patience(&attempt, grace) => None,
    };
    let run_us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
    Completion { run_us, ..conclude(result, attempt.stop_reason()) }
}

/// Ends when the attempt should have stopped and its grace period is over.
async fn out_of_patience(attempt: &Attempt, grace: Duration) {
    match attempt.deadline() {
        None => drop(attempt.cancelled().await),
        Some(deadline) => tokio::select! {
            _ = attempt.cancelled() => {}
            () = sleep_until(deadline) => attempt.stop(StopReason::TimedOut),
        },
    }
    sleep(grace).await;
}

/// Success counts even when a stop was asked for: the work is done, and the node knows whether it still wants it.
fn conclude(result: Option<HandlerResult>, stop: Option<StopReason>) -> Completion {
    let failure = match result {
        Some(Ok(Output(mut output))) => {
            output.truncate(limits::OUTPUT_BYTES_MAX);
            output.shrink_to_fit();
            return Completion { outcome: Outcome::Succeeded, error: String::new(), output, run_us: 0 };
        }
        Some(Err(failure)) => failure,
        None => Failure::retryable("stopped", "the handler did not stop in time and was dropped"),
    };
    let outcome = match stop {
        Some(StopReason::TimedOut) => Outcome::TimedOut,
        Some(StopReason::Requested | StopReason::JobDeleted | StopReason::Superseded) => Outcome::Cancelled,
        Some(StopReason::Draining) | None => match (failure.retryable, failure.retry_after) {
            (true, Some(delay)) => return Completion::for_now(delay, failure.kind, failure.message),
            (true, None) => Outcome::Failed,
            (false, _) => Outcome::FailedForGood,
        },
    };
    Completion::new(outcome, failure.kind, failure.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::test_support::dispatch;
    use std::future::pending;
    use tokio::sync::mpsc;

    const GRACE: Duration = Duration::from_secs(5);

    fn attempt(start_to_close_ms: u32) -> Attempt {
        let frame = dispatch(1, |head| head.start_to_close_ms = start_to_close_ms);
        Attempt::new(&frame, Instant::now(), mpsc::channel(1).0)
    }

    fn handler<F: Future<Output = HandlerResult> + Send + 'static>(
        body: impl Fn(Attempt) -> F + Send + Sync + 'static,
    ) -> Option<Handler> {
        Some(Arc::new(move |attempt| Box::pin(body(attempt))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_ignores_its_time_out_is_dropped_after_the_grace_period() {
        let begin = Instant::now();
        let done = run(handler(|_| pending()), attempt(1000), GRACE).await;
        assert_eq!(done.outcome, Outcome::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), 6);
        assert_eq!(done.run_us / 1_000_000, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_waited_past_its_time_out_does_not_start() {
        let late = attempt(1000);
        tokio::time::advance(Duration::from_secs(1)).await;
        let done = run(handler(|_| async { panic!("it must not run") }), late, GRACE).await;
        assert_eq!((done.outcome, done.run_us), (Outcome::TimedOut, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_handler_ends_by_itself_and_its_words_are_kept() {
        let attempt = attempt(0);
        let stopping = attempt.clone();
        let obedient = handler(|attempt| async move {
            let reason = attempt.cancelled().await;
            Err(Failure::permanent("stopped", format!("{reason:?}")))
        });
        let (done, ()) = tokio::join!(run(obedient, attempt, GRACE), async {
            stopping.stop(StopReason::Requested);
            stopping.stop(StopReason::TimedOut);
        });
        assert_eq!((done.outcome, &*done.output), (Outcome::Cancelled, &b"Requested"[..]));
    }

    #[tokio::test]
    async fn results_become_outcomes_within_the_protocols_bounds() {
        let failing = handler(|_| async { Err(Failure::permanent("k".repeat(300), "é".repeat(4000))) });
        let done = run(failing, attempt(0), GRACE).await;
        assert_eq!((done.outcome, done.error.len(), done.output.len()), (Outcome::FailedForGood, 255, 4096));
        let done = run(handler(|_| async { Ok(Output(vec![7; 5000])) }), attempt(0), GRACE).await;
        assert_eq!((done.outcome, done.output.len()), (Outcome::Succeeded, 4096));
        let done = run(handler(|_| async { Ok("x".parse::<u8>()?.to_string().into()) }), attempt(0), GRACE).await;
        assert_eq!((done.outcome, &*done.error), (Outcome::Failed, "error"));
        let done = run(None, attempt(0), GRACE).await;
        assert_eq!((done.outcome, &*done.error), (Outcome::Failed, "unknown-handler"));
        let later = handler(|_| async { Err(Failure::retry_after(Duration::from_millis(1_500), "Busy", "later")) });
        let done = run(later, attempt(0), GRACE).await;
        assert_eq!((done.outcome, &*done.error), (Outcome::FailedForNow, "Busy"));
        assert_eq!(done.output, [&1_500_u32.to_le_bytes()[..], b"later"].concat());
    }
}
