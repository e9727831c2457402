//! Which of a job's firings are executed, and when: everything between its schedule and its executions.
//!
//! A firing is *missed* when it comes due while nothing can fire it (the server is down, no worker is free) and it *overlaps* when
//! it comes due while an execution of the job is in flight. The rules are read in this order, at the moment at which an
//! execution could begin:
//!
//! 1. Firings outside the window (`starts_at`, `ends_at`, `executions_max`) do not exist, nor do those that are excluded.
//! 2. Firings that are later than `misfire_grace_ms` are missed for good, and counted.
//! 3. Those that came due while the job ran follow `overlap`, the others `misfire`; where more wait than may, the oldest go.
//! 4. The one that is chosen begins, unless it is later than `schedule_to_start_ms`: then it is recorded as too late.

use super::{
    JobSpec, JobSpecError, ScheduleSpec,
    fields::{FieldWriter, fixed},
    range,
};
use crate::{Timestamp, layout::wire_enum, limits};

wire_enum! {
    /// What happens to firings that were due while nothing could fire them.
    pub enum Misfire: u8 {
        /// One execution stands for all that were missed.
        FireOnce = 0 => "fire-once",
        /// Each is executed, one after another, the newest `misfire_max` of them.
        FireAll = 1 => "fire-all",
        /// Those that are later than the grace period are not executed.
        Skip = 2 => "skip",
    }
}

wire_enum! {
    /// What happens when a job is due while an execution of it is in flight.
    pub enum Overlap: u8 {
        /// The firing is skipped, and counted.
        Skip = 0 => "skip",
        /// The newest such firing is executed afterwards; those before it are skipped.
        BufferOne = 1 => "buffer-one",
        /// Each is executed afterwards, one after another, the newest `overlap_max` of them.
        BufferAll = 2 => "buffer-all",
        /// The execution is asked to end, and the firing is executed once it has.
        CancelRunning = 3 => "cancel-running",
        /// The execution is ended at once, its worker told so, and the firing is executed.
        TerminateRunning = 4 => "terminate-running",
        /// The firing is executed beside those in flight, of which there are at most `overlap_max`; with as many it is skipped, and counted.
        Allow = 5 => "allow",
    }
}

wire_enum! {
    /// What becomes of a local time that a change of the clock leaves out.
    pub enum DstGap: u8 {
        /// As in Vixie cron: `skip` if the minute or hour field begins with `*`, else `fire-after`.
        Vixie = 0 => "vixie",
        /// Nothing.
        Skip = 1 => "skip",
        /// A fire at the first instant after the gap; one for all of a gap.
        FireAfter = 2 => "fire-after",
    }
}

wire_enum! {
    /// When a local time fires that a change of the clock shows twice.
    pub enum DstOverlap: u8 {
        /// As in Vixie cron: `both` if the minute or hour field begins with `*`, else `first`.
        Vixie = 0 => "vixie",
        /// When it is shown first.
        First = 1 => "first",
        /// When it is shown again.
        Second = 2 => "second",
        /// Each time.
        Both = 3 => "both",
    }
}

wire_enum! {
    /// Which days a cron expression means that restricts both the day of the month and the day of the week.
    #[derive(Default)]
    pub enum DayRule: u8 {
        /// Those that match one of the two, as in crontab.
        #[default]
        Or = 0 => "or",
        /// Those that match both.
        And = 1 => "and",
    }
}

/// Which of a job's firings are executed. See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiringRules {
    /// What happens to missed firings. Default `fire-once`.
    pub misfire: Misfire,
    /// Most missed firings that `fire-all` executes, 1 to 1,000. Default 100.
    pub misfire_max: u32,
    /// How late a firing may begin to be executed, in milliseconds; 0: `skip` allows a minute, the others any time. Default 0.
    pub misfire_grace_ms: u32,
    /// What happens when it is due while it runs. Default `skip`.
    pub overlap: Overlap,
    /// Most firings that `buffer-all` lets wait, and most executions that `allow` lets be in flight, 1 to 1,000. Default 100.
    pub overlap_max: u32,
    /// How late an execution may begin, in milliseconds; later it is recorded as `too-late` and not begun. 0: any time, the default.
    pub schedule_to_start_ms: u32,
    /// Executions failing one after another that pause the job; 0: it goes on, the default.
    pub pause_after_failures: u16,
    /// No firing comes before it. Default [`Timestamp::EPOCH`].
    pub starts_at: Timestamp,
    /// No firing comes at or after it. Default [`Timestamp::MAX`].
    pub ends_at: Timestamp,
    /// Executions in all, those of triggers included, after which the job has finished; 0: without limit, the default.
    pub executions_max: u32,
    /// Each firing is put off by up to this long, in milliseconds, 0 to 86,400,000, but not up to the next one. Default 0.
    pub jitter_ms: u32,
    /// For a cron schedule: what becomes of local times that do not exist. Default `vixie`.
    pub dst_gap: DstGap,
    /// For a cron schedule: when local times fire that come twice. Default `vixie`.
    pub dst_overlap: DstOverlap,
    /// For a cron schedule: which days it means if both of its day fields are restricted. Default `or`.
    pub day_rule: DayRule,
}

impl FiringRules {
    /// Those of a job that says nothing.
    pub const PLAIN: Self = Self {
        misfire: Misfire::FireOnce,
        misfire_max: 100,
        misfire_grace_ms: 0,
        overlap: Overlap::Skip,
        overlap_max: 100,
        schedule_to_start_ms: 0,
        pause_after_failures: 0,
        starts_at: Timestamp::EPOCH,
        ends_at: Timestamp::MAX,
        executions_max: 0,
        jitter_ms: 0,
        dst_gap: DstGap::Vixie,
        dst_overlap: DstOverlap::Vixie,
        day_rule: DayRule::Or,
    };
}

impl Default for FiringRules {
    fn default() -> Self {
        Self::PLAIN
    }
}

mod tag {
    pub const MISFIRE_MAX: u8 = 18;
    pub const MISFIRE_GRACE: u8 = 19;
    pub const OVERLAP_MAX: u8 = 20;
    pub const SCHEDULE_TO_START: u8 = 21;
    pub const PAUSE_AFTER_FAILURES: u8 = 22;
    pub const STARTS_AT: u8 = 23;
    pub const ENDS_AT: u8 = 24;
    pub const EXECUTIONS_MAX: u8 = 25;
    pub const JITTER: u8 = 26;
    pub const DST_GAP: u8 = 27;
    pub const DST_OVERLAP: u8 = 28;
    pub const DAY_RULE: u8 = 36;
}

impl FiringRules {
    /// Appends all but `misfire` and `overlap`, whose tags are older, and what [`Self::encode_late`] does.
    pub(super) fn encode(&self, fields: &mut FieldWriter<'_>) {
        let default = Self::default();
        fields.fixed(tag::MISFIRE_MAX, self.misfire_max, default.misfire_max);
        fields.fixed(tag::MISFIRE_GRACE, self.misfire_grace_ms, default.misfire_grace_ms);
        fields.fixed(tag::OVERLAP_MAX, self.overlap_max, default.overlap_max);
        fields.fixed(tag::SCHEDULE_TO_START, self.schedule_to_start_ms, default.schedule_to_start_ms);
        fields.fixed(tag::PAUSE_AFTER_FAILURES, self.pause_after_failures, default.pause_after_failures);
        fields.fixed(tag::STARTS_AT, self.starts_at, default.starts_at);
        fields.fixed(tag::ENDS_AT, self.ends_at, default.ends_at);
        fields.fixed(tag::EXECUTIONS_MAX, self.executions_max, default.executions_max);
        fields.fixed(tag::JITTER, self.jitter_ms, default.jitter_ms);
        fields.fixed(tag::DST_GAP, self.dst_gap, default.dst_gap);
        fields.fixed(tag::DST_OVERLAP, self.dst_overlap, default.dst_overlap);
    }

    /// Appends the rules whose tags come behind those of everything else.
    pub(super) fn encode_late(&self, fields: &mut FieldWriter<'_>) {
        fields.fixed(tag::DAY_RULE, self.day_rule, Self::PLAIN.day_rule);
    }

    pub(super) fn decode_field(&mut self, tag: u8, value: &[u8]) -> Result<(), JobSpecError> {
        match tag {
            tag::MISFIRE_MAX => self.misfire_max = fixed(value, "misfire_max")?,
            tag::MISFIRE_GRACE => self.misfire_grace_ms = fixed(value, "misfire_grace_ms")?,
            tag::OVERLAP_MAX => self.overlap_max = fixed(value, "overlap_max")?,
            tag::SCHEDULE_TO_START => self.schedule_to_start_ms = fixed(value, "schedule_to_start_ms")?,
            tag::PAUSE_AFTER_FAILURES => self.pause_after_failures = fixed(value, "pause_after_failures")?,
            tag::STARTS_AT => self.starts_at = fixed(value, "starts_at")?,
            tag::ENDS_AT => self.ends_at = fixed(value, "ends_at")?,
            tag::EXECUTIONS_MAX => self.executions_max = fixed(value, "executions_max")?,
            tag::JITTER => self.jitter_ms = fixed(value, "jitter_ms")?,
            tag::DST_GAP => self.dst_gap = fixed(value, "dst_gap")?,
            tag::DST_OVERLAP => self.dst_overlap = fixed(value, "dst_overlap")?,
            tag::DAY_RULE => self.day_rule = fixed(value, "day_rule")?,
            unknown => return Err(JobSpecError::UnknownField(unknown)),
        }
        Ok(())
    }

    /// Checks the ranges, and that no two rules of `job` contradict each other or its schedules.
    pub(super) fn validate(&self, job: &JobSpec<'_>) -> Result<(), JobSpecError> {
        range("misfire_max", self.misfire_max.into(), 1, limits::CATCH_UP_MAX.into())?;
        range("overlap_max", self.overlap_max.into(), 1, limits::CATCH_UP_MAX.into())?;
        range("jitter_ms", self.jitter_ms.into(), 0, limits::JITTER_MS_MAX.into())?;
        let default = Self::default();
        let once =
            job.also.is_empty() && matches!(job.schedule, ScheduleSpec::Once { .. } | ScheduleSpec::After { .. });
        let cron = job.schedules().any(|schedule| matches!(schedule, ScheduleSpec::Cron { .. }));
        let fixed_delay = matches!(job.schedule, ScheduleSpec::FixedDelay { .. });
        let of_use_only_with = "is of use only with";
        let makes_no_sense_with = "makes no sense with";
        let rules = [
            (
                self.misfire_max != default.misfire_max && self.misfire != Misfire::FireAll,
                ("misfire_max", of_use_only_with, "misfire = fire-all"),
            ),
            (
                self.overlap_max != default.overlap_max && !matches!(self.overlap, Overlap::BufferAll | Overlap::Allow),
                ("overlap_max", of_use_only_with, "overlap = buffer-all or allow"),
            ),
            (self.dst_gap != default.dst_gap && !cron, ("dst_gap", of_use_only_with, "cron")),
            (self.dst_overlap != default.dst_overlap && !cron, ("dst_overlap", of_use_only_with, "cron")),
            (self.day_rule != default.day_rule && !cron, ("day_rule", of_use_only_with, "cron")),
            (self.overlap != Overlap::Skip && fixed_delay, ("overlap", makes_no_sense_with, "a fixed delay")),
            (!job.exclusions.is_empty() && fixed_delay, ("exclusions", makes_no_sense_with, "a fixed delay")),
            (self.starts_at >= self.ends_at, ("ends_at", "is not after", "starts_at")),
            (once && self.starts_at != default.starts_at, ("starts_at", makes_no_sense_with, "a single time")),
            (once && self.ends_at != default.ends_at, ("ends_at", makes_no_sense_with, "a single time")),
            (once && self.executions_max != 0, ("executions_max", makes_no_sense_with, "a single time")),
        ];
        match rules.into_iter().find(|(is_broken, _)| *is_broken) {
            Some((_, (field, relation, other))) => Err(JobSpecError::Contradiction { field, relation, other }),
            None => Ok(()),
        }
    }
}
