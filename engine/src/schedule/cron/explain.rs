//! What a schedule means, for people: a sentence, its next fires, and what it does at the coming changes of the clock.
//!
//! Pure, like everything about schedules. The sentence is made in [`super::wording`], the statements about changes in
//! [`super::clock_change`].

use super::{Cron, clock_change::ClockChange, clock_change::ZonedTime, wording};
use std::fmt;
use tickwheel_wire::Timestamp;

/// How many changes of the clock are looked at, at most.
const CHANGES_MAX: usize = 2;
/// How far ahead changes of the clock are looked for: two years, one of them a leap year.
const CHANGES_WITHIN_S: u64 = (365 + 366) * 86_400;

/// What a schedule means. Shown as lines: the sentence, one line for each fire, and one for each change of the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The conditions that a local time has to meet, such as `at minute 0, every 2 hours from 9 to 17, Monday to Friday`.
    pub text: String,
    /// The next fires.
    pub next: Vec<ZonedTime>,
    /// The next two changes of the clock, if they come within two years.
    pub clock_changes: Vec<ClockChange>,
}

impl Cron {
    /// What this schedule means, with its first `fire_count` fires after `after` and the changes of the clock behind it.
    ///
    /// An `H` reads as the value that it was settled to.
    pub fn explain(&self, after: Timestamp, fire_count: usize) -> Explanation {
        let fires = std::iter::successors(self.next_after(after), |last| self.next_after(*last));
        let zoned = |at| ZonedTime { at, offset_s: self.zone().offset_s(at) };
        let until = Timestamp::from_micros(after.as_micros().saturating_add(CHANGES_WITHIN_S * 1_000_000));
        Explanation {
            text: wording::sentence(&self.pattern),
            next: fires.take(fire_count).map(zoned).collect(),
            clock_changes: self.clock_changes(after, until, CHANGES_MAX),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.next.iter().try_for_each(|fire| write!(f, "\n{fire}"))?;
        self.clock_changes.iter().try_for_each(|change| write!(f, "\n{change}"))
    }
}
