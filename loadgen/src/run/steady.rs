//! A rate of executions for a while. With a rate beyond what the server can do this is the profile `saturate`: the schedules do not
//! wait, so firings are skipped and misfired, which is counted, and the throughput is what was completed.

use super::{Bench, WINDOW_LEAD};
use crate::{
    clock,
    plan::Rhythm,
    progress,
    report::{Findings, Report, Special},
};
use anyhow::Result;
use std::{sync::Arc, time::Duration};

/// Submissions per second that a server surely takes. The jobs begin to fire once all were submitted at this pace, so that the load
/// does not begin with what piled up while the server was busy with submissions.
const SUBMITS_PER_S: u64 = 100_000;

pub(super) async fn run(bench: &mut Bench) -> Result<Report> {
    let plan = Arc::clone(&bench.plan);
    let shared = bench.shared(plan.jobs, plan.interval_us);
    let before = bench.read().await?.counts;
    let fleet = bench.fleet(&shared).await?;
    let base = clock::now().saturating_add(Duration::from_micros(plan.jobs * 1_000_000 / SUBMITS_PER_S));
    let rhythm = Rhythm { base, interval_us: plan.interval_us, spread: true };
    let submit_s = bench.submit(0..plan.jobs, rhythm, Some(&shared)).await?.as_secs_f64();
    clock::sleep_until(base).await;
    progress::watch("warm-up", &fleet, plan.warmup).await;

    let start = clock::now().saturating_add(WINDOW_LEAD);
    let end = start.saturating_add(plan.duration);
    shared.window.open(start, end);
    clock::sleep_until(start).await;
    let first = bench.read().await?;
    progress::watch("measurement", &fleet, end.saturating_since(clock::now())).await;
    let last = bench.read().await?;

    let outcome = bench.end(fleet, &shared, end, &before).await?;
    let findings = Findings {
        shards: bench.node.shard_count(),
        workers: bench.connections(),
        duration_s: clock::seconds(start, end),
        submit_s,
        submitted: plan.jobs,
        tally: outcome.tally,
        lost: outcome.unexplained,
        counts: last.counts.since(&first.counts),
        usage: first.usage.zip(last.usage),
        unacknowledged: outcome.unacknowledged,
        special: Special::None {},
    };
    Ok(Report::new(&plan, findings))
}
