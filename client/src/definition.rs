//! A job's definition as programs write and read it: owned, with [`Duration`]s and [`Timestamp`]s.
//!
//! The byte encoding and the rules are those of [`tickwheel_wire::job`]; this is its friendly face. Durations are rounded down to
//! the protocol's unit and saturate at its largest value, which the rules then refuse where it is out of range.

use std::time::Duration;
use tickwheel_wire::{
    Timestamp,
    job::{
        DayRule, DstGap, DstOverlap, FiringRules, JobSpec, JobSpecError, LabelError, Misfire, Overlap, POOL_DEFAULT,
        Priority, RetryPolicy, START_TO_CLOSE_MS_DEFAULT, ScheduleListBuf, ScheduleSpec, labels, labels_text,
    },
};

/// When a job fires.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// By a cron expression of five to seven fields (or `@daily` and kin) in an IANA zone.
    Cron {
        /// The expression.
        expression: String,
        /// The zone, such as `Europe/Berlin`.
        zone: String,
    },
    /// At `anchor + k * every`.
    Interval {
        /// The interval, at least 1 ms.
        every: Duration,
        /// The time that the multiples are counted from; none: the time of submission.
        anchor: Option<Timestamp>,
    },
    /// Once, at a time. A time in the past fires at once, but as one of several schedules not at all.
    Once {
        /// The time.
        at: Timestamp,
    },
    /// Once, some time after the node has accepted it.
    After {
        /// The delay.
        delay: Duration,
    },
    /// Some time after the submission, and then after the end of each execution.
    FixedDelay {
        /// The delay, at least 1 ms.
        delay: Duration,
    },
}

impl Schedule {
    /// As the protocol carries it.
    pub fn spec(&self) -> ScheduleSpec<'_> {
        match self {
            Self::Cron { expression, zone } => ScheduleSpec::Cron { expression, zone },
            Self::Interval { every, anchor } => {
                ScheduleSpec::Interval { every_us: micros(*every), anchor: anchor.unwrap_or(Timestamp::MAX) }
            }
            Self::Once { at } => ScheduleSpec::Once { at: *at },
            Self::After { delay } => ScheduleSpec::After { delay_us: micros(*delay) },
            Self::FixedDelay { delay } => ScheduleSpec::FixedDelay { delay_us: micros(*delay) },
        }
    }
}

impl From<ScheduleSpec<'_>> for Schedule {
    fn from(spec: ScheduleSpec<'_>) -> Self {
        match spec {
            ScheduleSpec::Cron { expression, zone } => {
                Self::Cron { expression: expression.to_owned(), zone: zone.to_owned() }
            }
            ScheduleSpec::Interval { every_us, anchor } => Self::Interval {
                every: Duration::from_micros(every_us),
                anchor: (!anchor.is_never()).then_some(anchor),
            },
            ScheduleSpec::Once { at } => Self::Once { at },
            ScheduleSpec::After { delay_us } => Self::After { delay: Duration::from_micros(delay_us) },
            ScheduleSpec::FixedDelay { delay_us } => Self::FixedDelay { delay: Duration::from_micros(delay_us) },
        }
    }
}

/// A job's definition: what to run, when, and by which rules.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobDefinition {
    /// Owner of the job.
    pub tenant: String,
    /// Unique in its tenant, 1 to 255 bytes.
    pub name: String,
    /// What the worker runs: it picks its handler by this name.
    pub handler: String,
    /// When it fires.
    pub schedule: Schedule,
    /// When it fires too: further schedules, of which [`JobDefinition::schedules`] speaks.
    pub also: ScheduleListBuf,
    /// Times at which it does not fire: entries of an exclusion calendar, one per line.
    pub exclusions: String,
    /// Bytes handed to the handler.
    pub payload: Vec<u8>,
    /// Which workers run it.
    pub pool: String,
    /// How urgent it is.
    pub priority: Priority,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// Longest run of one attempt; none: without limit.
    pub start_to_close: Option<Duration>,
    /// Longest silence of a running attempt; none: no heartbeats are asked for.
    pub heartbeat: Option<Duration>,
    /// Names of errors after which no attempt follows, between commas.
    pub non_retryable: String,
    /// Which of its firings are executed.
    pub rules: FiringRules,
    /// Whether it starts paused.
    pub paused: bool,
    /// What people tell it apart by, as `key=value,key=value`, sorted by key.
    pub labels: String,
}

impl JobDefinition {
    /// Decodes the protocol's encoding.
    ///
    /// # Errors
    /// When the bytes are no definition, or hold a field that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, JobSpecError> {
        let spec = JobSpec::decode(bytes)?;
        Ok(Self {
            tenant: spec.tenant.to_owned(),
            name: spec.name.to_owned(),
            handler: spec.handler.to_owned(),
            schedule: spec.schedule.into(),
            also: spec.also.into(),
            exclusions: spec.exclusions.to_owned(),
            payload: spec.payload.to_vec(),
            pool: spec.pool.to_owned(),
            priority: spec.priority,
            retry: spec.retry,
            start_to_close: optional_millis(spec.start_to_close_ms),
            heartbeat: optional_millis(spec.heartbeat_ms),
            non_retryable: spec.non_retryable.to_owned(),
            rules: spec.rules,
            paused: spec.paused,
            labels: spec.labels.to_owned(),
        })
    }

    /// All its schedules. The job fires at the times of each, and once where some have the same.
    pub fn schedules(&self) -> impl Iterator<Item = Schedule> {
        std::iter::once(self.schedule.clone()).chain(self.also.as_list().iter().map(Schedule::from))
    }

    /// The definition as the protocol carries it.
    pub fn spec(&self) -> JobSpec<'_> {
        JobSpec {
            tenant: &self.tenant,
            name: &self.name,
            handler: &self.handler,
            schedule: self.schedule.spec(),
            also: self.also.as_list(),
            exclusions: &self.exclusions,
            payload: &self.payload,
            pool: &self.pool,
            priority: self.priority,
            retry: self.retry,
            start_to_close_ms: self.start_to_close.map_or(0, millis),
            heartbeat_ms: self.heartbeat.map_or(0, millis),
            non_retryable: &self.non_retryable,
            rules: self.rules,
            paused: self.paused,
            labels: &self.labels,
        }
    }

    /// The labels, keys and values, sorted by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        labels(&self.labels)
    }
}

/// A submission: a definition in the making, and how it is to be submitted.
///
/// Only name, handler and a schedule are needed; [`crate::Client::submit`] checks the rules.
///
/// ```
/// use std::time::Duration;
/// use tickwheel_client::JobBuilder;
///
/// let nightly = JobBuilder::new("nightly-report").handler("report").cron("30 2 * * *").zone("Europe/Berlin");
/// let poll = JobBuilder::new("poll").handler("poll").every(Duration::from_secs(10)).payload("https://example.org/feed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct JobBuilder {
    pub(crate) definition: JobDefinition,
    pub(crate) scheduled: bool,
    /// The first label that was none.
    pub(crate) wrong_label: Option<LabelError>,
    pub(crate) expected_revision: u64,
    pub(crate) idempotency_key: Option<Vec<u8>>,
    pub(crate) idempotency_window: Duration,
}

impl JobBuilder {
    /// A job of this name, with every policy at its default. The tenant is that of the client.
    pub fn new(name: impl Into<String>) -> Self {
        let definition = JobDefinition {
            tenant: String::new(),
            name: name.into(),
            handler: String::new(),
            schedule: Schedule::Once { at: Timestamp::EPOCH },
            also: ScheduleListBuf::default(),
            exclusions: String::new(),
            payload: Vec::new(),
            pool: POOL_DEFAULT.to_owned(),
            priority: Priority::P1,
            retry: RetryPolicy::default(),
            start_to_close: optional_millis(START_TO_CLOSE_MS_DEFAULT),
            heartbeat: None,
            non_retryable: String::new(),
            rules: FiringRules::PLAIN,
            paused: false,
            labels: String::new(),
        };
        Self {
            definition,
            scheduled: false,
            wrong_label: None,
            expected_revision: 0,
            idempotency_key: None,
            idempotency_window: Duration::ZERO,
        }
    }

    /// What the worker runs: the name of its handler.
    pub fn handler(mut self, handler: impl Into<String>) -> Self {
        self.definition.handler = handler.into();
        self
    }

    /// Another tenant than the client's.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.definition.tenant = tenant.into();
        self
    }

    /// Fires when it says so, as one of the variants; the methods below are shorter.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.definition.schedule = schedule;
        self.scheduled = true;
        self
    }

    /// Fires at the times of this schedule too, once where it coincides with another. May be given up to 15 times, but not beside
    /// [`Schedule::After`] or [`Schedule::FixedDelay`], nor with them.
    ///
    /// ```
    /// use tickwheel_client::{JobBuilder, Schedule};
    ///
    /// let saturdays = Schedule::Cron { expression: "0 10 * * SAT".to_owned(), zone: "Europe/Paris".to_owned() };
    /// let opening = JobBuilder::new("opening").handler("open").cron("0 8 * * MON-FRI").zone("Europe/Paris").also(&saturdays);
    /// ```
    pub fn also(mut self, schedule: &Schedule) -> Self {
        self.definition.also.push(&schedule.spec());
        self
    }

    /// Does not fire at the times that an entry names: `2026-12-25`, `2026-12-24..2027-01-01`, `12-25`, `SAT,SUN`, `weekends`,
    /// `2026-12-24T14:00..2026-12-24T18:00`, `cron * 12-13 * * *`. May be given several times; `zone Europe/Berlin` is the zone of the entries
    /// behind it, which else is that of the first cron expression, or UTC. Not with [`Schedule::FixedDelay`].
    pub fn exclude(mut self, entry: impl AsRef<str>) -> Self {
        let exclusions = &mut self.definition.exclusions;
        if !exclusions.is_empty() {
            exclusions.push('\n');
        }
        exclusions.push_str(entry.as_ref());
        self
    }

    /// Does not fire at the times of a calendar that the server keeps, as it stands at the time ([`crate::Client::set_calendar`]): it has to be
    /// there when the job is submitted. At most 16 may be named. Days and times before the first zone that the calendar states are those of the zone
    /// that an entry given before has said, or of the job's first cron expression, or UTC.
    pub fn exclude_calendar(self, name: impl AsRef<str>) -> Self {
        self.exclude(format!("calendar {}", name.as_ref()))
    }

    /// Fires by a cron expression, in UTC unless [`JobBuilder::zone`] follows.
    pub fn cron(self, expression: impl Into<String>) -> Self {
        self.schedule(Schedule::Cron { expression: expression.into(), zone: "UTC".to_owned() })
    }

    /// The IANA zone of the cron expression, given after it.
    ///
    /// # Panics
    /// If the schedule is no cron expression.
    pub fn zone(mut self, name: impl Into<String>) -> Self {
        match &mut self.definition.schedule {
            Schedule::Cron { zone, .. } => *zone = name.into(),
            other => panic!("a zone belongs to a cron expression, not to {other:?}"),
        }
        self
    }

    /// Fires at a fixed interval, counted from the submission.
    pub fn every(self, every: Duration) -> Self {
        self.schedule(Schedule::Interval { every, anchor: None })
    }

    /// Fires some time after the submission, and then after the end of each execution.
    pub fn fixed_delay(self, delay: Duration) -> Self {
        self.schedule(Schedule::FixedDelay { delay })
    }

    /// Fires once, at a time; at once if that is past.
    pub fn at(self, at: Timestamp) -> Self {
        self.schedule(Schedule::Once { at })
    }

    /// Fires once, some time after the node has accepted it.
    pub fn after(self, delay: Duration) -> Self {
        self.schedule(Schedule::After { delay })
    }

    /// Bytes handed to the handler. Default none.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.definition.payload = payload.into();
        self
    }

    /// Which workers run it. Default `standard`.
    pub fn pool(mut self, pool: impl Into<String>) -> Self {
        self.definition.pool = pool.into();
        self
    }

    /// How urgent it is. Default P1.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.definition.priority = priority;
        self
    }

    /// How failed attempts are repeated. Default: 3 attempts, after 1 s, 2 s, with 20 % jitter.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.definition.retry = retry;
        self
    }

    /// Longest run of one attempt; none: without limit. Default 1 h.
    pub fn start_to_close(mut self, limit: Option<Duration>) -> Self {
        self.definition.start_to_close = limit;
        self
    }

    /// Longest silence of a running attempt; the worker library sends the signs of life by itself. Default: none asked for.
    pub fn heartbeat(mut self, limit: Option<Duration>) -> Self {
        self.definition.heartbeat = limit;
        self
    }

    /// Begins each execution once, and never again whatever became of it: one attempt, which is not repeated when its worker is lost.
    pub fn at_most_once(mut self) -> Self {
        self.definition.retry.attempts_max = 1;
        self
    }

    /// An error of this name is not followed by another attempt, as if the worker had said so. May be given several times; a name holds
    /// no comma.
    pub fn non_retryable(mut self, error: impl AsRef<str>) -> Self {
        let names = &mut self.definition.non_retryable;
        if !names.is_empty() {
            names.push(',');
        }
        names.push_str(error.as_ref());
        self
    }

    /// Which of its firings are executed, all rules at once; the methods below set one each.
    pub fn rules(mut self, rules: FiringRules) -> Self {
        self.definition.rules = rules;
        self
    }

    /// What happens to missed firings. Default `fire-once`.
    pub fn misfire(mut self, misfire: Misfire) -> Self {
        self.definition.rules.misfire = misfire;
        self
    }

    /// Most missed firings that [`Misfire::FireAll`] executes, 1 to 1,000. Default 100.
    pub fn misfire_max(mut self, count: u32) -> Self {
        self.definition.rules.misfire_max = count;
        self
    }

    /// How late a firing may be and still be executed. Default: [`Misfire::Skip`] allows a minute, the others any time.
    pub fn misfire_grace(mut self, grace: Duration) -> Self {
        self.definition.rules.misfire_grace_ms = millis(grace);
        self
    }

    /// What happens when it is due while it runs. Default `skip`.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.definition.rules.overlap = overlap;
        self
    }

    /// Most firings that [`Overlap::BufferAll`] lets wait, and most executions that [`Overlap::Allow`] lets be in flight, 1 to 1,000.
    /// Default 100.
    pub fn overlap_max(mut self, count: u32) -> Self {
        self.definition.rules.overlap_max = count;
        self
    }

    /// How late an execution may begin; later it is recorded as too late. Default: any time.
    pub fn schedule_to_start(mut self, limit: Option<Duration>) -> Self {
        self.definition.rules.schedule_to_start_ms = limit.map_or(0, millis);
        self
    }

    /// Executions failing one after another that pause the job; 0: it goes on, the default.
    pub fn pause_after_failures(mut self, count: u16) -> Self {
        self.definition.rules.pause_after_failures = count;
        self
    }

    /// No firing comes before this. Default: none does anyway.
    pub fn starts_at(mut self, at: Timestamp) -> Self {
        self.definition.rules.starts_at = at;
        self
    }

    /// No firing comes at this time or after it. Default: they never end.
    pub fn ends_at(mut self, at: Timestamp) -> Self {
        self.definition.rules.ends_at = at;
        self
    }

    /// Executions in all, those of triggers included, after which the job has finished; 0: without limit, the default.
    pub fn executions_max(mut self, count: u32) -> Self {
        self.definition.rules.executions_max = count;
        self
    }

    /// Each firing is put off by up to this long, but not up to the next; how long follows from job and firing. Default: not.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.definition.rules.jitter_ms = millis(jitter);
        self
    }

    /// For a cron schedule: what becomes of local times that a change of the clock leaves out. Default: as in Vixie cron.
    pub fn dst_gap(mut self, gap: DstGap) -> Self {
        self.definition.rules.dst_gap = gap;
        self
    }

    /// For a cron schedule: when local times fire that a change of the clock shows twice. Default: as in Vixie cron.
    pub fn dst_overlap(mut self, overlap: DstOverlap) -> Self {
        self.definition.rules.dst_overlap = overlap;
        self
    }

    /// For a cron schedule: whether a day has to match one of its day fields or both, where both are restricted. Default: one.
    pub fn day_rule(mut self, rule: DayRule) -> Self {
        self.definition.rules.day_rule = rule;
        self
    }

    /// Whether it starts paused. Default no.
    pub fn paused(mut self, paused: bool) -> Self {
        self.definition.paused = paused;
        self
    }

    /// A label, which replaces one of the same key; at most 32. A key has 1 to 63 bytes of letters, digits and `._/-`, a value 0 to
    /// 255 bytes without control characters and commas: what is none is said when the job is submitted.
    pub fn label(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (key, value) = (key.as_ref(), value.as_ref());
        let others = self.definition.labels().filter(|(other, _)| *other != key);
        match labels_text(others.chain([(key, value)])) {
            Ok(text) => self.definition.labels = text,
            Err(error) => self.wrong_label = self.wrong_label.or(Some(error)),
        }
        self
    }

    /// With an upsert: the revision that the job must have. Default: any.
    pub fn expected_revision(mut self, revision: u64) -> Self {
        self.expected_revision = revision;
        self
    }

    /// Submissions with the same key within the window are one, whatever became of the sender meanwhile; at most 64 bytes.
    /// Default: a random key per submission, so that the library itself may repeat it after a lost connection.
    pub fn idempotency_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// How long the key is remembered. Default 24 h.
    pub fn idempotency_window(mut self, window: Duration) -> Self {
        self.idempotency_window = window;
        self
    }

    /// The definition so far.
    pub const fn definition(&self) -> &JobDefinition {
        &self.definition
    }
}

impl From<JobDefinition> for JobBuilder {
    fn from(definition: JobDefinition) -> Self {
        Self { definition, scheduled: true, ..Self::new("") }
    }
}

/// Whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn optional_millis(millis: u32) -> Option<Duration> {
    (millis != 0).then(|| Duration::from_millis(millis.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_survives_its_encoding() {
        let schedules = [
            Schedule::Cron { expression: "*/5 * * * *".to_owned(), zone: "Europe/Berlin".to_owned() },
            Schedule::Interval { every: Duration::from_millis(1500), anchor: None },
            Schedule::Interval { every: Duration::from_secs(1), anchor: Some(Timestamp::from_secs(7)) },
            Schedule::Once { at: Timestamp::from_secs(9) },
            Schedule::After { delay: Duration::from_secs(3) },
            Schedule::FixedDelay { delay: Duration::from_secs(4) },
        ];
        let daily = Schedule::Cron { expression: "@daily".to_owned(), zone: "UTC".to_owned() };
        for schedule in schedules {
            let definition = JobBuilder::new("n")
                .tenant("t")
                .handler("h")
                .schedule(schedule.clone())
                .also(&daily)
                .also(&schedule)
                .exclude("zone Europe/Berlin")
                .exclude("12-25")
                .exclude_calendar("holidays")
                .payload("p")
                .priority(Priority::P0)
                .start_to_close(None)
                .heartbeat(Some(Duration::from_secs(2)))
                .non_retryable("Refused")
                .non_retryable("Gone")
                .misfire(Misfire::FireAll)
                .misfire_max(7)
                .misfire_grace(Duration::from_secs(60))
                .schedule_to_start(Some(Duration::from_millis(1_500)))
                .pause_after_failures(3)
                .starts_at(Timestamp::from_secs(5))
                .ends_at(Timestamp::from_secs(50))
                .executions_max(9)
                .jitter(Duration::from_secs(1))
                .paused(true)
                .label("team", "ops")
                .label("env", "prod")
                .definition;
            let mut bytes = Vec::new();
            definition.spec().encode(&mut bytes);
            assert_eq!(definition.exclusions, "zone Europe/Berlin\n12-25\ncalendar holidays");
            assert!(definition.schedules().eq([schedule.clone(), daily.clone(), schedule]));
            assert_eq!(JobDefinition::decode(&bytes), Ok(definition));
        }
    }

    #[test]
    fn labels_are_sorted_replaced_by_key_and_refused_when_they_are_none() {
        let job = JobBuilder::new("n").label("team", "ops").label("env", "test").label("env", "prod");
        assert_eq!((&*job.definition.labels, &job.wrong_label), ("env=prod,team=ops", &None));
        let wrong = job.label("a", "1,b=2").label("", "");
        assert!(matches!(wrong.wrong_label, Some(LabelError::ValueCharacter { character: ',', .. })));
        assert_eq!(wrong.definition.labels().collect::<Vec<_>>(), [("env", "prod"), ("team", "ops")]);
    }

    #[test]
    fn a_plain_definition_has_the_protocols_defaults() {
        let built = JobBuilder::new("n").tenant("t").handler("h").at(Timestamp::from_secs(1));
        let plain = JobSpec::new("t", "n", "h", ScheduleSpec::Once { at: Timestamp::from_secs(1) });
        assert_eq!(built.definition.spec(), plain);
    }
}
