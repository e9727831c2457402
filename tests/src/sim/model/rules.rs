//! The rules of schedules and repetitions that an event has to keep.

use super::{Flight, Job, Moment};
use crate::sim::{
    violation::{Violation, demand},
    worker::RETRY_AFTER_MS,
    world::RETRY_JITTER_PERCENT,
};
use tickwheel_wire::{
    Timestamp,
    event::{AttemptEnd, AttemptOutcome},
    frame::request::ExecutionState,
    job::Overlap,
};

/// The first firing of a definition is the schedule's.
pub(super) fn check_first_fire(
    job: &Job,
    at: Timestamp,
    next_fire: Timestamp,
    moment: &Moment,
) -> Result<(), Violation> {
    demand!(at == moment.wall, Jobs, "its time is not the node's, {}", moment.wall);
    let expected = job.first_firing(at);
    demand!(next_fire == expected, Accounted, "the first firing is at {expected}");
    Ok(())
}

/// A failed attempt is followed by another while there are some left, after the policy's delay.
pub(super) fn check_retry(
    job: &Job,
    flight: &Flight,
    end: &AttemptEnd,
    retry_at: Timestamp,
    moment: &Moment,
) -> Result<(), Violation> {
    if end.outcome == AttemptOutcome::Undelivered {
        // Nobody can be sure that it was not.
        demand!(job.retry.attempts_max > 1, AtMostOnce, "attempt {} may have run", flight.attempt);
        return Ok(());
    }
    demand!(flight.attempt < job.retry.attempts_max, AttemptRules, "attempt {} was the last", flight.attempt);
    let mut delay_us = u64::from(job.retry.initial_ms.min(job.retry.delay_ms_max)) * 1_000;
    for _ in 1..flight.attempt {
        delay_us = delay_us * u64::from(job.retry.multiplier_milli) / 1_000;
        delay_us = delay_us.min(u64::from(job.retry.delay_ms_max) * 1_000);
    }
    let waits_us = retry_at.as_micros().saturating_sub(moment.wall.as_micros());
    let least_us = delay_us - delay_us * u64::from(RETRY_JITTER_PERCENT) / 100;
    let is_workers = end.reported && waits_us == u64::from(RETRY_AFTER_MS) * 1_000;
    demand!(
        is_workers || (least_us..=delay_us).contains(&waits_us),
        AttemptRules,
        "attempt {} is followed after {waits_us} us, not after {least_us} to {delay_us}",
        flight.attempt
    );
    Ok(())
}

/// Whether a running attempt is ended at once because something else is due.
pub(super) fn is_terminated(job: &Job, flight: &Flight, moment: &Moment) -> bool {
    job.rules.overlap == Overlap::TerminateRunning && job.is_superseded(flight, moment.wall)
}

/// Submissions without a key are not remembered.
pub(super) fn key_until(key: u128, until: Timestamp) -> Timestamp {
    if key == 0 { Timestamp::EPOCH } else { until }
}

pub(super) const fn state_of(outcome: AttemptOutcome, is_dead: bool) -> ExecutionState {
    match outcome {
        AttemptOutcome::Cancelled => ExecutionState::Cancelled,
        AttemptOutcome::TimedOut => ExecutionState::TimedOut,
        AttemptOutcome::WorkerLost => ExecutionState::WorkerLost,
        _ if is_dead => ExecutionState::Failed,
        _ => ExecutionState::Succeeded,
    }
}
