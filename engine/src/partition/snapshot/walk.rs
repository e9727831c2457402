//! Writing a snapshot: the walk over a partition that goes on changing.

use super::{
    FORMAT, SnapshotStep,
    image::{
        AttemptImage, BacklogImage, CalendarImage, Chunk, DefinitionImage, ExecutionImage, NumberedImage, SlotImage,
        StandingImage, SubmissionImage, WorkerImage,
    },
};
use crate::{
    hashing::Map,
    partition::{Flag, JobRecord, Partition, table::Table},
};
use rkyv::{api::high::to_bytes_in, rancor};
use std::collections::{BTreeMap, VecDeque};
use tickwheel_wire::{
    Timestamp,
    job::{JobSpec, ScheduleSpec},
    planted::Mistake,
};

/// Slots that one chunk of jobs covers at most.
const SLOTS_PER_CHUNK: u32 = 8_192;
/// Bytes of names, payloads, definitions and labels after which a chunk of jobs ends.
const CHUNK_DATA_BYTES: usize = 128 << 10;
/// Entries in a chunk of anything else, so that it stays below 1 MiB.
const ENTRIES_PER_CHUNK: usize = 8_192;
/// Attempts in a chunk; each may carry 4 KiB of output.
const ATTEMPTS_PER_CHUNK: usize = 192;
/// Backlogs in a chunk; each may have 8 KB.
const BACKLOGS_PER_CHUNK: usize = 96;
/// Calendars per chunk: of the longest a quarter of a megabyte.
const CALENDARS_PER_CHUNK: usize = 16;
/// Stands for a job's name in a definition that several share.
const ANY_NAME: &str = "-";
/// What one step gives up of what was retired during the walk.
const RETIRED_PER_STEP: usize = 4_096;

/// A snapshot being written.
#[derive(Debug)]
pub(in crate::partition) struct SnapshotWalk {
    sequence: u64,
    slot_count: u32,
    /// The first slot that is not written yet.
    cursor: u32,
    /// Records that changed before the walk reached them, as they were.
    kept: Map<u32, JobRecord>,
    triggers: BTreeMap<u32, Timestamp>,
    /// Data, policies and rhythms to give up once the walk is over.
    pub(in crate::partition) retired: Vec<(u32, u32, u32)>,
    /// Chunks of what is small.
    small: VecDeque<Vec<u8>>,
    digest: u64,
}

impl SnapshotWalk {
    /// Keeps a record that is about to change.
    #[inline]
    pub fn keep(&mut self, slot: u32, table: &Table) {
        if (self.cursor..self.slot_count).contains(&slot) {
            self.kept.entry(slot).or_insert_with(|| *table.record(slot));
        }
    }
}

impl Partition {
    /// Begins a snapshot of the state as it is now. Takes time in proportion to executions in flight and remembered things,
    /// not to jobs. False, and nothing happens, while another is being written.
    pub fn begin_snapshot(&mut self) -> bool {
        if self.snapshot.is_some() {
            return false;
        }
        let mut small = VecDeque::new();
        let counters = &self.counters;
        let counters = [
            counters.fired,
            counters.succeeded,
            counters.failed_attempts,
            counters.cancelled,
            counters.dead,
            counters.skipped,
            counters.misfired,
            counters.triggered,
        ];
        let (sequence, slot_count) = (self.sequence, self.table.slot_count());
        let head = Chunk::Head { format: FORMAT, partition: self.id.0, sequence, slot_count, counters };
        small.push_back(archive(&head, Vec::new()));
        let workers = self.workers.iter().map(|(index, worker)| WorkerImage {
            index,
            instance: worker.instance.0,
            name: worker.name.to_string(),
        });
        chunks(&mut small, workers, ENTRIES_PER_CHUNK, Chunk::Workers);
        let (newest, numbered): (Vec<_>, Vec<_>) = self
            .executions
            .iter()
            .partition(|execution| self.has_newest_numbers(execution) || Mistake::NumbersNotInSnapshot.is_made());
        let newest = newest.into_iter().map(ExecutionImage::of);
        chunks(&mut small, newest, ENTRIES_PER_CHUNK, Chunk::Executions);
        let numbered = numbered.into_iter().map(|execution| NumberedImage {
            execution: ExecutionImage::of(execution),
            fire_sequence: execution.fire_sequence.0,
            token: execution.token.0,
        });
        chunks(&mut small, numbered, ENTRIES_PER_CHUNK, Chunk::NumberedExecutions);
        for dead_letters in [false, true] {
            let ring = if dead_letters { &self.dead_letters } else { &self.recent };
            let build = |attempts| Chunk::Attempts { dead_letters, attempts };
            chunks(&mut small, ring.iter().map(AttemptImage::of), ATTEMPTS_PER_CHUNK, build);
        }
        let submissions = self.idempotency.iter().map(|(key, submission)| SubmissionImage::of(*key, submission));
        chunks(&mut small, submissions, ENTRIES_PER_CHUNK, Chunk::Submissions);
        let mut standings = self.standings.iter().map(|(slot, standing)| StandingImage::of(slot, standing)).peekable();
        let mut too_late = self.counters.too_late;
        while !Mistake::StandingsNotInSnapshot.is_made() && (too_late > 0 || standings.peek().is_some()) {
            let standings = standings.by_ref().take(ENTRIES_PER_CHUNK).collect();
            let chunk = Chunk::Standings { too_late: std::mem::take(&mut too_late), standings };
            small.push_back(archive(&chunk, Vec::new()));
        }
        let backlogs = self.backlogs.iter().filter(|_| !Mistake::BacklogsNotInSnapshot.is_made());
        let images = backlogs.map(|(slot, times)| BacklogImage {
            slot: *slot,
            times: times.iter().map(|time| time.as_micros()).collect(),
        });
        chunks(&mut small, images, BACKLOGS_PER_CHUNK, Chunk::Backlogs);
        if self.zones_version != 0 {
            small.push_back(archive(&Chunk::Zones { version: self.zones_version }, Vec::new()));
        }
        let calendars = self.calendars.iter().map(|(tenant, name, exclusions)| CalendarImage {
            tenant: tenant.0,
            name: name.to_owned(),
            exclusions: exclusions.to_owned(),
        });
        let behind = self.calendars.are_behind();
        let build = |calendars| Chunk::Calendars { behind, calendars };
        let mut calendars = calendars.peekable();
        if behind && calendars.peek().is_none() {
            small.push_back(archive(&build(Vec::new()), Vec::new()));
        }
        chunks(&mut small, calendars, CALENDARS_PER_CHUNK, build);
        let digest = self.digest_of_rest(&mut Vec::new());
        let (kept, triggers) = (Map::default(), self.triggers.clone());
        let walk = SnapshotWalk { sequence, slot_count, cursor: 0, kept, triggers, retired: Vec::new(), small, digest };
        self.snapshot = Some(Box::new(walk));
        true
    }

    /// Takes the snapshot one step further and appends its chunk, if any, to `out`, which should be empty.
    ///
    /// # Panics
    /// If no snapshot was begun.
    pub fn snapshot_step(&mut self, out: &mut Vec<u8>) -> SnapshotStep {
        let mut walk = self.snapshot.take().expect("a snapshot was begun");
        if let Some(chunk) = walk.small.pop_front() {
            out.extend_from_slice(&chunk);
        } else if walk.cursor < walk.slot_count {
            let chunk = self.walk_jobs(&mut walk);
            *out = archive(&chunk, std::mem::take(out));
        } else if walk.retired.is_empty() {
            *out = archive(&Chunk::End { digest: walk.digest }, std::mem::take(out));
            return SnapshotStep::Done { sequence: walk.sequence, digest: walk.digest };
        } else {
            let rest = walk.retired.len().saturating_sub(RETIRED_PER_STEP);
            for (data, policy, schedule) in walk.retired.drain(rest..) {
                self.retire(data, policy, schedule);
            }
            self.snapshot = Some(walk);
            return SnapshotStep::Working;
        }
        self.snapshot = Some(walk);
        SnapshotStep::Chunk
    }

    /// Gives a snapshot up that is being written.
    pub fn abandon_snapshot(&mut self) {
        if let Some(walk) = self.snapshot.take() {
            for (data, policy, schedule) in walk.retired {
                self.retire(data, policy, schedule);
            }
        }
    }

    /// The next slice of the job table.
    fn walk_jobs(&self, walk: &mut SnapshotWalk) -> Chunk<'_> {
        let (mut definitions, mut slots) = (Vec::new(), Vec::new());
        let mut places = Map::default();
        let (mut buffer, mut data_bytes) = (Vec::new(), 0);
        let end = walk.slot_count.min(walk.cursor + SLOTS_PER_CHUNK);
        while walk.cursor < end && data_bytes < CHUNK_DATA_BYTES {
            let slot = walk.cursor;
            walk.cursor += 1;
            let record = walk.kept.remove(&slot).unwrap_or(*self.table.record(slot));
            let trigger = walk.triggers.get(&slot).copied();
            walk.digest = walk.digest.wrapping_add(self.digest_of_slot(slot, &record, trigger, &mut buffer));
            if !record.is(Flag::ALIVE) {
                slots.push(SlotImage::free(&record));
                continue;
            }
            let definition = *places.entry((record.policy, record.schedule)).or_insert_with(|| {
                let definition = self.definition_image(&record);
                data_bytes += definition.spec.len();
                definitions.push(definition);
                u32::try_from(definitions.len() - 1).expect("a chunk has few slots")
            });
            let entry = self.arena.entry(record.data);
            // Shared labels count for each of their jobs: the digest reads them as often.
            let labels_bytes = self.policy(&record).labels.len();
            data_bytes += entry.name.len() + entry.payload.len() + labels_bytes + size_of::<SlotImage>();
            slots.push(SlotImage::of(&record, definition, &entry, trigger));
        }
        Chunk::DefinedJobs { definitions, slots }
    }

    /// What the job with this record shares with others.
    fn definition_image(&self, record: &JobRecord) -> DefinitionImage {
        let spec = self.spec_of(record);
        let schedule = match spec.schedule {
            // What several have is not the job's own.
            schedule if !spec.also.is_empty() => schedule,
            ScheduleSpec::Interval { every_us, .. } => ScheduleSpec::Interval { every_us, anchor: Timestamp::EPOCH },
            ScheduleSpec::Once { .. } => ScheduleSpec::Once { at: Timestamp::EPOCH },
            other => other,
        };
        let mut bytes = Vec::new();
        JobSpec { name: ANY_NAME, payload: &[], paused: false, schedule, ..spec }.encode(&mut bytes);
        DefinitionImage { tenant: self.policy(record).tenant.0, spec: bytes }
    }
}

fn chunks<'a, T>(
    out: &mut VecDeque<Vec<u8>>,
    images: impl Iterator<Item = T>,
    per_chunk: usize,
    build: impl Fn(Vec<T>) -> Chunk<'a>,
) {
    let mut images = images.peekable();
    while images.peek().is_some() {
        out.push_back(archive(&build(images.by_ref().take(per_chunk).collect()), Vec::new()));
    }
}

/// Appends a chunk's archive to `out`.
pub(super) fn archive(chunk: &Chunk<'_>, out: Vec<u8>) -> Vec<u8> {
    to_bytes_in::<_, rancor::Error>(chunk, out).expect("serialising into memory cannot fail")
}
