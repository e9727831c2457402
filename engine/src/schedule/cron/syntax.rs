//! The text of a cron expression, taken apart into a [`Pattern`].
//!
//! Five fields between blanks: minute (0-59), hour (0-23), day of month (1-31), month (1-12 or JAN-DEC), day of week
//! (0-7 or SUN-SAT; 0 and 7 are both Sunday). Six fields have seconds (0-59) in front, seven also years (1970-2199) at
//! the end. A field is a list of terms between commas; a term is, in upper or lower case,
//!
//! | term | values |
//! |---|---|
//! | `*` | all |
//! | `a` | one; a number or, for months and weekdays, a three-letter name |
//! | `a-b` | from a to b, both included; round the end where the first value follows the last (`22-4`, `FRI-MON`), so not for days of the month and years |
//! | `*/s`, `a-b/s` | every s-th of them, from the first |
//! | `a/s` | every s-th from a to the end of the field |
//! | `H`, `H(a-b)` | one that the job's name chooses, of all or of a range; of days of the month up to 28 |
//! | `H/s`, `H(a-b)/s` | every s-th, from one of the first s that the job's name chooses |
//! | `L`, `L-n` | day of month: the last, and the n-th before it |
//! | `nW`, `LW` | day of month: the weekday (Monday to Friday) nearest to day n within the month, none if there is no day n; the last weekday |
//! | `a#k` | day of week: the k-th in the month, 1 to 5 |
//! | `aL` | day of week: the last in the month |
//! | `?` | day of month or day of week, not both: what the other one says; alone in its field |
//!
//! A step is at most the number of values that the field has: `*/90` minutes is refused, because it would mean hourly.
//! A year field that holds all years is none: years go on behind 2199. Instead of fields there may be `@yearly` or `@annually` (`0 0 1 1 *`), `@monthly` (`0 0 1 * *`), `@weekly`
//! (`0 0 * * 0`), `@daily` or `@midnight` (`0 0 * * *`), `@hourly` (`0 * * * *`).
//!
//! Source: crontab(5) of Vixie cron; `a/s`, `L`, `W`, `#`, `?`, seconds and years are Quartz's, but weekdays are not
//! numbered from 1; `H` is Jenkins', see [`super::hashed`]. Deliberately absent: names in full, `@reboot` (an event), `@every` (an interval).

use super::{
    error::{CronError, FieldProblem, quote},
    field::{CronField, FieldRule},
    pattern::{DaysFrom, FIRST_YEAR, Pattern, Rare},
};
use std::ops::RangeInclusive;
use tickwheel_wire::job::DayRule;

/// The longest expression in bytes. Listing every value of every field of five takes less.
pub(super) const EXPRESSION_BYTES_MAX: usize = 512;

/// The fields in the order in which they are written: five from the second on, six without the last, or all.
pub(super) const FIELDS: [CronField; 7] = [
    CronField::Second,
    CronField::Minute,
    CronField::Hour,
    CronField::DayOfMonth,
    CronField::Month,
    CronField::DayOfWeek,
    CronField::Year,
];

/// An expression of no more fields has none for seconds.
pub(super) const FIELDS_WITHOUT_SECONDS: usize = 5;

/// What an expression says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub pattern: Pattern,
    /// Whether the minute or the hour field begins with `*`; decides what happens where the clock is turned, unless the
    /// job says so.
    pub is_wildcard: bool,
}

/// The values of one field.
#[derive(Clone, Debug, Default)]
struct FieldSet {
    /// Bit `n` stands for the value `n`; for years from 1970 on.
    bits: [u64; 4],
    /// Whether the field begins with `*`, with or without a step, or is `?`.
    is_star: bool,
    /// Days that the month decides.
    rare: Rare,
}

impl FieldSet {
    /// The bit that stands for `value`.
    fn bit_of(value: u16) -> u16 {
        value.checked_sub(FIRST_YEAR).unwrap_or(value)
    }

    fn insert(&mut self, value: u16) {
        let bit = Self::bit_of(value);
        self.bits[usize::from(bit / 64)] |= 1 << (bit % 64);
    }

    /// All from `first` to `last`.
    fn insert_all(&mut self, first: u16, last: u16) {
        let (first, last) = (Self::bit_of(first), Self::bit_of(last));
        for (word, start) in self.bits.iter_mut().zip((0..).step_by(64)).skip(usize::from(first / 64)) {
            if start > last {
                break;
            }
            *word |= u64::MAX << first.saturating_sub(start) & u64::MAX >> (63 - (last - start).min(63));
        }
    }

    /// Whether it holds every year that can be written, which stands for all that there are.
    fn is_all_years(&self) -> bool {
        self.bits.iter().map(|word| word.count_ones()).sum::<u32>() == u32::from(CronField::Year.rule().count())
    }

    /// Every `step`-th of `range`, whose values beyond the field's end are those from its beginning on.
    fn insert_range(&mut self, rule: &FieldRule, range: RangeInclusive<u16>, step: u16) {
        let (first, last) = range.into_inner();
        if step == 1 && last <= rule.max {
            return self.insert_all(first, last);
        }
        let mut value = first;
        while value <= last {
            self.insert(if value <= rule.max { value } else { value - rule.count() });
            value += step;
        }
    }
}

/// Takes `expression` apart; what a job's name chooses is settled. `day_rule` counts where both day fields are restricted.
///
/// # Errors
/// Every variant of [`CronError`] but the one about zones.
pub(super) fn parse(expression: &str, day_rule: DayRule) -> Result<Parsed, CronError> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(CronError::TooLong { bytes: expression.len(), bytes_max: EXPRESSION_BYTES_MAX });
    }
    let trimmed = expression.trim_ascii();
    let fields = if trimmed.starts_with('@') { expand_shorthand(trimmed)? } else { trimmed };
    let count = fields.split_ascii_whitespace().count();
    let first = first_field(count).ok_or(CronError::FieldCount { count })?;
    let mut sets: [FieldSet; FIELDS.len()] = Default::default();
    sets[0].insert(0);
    let mut unspecified = 0;
    for (place, text) in (first..).zip(fields.split_ascii_whitespace()) {
        sets[place] = parse_field(FIELDS[place], text)?;
        unspecified += usize::from(text == "?");
    }
    if unspecified > 1 {
        return Err(CronError::NoDay);
    }
    let parsed = compile(&sets, count == FIELDS.len(), day_rule);
    if parsed.pattern.can_fire() { Ok(parsed) } else { Err(CronError::NeverFires { text: quote(trimmed) }) }
}

/// The place in [`FIELDS`] of the first of `count` fields: of five the seconds are left out.
pub(super) const fn first_field(count: usize) -> Option<usize> {
    match count {
        5 => Some(1),
        6 | 7 => Some(0),
        _ => None,
    }
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
fn compile(sets: &[FieldSet; FIELDS.len()], has_years: bool, day_rule: DayRule) -> Parsed {
    let [second, minute, hour, day_of_month, month, day_of_week, year] = sets;
    // Sunday is written 0 or 7.
    let weekdays = (day_of_week.bits[0] | day_of_week.bits[0] >> 7) & 0x7F;
    let rare = Rare {
        nth_weekdays: day_of_week.rare.nth_weekdays,
        last_weekdays: day_of_week.rare.last_weekdays,
        years: Some(year.bits).filter(|_| has_years && !year.is_all_years()),
        ..day_of_month.rare.clone()
    };
    let is_both = day_rule == DayRule::And || day_of_month.is_star || day_of_week.is_star;
    let pattern = Pattern {
        seconds: second.bits[0],
        minutes: minute.bits[0],
        hours: hour.bits[0] as u32,
        days: day_of_month.bits[0] as u32,
        months: month.bits[0] as u16,
        weekdays: weekdays as u8,
        days_from: if is_both { DaysFrom::Both } else { DaysFrom::Either },
        rare: Some(rare).filter(|rare| *rare != Rare::default()).map(Box::new),
    };
    Parsed { pattern, is_wildcard: minute.is_star || hour.is_star }
}

fn parse_field(field: CronField, text: &str) -> Result<FieldSet, CronError> {
    let mut set = FieldSet { is_star: text.starts_with(['*', '?']), ..FieldSet::default() };
    let rule = field.rule();
    if text == "?" && matches!(field, CronField::DayOfMonth | CronField::DayOfWeek) {
        set.insert_range(rule, rule.min..=rule.last, 1);
        return Ok(set);
    }
    for term in text.split(',') {
        let is_taken = match field {
            CronField::DayOfMonth => parse_day_of_month(term, &mut set.rare),
            CronField::DayOfWeek => parse_day_of_week(term, &mut set.rare),
            _ => Ok(false),
        };
        let result = is_taken.and_then(|is_taken| if is_taken { Ok(()) } else { parse_term(rule, term, &mut set) });
        result.map_err(|problem| CronError::field(field, term, problem))?;
    }
    Ok(set)
}

/// The terms that only days of the month have; whether `term` is one.
fn parse_day_of_month(term: &str, rare: &mut Rare) -> Result<bool, FieldProblem> {
    let rule = CronField::DayOfMonth.rule();
    if term.eq_ignore_ascii_case("L") {
        rare.before_last |= 1;
    } else if term.eq_ignore_ascii_case("LW") {
        rare.last_workday = true;
    } else if let Some(before) = term.strip_prefix(['L', 'l']).and_then(|rest| rest.strip_prefix('-')) {
        let before = parse_number(before)?;
        // In a month of 31 days the 1st is the 30th before the last.
        if before >= rule.last {
            return Err(FieldProblem::OutOfRange);
        }
        rare.before_last |= 1 << before;
    } else if let Some(day) = term.strip_suffix(['W', 'w']) {
        rare.nearest_to |= 1 << parse_value(rule, day)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The terms that only days of the week have; whether `term` is one.
fn parse_day_of_week(term: &str, rare: &mut Rare) -> Result<bool, FieldProblem> {
    let rule = CronField::DayOfWeek.rule();
    let weekday = |text: &str| parse_value(rule, text).map(|value| 1 << (value % 7));
    if let Some((day, week)) = term.split_once('#') {
        let week = parse_number(week)?.checked_sub(1).ok_or(FieldProblem::OutOfRange)?;
        let weekdays = rare.nth_weekdays.get_mut(usize::from(week)).ok_or(FieldProblem::OutOfRange)?;
        *weekdays |= weekday(day)?;
    } else if let Some(day) = term.strip_suffix(['L', 'l']) {
        rare.last_weekdays |= weekday(day)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn parse_term(rule: &FieldRule, term: &str, set: &mut FieldSet) -> Result<(), FieldProblem> {
    let (values, step) = match term.split_once('/') {
        Some((values, step)) => (values, Some(parse_step(rule, step)?)),
        None => (term, None),
    };
    if values.starts_with(['H', 'h']) {
        return Err(FieldProblem::Hashed);
    }
    let range = if values == "*" {
        rule.min..=rule.last
    } else if let Some((first, last)) = values.split_once('-') {
        parse_range(rule, first, last)?
    } else {
        let only = parse_value(rule, values)?;
        only..=if step.is_some() { only.max(rule.last) } else { only }
    };
    set.insert_range(rule, range, step.unwrap_or(1));
    Ok(())
}

/// From `first` to `last`, beyond the field's end if `last` comes before `first`.
pub(super) fn parse_range(rule: &FieldRule, first: &str, last: &str) -> Result<RangeInclusive<u16>, FieldProblem> {
    let (first, last) = (parse_value(rule, first)?, parse_value(rule, last)?);
    match first <= last {
        true => Ok(first..=last),
        false if rule.is_cyclic => Ok(first..=last + rule.count()),
        false => Err(FieldProblem::Reversed),
    }
}

fn parse_value(rule: &FieldRule, text: &str) -> Result<u16, FieldProblem> {
    if let Some(position) = rule.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(rule.min + u16::try_from(position).expect("no field has more than 12 names"));
    }
    let value = parse_number(text)?;
    if (rule.min..=rule.max).contains(&value) { Ok(value) } else { Err(FieldProblem::OutOfRange) }
}

/// Digits and nothing else.
fn parse_number(text: &str) -> Result<u16, FieldProblem> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FieldProblem::NotAValue);
    }
    // Only digits: what does not fit is too large.
    text.parse().map_err(|_| FieldProblem::OutOfRange)
}

pub(super) fn parse_step(rule: &FieldRule, text: &str) -> Result<u16, FieldProblem> {
    let step = parse_number(text).ok();
    step.filter(|step| (1..=rule.count()).contains(step)).ok_or(FieldProblem::Step { step_max: rule.count() })
}
