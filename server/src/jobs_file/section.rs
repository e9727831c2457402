//! The tables of the file as they are written: every key that there is, in the words of the file.
//!
//! Deliberately absent: what the values mean; `resolve` says that.

use serde::Deserialize;
use std::collections::BTreeMap;
use toml::value::Datetime;

/// One `[[job]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobSection {
    pub name: String,
    pub tenant: Option<String>,
    pub handler: Option<String>,
    pub payload: Option<String>,
    pub payload_base64: Option<String>,

    pub command: Option<Vec<String>>,
    pub env: Option<BTreeMap<String, String>>,
    pub clean_env: Option<bool>,
    pub stdin: Option<String>,
    pub dir: Option<String>,
    pub user: Option<String>,
    pub output_bytes_max: Option<u32>,

    pub cron: Option<String>,
    pub zone: Option<String>,
    pub dst_gap: Option<String>,
    pub dst_overlap: Option<String>,
    pub day_rule: Option<String>,
    pub every: Option<String>,
    pub anchor: Option<Time>,
    pub delay: Option<String>,
    pub at: Option<Time>,
    pub after: Option<String>,
    pub schedules: Option<Vec<ScheduleSection>>,
    pub exclude: Option<Vec<String>>,

    pub pool: Option<String>,
    pub priority: Option<String>,
    pub retry: Option<RetrySection>,
    pub timeout: Option<String>,
    pub heartbeat: Option<String>,
    pub delivery: Option<String>,
    pub misfire: Option<String>,
    pub misfire_max: Option<u32>,
    pub misfire_grace: Option<String>,
    pub overlap: Option<String>,
    pub overlap_max: Option<u32>,
    pub schedule_to_start: Option<String>,
    pub pause_after_failures: Option<u16>,
    pub starts_at: Option<Time>,
    pub ends_at: Option<Time>,
    pub executions_max: Option<u32>,
    pub jitter: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub paused: Option<bool>,
}

/// One of several schedules of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleSection {
    pub cron: Option<String>,
    pub zone: Option<String>,
    pub every: Option<String>,
    pub anchor: Option<Time>,
    pub delay: Option<String>,
    pub at: Option<Time>,
    pub after: Option<String>,
}

impl JobSection {
    /// What stands beside `schedules`; `None`: nothing does.
    pub fn take_schedule(&mut self) -> Option<ScheduleSection> {
        let Self { cron, zone, every, anchor, delay, at, after, .. } = self;
        let is_given = cron.is_some() || every.is_some() || delay.is_some() || at.is_some() || after.is_some();
        (is_given || zone.is_some() || anchor.is_some()).then(|| ScheduleSection {
            cron: cron.take(),
            zone: zone.take(),
            every: every.take(),
            anchor: anchor.take(),
            delay: delay.take(),
            at: at.take(),
            after: after.take(),
        })
    }
}

/// One `[[calendar]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CalendarSection {
    pub name: String,
    pub zone: Option<String>,
    #[serde(default)]
    pub dates: Vec<Time>,
    #[serde(default)]
    pub weekdays: Vec<String>,
    #[serde(default)]
    pub cron: Vec<String>,
    pub ics: Option<String>,
}

/// `retry` of a job; what is absent keeps its default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetrySection {
    pub attempts_max: Option<u16>,
    pub initial: Option<String>,
    pub multiplier: Option<f64>,
    pub max: Option<String>,
    pub jitter_percent: Option<u8>,
    pub non_retryable: Option<Vec<String>>,
}

/// A date or a point in time, in TOML's own notation or as a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Time {
    Native(Datetime),
    Text(String),
}

impl Time {
    /// As RFC 3339 or as a date, if that is what was written.
    pub fn into_text(self) -> String {
        match self {
            Self::Native(time) => time.to_string(),
            Self::Text(text) => text,
        }
    }
}
