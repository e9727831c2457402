//! The text of a cron expression, taken apart into a [`Pattern`].
//!
//! Five fields between blanks: minute (0-59), hour (0-23), day of month (1-31), month (1-12 or JAN-DEC), day of week
//! (0-7 or SUN-SAT; 0 and 7 are both Sunday). A field is a list of terms between commas, a term is
//!
//! | term | values |
//! |---|---|
//! | `*` | all |
//! | `a` | one; a number or, for months and weekdays, a three-letter name in upper or lower case |
//! | `a-b` | from a to b, both included; a range that ends on the name SUN ends on day 7 |
//! | `*/s`, `a-b/s` | every s-th of them, from the first |
//! | `a/s` | every s-th from a to the end of the field |
//!
//! A step is at most the number of values that the field has: `*/90` minutes is refused, because it would mean hourly.
//! Instead of five fields there may be `@yearly` or `@annually` (`0 0 1 1 *`), `@monthly` (`0 0 1 * *`), `@weekly`
//! (`0 0 * * 0`), `@daily` or `@midnight` (`0 0 * * *`), `@hourly` (`0 * * * *`).
//!
//! Source: crontab(5) of Vixie cron; `a/s` is from Quartz and systemd. Deliberately absent, so far: seconds and years,
//! `L`, `W`, `#`, `H`, `?`. A further kind of term that selects days belongs to [`Pattern`]'s day mask, a further field
//! to [`CronField`]'s table.

use super::{
    error::{CronError, FieldProblem, quote},
    pattern::{DayRule, Pattern},
};
use std::fmt;

/// The longest expression in bytes. Listing every value of every field takes less.
pub(super) const EXPRESSION_BYTES_MAX: usize = 512;

/// A field of a cron expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CronField {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31.
    DayOfMonth,
    /// 1 to 12, or names.
    Month,
    /// 0 to 7, both ends Sunday, or names.
    DayOfWeek,
}

/// The fields in the order in which they are written.
const FIELDS: [CronField; 5] =
    [CronField::Minute, CronField::Hour, CronField::DayOfMonth, CronField::Month, CronField::DayOfWeek];

/// What a field may hold.
struct FieldRule {
    label: &'static str,
    allowed: &'static str,
    min: u8,
    /// Greatest number that may be written.
    max: u8,
    /// Greatest value that `*` means, and how many values there are.
    last: u8,
    count: u8,
    /// Names of the values from `min` on.
    names: &'static [&'static str],
}

const MONTH_NAMES: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAY_NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const MINUTE: FieldRule =
    FieldRule { label: "minute", allowed: "0-59", min: 0, max: 59, last: 59, count: 60, names: &[] };
const HOUR: FieldRule = FieldRule { label: "hour", allowed: "0-23", min: 0, max: 23, last: 23, count: 24, names: &[] };
const DAY_OF_MONTH: FieldRule =
    FieldRule { label: "day of month", allowed: "1-31", min: 1, max: 31, last: 31, count: 31, names: &[] };
const MONTH: FieldRule =
    FieldRule { label: "month", allowed: "1-12 or JAN-DEC", min: 1, max: 12, last: 12, count: 12, names: &MONTH_NAMES };
const DAY_OF_WEEK: FieldRule = FieldRule {
    label: "day of week",
    allowed: "0-7 or SUN-SAT",
    min: 0,
    max: 7,
    last: 6,
    count: 7,
    names: &WEEKDAY_NAMES,
};

impl CronField {
    /// The allowed values in words, such as `0-59`.
    pub const fn allowed(self) -> &'static str {
        self.rule().allowed
    }

    const fn rule(self) -> &'static FieldRule {
        match self {
            Self::Minute => &MINUTE,
            Self::Hour => &HOUR,
            Self::DayOfMonth => &DAY_OF_MONTH,
            Self::Month => &MONTH,
            Self::DayOfWeek => &DAY_OF_WEEK,
        }
    }
}

impl fmt::Display for CronField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule().label)
    }
}

/// The values of one field.
#[derive(Clone, Copy, Default)]
struct FieldSet {
    /// Bit `n` stands for the value `n`.
    bits: u64,
    /// Whether the field begins with `*`, with or without a step.
    is_star: bool,
}

/// Takes `expression` apart.
///
/// # Errors
/// Every variant of [`CronError`] but the one about zones.
pub(super) fn parse(expression: &str) -> Result<Pattern, CronError> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(CronError::TooLong { bytes: expression.len(), bytes_max: EXPRESSION_BYTES_MAX });
    }
    let trimmed = expression.trim_ascii();
    let fields = if trimmed.starts_with('@') { expand_shorthand(trimmed)? } else { trimmed };
    let mut sets = [FieldSet::default(); FIELDS.len()];
    let count = fields.split_ascii_whitespace().count();
    if count != FIELDS.len() {
        return Err(CronError::FieldCount { count });
    }
    for ((set, field), text) in sets.iter_mut().zip(FIELDS).zip(fields.split_ascii_whitespace()) {
        *set = parse_field(field, text)?;
    }
    let pattern = compile(sets);
    if pattern.can_fire() { Ok(pattern) } else { Err(CronError::NeverFires { text: quote(trimmed) }) }
}

fn expand_shorthand(text: &str) -> Result<&'static str, CronError> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        "@reboot" => return Err(CronError::Reboot),
        _ => return Err(CronError::UnknownShorthand { text: quote(text) }),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "no field has a value beyond the width of its mask")]
fn compile([minute, hour, day_of_month, month, day_of_week]: [FieldSet; 5]) -> Pattern {
    // Sunday is written 0 or 7.
    let weekdays = (day_of_week.bits | day_of_week.bits >> 7) & 0x7F;
    Pattern {
        minutes: minute.bits,
        hours: hour.bits as u32,
        days: day_of_month.bits as u32,
        months: month.bits as u16,
        weekdays: weekdays as u8,
        day_rule: if day_of_month.is_star || day_of_week.is_star { DayRule::Both } else { DayRule::Either },
        every_hour: hour.is_star,
    }
}

fn parse_field(field: CronField, text: &str) -> Result<FieldSet, CronError> {
    let mut bits = 0;
    for term in text.split(',') {
        bits |= parse_term(field, term).map_err(|problem| CronError::field(field, term, problem))?;
    }
    Ok(FieldSet { bits, is_star: text.starts_with('*') })
}

fn parse_term(field: CronField, term: &str) -> Result<u64, FieldProblem> {
    let rule = field.rule();
    let (values, step) = match term.split_once('/') {
        Some((values, step)) => (values, Some(parse_step(rule, step)?)),
        None => (term, None),
    };
    let (first, last) = if values == "*" {
        (rule.min, rule.last)
    } else if let Some((first, last)) = values.split_once('-') {
        parse_range(rule, first, last)?
    } else {
        let only = parse_value(rule, values)?;
        (only, if step.is_some() { only.max(rule.last) } else { only })
    };
    let values = (first..=last).step_by(step.unwrap_or(1).into());
    Ok(values.fold(0, |bits, value| bits | 1 << value))
}

fn parse_range(rule: &FieldRule, first_text: &str, last_text: &str) -> Result<(u8, u8), FieldProblem> {
    let first = parse_value(rule, first_text)?;
    let last = parse_value(rule, last_text)?;
    // A week may begin with Monday, so that MON-SUN ends on day 7. No other field has this name.
    let last = if first > 0 && last_text.eq_ignore_ascii_case("SUN") { 7 } else { last };
    if first <= last { Ok((first, last)) } else { Err(FieldProblem::Reversed) }
}

fn parse_value(rule: &FieldRule, text: &str) -> Result<u8, FieldProblem> {
    if let Some(position) = rule.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(rule.min + u8::try_from(position).expect("no field has more than 12 names"));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FieldProblem::NotAValue);
    }
    // Only digits: what does not fit is too large.
    let value = text.parse::<u8>().map_err(|_| FieldProblem::OutOfRange)?;
    if (rule.min..=rule.max).contains(&value) { Ok(value) } else { Err(FieldProblem::OutOfRange) }
}

fn parse_step(rule: &FieldRule, text: &str) -> Result<u8, FieldProblem> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let step = if is_number { text.parse::<u8>().ok() } else { None };
    step.filter(|step| (1..=rule.count).contains(step)).ok_or(FieldProblem::Step { step_max: rule.count })
}
