//! A job's definition as it travels and as it is logged.
//!
//! The encoding is a list of fields, each `tag: u8, length: u32, value`, in ascending order of tags; a field that has its
//! default is left out, so equal definitions have equal bytes. An unknown tag is refused, never skipped: a policy that is
//! silently ignored would be a promise silently broken.

mod fields;
mod labels;
mod rules;
mod schedules;
mod selector;

pub use labels::{LabelError, labels, labels_text};
pub use rules::{DayRule, DstGap, DstOverlap, FiringRules, Misfire, Overlap};
pub use schedules::{ScheduleList, ScheduleListBuf};
pub use selector::{JobState, JobStates, LabelSelector};

use crate::{
    DecodeError, Reader, Timestamp, Writer,
    layout::{FixedField, wire_enum},
    limits,
};
use fields::{FieldWriter, fixed, text};

wire_enum! {
    /// How urgent an execution is; P0 goes first.
    pub enum Priority: u8 {
        /// Critical.
        P0 = 0 => "P0",
        /// Ordinary; the default.
        P1 = 1 => "P1",
        /// Best effort.
        P2 = 2 => "P2",
    }
}

/// When a job fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScheduleSpec<'a> {
    /// A cron expression of five to seven fields (or `@daily` and kin) in an IANA zone.
    Cron {
        /// The expression, at most 256 bytes.
        expression: &'a str,
        /// The zone, such as `Europe/Berlin`; `UTC` by default.
        zone: &'a str,
    },
    /// A fixed interval: fires at `anchor + k * every_us`.
    Interval {
        /// The interval in microseconds, at least 1,000.
        every_us: u64,
        /// The time that the multiples are counted from. [`Timestamp::MAX`]: the time of submission.
        anchor: Timestamp,
    },
    /// Once, at a time. A time in the past fires at once, but as one of several schedules not at all.
    Once {
        /// The time.
        at: Timestamp,
    },
    /// Once, some time after the submission; the node that accepts it turns it into [`ScheduleSpec::Once`].
    After {
        /// The delay in microseconds.
        delay_us: u64,
    },
    /// Some time after the submission, and then after the end of each execution.
    FixedDelay {
        /// The delay in microseconds, at least 1,000.
        delay_us: u64,
    },
}

/// How failed attempts are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    /// Attempts in all, 1 to 1000. Default 3.
    pub attempts_max: u16,
    /// Delay before the second attempt, in milliseconds. Default 1,000.
    pub initial_ms: u32,
    /// Factor from one delay to the next, in thousandths, 1,000 to 10,000. Default 2,000.
    pub multiplier_milli: u16,
    /// Longest delay, in milliseconds. Default 300,000.
    pub delay_ms_max: u32,
    /// Share of the delay that is random, in percent, 0 to 100. Default 20.
    pub jitter_percent: u8,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 3, initial_ms: 1_000, multiplier_milli: 2_000, delay_ms_max: 300_000, jitter_percent: 20 }
    }
}

/// A job's definition: what to run, when, and by which rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobSpec<'a> {
    /// Owner of the job, 1 to 64 bytes.
    pub tenant: &'a str,
    /// Unique in its tenant, 1 to 255 bytes, no control characters.
    pub name: &'a str,
    /// What the worker runs, 1 to 128 bytes: it picks its handler by this name (`exec` for commands).
    pub handler: &'a str,
    /// When it fires.
    pub schedule: ScheduleSpec<'a>,
    /// When it fires too: it does at the times of all its schedules, at most 16 in all, and once where several have the same. Default none.
    pub also: ScheduleList<'a>,
    /// Times at which it does not fire: entries of an exclusion calendar, one per line, at most 16 KiB. Their zone, unless they name one, is
    /// that of the first cron expression, or UTC. Default none.
    pub exclusions: &'a str,
    /// Bytes handed to the handler.
    pub payload: &'a [u8],
    /// Which workers run it, 1 to 64 bytes. Default `standard`.
    pub pool: &'a str,
    /// How urgent it is. Default P1.
    pub priority: Priority,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// Longest run of one attempt, in milliseconds; 0: without limit. Default 3,600,000.
    pub start_to_close_ms: u32,
    /// Longest silence of a running attempt, in milliseconds; 0: none asked for, the default.
    pub heartbeat_ms: u32,
    /// Names of errors after which no attempt follows, between commas; at most 1,024 bytes. Default none.
    pub non_retryable: &'a str,
    /// Which of its firings are executed.
    pub rules: FiringRules,
    /// Whether it starts paused. Default no.
    pub paused: bool,
    /// What people tell it apart by, as `key=value,key=value`, sorted by key; see [`labels_text`]. Default none.
    pub labels: &'a str,
}

/// Start-to-close time-out of a job that names none, in milliseconds.
pub const START_TO_CLOSE_MS_DEFAULT: u32 = 3_600_000;
/// Longest interval and longest delay of a schedule, in microseconds: a hundred leap years.
pub const DELAY_US_MAX: u64 = 100 * 366 * 86_400_000_000;
/// Pool of a job that names none.
pub const POOL_DEFAULT: &str = "standard";

/// Why a job's definition is refused. Each variant names the field and the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobSpecError {
    /// The bytes are not a job's definition.
    #[error("job definition: {0}")]
    Decode(#[from] DecodeError),
    /// A tag that this version does not know, or one out of order.
    #[error("job definition: unknown or misplaced field {0}")]
    UnknownField(u8),
    /// A field that every job has is absent.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A text is too long or empty.
    #[error("`{field}` has {length} bytes; allowed are 1 to {length_max}")]
    Length {
        /// The field.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The longest allowed.
        length_max: usize,
    },
    /// A name holds a control character.
    #[error("`{0}` holds a control character")]
    ControlCharacter(&'static str),
    /// A number is outside its range.
    #[error("`{field}` is {value}; allowed are {min} to {max}")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The greatest allowed.
        max: u64,
    },
    /// Two fields that cannot both be meant.
    #[error("`{field}` {relation} `{other}`")]
    Contradiction {
        /// The field.
        field: &'static str,
        /// How they relate.
        relation: &'static str,
        /// The other, with its value if that matters.
        other: &'static str,
    },
    /// A label is wrong, or there are too many.
    #[error("`labels`: {0}")]
    Labels(#[from] LabelError),
}

mod tag {
    pub const TENANT: u8 = 1;
    pub const NAME: u8 = 2;
    pub const HANDLER: u8 = 3;
    pub const CRON: u8 = 4;
    pub const INTERVAL: u8 = 5;
    pub const ONCE: u8 = 6;
    pub const AFTER: u8 = 7;
    pub const PAYLOAD: u8 = 8;
    pub const POOL: u8 = 9;
    pub const PRIORITY: u8 = 10;
    pub const RETRY: u8 = 11;
    pub const START_TO_CLOSE: u8 = 12;
    pub const HEARTBEAT: u8 = 13;
    pub const MISFIRE: u8 = 14;
    pub const OVERLAP: u8 = 15;
    pub const PAUSED: u8 = 16;
    pub const NON_RETRYABLE: u8 = 17;
    // 18 to 31: see `rules`.
    pub const FIXED_DELAY: u8 = 32;
    pub const ALSO: u8 = 33;
    pub const EXCLUSIONS: u8 = 34;
    pub const LABELS: u8 = 35;
    // 36: see `rules`.
}

impl<'a> JobSpec<'a> {
    /// A job with every policy at its default.
    pub fn new(tenant: &'a str, name: &'a str, handler: &'a str, schedule: ScheduleSpec<'a>) -> Self {
        Self {
            tenant,
            name,
            handler,
            schedule,
            also: ScheduleList::default(),
            exclusions: "",
            payload: &[],
            pool: POOL_DEFAULT,
            priority: Priority::P1,
            retry: RetryPolicy::default(),
            start_to_close_ms: START_TO_CLOSE_MS_DEFAULT,
            heartbeat_ms: 0,
            non_retryable: "",
            rules: FiringRules::default(),
            paused: false,
            labels: "",
        }
    }

    /// Appends the encoding of the definition.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut fields = FieldWriter { out };
        fields.put(tag::TENANT, self.tenant.as_bytes());
        fields.put(tag::NAME, self.name.as_bytes());
        fields.put(tag::HANDLER, self.handler.as_bytes());
        let is_late = matches!(self.schedule, ScheduleSpec::FixedDelay { .. });
        if !is_late {
            self.schedule.encode(&mut fields);
        }
        if !self.payload.is_empty() {
            fields.put(tag::PAYLOAD, self.payload);
        }
        if self.pool != POOL_DEFAULT {
            fields.put(tag::POOL, self.pool.as_bytes());
        }
        fields.fixed(tag::PRIORITY, self.priority, Priority::P1);
        if self.retry != RetryPolicy::default() {
            fields.put(tag::RETRY, &self.retry.to_bytes());
        }
        fields.fixed(tag::START_TO_CLOSE, self.start_to_close_ms, START_TO_CLOSE_MS_DEFAULT);
        fields.fixed(tag::HEARTBEAT, self.heartbeat_ms, 0);
        fields.fixed(tag::MISFIRE, self.rules.misfire, Misfire::FireOnce);
        fields.fixed(tag::OVERLAP, self.rules.overlap, Overlap::Skip);
        fields.fixed(tag::PAUSED, self.paused, false);
        if !self.non_retryable.is_empty() {
            fields.put(tag::NON_RETRYABLE, self.non_retryable.as_bytes());
        }
        self.rules.encode(&mut fields);
        if is_late {
            self.schedule.encode(&mut fields);
        }
        if !self.also.is_empty() {
            fields.put(tag::ALSO, self.also.as_bytes());
        }
        if !self.exclusions.is_empty() {
            fields.put(tag::EXCLUSIONS, self.exclusions.as_bytes());
        }
        if !self.labels.is_empty() {
            fields.put(tag::LABELS, self.labels.as_bytes());
        }
        self.rules.encode_late(&mut fields);
    }

    /// Decodes a definition; its ranges are checked by [`JobSpec::validate`].
    ///
    /// # Errors
    /// When the bytes are no definition, or hold a field that this version does not know.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, JobSpecError> {
        let mut input = Reader::new(bytes);
        let mut spec = Self::new("", "", "", ScheduleSpec::Once { at: Timestamp::EPOCH });
        let mut scheduled = false;
        let mut last_tag = 0;
        while !input.is_empty() {
            let tag = input.u8("tag")?;
            let value = input.bytes("value")?;
            if tag <= last_tag {
                return Err(JobSpecError::UnknownField(tag));
            }
            last_tag = tag;
            if let Some(schedule) = ScheduleSpec::decode(tag, value)? {
                if scheduled {
                    return Err(JobSpecError::UnknownField(tag));
                }
                (spec.schedule, scheduled) = (schedule, true);
                continue;
            }
            spec.decode_field(tag, value)?;
        }
        for (field, value) in [("tenant", spec.tenant), ("name", spec.name), ("handler", spec.handler)] {
            if value.is_empty() {
                return Err(JobSpecError::Missing(field));
            }
        }
        if scheduled { Ok(spec) } else { Err(JobSpecError::Missing("schedule")) }
    }

    fn decode_field(&mut self, tag: u8, value: &'a [u8]) -> Result<(), JobSpecError> {
        match tag {
            tag::TENANT => self.tenant = text(value, "tenant")?,
            tag::NAME => self.name = text(value, "name")?,
            tag::HANDLER => self.handler = text(value, "handler")?,
            tag::PAYLOAD => self.payload = value,
            tag::POOL => self.pool = text(value, "pool")?,
            tag::PRIORITY => self.priority = fixed(value, "priority")?,
            tag::RETRY => self.retry = RetryPolicy::from_bytes(value)?,
            tag::START_TO_CLOSE => self.start_to_close_ms = fixed(value, "start_to_close_ms")?,
            tag::HEARTBEAT => self.heartbeat_ms = fixed(value, "heartbeat_ms")?,
            tag::MISFIRE => self.rules.misfire = fixed(value, "misfire")?,
            tag::OVERLAP => self.rules.overlap = fixed(value, "overlap")?,
            tag::PAUSED => self.paused = fixed(value, "paused")?,
            tag::NON_RETRYABLE => self.non_retryable = text(value, "non_retryable")?,
            tag::LABELS => self.labels = text(value, "labels")?,
            tag::ALSO => self.also = ScheduleList::decode(value)?,
            tag::EXCLUSIONS => self.exclusions = text(value, "exclusions")?,
            other => return self.rules.decode_field(other, value),
        }
        Ok(())
    }

    /// Checks every field against its range. `payload_bytes_max` is the node's setting. Whether the cron expression and
    /// the zone mean something is for the schedule's parser to say.
    ///
    /// # Errors
    /// Names the first field that is out of range, its value and the limit.
    pub fn validate(&self, payload_bytes_max: usize) -> Result<(), JobSpecError> {
        name("tenant", self.tenant, limits::TENANT_NAME_BYTES_MAX)?;
        name("name", self.name, limits::JOB_NAME_BYTES_MAX)?;
        name("handler", self.handler, limits::HANDLER_NAME_BYTES_MAX)?;
        name("pool", self.pool, limits::POOL_NAME_BYTES_MAX)?;
        if self.payload.len() > payload_bytes_max {
            let length = self.payload.len();
            return Err(JobSpecError::Length { field: "payload", length, length_max: payload_bytes_max });
        }
        self.validate_schedules()?;
        range("attempts_max", self.retry.attempts_max.into(), 1, 1_000)?;
        range("multiplier_milli", self.retry.multiplier_milli.into(), 1_000, 10_000)?;
        range("jitter_percent", self.retry.jitter_percent.into(), 0, 100)?;
        self.validate_non_retryable()?;
        labels::validate(self.labels)?;
        self.validate_exclusions()?;
        self.rules.validate(self)
    }

    /// The zone of exclusions that name none: that of the first cron expression, or UTC.
    pub fn exclusion_zone(&self) -> &'a str {
        self.schedules()
            .find_map(|schedule| match schedule {
                ScheduleSpec::Cron { zone, .. } => Some(zone),
                _ => None,
            })
            .unwrap_or("UTC")
    }

    /// All schedules, the first included.
    pub fn schedules(&self) -> impl Iterator<Item = ScheduleSpec<'a>> {
        std::iter::once(self.schedule).chain(self.also.iter())
    }

    fn validate_schedules(&self) -> Result<(), JobSpecError> {
        let (mut count, mut counted_from_elsewhere) = (0, None);
        for schedule in self.schedules() {
            schedule.validate()?;
            count += 1;
            counted_from_elsewhere = match schedule {
                ScheduleSpec::After { .. } => Some("after"),
                ScheduleSpec::FixedDelay { .. } => Some("fixed_delay"),
                _ => counted_from_elsewhere,
            };
        }
        range("schedules", count, 1, limits::SCHEDULES_MAX)?;
        match counted_from_elsewhere {
            Some(field) if count > 1 => {
                let (relation, other) = ("cannot be combined with", "other schedules");
                Err(JobSpecError::Contradiction { field, relation, other })
            }
            _ => Ok(()),
        }
    }

    /// Whether the entries mean something is for their parser to say.
    fn validate_exclusions(&self) -> Result<(), JobSpecError> {
        if self.exclusions.is_empty() {
            return Ok(());
        }
        length("exclusions", self.exclusions, limits::EXCLUSIONS_BYTES_MAX)?;
        self.exclusions.split('\n').try_for_each(|entry| name("exclusions", entry, limits::EXCLUSIONS_BYTES_MAX))
    }

    fn validate_non_retryable(&self) -> Result<(), JobSpecError> {
        if self.non_retryable.is_empty() {
            return Ok(());
        }
        name("non_retryable", self.non_retryable, limits::ERROR_NAMES_BYTES_MAX)?;
        self.non_retryable.split(',').try_for_each(|kind| name("non_retryable", kind, limits::ERROR_NAMES_BYTES_MAX))
    }
}

impl RetryPolicy {
    const BYTES: usize = 13;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        self.attempts_max.put(&mut out);
        self.initial_ms.put(&mut out[2..]);
        self.multiplier_milli.put(&mut out[6..]);
        self.delay_ms_max.put(&mut out[8..]);
        self.jitter_percent.put(&mut out[12..]);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let policy = Self {
            attempts_max: input.u16("attempts_max")?,
            initial_ms: input.u32("initial_ms")?,
            multiplier_milli: input.u16("multiplier_milli")?,
            delay_ms_max: input.u32("delay_ms_max")?,
            jitter_percent: input.u8("jitter_percent")?,
        };
        input.finish()?;
        Ok(policy)
    }
}

impl<'a> ScheduleSpec<'a> {
    fn encode(&self, fields: &mut FieldWriter<'_>) {
        match *self {
            ScheduleSpec::Cron { expression, zone } => {
                Writer::new(fields.out).u8(tag::CRON).nested(|value| {
                    value.str(expression).str(zone);
                });
            }
            ScheduleSpec::Interval { every_us, anchor } => {
                Writer::new(fields.out).u8(tag::INTERVAL).nested(|value| {
                    value.u64(every_us).u64(anchor.as_micros());
                });
            }
            ScheduleSpec::Once { at } => fields.put(tag::ONCE, &at.as_micros().to_le_bytes()),
            ScheduleSpec::After { delay_us } => fields.put(tag::AFTER, &delay_us.to_le_bytes()),
            ScheduleSpec::FixedDelay { delay_us } => fields.put(tag::FIXED_DELAY, &delay_us.to_le_bytes()),
        }
    }

    /// A field that says when the job fires; `None`: it says something else.
    fn decode(tag: u8, value: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let mut input = Reader::new(value);
        Ok(Some(match tag {
            tag::CRON => {
                let (expression, zone) = (input.str("cron")?, input.str("zone")?);
                input.finish()?;
                Self::Cron { expression, zone }
            }
            tag::INTERVAL => {
                let (every_us, anchor) = (input.u64("every_us")?, Timestamp::from_micros(input.u64("anchor")?));
                input.finish()?;
                Self::Interval { every_us, anchor }
            }
            tag::ONCE => Self::Once { at: fixed(value, "at")? },
            tag::AFTER => Self::After { delay_us: fixed(value, "delay_us")? },
            tag::FIXED_DELAY => Self::FixedDelay { delay_us: fixed(value, "delay_us")? },
            _ => return Ok(None),
        }))
    }

    fn validate(&self) -> Result<(), JobSpecError> {
        match *self {
            Self::Cron { expression, zone } => {
                name("cron", expression, limits::CRON_BYTES_MAX)?;
                name("zone", zone, limits::ZONE_BYTES_MAX)
            }
            Self::Interval { every_us, .. } => range("every_us", every_us, 1_000, DELAY_US_MAX),
            Self::After { delay_us } => range("delay_us", delay_us, 0, DELAY_US_MAX),
            Self::FixedDelay { delay_us } => range("delay_us", delay_us, 1_000, DELAY_US_MAX),
            Self::Once { .. } => Ok(()),
        }
    }
}

fn name(field: &'static str, value: &str, length_max: usize) -> Result<(), JobSpecError> {
    length(field, value, length_max)?;
    if value.chars().any(char::is_control) { Err(JobSpecError::ControlCharacter(field)) } else { Ok(()) }
}

fn length(field: &'static str, value: &str, length_max: usize) -> Result<(), JobSpecError> {
    let length = value.len();
    if (1..=length_max).contains(&length) { Ok(()) } else { Err(JobSpecError::Length { field, length, length_max }) }
}

fn range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), JobSpecError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(JobSpecError::Range { field, value, min, max }) }
}
