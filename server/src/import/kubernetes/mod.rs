//! Imports manifests of Kubernetes: every CronJob (`batch/v1` or `batch/v1beta1`) becomes a job of the handler `exec`; every other
//! kind is left out, and said to be.
//!
//! A file holds several documents, and lists of manifests; JSON is YAML too. A job is called `kubernetes/NAMESPACE/NAME`, the namespace
//! being `default` where there is none.
//!
//! | key | meaning here |
//! |---|---|
//! | `schedule`, `timeZone` | see `schedule.rs` |
//! | `concurrencyPolicy` | `Allow`, as without it: `overlap = allow`, at most 100 at a time; `Forbid`: `skip`; `Replace`: `terminate-running` |
//! | `startingDeadlineSeconds` | `misfire_grace`, with `misfire = fire-once`: the controller too starts the latest of what it missed |
//! | `suspend` | `paused` |
//! | `metadata.labels` | labels, as far as a job may have them |
//! | `backoffLimit` | one attempt more than that, 10 s, 20 s, 40 s ... up to 6 min after one another; 7 attempts if absent |
//! | `activeDeadlineSeconds` | `timeout`, of each attempt; without one there is none |
//! | the first container's `command`, `args`, `env`, `workingDir` | the command; see `container.rs` |
//!
//! What else a manifest says has no effect, and is noted with the job. Source: the reference of CronJob v1 batch, and what the
//! controller does (`syncCronJob`). Deliberately absent: images, config maps, secrets; clusters; templates of Helm.

mod container;
mod cron_job;
mod schedule;
mod section;
mod yaml;

use super::Skipped;
use section::Section;
use std::{collections::HashMap, path::Path};
use tickwheel_engine::schedule::{CronError, Zones};
use tickwheel_wire::job::JobSpecError;
use yaml::{Node, YamlError};

const KIND: &str = "CronJob";
const LIST: &str = "List";
const VERSIONS: [&str; 2] = ["batch/v1", "batch/v1beta1"];
/// How much of a name or a line an answer repeats.
const QUOTE_CHARS_MAX: usize = 64;

/// What became of a file of manifests.
pub type Import = super::Import<RefusedReason>;

/// Why a manifest cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The file is no YAML from here on.
    #[error("{problem}; nothing behind it was read")]
    Syntax {
        /// What the parser says.
        problem: String,
    },
    /// A key without which it is no CronJob.
    #[error("`{field}` is missing")]
    Missing {
        /// Its path.
        field: String,
    },
    /// A value of another type.
    #[error("`{field}` is not {expected}")]
    Kind {
        /// Its path; empty: the manifest.
        field: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A value that means nothing.
    #[error("`{field}` is `{text}`, not {allowed}")]
    Value {
        /// Its path.
        field: String,
        /// What it is.
        text: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// Another API.
    #[error("`{version}` is not a version of CronJob that is known; known are batch/v1 and batch/v1beta1")]
    Version {
        /// What it says.
        version: String,
    },
    /// The schedule or the zone is wrong.
    #[error(transparent)]
    Schedule(#[from] CronError),
    /// More fields than Kubernetes has.
    #[error("a schedule of Kubernetes has five fields, not {count}")]
    Fields {
        /// How many there are.
        count: usize,
    },
    /// A value that is none in Kubernetes.
    #[error("`{text}` is nothing that Kubernetes knows in a schedule")]
    Piece {
        /// What was written.
        text: String,
    },
    /// The duration of an interval is wrong.
    #[error("`{text}` is not a duration; `@every` is followed by one such as `90s` or `1h30m`")]
    Every {
        /// What was written.
        text: String,
    },
    /// Two zones.
    #[error("the zone stands in front of the schedule and in `timeZone`; Kubernetes takes one of them")]
    TwoZones,
    /// It never starts.
    #[error("with `startingDeadlineSeconds: 0` nothing ever starts in time")]
    NoDeadline,
    /// Each run is several pods.
    #[error("`{field}` asks for another number of runs than one; an execution runs one command")]
    SeveralPods {
        /// The key's path.
        field: String,
    },
    /// Each run waits until someone resumes it.
    #[error("every run starts suspended; suspend the CronJob instead")]
    Suspended,
    /// Nothing says what to run.
    #[error("`{field}` is missing, and what the image would run is not known here")]
    NoCommand {
        /// The key's path.
        field: String,
    },
    /// A variable whose value lies in the cluster.
    #[error(
        "the variable `{variable}` has its value from elsewhere in the cluster; only literal values can be taken over"
    )]
    ValueFrom {
        /// Its name.
        variable: String,
    },
    /// Variables that lie in the cluster.
    #[error("`{field}` takes variables from elsewhere in the cluster; only literal values can be taken over")]
    VariablesFromElsewhere {
        /// The key's path.
        field: String,
    },
    /// No worker could run it.
    #[error("{problem}")]
    Command {
        /// Why.
        problem: String,
    },
    /// The name stands twice.
    #[error("line {line} has a CronJob of this namespace and name already")]
    Duplicate {
        /// Where the first one begins.
        line: usize,
    },
    /// The job that it would make is out of bounds.
    #[error(transparent)]
    Job(#[from] JobSpecError),
}

/// A reason and the line that it is about.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    line: usize,
    reason: RefusedReason,
}

/// Imports the manifests of `text`. `path` is where it came from; it is not opened.
pub fn import(text: &str, path: &Path) -> Import {
    let (documents, error) = yaml::read(text);
    let mut importer = Importer { file: path, zones: Zones::new(), lines: HashMap::new(), import: Import::new() };
    for document in documents.iter().filter(|document| document.value != yaml::Value::Null) {
        importer.manifest(document, None);
    }
    if let Some(YamlError { line, problem }) = error {
        let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let reason = RefusedReason::Syntax { problem };
        importer.import.refuse(path, Some(line), quoted(written.trim()), reason);
    }
    importer.import
}

/// What the manifests so far have given.
struct Importer<'a> {
    file: &'a Path,
    zones: Zones,
    /// Where each name stands.
    lines: HashMap<String, usize>,
    import: Import,
}

impl Importer<'_> {
    /// `listed` is the kind of what a list holds, for a manifest that does not say itself.
    fn manifest(&mut self, node: &Node, listed: Option<&str>) {
        let title = title(node, listed);
        if let Err(Problem { line, reason }) = self.read(node, listed) {
            self.import.refuse(self.file, Some(line), title, reason);
        }
    }

    fn read(&mut self, node: &Node, listed: Option<&str>) -> Result<(), Problem> {
        let mut manifest = Section::new("", node)?;
        let kind = match (manifest.text("kind")?, listed) {
            (Some((kind, _)), _) => kind,
            (None, Some(listed)) => listed,
            (None, None) => manifest.required_text("kind")?.0,
        };
        if let Some(listed) = kind.strip_suffix(LIST) {
            let listed = (!listed.is_empty()).then_some(listed);
            for item in manifest.list("items")? {
                self.manifest(item, listed);
            }
            return Ok(());
        }
        if kind != KIND {
            let note = format!("{} is no CronJob, and is left out", title(node, listed));
            self.import.skipped.push(Skipped { file: self.file.to_owned(), line: node.line, note });
            return Ok(());
        }
        self.check_version(&mut manifest, listed)?;
        let job = cron_job::read(node, self.file, &mut self.zones)?;
        if let Some(line) = self.lines.get(&job.definition.name) {
            return Err(Problem { line: node.line, reason: RefusedReason::Duplicate { line: *line } });
        }
        self.lines.insert(job.definition.name.clone(), node.line);
        self.import.jobs.push(job);
        Ok(())
    }

    fn check_version(&self, manifest: &mut Section<'_>, listed: Option<&str>) -> Result<(), Problem> {
        match manifest.text("apiVersion")? {
            None if listed.is_some() => Ok(()),
            Some((version, _)) if VERSIONS.contains(&version) => Ok(()),
            Some((version, line)) => {
                Err(Problem { line, reason: RefusedReason::Version { version: version.to_owned() } })
            }
            None => manifest.required_text("apiVersion").map(drop),
        }
    }
}

/// What to call a manifest, as far as it says: `CronJob shop/backup`.
fn title(node: &Node, listed: Option<&str>) -> String {
    let Ok(mut manifest) = Section::new("", node) else { return "the document".to_owned() };
    let kind = manifest.text("kind").ok().flatten().map(|(kind, _)| kind).or(listed).unwrap_or("a manifest");
    let mut metadata = manifest.section("metadata").ok();
    let mut text = |key: &str| metadata.as_mut().and_then(|metadata| metadata.text(key).ok().flatten());
    let name = match (text("namespace"), text("name")) {
        (Some((namespace, _)), Some((name, _))) => format!(" {namespace}/{name}"),
        (None, Some((name, _))) => format!(" {name}"),
        _ => String::new(),
    };
    quoted(&format!("{kind}{name}"))
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTE_CHARS_MAX).collect()
}
