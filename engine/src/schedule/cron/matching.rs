//! The local times that an expression matches, as a set and not as fires: for what it excludes.
//!
//! Of restricted day fields one has to match, whatever the job says of its own. Changes of the clock have no part in it: a time is in the set whenever the clock shows it.

use super::{
    error::CronError,
    pattern::Pattern,
    syntax::{self, Parsed},
};

use tickwheel_wire::job::DayRule;

/// All seconds of a minute.
const EVERY_SECOND: u64 = (1 << 60) - 1;

/// The local times that an expression matches, to the second; without a seconds field whole minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::schedule) struct Matching(Pattern);

impl Matching {
    /// # Errors
    /// As [`super::Cron::new`].
    pub fn new(expression: &str) -> Result<Self, CronError> {
        let Parsed { mut pattern, .. } = syntax::parse(expression, DayRule::Or)?;
        let field_count = expression.split_ascii_whitespace().count();
        if field_count <= syntax::FIELDS_WITHOUT_SECONDS {
            pattern.seconds = EVERY_SECOND;
        }
        Ok(Self(pattern))
    }

    /// If the local second `at_s` matches, the end of some stretch that does with it: as long as is plain to see, at most up to midnight.
    pub fn end_of(&self, at_s: i64) -> Option<i64> {
        self.0.holds(at_s).then(|| self.0.run_end(at_s))
    }
}
