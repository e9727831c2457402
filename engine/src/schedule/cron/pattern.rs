//! Which local seconds a cron expression means, as one bit mask per field, and the search for the next one.
//!
//! Pure calendar: local seconds count from 1970-01-01T00:00:00 on the wall clock, and no zone is known here. A search
//! looks at whole months: [`Pattern::days_in`] gives all matching days of a month at once, so that the only loop runs over
//! months, within a year and over the years of a year field by bit scan. Without a year field the longest wait of any
//! pattern that fires at all is 40 years (29 February on a given weekday, across 2100).
//!
//! What few expressions use (`L`, `W`, `#`, years) lies behind a pointer, so that the others do not pay for it.
//!
//! Source: the matching rules are those of crontab(5); those of `L`, `W` and `#` are Quartz's.

use crate::schedule::civil::{Date, SECONDS_PER_DAY, date_of, day_number_of, month_length_days, weekday_of};

/// Last year that is searched, the last one that jiff can show.
const YEAR_MAX: i64 = 9_999;
/// After so many years days, months and weekdays repeat.
const CALENDAR_CYCLE_YEARS: i64 = 400;
/// The first year of a year field.
pub(super) const FIRST_YEAR: u16 = 1_970;

/// How the two day fields combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DaysFrom {
    /// A day must match both: one of the fields begins with `*` or is `?`, or the job says so.
    Both,
    /// A day may match either: both fields are restricted.
    Either,
}

/// The compiled fields. Bit `n` of a mask stands for the value `n`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    /// Bits 0 to 59, never empty.
    pub seconds: u64,
    /// Bits 0 to 59, never empty.
    pub minutes: u64,
    /// Bits 0 to 23, never empty.
    pub hours: u32,
    /// Bits 1 to 31.
    pub days: u32,
    /// Bits 1 to 12, never empty.
    pub months: u16,
    /// Bits 0 (Sunday) to 6.
    pub weekdays: u8,
    /// How the days of the month and the days of the week combine.
    pub days_from: DaysFrom,
    /// What few patterns have.
    pub rare: Option<Box<Rare>>,
}

/// Days that depend on the month's length or its first weekday, and years.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rare {
    /// `L` and `L-n`: bit `n` for `n` days before the last one.
    pub before_last: u32,
    /// `nW`: bit `n` for the weekday (Monday to Friday) nearest to day `n`, within the month.
    pub nearest_to: u32,
    /// `LW`: the last weekday (Monday to Friday).
    pub last_workday: bool,
    /// `w#k`: bit `w` of mask `k - 1`.
    pub nth_weekdays: [u8; 5],
    /// `wL`: bit `w` for the last such day.
    pub last_weekdays: u8,
    /// Bit `n` for the year 1970 + `n`; all years if there is no year field.
    pub years: Option<[u64; 4]>,
}

/// A month, and where it begins.
#[derive(Clone, Copy)]
struct MonthStart {
    year: i64,
    /// 1 to 12.
    month: u32,
    /// Of its 1st.
    day_number: i64,
}

impl MonthStart {
    const fn of(year: i64, month: u32) -> Self {
        Self { year, month, day_number: day_number_of(year, month, 1) }
    }

    /// The next month of the same year.
    const fn following(self) -> Self {
        let day_number = self.day_number + month_length_days(self.year, self.month) as i64;
        Self { month: self.month + 1, day_number, ..self }
    }

    /// The number of the first of `days`.
    const fn day(self, days: u32) -> i64 {
        self.day_number + days.trailing_zeros() as i64 - 1
    }
}

/// A month as its days lie in the week.
#[derive(Clone, Copy)]
struct Month {
    /// The weekday of the 1st.
    first_weekday: u32,
    length_days: u32,
}

impl Month {
    const fn weekday_of(self, day: u32) -> u32 {
        (self.first_weekday + day - 1) % 7
    }

    /// The bits of all days that fall on one of `weekdays`; beyond the month's end too.
    #[expect(clippy::cast_possible_truncation, reason = "the bits above 31 are cut off on purpose")]
    fn weekly(self, weekdays: u8) -> u32 {
        // The mask, turned so that bit 0 is the weekday of the 1st, then repeated for five weeks.
        let two_weeks = u64::from(weekdays) | u64::from(weekdays) << 7;
        let week = two_weeks >> self.first_weekday & 0x7F;
        ((week | week << 7 | week << 14 | week << 21 | week << 28) << 1) as u32
    }

    /// The weekday (Monday to Friday) nearest to `day`, within the month.
    const fn nearest_workday(self, day: u32) -> u32 {
        match self.weekday_of(day) {
            6 if day == 1 => 3,
            6 => day - 1,
            0 if day == self.length_days => day - 2,
            0 => day + 1,
            _ => day,
        }
    }

    /// The bits of its days.
    #[expect(clippy::cast_possible_truncation, reason = "months have at most 31 days")]
    const fn days(self) -> u32 {
        ((1u64 << (self.length_days + 1)) - 2) as u32
    }
}

impl Rare {
    /// What the day-of-month field adds.
    fn days(&self, month: Month) -> u32 {
        let length = month.length_days;
        let mut days = 0;
        for before in ones(self.before_last).filter(|before| *before < length) {
            days |= 1 << (length - before);
        }
        for day in ones(self.nearest_to).filter(|day| *day <= length) {
            days |= 1 << month.nearest_workday(day);
        }
        if self.last_workday {
            days |= 1 << month.nearest_workday(length);
        }
        days
    }

    /// What the day-of-week field adds.
    fn weekdays(&self, month: Month) -> u32 {
        let weeks = (0_u32..).zip(self.nth_weekdays).filter(|(_, weekdays)| *weekdays != 0);
        let nth = weeks.fold(0, |days, (week, weekdays)| days | month.weekly(weekdays) & 0xFE << (7 * week));
        let last_week = !0 << (month.length_days - 6);
        nth | month.weekly(self.last_weekdays) & last_week
    }

    /// The first year from `year` on that matches.
    fn next_year(&self, year: i64) -> Option<i64> {
        let Some(years) = self.years else { return Some(year) };
        let first_bit = usize::try_from(year - i64::from(FIRST_YEAR)).unwrap_or(0);
        let mut left = u64::MAX << (first_bit % 64);
        for (place, word) in years.iter().enumerate().skip(first_bit / 64) {
            if word & left != 0 {
                let bit = i64::from((word & left).trailing_zeros());
                return i64::try_from(place * 64).ok().map(|first| i64::from(FIRST_YEAR) + first + bit);
            }
            left = u64::MAX;
        }
        None
    }
}

/// The numbers of the bits that are set, ascending.
fn ones(mut bits: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros();
        bits &= bits.checked_sub(1)?;
        Some(bit)
    })
}

impl Pattern {
    /// Whether any date matches.
    pub fn can_fire(&self) -> bool {
        let first_year = i64::from(FIRST_YEAR);
        self.first_day_behind(MonthStart::of(first_year - 1, 12), first_year + CALENDAR_CYCLE_YEARS).is_some()
    }

    /// The first matching local second at or after `from_s`; `None` beyond [`YEAR_MAX`].
    pub fn first_from(&self, from_s: i64) -> Option<i64> {
        let day_number = from_s.div_euclid(SECONDS_PER_DAY);
        let Date { year, month, day } = date_of(day_number);
        let month = MonthStart { year, month, day_number: day_number - i64::from(day) + 1 };
        // Most schedules fire again today, and most of them know that without a look at the month.
        let mut days = if self.rare.is_none() { self.plain_day(day_number, month, day) } else { self.days_in(month) };
        if days >> day & 1 == 1
            && let Some(second) = self.first_of_day_from(from_s.rem_euclid(SECONDS_PER_DAY))
        {
            return Some(day_number * SECONDS_PER_DAY + second);
        }
        if self.rare.is_none() {
            days = self.days_in(month);
        }
        // Two shifts, because after day 31 one would be as wide as the mask.
        days &= u32::MAX << day << 1;
        let next_day = if days == 0 { self.first_day_behind(month, YEAR_MAX)? } else { month.day(days) };
        Some(next_day * SECONDS_PER_DAY + self.first_of_day())
    }

    /// Whether the local second `at_s` matches.
    pub fn holds(&self, at_s: i64) -> bool {
        let (day_number, second_of_day) = (at_s.div_euclid(SECONDS_PER_DAY), at_s.rem_euclid(SECONDS_PER_DAY));
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        if self.hours >> hour & 1 == 0 || self.minutes >> minute & 1 == 0 || self.seconds >> second & 1 == 0 {
            return false;
        }
        let Date { year, month, day } = date_of(day_number);
        let month = MonthStart { year, month, day_number: day_number - i64::from(day) + 1 };
        let days = if self.rare.is_none() { self.plain_day(day_number, month, day) } else { self.days_in(month) };
        days >> day & 1 == 1
    }

    /// The end of a stretch of matching seconds that begins with `at_s`, which matches: it goes on over whole minutes where every second
    /// matches, over whole hours where every minute does, and up to midnight where every hour does.
    pub fn run_end(&self, at_s: i64) -> i64 {
        let second_of_day = at_s.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        let midnight_s = at_s - second_of_day;
        let run = |mask: u64, from: i64| i64::from((!(mask >> from)).trailing_zeros());
        let second_end = second + run(self.seconds, second);
        if self.seconds.count_ones() < 60 {
            return at_s - second + second_end;
        }
        let minute_end = minute + run(self.minutes, minute);
        if self.minutes.count_ones() < 60 {
            return midnight_s + hour * 3_600 + minute_end * 60;
        }
        midnight_s + (hour + run(self.hours.into(), hour)) * 3_600
    }

    /// The first matching second of a day, counted from midnight.
    fn first_of_day(&self) -> i64 {
        i64::from(self.hours.trailing_zeros()) * 3_600 + self.first_of_hour()
    }

    fn first_of_hour(&self) -> i64 {
        i64::from(self.minutes.trailing_zeros() * 60 + self.seconds.trailing_zeros())
    }

    /// The first matching second at or after second `from` of a day.
    fn first_of_day_from(&self, from: i64) -> Option<i64> {
        let (hour, minute, second) = (from / 3_600, from / 60 % 60, from % 60);
        if self.hours >> hour & 1 == 1 {
            let seconds_left = self.seconds >> second;
            if self.minutes >> minute & 1 == 1 && seconds_left != 0 {
                return Some(from + i64::from(seconds_left.trailing_zeros()));
            }
            let later_minutes = self.minutes >> (minute + 1);
            if later_minutes != 0 {
                let minute = minute + 1 + i64::from(later_minutes.trailing_zeros());
                return Some(hour * 3_600 + minute * 60 + i64::from(self.seconds.trailing_zeros()));
            }
        }
        let later_hours = self.hours >> (hour + 1);
        if later_hours == 0 {
            return None;
        }
        let next_hour = hour + 1 + i64::from(later_hours.trailing_zeros());
        Some(next_hour * 3_600 + self.first_of_hour())
    }

    /// The bit of `day` alone, if it matches; for patterns without rare days.
    fn plain_day(&self, day_number: i64, month: MonthStart, day: u32) -> u32 {
        let by_date = self.days >> day & 1;
        let by_weekday = u32::from(self.weekdays) >> weekday_of(day_number) & 1;
        let matches = match self.days_from {
            DaysFrom::Both => by_date & by_weekday,
            DaysFrom::Either => by_date | by_weekday,
        };
        (matches & u32::from(self.months) >> month.month) << day
    }

    /// The number of the first matching day of the months behind `month`, up to the end of `year_max`.
    fn first_day_behind(&self, mut month: MonthStart, year_max: i64) -> Option<i64> {
        let mut holds_year = self.next_year(month.year) == Some(month.year);
        loop {
            let later_months = if holds_year { self.months >> (month.month + 1) } else { 0 };
            month = if later_months & 1 == 1 {
                month.following()
            } else if later_months == 0 {
                holds_year = true;
                let year = self.next_year(month.year + 1).filter(|year| *year <= year_max)?;
                MonthStart::of(year, self.months.trailing_zeros())
            } else {
                MonthStart::of(month.year, month.month + 1 + later_months.trailing_zeros())
            };
            let days = self.days_in(month);
            if days != 0 {
                return Some(month.day(days));
            }
        }
    }

    /// The first year from `year` on that matches.
    fn next_year(&self, year: i64) -> Option<i64> {
        self.rare.as_ref().map_or(Some(year), |rare| rare.next_year(year))
    }

    /// The matching days of a month, bits 1 to 31.
    fn days_in(&self, start: MonthStart) -> u32 {
        if self.months >> start.month & 1 == 0 {
            return 0;
        }
        let length_days = month_length_days(start.year, start.month);
        let month = Month { first_weekday: weekday_of(start.day_number), length_days };
        let (mut by_date, mut by_weekday) = (self.days, month.weekly(self.weekdays));
        if let Some(rare) = &self.rare {
            if rare.next_year(start.year) != Some(start.year) {
                return 0;
            }
            by_date |= rare.days(month);
            by_weekday |= rare.weekdays(month);
        }
        let matching = match self.days_from {
            DaysFrom::Both => by_date & by_weekday,
            DaysFrom::Either => by_date | by_weekday,
        };
        matching & month.days()
    }
}
