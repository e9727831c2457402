//! The newest attempts that ended, and the newest dead letters, each in a ring.
//!
//! Every execution writes one entry, and each partition has rings of its own, so the place it writes to is hardly ever in a cache:
//! it is one cache line that is written and never read on the way. The few attempts that have texts keep them beside, in buffers
//! that pass from one that falls out of the ring to one that comes. The names of tenant and job are looked up while the job exists and
//! written down when it goes.

use crate::prefetch::prefetch;
use std::collections::VecDeque;
use tickwheel_wire::event::AttemptEnd;

/// Texts of a dead letter are cut to this.
const DEAD_TEXT_BYTES_MAX: usize = 512;

/// What is remembered of an attempt besides its texts: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line {
    end: [u8; AttemptEnd::BYTES],
    dead: bool,
    generation: u32,
    retry_at: u64,
}

pub(super) const LINE_BYTES: usize = size_of::<Line>();

const _: () = assert!(LINE_BYTES == 64, "an execution writes one cache line of the ring");

/// The texts of an attempt, one behind the other: error name, output or message, and, if the job is gone, tenant and name.
#[derive(Clone, Debug, Default)]
struct Details {
    /// Number of the attempt.
    number: u64,
    bytes: Vec<u8>,
    error_bytes: u16,
    output_bytes: u16,
    tenant_bytes: u16,
}

/// The texts of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Texts<'a> {
    pub error: &'a str,
    pub output: &'a [u8],
    pub tenant: &'a str,
    pub name: &'a str,
}

/// An attempt as it is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    pub end: AttemptEnd,
    pub generation: u32,
    /// When the next attempt may start; 0: none follows.
    pub retry_at: u64,
    /// Whether the execution is a dead letter.
    pub dead: bool,
    pub texts: Texts<'a>,
}

/// Attempts in order of their end.
#[derive(Debug)]
pub(crate) struct Recent {
    /// The attempt with number n is at n modulo the bound.
    lines: Vec<Line>,
    /// Number of the next attempt.
    next_number: u64,
    count_max: usize,
    /// By ascending number.
    details: VecDeque<Details>,
    spare: Vec<u8>,
}

impl Recent {
    pub const fn new(count_max: u32) -> Self {
        let count_max = count_max as usize;
        Self { lines: Vec::new(), next_number: 0, count_max, details: VecDeque::new(), spare: Vec::new() }
    }

    /// Remembers an attempt, in place of the oldest if there are too many.
    #[inline]
    pub fn push(&mut self, attempt: &Attempt<'_>) {
        if self.count_max == 0 {
            return;
        }
        let Attempt { end, generation, retry_at, dead, texts } = *attempt;
        let line = Line { end: end.to_bytes(), dead, generation, retry_at };
        if self.lines.len() < self.count_max {
            self.lines.push(line);
        } else {
            let place = self.place(self.next_number);
            self.lines[place] = line;
            let oldest = self.next_number - self.count_max as u64;
            if self.details.front().is_some_and(|details| details.number == oldest) {
                self.spare = self.details.pop_front().expect("there is a front").bytes;
            }
        }
        if texts != Texts::default() {
            let mut details =
                Details { number: self.next_number, bytes: std::mem::take(&mut self.spare), ..Details::default() };
            details.set(&texts);
            self.details.push_back(details);
        }
        self.next_number += 1;
        if let Some(next) = self.lines.get(self.place(self.next_number)) {
            prefetch(next);
        }
    }

    /// Writes the names of a job that goes into its attempts. `newest_end_secs` is when its newest attempt ended.
    pub fn name_attempts(&mut self, slot: u32, generation: u32, newest_end_secs: u32, tenant: &str, name: &str) {
        let oldest_secs = self.iter().next().map(|oldest| oldest.end.finished_at.as_micros() / 1_000_000);
        if oldest_secs.is_none_or(|oldest| oldest > u64::from(newest_end_secs)) {
            return;
        }
        for number in self.numbers() {
            let line = &self.lines[self.place(number)];
            if line.generation == generation && end_of(line).slot == slot {
                self.details_of(number).name(tenant, name);
            }
        }
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Attempt<'_>> {
        self.numbers().map(|number| self.attempt(number))
    }

    /// The oldest from this number on, and its number.
    pub fn next_from(&self, number: u64) -> Option<(u64, Attempt<'_>)> {
        let number = number.max(self.numbers().start);
        self.numbers().contains(&number).then(|| (number, self.attempt(number)))
    }

    /// The one with so many after it, and that count.
    pub fn nth_newest(&self, count: u64) -> Option<(u64, Attempt<'_>)> {
        let number = self.next_number.checked_sub(count.checked_add(1)?)?;
        self.numbers().contains(&number).then(|| (count, self.attempt(number)))
    }

    /// A dead letter.
    pub fn find_dead(&self, slot: u32, generation: u32, fire_sequence: u32) -> Option<Attempt<'_>> {
        self.number_of_dead(slot, generation, fire_sequence).map(|number| self.attempt(number))
    }

    /// Makes a dead letter one no more.
    pub fn revive(&mut self, slot: u32, generation: u32, fire_sequence: u32) {
        if let Some(number) = self.number_of_dead(slot, generation, fire_sequence) {
            let place = self.place(number);
            self.lines[place].dead = false;
        }
    }

    fn number_of_dead(&self, slot: u32, generation: u32, fire_sequence: u32) -> Option<u64> {
        self.numbers().rev().find(|number| {
            let line = &self.lines[self.place(*number)];
            let end = end_of(line);
            line.dead && line.generation == generation && end.slot == slot && end.fire_sequence == fire_sequence
        })
    }

    pub fn memory_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
            + self.details.capacity() * size_of::<Details>()
            + self.details.iter().map(|details| details.bytes.capacity()).sum::<usize>()
    }

    fn numbers(&self) -> std::ops::Range<u64> {
        self.next_number - self.lines.len() as u64..self.next_number
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder is below the bound, which is a usize")]
    const fn place(&self, number: u64) -> usize {
        (number % self.count_max as u64) as usize
    }

    fn attempt(&self, number: u64) -> Attempt<'_> {
        let line = &self.lines[self.place(number)];
        let found = self.details.binary_search_by_key(&number, |details| details.number);
        let texts = found.map(|place| self.details[place].texts()).unwrap_or_default();
        Attempt { end: end_of(line), generation: line.generation, retry_at: line.retry_at, dead: line.dead, texts }
    }

    /// The texts of an attempt, empty ones if it has none yet.
    fn details_of(&mut self, number: u64) -> &mut Details {
        let place = match self.details.binary_search_by_key(&number, |details| details.number) {
            Ok(place) => place,
            Err(place) => {
                self.details.insert(place, Details { number, ..Details::default() });
                place
            }
        };
        &mut self.details[place]
    }
}

impl Details {
    fn texts(&self) -> Texts<'_> {
        let (error, rest) = self.bytes.split_at(usize::from(self.error_bytes));
        let (output, rest) = rest.split_at(usize::from(self.output_bytes));
        let (tenant, name) = rest.split_at(usize::from(self.tenant_bytes));
        let text = |bytes| std::str::from_utf8(bytes).expect("texts are stored as they came, in UTF-8");
        Texts { error: text(error), output, tenant: text(tenant), name: text(name) }
    }

    fn set(&mut self, texts: &Texts<'_>) {
        let length = |bytes: usize| u16::try_from(bytes).expect("texts are bounded at 4 KiB");
        self.error_bytes = length(texts.error.len());
        self.output_bytes = length(texts.output.len());
        self.tenant_bytes = length(texts.tenant.len());
        self.bytes.clear();
        self.bytes.extend_from_slice(texts.error.as_bytes());
        self.bytes.extend_from_slice(texts.output);
        self.bytes.extend_from_slice(texts.tenant.as_bytes());
        self.bytes.extend_from_slice(texts.name.as_bytes());
    }

    /// Writes the names down that can no longer be looked up.
    fn name(&mut self, tenant: &str, name: &str) {
        if self.tenant_bytes == 0 {
            self.tenant_bytes = u16::try_from(tenant.len()).expect("names are short");
            self.bytes.extend_from_slice(tenant.as_bytes());
            self.bytes.extend_from_slice(name.as_bytes());
        }
    }
}

fn end_of(line: &Line) -> AttemptEnd {
    AttemptEnd::from_bytes(&line.end).expect("the bytes were made from an attempt's end")
}

/// The front of `bytes` that a dead letter keeps.
pub(crate) fn cut_for_dead_letter(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(DEAD_TEXT_BYTES_MAX)]
}
