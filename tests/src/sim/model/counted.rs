//! Which reports of a job's workers counted, as far as a worker that repeats one has to hear so again.

use crate::sim::node::RECENT_MAX;
use std::collections::BTreeMap;
use tickwheel_wire::job::Overlap;

/// A report that counted.
#[derive(Clone, Copy, Debug)]
struct Report {
    /// How many attempts had ended by then, this one included.
    ended_count: u64,
    /// Ever since then several executions may be in flight.
    beside_others: bool,
}

/// By token, the reports that counted.
#[derive(Clone, Debug, Default)]
pub struct Counted(BTreeMap<u64, Report>);

impl Counted {
    pub(super) fn note(&mut self, token: u64, overlap: Overlap, ended_count: u64) {
        let beside_others = overlap == Overlap::Allow;
        self.0.retain(|_, report| ended_count - report.ended_count < u64::from(RECENT_MAX));
        self.0.insert(token, Report { ended_count, beside_others });
    }

    /// The same where the job has this policy from now on.
    pub(super) fn under(mut self, overlap: Overlap) -> Self {
        let is_allowed = overlap == Overlap::Allow;
        self.0.values_mut().for_each(|report| report.beside_others &= is_allowed);
        self
    }

    /// Where several may be in flight, whatever is among the newest that ended; else the report on the attempt that was given out last of
    /// those that have ended.
    pub(super) fn is_remembered(&self, token: u64, newest_ended: u64, ended_count: u64) -> bool {
        self.0.get(&token).is_some_and(|report| {
            let is_among_newest = ended_count - report.ended_count < u64::from(RECENT_MAX);
            is_among_newest && (report.beside_others || token == newest_ended)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_remembered_by_its_job_or_where_several_may_run_while_it_is_among_the_newest() {
        let most = u64::from(RECENT_MAX);
        for (overlap, then, token, newest_ended, ended_since, expected) in [
            (Overlap::Skip, Overlap::Skip, 5, 5, 1, true),
            (Overlap::Skip, Overlap::Skip, 5, 6, 1, false),
            (Overlap::Allow, Overlap::Allow, 5, 9, most - 1, true),
            (Overlap::Allow, Overlap::Allow, 5, 9, most, false),
            (Overlap::Allow, Overlap::Skip, 5, 9, 1, false),
            (Overlap::Allow, Overlap::Skip, 5, 5, 1, true),
            (Overlap::Skip, Overlap::Allow, 5, 9, 1, false),
            (Overlap::Allow, Overlap::Allow, 6, 9, 1, false),
        ] {
            let mut counted = Counted::default();
            counted.note(5, overlap, 100);
            let counted = counted.under(then);
            let found = counted.is_remembered(token, newest_ended, 100 + ended_since);
            assert_eq!(found, expected, "{overlap:?} {then:?} {token} {newest_ended} {ended_since}");
        }
    }
}
