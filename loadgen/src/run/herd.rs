//! Jobs that are all due at one moment, as daily jobs at midnight are: how long until all are dispatched and done.
//!
//! When that moment is has to be said in every submission, so the speed of submissions is measured first, on a few of the jobs
//! with a moment far away; then all are submitted with a moment that leaves twice the time.

use super::Bench;
use crate::{
    clock,
    fleet::Fleet,
    plan::Rhythm,
    progress,
    report::{Findings, Report, Special},
};
use anyhow::{Result, ensure};
use std::{sync::Arc, time::Duration};
use tickwheel_wire::Timestamp;

/// How many jobs tell the speed of submissions.
const TRIAL_JOBS: u64 = 20_000;
/// Spare time between the submissions' expected end and the moment.
const LEAD_MIN: Duration = Duration::from_secs(3);
/// How long before the moment the server is read for the first time.
const READ_LEAD: Duration = Duration::from_millis(200);
/// How often the fleet is asked how far it is.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn run(bench: &mut Bench) -> Result<Report> {
    let plan = Arc::clone(&bench.plan);
    let shared = bench.shared(plan.jobs, plan.interval_us);
    let before = bench.read().await?.counts;
    let fleet = bench.fleet(&shared).await?;
    let due_at = clock::now().saturating_add(LEAD_MIN + lead(bench).await?);
    let due_at = Timestamp::from_secs(due_at.as_micros().div_ceil(1_000_000));
    let rhythm = Rhythm { base: due_at, interval_us: plan.interval_us, spread: false };
    let submit_s = bench.submit(0..plan.jobs, rhythm, Some(&shared)).await?.as_secs_f64();
    let left = due_at.saturating_since(clock::now());
    ensure!(left > READ_LEAD * 2, "the submissions slowed down and missed the moment; try again with fewer jobs");

    shared.window.open(due_at, Timestamp::MAX);
    progress::watch("until the moment", &fleet, left.saturating_sub(READ_LEAD)).await;
    let first = bench.read().await?;
    clock::sleep_until(due_at).await;
    until_done(&fleet, plan.jobs, plan.duration).await;
    let last = bench.read().await?;

    let outcome = bench.end(fleet, &shared, due_at, &before).await?;
    let drained_s = clock::seconds(due_at, outcome.tally.acknowledged_at);
    let special = Special::Herd { dispatched_s: clock::seconds(due_at, outcome.tally.dispatched_at), drained_s };
    let findings = Findings {
        shards: bench.node.shard_count(),
        workers: bench.connections(),
        duration_s: drained_s,
        submit_s,
        submitted: plan.jobs,
        tally: outcome.tally,
        lost: outcome.unexplained,
        counts: last.counts.since(&first.counts),
        usage: first.usage.zip(last.usage),
        unacknowledged: outcome.unacknowledged,
        special,
    };
    Ok(Report::new(&plan, findings))
}

/// Twice the time that the submission of all jobs is expected to take.
async fn lead(bench: &Bench) -> Result<Duration> {
    let (jobs, interval_us) = (bench.plan.jobs, bench.plan.interval_us);
    let trial = jobs.min(TRIAL_JOBS);
    let base = clock::now().saturating_add(Duration::from_micros(interval_us));
    let elapsed = bench.submit(0..trial, Rhythm { base, interval_us, spread: false }, None).await?;
    Ok(elapsed.mul_f64(2.0 * jobs as f64 / trial as f64))
}

/// Waits until all jobs are acknowledged, or the time is up.
async fn until_done(fleet: &Fleet, jobs: u64, limit: Duration) {
    let bar = progress::bar("the herd runs", jobs);
    let all = async {
        loop {
            let acknowledged = fleet.live().acknowledged;
            bar.set_position(acknowledged);
            if acknowledged >= jobs {
                return;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    // What is still open then is told by the ledger.
    let _ = tokio::time::timeout(limit, all).await;
    bar.finish_and_clear();
}
