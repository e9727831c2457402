//! The fields of a cron expression, and what each may hold.

use std::fmt;

/// A field of a cron expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CronField {
    /// 0 to 59.
    Second,
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31, and days counted from the month's end or moved to a weekday.
    DayOfMonth,
    /// 1 to 12, or names.
    Month,
    /// 0 to 7, both ends Sunday, or names, and the n-th or last of a month.
    DayOfWeek,
    /// 1970 to 2199.
    Year,
}

/// What a field may hold.
pub(super) struct FieldRule {
    label: &'static str,
    pub allowed: &'static str,
    pub min: u16,
    /// Greatest number that may be written.
    pub max: u16,
    /// Greatest value that `*` means.
    pub last: u16,
    /// Whether the value after the last is the first again, so that ranges may wrap around.
    pub is_cyclic: bool,
    /// Greatest value that `H` takes by itself: one that there always is.
    pub hashed_last: u16,
    /// Names of the values from `min` on.
    pub names: &'static [&'static str],
}

const MONTH_NAMES: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAY_NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const SECOND: FieldRule = numbers("second", "0-59", 59);
const MINUTE: FieldRule = numbers("minute", "0-59", 59);
const HOUR: FieldRule = numbers("hour", "0-23", 23);
const DAY_OF_MONTH: FieldRule = FieldRule {
    allowed: "1-31, L, L-n, LW, nW and ?",
    min: 1,
    is_cyclic: false,
    hashed_last: 28,
    ..numbers("day of month", "", 31)
};
const MONTH: FieldRule =
    FieldRule { allowed: "1-12 or JAN-DEC", min: 1, names: &MONTH_NAMES, ..numbers("month", "", 12) };
const DAY_OF_WEEK: FieldRule = FieldRule {
    allowed: "0-7 or SUN-SAT, with L or #1 to #5 behind, and ?",
    max: 7,
    names: &WEEKDAY_NAMES,
    ..numbers("day of week", "", 6)
};
const YEAR: FieldRule = FieldRule { allowed: "1970-2199", min: 1_970, is_cyclic: false, ..numbers("year", "", 2_199) };

/// A field of the numbers from 0 to `last`, and round again.
const fn numbers(label: &'static str, allowed: &'static str, last: u16) -> FieldRule {
    FieldRule { label, allowed, min: 0, max: last, last, is_cyclic: true, hashed_last: last, names: &[] }
}

impl FieldRule {
    /// How many values there are.
    pub const fn count(&self) -> u16 {
        self.last - self.min + 1
    }
}

impl CronField {
    /// The allowed values in words, such as `0-59`.
    pub const fn allowed(self) -> &'static str {
        self.rule().allowed
    }

    pub(super) const fn rule(self) -> &'static FieldRule {
        match self {
            Self::Second => &SECOND,
            Self::Minute => &MINUTE,
            Self::Hour => &HOUR,
            Self::DayOfMonth => &DAY_OF_MONTH,
            Self::Month => &MONTH,
            Self::DayOfWeek => &DAY_OF_WEEK,
            Self::Year => &YEAR,
        }
    }
}

impl fmt::Display for CronField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule().label)
    }
}
