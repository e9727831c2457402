//! Claims about [`Schedule`] as a whole.

use super::*;
use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, MutexGuard},
};

/// The zones of all tests: Miri takes half a minute to read one with daylight saving time.
pub fn zones() -> MutexGuard<'static, Zones> {
    static ZONES: LazyLock<Mutex<Zones>> = LazyLock::new(Mutex::default);
    ZONES.lock().expect("no panic while it was held")
}

fn cron(expression: &str, zone: &str) -> Schedule {
    Schedule::cron(expression, zone, &mut zones()).expect("valid")
}

const fn secs(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

#[test]
fn a_single_fire_happens_once_and_never_at_never() {
    let once = Schedule::once(secs(100));
    assert_eq!(once.next_after(secs(99)), Some(secs(100)));
    assert_eq!(once.next_after(secs(100)), None);
    assert_eq!(Schedule::once(Timestamp::MAX).next_after(secs(0)), None);
}

#[test]
fn schedules_with_one_meaning_intern_to_one() {
    let distinct = HashSet::from([
        cron("@daily", "Europe/Berlin"),
        cron("0 0 * * *", "europe/berlin"),
        cron(" 0  0 * * * ", "Europe/Berlin"),
        cron("0 0 * * *", "UTC"),
        cron("0 1 * * *", "UTC"),
        Schedule::interval(1_000, secs(0)).expect("valid"),
        Schedule::interval(1_000, secs(0)).expect("valid"),
        Schedule::interval(1_000, secs(1)).expect("valid"),
        Schedule::once(secs(0)),
    ]);
    assert_eq!(distinct.len(), 6);
}

#[test]
fn missed_fires_are_counted_up_to_the_bound() {
    let hour = 3_600;
    let cases = [
        (cron("*/5 * * * *", "UTC"), 0, hour, 100, 12),
        (cron("*/5 * * * *", "UTC"), 0, hour - 1, 100, 11),
        (cron("*/5 * * * *", "UTC"), 0, hour, 12, 12),
        (cron("*/5 * * * *", "UTC"), 0, hour, 11, 11),
        (cron("*/5 * * * *", "UTC"), 300, 300, 100, 0),
        (cron("*/5 * * * *", "UTC"), hour, 0, 100, 0),
        (Schedule::interval(60_000_000, secs(0)).expect("valid"), 0, hour, 100, 60),
        (Schedule::interval(60_000_000, secs(0)).expect("valid"), 0, hour, 59, 59),
        (Schedule::interval(1_000, secs(0)).expect("valid"), 0, 1 << 40, u32::MAX, u32::MAX),
        (Schedule::once(secs(10)), 9, 10, 100, 1),
        (Schedule::once(secs(10)), 10, 20, 100, 0),
        (Schedule::once(secs(10)), 0, 20, 0, 0),
    ];
    for (schedule, from_s, to_s, bound, expected) in cases {
        let counted = schedule.missed_count(secs(from_s), secs(to_s), bound);
        assert_eq!(counted, expected, "{schedule:?} from {from_s} to {to_s}, at most {bound}");
    }
}

#[test]
fn schedules_stay_as_small_as_documented() {
    assert!(size_of::<Cron>() <= 64, "{}", size_of::<Cron>());
    assert!(size_of::<Schedule>() <= 64, "{}", size_of::<Schedule>());
}
