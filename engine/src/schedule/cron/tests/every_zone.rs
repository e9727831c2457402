//! What the policies promise, at every change of the clock from 1970 to 2100 in every zone of the bundled database.
//!
//! jiff says how often a clock shows a local time, and when. Zones with the same changes are looked at once.

use super::slow_search::Fields;
use super::*;
use crate::schedule::civil::SECONDS_PER_DAY;
use jiff::{
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use std::collections::{BTreeMap, BTreeSet};

/// 2100-01-01T00:00:00Z.
const END_S: i64 = 4_102_444_800;
const GAPS: [GapPolicy; 2] = [GapPolicy::Skip, GapPolicy::FireAfter];
const OVERLAPS: [OverlapPolicy; 3] = [OverlapPolicy::First, OverlapPolicy::Second, OverlapPolicy::Both];

/// A change of a zone's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    at_s: i64,
    before_s: i64,
    after_s: i64,
}

impl Change {
    /// The local times that are left out or shown twice, from the first to the one behind the last.
    fn local_s(self) -> (i64, i64) {
        (self.at_s + self.before_s.min(self.after_s), self.at_s + self.before_s.max(self.after_s))
    }

    /// The policies that make a difference there, each with one of those that make none.
    fn policies(self) -> Vec<(GapPolicy, OverlapPolicy)> {
        let other = usize::try_from(self.at_s / 60).expect("after the epoch");
        match self.before_s < self.after_s {
            true => GAPS.map(|gap| (gap, OVERLAPS[other % 3])).to_vec(),
            false => OVERLAPS.map(|overlap| (GAPS[other % 2], overlap)).to_vec(),
        }
    }
}

/// One zone of each list of changes, with that list.
fn zones() -> Vec<(Zone, TimeZone, Vec<Change>)> {
    let (mut zones, mut by_changes) = (Zones::new(), BTreeMap::new());
    for name in TimeZoneDatabase::bundled().available().filter(|name| name.as_str() != "Etc/Unknown") {
        let zone = zones.get(name.as_str()).expect("available");
        let mut period = zone.period_at(0);
        let offset_s = period.offset_s;
        let mut changes = Vec::new();
        while period.end_s < END_S {
            changes.push(Change { at_s: period.end_s, before_s: period.offset_s, after_s: period.next_offset_s });
            period = zone.period_at(period.end_s);
        }
        by_changes.entry((offset_s, changes)).or_insert(zone);
    }
    by_changes.into_iter().map(|((_, changes), zone)| (zone.clone(), jiff_zone(zone.name()), changes)).collect()
}

fn local(local_s: i64) -> DateTime {
    let second = jiff::Timestamp::from_second(local_s).expect("in range");
    TimeZone::UTC.to_datetime(second)
}

/// The instants at which the clock shows `local`.
///
/// Where a zone ends summer time and takes its offset for good (`America/Nuuk` on 2023-10-29), jiff's answer names a second
/// instant that has another offset by jiff's own account; such are left out.
fn shown_s(zone: &TimeZone, local: DateTime) -> Vec<i64> {
    let offsets = match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Gap { .. } => vec![],
        AmbiguousOffset::Unambiguous { offset } => vec![offset],
        AmbiguousOffset::Fold { before, after } => vec![before, after],
    };
    let instants = offsets.into_iter().map(|offset| (offset.to_timestamp(local).expect("in range"), offset));
    instants.filter(|(at, offset)| zone.to_offset(*at) == *offset).map(|(at, _)| at.as_second()).collect()
}

/// When `local` fires; in a gap, `change_s` is its end.
fn expected_s(zone: &TimeZone, local: DateTime, change_s: i64, (gap, overlap): (GapPolicy, OverlapPolicy)) -> Vec<i64> {
    let shown_s = shown_s(zone, local);
    match (&shown_s[..], gap, overlap) {
        ([], GapPolicy::FireAfter, _) => vec![change_s],
        ([first_s, _], _, OverlapPolicy::First) => vec![*first_s],
        ([_, second_s], _, OverlapPolicy::Second) => vec![*second_s],
        _ => shown_s,
    }
}

/// The fires after `from_s` and before `end_s`.
fn fires_s(cron: &Cron, from_s: i64, end_s: i64) -> impl Iterator<Item = i64> {
    let next_s = move |after_s: i64| {
        let after = Timestamp::from_secs(after_s.try_into().expect("after the epoch"));
        cron.next_after(after).map(|fire| i64::try_from(fire.as_micros() / 1_000_000).expect("in range"))
    };
    std::iter::successors(next_s(from_s), move |last_s| next_s(*last_s)).take_while(move |fire_s| *fire_s < end_s)
}

/// Six fields for one second of every year.
fn yearly(local: DateTime) -> String {
    let (hour, minute, second) = (local.hour(), local.minute(), local.second());
    format!("{second} {minute} {hour} {} {} *", local.day(), local.month())
}

#[test]
fn one_local_time_fires_as_often_as_the_policies_say_at_every_change() {
    let (mut gap_count, mut overlap_count) = (0, 0);
    for (zone, jiff_zone, changes) in zones() {
        for change in changes {
            let (first_s, end_s) = change.local_s();
            for local_s in [first_s - 1, first_s, first_s.midpoint(end_s), end_s - 1, end_s] {
                let local = local(local_s);
                let cron = Cron::new(&yearly(local), zone.clone()).expect("valid");
                for (gap, overlap) in change.policies() {
                    let cron = Cron { gap, overlap, ..cron.clone() };
                    let found: Vec<_> =
                        fires_s(&cron, change.at_s - 3 * SECONDS_PER_DAY, change.at_s + 3 * SECONDS_PER_DAY).collect();
                    let expected = expected_s(&jiff_zone, local, change.at_s, (gap, overlap));
                    assert_eq!(found, expected, "{local} in {zone:?}, {gap:?}, {overlap:?}, {change:?}");
                }
            }
            *if change.before_s < change.after_s { &mut gap_count } else { &mut overlap_count } += 1;
        }
    }
    assert!(gap_count > 10_000 && overlap_count > 10_000, "{gap_count} gaps, {overlap_count} overlaps");
}

#[test]
fn a_daily_time_fires_as_often_as_the_policies_say_from_1970_to_2100_in_every_zone() {
    let mut index = 0;
    for (zone, jiff_zone, changes) in zones() {
        index += 1;
        // A time that the zone's last change but one, or its last, leaves out or shows twice.
        let change = changes.iter().rev().nth(index % 2).or(changes.last());
        let (first_s, end_s) = change.map_or((0, 3_600), |change| change.local_s());
        let time_s = first_s.midpoint(end_s).rem_euclid(SECONDS_PER_DAY);
        let (gap, overlap) = (GAPS[index / 2 % 2], OVERLAPS[index / 4 % 3]);
        let (hour, minute, second) = (time_s / 3_600, time_s / 60 % 60, time_s % 60);
        let cron = Cron::new(&format!("{second} {minute} {hour} * * *"), zone.clone()).expect("valid");
        let cron = Cron { gap, overlap, ..cron };

        // From the first local time behind the start, wherever the zone lies, to the last of the years.
        let (start_s, end_s) = (2 * SECONDS_PER_DAY, END_S - 2 * SECONDS_PER_DAY);
        let mut later = changes.iter().map(|change| (change.at_s, change.local_s())).peekable();
        let (mut past_s, mut last_s) = (i64::MIN / 2, i64::MIN / 2);
        let expected = (1..END_S / SECONDS_PER_DAY).flat_map(|day| {
            let local_s = day * SECONDS_PER_DAY + time_s;
            while let Some((_, (_, end_s))) = later.next_if(|(_, (_, end_s))| *end_s <= local_s) {
                past_s = end_s;
            }
            let (change_s, (coming_s, _)) = later.peek().copied().unwrap_or((0, (i64::MAX / 2, 0)));
            // Far from any change a day is a day later.
            let is_far = (past_s + 4 * SECONDS_PER_DAY..coming_s - 4 * SECONDS_PER_DAY).contains(&local_s) && day > 1;
            let fires_s = match is_far {
                true => vec![last_s + SECONDS_PER_DAY],
                false => expected_s(&jiff_zone, local(local_s), change_s, (gap, overlap)),
            };
            last_s = *fires_s.last().unwrap_or(&last_s);
            fires_s
        });
        let expected = expected.filter(|fire_s| (start_s + 1..end_s).contains(fire_s));
        let found: Vec<_> = fires_s(&cron, start_s, end_s).collect();
        let expected: Vec<_> = expected.collect();
        let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        let case = format!("{hour}:{minute}:{second} in {zone:?}, {gap:?}, {overlap:?}");
        assert_eq!((differs, found.len()), (None, expected.len()), "{case}");
    }
}

/// What is left out or shown twice depends on the time of day and the length; one change of each kind is enough.
#[test]
fn general_schedules_agree_with_the_slow_search_at_every_kind_of_change() {
    let mut kinds = BTreeMap::new();
    for (zone, jiff_zone, changes) in zones() {
        for change in changes {
            // The slow search tries whole minutes, and so does not see the end of a gap between two.
            if change.local_s().1 % 60 != 0 {
                continue;
            }
            let kind = (change.local_s().0.rem_euclid(SECONDS_PER_DAY), change.after_s - change.before_s);
            kinds.entry(kind).or_insert_with(|| (zone.clone(), jiff_zone.clone(), change));
        }
    }
    assert!(kinds.len() > 50, "{}", kinds.len());
    for (zone, jiff_zone, change) in kinds.into_values() {
        for expression in ["* * * * *", "*/20 0-3,23 * * *", "15,45 0-23 * * *", "0 */2 * * *", "59 1,23 * * 0-6/2"] {
            let cron = Cron::new(expression, zone.clone()).expect("valid");
            for (gap, overlap) in change.policies() {
                let cron = Cron { gap, overlap, ..cron.clone() };
                let (from_s, to_s) = (change.at_s - 90_000, change.at_s + 90_000);
                let found: BTreeSet<_> = fires_s(&cron, from_s, to_s + 1).collect();
                let [from, to] = [from_s, to_s].map(|at_s| jiff::Timestamp::from_second(at_s).expect("in range"));
                let options = CronOptions { gap: Some(gap), overlap: Some(overlap), ..CronOptions::default() };
                let expected = Fields::of(expression).fires_s(&jiff_zone, from, to, &options);
                let differing: Vec<_> = found.symmetric_difference(&expected).collect();
                let case = format!("`{expression}` in {zone:?}, {gap:?}, {overlap:?}, {change:?}");
                assert!(differing.is_empty(), "{case}: {} fires differ, the first {:?}", differing.len(), differing[0]);
            }
        }
    }
}
