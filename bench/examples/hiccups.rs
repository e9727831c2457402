//! How long the machine keeps a thread from running that wants to: the floor under every latency measured on it.
//!
//! On each core in turn a thread reads the clock as fast as it can; a gap is time in which the core did something else, or, on a
//! virtual machine, nothing at all. Printed is the chance that something which becomes due at a random moment has to wait for the end of a gap
//! longer than that. Run it while nothing else runs: `cargo run --release -p tickwheel-bench --example hiccups`. (After Gil Tene's jHiccup.)

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::time::{Duration, Instant};

const WATCHED: Duration = Duration::from_secs(10);
/// Shorter gaps are the loop's own.
const GAP_MIN: Duration = Duration::from_micros(20);
const WAITS_US: [u64; 5] = [100, 200, 500, 1_000, 2_000];

fn main() {
    let allowed = sched_getaffinity(None).expect("the system tells which cores may be used");
    let waits: String = WAITS_US.iter().map(|us| format!("{:>12}", format!("> {us} us"))).collect();
    println!("core  lost time  longest gap  chance to wait:{waits}");
    for core in (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)) {
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only).expect("the core is among the allowed ones");
        report(core, &gaps());
    }
}

fn gaps() -> Vec<Duration> {
    let begin = Instant::now();
    let (mut last, mut gaps) = (begin, Vec::new());
    while last - begin < WATCHED {
        let now = Instant::now();
        if now - last >= GAP_MIN {
            gaps.push(now - last);
        }
        last = now;
    }
    gaps
}

fn report(core: usize, gaps: &[Duration]) {
    let percent = |time: Duration| 100.0 * time.as_secs_f64() / WATCHED.as_secs_f64();
    let lost = percent(gaps.iter().sum());
    let longest_us = gaps.iter().max().map_or(0, Duration::as_micros);
    let chances: String = WAITS_US
        .iter()
        .map(|us| gaps.iter().map(|gap| gap.saturating_sub(Duration::from_micros(*us))).sum())
        .map(|waiting| format!("{:>12}", format!("{:.3} %", percent(waiting))))
        .collect();
    println!("{core:>4}  {:>9}  {:>11}                 {chances}", format!("{lost:.2} %"), format!("{longest_us} us"));
}
