//! The newest attempts that ended, and the newest dead letters, each in a ring.
//!
//! An attempt's texts lie in one buffer, which passes from one that falls out of the ring to one that comes, so that remembering
//! allocates next to nothing once the ring is full. The names of tenant and job are looked up while the job exists and written down when it goes.

use std::collections::VecDeque;
use tickwheel_wire::event::AttemptEnd;

/// Texts of a dead letter are cut to this.
const DEAD_TEXT_BYTES_MAX: usize = 512;

/// An attempt that ended: one cache line, and its texts if it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct Attempt {
    end: [u8; AttemptEnd::BYTES],
    dead: bool,
    pub generation: u32,
    details: Option<Box<Details>>,
}

const _: () = assert!(size_of::<Attempt>() == 64, "the newest attempt of each partition is written at each execution");

/// What most attempts do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Details {
    retry_at: u64,
    /// Error name, output or message, and, if the job is gone, tenant and name; one behind the other.
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

impl Texts<'_> {
    const fn is_empty(&self) -> bool {
        self.error.is_empty() && self.output.is_empty() && self.tenant.is_empty() && self.name.is_empty()
    }
}

impl Attempt {
    /// How it ended.
    pub fn end(&self) -> AttemptEnd {
        AttemptEnd::from_bytes(&self.end).expect("the bytes were made from an attempt's end")
    }

    /// When the next attempt may start; 0: none follows.
    pub fn retry_at(&self) -> u64 {
        self.details.as_ref().map_or(0, |details| details.retry_at)
    }

    /// Whether the execution is a dead letter.
    pub const fn is_dead(&self) -> bool {
        self.dead
    }

    pub fn texts(&self) -> Texts<'_> {
        self.details.as_ref().map(|details| details.texts()).unwrap_or_default()
    }

    fn details_bytes(&self) -> usize {
        self.details.as_ref().map_or(0, |details| size_of::<Details>() + details.bytes.capacity())
    }

    /// Writes the names down that can no longer be looked up.
    fn name(&mut self, tenant: &str, name: &str) {
        let details = self.details.get_or_insert_default();
        if details.tenant_bytes == 0 {
            details.tenant_bytes = u16::try_from(tenant.len()).expect("names are short");
            details.bytes.extend_from_slice(tenant.as_bytes());
            details.bytes.extend_from_slice(name.as_bytes());
        }
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

    fn set(&mut self, retry_at: u64, texts: &Texts<'_>) {
        let length = |bytes: usize| u16::try_from(bytes).expect("texts are bounded at 4 KiB");
        self.retry_at = retry_at;
        self.error_bytes = length(texts.error.len());
        self.output_bytes = length(texts.output.len());
        self.tenant_bytes = length(texts.tenant.len());
        self.bytes.clear();
        self.bytes.extend_from_slice(texts.error.as_bytes());
        self.bytes.extend_from_slice(texts.output);
        self.bytes.extend_from_slice(texts.tenant.as_bytes());
        self.bytes.extend_from_slice(texts.name.as_bytes());
    }
}

/// What is remembered of an attempt besides its texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptHead {
    pub end: AttemptEnd,
    pub generation: u32,
    pub retry_at: u64,
    pub dead: bool,
}

/// Attempts in order of their end.
#[derive(Debug)]
pub(crate) struct Recent {
    attempts: VecDeque<Attempt>,
    count_max: usize,
    /// Details of a fallen attempt, for the next that needs some.
    spare: Option<Box<Details>>,
}

impl Recent {
    pub const fn new(count_max: u32) -> Self {
        Self { attempts: VecDeque::new(), count_max: count_max as usize, spare: None }
    }

    /// Remembers an attempt; returns the worker of the one that fell out.
    pub fn push(&mut self, head: AttemptHead, texts: &Texts<'_>) -> Option<u16> {
        let (mut fallen, mut details) = (None, None);
        if self.attempts.len() >= self.count_max {
            let oldest = self.attempts.pop_front()?;
            fallen = Some(oldest.end().worker);
            details = oldest.details;
        }
        let AttemptHead { end, generation, retry_at, dead } = head;
        if retry_at == 0 && texts.is_empty() {
            self.spare = details.or_else(|| self.spare.take());
            details = None;
        } else {
            let mut kept = details.or_else(|| self.spare.take()).unwrap_or_default();
            kept.set(retry_at, texts);
            details = Some(kept);
        }
        self.attempts.push_back(Attempt { end: end.to_bytes(), dead, generation, details });
        fallen
    }

    /// Writes the names of a job that goes into its attempts. `newest_end_secs` is when its newest attempt ended.
    pub fn name_attempts(&mut self, slot: u32, generation: u32, newest_end_secs: u32, tenant: &str, name: &str) {
        let oldest_secs = self.attempts.front().map(|oldest| oldest.end().finished_at.as_micros() / 1_000_000);
        if oldest_secs.is_none_or(|oldest| oldest > u64::from(newest_end_secs)) {
            return;
        }
        let own = |attempt: &&mut Attempt| attempt.generation == generation && attempt.end().slot == slot;
        for attempt in self.attempts.iter_mut().filter(own) {
            attempt.name(tenant, name);
        }
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Attempt> + ExactSizeIterator {
        self.attempts.iter()
    }

    pub fn memory_bytes(&self) -> usize {
        self.attempts.capacity() * size_of::<Attempt>()
            + self.attempts.iter().map(Attempt::details_bytes).sum::<usize>()
    }
}

/// The front of `bytes` that a dead letter keeps.
pub(crate) fn cut_for_dead_letter(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(DEAD_TEXT_BYTES_MAX)]
}
