//! Makes a failing plan smaller: leaves parts out as long as the same promise stays broken.
//!
//! Delta debugging (Zeller, Hildebrandt 2002) in its simple form: ever smaller groups of parts are left out together, then single ones.
//! What concerns one part is drawn from a stream of its own, so the others stay as they were.

use super::{
    plan::{Dropped, Plan},
    violation::Promise,
    world::run,
};

/// Runs at most.
const RUNS_MAX: usize = 300;

/// What can be left out of the plan of `seed` with `promise` still broken.
pub fn shrink(seed: u64, promise: Promise, dropped: &Dropped) -> Dropped {
    let mut dropped = dropped.clone();
    let mut runs = 0;
    let mut group = Plan::new(seed, &dropped).labels().len().div_ceil(2).max(1);
    loop {
        let before = dropped.len();
        let labels = Plan::new(seed, &dropped).labels();
        for part in labels.chunks(group) {
            runs += 1;
            if runs > RUNS_MAX {
                return dropped;
            }
            let mut tried = dropped.clone();
            tried.extend(part.iter().cloned());
            let outcome = run(seed, &tried, false);
            if outcome.violation.is_some_and(|violation| violation.promise == promise) {
                dropped = tried;
            }
        }
        if group == 1 && dropped.len() == before {
            return dropped;
        }
        group = group.div_ceil(2).min(labels.len().max(1));
        if group == 1 && before == dropped.len() && labels.is_empty() {
            return dropped;
        }
    }
}
