//! What makes the server's jobs equal to those of a file, and doing it.
//!
//! Invariants: a job is changed only at the revision, and created only in the absence, that the plan was made for; what has changed
//! meanwhile is a conflict, and stays. A job that is as it should be is not touched. Nothing is deleted that the plan does not
//! name, nor after anything else has failed. The server compares no revision when it deletes or pauses: a job is looked at once
//! more before it is deleted, and a pause meanwhile is no change of its definition.
//! Deliberately absent: how plans look; `apply` shows them.

use super::{
    connection::present,
    error::CliError,
    times,
    views::{AppliedRow, ChangeRow},
};
use crate::jobs_file::{FileJob, write::Keys};
use std::collections::{BTreeMap, HashSet};
use tickwheel_client::{
    Client, Job, JobBuilder, JobDefinition, JobFilter, JobId, RefusalCode, RequestError, Schedule, Submission,
    SubmitMode, Timestamp,
};

/// What is to become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    Change,
    Leave,
    Delete,
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Leave => "unchanged",
            Self::Delete => "delete",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Change => "changed",
            Self::Leave => "unchanged",
            Self::Delete => "deleted",
        }
    }
}

/// One job of a plan, and what has become of it.
struct Step {
    /// `None`: it could not be looked at.
    verb: Option<Verb>,
    /// What is submitted, if anything is.
    submission: Option<JobBuilder>,
    /// The job as the plan has seen it.
    seen: Option<(JobId, u64)>,
    row: AppliedRow,
}

/// What is to be done, job by job: those of the file in its order, then those to be deleted by tenant and name.
pub(super) struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    /// Compares `jobs` with what the server has. With `prune` the jobs that it has besides, of the tenants of `jobs`, are to be
    /// deleted.
    ///
    /// # Errors
    /// When the jobs to be deleted cannot be listed. A job that cannot be looked at is a refusal of its own.
    pub async fn make(client: &Client, jobs: Vec<FileJob>, prune: bool) -> Result<Self, RequestError> {
        let mut jobs = jobs;
        for job in &mut jobs {
            if job.definition.tenant.is_empty() {
                job.definition.tenant = client.tenant().to_owned();
            }
        }
        let names = jobs.iter().map(|job| (&*job.definition.tenant, &*job.definition.name));
        let found = client.get_many(names).await;
        let superfluous = if prune { superfluous(client, &jobs).await? } else { Vec::new() };
        let wanted = jobs.into_iter().zip(found).map(|(job, found)| Step::towards(job, found));
        Ok(Self { steps: wanted.chain(superfluous.iter().map(Step::delete)).collect() })
    }

    /// What would be done.
    pub fn into_rows(self) -> Vec<AppliedRow> {
        self.steps.into_iter().map(|step| step.row).collect()
    }

    pub fn rows(&self) -> impl Iterator<Item = &AppliedRow> {
        self.steps.iter().map(|step| &step.row)
    }

    /// Does it, and says what has become of each job.
    pub async fn carry_out(mut self, client: &Client) -> Vec<AppliedRow> {
        for step in &mut self.steps {
            step.row.dry_run = false;
        }
        self.submit(client, Verb::Create, SubmitMode::Create).await;
        self.submit(client, Verb::Change, SubmitMode::Upsert).await;
        let all_went_well = self.steps.iter().all(|step| step.row.reason.is_none());
        for step in self.steps.iter_mut().filter(|step| step.verb == Some(Verb::Delete)) {
            if all_went_well {
                step.carry_out_deletion(client).await;
            } else {
                step.fail("refused", "it is kept, because not everything before it succeeded".to_owned());
            }
        }
        self.into_rows()
    }

    async fn submit(&mut self, client: &Client, verb: Verb, mode: SubmitMode) {
        let mut steps: Vec<_> = self.steps.iter_mut().filter(|step| step.verb == Some(verb)).collect();
        let builders = steps.iter().filter_map(|step| step.submission.as_ref());
        let answers = client.submit_many(builders, mode).await;
        for (step, answer) in steps.iter_mut().zip(answers) {
            match answer {
                Ok(submission) => step.submitted(&submission),
                Err(error) => step.not_submitted(client, error).await,
            }
        }
    }
}

/// The jobs that the tenants of `jobs` have besides these, by tenant and name.
async fn superfluous(client: &Client, jobs: &[FileJob]) -> Result<Vec<Job>, RequestError> {
    let mut wanted: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for FileJob { definition, .. } in jobs {
        wanted.entry(&definition.tenant).or_default().insert(&definition.name);
    }
    let mut superfluous = Vec::new();
    for (tenant, names) in wanted {
        let mut pager = client.list(JobFilter { tenant: tenant.to_owned(), ..JobFilter::default() })?;
        while let Some(row) = pager.next().await {
            let listed = present(row)?;
            superfluous.extend(listed.filter(|job| !names.contains(&*job.definition.name)));
        }
    }
    superfluous
        .sort_by(|a, b| (&a.definition.tenant, &a.definition.name).cmp(&(&b.definition.tenant, &b.definition.name)));
    Ok(superfluous)
}

impl Step {
    /// What makes the job that was `found` equal to `job`.
    fn towards(job: FileJob, found: Result<Job, RequestError>) -> Self {
        match found {
            Ok(found) => Self::onto(job, &found),
            Err(error) if error.refusal_code() == Some(RefusalCode::UnknownJob) => {
                let row = row(&job.definition, Some(Verb::Create));
                Self { verb: Some(Verb::Create), submission: Some(job.definition.into()), seen: None, row }
            }
            Err(error) => {
                let row = row(&job.definition, None);
                let mut step = Self { verb: None, submission: None, seen: None, row };
                step.refuse(error);
                step
            }
        }
    }

    fn onto(job: FileJob, found: &Job) -> Self {
        let mut current = found.definition.clone();
        current.paused = found.paused;
        let wanted = completed(job, &current);
        let verb = if wanted == current { Verb::Leave } else { Verb::Change };
        let row = AppliedRow { changes: changes(&current, &wanted), ..seen_row(found, verb) };
        let submission = (verb == Verb::Change).then(|| JobBuilder::from(wanted).expected_revision(found.revision));
        Self { verb: Some(verb), submission, seen: Some((found.id, found.revision)), row }
    }

    fn delete(found: &Job) -> Self {
        let row = seen_row(found, Verb::Delete);
        Self { verb: Some(Verb::Delete), submission: None, seen: Some((found.id, found.revision)), row }
    }

    fn submitted(&mut self, submission: &Submission) {
        self.row.revision = Some(submission.revision);
        (self.row.next_fire_at, self.row.next_fire_at_us) = time(submission.next_fire);
    }

    async fn not_submitted(&mut self, client: &Client, error: RequestError) {
        match &error {
            RequestError::Refused(refusal) if refusal.code == RefusalCode::RevisionConflict => {
                self.conflict(Some(refusal.detail).filter(|revision| *revision > 0));
            }
            RequestError::Refused(refusal) if refusal.code == RefusalCode::AlreadyExists => {
                let found = client.for_tenant(&self.row.tenant).get(&self.row.name).await;
                self.conflict(found.ok().map(|job| job.revision));
            }
            _ => self.refuse(error),
        }
    }

    async fn carry_out_deletion(&mut self, client: &Client) {
        let client = client.for_tenant(&self.row.tenant);
        let gone = |error: &RequestError| error.refusal_code() == Some(RefusalCode::UnknownJob);
        match client.get(&self.row.name).await {
            Ok(found) if Some((found.id, found.revision)) != self.seen => return self.conflict(Some(found.revision)),
            Ok(_) => {}
            Err(error) if gone(&error) => return,
            Err(error) => return self.refuse(error),
        }
        if let Err(error) = client.delete(&self.row.name).await
            && !gone(&error)
        {
            self.refuse(error);
        }
    }

    /// Someone else was faster; `found` is the revision that the job has now, if there is one.
    fn conflict(&mut self, found: Option<u64>) {
        let planned = self.seen.map_or_else(|| "no job".to_owned(), |(_, revision)| format!("revision {revision}"));
        let now = found.map_or_else(|| "there is no job".to_owned(), |revision| format!("it has revision {revision}"));
        self.fail(
            "conflict",
            format!("it was changed meanwhile: the plan is for {planned}, and now {now}; apply again"),
        );
        self.row.revision = found;
    }

    fn refuse(&mut self, error: RequestError) {
        self.fail("refused", CliError::from(error).line().unwrap_or_default());
    }

    fn fail(&mut self, action: &'static str, reason: String) {
        (self.row.action, self.row.reason) = (action, Some(reason));
    }
}

/// The definition that `job` asks for, with what it leaves open taken from the `current` one.
fn completed(job: FileJob, current: &JobDefinition) -> JobDefinition {
    let mut wanted = job.definition;
    wanted.paused = job.paused.unwrap_or(current.paused);
    let mut intervals: Vec<_> = current.schedules().collect();
    let mut anchored = |mut wanted: Schedule| {
        if let Schedule::Interval { every, anchor: anchor @ None } = &mut wanted {
            let is_same = |old: &Schedule| matches!(old, Schedule::Interval { every: old, .. } if old == every);
            if let Some(place) = intervals.iter().position(is_same)
                && let Schedule::Interval { anchor: old, .. } = intervals.remove(place)
            {
                *anchor = old;
            }
        }
        wanted
    };
    let mut schedules = wanted.schedules().map(&mut anchored).collect::<Vec<_>>().into_iter();
    wanted.schedule = schedules.next().expect("a job has a schedule");
    wanted.also = schedules.as_slice().iter().map(Schedule::spec).collect();
    wanted
}

/// The keys in which two jobs differ, in the order of the jobs file, those that only `from` has at the end.
fn changes(from: &JobDefinition, to: &JobDefinition) -> Vec<ChangeRow> {
    // A definition that the file has no words for has no keys either: all of the other's are told.
    let keys = |definition: &JobDefinition| {
        let job = FileJob { definition: definition.clone(), paused: Some(definition.paused) };
        Keys::of(&job).unwrap_or_default()
    };
    let (from, to) = (keys(from), keys(to));
    let mut left: BTreeMap<_, _> = from.flat().collect();
    let mut changes = Vec::new();
    for (key, to) in to.flat() {
        let from = left.remove(&key);
        if from != Some(to) {
            changes.push(ChangeRow { key, from: from.cloned(), to: Some(to.clone()) });
        }
    }
    changes.extend(left.into_iter().map(|(key, from)| ChangeRow { key, from: Some(from.clone()), to: None }));
    changes
}

/// As if the verb was carried out; without one, it could not be looked at.
fn row(definition: &JobDefinition, verb: Option<Verb>) -> AppliedRow {
    AppliedRow {
        tenant: definition.tenant.clone(),
        name: definition.name.clone(),
        plan: verb.map(Verb::name),
        changes: Vec::new(),
        action: verb.map_or("refused", Verb::done),
        dry_run: true,
        revision: None,
        next_fire_at: None,
        next_fire_at_us: None,
        reason: None,
    }
}

fn seen_row(found: &Job, verb: Verb) -> AppliedRow {
    let (next_fire_at, next_fire_at_us) = time(found.next_fire.filter(|_| verb != Verb::Delete));
    AppliedRow { revision: Some(found.revision), next_fire_at, next_fire_at_us, ..row(&found.definition, Some(verb)) }
}

fn time(at: Option<Timestamp>) -> (Option<String>, Option<u64>) {
    (at.and_then(times::rfc3339), at.map(Timestamp::as_micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn every(seconds: u64, anchor: Option<u64>) -> JobBuilder {
        let anchor = anchor.map(Timestamp::from_secs);
        JobBuilder::new("a").handler("h").schedule(Schedule::Interval { every: Duration::from_secs(seconds), anchor })
    }

    /// The changes that applying `file` to the job `current` makes, as `key: from -> to`.
    fn check(current: &JobBuilder, file: &JobBuilder, paused: Option<bool>) -> Vec<String> {
        let current = current.definition();
        let job = FileJob { definition: file.definition().clone(), paused };
        let wanted = completed(job, current);
        let changes = changes(current, &wanted);
        assert_eq!(changes.is_empty(), wanted == *current, "{changes:?}");
        let text = |value: &Option<toml::Value>| value.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        changes.iter().map(|change| format!("{}: {} -> {}", change.key, text(&change.from), text(&change.to))).collect()
    }

    #[test]
    fn an_interval_without_an_anchor_keeps_its_phase_until_its_length_changes() {
        let current = every(60, Some(7));
        assert_eq!(check(&current, &every(60, None), None), [""; 0]);
        let anchor = "anchor: 1970-01-01T00:00:07Z -> ";
        assert_eq!(check(&current, &every(60, Some(8)), None), [format!("{anchor}1970-01-01T00:00:08Z")]);
        assert_eq!(check(&current, &every(61, None), None), ["every: \"1m\" -> \"1m 1s\"", &format!("{anchor}-")]);
    }

    #[test]
    fn each_of_several_intervals_keeps_its_phase() {
        let interval = |seconds, anchor: Option<u64>| Schedule::Interval {
            every: Duration::from_secs(seconds),
            anchor: anchor.map(Timestamp::from_secs),
        };
        let current = every(60, Some(7)).also(&interval(90, Some(8))).also(&interval(60, Some(9)));
        assert_eq!(
            check(&current, &every(60, None).also(&interval(90, None)).also(&interval(60, None)), None),
            [""; 0]
        );
        assert_eq!(check(&current, &every(60, None), None).len(), 3, "`every` and `anchor` come, `schedules` goes");
        let wanted =
            completed(FileJob { definition: every(90, None).definition().clone(), paused: None }, current.definition());
        assert_eq!(wanted, *every(90, Some(8)).definition());
    }

    #[test]
    fn a_time_counted_from_the_apply_is_always_new() {
        let current = JobBuilder::new("a").handler("h").at(Timestamp::from_secs(7));
        let changes = check(&current, &JobBuilder::new("a").handler("h").after(Duration::from_secs(5)), None);
        assert_eq!(changes, ["after: - -> \"5s\"", "at: 1970-01-01T00:00:07Z -> -"]);
        assert_eq!(check(&current, &current, None), [""; 0]);
    }

    #[test]
    fn a_job_stays_paused_unless_the_file_says_otherwise() {
        let (active, paused) = (every(1, Some(1)), every(1, Some(1)).paused(true));
        assert_eq!(check(&paused, &active, None), [""; 0]);
        assert_eq!(check(&paused, &active, Some(false)), ["paused: true -> false"]);
        assert_eq!(check(&active, &paused, Some(true)), ["paused: false -> true"]);
    }

    #[test]
    fn each_key_that_differs_is_told_in_the_words_of_the_file() {
        let current = every(1, Some(1)).pool("high").heartbeat(Some(Duration::from_secs(5)));
        let file = every(1, Some(1)).payload("p").start_to_close(None).non_retryable("Gone");
        let expected = [
            "payload: - -> \"p\"",
            "retry.non_retryable: - -> [\"Gone\"]",
            "timeout: - -> \"none\"",
            "heartbeat: \"5s\" -> -",
            "pool: \"high\" -> -",
        ];
        assert_eq!(check(&current, &file, None), expected);
    }
}
