//! Jobs that wait for a day or more: what each costs in memory, what idling costs, and how long a restart after `kill -9` takes.
//!
//! For the restart, a few probes that fire ten times a second are added to every shard; it is over when one of each shard has fired
//! again. What the probes do around the kill is judged like everything else: no sequence is lost, nothing acknowledged runs twice.
//! Afterwards the oldest and the newest jobs are looked for. Latencies are not measured.

use super::{Bench, drain, finish};
use crate::{
    clock,
    ledger::Ledger,
    pipeline::Question,
    plan::Rhythm,
    report::{Findings, Report, Resident, Special},
    tally::Tally,
};
use anyhow::{Context as _, Result};
use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tickwheel_client::{ShardId, Topology};
use tickwheel_wire::JobId;

/// Jobs after which memory is read for the first time, if there are twice as many.
const CHECKPOINT_JOBS: u64 = 1_000_000;
/// No job is due before that.
const LEAD: Duration = Duration::from_secs(86_400);
/// Probes for each shard: so many that no shard is without one.
const PROBES_PER_SHARD: u64 = 32;
/// From one firing of a probe to its next, in microseconds.
const PROBE_INTERVAL_US: u64 = 100_000;
/// How long the probes of every shard may take to fire.
const FIRING_MAX: Duration = Duration::from_secs(120);
/// How often the ledger is asked whether they did.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// How many of the oldest and of the newest jobs are looked for.
const SAMPLE_JOBS: u64 = 1_000;

pub(super) async fn run(bench: &mut Bench) -> Result<Report> {
    let plan = Arc::clone(&bench.plan);
    let rhythm = Rhythm { base: clock::now().saturating_add(LEAD), interval_us: plan.interval_us, spread: true };
    let checkpoint = (plan.jobs / 2).min(CHECKPOINT_JOBS);
    let mut submit_s = bench.submit(0..checkpoint, rhythm, None).await?.as_secs_f64();
    let early = bench.usage();
    submit_s += bench.submit(checkpoint..plan.jobs, rhythm, None).await?.as_secs_f64();

    let first = bench.read().await?;
    eprintln!("{} jobs are there; the server idles for {:.1?}", plan.jobs, plan.duration);
    tokio::time::sleep(plan.duration).await;
    let last = bench.read().await?;

    let usage = first.usage.zip(last.usage);
    let mut resident = Resident {
        checkpoint_jobs: checkpoint,
        checkpoint_rss_bytes: early.map(|usage| usage.rss_bytes),
        bytes_per_job: early
            .zip(first.usage)
            .map(|(early, full)| (full.rss_bytes as f64 - early.rss_bytes as f64) / (plan.jobs - checkpoint) as f64),
        idle_cpu_percent: usage.map(|(first, last)| 100.0 * (last.cpu_s - first.cpu_s) / plan.duration.as_secs_f64()),
        ..Resident::default()
    };
    let (mut tally, mut unacknowledged) = (Tally::new(), 0);
    if bench.owns_server() {
        (tally, unacknowledged) = restart(bench, &mut resident).await?;
    } else if !bench.keeps_jobs() {
        bench.ask("jobs are deleted", 0..plan.jobs, &Arc::new(Question::Delete)).await?;
    }
    let findings = Findings {
        shards: bench.node.shard_count(),
        workers: if bench.owns_server() { bench.connections() } else { 0 },
        duration_s: plan.duration.as_secs_f64(),
        submit_s,
        submitted: plan.jobs,
        tally,
        lost: resident.missing,
        counts: last.counts.since(&first.counts),
        usage,
        unacknowledged,
        special: Special::Resident(resident),
    };
    Ok(Report::new(&plan, findings))
}

/// Kills the server amid firing probes and starts it again. What the probes' workers saw, and how many firings stayed unacknowledged.
async fn restart(bench: &mut Bench, resident: &mut Resident) -> Result<(Tally, u64)> {
    let probe_count = PROBES_PER_SHARD * u64::from(bench.node.shard_count());
    let probes = bench.plan.jobs..bench.plan.jobs + probe_count;
    let shared = bench.shared(probes.end, PROBE_INTERVAL_US);
    let fleet = bench.fleet(&shared).await?;
    let rhythm = Rhythm { base: clock::now(), interval_us: PROBE_INTERVAL_US, spread: true };
    bench.submit(probes, rhythm, Some(&shared)).await?;
    let topology = Arc::clone(bench.node.topology());
    until_firing(&shared.ledger, &[], &topology).await.context("the probes do not fire")?;

    shared.window.expect_outage(true);
    let started = bench.restart().await?;
    resident.restart_ready_s = Some(started.elapsed().as_secs_f64());
    let sequences = shared.ledger.sequences();
    fleet.reconnect();
    until_firing(&shared.ledger, &sequences, &topology).await.context("the probes do not fire after the restart")?;
    resident.restart_firing_s = Some(started.elapsed().as_secs_f64());

    let audit = drain(&shared.ledger, clock::now()).await;
    shared.window.close();
    let tally = finish(fleet).await?;
    for (text, count) in tally.error_texts() {
        eprintln!("tickwheel-loadgen: {count} x {text}");
    }
    (resident.sampled, resident.missing) = missing(bench).await?;
    Ok((tally, audit.outstanding + audit.unacknowledged))
}

/// Waits until a probe of every shard has fired, each beyond what `former` says of it.
async fn until_firing(ledger: &Ledger, former: &[(JobId, u32)], topology: &Topology) -> Result<()> {
    let all = async {
        while firing(ledger, former, topology).len() < usize::from(topology.shard_count()) {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(FIRING_MAX, all).await.with_context(|| format!("not within {FIRING_MAX:?}"))
}

/// The shards of which a probe has fired, beyond what `former` says.
fn firing(ledger: &Ledger, former: &[(JobId, u32)], topology: &Topology) -> BTreeSet<Option<ShardId>> {
    let shard_of = |job: JobId| topology.shard_of(job.partition());
    if former.is_empty() {
        let fired = |&(_, sequence): &(JobId, u32)| sequence > 0;
        return ledger.sequences().iter().copied().filter(fired).map(|(job, _)| shard_of(job)).collect();
    }
    former.iter().filter(|(job, sequence)| ledger.sequence(*job) > *sequence).map(|(job, _)| shard_of(*job)).collect()
}

/// How many of the oldest and newest jobs were looked for, and how many are not there.
async fn missing(bench: &Bench) -> Result<(u64, u64)> {
    let jobs = bench.plan.jobs;
    let newest = (jobs / 2).max(jobs.saturating_sub(SAMPLE_JOBS));
    let ranges: [Range<u64>; 2] = [0..newest.min(SAMPLE_JOBS), newest..jobs];
    let (mut sampled, mut missing) = (0, 0);
    for range in ranges {
        sampled += range.end - range.start;
        let question = Arc::new(Question::Find(AtomicU64::new(0)));
        bench.ask("jobs are looked for", range, &question).await?;
        if let Question::Find(count) = &*question {
            missing += count.load(Relaxed);
        }
    }
    Ok((sampled, missing))
}
