//! What the computation of a next fire time costs, by kind of schedule and zone.
//!
//! Times are spread over a year, so that neither the branch predictor nor the cache sees one time over and over.
//! The aim: at most 100 ns for a typical cron search, at most 1 us for a rare one.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tickwheel_engine::schedule::{Backoff, Cron, Schedule, Zones, retry_delay};
use tickwheel_wire::Timestamp;

/// 2026-07-01T00:00:00Z.
const START_S: u64 = 1_782_864_000;
const YEAR_S: u64 = 365 * 86_400;

/// A thousand times within a year, in no order.
fn times() -> Vec<Timestamp> {
    (0..1_000).map(|index| Timestamp::from_secs(START_S + index * 7_919_993 % YEAR_S)).collect()
}

fn next_after(c: &mut Criterion) {
    let mut zones = Zones::new();
    let cases = [
        ("every 5 minutes", "*/5 * * * *"),
        ("hourly", "0 * * * *"),
        ("working days at 9:30", "30 9 * * MON-FRI"),
        ("monthly", "0 0 1 * *"),
        ("29 February", "0 0 29 2 *"),
        ("29 February, Sunday", "0 0 29 2 */7"),
    ];
    let mut group = c.benchmark_group("next_after");
    for (label, expression) in cases {
        for zone in ["UTC", "America/New_York"] {
            let schedule = Schedule::cron(expression, zone, &mut zones).expect("valid");
            let mut times = times().into_iter().cycle();
            group.bench_function(format!("{label}, {zone}"), |b| {
                b.iter(|| black_box(&schedule).next_after(times.next().expect("endless")));
            });
        }
    }
    let interval = Schedule::interval(60_000_000, Timestamp::EPOCH).expect("valid");
    let mut times = times().into_iter().cycle();
    group.bench_function("interval", |b| {
        b.iter(|| black_box(&interval).next_after(times.next().expect("endless")));
    });
    group.finish();
}

fn construction(c: &mut Criterion) {
    let mut group = c.benchmark_group("construction");
    let mut zones = Zones::new();
    let new_york = zones.get("America/New_York").expect("known");
    group.bench_function("cron expression", |b| {
        b.iter(|| Cron::new(black_box("*/5 9-17 1,15 * MON-FRI"), new_york.clone()).expect("valid"));
    });
    group
        .bench_function("zone, known already", |b| b.iter(|| zones.get(black_box("America/New_York")).expect("known")));
    group.bench_function("zone, first use", |b| {
        b.iter(|| Zones::new().get(black_box("America/New_York")).expect("known"));
    });
    group.finish();
}

fn backoff(c: &mut Criterion) {
    let doubling = Backoff { initial_ms: 1_000, multiplier_milli: 2_000, max_ms: 3_600_000, jitter_percent: 20 };
    let mut seed = 0u64;
    c.bench_function("retry_delay, attempt 5", |b| {
        b.iter(|| {
            seed += 1;
            retry_delay(black_box(&doubling), 5, seed)
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = next_after, construction, backoff
}
criterion_main!(benches);
