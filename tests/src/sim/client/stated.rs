//! What requests state of the job that they mean, and what has to follow from it.

use crate::sim::{
    auditor::Auditor,
    model::Job,
    plan::Stated,
    violation::{Violation, demand},
};
use tickwheel_wire::{JobId, frame::request::ExpectedJob, job::Overlap};

/// What a request states, and how its job stood then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meant {
    /// What it states.
    pub expected: ExpectedJob,
    /// The job, its revision, and the newest event by which a client had changed it.
    found: Option<(JobId, u64, u64)>,
    /// Nothing that was asked for before may still come.
    is_sure: bool,
}

impl Meant {
    pub fn new(stated: Stated, found: Option<&Job>, is_sure: bool) -> Self {
        let found = found.map(|job| (job.id, job.revision, job.changed_by));
        let expected = match (stated, found) {
            (Stated::Seen(job, revision), _) => ExpectedJob { job, revision },
            (Stated::Right, Some((job, revision, _))) => ExpectedJob { job, revision },
            (Stated::OtherRevision, Some((job, revision, _))) => ExpectedJob { job, revision: revision + 7 },
            (Stated::OtherRevision, None) => ExpectedJob { revision: 1, ..ExpectedJob::default() },
            (Stated::OtherJob, Some((job, revision, _))) => {
                ExpectedJob { job: JobId::new(job.partition(), job.generation() + 1, job.slot()), revision }
            }
            _ => ExpectedJob::default(),
        };
        Self { expected, found, is_sure }
    }

    /// The same for a submission, which states a revision only.
    pub fn of_submission(stated: Stated, found: Option<&Job>, is_sure: bool) -> Self {
        let stated = if stated == Stated::OtherJob { Stated::Nothing } else { stated };
        Self::new(stated, found, is_sure)
    }

    /// Nothing may be done that was stated of another job or revision.
    pub fn check_done(&self) -> Result<(), Violation> {
        let is_other = self.is_other_than(self.found.map(|(job, revision, _)| (job, revision)));
        demand!(
            !(is_other && self.found.is_some() && self.is_sure),
            Jobs,
            "stated was {:?}, the job was {:?}",
            self.expected,
            self.found
        );
        Ok(())
    }

    /// Whether it was right to refuse it because of what it states; `now` is the job, `is_repeated` whether it was sent again.
    pub fn may_conflict(&self, now: Option<&Job>, is_repeated: bool) -> bool {
        let then = self.found.map(|(job, revision, _)| (job, revision));
        let is_doubtful = self.expected.revision != 0 && (is_repeated || !self.is_sure);
        is_doubtful || self.is_other_than(then) || self.is_other_than(now.map(|job| (job.id, job.revision)))
    }

    const fn is_other_than(&self, job: Option<(JobId, u64)>) -> bool {
        match job {
            _ if self.expected.revision == 0 => false,
            Some((job, revision)) => job.raw() != self.expected.job.raw() || revision != self.expected.revision,
            None => true,
        }
    }

    /// What was refused has changed nothing.
    pub fn check_unchanged(&self, is_repeated: bool, auditor: &Auditor) -> Result<(), Violation> {
        let Some((id, _, changed_by)) = self.found.filter(|_| self.is_sure && !is_repeated) else { return Ok(()) };
        let model = auditor.partition(id.partition());
        let Some(job) = model.job_by_id(id) else {
            demand!(model.expired.contains(&id), Jobs, "job {id} is gone, which only a refused request asked for");
            return Ok(());
        };
        // One that fails may have paused itself, one that overlaps asked its execution to end.
        let changes_itself = job.rules.pause_after_failures > 0
            || matches!(job.rules.overlap, Overlap::CancelRunning | Overlap::TerminateRunning);
        let is_unchanged = job.changed_by == changed_by || changes_itself;
        demand!(is_unchanged, Jobs, "refused, but event {} has changed it: {job:?}", job.changed_by);
        Ok(())
    }
}
