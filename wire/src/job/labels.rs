//! Labels: pairs of key and value by which people tell a job's owner, environment or purpose, and pick many jobs at once.
//!
//! They travel as one text, `key=value,key=value`, sorted by key, each key once, so that equal labels are equal bytes. A key
//! holds no `=`, so the first one ends it; a value holds no comma, so the first one ends it. Labels change nothing about when
//! or where a job runs. Picking jobs by them is in [`super::selector`].

use crate::limits::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use std::cmp::Ordering;

/// Why labels, or a selector of them, are refused. Each variant names the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// There are too many.
    #[error("there are {count}; allowed are {count_max}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many are allowed.
        count_max: usize,
    },
    /// A key is empty or too long.
    #[error("key {place} has {length} bytes; allowed are 1 to {length_max}")]
    KeyLength {
        /// Which, from 1, in the order in which they are given.
        place: usize,
        /// The key's length in bytes.
        length: usize,
        /// The longest allowed.
        length_max: usize,
    },
    /// A key holds something else than it may.
    #[error("the key {key:?} holds {character:?}; allowed are A to Z, a to z, 0 to 9 and `._/-`")]
    KeyCharacter {
        /// The key.
        key: String,
        /// The first character that it may not hold.
        character: char,
    },
    /// A value is too long.
    #[error("the value of `{key}` has {length} bytes; allowed are 0 to {length_max}")]
    ValueLength {
        /// The key.
        key: String,
        /// The value's length in bytes.
        length: usize,
        /// The longest allowed.
        length_max: usize,
    },
    /// A value holds a control character or a comma.
    #[error("the value of `{key}` holds {character:?}; control characters and commas are not allowed")]
    ValueCharacter {
        /// The key.
        key: String,
        /// The first character that it may not hold.
        character: char,
    },
    /// A key has no value, not even an empty one.
    #[error("label {place} is not `key=value`")]
    NoValue {
        /// Which label, from 1.
        place: usize,
    },
    /// A key stands twice.
    #[error("the key `{key}` stands twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A key stands behind a greater one.
    #[error("the key `{key}` is not behind those that sort before it")]
    Unsorted {
        /// The key.
        key: String,
    },
}

impl LabelError {
    /// The limit that was broken; 0: it is no number.
    pub const fn limit(&self) -> usize {
        match self {
            Self::TooMany { count_max: limit, .. }
            | Self::KeyLength { length_max: limit, .. }
            | Self::ValueLength { length_max: limit, .. } => *limit,
            _ => 0,
        }
    }
}

/// The keys and values of labels that were validated, sorted by key.
pub fn labels(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter_map(|label| label.split_once('='))
}

/// The text of labels that come in any order.
///
/// # Errors
/// When there are too many, a key stands twice, or a key or value is none.
pub fn labels_text<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<String, LabelError> {
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    check_count(pairs.len())?;
    for (index, (key, value)) in pairs.iter().enumerate() {
        check_label(index + 1, key, value)?;
    }
    pairs.sort_unstable();
    if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(LabelError::Twice { key: twice[0].0.to_owned() });
    }
    Ok(pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

/// Checks the text of labels as it travels.
pub(super) fn validate(text: &str) -> Result<(), LabelError> {
    if text.is_empty() {
        return Ok(());
    }
    check_count(text.split(',').count())?;
    let mut last = "";
    for (index, label) in text.split(',').enumerate() {
        let place = index + 1;
        let (key, value) = label.split_once('=').ok_or(LabelError::NoValue { place })?;
        check_label(place, key, value)?;
        match last.cmp(key) {
            Ordering::Less => last = key,
            Ordering::Equal => return Err(LabelError::Twice { key: key.to_owned() }),
            Ordering::Greater => return Err(LabelError::Unsorted { key: key.to_owned() }),
        }
    }
    Ok(())
}

const fn check_count(count: usize) -> Result<(), LabelError> {
    if count > LABELS_MAX { Err(LabelError::TooMany { count, count_max: LABELS_MAX }) } else { Ok(()) }
}

fn check_label(place: usize, key: &str, value: &str) -> Result<(), LabelError> {
    check_key(place, key)?;
    check_value(key, value)
}

pub(super) fn check_key(place: usize, key: &str) -> Result<(), LabelError> {
    let length = key.len();
    if !(1..=LABEL_KEY_BYTES_MAX).contains(&length) {
        return Err(LabelError::KeyLength { place, length, length_max: LABEL_KEY_BYTES_MAX });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    match key.chars().find(|c| !allowed(*c)) {
        Some(character) => Err(LabelError::KeyCharacter { key: key.to_owned(), character }),
        None => Ok(()),
    }
}

pub(super) fn check_value(key: &str, value: &str) -> Result<(), LabelError> {
    let length = value.len();
    if length > LABEL_VALUE_BYTES_MAX {
        return Err(LabelError::ValueLength { key: key.to_owned(), length, length_max: LABEL_VALUE_BYTES_MAX });
    }
    match value.chars().find(|c| c.is_control() || *c == ',') {
        Some(character) => Err(LabelError::ValueCharacter { key: key.to_owned(), character }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_in_any_order_have_one_text_which_is_valid() {
        let text = labels_text([("team", "ops"), ("a/b.c-d_E", "x=y"), ("empty", "")]).unwrap();
        assert_eq!(text, "a/b.c-d_E=x=y,empty=,team=ops");
        assert_eq!(validate(&text), Ok(()));
        assert_eq!(labels(&text).collect::<Vec<_>>(), [("a/b.c-d_E", "x=y"), ("empty", ""), ("team", "ops")]);
        assert_eq!(labels_text([]), Ok(String::new()));
        assert_eq!((validate(""), labels("").count()), (Ok(()), 0));
    }

    #[test]
    fn every_broken_rule_of_labels_names_its_limit() {
        let long_key = format!("{}=", "k".repeat(64));
        let long_value = format!("k={}", "v".repeat(256));
        let many = (0..33).map(|index| format!("k{index:02}=")).collect::<Vec<_>>().join(",");
        for (text, expected, limit) in [
            (&*many, "there are 33; allowed are 32", 32),
            ("a=1,=2", "key 2 has 0 bytes; allowed are 1 to 63", 63),
            (&long_key, "key 1 has 64 bytes; allowed are 1 to 63", 63),
            ("ü=1", "the key \"ü\" holds 'ü'", 0),
            ("a b=1", "the key \"a b\" holds ' '", 0),
            (&long_value, "the value of `k` has 256 bytes; allowed are 0 to 255", 255),
            ("a=\u{7}", "the value of `a` holds '\\u{7}'", 0),
            ("a", "label 1 is not `key=value`", 0),
            ("a=1,", "label 2 is not `key=value`", 0),
            ("a=1,a=2", "the key `a` stands twice", 0),
            ("b=1,a=2", "the key `a` is not behind those that sort before it", 0),
        ] {
            let error = validate(text).expect_err(text);
            assert!(error.to_string().starts_with(expected), "{text}: {error}");
            assert_eq!(error.limit(), limit, "{text}");
        }
    }

    #[test]
    fn the_longest_labels_are_allowed() {
        let (key, value) = ("k".repeat(61), "v".repeat(255));
        let keys: Vec<_> = (0..32).map(|index| format!("{key}{index:02}")).collect();
        let text = labels_text(keys.iter().map(|key| (&**key, &*value))).unwrap();
        assert_eq!(validate(&text), Ok(()));
        assert_eq!(text.len(), crate::limits::LABELS_BYTES_MAX);
    }

    #[test]
    fn a_pair_that_would_be_two_labels_is_refused() {
        let error = labels_text([("a", "1,b=2")]).unwrap_err();
        assert_eq!(error, LabelError::ValueCharacter { key: "a".to_owned(), character: ',' });
        assert!(matches!(labels_text([("a=b", "1")]), Err(LabelError::KeyCharacter { character: '=', .. })));
        assert_eq!(labels_text([("a", "1"), ("a", "1")]), Err(LabelError::Twice { key: "a".to_owned() }));
    }
}
