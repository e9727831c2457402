//! One CronJob, read key by key.

use super::{Problem, RefusedReason, container, schedule, section::Section, yaml::Node};
use crate::{
    command_worker::{CommandPayload, HANDLER},
    import::{ImportedJob, check, payload_problem, printed},
};
use std::{path::Path, time::Duration};
use tickwheel_client::{DstGap, DstOverlap, FiringRules, JobBuilder, Misfire, Overlap, RetryPolicy, Schedule};
use tickwheel_engine::schedule::Zones;
use tickwheel_wire::{job::labels_text, limits::LABELS_MAX};

/// Where a manifest belongs that names no namespace.
pub(super) const NAMESPACE_DEFAULT: &str = "default";
/// Attempts after the first, where a manifest does not say.
const BACKOFF_LIMIT_DEFAULT: u32 = 6;
/// Most attempts that a job may have.
const ATTEMPTS_MAX: u16 = 1_000;
/// The first and the longest delay between the pods of a job, in milliseconds; each is twice the one before.
const BACKOFF_MS: (u32, u32) = (10_000, 360_000);
/// What `concurrencyPolicy` may be.
const CONCURRENCY_POLICIES: &str = "Allow, Forbid or Replace";

/// Reads a manifest.
pub(super) fn read(node: &Node, file: &Path, zones: &mut Zones) -> Result<ImportedJob, Problem> {
    let mut manifest = Section::new("", node)?;
    let mut metadata = manifest.section("metadata")?;
    let name = name(&mut metadata)?;
    let mut reader = Reader { notes: Vec::new(), attempts_max: 1 };
    let labels = reader.labels(&mut metadata)?;
    let mut spec = manifest.section("spec")?;
    let schedule = schedule(&mut spec, zones)?;
    let rules = reader.rules(&mut spec, &schedule)?;
    let paused = spec.boolean("suspend")?;
    let mut template = spec.section("jobTemplate")?;
    reader.ignored(&spec, "has no effect here", "have no effect here");
    let run = reader.job(&mut template.section("spec")?)?;
    let builder = labels.iter().fold(JobBuilder::new(name), |builder, (key, value)| builder.label(key, value));
    let definition = builder
        .handler(HANDLER)
        .schedule(schedule)
        .payload(run.payload.encode())
        .retry(reader.retry())
        .start_to_close(run.timeout)
        .rules(rules)
        .paused(paused.unwrap_or(false))
        .definition()
        .clone();
    let at = |reason: RefusedReason| Problem { line: node.line, reason };
    if let Some(problem) = payload_problem(&run.payload) {
        return Err(at(RefusedReason::Command { problem }));
    }
    check(&definition).map_err(|error| at(error.into()))?;
    Ok(ImportedJob { file: file.to_owned(), line: node.line, definition, paused, notes: reader.notes })
}

/// `kubernetes/NAMESPACE/NAME`.
fn name(metadata: &mut Section<'_>) -> Result<String, Problem> {
    let (name, _) = metadata.required_text("name")?;
    let namespace = metadata.text("namespace")?.map_or(NAMESPACE_DEFAULT, |(namespace, _)| namespace);
    Ok(format!("kubernetes/{namespace}/{name}"))
}

fn schedule(spec: &mut Section<'_>, zones: &mut Zones) -> Result<Schedule, Problem> {
    let (expression, line) = spec.required_text("schedule")?;
    schedule::parse(expression, line, spec.text("timeZone")?, zones)
}

/// What an execution runs, and how long at most.
struct Run {
    payload: CommandPayload,
    timeout: Option<Duration>,
}

/// What was read of a manifest so far.
struct Reader {
    notes: Vec<String>,
    attempts_max: u16,
}

impl Reader {
    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A note of the keys that nobody asked for.
    fn ignored(&mut self, section: &Section<'_>, of_one: &str, of_many: &str) {
        let unread = section.unread();
        if !unread.is_empty() {
            let what = if unread.len() == 1 { of_one } else { of_many };
            self.note(format!("{} {what}", printed::keys(&unread)));
        }
    }

    /// The labels of the manifest that a job may have, too: its keys are shorter.
    fn labels<'a>(&mut self, metadata: &mut Section<'a>) -> Result<Vec<(&'a str, &'a str)>, Problem> {
        let mut labels = metadata.texts_by_key("labels")?;
        labels.retain(|(key, value)| match labels_text([(*key, *value)]) {
            Ok(_) => true,
            Err(error) => {
                self.note(format!("the label {key:?} is left out: {error}"));
                false
            }
        });
        if labels.len() > LABELS_MAX {
            self.note(format!("of {} labels the first {LABELS_MAX} are kept", labels.len()));
            labels.truncate(LABELS_MAX);
        }
        Ok(labels)
    }

    /// Of what was missed, the latest is executed unless it is later than `startingDeadlineSeconds`: so does the controller.
    fn rules(&mut self, spec: &mut Section<'_>, schedule: &Schedule) -> Result<FiringRules, Problem> {
        let mut rules = FiringRules { misfire: Misfire::FireOnce, ..FiringRules::PLAIN };
        if matches!(schedule, Schedule::Cron { .. }) {
            (rules.dst_gap, rules.dst_overlap) = (DstGap::Skip, DstOverlap::Both);
        }
        match spec.number("startingDeadlineSeconds")? {
            Some((0, line)) => return Err(Problem { line, reason: RefusedReason::NoDeadline }),
            Some((seconds, _)) => rules.misfire_grace_ms = seconds.saturating_mul(1_000),
            None => {}
        }
        rules.overlap = match spec.text("concurrencyPolicy")? {
            None | Some(("Allow", _)) => Overlap::Allow,
            Some(("Forbid", _)) => {
                self.note(
                    "`concurrencyPolicy: Forbid`: what is due while it runs is skipped; Kubernetes would run the latest of it \
                     afterwards, as `overlap = \"buffer-one\"` does",
                );
                Overlap::Skip
            }
            Some(("Replace", _)) => Overlap::TerminateRunning,
            Some((text, line)) => {
                let (field, allowed) = (spec.field("concurrencyPolicy"), CONCURRENCY_POLICIES);
                return Err(Problem { line, reason: RefusedReason::Value { field, text: text.to_owned(), allowed } });
            }
        };
        Ok(rules)
    }

    fn job(&mut self, job: &mut Section<'_>) -> Result<Run, Problem> {
        for key in ["completions", "parallelism"] {
            if let Some((count, line)) = job.number(key)?
                && count != 1
            {
                return Err(Problem { line, reason: RefusedReason::SeveralPods { field: job.field(key) } });
            }
        }
        if job.boolean("suspend")? == Some(true) {
            return Err(Problem { line: job.line, reason: RefusedReason::Suspended });
        }
        let backoff_limit = job.number("backoffLimit")?.map_or(BACKOFF_LIMIT_DEFAULT, |(limit, _)| limit);
        self.attempts_max = u16::try_from(backoff_limit.saturating_add(1)).unwrap_or(u16::MAX);
        if self.attempts_max > ATTEMPTS_MAX {
            self.attempts_max = ATTEMPTS_MAX;
            self.note(format!("`backoffLimit: {backoff_limit}`: there are at most {ATTEMPTS_MAX} attempts"));
        }
        let whole = job.number("activeDeadlineSeconds")?.map(|(seconds, _)| seconds);
        if whole.is_some() && self.attempts_max > 1 {
            self.note("`activeDeadlineSeconds` bounds each attempt, not all of them together");
        }
        let mut pod = job.section("template")?.section("spec")?;
        self.ignored(job, "has no effect here", "have no effect here");
        let of_pod = pod.number("activeDeadlineSeconds")?.map(|(seconds, _)| seconds);
        let timeout = whole.into_iter().chain(of_pod).min().map(|seconds| Duration::from_secs(seconds.into()));
        Ok(Run { payload: self.pod(&mut pod)?, timeout })
    }

    fn pod(&mut self, pod: &mut Section<'_>) -> Result<CommandPayload, Problem> {
        if let Some((text, line)) = pod.text("restartPolicy")?
            && !["Never", "OnFailure"].contains(&text)
        {
            let (field, text, allowed) = (pod.field("restartPolicy"), text.to_owned(), "Never or OnFailure");
            return Err(Problem { line, reason: RefusedReason::Value { field, text, allowed } });
        }
        if !pod.list("initContainers")?.is_empty() {
            self.note("`initContainers` are not run");
        }
        if pod.list("containers")?.len() > 1 {
            self.note("`containers`: only the first of them is run");
        }
        let field = pod.field("containers[0]");
        let Some(first) = pod.list("containers")?.first() else {
            return Err(Problem { line: pod.line, reason: RefusedReason::Missing { field } });
        };
        let mut container = Section::new(field, first)?;
        // Only the pod has a use for it.
        container.find("name");
        let payload = container::command(&mut container)?;
        self.elsewhere(pod, &container);
        Ok(payload)
    }

    /// The command runs on the worker, whatever the pod would have given it.
    fn elsewhere(&mut self, pod: &Section<'_>, container: &Section<'_>) {
        let keys = [container.unread(), pod.unread()].concat();
        let without = if keys.is_empty() { String::new() } else { format!(", without {}", printed::keys(&keys)) };
        self.note(format!("the command runs on the worker, not in the image{without}"));
    }

    fn retry(&self) -> RetryPolicy {
        let (initial_ms, delay_ms_max) = BACKOFF_MS;
        let attempts_max = self.attempts_max;
        RetryPolicy { attempts_max, initial_ms, delay_ms_max, multiplier_milli: 2_000, jitter_percent: 0 }
    }
}
