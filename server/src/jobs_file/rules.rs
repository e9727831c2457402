//! The keys of a job that say which of its firings are executed.

use super::{
    JobProblem,
    resolve::{delay, limit, named, point, value},
    section::{JobSection, Time},
};
use std::time::Duration;
use tickwheel_client::{DayRule, DstGap, DstOverlap, FiringRules, Misfire, Overlap, Timestamp};

/// The values of `delivery`: how often an execution may be begun.
const DELIVERIES: [&str; 2] = ["at-least-once", "at-most-once"];

/// The rules that a section states; the rest has its default. Whether they fit together, the definition says.
pub(super) fn rules(section: &mut JobSection) -> Result<FiringRules, JobProblem> {
    let plain = FiringRules::PLAIN;
    Ok(FiringRules {
        misfire: name_of("misfire", section.misfire.as_deref(), plain.misfire, Misfire::from_name, Misfire::ALL)?,
        misfire_max: section.misfire_max.unwrap_or(plain.misfire_max),
        misfire_grace_ms: millis("misfire_grace", section.misfire_grace.as_deref())?,
        overlap: name_of("overlap", section.overlap.as_deref(), plain.overlap, Overlap::from_name, Overlap::ALL)?,
        overlap_max: section.overlap_max.unwrap_or(plain.overlap_max),
        schedule_to_start_ms: millis("schedule_to_start", section.schedule_to_start.as_deref())?,
        pause_after_failures: section.pause_after_failures.unwrap_or(plain.pause_after_failures),
        starts_at: time("starts_at", section.starts_at.take())?.unwrap_or(plain.starts_at),
        ends_at: time("ends_at", section.ends_at.take())?.unwrap_or(plain.ends_at),
        executions_max: section.executions_max.unwrap_or(plain.executions_max),
        jitter_ms: jitter_ms(section.jitter.as_deref())?,
        dst_gap: name_of("dst_gap", section.dst_gap.as_deref(), plain.dst_gap, DstGap::from_name, DstGap::ALL)?,
        dst_overlap: name_of(
            "dst_overlap",
            section.dst_overlap.as_deref(),
            plain.dst_overlap,
            DstOverlap::from_name,
            DstOverlap::ALL,
        )?,
        day_rule: name_of("day_rule", section.day_rule.as_deref(), plain.day_rule, DayRule::from_name, DayRule::ALL)?,
    })
}

/// Whether an execution is begun once at most.
pub(super) fn is_at_most_once(section: &JobSection) -> Result<bool, JobProblem> {
    let Some(text) = section.delivery.as_deref() else { return Ok(false) };
    let place = DELIVERIES.iter().position(|name| *name == text);
    let at_most_once = named("delivery", text, place, DELIVERIES.into_iter())? == 1;
    let attempts_max = section.retry.as_ref().and_then(|retry| retry.attempts_max);
    if at_most_once && attempts_max.is_some_and(|attempts_max| attempts_max != 1) {
        let (key, relation, other) = ("retry.attempts_max", "makes no sense with", "delivery = at-most-once");
        return Err(JobProblem::Together { key, relation, other });
    }
    Ok(at_most_once)
}

/// The value that a key names.
fn name_of<T: Copy + ToString + 'static>(
    key: &'static str,
    text: Option<&str>,
    default: T,
    from_name: impl Fn(&str) -> Option<T>,
    all: &'static [T],
) -> Result<T, JobProblem> {
    let Some(text) = text else { return Ok(default) };
    named(key, text, from_name(text), all.iter().map(ToString::to_string))
}

/// A limit; absent or `none`: 0, which stands for the default.
fn millis(key: &'static str, text: Option<&str>) -> Result<u32, JobProblem> {
    let Some(limit) = text.map(|text| limit(key, text)).transpose()?.flatten() else { return Ok(0) };
    Ok(u32::try_from(limit.as_millis()).expect("a limit is at most 49 days"))
}

fn jitter_ms(text: Option<&str>) -> Result<u32, JobProblem> {
    let Some(text) = text else { return Ok(0) };
    let jitter = delay("jitter", text, Duration::ZERO)?;
    u32::try_from(jitter.as_millis()).map_err(|_| value("jitter", &format!("{text:?} is longer than a day")))
}

fn time(key: &'static str, time: Option<Time>) -> Result<Option<Timestamp>, JobProblem> {
    time.map(|time| point(key, &time.into_text())).transpose()
}
