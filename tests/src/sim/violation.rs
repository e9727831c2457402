//! What a run may find.

use std::fmt;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// What happened.
    pub what: String,
}

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// What was told to anyone is found again after every failure.
    Durable,
    /// Nothing fires before its time.
    NotEarly,
    /// A token is given out once, and tokens of a job grow.
    TokensGrow,
    /// An execution's end is counted once, and only as its own worker told it.
    CompletedOnce,
    /// A job that allows one attempt is run at most once per firing.
    AtMostOnce,
    /// Every firing is executed or accounted for, and the next one is the schedule's.
    Accounted,
    /// Attempts end, are repeated and given up by the rules of their job.
    AttemptRules,
    /// Jobs are what their clients made them.
    Jobs,
    /// Requests are answered truly.
    Answers,
    /// Queues and credit keep within their bounds.
    Bounded,
    /// Replay gives the state that there was.
    Replay,
    /// Damage is noticed, and a torn end is not taken for it.
    Damage,
    /// When faults stop, all that is due gets done.
    Liveness,
    /// The node does not panic, and ends only for a reason.
    Alive,
}

impl Violation {
    /// Of `promise`.
    pub fn new(promise: Promise, what: impl Into<String>) -> Self {
        Self { promise, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.promise, self.what)
    }
}

/// Fails with a violation unless the condition holds.
macro_rules! demand {
    ($condition:expr, $promise:ident, $($what:tt)+) => {
        if !$condition {
            return Err($crate::sim::violation::Violation::new(
                $crate::sim::violation::Promise::$promise,
                format!($($what)+),
            ));
        }
    };
}

pub(crate) use demand;
