//! Calendar arithmetic on whole days of the proleptic Gregorian calendar, in plain integers.
//!
//! A day is counted from 1970-01-01 (day 0); local time is counted in seconds from that day's midnight. Valid for the
//! years 1600 to 9999, far more than schedules reach. Deliberately absent: zones (see `zone`), leap seconds, clocks.
//!
//! The conversions count years from 1 March, so that the leap day comes last, as in Howard Hinnant's "chrono-Compatible
//! Low-Level Date Algorithms" (2013).

/// Seconds of a day.
pub(super) const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_SHIFT_DAYS: i64 = 719_468;
/// Days of 400 years.
const DAYS_PER_400_YEARS: i64 = 146_097;
/// Days of four years with a leap day.
const DAYS_PER_4_YEARS: i64 = 1_461;

/// A calendar day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    /// Such as 2026.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

/// The date of the day `day_number` days after 1970-01-01.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "months and days are below 32")]
pub(super) const fn date_of(day_number: i64) -> Date {
    let shifted = 4 * (day_number + EPOCH_SHIFT_DAYS) + 3;
    let century = shifted / DAYS_PER_400_YEARS;
    let in_century = 4 * (shifted % DAYS_PER_400_YEARS / 4) + 3;
    let year_of_century = in_century / DAYS_PER_4_YEARS;
    let day_of_year = in_century % DAYS_PER_4_YEARS / 4;
    // Months from March have 31, 30, 31, 30, 31 days over and over: 153 days in five months.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let is_next_year = month_from_march >= 10;
    let month = if is_next_year { month_from_march - 9 } else { month_from_march + 3 };
    Date { year: 100 * century + year_of_century + is_next_year as i64, month: month as u32, day: day as u32 }
}

/// The number of the day `day` of `month` in `year`; the inverse of [`date_of`].
pub(super) const fn day_number_of(year: i64, month: u32, day: u32) -> i64 {
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let month_from_march = if month <= 2 { month + 9 } else { month - 3 } as i64;
    let century_days = DAYS_PER_400_YEARS * (year_from_march / 100) / 4;
    let year_days = DAYS_PER_4_YEARS * (year_from_march % 100) / 4;
    let month_days = (153 * month_from_march + 2) / 5;
    century_days + year_days + month_days + day as i64 - 1 - EPOCH_SHIFT_DAYS
}

/// How many days `month` of `year` has.
pub(super) const fn month_length_days(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap_year(year) => 29,
        2 => 28,
        // The long months are the odd ones up to July and the even ones from August.
        _ => 30 + ((month + (month >> 3)) & 1),
    }
}

/// The weekday of a day: 0 is Sunday.
#[expect(clippy::cast_possible_truncation, reason = "a remainder of 7")]
pub(super) const fn weekday_of(day_number: i64) -> u32 {
    // 1970-01-01 was a Thursday.
    (day_number + 4).rem_euclid(7) as u32
}

const fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil;

    #[test]
    fn every_day_from_1969_to_9999_agrees_with_jiff() {
        let mut expected = civil::date(1969, 1, 1);
        let mut day_number = day_number_of(1969, 1, 1);
        assert_eq!(day_number, -365);
        let year_max = if cfg!(miri) { 1972 } else { 9999 };
        while expected < civil::date(year_max, 12, 31) {
            let date = date_of(day_number);
            let parts = (expected.year().into(), expected.month().try_into(), expected.day().try_into());
            assert_eq!((date.year, Ok(date.month), Ok(date.day)), parts);
            assert_eq!(day_number_of(date.year, date.month, date.day), day_number);
            assert_eq!(i64::from(weekday_of(day_number)), i64::from(expected.weekday().to_sunday_zero_offset()));
            assert_eq!(i64::from(month_length_days(date.year, date.month)), i64::from(expected.days_in_month()));
            expected = expected.tomorrow().expect("before the last day");
            day_number += 1;
        }
    }
}
