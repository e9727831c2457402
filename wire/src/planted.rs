//! Mistakes planted on purpose, one at a time, to show that the simulator finds them.
//!
//! Without the feature `planted`, which only tests turn on, [`Mistake::is_made`] is the constant `false` and nothing of this is left in the
//! program. With it, a thread may be told to make one mistake; it is at the place of each that one reads what it is.

/// A plausible mistake in the code that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mistake {
    /// The log reports commits as durable as soon as they are appended.
    AcknowledgedBeforeSync,
    /// The log reports the newest commit that is done, whatever became of those before it.
    AcknowledgedOutOfOrder,
    /// Commits are written and not synced.
    WriteNotSynced,
    /// An unreadable end of a log is damage.
    TornTailTakenForDamage,
    /// Damage in the middle of a log is its end.
    DamageTakenForTornTail,
    /// What recovery has found at the end of a log is not made durable.
    TailNotMadeDurable,
    /// A segment is removed when any of its partitions has a snapshot that covers it.
    LogTrimmedTooFar,
    /// Jobs that change while a snapshot is walked are written as they have become.
    SnapshotSeesLaterChanges,
    /// Outputs leave one commit too early.
    ReleasedOneCommitEarly,
    /// What a full queue between shards does not take is dropped.
    FullQueueDrops,
    /// An attempt that was never delivered gives its token back.
    TokenReused,
    /// An entry that is armed again is lost now and then.
    RearmedEntryLost,
    /// A report on the previous attempt ends the running one.
    PreviousAttemptCompletes,
    /// A report counts whichever worker sends it.
    AnyWorkerCompletes,
    /// The limit of an attempt counts by the wall clock.
    TimeoutCountsWallTime,
    /// Idempotency keys are forgotten a second before their time.
    KeyForgottenEarly,
    /// Missed firings are not accounted for.
    MissedNotCounted,
    /// An attempt that failed does not count.
    FailedAttemptNotCounted,
    /// A resumed job is not looked at again.
    ResumedJobNotArmed,
    /// A worker's slot is not freed when its attempt failed.
    SlotLeaked,
    /// A job created anew has the identity of the one that was deleted.
    IdentityReused,
    /// A job that is paused fires.
    PausedJobFires,
    /// The rest of a frame that was cut in two is dropped.
    SplitFrameLost,
    /// The end of a session that has timed out is not announced.
    EndNotAnnounced,
    /// A report that counted is called stale while the next attempt runs.
    CountedReportStale,
    /// What was worked out for one firing of a cron schedule answers for another one.
    MemoOfAnotherFiring,
    /// A silent attempt is left alone.
    SilenceNotLimited,
    /// Watchers are not told of attempts that the server ends.
    EndNotWatched,
    /// A new capacity forgets the slots that are lent.
    LentSlotsForgotten,
    /// A local time that is shown twice fires again.
    RepeatedTimeFiresAgain,
    /// What recovery has found in the segment before the last is not made durable.
    FormerSegmentNotMadeDurable,
    /// The number of a session that is over names the next one in its place.
    SessionNumberReused,
    /// What a lane took before it was blocked still counts as waiting.
    BlockedLaneMiscounted,
    /// One firing more waits than may.
    OneMoreWaits,
    /// An execution begins that is too late.
    LateExecutionBegins,
    /// A snapshot does not say why firings wait.
    StandingsNotInSnapshot,
    /// Failures in a row do not pause the job.
    FailingJobGoesOn,
    /// A snapshot leaves backlogs out.
    BacklogsNotInSnapshot,
    /// A dead letter can be redriven again and again.
    RedrivenStaysDead,
    /// A replaced definition fires at first in a time that is excluded.
    ExclusionsForgottenAtReplacement,
    /// What fires first behind an excluded stretch is excluded with it.
    FiringAtStretchEndLost,
    /// Two schedules that coincide fire twice.
    CoincidingSchedulesFireTwice,
    /// Jitter is drawn from the moment of the search, so that a firing moves when it is found anew.
    JitterDrawnAnew,
    /// Jitter puts a firing off beyond the next one.
    JitterPastNextFiring,
    /// A replaced job keeps the labels that it had.
    ReplacedJobKeepsLabels,
    /// A page of a list begins behind a job that the page before has not looked at.
    PageSkipsJob,
    /// The identity that a command states is compared, the revision is not.
    StatedRevisionIgnored,
    /// Overlap policy `allow` lets one more execution run than it may.
    OneMoreRuns,
    /// Next firings that were found before a calendar was set anew stay as they are.
    CalendarNotFollowed,
    /// What is known of several executions of a job in flight is not part of a snapshot.
    NumbersNotInSnapshot,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 50] = [
        Self::AcknowledgedBeforeSync,
        Self::AcknowledgedOutOfOrder,
        Self::WriteNotSynced,
        Self::TornTailTakenForDamage,
        Self::DamageTakenForTornTail,
        Self::TailNotMadeDurable,
        Self::LogTrimmedTooFar,
        Self::SnapshotSeesLaterChanges,
        Self::ReleasedOneCommitEarly,
        Self::FullQueueDrops,
        Self::TokenReused,
        Self::RearmedEntryLost,
        Self::PreviousAttemptCompletes,
        Self::AnyWorkerCompletes,
        Self::TimeoutCountsWallTime,
        Self::KeyForgottenEarly,
        Self::MissedNotCounted,
        Self::FailedAttemptNotCounted,
        Self::ResumedJobNotArmed,
        Self::SlotLeaked,
        Self::IdentityReused,
        Self::PausedJobFires,
        Self::SplitFrameLost,
        Self::EndNotAnnounced,
        Self::CountedReportStale,
        Self::MemoOfAnotherFiring,
        Self::SilenceNotLimited,
        Self::EndNotWatched,
        Self::LentSlotsForgotten,
        Self::RepeatedTimeFiresAgain,
        Self::FormerSegmentNotMadeDurable,
        Self::SessionNumberReused,
        Self::BlockedLaneMiscounted,
        Self::OneMoreWaits,
        Self::LateExecutionBegins,
        Self::StandingsNotInSnapshot,
        Self::FailingJobGoesOn,
        Self::BacklogsNotInSnapshot,
        Self::RedrivenStaysDead,
        Self::ExclusionsForgottenAtReplacement,
        Self::FiringAtStretchEndLost,
        Self::CoincidingSchedulesFireTwice,
        Self::JitterDrawnAnew,
        Self::JitterPastNextFiring,
        Self::ReplacedJobKeepsLabels,
        Self::PageSkipsJob,
        Self::StatedRevisionIgnored,
        Self::OneMoreRuns,
        Self::NumbersNotInSnapshot,
        Self::CalendarNotFollowed,
    ];

    /// Whether this thread is to make the mistake.
    #[cfg(not(feature = "planted"))]
    #[inline(always)]
    pub const fn is_made(self) -> bool {
        false
    }

    /// Whether this thread is to make the mistake.
    #[cfg(feature = "planted")]
    #[inline]
    pub fn is_made(self) -> bool {
        made::MISTAKE.get() == Some(self)
    }

    /// From now on this thread makes `mistake`, or none.
    #[cfg(feature = "planted")]
    pub fn plant(mistake: Option<Self>) {
        made::MISTAKE.set(mistake);
    }
}

#[cfg(feature = "planted")]
mod made {
    thread_local! {
        pub static MISTAKE: std::cell::Cell<Option<super::Mistake>> = const { std::cell::Cell::new(None) };
    }
}
