//! Why a cron expression or its zone is refused.
//!
//! Invariant: an error quotes at most [`QUOTE_CHARS_MAX`] characters of what the user wrote.

use super::field::CronField;
use std::fmt;

/// How much of an offending text an error repeats.
const QUOTE_CHARS_MAX: usize = 64;

/// Why a cron schedule could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// The expression is longer than any sensible one.
    #[error("the cron expression has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The greatest length.
        bytes_max: usize,
    },
    /// There are not five to seven fields.
    #[error(
        "a cron expression has 5 fields (minute, hour, day of month, month, day of week), 6 with seconds in front, or 7 \
         with years at the end too, not {count}"
    )]
    FieldCount {
        /// How many there are.
        count: usize,
    },
    /// A word after `@` is none of the shorthands.
    #[error(
        "unknown shorthand `{text}`; allowed are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly"
    )]
    UnknownShorthand {
        /// What was written.
        text: String,
    },
    /// `@reboot` names no point in time.
    #[error("`@reboot` names an event, not a time, and cannot be scheduled")]
    Reboot,
    /// A part of a field is wrong.
    #[error("{field} `{text}`: {problem}; allowed are {}", .field.allowed())]
    Field {
        /// The field.
        field: CronField,
        /// The part of it that is wrong, between commas.
        text: String,
        /// What is wrong with it.
        problem: FieldProblem,
    },
    /// Both day fields are `?`.
    #[error("`?` leaves the day to the other day field, so that only one of them can be `?`")]
    NoDay,
    /// No day of the calendar matches, as with 30 February.
    #[error("no date matches days, months and years together, so `{text}` would never fire")]
    NeverFires {
        /// The expression.
        text: String,
    },
    /// The zone is not in the bundled database.
    #[error("unknown time zone `{name}`; use an IANA name such as `Europe/Berlin` or `UTC`")]
    UnknownZone {
        /// What was asked for.
        name: String,
    },
}

impl CronError {
    pub(in crate::schedule) fn unknown_zone(name: &str) -> Self {
        Self::UnknownZone { name: quote(name) }
    }

    pub(super) fn field(field: CronField, text: &str, problem: FieldProblem) -> Self {
        Self::Field { field, text: quote(text), problem }
    }
}

/// What is wrong with a part of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldProblem {
    /// It is neither a number nor a name of this field, or something is missing.
    NotAValue,
    /// A value lies outside the field's range.
    OutOfRange,
    /// A range of days of the month, or of years, ends before it starts.
    Reversed,
    /// `H` where no job's name chooses a value.
    Hashed,
    /// A step is not a number from 1 to this maximum.
    Step {
        /// How many values the field has.
        step_max: u16,
    },
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAValue => f.write_str("not a value, a range or `*`"),
            Self::OutOfRange => f.write_str("out of range"),
            Self::Reversed => f.write_str("the range ends before it starts, and does not wrap around here"),
            Self::Hashed => f.write_str("`H` is a value that a job's name chooses, and there is none here"),
            Self::Step { step_max } => write!(f, "a step is a number from 1 to {step_max}"),
        }
    }
}

/// The beginning of `text`.
pub(in crate::schedule) fn quote(text: &str) -> String {
    text.chars().take(QUOTE_CHARS_MAX).collect()
}
