//! The timing wheel: insertion, and delivery with re-insertion, at a number of resident timers with random phases.
//!
//! The resident numbers are 1 M and 10 M; `TICKWHEEL_BENCH_RESIDENT=50000000` replaces them. Deadlines are random over
//! a minute (each entry moves once between levels) and over an hour (twice).

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tickwheel_engine::wheel::{TICK_MICROS, Wheel};
use tickwheel_wire::{Timestamp, mix64};

const START_MICROS: u64 = 1_757_000_123_456_789;
const LIMIT: usize = 1024;
const SPREADS: [(&str, u64); 2] = [("minute", 60_000_000), ("hour", 3_600_000_000)];

fn resident_counts() -> Vec<u64> {
    match std::env::var("TICKWHEEL_BENCH_RESIDENT") {
        Ok(count) => vec![count.parse().expect("TICKWHEEL_BENCH_RESIDENT is a number")],
        Err(_) => vec![1_000_000, 10_000_000],
    }
}

/// A wheel, its present, and a source of random numbers.
struct Load {
    wheel: Wheel,
    now_micros: u64,
    random: u64,
    spread_micros: u64,
    due: Vec<u64>,
}

impl Load {
    fn new(resident: u64, spread_micros: u64) -> Self {
        let wheel = Wheel::new(Timestamp::from_micros(START_MICROS));
        let mut load = Self { wheel, now_micros: START_MICROS, random: 0, spread_micros, due: Vec::new() };
        for key in 0..resident {
            load.insert(key);
        }
        load
    }

    fn insert(&mut self, key: u64) {
        self.random += 1;
        // The spread is below 2^32, so the high half of the product is a random number below it without a division.
        let delay_micros = ((mix64(self.random) >> 32) * self.spread_micros) >> 32;
        let at = Timestamp::from_micros(self.now_micros + delay_micros);
        black_box(self.wheel.insert(at, key));
    }

    /// Advances by `step_micros`, delivers what is due and inserts it again; how many entries that were.
    fn turn(&mut self, step_micros: u64) -> u64 {
        self.now_micros += step_micros;
        let now = Timestamp::from_micros(self.now_micros);
        let mut due = std::mem::take(&mut self.due);
        while self.wheel.expire(now, LIMIT, &mut |key, armed| {
            black_box(armed);
            due.push(key);
        }) {}
        let fired = due.len() as u64;
        for key in due.drain(..) {
            self.insert(key);
        }
        self.due = due;
        fired
    }
}

fn insert(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/insert");
    group.throughput(Throughput::Elements(1));
    for resident in resident_counts() {
        for (name, spread_micros) in SPREADS {
            let id = BenchmarkId::new(name, resident);
            let mut filled: Option<Load> = None;
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut elapsed = Duration::ZERO;
                    let mut left = iterations;
                    while left > 0 {
                        // Grows by at most a tenth before it is filled afresh.
                        if filled.as_ref().is_none_or(|load| load.wheel.len() as u64 >= resident + resident / 10) {
                            filled = None;
                            filled = Some(Load::new(resident, spread_micros));
                        }
                        let load = filled.as_mut().expect("it was just filled");
                        let batch = left.min(resident + resident / 10 - load.wheel.len() as u64);
                        let start = Instant::now();
                        (0..batch).for_each(|key| load.insert(key));
                        elapsed += start.elapsed();
                        left -= batch;
                    }
                    elapsed
                });
            });
        }
    }
    group.finish();
}

fn fire_and_insert_again(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/fire_and_insert_again");
    group.throughput(Throughput::Elements(1));
    for resident in resident_counts() {
        for (name, spread_micros) in SPREADS {
            // About 64 entries per turn, at least one tick.
            let step_micros = (64 * spread_micros / resident).max(TICK_MICROS);
            let mut load = Load::new(resident, spread_micros);
            // Into the steady state, where short delays are as frequent as they will be.
            let warm_until = load.now_micros + spread_micros / 20;
            while load.now_micros < warm_until {
                load.turn(step_micros);
            }
            let mut worst = Duration::ZERO;
            group.bench_function(BenchmarkId::new(name, resident), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut fired = 0;
                    let start = Instant::now();
                    let mut turn_start = start;
                    while fired < iterations {
                        fired += load.turn(step_micros);
                        let turn_end = Instant::now();
                        worst = worst.max(turn_end - turn_start);
                        turn_start = turn_end;
                    }
                    let elapsed = start.elapsed();
                    elapsed.mul_f64(iterations as f64 / fired as f64)
                });
            });
            let bytes = load.wheel.memory_bytes() as f64 / load.wheel.len() as f64;
            println!("{name}/{resident}: {bytes:.2} B per timer, worst turn {worst:?}");
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = insert, fire_and_insert_again
}
criterion_main!(benches);
