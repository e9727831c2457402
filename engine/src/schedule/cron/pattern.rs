//! Which local minutes a cron expression means, as one bit mask per field, and the search for the next one.
//!
//! Pure calendar: local minutes count from 1970-01-01T00:00 on the wall clock, and no zone is known here. A search
//! looks at one day, then at whole months: [`Pattern::days_in_month`] gives all matching days of a month at once, so
//! that the only loop runs over months (within a year by bit scan) and ends after at most 40 years, the longest wait of
//! any pattern that fires at all (29 February on a given weekday, across 2100).
//!
//! Source: the matching rules are those of crontab(5).

use crate::schedule::civil::{Date, MINUTES_PER_DAY, date_of, day_number_of, month_length_days, weekday_of};

/// Last year that is searched, the last one that jiff can show.
const YEAR_MAX: i64 = 9_999;

/// How the two day fields combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DayRule {
    /// A day must match both: one of the fields begins with `*`.
    Both,
    /// A day may match either: both fields are restricted.
    Either,
}

/// The compiled fields. Bit `n` of a mask stands for the value `n`; no mask is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    /// Bits 0 to 59.
    pub minutes: u64,
    /// Bits 0 to 23.
    pub hours: u32,
    /// Bits 1 to 31.
    pub days: u32,
    /// Bits 1 to 12.
    pub months: u16,
    /// Bits 0 (Sunday) to 6.
    pub weekdays: u8,
    /// How `days` and `weekdays` combine.
    pub day_rule: DayRule,
    /// Whether the hour field begins with `*`; decides what happens when the clock is turned back.
    pub every_hour: bool,
}

impl Pattern {
    /// Whether any date matches. Every date falls on every weekday in some year, so that only days and months count.
    pub const fn can_fire(&self) -> bool {
        if matches!(self.day_rule, DayRule::Either) {
            return true;
        }
        let mut month = 1;
        while month <= 12 {
            // 2000 is a leap year.
            if self.months >> month & 1 == 1 && self.days & day_bits(month_length_days(2000, month)) != 0 {
                return true;
            }
            month += 1;
        }
        false
    }

    /// The first matching local minute at or after `from_minute`; `None` beyond [`YEAR_MAX`].
    pub fn first_from(&self, from_minute: i64) -> Option<i64> {
        let day_number = from_minute.div_euclid(MINUTES_PER_DAY);
        let date = date_of(day_number);
        if self.matches_day(day_number, date)
            && let Some(minute) = self.first_of_day_from(from_minute.rem_euclid(MINUTES_PER_DAY))
        {
            return Some(day_number * MINUTES_PER_DAY + minute);
        }
        let next_day = self.first_day_after(date)?;
        Some(next_day * MINUTES_PER_DAY + self.first_of_day())
    }

    const fn matches_day(&self, day_number: i64, date: Date) -> bool {
        let by_date = self.days >> date.day & 1 == 1;
        let by_weekday = self.weekdays >> weekday_of(day_number) & 1 == 1;
        let by_day = match self.day_rule {
            DayRule::Both => by_date && by_weekday,
            DayRule::Either => by_date || by_weekday,
        };
        by_day && self.months >> date.month & 1 == 1
    }

    /// The first matching minute of a day, counted from midnight.
    fn first_of_day(&self) -> i64 {
        i64::from(self.hours.trailing_zeros() * 60 + self.minutes.trailing_zeros())
    }

    /// The first matching minute at or after minute `from` of a day.
    fn first_of_day_from(&self, from: i64) -> Option<i64> {
        let (hour, minute) = (from / 60, from % 60);
        let minutes_left = self.minutes >> minute;
        if self.hours >> hour & 1 == 1 && minutes_left != 0 {
            return Some(from + i64::from(minutes_left.trailing_zeros()));
        }
        let later_hours = self.hours >> (hour + 1);
        if later_hours == 0 {
            return None;
        }
        let next_hour = hour + 1 + i64::from(later_hours.trailing_zeros());
        Some(next_hour * 60 + i64::from(self.minutes.trailing_zeros()))
    }

    /// The number of the first matching day after `date`.
    fn first_day_after(&self, date: Date) -> Option<i64> {
        let mut year = date.year;
        let mut month = date.month;
        // Two shifts, because after day 31 one would be as wide as the mask.
        let mut days_left = u32::MAX << date.day << 1;
        while year <= YEAR_MAX {
            if self.months >> month & 1 == 1 {
                let days = self.days_in_month(year, month) & days_left;
                if days != 0 {
                    return Some(day_number_of(year, month, days.trailing_zeros()));
                }
            }
            days_left = u32::MAX;
            let later_months = self.months >> (month + 1);
            if later_months == 0 {
                year += 1;
                month = self.months.trailing_zeros();
            } else {
                month += 1 + later_months.trailing_zeros();
            }
        }
        None
    }

    /// The matching days of a month, bits 1 to 31.
    #[expect(clippy::cast_possible_truncation, reason = "masked to 31 days")]
    fn days_in_month(&self, year: i64, month: u32) -> u32 {
        // The weekday mask, turned so that bit 0 is the weekday of the 1st, then repeated for five weeks.
        let first_weekday = weekday_of(day_number_of(year, month, 1));
        let two_weeks = u64::from(self.weekdays) | u64::from(self.weekdays) << 7;
        let week = two_weeks >> first_weekday & 0x7F;
        let by_weekday = (week | week << 7 | week << 14 | week << 21 | week << 28) << 1;
        let matching = match self.day_rule {
            DayRule::Both => self.days & by_weekday as u32,
            DayRule::Either => self.days | by_weekday as u32,
        };
        matching & day_bits(month_length_days(year, month))
    }
}

/// Bits 1 to `length_days`.
#[expect(clippy::cast_possible_truncation, reason = "months have at most 31 days")]
const fn day_bits(length_days: u32) -> u32 {
    ((1u64 << (length_days + 1)) - 2) as u32
}
