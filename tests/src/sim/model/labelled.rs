//! Which labels jobs had when: what a list that takes its time may show.

use crate::sim::labels::Selector;
use std::{collections::BTreeMap, time::Duration};
use tickwheel_wire::JobId;

/// How a name stood from some time on: its job, with labels, or none.
type Standing = (Duration, Option<(JobId, String)>);

/// How every name stood at any time.
#[derive(Debug, Default)]
pub struct Labelled(BTreeMap<(String, String), Vec<Standing>>);

/// What is known of a job that a list may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The job.
    pub job: JobId,
    /// Whether it was there and admitted all the time.
    pub is_certain: bool,
}

impl Labelled {
    pub(super) fn note(&mut self, name: &(String, String), at: Duration, standing: Option<(JobId, String)>) {
        self.0.entry(name.clone()).or_default().push((at, standing));
    }

    /// The jobs that were admitted at any time since then.
    pub fn listed(&self, selector: Selector, since: Duration) -> Vec<Listed> {
        let admitted = |standing: &&Standing| {
            standing.1.as_ref().filter(|(_, labels)| selector.admits(labels)).map(|(job, _)| *job)
        };
        let mut listed = Vec::new();
        for standings in self.0.values() {
            // Of what changed in that very moment nobody knows whether it was before.
            let first = standings.iter().rposition(|(at, _)| *at < since).unwrap_or(0);
            let is_there_from_the_beginning = standings[first].0 < since;
            let meant = &standings[first..];
            let jobs: Vec<_> = meant.iter().filter_map(|standing| admitted(&standing)).collect();
            for (index, job) in jobs.iter().enumerate().filter(|(index, job)| !jobs[..*index].contains(job)) {
                let is_certain = is_there_from_the_beginning && index == 0 && jobs == vec![*job; meant.len()];
                listed.push(Listed { job: *job, is_certain });
            }
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::labels::Condition;
    use tickwheel_wire::PartitionId;

    #[test]
    fn a_list_may_show_what_was_admitted_meanwhile_and_must_show_what_was_all_the_time() {
        const SECOND: Duration = Duration::from_secs(1);
        let [first, second] = [1, 2].map(|generation| JobId::new(PartitionId(0), generation, 0));
        let with = |job, labels: &str| Some((job, labels.to_owned()));
        let certain = |job| Listed { job, is_certain: true };
        let uncertain = |job| Listed { job, is_certain: false };
        // All ask since the fifth second.
        for (what, standings, expected) in [
            ("created before", vec![(4, with(first, "team=a"))], vec![certain(first)]),
            ("created then", vec![(5, with(first, "team=a"))], vec![uncertain(first)]),
            ("of others", vec![(1, with(first, "team=b"))], vec![]),
            ("deleted before", vec![(1, with(first, "team=a")), (4, None)], vec![]),
            ("deleted meanwhile", vec![(1, with(first, "team=a")), (6, None)], vec![uncertain(first)]),
            ("labelled", vec![(1, with(first, "")), (6, with(first, "team=a"))], vec![uncertain(first)]),
            ("kept", vec![(1, with(first, "team=a")), (6, with(first, "env=x,team=a"))], vec![certain(first)]),
            (
                "followed by another",
                vec![(1, with(first, "team=a")), (6, None), (7, with(second, "team=a"))],
                vec![uncertain(first), uncertain(second)],
            ),
        ] {
            let mut labelled = Labelled::default();
            for (at, standing) in standings {
                labelled.note(&("acme".to_owned(), "job".to_owned()), at * SECOND, standing);
            }
            let selector = Selector(&[Condition::Is("team", "a")]);
            assert_eq!(labelled.listed(selector, 5 * SECOND), expected, "{what}");
        }
    }
}
