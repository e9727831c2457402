//! The wheel against a sorted map, and its bounds.

use super::{Armed, LEVELS, MOVES_PER_CALL, SHIFTS, TICK_MICROS, Wheel};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tickwheel_wire::{Timestamp, mix64};

/// An arbitrary moment of 2025 that is not the start of any window.
const START_MICROS: u64 = 1_757_000_123_456_789;

fn at_micros(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// The wheel, and what it must hold: a sorted map from (due micros rounded up to a tick, copy) to its key and value.
struct Checked {
    wheel: Wheel,
    now_micros: u64,
    entries: BTreeMap<(u64, u64), (u64, Armed)>,
    /// The value of each live key.
    live: BTreeMap<u64, Armed>,
    inserted: u64,
    work_since_purge: usize,
}

impl Checked {
    fn new(moves_per_call: usize) -> Self {
        Self {
            wheel: Wheel { moves_per_call, ..Wheel::new(at_micros(START_MICROS)) },
            now_micros: START_MICROS,
            entries: BTreeMap::new(),
            live: BTreeMap::new(),
            inserted: 0,
            work_since_purge: 0,
        }
    }

    fn dead_count(&self) -> usize {
        self.entries.len() - self.live.len()
    }

    /// Arms `key`, giving up its earlier deadline.
    fn arm(&mut self, at_micros_exact: u64, key: u64) {
        let armed = self.wheel.insert(at_micros(at_micros_exact), key);
        let due = at_micros_exact.max(self.now_micros / TICK_MICROS * TICK_MICROS).next_multiple_of(TICK_MICROS);
        self.entries.insert((due, self.inserted), (key, armed));
        self.inserted += 1;
        if self.live.insert(key, armed).is_some() {
            self.wheel.cancel();
        }
        self.work_since_purge += 2;
    }

    fn disarm(&mut self, key: u64) {
        if self.live.remove(&key).is_some() {
            self.wheel.cancel();
            self.work_since_purge += 1;
        }
    }

    /// One call; returns whether there is more.
    fn expire(&mut self, limit: usize) -> bool {
        let mut delivered = Vec::new();
        let moved_before = self.wheel.moved_count();
        let more = self.wheel.expire(at_micros(self.now_micros), limit, &mut |key, armed| delivered.push((key, armed)));
        assert!(delivered.len() <= limit, "deliveries are bounded");
        let moved = self.wheel.moved_count() - moved_before;
        assert!(moved <= (2 * limit + self.wheel.moves_per_call) as u64, "moves are bounded, not {moved}");
        self.work_since_purge += delivered.len();
        for (key, armed) in delivered {
            self.take_first_due(key, armed);
            if self.live.get(&key) == Some(&armed) {
                self.live.remove(&key);
            } else {
                self.wheel.discard();
            }
        }
        if !more {
            let first_due = self.entries.keys().next().map(|&(due, _)| due);
            assert!(first_due.is_none_or(|due| due > self.now_micros), "due at {first_due:?}, now {}", self.now_micros);
        }
        more
    }

    /// Takes the delivered entry out of the model: it must be among the entries of the earliest tick, and due.
    fn take_first_due(&mut self, key: u64, armed: Armed) {
        let (&(first_due, _), _) = self.entries.first_key_value().expect("what is delivered was inserted");
        assert!(first_due <= self.now_micros, "delivered early: due {first_due}, now {}", self.now_micros);
        let place = self
            .entries
            .range((first_due, 0)..=(first_due, u64::MAX))
            .find(|(_, entry)| **entry == (key, armed))
            .map(|(&place, _)| place)
            .unwrap_or_else(|| panic!("key {key} delivered out of order, twice, or never inserted"));
        self.entries.remove(&place);
    }

    fn expire_all(&mut self, limit: usize) {
        let rounds_max = 10 + self.entries.len() * (LEVELS + 1);
        let rounds = (0..rounds_max).take_while(|_| self.expire(limit)).count();
        assert!(rounds < rounds_max, "expiring ends");
    }

    fn purge(&mut self, limit: usize) -> bool {
        let live = &self.live;
        let mut refused = BTreeSet::new();
        let unfinished = self.wheel.purge(limit, |key, armed| {
            let is_live = live.get(&key) == Some(&armed);
            if !is_live {
                refused.insert((key, armed.0));
            }
            is_live
        });
        self.work_since_purge = 0;
        self.forget_purged(&refused);
        unfinished
    }

    /// The model cannot see which copies went, so it drops dead entries of refused (key, value) pairs and copies of live
    /// ones down to the wheel's length; what the wheel delivers later proves the choice.
    fn forget_purged(&mut self, refused: &BTreeSet<(u64, u32)>) {
        let surplus = self.entries.len() - self.wheel.len();
        let mut seen = BTreeSet::new();
        let candidates: Vec<_> = self
            .entries
            .iter()
            .filter(|&(&(due, _), &(key, armed))| refused.contains(&(key, armed.0)) || !seen.insert((due, key)))
            .map(|(&place, _)| place)
            .collect();
        assert!(candidates.len() >= surplus, "the purge lost a live entry");
        for place in candidates.into_iter().take(surplus) {
            self.entries.remove(&place);
        }
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.entries.len());
        assert_eq!(self.wheel.dead_count(), self.dead_count());
        let deadline = self.wheel.next_deadline().map(Timestamp::as_micros);
        match self.entries.keys().next() {
            None => assert_eq!(deadline, None),
            Some(&(due, _)) => assert!(deadline.expect("entries wait") <= due, "deadline {deadline:?} after {due}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arm { at_micros: u64, key: u64 },
    Disarm { key: u64 },
    Advance { by_micros: u64, limit: usize },
    ExpireOnce { limit: usize },
    SleepUntilDeadline,
}

/// Distances of every magnitude: within a tick, around the window of each level, and years.
fn distance_micros() -> impl Strategy<Value = u64> {
    let level = (0..=LEVELS, 0_u64..4, 0..3 * TICK_MICROS)
        .prop_map(|(level, windows, more)| (windows << SHIFTS[level]) * TICK_MICROS + more);
    let magnitude = (0_u32..52, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1));
    prop_oneof![2 => 0..5 * TICK_MICROS, 3 => level, 3 => magnitude]
}

fn step() -> impl Strategy<Value = (Step, bool)> {
    let limit = prop_oneof![Just(1_usize), 1..8_usize, Just(1000)];
    let arm = (distance_micros(), any::<bool>(), 0_u64..200).prop_map(|(distance, past, key)| {
        let at_micros = if past && distance < 1_000_000 { distance } else { START_MICROS + distance };
        Step::Arm { at_micros, key }
    });
    let step = prop_oneof![
        12 => arm,
        4 => (0_u64..200).prop_map(|key| Step::Disarm { key }),
        3 => (distance_micros(), limit.clone()).prop_map(|(by_micros, limit)| Step::Advance { by_micros, limit }),
        2 => limit.prop_map(|limit| Step::ExpireOnce { limit }),
        3 => Just(Step::SleepUntilDeadline),
    ];
    (step, any::<bool>())
}

fn run(checked: &mut Checked, step: Step) {
    match step {
        // Relative to the present, but for what is past by decades.
        Step::Arm { at_micros, key } if at_micros >= START_MICROS => {
            checked.arm(at_micros - START_MICROS + checked.now_micros, key);
        }
        Step::Arm { at_micros, key } => checked.arm(at_micros, key),
        Step::Disarm { key } => checked.disarm(key),
        Step::Advance { by_micros, limit } => {
            checked.now_micros += by_micros;
            checked.expire_all(limit);
        }
        Step::ExpireOnce { limit } => {
            checked.expire(limit);
        }
        Step::SleepUntilDeadline => {
            if let Some(deadline) = checked.wheel.next_deadline() {
                checked.now_micros = checked.now_micros.max(deadline.as_micros());
                checked.expire(4);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_is_delivered_once_in_order_and_never_early(
        moves_per_call in prop_oneof![1_usize..4, Just(MOVES_PER_CALL)],
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 40 } else { 150 }),
    ) {
        let mut checked = Checked::new(moves_per_call);
        for (step, purge) in steps {
            run(&mut checked, step);
            checked.check();
            if purge {
                checked.purge(8 * checked.work_since_purge);
                checked.check();
            }
        }
        // Past everything that was armed.
        checked.now_micros += 1 << 60;
        checked.expire_all(50);
        prop_assert!(checked.wheel.is_empty() && checked.wheel.dead_count() == 0);
    }
}

#[test]
fn dead_entries_never_outnumber_live_ones_when_the_owner_purges() {
    let mut checked = Checked::new(MOVES_PER_CALL);
    let keys = 2_000;
    let mut dead_max = 0;
    for round in 0..if cfg!(miri) { 500 } else { 200_000_u64 } {
        let random = mix64(round);
        // Deadlines from a millisecond to ten years away.
        let distance = mix64(random) & ((1 << (10 + random % 39)) - 1);
        checked.arm(checked.now_micros + distance, random >> 32 & (keys - 1));
        if round % 7 == 0 {
            checked.now_micros += random % 5_000;
            checked.expire_all(16);
        }
        if round % 50 == 0 {
            checked.purge(8 * checked.work_since_purge);
            assert!(checked.dead_count() <= checked.live.len().max(64), "{} dead", checked.dead_count());
            dead_max = dead_max.max(checked.dead_count());
        }
    }
    assert!(dead_max > if cfg!(miri) { 10 } else { 100 }, "the keys are re-armed often enough to prove something");
    checked.check();
}

#[test]
fn arming_and_cancelling_one_deadline_for_ever_stays_small() {
    let mut wheel = Wheel::new(at_micros(START_MICROS));
    let soon_and_beyond = [at_micros(START_MICROS + 3_600_000_000), at_micros(START_MICROS * 2)];
    for at in soon_and_beyond {
        let armed = wheel.insert(at, 7);
        for _ in 0..if cfg!(miri) { 200 } else { 10_000 } {
            wheel.cancel();
            assert_eq!(wheel.insert(at, 7), armed, "the same deadline has the same value");
            wheel.purge(16, |_, value| value == armed);
            assert!(wheel.len() < 1_000, "{} copies", wheel.len());
        }
        while !wheel.is_empty() {
            let now = wheel.next_deadline().expect("it is not empty").max(at);
            let mut delivered = 0;
            wheel.expire(now, 1_000, &mut |_, _| delivered += 1);
            (1..delivered).for_each(|_| wheel.discard());
        }
        assert_eq!(wheel.dead_count(), 0);
    }
}

/// Steps through all deadlines as an owner that sleeps in between would; calls `visit` with (now, delivered keys, more).
fn sleep_through(wheel: &mut Wheel, limit: usize, mut visit: impl FnMut(Timestamp, &[u64], bool)) {
    let mut moved = wheel.moved_count();
    let mut keys = Vec::new();
    while let Some(now) = wheel.next_deadline() {
        keys.clear();
        let more = wheel.expire(now, limit, &mut |key, _| keys.push(key));
        let moved_before = std::mem::replace(&mut moved, wheel.moved_count());
        assert!(moved - moved_before <= (2 * limit + MOVES_PER_CALL) as u64, "moves are bounded");
        visit(now, &keys, more);
    }
}

#[test]
fn large_slots_are_cascaded_in_slices_before_they_are_due() {
    // One slot of each level above the lowest, 100,000 entries on distinct ticks of each.
    for level in 1..LEVELS {
        let mut wheel = Wheel::new(at_micros(START_MICROS));
        let slot = wheel.rings[level].number(START_MICROS / TICK_MICROS) + 5;
        let start = wheel.rings[level].start(slot);
        let spread = wheel.rings[level].start(1).min(1 << 22);
        let count = if cfg!(miri) { 60 } else { 100_000 };
        let mut ticks: Vec<u64> = (0..count).map(|number| start + mix64(number) % spread).collect();
        for &tick in &ticks {
            wheel.insert(at_micros(tick * TICK_MICROS), tick);
        }
        assert_eq!(wheel.rings[level].count(slot), ticks.len());
        ticks.sort_unstable();
        let mut due = ticks.into_iter();
        sleep_through(&mut wheel, 500, |now, keys, more| {
            assert!(!more, "nothing due waits for a cascade");
            for &key in keys {
                assert_eq!(Some(key), due.next());
                assert_eq!(key, now.as_micros() / TICK_MICROS, "delivered at its tick");
            }
        });
        assert_eq!(due.next(), None);
    }
}

#[test]
fn a_jump_over_years_is_caught_up_in_bounded_calls() {
    let mut wheel = Wheel::new(at_micros(START_MICROS));
    let total = if cfg!(miri) { 200 } else { 200_000_u64 };
    for key in 0..total {
        let distance = mix64(key) & ((1 << (6 + key % 43)) - 1);
        wheel.insert(at_micros(START_MICROS + distance), key);
    }
    let now = at_micros(START_MICROS + (1 << 50));
    let (mut delivered, mut calls, mut moved) = (0, 0, 0);
    let mut more = true;
    while more {
        let before = delivered;
        more = wheel.expire(now, 100, &mut |_, _| delivered += 1);
        assert!(delivered - before <= 100);
        let moved_before = std::mem::replace(&mut moved, wheel.moved_count());
        assert!(moved - moved_before <= (200 + MOVES_PER_CALL) as u64);
        calls += 1;
    }
    assert_eq!(delivered, total);
    assert!(calls >= total / 100 && calls < total / 100 + 10_000, "{calls} calls");
}

#[test]
fn a_lone_deadline_wakes_the_owner_at_most_once_per_level() {
    for distance_micros in [1_000, 1_000_000, 3_600_000_000, 86_400_000_000 * 200, 86_400_000_000 * 4_000] {
        let mut wheel = Wheel::new(at_micros(START_MICROS));
        wheel.insert(at_micros(START_MICROS + distance_micros), 1);
        let mut calls = 0;
        sleep_through(&mut wheel, 1, |_, _, _| calls += 1);
        assert!(calls <= LEVELS + 1, "{calls} calls for {distance_micros} us");
    }
}

#[test]
fn every_timestamp_but_never_is_accepted() {
    let mut wheel = Wheel::new(Timestamp::EPOCH);
    let last_micros = u64::MAX - (TICK_MICROS - 1);
    wheel.insert(Timestamp::EPOCH, 1);
    wheel.insert(at_micros(last_micros), 2);
    wheel.insert(at_micros(u64::MAX - 1), 3);
    let mut keys = Vec::new();
    while wheel.expire(at_micros(last_micros), 10, &mut |key, _| keys.push(key)) {}
    assert_eq!(keys, [1, 2], "the last tick never comes");
    assert_eq!(wheel.next_deadline(), Some(at_micros(last_micros)));
}

#[test]
#[should_panic(expected = "never comes due")]
fn never_is_refused() {
    Wheel::new(Timestamp::EPOCH).insert(Timestamp::MAX, 1);
}

#[test]
fn no_entry_has_the_value_of_no_deadline() {
    let mut wheel = Wheel::new(Timestamp::EPOCH);
    for tick in [u64::from(u32::MAX), u64::from(u32::MAX) << 8 | 0xFF] {
        assert_ne!(wheel.insert(at_micros(tick * TICK_MICROS), 1), Armed::NONE);
    }
    wheel.expire(at_micros(u64::MAX >> 2), 10, &mut |_, armed| assert_ne!(armed, Armed::NONE));
}

#[test]
#[cfg_attr(miri, ignore = "measures memory")]
fn a_resident_timer_costs_less_than_16_bytes() {
    let total = 4_000_000_u64;
    // Spread over a minute, an hour, a month.
    for spread_micros in [60_000_000, 3_600_000_000, 30 * 86_400_000_000] {
        let mut wheel = Wheel::new(at_micros(START_MICROS));
        for key in 0..total {
            wheel.insert(at_micros(START_MICROS + mix64(key) % spread_micros), key);
        }
        let bytes_per_timer = wheel.memory_bytes() as f64 / total as f64;
        assert!(bytes_per_timer < 16.0, "{bytes_per_timer} B over {spread_micros} us");
    }
}
