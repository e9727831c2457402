//! The figures of a run as one JSON object. Its keys are an interface: they are never renamed, only added to.

use crate::{node::Counts, plan::Plan, process::Usage, tally::Tally};
use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{collections::BTreeMap, fs, path::Path};

/// Quantiles of a latency, in microseconds; all 0 when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Quantiles {
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() }
    }
}

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub profile: &'static str,
    /// How long was measured, in seconds.
    pub duration_s: f64,
    pub jobs: u64,
    /// Acknowledged while it was measured.
    pub executions: u64,
    pub executions_per_s: f64,
    /// From the scheduled time to the receipt by the worker.
    pub lateness_us: Quantiles,
    /// From the scheduled time to the receipt of the durable completion's acknowledgement.
    pub completion_us: Quantiles,
    /// Over the whole run: sequences jumped over, and firings that nothing explains.
    pub lost: u64,
    pub duplicates: u64,
    pub early: u64,
    pub errors: u64,
    /// While it was measured.
    pub server_cpu_s: Option<f64>,
    pub server_rss_bytes: Option<u64>,
    /// Whether every completion that was counted had been synced to disk when it was acknowledged, and none is open.
    pub durable: bool,
    /// Cores of this machine, for server and generator together.
    pub cores: usize,
    /// Firings skipped because the job was still running, while it was measured.
    pub skipped: u64,
    /// Firings for which another stood because they came too late, while it was measured.
    pub misfired: u64,
    /// Attempts that were given out again.
    pub retried: u64,
    /// Completions that the server asked to present again.
    pub overloaded: u64,
    /// Acknowledgements whose latency is not in `completion_us`, because two threads met them out of order.
    pub unmeasured: u64,
    /// Executions per second that fell due; none where that has no meaning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Of the jobs of priority P0, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lateness_p0_us: Option<Quantiles>,
    pub shards: u16,
    pub threads: u16,
    pub workers: u32,
    pub seed: u64,
    /// How long the submission took, in seconds.
    pub submit_s: f64,
    pub submits_per_s: f64,
    /// On the shards' threads, while it was measured.
    pub allocations_per_execution: f64,
    /// By the shards' own code, while it was measured.
    pub system_calls_per_execution: f64,
    pub turns: u64,
    /// What the shards counted while it was measured, all together.
    pub counters: BTreeMap<String, u64>,
    /// What only this profile has.
    #[serde(flatten)]
    pub special: Special,
}

/// What only one profile has.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Special {
    None {},
    Herd {
        /// From the moment at which all were due to the last receipt by a worker, in seconds.
        dispatched_s: f64,
        /// To the last acknowledgement, in seconds.
        drained_s: f64,
    },
    Resident(Resident),
}

/// What the profile `resident` measures. Memory is absent where the process cannot be seen, the restart without `--spawn`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Resident {
    /// Jobs at the first checkpoint.
    pub checkpoint_jobs: u64,
    /// Resident memory of the server then, in bytes.
    pub checkpoint_rss_bytes: Option<u64>,
    /// Memory of each job beyond, in bytes.
    pub bytes_per_job: Option<f64>,
    /// The server's share of one core while nothing was due, in percent.
    pub idle_cpu_percent: Option<f64>,
    /// From the start after `kill -9` until every shard accepts sessions, in seconds.
    pub restart_ready_s: Option<f64>,
    /// Until jobs of every shard fire again, in seconds.
    pub restart_firing_s: Option<f64>,
    /// Jobs that were looked for after the restart.
    pub sampled: u64,
    /// And were not there; also counted as lost.
    pub missing: u64,
}

/// What a report is made from.
#[derive(Debug)]
pub(crate) struct Findings {
    pub shards: u16,
    pub workers: u32,
    /// How long was measured, in seconds.
    pub duration_s: f64,
    pub submit_s: f64,
    pub submitted: u64,
    pub tally: Tally,
    /// Beyond what the tally has.
    pub lost: u64,
    /// What the shards counted while it was measured.
    pub counts: Counts,
    /// The server at the start and at the end of the measurement.
    pub usage: Option<(Usage, Usage)>,
    /// Firings that were received and never acknowledged.
    pub unacknowledged: u64,
    pub special: Special,
}

impl Report {
    pub fn new(plan: &Plan, findings: Findings) -> Self {
        let Findings { tally, counts, usage, .. } = &findings;
        let executions = tally.executions;
        let per_execution = |name| ratio(counts.count(name) as f64, executions as f64);
        let rated = !matches!(findings.special, Special::Herd { .. } | Special::Resident(_));
        Self {
            profile: plan.profile.name(),
            duration_s: findings.duration_s,
            jobs: plan.jobs,
            executions,
            executions_per_s: ratio(executions as f64, findings.duration_s),
            lateness_us: (&tally.lateness_us).into(),
            completion_us: (&tally.completion_us).into(),
            lost: tally.lost + findings.lost,
            duplicates: tally.duplicates,
            early: tally.early,
            errors: tally.errors + findings.unacknowledged,
            // The system counts in hundredths, so more digits would be noise.
            server_cpu_s: usage.map(|(start, end)| (100.0 * (end.cpu_s - start.cpu_s)).round() / 100.0),
            server_rss_bytes: usage.map(|(_, end)| end.rss_bytes),
            durable: findings.unacknowledged == 0,
            cores: plan.cores,
            skipped: counts.count("skipped"),
            misfired: counts.count("misfired"),
            retried: tally.retried,
            overloaded: tally.overloaded,
            unmeasured: tally.unmeasured,
            rate: rated.then(|| plan.rate()),
            lateness_p0_us: (plan.p0_percent > 0).then(|| (&tally.lateness_p0_us).into()),
            shards: findings.shards,
            threads: plan.threads,
            workers: findings.workers,
            seed: plan.seed,
            submit_s: findings.submit_s,
            submits_per_s: ratio(findings.submitted as f64, findings.submit_s),
            allocations_per_execution: per_execution("allocations"),
            system_calls_per_execution: per_execution("system_calls"),
            turns: counts.count("turns"),
            counters: findings.counts.into_inner(),
            special: findings.special,
        }
    }

    /// Whether every firing was accounted for and nothing failed.
    pub const fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicates == 0 && self.early == 0 && self.errors == 0
    }

    /// Writes the JSON object to a file, or to the standard output for `-`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        if path.as_os_str() == "-" {
            print!("{text}");
            return Ok(());
        }
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The figures that matter most, for people.
    pub fn summary(&self) -> String {
        let verdict = format!(
            "lost {}, duplicates {}, early {}, errors {}, retried {}, skipped {}, misfired {}",
            self.lost, self.duplicates, self.early, self.errors, self.retried, self.skipped, self.misfired
        );
        let figures = match &self.special {
            Special::None {} => self.flow(),
            Special::Herd { dispatched_s, drained_s } => {
                format!("all dispatched in {dispatched_s:.3} s, all done in {drained_s:.3} s; {}", self.flow())
            }
            Special::Resident(resident) => resident.summary(),
        };
        format!("{}, {} jobs on {} shards: {figures}; {verdict}", self.profile, self.jobs, self.shards)
    }

    fn flow(&self) -> String {
        let Self { executions, executions_per_s, lateness_us: late, completion_us: done, .. } = self;
        format!(
            "{executions} executions, {executions_per_s:.0}/s; late p50 {} p99 {} p99.9 {} us; complete p50 {} p99 {} us; \
             {:.3} allocations and {:.3} system calls each",
            late.p50,
            late.p99,
            late.p999,
            done.p50,
            done.p99,
            self.allocations_per_execution,
            self.system_calls_per_execution,
        )
    }
}

impl Resident {
    fn summary(&self) -> String {
        let figure = |value: Option<f64>, digits: usize, unit: &str| {
            value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.digits$} {unit}"))
        };
        format!(
            "{} for each job; idle {} of a core; after kill -9 ready in {}, firing in {}; {} of {} jobs missing",
            figure(self.bytes_per_job, 0, "B"),
            figure(self.idle_cpu_percent, 2, "%"),
            figure(self.restart_ready_s, 3, "s"),
            figure(self.restart_firing_s, 3, "s"),
            self.missing,
            self.sampled,
        )
    }
}

/// `part / whole`, 0 when the whole is.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;
    use clap::Parser as _;
    use tickwheel_wire::job::Priority;

    fn findings(special: Special) -> Findings {
        let mut tally = Tally::new();
        tally.lateness(Priority::P1, 500);
        tally.executions = 1_000;
        let usage = |cpu_s| Usage { cpu_s, rss_bytes: 4_096 };
        Findings {
            shards: 2,
            workers: 4,
            duration_s: 2.0,
            submit_s: 0.5,
            submitted: 100,
            tally,
            lost: 0,
            counts: Counts::default(),
            usage: Some((usage(1.0), usage(1.5))),
            unacknowledged: 0,
            special,
        }
    }

    fn report(findings: Findings) -> Report {
        let plan = Plan::resolve(&Arguments::try_parse_from(["x", "--spawn"]).unwrap(), 1).unwrap();
        Report::new(&plan, findings)
    }

    #[test]
    fn the_object_has_the_keys_that_others_rely_on() {
        let json = serde_json::to_value(report(findings(Special::None {}))).unwrap();
        let keys = "profile duration_s jobs executions executions_per_s lateness_us completion_us lost duplicates early errors \
                    server_cpu_s server_rss_bytes durable cores skipped misfired counters";
        for key in keys.split_whitespace() {
            assert!(json.get(key).is_some_and(|value| !value.is_null()), "{key} in {json}");
        }
        for quantile in ["p50", "p90", "p99", "p999", "max"] {
            assert_eq!(json["lateness_us"][quantile], 500, "{quantile}");
            assert_eq!(json["completion_us"][quantile], 0, "{quantile}");
        }
        assert_eq!((&json["executions_per_s"], &json["server_cpu_s"]), (&500.0.into(), &0.5.into()));
        assert_eq!((&json["durable"], &json["submits_per_s"]), (&true.into(), &200.0.into()));
    }

    #[test]
    fn what_only_a_profile_has_stands_beside_the_rest() {
        let json = serde_json::to_value(report(findings(Special::Herd { dispatched_s: 1.0, drained_s: 1.5 }))).unwrap();
        assert_eq!((&json["drained_s"], json.get("rate")), (&1.5.into(), None));
        let resident = Resident { bytes_per_job: Some(140.0), ..Resident::default() };
        let json = serde_json::to_value(report(findings(Special::Resident(resident)))).unwrap();
        assert_eq!(json["bytes_per_job"], 140.0);
    }

    #[test]
    fn a_run_with_anything_unaccounted_for_is_not_clean() {
        assert!(report(findings(Special::None {})).is_clean());
        let spoilers: [fn(&mut Findings); 5] = [
            |findings| findings.lost = 1,
            |findings| findings.unacknowledged = 1,
            |findings| findings.tally.duplicates = 1,
            |findings| findings.tally.early = 1,
            |findings| findings.tally.error("refused"),
        ];
        for (number, spoil) in spoilers.into_iter().enumerate() {
            let mut findings = findings(Special::None {});
            spoil(&mut findings);
            assert!(!report(findings).is_clean(), "spoiler {number}");
        }
    }
}
