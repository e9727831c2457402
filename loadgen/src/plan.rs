//! What the arguments come to: how many jobs, when each fires, and what each is called.
//!
//! Phases and priorities are functions of the seed and the job's number, so a run can be repeated; names carry the run's id instead,
//! so that two runs against one server never share a job. Deliberately absent: what the clock says.

use crate::arguments::{Arguments, Profile};
use anyhow::{Result, bail, ensure};
use std::{fmt::Write as _, thread, time::Duration};
use tickwheel_wire::{
    Timestamp,
    job::{JobSpec, Priority, ScheduleSpec},
    mix64,
};

/// The tenant that every server has.
pub(crate) const TENANT: &str = "default";
/// Shortest interval of a job, in microseconds: the server's own limit.
const INTERVAL_US_MIN: u64 = 1_000;
/// From one herd to the next: a day, in microseconds.
const HERD_INTERVAL_US: u64 = 86_400_000_000;
/// Between two firings of a resident job: a year, in microseconds.
const RESIDENT_INTERVAL_US: u64 = 365 * 86_400_000_000;
/// Most jobs of a run: their numbers have ten digits.
const JOBS_MAX: u64 = 1_000_000_000;

/// The resolved arguments.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub profile: Profile,
    pub jobs: u64,
    /// From one firing of a job to its next, in microseconds.
    pub interval_us: u64,
    pub duration: Duration,
    pub warmup: Duration,
    pub seed: u64,
    /// Tells this run from others.
    pub run: u32,
    /// Cores that this process may use.
    pub cores: usize,
    pub threads: u16,
    pub connections: Option<u32>,
    pub credit: u32,
    pub window: u32,
    pub payload_bytes: u32,
    pub p0_percent: u8,
}

impl Plan {
    /// Resolves the arguments.
    ///
    /// # Errors
    /// When they contradict each other or ask for what no server can do.
    pub fn resolve(arguments: &Arguments, run: u32) -> Result<Self> {
        ensure!(
            arguments.compress.is_finite() && arguments.compress > 0.0,
            "--compress must be above 0, not {}",
            arguments.compress
        );
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let default_s = if arguments.profile == Profile::Herd { 60 } else { 10 };
        let duration = arguments.duration.unwrap_or(Duration::from_secs(default_s)).div_f64(arguments.compress);
        ensure!(duration >= Duration::from_millis(1), "--duration must be at least 1 ms");
        let (jobs, interval_us) = jobs_and_interval(arguments)?;
        let default_threads = if cores <= 2 { 1 } else { u16::try_from(cores / 2).unwrap_or(256).min(256) };
        Ok(Self {
            profile: arguments.profile,
            jobs,
            interval_us,
            duration,
            warmup: arguments.warmup,
            seed: arguments.seed,
            run,
            cores,
            threads: arguments.threads.unwrap_or(default_threads),
            connections: arguments.workers,
            credit: arguments.credit,
            window: arguments.window,
            payload_bytes: arguments.payload_bytes,
            p0_percent: arguments.p0_percent,
        })
    }

    /// Executions per second that fall due once all jobs are there.
    pub fn rate(&self) -> f64 {
        self.jobs as f64 * 1e6 / self.interval_us as f64
    }

    /// Worker connections in all, for a server with so many shards.
    pub fn connections(&self, shard_count: u16) -> u32 {
        self.connections.unwrap_or(u32::from(shard_count) * u32::from(self.threads))
    }

    /// The name of what the jobs of this run ask their worker to do.
    pub fn handler(&self) -> String {
        format!("load-{:08x}", self.run)
    }

    /// Writes the name of a job into `out`, in place of what it held: 24 bytes.
    pub fn name(&self, index: u64, out: &mut String) {
        out.clear();
        write!(out, "load-{:08x}-{index:010}", self.run).expect("writing to a string cannot fail");
    }

    /// How urgent a job is.
    fn priority(&self, index: u64) -> Priority {
        let urgent = below(mix64(self.seed ^ mix64(index ^ 0x5052_494f)), 100) < u64::from(self.p0_percent);
        if urgent { Priority::P0 } else { Priority::P1 }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
fn jobs_and_interval(arguments: &Arguments) -> Result<(u64, u64)> {
    let rated = |default_rate: u64, jobs_of: fn(u64) -> u64| {
        let rate = arguments.rate.unwrap_or(default_rate) as f64 * arguments.compress;
        ensure!((1e-3..=1e12).contains(&rate), "--rate times --compress is out of range: {rate}");
        let jobs = arguments.jobs.unwrap_or_else(|| jobs_of(rate.ceil() as u64));
        let interval_us = (jobs as f64 * 1e6 / rate).round() as u64;
        if interval_us < INTERVAL_US_MIN {
            let jobs_min = (rate * INTERVAL_US_MIN as f64 / 1e6).ceil();
            bail!("jobs fire at most every ms: this rate needs --jobs {jobs_min} or more");
        }
        Ok((jobs, interval_us))
    };
    let (jobs, interval_us) = match arguments.profile {
        Profile::Steady => rated(20_000, |rate| rate.max(100_000))?,
        Profile::Saturate => rated(20_000_000, |rate| (rate / 20).max(1_000))?,
        Profile::Herd | Profile::Resident if arguments.rate.is_some() => {
            bail!("--rate has no meaning with --profile {}", arguments.profile.name());
        }
        Profile::Herd => (arguments.jobs.unwrap_or(2_500_000), HERD_INTERVAL_US),
        Profile::Resident => (arguments.jobs.unwrap_or(10_000_000), RESIDENT_INTERVAL_US),
    };
    ensure!(jobs <= JOBS_MAX, "at most {JOBS_MAX} jobs");
    Ok((jobs, interval_us))
}

/// When the jobs of a set fire: at `base` and every `interval_us` from there on, each by its own phase later if `spread`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    pub base: Timestamp,
    pub interval_us: u64,
    pub spread: bool,
}

impl Rhythm {
    /// When the job fires first; never before `base`, and less than an interval after it.
    pub fn anchor(&self, seed: u64, index: u64) -> Timestamp {
        let phase_us = if self.spread { below(mix64(seed ^ mix64(index)), self.interval_us) } else { 0 };
        self.base.saturating_add(Duration::from_micros(phase_us))
    }
}

/// The definitions of a run's jobs.
#[derive(Clone, Debug)]
pub(crate) struct Definitions {
    plan: Plan,
    rhythm: Rhythm,
    handler: String,
    payload: Vec<u8>,
}

impl Definitions {
    pub fn new(plan: &Plan, rhythm: Rhythm) -> Self {
        let payload = (0..plan.payload_bytes).map(|at| mix64(at.into()).to_le_bytes()[0]).collect();
        Self { plan: plan.clone(), rhythm, handler: plan.handler(), payload }
    }

    /// Writes the definition of a job of this name into `out`, in place of what it held.
    pub fn encode(&self, index: u64, name: &str, out: &mut Vec<u8>) {
        let schedule = ScheduleSpec::Interval {
            every_us: self.rhythm.interval_us,
            anchor: self.rhythm.anchor(self.plan.seed, index),
        };
        let mut spec = JobSpec::new(TENANT, name, &self.handler, schedule);
        spec.payload = &self.payload;
        spec.priority = self.plan.priority(index);
        out.clear();
        spec.encode(out);
    }
}

/// A number below `bound`, nearly uniform if `random` is.
fn below(random: u64, bound: u64) -> u64 {
    u64::try_from((u128::from(random) * u128::from(bound)) >> 64).expect("it is below the bound")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn plan(line: &str) -> Result<Plan> {
        let words = ["x", "--spawn"].into_iter().chain(line.split_whitespace());
        Plan::resolve(&Arguments::try_parse_from(words)?, 0xABCD)
    }

    #[test]
    fn the_interval_follows_from_jobs_and_rate() {
        let plan = plan("--rate 1.5M --jobs 3M").unwrap();
        assert_eq!((plan.jobs, plan.interval_us), (3_000_000, 2_000_000));
        assert!((plan.rate() - 1.5e6).abs() < 1.0);
    }

    #[test]
    fn jobs_that_would_fire_more_often_than_every_millisecond_are_refused() {
        let error = plan("--rate 1M --jobs 999").unwrap_err().to_string();
        assert!(error.contains("--jobs 1000"), "{error}");
        assert!(plan("--rate 1M --jobs 1000").is_ok());
    }

    #[test]
    fn compression_moves_a_day_into_less_time() {
        assert!(plan("--compress 0").is_err());
        let plan = plan("--rate 2k --duration 24h --compress 2880").unwrap();
        assert_eq!(plan.duration, Duration::from_secs(30));
        assert!((plan.rate() / 5.76e6 - 1.0).abs() < 1e-3, "{}", plan.rate());
    }

    #[test]
    fn phases_depend_on_the_seed_alone_and_fill_the_interval() {
        let rhythm = Rhythm { base: Timestamp::from_secs(100), interval_us: 1_000_000, spread: true };
        let phases = |seed| (0..10_000).map(|index| rhythm.anchor(seed, index)).collect::<Vec<_>>();
        assert_eq!(phases(1), phases(1));
        assert_ne!(phases(1), phases(2));
        let mut deciles = [0; 10];
        for anchor in phases(1) {
            let phase_us = anchor.as_micros() - 100_000_000;
            deciles[usize::try_from(phase_us / 100_000).unwrap()] += 1;
        }
        assert!(deciles.iter().all(|&count| (850..1_150).contains(&count)), "{deciles:?}");
        let together = Rhythm { spread: false, ..rhythm };
        assert_eq!(together.anchor(1, 7), Timestamp::from_secs(100));
    }

    #[test]
    fn definitions_are_valid_and_carry_what_was_asked_for() {
        let plan = plan("--p0-percent 50 --payload-bytes 100").unwrap();
        let rhythm = Rhythm { base: Timestamp::from_secs(5), interval_us: plan.interval_us, spread: true };
        let definitions = Definitions::new(&plan, rhythm);
        let (mut name, mut bytes, mut urgent) = (String::new(), Vec::new(), 0);
        for index in 0..1_000 {
            plan.name(index, &mut name);
            assert_eq!(name.len(), 24);
            definitions.encode(index, &name, &mut bytes);
            let spec = JobSpec::decode(&bytes).unwrap();
            assert_eq!(spec.validate(1_000), Ok(()));
            assert_eq!((spec.name, spec.handler, spec.payload.len()), (&*name, "load-0000abcd", 100));
            urgent += u32::from(spec.priority == Priority::P0);
        }
        assert!((400..600).contains(&urgent), "{urgent}");
    }
}
