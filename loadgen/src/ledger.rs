//! What every job of the run did, as its workers saw it: the judge of lost, repeated and early executions.
//!
//! Per job it remembers the newest firing (sequence, token, time) and which of the newest 32 firings were acknowledged, 32 bytes
//! in all, found by partition and slot. The rules it holds the server to:
//!
//! - fire sequences of a job count up by one, starting at 1; a sequence that is jumped over is **lost**;
//! - all times of a job lie whole intervals apart; firings between two that were seen are **missed**, which the server must explain by
//!   its counters of skipped and misfired firings;
//! - the newest firing may come again with a higher token (**retried**), unless it was acknowledged: then, or with a token that
//!   does not grow, it is a **duplicate**; so is a second acknowledgement of one firing.
//!
//! Threads share it without locks: the server sends a firing only after the one before it was completed, so two threads
//! touch the newest firing of one job only in that order. Only acknowledgements of neighbouring firings can race, and they
//! use an atomic update. Deliberately absent: the server's word on anything but a job's first due time, which only adds to what is expected.

use std::sync::{
    OnceLock,
    atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
};
use tickwheel_wire::{
    JobId, Timestamp,
    frame::work::{Completed, DispatchHead},
};

/// Jobs of one page; pages are made when their first job is seen.
const PAGE_JOBS: usize = 4_096;
/// Slots that a server may have given to other jobs before ours, which the page directory has room for.
const FOREIGN_JOBS: u64 = 1 << 20;
/// How many of the newest firings' acknowledgements are remembered.
const ACKNOWLEDGED_BITS: u32 = 32;

/// What one job did.
#[derive(Debug, Default)]
struct Record {
    /// Times of the newest two firings in microseconds, by the parity of their sequence. Before the first firing, the even one holds
    /// the time at which it is due; 0: unknown.
    scheduled_us: [AtomicU64; 2],
    /// Newest fire sequence; 0: none yet. Sequences beyond 32 bits are not for a load test.
    sequence: AtomicU32,
    /// Low half of the newest token.
    token: AtomicU32,
    /// Highest acknowledged sequence, and below it a bit for each of the 32 from there downwards.
    acknowledged: AtomicU64,
}

const _: () = assert!(size_of::<Record>() == 32, "tens of millions of jobs are held");

type Page = [Record; PAGE_JOBS];
/// The pages of one partition, each made when a job of it is first seen.
type Pages = Box<[OnceLock<Box<Page>>]>;

/// The ledger of one run. See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// By partition, then by page of slots.
    partitions: Box<[Pages]>,
    interval_us: u64,
}

/// A job that the ledger has no room for: its partition or its slot is far beyond what the run can have created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfRange(pub JobId);

/// What a dispatch turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Fire sequences that were jumped over.
    pub lost: u64,
    /// Firings that were due between the job's newest two.
    pub missed: u64,
    /// Another attempt of the newest firing.
    pub retried: bool,
    /// What must never come: see the module.
    pub duplicate: bool,
    /// The time is not a whole number of intervals from the one before.
    pub misplaced: bool,
}

/// What an acknowledgement turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// The first of its firing, which was due then; the time is unknown if two newer firings have been seen since.
    First(Option<Timestamp>),
    /// There was one before.
    Repeated,
    /// The firing was never seen.
    Unseen,
}

/// What is open at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Jobs that the ledger knows.
    pub jobs: u64,
    /// Firings that were due and have not been seen.
    pub outstanding: u64,
    /// Newest firings of jobs that were due and are not acknowledged.
    pub unacknowledged: u64,
}

impl Ledger {
    /// An empty ledger for up to `jobs` jobs that fire every `interval_us`.
    pub fn new(partition_count: u16, jobs: u64, interval_us: u64) -> Self {
        assert!(interval_us > 0, "intervals are at least a millisecond");
        let page_count = usize::try_from(jobs + FOREIGN_JOBS).expect("jobs are bounded") / PAGE_JOBS + 1;
        let partition = || (0..page_count).map(|_| OnceLock::new()).collect();
        Self { partitions: (0..partition_count).map(|_| partition()).collect(), interval_us }
    }

    /// A job of the run exists and is due at `first_due`.
    ///
    /// # Errors
    /// When the id is out of range.
    pub fn expect(&self, job: JobId, first_due: Timestamp) -> Result<(), OutOfRange> {
        let record = self.record(job)?;
        if !first_due.is_never() && record.sequence.load(Acquire) == 0 {
            // The first firing may be seen meanwhile, and even the second, which then has set the time.
            let _ = record.scheduled_us[0].compare_exchange(0, first_due.as_micros(), AcqRel, Acquire);
        }
        Ok(())
    }

    /// A worker received this.
    ///
    /// # Errors
    /// When the id is out of range.
    #[inline]
    pub fn dispatched(&self, head: &DispatchHead) -> Result<Sighting, OutOfRange> {
        let record = self.record(head.job)?;
        let (newest, sequence) = (u64::from(record.sequence.load(Acquire)), head.fire_sequence.0);
        let former_token = record.token.load(Acquire);
        if sequence <= newest {
            let repeated =
                sequence < newest || token_low(head) <= former_token || record.is_acknowledged(low(sequence));
            if !repeated {
                record.token.store(token_low(head), Release);
            }
            return Ok(Sighting { duplicate: repeated, retried: !repeated, ..Sighting::default() });
        }
        let former_us = record.scheduled_us[parity(newest)].load(Acquire);
        let scheduled_us = head.scheduled_at.as_micros();
        record.scheduled_us[parity(sequence)].store(scheduled_us, Release);
        record.token.store(token_low(head), Release);
        record.sequence.store(low(sequence), Release);
        let mut sighting = Sighting { lost: sequence - newest - 1, ..Sighting::default() };
        sighting.duplicate = newest > 0 && token_low(head) <= former_token;
        if former_us != 0 {
            // The first firing is expected at the time that is known, every other one an interval after the one before.
            let expected_us = if newest == 0 { former_us } else { former_us + self.interval_us };
            match scheduled_us.checked_sub(expected_us) {
                Some(0) => {}
                Some(past_us) => {
                    sighting.missed = (past_us / self.interval_us).saturating_sub(sighting.lost);
                    sighting.misplaced = past_us % self.interval_us != 0;
                }
                None => sighting.misplaced = true,
            }
        }
        Ok(sighting)
    }

    /// The server acknowledged this as accepted.
    ///
    /// # Errors
    /// When the id is out of range.
    #[inline]
    pub fn acknowledged(&self, completed: &Completed) -> Result<Acknowledgement, OutOfRange> {
        let record = self.record(completed.job)?;
        let (newest, sequence) = (record.sequence.load(Acquire), low(completed.fire_sequence.0));
        if sequence == 0 || sequence > newest {
            return Ok(Acknowledgement::Unseen);
        }
        let scheduled_us = record.scheduled_us[parity(sequence.into())].load(Acquire);
        if !record.acknowledge(sequence) {
            return Ok(Acknowledgement::Repeated);
        }
        let known = newest - sequence <= 1;
        Ok(Acknowledgement::First(known.then_some(Timestamp::from_micros(scheduled_us))))
    }

    /// What is open of all that was due by `until`. Walks over all jobs.
    pub fn audit(&self, until: Timestamp) -> Audit {
        let mut audit = Audit::default();
        for (_, record) in self.records() {
            record.audit(until.as_micros(), self.interval_us, &mut audit);
        }
        audit
    }

    /// The newest fire sequence of every job that is known.
    pub fn sequences(&self) -> Vec<(JobId, u32)> {
        self.records().map(|(job, record)| (job, record.sequence.load(Acquire))).collect()
    }

    /// The newest fire sequence of a job, 0 if there is none.
    pub fn sequence(&self, job: JobId) -> u32 {
        self.record(job).map_or(0, |record| record.sequence.load(Acquire))
    }

    /// The jobs that were heard of. The generation in the ids is 0.
    fn records(&self) -> impl Iterator<Item = (JobId, &Record)> {
        let partitions = self.partitions.iter().enumerate();
        let pages = partitions.flat_map(|(partition, pages)| {
            pages.iter().enumerate().filter_map(move |(page, held)| Some((partition, page, held.get()?)))
        });
        let all = pages.flat_map(|(partition, page, records)| {
            records.iter().enumerate().map(move |(at, record)| {
                let partition = u16::try_from(partition).expect("partitions are counted by a u16");
                let slot = u32::try_from(page * PAGE_JOBS + at).expect("slots have 32 bits");
                (JobId::new(tickwheel_wire::PartitionId(partition), 0, slot), record)
            })
        });
        all.filter(|(_, record)| record.is_known())
    }

    #[inline]
    fn record(&self, job: JobId) -> Result<&Record, OutOfRange> {
        let pages = self.partitions.get(usize::from(job.partition().0)).ok_or(OutOfRange(job))?;
        let slot = job.slot() as usize;
        let page = pages.get(slot / PAGE_JOBS).ok_or(OutOfRange(job))?;
        Ok(&page.get_or_init(new_page)[slot % PAGE_JOBS])
    }
}

impl Record {
    fn is_known(&self) -> bool {
        self.sequence.load(Acquire) != 0 || self.scheduled_us[0].load(Acquire) != 0
    }

    fn is_acknowledged(&self, sequence: u32) -> bool {
        let held = self.acknowledged.load(Acquire);
        let (highest, bits) = (high_half(held), low(held));
        match highest.checked_sub(sequence) {
            None => false,
            Some(age) => age >= ACKNOWLEDGED_BITS || bits >> age & 1 == 1,
        }
    }

    /// Notes the acknowledgement; false if there was one before.
    fn acknowledge(&self, sequence: u32) -> bool {
        let update = |held: u64| {
            let (highest, bits) = (high_half(held), low(held));
            let (highest, bits) = match sequence.checked_sub(highest) {
                Some(0) | None => {
                    let age = highest - sequence;
                    if age >= ACKNOWLEDGED_BITS {
                        // So late that nobody knows any more; then nothing is held against the server.
                        return Some(held);
                    }
                    if bits >> age & 1 == 1 {
                        return None;
                    }
                    (highest, bits | 1 << age)
                }
                Some(ahead) => (sequence, bits.checked_shl(ahead).unwrap_or(0) | 1),
            };
            Some(u64::from(highest) << 32 | u64::from(bits))
        };
        self.acknowledged.fetch_update(AcqRel, Acquire, update).is_ok()
    }

    fn audit(&self, until_us: u64, interval_us: u64, audit: &mut Audit) {
        audit.jobs += 1;
        let sequence = self.sequence.load(Acquire);
        let newest_us = self.scheduled_us[parity(sequence.into())].load(Acquire);
        let Some(since_us) = until_us.checked_sub(newest_us) else { return };
        audit.outstanding += since_us / interval_us + u64::from(sequence == 0);
        audit.unacknowledged += u64::from(sequence > 0 && !self.is_acknowledged(sequence));
    }
}

#[cold]
fn new_page() -> Box<Page> {
    let records: Box<[Record]> = (0..PAGE_JOBS).map(|_| Record::default()).collect();
    records.try_into().unwrap_or_else(|_| unreachable!("a page has so many records"))
}

const fn parity(sequence: u64) -> usize {
    (sequence & 1) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
const fn low(value: u64) -> u32 {
    value as u32
}

const fn high_half(value: u64) -> u32 {
    low(value >> 32)
}

const fn token_low(head: &DispatchHead) -> u32 {
    low(head.token.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickwheel_wire::{FireSequence, PartitionId, Token, frame::work::Verdict, job::Priority};

    const INTERVAL_US: u64 = 1_000;

    fn job() -> JobId {
        JobId::new(PartitionId(3), 0, 9_000)
    }

    fn head(sequence: u64, token: u64, scheduled_us: u64) -> DispatchHead {
        DispatchHead {
            job: job(),
            fire_sequence: FireSequence(sequence),
            token: Token(token),
            scheduled_at: Timestamp::from_micros(scheduled_us),
            start_to_close_ms: 0,
            heartbeat_ms: 0,
            attempt: 1,
            priority: Priority::P1,
            tenant_bytes: 0,
            name_bytes: 0,
            handler_bytes: 0,
        }
    }

    fn completed(sequence: u64) -> Completed {
        Completed { job: job(), fire_sequence: FireSequence(sequence), token: Token(1), verdict: Verdict::Accepted }
    }

    fn ledger() -> Ledger {
        Ledger::new(4, 100, INTERVAL_US)
    }

    /// Shows the ledger dispatches (sequence, token, time) and checks what it says of the last one.
    #[track_caller]
    fn check(dispatches: &[(u64, u64, u64)], expected: Sighting) {
        let ledger = ledger();
        ledger.expect(job(), Timestamp::from_micros(5_000)).unwrap();
        let mut last = Sighting::default();
        for &(sequence, token, scheduled_us) in dispatches {
            last = ledger.dispatched(&head(sequence, token, scheduled_us)).unwrap();
        }
        assert_eq!(last, expected);
    }

    #[test]
    fn firings_in_order_and_on_time_are_clean() {
        check(&[(1, 1, 5_000)], Sighting::default());
        check(&[(1, 1, 5_000), (2, 2, 6_000), (3, 3, 7_000)], Sighting::default());
    }

    #[test]
    fn a_jump_in_the_sequence_is_lost_and_not_also_missed() {
        check(&[(2, 2, 6_000)], Sighting { lost: 1, ..Sighting::default() });
        check(&[(1, 1, 5_000), (4, 4, 8_000)], Sighting { lost: 2, ..Sighting::default() });
    }

    #[test]
    fn firings_left_out_between_two_are_missed() {
        check(&[(1, 1, 7_000)], Sighting { missed: 2, ..Sighting::default() });
        check(&[(1, 1, 5_000), (2, 2, 9_000)], Sighting { missed: 3, ..Sighting::default() });
    }

    #[test]
    fn a_time_off_the_interval_is_misplaced() {
        check(&[(1, 1, 5_000), (2, 2, 6_001)], Sighting { misplaced: true, ..Sighting::default() });
        check(&[(1, 1, 4_000)], Sighting { misplaced: true, ..Sighting::default() });
    }

    #[test]
    fn the_newest_firing_with_a_higher_token_is_a_retry_and_anything_else_a_duplicate() {
        check(&[(1, 1, 5_000), (1, 2, 5_000)], Sighting { retried: true, ..Sighting::default() });
        check(&[(1, 1, 5_000), (1, 1, 5_000)], Sighting { duplicate: true, ..Sighting::default() });
        check(&[(1, 1, 5_000), (2, 2, 6_000), (1, 3, 5_000)], Sighting { duplicate: true, ..Sighting::default() });
        check(&[(1, 5, 5_000), (2, 5, 6_000)], Sighting { duplicate: true, ..Sighting::default() });
    }

    #[test]
    fn what_was_acknowledged_must_not_run_again() {
        let ledger = ledger();
        ledger.dispatched(&head(1, 1, 5_000)).unwrap();
        ledger.acknowledged(&completed(1)).unwrap();
        assert!(ledger.dispatched(&head(1, 2, 5_000)).unwrap().duplicate);
    }

    #[test]
    fn each_firing_is_acknowledged_once_in_whatever_order() {
        let ledger = ledger();
        for sequence in 1..=3 {
            ledger.dispatched(&head(sequence, sequence, 4_000 + sequence * 1_000)).unwrap();
        }
        let first = |time_us| Acknowledgement::First(Some(Timestamp::from_micros(time_us)));
        assert_eq!(ledger.acknowledged(&completed(3)), Ok(first(7_000)));
        assert_eq!(ledger.acknowledged(&completed(1)), Ok(Acknowledgement::First(None)));
        assert_eq!(ledger.acknowledged(&completed(2)), Ok(first(6_000)));
        for sequence in 1..=3 {
            assert_eq!(ledger.acknowledged(&completed(sequence)), Ok(Acknowledgement::Repeated));
        }
        assert_eq!(ledger.acknowledged(&completed(4)), Ok(Acknowledgement::Unseen));
    }

    #[test]
    fn acknowledgements_are_remembered_across_long_runs() {
        let ledger = ledger();
        for sequence in 1..=200 {
            ledger.dispatched(&head(sequence, sequence, 4_000 + sequence * 1_000)).unwrap();
            assert!(matches!(ledger.acknowledged(&completed(sequence)), Ok(Acknowledgement::First(Some(_)))));
            assert_eq!(ledger.acknowledged(&completed(sequence)), Ok(Acknowledgement::Repeated));
        }
    }

    #[test]
    fn the_audit_tells_what_is_due_and_what_is_not_acknowledged() {
        let ledger = ledger();
        let audit = |until_us| ledger.audit(Timestamp::from_micros(until_us));
        assert_eq!(audit(9_000), Audit::default());
        ledger.expect(job(), Timestamp::from_micros(5_000)).unwrap();
        assert_eq!(audit(4_999), Audit { jobs: 1, ..Audit::default() });
        assert_eq!(audit(5_000), Audit { jobs: 1, outstanding: 1, unacknowledged: 0 });
        assert_eq!(audit(7_500), Audit { jobs: 1, outstanding: 3, unacknowledged: 0 });
        ledger.dispatched(&head(1, 1, 5_000)).unwrap();
        assert_eq!(audit(6_999), Audit { jobs: 1, outstanding: 1, unacknowledged: 1 });
        ledger.acknowledged(&completed(1)).unwrap();
        assert_eq!(audit(5_999), Audit { jobs: 1, ..Audit::default() });
        assert_eq!((ledger.sequences(), ledger.sequence(job())), (vec![(job(), 1)], 1));
    }

    #[test]
    fn a_first_due_time_that_comes_after_the_firing_changes_nothing() {
        let ledger = ledger();
        ledger.dispatched(&head(1, 1, 5_000)).unwrap();
        ledger.expect(job(), Timestamp::from_micros(5_000)).unwrap();
        assert_eq!(ledger.dispatched(&head(2, 2, 6_000)), Ok(Sighting::default()));
    }

    #[test]
    fn ids_that_the_run_cannot_have_made_are_refused() {
        let ledger = ledger();
        for id in [JobId::new(PartitionId(4), 0, 0), JobId::new(PartitionId(0), 0, u32::MAX)] {
            assert_eq!(ledger.expect(id, Timestamp::EPOCH), Err(OutOfRange(id)));
        }
    }
}
