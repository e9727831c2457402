//! `H`: a value that the job's name chooses, so that a thousand jobs with `H * * * *` spread over the hour.
//!
//! Settled in the text, before it is compiled: jobs whose names choose the same value then share one schedule.
//!
//! The value is `mix64(hash + field) mod n` places behind the first of the n that may be chosen, where `hash` is the job's
//! [`tickwheel_wire::name_hash`] and fields count from 0 for seconds to 6 for years.

use super::{
    error::{CronError, FieldProblem},
    field::FieldRule,
    syntax::{FIELDS, first_field, parse_range, parse_step},
};
use std::{borrow::Cow, fmt::Write as _};
use tickwheel_wire::mix64;

/// `expression` with a value in place of every `H`, for the job whose name hashes to `hash`.
///
/// # Errors
/// [`CronError::Field`] where a range or a step of an `H` is wrong; what else is wrong is left as it is.
pub fn settle_hashed(expression: &str, hash: u64) -> Result<Cow<'_, str>, CronError> {
    let is_hashed = |term: &str| term.starts_with(['H', 'h']);
    let fields = || expression.split_ascii_whitespace();
    let Some(first) = first_field(fields().count()) else { return Ok(expression.into()) };
    if !fields().any(|field| field.split(',').any(is_hashed)) {
        return Ok(expression.into());
    }
    let mut settled = String::with_capacity(expression.len());
    for (place, text) in (first..).zip(fields()) {
        let (field, field_hash) = (FIELDS[place], mix64(hash.wrapping_add(place as u64)));
        for (index, term) in text.split(',').enumerate() {
            settled.push_str(match index {
                0 if place == first => "",
                0 => " ",
                _ => ",",
            });
            match term.strip_prefix(['H', 'h']) {
                Some(rest) => choose(field.rule(), rest, field_hash, &mut settled)
                    .map_err(|problem| CronError::field(field, term, problem))?,
                None => settled.push_str(term),
            }
        }
    }
    Ok(settled.into())
}

/// Writes the term that stands for `H` with `rest` behind it: a range in parentheses, a step, both or nothing.
fn choose(rule: &FieldRule, rest: &str, hash: u64, settled: &mut String) -> Result<(), FieldProblem> {
    let (range, step) = match rest.split_once('/') {
        Some((range, step)) => (range, Some(parse_step(rule, step)?)),
        None => (rest, None),
    };
    let range = if range.is_empty() {
        rule.min..=rule.hashed_last
    } else {
        let inner = range.strip_prefix('(').and_then(|range| range.strip_suffix(')'));
        let (first, last) = inner.and_then(|range| range.split_once('-')).ok_or(FieldProblem::NotAValue)?;
        parse_range(rule, first, last)?
    };
    let (first, last) = range.into_inner();
    let choices = (last - first + 1).min(step.unwrap_or(u16::MAX));
    let chosen = first + u16::try_from(hash % u64::from(choices)).expect("less than a u16");
    let in_field = |value: u16| if value <= rule.max { value } else { value - rule.count() };
    match step {
        // One that stands alone, or the rest would be taken for wrapping around.
        Some(step) if chosen + step <= last => write!(settled, "{}-{}/{step}", in_field(chosen), in_field(last)),
        _ => write!(settled, "{}", in_field(chosen)),
    }
    .expect("a string takes everything");
    Ok(())
}
