//! What one thread of workers counts and measures, and the moments that say what belongs to the measurement.
//!
//! Every thread owns its [`Tally`]; they are merged when the threads have ended. What the progress bar and the end of a run need
//! meanwhile stands in [`Live`], on a cache line for each thread. Latencies belong to the window if the firing was due in it,
//! however late it came; throughput counts what was acknowledged within the window.

use hdrhistogram::Histogram;
use std::{
    collections::BTreeMap,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use tickwheel_wire::{Timestamp, job::Priority};

/// Longest latency that is told apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;
/// Most different texts of errors that are kept.
const ERROR_TEXTS_MAX: usize = 16;

/// When the measurement is on.
#[derive(Debug)]
pub(crate) struct Window {
    start_us: AtomicU64,
    end_us: AtomicU64,
    /// The server is about to be killed, or was: lost sessions are no errors.
    outage: AtomicBool,
    /// The run is over: what still comes is completed and not judged.
    closed: AtomicBool,
}

impl Window {
    /// Nothing is measured until [`Window::open`].
    pub const fn new() -> Self {
        Self {
            start_us: AtomicU64::new(u64::MAX),
            end_us: AtomicU64::new(u64::MAX),
            outage: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Measures from `start` until before `end`. To be called before `start`.
    pub fn open(&self, start: Timestamp, end: Timestamp) {
        self.end_us.store(end.as_micros(), Release);
        self.start_us.store(start.as_micros(), Release);
    }

    #[inline]
    pub fn holds(&self, time: Timestamp) -> bool {
        (self.start_us.load(Acquire)..self.end_us.load(Acquire)).contains(&time.as_micros())
    }

    pub fn expect_outage(&self, outage: bool) {
        self.outage.store(outage, Release);
    }

    pub fn is_outage(&self) -> bool {
        self.outage.load(Acquire)
    }

    pub fn close(&self) {
        self.closed.store(true, Release);
    }

    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }
}

/// Counts that others read while a thread runs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Live {
    dispatched: AtomicU64,
    acknowledged: AtomicU64,
    errors: AtomicU64,
}

/// The sum of [`Live`] over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveSum {
    pub dispatched: u64,
    pub acknowledged: u64,
    pub errors: u64,
}

impl Live {
    /// Publishes the counts of the thread that owns it.
    pub fn publish(&self, tally: &Tally) {
        self.dispatched.store(tally.dispatched, Relaxed);
        self.acknowledged.store(tally.acknowledged, Relaxed);
        self.errors.store(tally.errors, Relaxed);
    }

    pub fn sum(all: &[Self]) -> LiveSum {
        all.iter().fold(LiveSum::default(), |sum, live| LiveSum {
            dispatched: sum.dispatched + live.dispatched.load(Relaxed),
            acknowledged: sum.acknowledged + live.acknowledged.load(Relaxed),
            errors: sum.errors + live.errors.load(Relaxed),
        })
    }
}

/// What a thread counted and measured.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Receipt by the worker after the time that was meant, of firings due in the window, in microseconds.
    pub lateness_us: Histogram<u64>,
    /// The same of P0 alone.
    pub lateness_p0_us: Histogram<u64>,
    /// Receipt of the acknowledgement after the time that was meant, of firings due in the window, in microseconds.
    pub completion_us: Histogram<u64>,
    /// Acknowledged within the window.
    pub executions: u64,
    /// Acknowledged firings whose time was not known any more.
    pub unmeasured: u64,
    /// Dispatches received over the whole run.
    pub dispatched: u64,
    /// Completions that the server accepted over the whole run.
    pub acknowledged: u64,
    /// When the newest of them was acknowledged.
    pub acknowledged_at: Timestamp,
    /// When the newest dispatch was received.
    pub dispatched_at: Timestamp,
    pub lost: u64,
    pub missed: u64,
    pub retried: u64,
    pub duplicates: u64,
    pub early: u64,
    /// Completions that the server asked to present again.
    pub overloaded: u64,
    pub errors: u64,
    /// How often each kind of error was met.
    error_texts: BTreeMap<String, u64>,
}

impl Tally {
    pub fn new() -> Self {
        let histogram = || Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS).expect("the bounds are constants");
        Self {
            lateness_us: histogram(),
            lateness_p0_us: histogram(),
            completion_us: histogram(),
            executions: 0,
            unmeasured: 0,
            dispatched: 0,
            acknowledged: 0,
            acknowledged_at: Timestamp::EPOCH,
            dispatched_at: Timestamp::EPOCH,
            lost: 0,
            missed: 0,
            retried: 0,
            duplicates: 0,
            early: 0,
            overloaded: 0,
            errors: 0,
            error_texts: BTreeMap::new(),
        }
    }

    /// Notes an error. Equal texts are counted together, so they should not hold what differs each time.
    #[cold]
    pub fn error(&mut self, text: impl Into<String>) {
        self.errors += 1;
        let text = text.into();
        if self.error_texts.len() < ERROR_TEXTS_MAX || self.error_texts.contains_key(&text) {
            *self.error_texts.entry(text).or_default() += 1;
        }
    }

    /// How late a dispatch of this priority came.
    #[inline]
    pub fn lateness(&mut self, priority: Priority, late_us: u64) {
        self.lateness_us.saturating_record(late_us);
        if priority == Priority::P0 {
            self.lateness_p0_us.saturating_record(late_us);
        }
    }

    /// What went wrong and how often, for people.
    pub fn error_texts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.error_texts.iter().map(|(text, count)| (text.as_str(), *count))
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in [
            (&mut self.lateness_us, &other.lateness_us),
            (&mut self.lateness_p0_us, &other.lateness_p0_us),
            (&mut self.completion_us, &other.completion_us),
        ] {
            to.add(from).expect("all histograms have the same bounds");
        }
        for (to, from) in [
            (&mut self.executions, other.executions),
            (&mut self.unmeasured, other.unmeasured),
            (&mut self.dispatched, other.dispatched),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.lost, other.lost),
            (&mut self.missed, other.missed),
            (&mut self.retried, other.retried),
            (&mut self.duplicates, other.duplicates),
            (&mut self.early, other.early),
            (&mut self.overloaded, other.overloaded),
            (&mut self.errors, other.errors),
        ] {
            *to += from;
        }
        self.acknowledged_at = self.acknowledged_at.max(other.acknowledged_at);
        self.dispatched_at = self.dispatched_at.max(other.dispatched_at);
        for (text, count) in &other.error_texts {
            *self.error_texts.entry(text.clone()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_its_start_and_not_its_end() {
        let window = Window::new();
        let at = Timestamp::from_micros;
        assert!(!window.holds(at(10)));
        window.open(at(10), at(20));
        assert_eq!([9, 10, 19, 20].map(|time| window.holds(at(time))), [false, true, true, false]);
    }

    #[test]
    fn merging_adds_counts_latencies_and_errors() {
        let (mut one, mut two) = (Tally::new(), Tally::new());
        one.lateness(Priority::P0, 10);
        two.lateness(Priority::P1, 1_000);
        (one.lost, two.lost) = (1, 2);
        (one.acknowledged_at, two.acknowledged_at) = (Timestamp::from_secs(3), Timestamp::from_secs(2));
        one.error("refused");
        two.error("refused");
        one.merge(&two);
        assert_eq!((one.lateness_us.len(), one.lateness_p0_us.len(), one.lost, one.errors), (2, 1, 3, 2));
        assert_eq!(one.acknowledged_at, Timestamp::from_secs(3));
        assert_eq!(one.error_texts().collect::<Vec<_>>(), [("refused", 2)]);
    }

    #[test]
    fn the_texts_of_errors_are_bounded_and_their_number_is_not() {
        let mut tally = Tally::new();
        for number in 0..100 {
            tally.error(format!("error {number}"));
        }
        assert_eq!((tally.errors, tally.error_texts().count()), (100, ERROR_TEXTS_MAX));
    }
}
