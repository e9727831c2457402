//! The only clock of the server: wall time that never goes back, and monotonic time, from one reading per turn.
//!
//! Wall time is monotonic time plus an offset. Ten times a second the offset is compared with the system's wall clock
//! and the difference is slewed away, at most [`SLEW_PPM_MAX`], so that a correction by NTP bends time and never
//! breaks it:
//!
//! | the system's clock is | then |
//! |---|---|
//! | off by up to [`JUMP_BOUND`] | slewed: the difference shrinks by at most 500 us per second |
//! | further ahead (it was set, or the machine slept) | followed at once, with an alarm: the misfire policy catches up |
//! | further behind (it was set back) | time runs at half speed until they meet, with an alarm |
//!
//! Invariants: [`Now::wall`] never decreases, and [`Now::monotonic`] is the kernel's `CLOCK_MONOTONIC` since the
//! process's origin. Deliberately absent: time zones, timers, and a shared offset; each shard has a clock of its own
//! and all of them follow the same system clock.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tickwheel_wire::{Now, Timestamp};

/// Fastest slew, in parts per million: what `adjtime` and NTP use.
pub const SLEW_PPM_MAX: i64 = 500;
/// Differences above this are not slewed but handled as a jump.
pub const JUMP_BOUND: Duration = Duration::from_secs(1);
/// How often the offset is compared with the system's clock.
pub const COMPARE_INTERVAL: Duration = Duration::from_millis(100);

/// Half speed, in parts per million: how time runs after the system's clock was set back beyond [`JUMP_BOUND`].
const HALF_SPEED_PPM: i64 = -500_000;
/// The time since the process's origin, which is the first call of this function or of a clock.
pub fn since_origin(instant: Instant) -> Duration {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    instant.saturating_duration_since(*ORIGIN.get_or_init(Instant::now))
}

/// The system's wall clock was set while the server ran, or the machine slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockAlarm {
    /// Wall time was behind by this much and jumped forward.
    Forward(Duration),
    /// Wall time is ahead by this much and runs at half speed until the system's clock has caught up.
    Backward(Duration),
}

/// One moment on all clocks.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// What the engine decides by.
    pub now: Now,
    /// The same moment for libraries that take the standard type.
    pub instant: Instant,
}

/// The clock of one shard.
#[derive(Debug)]
pub struct Clock {
    slewed: SlewedClock,
    compare_at: Instant,
    alarm: Option<ClockAlarm>,
}

impl Clock {
    /// A clock that starts at the system's wall time, but not before `floor`: the latest time found in the log, so
    /// that time does not go back over a restart either.
    pub fn new(floor: Timestamp) -> Self {
        // In this order: a thread that is interrupted in between makes the clock late, never early.
        let system = system_time();
        let instant = Instant::now();
        let mut slewed = SlewedClock::new(since_origin(instant), system.max(floor));
        let alarm = slewed.compare(since_origin(instant), system);
        Self { slewed, compare_at: instant + COMPARE_INTERVAL, alarm }
    }

    /// Reads the clock: one call into the vDSO, three more ten times a second.
    pub fn now(&mut self) -> Reading {
        let mut instant = Instant::now();
        if instant >= self.compare_at {
            instant = self.compare(instant);
        }
        let monotonic = since_origin(instant);
        Reading { now: Now { wall: self.slewed.wall(monotonic), monotonic }, instant }
    }

    /// Takes the alarm that was raised since the last call.
    pub fn take_alarm(&mut self) -> Option<ClockAlarm> {
        self.alarm.take()
    }

    /// Compares with the system's clock; returns a moment that is not before the comparison.
    fn compare(&mut self, before: Instant) -> Instant {
        let system = system_time();
        let after = Instant::now();
        self.compare_at = after + COMPARE_INTERVAL;
        let alarm = self.slewed.compare_between([before, after].map(since_origin), system);
        self.alarm = alarm.or(self.alarm);
        after
    }
}

fn system_time() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since_epoch)
}

/// The arithmetic of [`Clock`], with the readings passed in.
///
/// Wall time is a straight line from the last comparison: `base_wall + elapsed * (1 + rate)`.
#[derive(Debug)]
pub struct SlewedClock {
    base_monotonic: Duration,
    base_wall: Timestamp,
    rate_ppm: i64,
    /// Whether the system's clock was found behind beyond the bound and has not been met again.
    behind: bool,
}

impl SlewedClock {
    /// A clock that shows `wall` at `monotonic`.
    pub fn new(monotonic: Duration, wall: Timestamp) -> Self {
        Self { base_monotonic: monotonic, base_wall: wall, rate_ppm: 0, behind: false }
    }

    /// Wall time at `monotonic`, which is not before the last comparison.
    pub fn wall(&self, monotonic: Duration) -> Timestamp {
        let elapsed_us = i128::try_from(monotonic.saturating_sub(self.base_monotonic).as_micros()).unwrap_or(0);
        let slewed_us = elapsed_us + elapsed_us * i128::from(self.rate_ppm) / 1_000_000;
        let slewed_us = u64::try_from(slewed_us).expect("the slowest rate is half speed, so time goes forward");
        Timestamp::from_micros(self.base_wall.as_micros().saturating_add(slewed_us))
    }

    /// Like [`compare`](Self::compare), with a `system` time that was read at some moment between the two given. Only what is certain
    /// counts as a difference: a thread may be interrupted between two readings for as long as it pleases the kernel.
    fn compare_between(&mut self, [before, after]: [Duration; 2], system: Timestamp) -> Option<ClockAlarm> {
        let wall_after = self.wall(after);
        if system < self.wall(before) {
            self.compare(before, system)
        } else {
            self.compare(after, system.max(wall_after))
        }
    }

    /// Starts a new line at `monotonic` that approaches `system`. To be called every [`COMPARE_INTERVAL`].
    pub fn compare(&mut self, monotonic: Duration, system: Timestamp) -> Option<ClockAlarm> {
        let wall = self.wall(monotonic);
        (self.base_monotonic, self.base_wall) = (self.base_monotonic.max(monotonic), wall);
        let ahead = system.saturating_since(wall);
        let behind = wall.saturating_since(system);
        if ahead > JUMP_BOUND {
            (self.base_wall, self.rate_ppm, self.behind) = (system, 0, false);
            return Some(ClockAlarm::Forward(ahead));
        }
        let newly_behind = behind > JUMP_BOUND && !self.behind;
        // Half speed lasts until the clocks meet, not only until the difference is back within the bound: the rest
        // would take half an hour at the normal slew. Two comparisons at half speed overshoot by less than this.
        self.behind = behind > JUMP_BOUND || (self.behind && behind > COMPARE_INTERVAL);
        self.rate_ppm = if self.behind { HALF_SPEED_PPM } else { proportional_ppm(ahead, behind) };
        newly_behind.then_some(ClockAlarm::Backward(behind))
    }
}

/// The rate that would remove the difference within a second, within the bound.
fn proportional_ppm(ahead: Duration, behind: Duration) -> i64 {
    let difference_us = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    (difference_us(ahead) - difference_us(behind)).clamp(-SLEW_PPM_MAX, SLEW_PPM_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_000_000);

    /// Drives the arithmetic for `duration` against a system clock that is `offset_us` off, with a comparison every
    /// interval; checks that time never decreases, and returns the remaining difference and the alarms.
    fn drive(clock: &mut SlewedClock, start: Duration, duration: Duration, offset_us: i64) -> (i64, Vec<ClockAlarm>) {
        let mut alarms = Vec::new();
        let mut last = Timestamp::EPOCH;
        let system_at = |monotonic: Duration| {
            let micros = i128::from(START.as_micros())
                + i128::try_from(monotonic.as_micros()).expect("small")
                + i128::from(offset_us);
            Timestamp::from_micros(u64::try_from(micros).expect("after 1970"))
        };
        let mut monotonic = start;
        while monotonic < start + duration {
            for step in 0..10 {
                let wall = clock.wall(monotonic + COMPARE_INTERVAL * step / 10);
                assert!(wall >= last, "wall time went back from {last} to {wall}");
                last = wall;
            }
            monotonic += COMPARE_INTERVAL;
            alarms.extend(clock.compare(monotonic, system_at(monotonic)));
        }
        let difference_us =
            i128::from(clock.wall(monotonic).as_micros()) - i128::from(system_at(monotonic).as_micros());
        (i64::try_from(difference_us).expect("small"), alarms)
    }

    #[test]
    fn small_differences_are_slewed_away_without_an_alarm() {
        for offset_us in [400, -400, 5_000, -5_000] {
            let mut clock = SlewedClock::new(Duration::ZERO, START);
            let (difference_us, alarms) = drive(&mut clock, Duration::ZERO, Duration::from_secs(30), offset_us);
            assert!(difference_us.abs() <= 20, "{difference_us} us are left of {offset_us}");
            assert_eq!(alarms, []);
        }
    }

    #[test]
    fn an_interruption_between_two_readings_is_no_difference() {
        let at = Duration::from_secs;
        let mut clock = SlewedClock::new(Duration::ZERO, START);
        for second in (10..100).step_by(10) {
            // The system's time was read right before the second reading, then right after the first: the clocks agree.
            let read_at = if second % 20 == 0 { at(second) } else { at(second + 5) };
            let alarm = clock.compare_between([at(second), at(second + 5)], START.saturating_add(read_at));
            assert_eq!(alarm, None);
            assert_eq!(clock.wall(at(second + 9)), START.saturating_add(at(second + 9)));
        }
        let alarm = clock.compare_between([at(100), at(105)], START.saturating_add(at(165)));
        assert_eq!(alarm, Some(ClockAlarm::Forward(at(60))), "this much is certain");
        let alarm = clock.compare_between([at(110), at(115)], START.saturating_add(at(150)));
        assert_eq!(alarm, Some(ClockAlarm::Backward(at(20))));
    }

    #[test]
    fn slewing_never_exceeds_its_bound() {
        let mut clock = SlewedClock::new(Duration::ZERO, START);
        let (difference_us, alarms) = drive(&mut clock, Duration::ZERO, Duration::from_secs(100), 900_000);
        assert!((-851_000..=-849_000).contains(&difference_us), "500 us a second, not {difference_us} left");
        assert_eq!(alarms, []);
    }

    #[test]
    fn a_forward_jump_is_followed_at_once_with_one_alarm() {
        let mut clock = SlewedClock::new(Duration::ZERO, START);
        let (difference_us, alarms) = drive(&mut clock, Duration::ZERO, Duration::from_secs(2), 3_600_000_000);
        assert_eq!(difference_us, 0);
        assert_eq!(alarms, [ClockAlarm::Forward(Duration::from_secs(3600))]);
    }

    #[test]
    fn a_backward_step_is_met_at_half_speed_with_one_alarm_and_never_decreases() {
        let mut clock = SlewedClock::new(Duration::ZERO, START);
        let (difference_us, alarms) = drive(&mut clock, Duration::ZERO, Duration::from_secs(10), -20_000_000);
        assert!((14_900_000..=15_100_000).contains(&difference_us), "half speed, not {difference_us} us");
        assert_eq!(alarms, [ClockAlarm::Backward(Duration::from_secs(20))]);
        let (difference_us, alarms) = drive(&mut clock, Duration::from_secs(10), Duration::from_secs(400), -20_000_000);
        assert!(difference_us.abs() < 1_000, "{difference_us} us are left");
        assert_eq!(alarms, []);
    }

    #[test]
    fn the_clock_does_not_start_before_its_floor_and_says_so() {
        let floor = system_time().saturating_add(Duration::from_secs(3600));
        let mut clock = Clock::new(floor);
        assert!(clock.now().now.wall >= floor);
        assert!(matches!(clock.take_alarm(), Some(ClockAlarm::Backward(_))));
        assert_eq!(clock.take_alarm(), None);
    }

    #[test]
    fn readings_follow_the_system_and_never_decrease() {
        let mut clock = Clock::new(Timestamp::EPOCH);
        let mut last = clock.now();
        let before = system_time();
        for _ in 0..100_000 {
            let reading = clock.now();
            assert!(reading.now.wall >= last.now.wall && reading.now.monotonic >= last.now.monotonic);
            last = reading;
        }
        assert!(last.now.wall.saturating_since(before) < JUMP_BOUND);
        assert!(before.saturating_since(last.now.wall) < JUMP_BOUND);
        assert_eq!(clock.take_alarm(), None, "starting is no jump");
    }
}
