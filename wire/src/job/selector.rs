//! Picking jobs: by their labels, and by how they stand.
//!
//! A selector is a text of conditions between commas, all of which have to hold: `team=ops` (or `==`), `env!=prod`, `critical` (the
//! key is there), `!legacy` (it is not). This is the equality-based form of Kubernetes' label selectors; as there, `env!=prod`
//! holds for a job without the key, too. Deliberately absent: sets (`in`, `notin`), blanks around keys and values.

use super::labels::{LabelError, check_key, check_value, labels};
use crate::{
    DecodeError,
    layout::{FixedField, wire_enum},
    limits::LABELS_MAX,
};

/// What a selector asks of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test<'a> {
    Equals(&'a str),
    Differs(&'a str),
    Exists,
    Absent,
}

impl Test<'_> {
    fn admits(self, value: Option<&str>) -> bool {
        match self {
            Self::Equals(wanted) => value == Some(wanted),
            Self::Differs(unwanted) => value != Some(unwanted),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
        }
    }
}

/// A selector of jobs by their labels. Without conditions it admits every job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector<'a> {
    /// Sorted by key, as labels are, so that both are read once.
    conditions: Vec<(&'a str, Test<'a>)>,
}

impl<'a> LabelSelector<'a> {
    /// Parses a selector; the empty text has no conditions.
    ///
    /// # Errors
    /// When there are more than 32 conditions, or one holds what is no key or no value.
    pub fn parse(text: &'a str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let count = text.split(',').count();
        if count > LABELS_MAX {
            return Err(LabelError::TooMany { count, count_max: LABELS_MAX });
        }
        let mut conditions = Vec::with_capacity(count);
        for (index, condition) in text.split(',').enumerate() {
            let (key, test) = parse_condition(condition);
            check_key(index + 1, key)?;
            if let Test::Equals(value) | Test::Differs(value) = test {
                check_value(key, value)?;
            }
            conditions.push((key, test));
        }
        conditions.sort_by_key(|(key, _)| *key);
        Ok(Self { conditions })
    }

    /// Whether it has no conditions.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether every condition holds for the labels of a definition.
    pub fn admits(&self, text: &str) -> bool {
        let mut labels = labels(text).peekable();
        self.conditions.iter().all(|(key, test)| {
            while labels.next_if(|(other, _)| other < key).is_some() {}
            let found = labels.peek().filter(|(other, _)| other == key);
            test.admits(found.map(|(_, value)| *value))
        })
    }
}

fn parse_condition(text: &str) -> (&str, Test<'_>) {
    if let Some(key) = text.strip_prefix('!') {
        return (key, Test::Absent);
    }
    let Some(at) = text.find(['=', '!']) else { return (text, Test::Exists) };
    let (key, rest) = text.split_at(at);
    let differs = rest.strip_prefix("!=").map(Test::Differs);
    let equals = || rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).map(Test::Equals);
    // A `!` of no meaning is left to the key, which may not hold it.
    differs.or_else(equals).map_or((text, Test::Exists), |test| (key, test))
}

wire_enum! {
    /// How a job stands, as lists pick it. A job is paused, active or finished; besides that it may be running or failing.
    pub enum JobState: u8 {
        /// It is paused.
        Paused = 1 => "paused",
        /// It is not paused, and an execution of it is in flight or will come.
        Active = 2 => "active",
        /// An execution of it is in flight.
        Running = 4 => "running",
        /// The newest of its executions that ended has failed for good or came too late.
        Failing = 8 => "failing",
        /// It is not paused, nothing of it is in flight, and it fires no more.
        Finished = 16 => "finished",
    }
}

/// A set of states. As a filter it admits jobs that have any of them; the empty one admits every job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct JobStates(u8);

impl JobStates {
    /// No state.
    pub const NONE: Self = Self(0);
    const ALL: u8 = 31;

    /// The same with one state more.
    #[must_use]
    pub const fn with(self, state: JobState) -> Self {
        Self(self.0 | state.number())
    }

    /// The same with one state more if `condition` holds.
    #[must_use]
    pub const fn with_if(self, condition: bool, state: JobState) -> Self {
        if condition { self.with(state) } else { self }
    }

    /// Whether there is no state in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As a filter: whether it admits a job that has these states.
    pub const fn admits(self, states: Self) -> bool {
        self.is_empty() || self.0 & states.0 != 0
    }
}

impl FromIterator<JobState> for JobStates {
    fn from_iter<T: IntoIterator<Item = JobState>>(states: T) -> Self {
        states.into_iter().fold(Self::NONE, Self::with)
    }
}

impl FixedField for JobStates {
    const BYTES: usize = 1;

    fn put(self, out: &mut [u8]) {
        out[0] = self.0;
    }

    fn pick(bytes: &[u8], field: &'static str) -> Result<Self, DecodeError> {
        match u8::pick(bytes, field)? {
            states @ 0..=Self::ALL => Ok(Self(states)),
            other => Err(DecodeError::Invalid { field, value: other.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_admits_what_meets_all_its_conditions() {
        let labels = "critical=,env=prod,expression=a=b,team=ops";
        for (selector, expected) in [
            ("", true),
            ("team=ops", true),
            ("team==ops", true),
            ("team=dev", false),
            ("team=", false),
            ("critical=", true),
            ("env!=prod", false),
            ("env!=test", true),
            ("owner!=me", true),
            ("critical", true),
            ("owner", false),
            ("!owner", true),
            ("!team", false),
            ("expression=a=b", true),
            ("expression!=a=b", false),
            ("team=ops,env!=test,critical,!legacy", true),
            ("team=ops,env!=test,critical,!legacy,owner", false),
            ("env!=test,env!=prod", false),
            ("env!=test,env=prod,env", true),
            ("z,critical", false),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
            assert_eq!(parsed.admits(labels), expected, "{selector}");
        }
        let none = LabelSelector::parse("!a,b!=1").unwrap();
        assert!(none.admits("") && LabelSelector::default().admits(""));
        assert!(!LabelSelector::parse("a").unwrap().admits(""));
    }

    #[test]
    fn a_value_that_begins_with_the_sign_is_reached_by_the_long_form() {
        let selector = LabelSelector::parse("a===b").unwrap();
        assert!(selector.admits("a==b") && !selector.admits("a=b"));
    }

    #[test]
    fn what_is_no_selector_is_refused_with_its_limit() {
        let many = vec!["a"; 33].join(",");
        let long = "k".repeat(64);
        let long_value = format!("a!={}", "v".repeat(256));
        for (selector, expected) in [
            (&*many, "there are 33; allowed are 32"),
            (&long, "key 1 has 64 bytes; allowed are 1 to 63"),
            ("a,,b", "key 2 has 0 bytes"),
            ("!", "key 1 has 0 bytes"),
            ("=a", "key 1 has 0 bytes"),
            ("!a=b", "the key \"a=b\" holds '='"),
            ("a!b", "the key \"a!b\" holds '!'"),
            ("a in (b)", "the key \"a in (b)\" holds ' '"),
            ("a, b", "the key \" b\" holds ' '"),
            (&long_value, "the value of `a` has 256 bytes; allowed are 0 to 255"),
            ("a=\n", "the value of `a` holds '\\n'"),
        ] {
            let error = LabelSelector::parse(selector).expect_err(selector).to_string();
            assert!(error.starts_with(expected), "{selector}: {error}");
        }
    }

    #[test]
    fn a_set_of_states_admits_any_of_them_and_the_empty_one_all() {
        let wanted: JobStates = [JobState::Paused, JobState::Failing].into_iter().collect();
        assert!(wanted.admits(JobStates::NONE.with(JobState::Failing).with(JobState::Active)));
        assert!(!wanted.admits(JobStates::NONE.with(JobState::Active)));
        assert!(JobStates::NONE.admits(JobStates::NONE.with(JobState::Active)));
        let all: JobStates = JobState::ALL.iter().copied().collect();
        assert_eq!(all, JobStates(JobStates::ALL));
        assert!(JobStates::pick(&[32], "states").is_err());
    }
}
