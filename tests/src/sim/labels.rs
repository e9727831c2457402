//! Labels of jobs, and what picks jobs by them: the reference for lists.

/// The labels of a plan's jobs.
pub const LABELS: [&str; 6] =
    ["", "team=a", "env=prod,team=a", "env=test,team=b", "critical=,env=prod,team=b", "critical=,env=prod"];
/// What lists ask for.
pub const SELECTORS: [Selector; 7] = [
    Selector(&[]),
    Selector(&[Condition::Is("team", "a")]),
    Selector(&[Condition::Is("env", "prod"), Condition::Is("team", "b")]),
    Selector(&[Condition::IsNot("env", "prod")]),
    Selector(&[Condition::Has("critical")]),
    Selector(&[Condition::Is("env", "prod"), Condition::Lacks("critical")]),
    Selector(&[Condition::Lacks("team")]),
];

/// A condition on labels; all of a selector's have to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key is there.
    Has(&'static str),
    /// It is not.
    Lacks(&'static str),
    /// It has this value.
    Is(&'static str, &'static str),
    /// It has another value, or none.
    IsNot(&'static str, &'static str),
}

/// Conditions on labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector(pub &'static [Condition]);

impl Selector {
    /// As the protocol carries it.
    pub fn text(self) -> String {
        let texts = self.0.iter().map(|condition| match condition {
            Condition::Has(key) => (*key).to_owned(),
            Condition::Lacks(key) => format!("!{key}"),
            Condition::Is(key, value) => format!("{key}={value}"),
            Condition::IsNot(key, value) => format!("{key}!={value}"),
        });
        texts.collect::<Vec<_>>().join(",")
    }

    /// Whether labels, as they travel, meet it.
    pub fn admits(self, labels: &str) -> bool {
        let value_of = |wanted: &str| {
            let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == wanted).map(|(_, value)| value)
        };
        self.0.iter().all(|condition| match condition {
            Condition::Has(key) => value_of(key).is_some(),
            Condition::Lacks(key) => value_of(key).is_none(),
            Condition::Is(key, value) => value_of(key) == Some(value),
            Condition::IsNot(key, value) => value_of(key) != Some(value),
        })
    }
}
