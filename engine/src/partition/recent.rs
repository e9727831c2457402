//! The newest attempts that ended, and the newest dead letters, each in a ring.
//!
//! An entry's texts lie in one buffer that its place in the ring keeps, so that remembering allocates nothing once the ring is
//! full. The names of tenant and job are looked up while the job exists and written down when it goes.

use std::collections::VecDeque;
use tickwheel_wire::event::AttemptEnd;

/// Texts of a dead letter are cut to this.
const DEAD_TEXT_BYTES_MAX: usize = 512;

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub end: AttemptEnd,
    pub generation: u32,
    /// Whether another attempt followed, and from when.
    pub retry_at: u64,
    pub dead: bool,
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

impl Attempt {
    pub fn texts(&self) -> Texts<'_> {
        let (error, rest) = self.bytes.split_at(usize::from(self.error_bytes));
        let (output, rest) = rest.split_at(usize::from(self.output_bytes));
        let (tenant, name) = rest.split_at(usize::from(self.tenant_bytes));
        let text = |bytes| std::str::from_utf8(bytes).expect("texts are stored as they came, in UTF-8");
        Texts { error: text(error), output, tenant: text(tenant), name: text(name) }
    }

    fn set_texts(&mut self, texts: &Texts<'_>) {
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
}

impl Recent {
    pub const fn new(count_max: u32) -> Self {
        Self { attempts: VecDeque::new(), count_max: count_max as usize }
    }

    /// Remembers an attempt; returns the worker of the one that fell out.
    pub fn push(&mut self, head: AttemptHead, texts: &Texts<'_>) -> Option<u16> {
        let mut buffer = Vec::new();
        let mut fallen = None;
        if self.attempts.len() >= self.count_max {
            let oldest = self.attempts.pop_front()?;
            fallen = Some(oldest.end.worker);
            buffer = oldest.bytes;
        }
        let AttemptHead { end, generation, retry_at, dead } = head;
        let mut attempt = Attempt {
            end,
            generation,
            retry_at,
            dead,
            bytes: buffer,
            error_bytes: 0,
            output_bytes: 0,
            tenant_bytes: 0,
        };
        attempt.set_texts(texts);
        self.attempts.push_back(attempt);
        fallen
    }

    /// Writes the names of a job that goes into its attempts. `newest_end_secs` is when its newest attempt ended.
    pub fn name_attempts(&mut self, slot: u32, generation: u32, newest_end_secs: u32, tenant: &str, name: &str) {
        let oldest_secs = self.attempts.front().map(|oldest| oldest.end.finished_at.as_micros() / 1_000_000);
        if oldest_secs.is_none_or(|oldest| oldest > u64::from(newest_end_secs)) {
            return;
        }
        let own = |attempt: &&mut Attempt| attempt.end.slot == slot && attempt.generation == generation;
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
            + self.attempts.iter().map(|attempt| attempt.bytes.capacity()).sum::<usize>()
    }
}

/// The front of `bytes` that a dead letter keeps.
pub(crate) fn cut_for_dead_letter(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(DEAD_TEXT_BYTES_MAX)]
}
