//! Partitions whose events cannot be applied: noted at the first failure, quarantined at the second one at the same event.
//!
//! `quarantine.toml` in the data directory lists them. A start replays every partition but those quarantined. One that fails is noted
//! and ends the start: the fault may be the machine's or the program's, and a start elsewhere may do better. One that fails again
//! at the noted event is quarantined: no shard holds it, everything of it on disk stays as it is, and the rest of the node runs. That
//! lasts until its entry is removed by hand. A noted partition that replays loses its note.
//!
//! An event that contradicts the state fails an assertion of the engine, so one section is applied under [`guarded`]. A panic
//! anywhere else ends the process, as [`abort_on_panic`] sees to: nothing runs on with a broken invariant.
//!
//! Invariants: what the file says is durable before the start goes on or ends. It is absent while it would be empty.

use crate::{
    data_directory::{refused, write_atomically},
    fatal::Fatal,
};
use serde::{Deserialize, Serialize};
use std::{
    any::Any,
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process,
};
use tickwheel_wire::{PartitionCount, PartitionId};

/// The file's name in the data directory.
const FILE_NAME: &str = "quarantine.toml";
/// What stands on top of the file.
const PREAMBLE: &str = "# Partitions whose events could not be applied at a start; the server writes this file. Those with `quarantined = true`
# are not loaded. While the server is stopped, remove an entry to have the next start try its partition again.

";

thread_local! {
    /// Whether this thread is in [`guarded`].
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// A partition that could not be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The partition.
    pub partition: PartitionId,
    /// Number of the event that could not be applied.
    pub event: u64,
    /// Why.
    pub reason: String,
}

/// What `quarantine.toml` says.
#[derive(Debug)]
pub struct Quarantine {
    path: PathBuf,
    entries: BTreeMap<u16, Entry>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    partition: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: u16,
    event: u64,
    quarantined: bool,
    reason: String,
}

impl Quarantine {
    /// Reads the file of the data directory `root`, which may have none.
    ///
    /// # Errors
    /// [`Fatal`] when it cannot be read or makes no sense.
    pub fn load(root: &Path, partitions: PartitionCount) -> Result<Self, Fatal> {
        let path = root.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(refused(&path, error)),
        };
        let damaged = |what: &str| Fatal::Damaged(format!("{}: {what}; correct or remove that file", path.display()));
        let contents: Contents = toml::from_str(&text).map_err(|error| damaged(error.message()))?;
        let mut entries = BTreeMap::new();
        for entry in contents.partition {
            let id = entry.id;
            if id >= partitions.count() || entries.insert(id, entry).is_some() {
                return Err(damaged(&format!("partition {id} does not exist or is there twice")));
            }
        }
        Ok(Self { path, entries })
    }

    /// Whether the partition is quarantined.
    pub fn contains(&self, partition: PartitionId) -> bool {
        self.entries.get(&partition.0).is_some_and(|entry| entry.quarantined)
    }

    /// The quarantined partitions.
    pub fn partitions(&self) -> Vec<PartitionId> {
        self.entries.values().filter(|entry| entry.quarantined).map(|entry| PartitionId(entry.id)).collect()
    }

    /// Judges the replay of all partitions that are not quarantined, of which these failed, and writes down what it means.
    ///
    /// # Errors
    /// [`Fatal`] when a partition failed that had not failed at that event before, or the file cannot be written.
    pub fn judge(&mut self, failures: &[Failure]) -> Result<(), Fatal> {
        let mut entries = self.entries.clone();
        entries.retain(|_, entry| entry.quarantined);
        let mut noted = Vec::new();
        for failure in failures {
            let Failure { partition, event, reason } = failure;
            let quarantined = self.entries.get(&partition.0).is_some_and(|entry| entry.event == *event);
            if !quarantined {
                noted.push(failure);
            }
            entries.insert(partition.0, Entry { id: partition.0, event: *event, quarantined, reason: reason.clone() });
        }
        for id in self.entries.keys().filter(|id| !entries.contains_key(id)) {
            tracing::info!(partition = id, "a partition that had failed was replayed");
        }
        if entries != self.entries {
            self.entries = entries;
            self.store().map_err(|error| refused(&self.path, error))?;
        }
        if noted.is_empty() { Ok(()) } else { Err(self.first_failure(&noted)) }
    }

    /// Says which partitions the node runs without.
    pub fn warn(&self) {
        for entry in self.entries.values().filter(|entry| entry.quarantined) {
            tracing::error!(
                partition = entry.id,
                event = entry.event,
                reason = entry.reason,
                "A PARTITION IS QUARANTINED: it failed twice at the same event. None of its jobs runs and requests to it are refused; \
                 its log and snapshots are kept, the other partitions run. To try it again, stop the server and remove its entry from {}",
                self.path.display(),
            );
        }
    }

    fn first_failure(&self, noted: &[&Failure]) -> Fatal {
        let each = noted.iter().map(|Failure { partition, event, reason }| {
            format!("partition {} failed at event {event}: {reason}", partition.0)
        });
        let each = each.collect::<Vec<_>>().join("; ");
        let them = if noted.len() == 1 { "the partition" } else { "these partitions" };
        Fatal::Damaged(format!(
            "{each}; noted in {}: starting again will quarantine {them} if the same event fails again, and run without",
            self.path.display()
        ))
    }

    fn store(&self) -> io::Result<()> {
        if self.entries.is_empty() {
            fs::remove_file(&self.path)?;
            let directory = self.path.parent().expect("the file is in the data directory");
            return File::open(directory)?.sync_all();
        }
        let contents = Contents { partition: self.entries.values().cloned().collect() };
        let text = toml::to_string(&contents).map_err(io::Error::other)?;
        write_atomically(&self.path, &format!("{PREAMBLE}{text}"))
    }
}

/// Runs `body`; a panic in it is returned as its message. What `body` was changing is of no use then.
///
/// # Errors
/// The panic's message, in one line.
pub fn guarded<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    let was_guarded = IS_GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    IS_GUARDED.set(was_guarded);
    result.map_err(|panic| message(&*panic))
}

/// Makes a panic outside of [`guarded`] end the process once it is printed, on whatever thread it happens.
pub fn abort_on_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        if !IS_GUARDED.get() {
            process::abort();
        }
    }));
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(root: &Path) -> Quarantine {
        Quarantine::load(root, PartitionCount::new(8).expect("a power of two")).expect("reads")
    }

    fn failure(partition: u16, event: u64) -> Failure {
        Failure { partition: PartitionId(partition), event, reason: format!("event {event} is \"wrong\"") }
    }

    #[test]
    fn the_second_failure_at_the_same_event_quarantines_until_the_entry_is_removed() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let message = load(root.path()).judge(&[failure(3, 7)]).expect_err("the first").to_string();
        assert!(message.contains("partition 3 failed at event 7: event 7 is \"wrong\""), "{message}");
        assert!(message.contains("starting again will quarantine the partition"), "{message}");
        assert_eq!(load(root.path()).partitions(), []);
        load(root.path()).judge(&[failure(3, 7)]).expect("the second");
        for _ in 0..2 {
            let mut quarantine = load(root.path());
            assert_eq!(quarantine.partitions(), [PartitionId(3)]);
            assert!(quarantine.contains(PartitionId(3)) && !quarantine.contains(PartitionId(2)));
            quarantine.judge(&[]).expect("the others replay");
        }
        fs::remove_file(root.path().join(FILE_NAME)).expect("it is there");
        load(root.path()).judge(&[failure(3, 7)]).expect_err("the first again");
    }

    #[test]
    fn another_event_or_another_partition_is_a_first_failure() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (partition, event) in [(3, 7), (3, 8), (3, 7), (2, 7), (3, 7)] {
            load(root.path()).judge(&[failure(partition, event)]).expect_err("not twice the same");
            assert_eq!(load(root.path()).partitions(), [], "partition {partition}, event {event}");
        }
        load(root.path()).judge(&[failure(3, 7), failure(2, 7)]).expect_err("partition 2 had replayed meanwhile");
        assert_eq!(load(root.path()).partitions(), [PartitionId(3)]);
        load(root.path()).judge(&[failure(2, 7)]).expect("twice");
        assert_eq!(load(root.path()).partitions(), [PartitionId(2), PartitionId(3)]);
    }

    #[test]
    fn a_successful_replay_clears_the_note() {
        let root = tempfile::tempdir().expect("a temporary directory");
        load(root.path()).judge(&[failure(3, 7)]).expect_err("the first");
        load(root.path()).judge(&[]).expect("it replays");
        assert!(!root.path().join(FILE_NAME).exists());
        load(root.path()).judge(&[failure(3, 7)]).expect_err("the first again");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let entry = |id: u16| format!("[[partition]]\nid = {id}\nevent = 1\nquarantined = true\nreason = \"\"\n");
        for text in ["partition = 3".to_owned(), entry(8), entry(2) + &entry(2), entry(2) + "more = 1\n"] {
            fs::write(root.path().join(FILE_NAME), &text).expect("written");
            let error =
                Quarantine::load(root.path(), PartitionCount::new(8).expect("a power of two")).expect_err(&text);
            assert!(matches!(&error, Fatal::Damaged(message) if message.contains(FILE_NAME)), "{error}");
        }
    }

    #[test]
    fn a_guarded_panic_becomes_its_message_in_one_line() {
        assert_eq!(guarded(|| 5), Ok(5));
        assert_eq!(guarded(|| panic!("two\n  lines")), Err::<(), _>("two lines".to_owned()));
        let number = 7;
        assert_eq!(guarded(|| assert_eq!(number, 8, "so")).map_err(|error| error.contains("left: 7")), Err(true));
    }
}
