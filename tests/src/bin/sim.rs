//! Runs the simulator: one seed with its trace, or many in parallel.
//!
//! `sim --seed N` shows what happens in one run; `sim --seeds A..B` runs many and tells the seeds that fail, each with the smallest
//! plan that was found to fail alike.

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Parser};
use rustix::time::{ClockId, clock_gettime};
use std::{
    ops::Range,
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tickwheel_tests::sim::{
    mistake_named,
    plan::{Dropped, Plan},
    plant,
    shrink::shrink,
    violation::Violation,
    world::run,
};
use tickwheel_wire::planted::Mistake;

/// Runs the real core, sessions, log and shard loop on a simulated disk, network and clock.
#[derive(Parser)]
#[command(group = ArgGroup::new("what").required(true).args(["seed", "seeds"]))]
struct Arguments {
    /// Replays one run and prints what happens in it.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs the seeds from A up to B, B excluded, in parallel.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Parts of the plan to leave out, separated by commas, as a failing run names them.
    #[arg(long, value_delimiter = ',', requires = "seed")]
    drop: Vec<String>,
    /// Does not look for a smaller plan that fails alike.
    #[arg(long)]
    no_shrink: bool,
    /// Threads. Default: one per core.
    #[arg(long)]
    threads: Option<usize>,
    /// Plants a mistake in the code, by the name that `wire/src/planted.rs` gives it; a build with the feature `planted` only.
    #[arg(long)]
    plant: Option<String>,
    /// Stops at the first failing seed.
    #[arg(long, requires = "seeds")]
    fail_fast: bool,
}

impl Arguments {
    /// Plants what is asked for in this thread's runs.
    fn plant(&self) -> anyhow::Result<()> {
        let Some(name) = &self.plant else { return Ok(()) };
        let mistake = mistake_named(name).with_context(|| {
            let names: Vec<_> = Mistake::ALL.iter().map(|mistake| format!("{mistake:?}")).collect();
            format!("there is no mistake {name}; there are {}", names.join(", "))
        })?;
        plant(Some(mistake)).map_err(anyhow::Error::msg)
    }

    /// What is to be left out of the plan of `seed`.
    fn dropped(&self, seed: u64) -> anyhow::Result<Dropped> {
        let labels = Plan::new(seed, &Dropped::new()).labels();
        match self.drop.iter().find(|label| !labels.contains(label)) {
            Some(label) => bail!("the plan of seed {seed} has no part {label}; it has {}", labels.join(", ")),
            None => Ok(self.drop.iter().cloned().collect()),
        }
    }
}

fn parse_range(text: &str) -> anyhow::Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("a range is written A..B")?;
    let range = from.parse()?..to.parse()?;
    if range.is_empty() {
        bail!("the range is empty");
    }
    Ok(range)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let dropped = arguments.plant().and_then(|()| arguments.seed.map(|seed| arguments.dropped(seed)).transpose());
    let dropped = match dropped {
        Ok(dropped) => dropped.unwrap_or_default(),
        Err(error) => {
            eprintln!("sim: {error:#}");
            return ExitCode::from(2);
        }
    };
    // A panic is a finding like any other, and told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let has_failed = match (arguments.seed, arguments.seeds.clone()) {
        (Some(seed), _) => replay(seed, &dropped, &arguments),
        (None, Some(seeds)) => run_many(seeds, &arguments),
        (None, None) => unreachable!("one of them is required"),
    };
    if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn replay(seed: u64, dropped: &Dropped, arguments: &Arguments) -> bool {
    let outcome = run(seed, dropped, true);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!(
        "{:?} in {:.1} virtual seconds, fingerprint {:016x}",
        outcome.tally,
        outcome.virtual_time.as_secs_f64(),
        outcome.fingerprint
    );
    if let Some(violation) = &outcome.violation {
        report(seed, violation, dropped, arguments.no_shrink);
    }
    outcome.violation.is_some()
}

fn report(seed: u64, violation: &Violation, dropped: &Dropped, no_shrink: bool) {
    println!("seed {seed} of revision {}: {violation}", revision());
    if no_shrink {
        return;
    }
    let smaller = shrink(seed, violation.promise, dropped);
    let left = Plan::new(seed, &smaller).labels();
    let list = smaller.iter().cloned().collect::<Vec<_>>().join(",");
    println!("seed {seed}: enough are {}", left.join(", "));
    println!("seed {seed}: sim --seed {seed} --no-shrink --drop {list}");
}

fn run_many(seeds: Range<u64>, arguments: &Arguments) -> bool {
    let began = Instant::now();
    let threads = arguments.threads.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let virtual_us = AtomicU64::new(0);
    let totals = Mutex::new([0_u64; 13]);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                arguments.plant().expect("it went well in the main thread");
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || (arguments.fail_fast && !failed.lock().expect("no panic").is_empty()) {
                        break;
                    }
                    let outcome = run(seed, &Dropped::new(), false);
                    virtual_us.fetch_add(micros(outcome.virtual_time), Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                    let tally = outcome.tally;
                    let counts = [
                        tally.events,
                        tally.dispatches,
                        tally.accepted,
                        tally.refused,
                        tally.answers,
                        tally.recoveries,
                        tally.of_several,
                        tally.beside_excluded,
                        tally.put_off,
                        tally.listed,
                        tally.conflicts,
                        tally.beside_others,
                        tally.moved,
                    ];
                    totals.lock().expect("no panic").iter_mut().zip(counts).for_each(|(total, count)| *total += count);
                    if let Some(violation) = outcome.violation {
                        println!("seed {seed}: {violation}");
                        failed.lock().expect("no panic").push((seed, violation));
                    }
                }
            });
        }
    });
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_time());
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort_by_key(|(seed, _)| *seed);
    for (seed, violation) in &failed {
        report(*seed, violation, &Dropped::new(), arguments.no_shrink);
    }
    let done = done.load(Ordering::Relaxed);
    let virtual_hours = virtual_us.load(Ordering::Relaxed) as f64 / 3.6e9;
    let totals = totals.into_inner().expect("no panic");
    let [events, dispatches, accepted, refused, answers, recoveries, of_jobs @ ..] = totals;
    let [several, excluded, put_off, listed, conflicts, beside, moved] = of_jobs;
    println!(
        "{done} seeds in {seconds:.1} s on {threads} threads: {:.0} seeds/hour; {virtual_hours:.1} simulated hours, {:.0} per CPU hour",
        done as f64 / seconds * 3_600.0,
        virtual_hours * 3_600.0 / cpu.as_secs_f64(),
    );
    println!(
        "{events} events, {dispatches} attempts given out, {accepted} reports accepted and {refused} refused, {answers} requests answered, {recoveries} recoveries compared"
    );
    println!(
        "{several} attempts of jobs with several schedules, {excluded} with excluded times, {put_off} with jitter; {listed} jobs listed, {conflicts} requests refused for what they stated"
    );
    println!("{beside} attempts given out beside others of their job; {moved} firings moved with calendars");
    let seeds: Vec<_> = failed.iter().map(|(seed, _)| seed.to_string()).collect();
    println!("failing seeds: {}", if seeds.is_empty() { "none".to_owned() } else { seeds.join(" ") });
    !failed.is_empty()
}

/// What this process has used so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("time used is not negative")
}

/// The revision of the tree that this was built in, which a seed needs to mean anything.
fn revision() -> String {
    let output =
        Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]).output().ok();
    let text = output.filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
