//! What happened in a run, for people: one line per event, with the virtual time. Costs nothing unless it is asked for.

use std::{fmt, time::Duration};

/// A run's trace.
#[derive(Debug, Default)]
pub struct Trace {
    is_on: bool,
    lines: Vec<String>,
}

impl Trace {
    /// A trace that is kept or not.
    pub const fn new(is_on: bool) -> Self {
        Self { is_on, lines: Vec::new() }
    }

    /// Adds a line.
    pub fn note(&mut self, now: Duration, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        if self.is_on {
            self.lines.push(format!("{:>12.6} {who:<9} {what}", now.as_secs_f64()));
        }
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
