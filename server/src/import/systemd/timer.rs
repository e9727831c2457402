//! One timer: its triggers, and the rules that they share.

use super::{
    RefusedReason, calendar,
    service::Run,
    span,
    unit::{Assignment, Problem, Unit},
};
use crate::import::printed;
use std::time::Duration;
use tickwheel_client::{DayRule, DstGap, FiringRules, Misfire, Schedule};
use tickwheel_engine::schedule::Zones;
use tickwheel_wire::limits::JITTER_MS_MAX;

const TIMER: &str = "Timer";
/// What sets a timer off. An empty assignment of any of them drops them all.
const TRIGGERS: [&str; 6] =
    ["OnCalendar", "OnUnitActiveSec", "OnUnitInactiveSec", "OnActiveSec", "OnBootSec", "OnStartupSec"];
/// Keys that are read, or say nothing about a run.
const KNOWN: [&str; 7] =
    ["Unit", "Persistent", "AccuracySec", "RandomizedDelaySec", "FixedRandomDelay", "RemainAfterElapse", "Description"];
/// How late a firing may be at least that is not to be made up for.
const GRACE: Duration = Duration::from_secs(60);

/// What sets a timer off.
pub(super) struct Trigger<'a> {
    pub line: &'a Assignment,
    pub schedule: Result<Schedule, Problem>,
    pub rules: FiringRules,
}

/// The service that a timer starts.
pub(super) fn service(unit: &Unit, timer: &str) -> Result<String, Problem> {
    let Some(line) = unit.last(TIMER, "Unit") else {
        return Ok(timer.strip_suffix(".timer").unwrap_or(timer).to_owned() + ".service");
    };
    if line.value.ends_with(".service") { Ok(line.value.clone()) } else { Err(line.problem(RefusedReason::NoService)) }
}

/// The triggers of a timer, and notes for the jobs of all of them.
pub(super) fn triggers<'a>(
    unit: &'a Unit,
    zone: &str,
    zones: &mut Zones,
) -> Result<(Vec<Trigger<'a>>, Vec<String>), Problem> {
    let mut notes = Vec::new();
    let plain = FiringRules { jitter_ms: jitter_ms(unit, &mut notes)?, ..FiringRules::PLAIN };
    let of_calendar = of_calendar(unit, plain)?;
    let lines = unit.since_reset(TIMER, &TRIGGERS);
    let repeats = lines.iter().any(|line| ["OnUnitActiveSec", "OnUnitInactiveSec"].contains(&line.key.as_str()));
    let mut triggers = Vec::new();
    for line in lines {
        let span =
            span::parse(&line.value).ok_or_else(|| line.problem(RefusedReason::Value { expected: "a time span" }));
        let positive = |span: Duration| match span {
            Duration::ZERO | Duration::MAX => Err(line.problem(RefusedReason::Value { expected: "a time to wait" })),
            span => Ok(span),
        };
        let (schedule, rules) = match line.key.as_str() {
            "OnCalendar" => {
                let event = calendar::schedule(&line.value, zone, zones).map_err(|reason| line.problem(reason));
                let is_cron = matches!(event, Ok((Schedule::Cron { .. }, _)));
                let day_rule = event.as_ref().map_or(DayRule::Or, |(_, day_rule)| *day_rule);
                let dst_gap = if is_cron { DstGap::Skip } else { DstGap::Vixie };
                (event.map(|(schedule, _)| schedule), FiringRules { dst_gap, day_rule, ..of_calendar })
            }
            "OnUnitActiveSec" => {
                (span.and_then(positive).map(|every| Schedule::Interval { every, anchor: None }), plain)
            }
            "OnUnitInactiveSec" => (span.and_then(positive).map(|delay| Schedule::FixedDelay { delay }), plain),
            key if repeats => {
                notes.push(format!("`{key}=` has no effect here: the first run comes one interval after the import"));
                continue;
            }
            "OnActiveSec" => {
                notes.push("`OnActiveSec=`: it runs once, so long after the import".to_owned());
                (span.map(|delay| Schedule::After { delay }), plain)
            }
            _ => (Err(line.problem(RefusedReason::Boot)), plain),
        };
        triggers.push(Trigger { line, schedule, rules });
    }
    notes.extend(ignored(unit)?);
    Ok((triggers, notes))
}

/// Runs that were missed are made up for by one, or not at all.
fn of_calendar(unit: &Unit, plain: FiringRules) -> Result<FiringRules, Problem> {
    let accuracy = unit.last(TIMER, "AccuracySec").map(span_of).transpose()?;
    if unit.boolean(TIMER, "Persistent")? == Some(true) {
        return Ok(FiringRules { misfire: Misfire::FireOnce, ..plain });
    }
    let grace = accuracy.unwrap_or(GRACE).max(GRACE);
    let misfire_grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
    Ok(FiringRules { misfire: Misfire::Skip, misfire_grace_ms, ..plain })
}

fn jitter_ms(unit: &Unit, notes: &mut Vec<String>) -> Result<u32, Problem> {
    let Some(line) = unit.last(TIMER, "RandomizedDelaySec") else { return Ok(0) };
    let jitter_ms = u32::try_from(span_of(line)?.as_millis()).unwrap_or(u32::MAX);
    if jitter_ms > JITTER_MS_MAX {
        notes.push(format!("`RandomizedDelaySec={}`: firings are put off by a day at most", line.value));
    }
    if jitter_ms > 0 && unit.boolean(TIMER, "FixedRandomDelay")? == Some(true) {
        notes.push("`FixedRandomDelay=`: how long a firing is put off differs from one to the next".to_owned());
    }
    Ok(jitter_ms.min(JITTER_MS_MAX))
}

fn span_of(line: &Assignment) -> Result<Duration, Problem> {
    span::parse(&line.value).ok_or_else(|| line.problem(RefusedReason::Value { expected: "a time span" }))
}

/// A note of the keys that have no effect.
fn ignored(unit: &Unit) -> Result<Option<String>, Problem> {
    let mut keys = Vec::new();
    for line in unit.section(TIMER).filter(|line| !line.value.is_empty()) {
        let key = line.key.as_str();
        let is_known = TRIGGERS.contains(&key) || KNOWN.contains(&key) || line.boolean() == Ok(false);
        if !is_known && !keys.contains(&key) {
            keys.push(key);
        }
    }
    let has = if keys.len() == 1 { "has" } else { "have" };
    Ok((!keys.is_empty()).then(|| format!("{} {has} no effect here", printed::keys(&keys))))
}

/// The notes of a job: those of its service, then those of its timer, which has become `count` jobs.
pub(super) fn notes(run: &Run, timer: &[String], count: usize) -> Vec<String> {
    let apart = (count > 1).then(|| {
        format!("the timer has become {count} jobs, as the rules of its triggers differ: two of them can run at the same time")
    });
    run.notes.iter().chain(timer).cloned().chain(apart).collect()
}
