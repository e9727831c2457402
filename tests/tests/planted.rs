//! The simulator finds every planted mistake within a stated number of seeds, and nothing in the code as it is.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tickwheel_tests::sim::{plan::Dropped, plant, world::run};
use tickwheel_wire::planted::Mistake;

/// Seeds within which each mistake has to be found. Most need fewer than ten.
const SEEDS_MAX: u64 = 400;

/// The first seed from 0 on that fails, and how.
fn first_failure(mistake: Option<Mistake>) -> Option<(u64, String)> {
    plant(mistake).expect("the feature is on");
    let failure = (0..SEEDS_MAX).find_map(|seed| {
        let violation = run(seed, &Dropped::new(), false).violation?;
        Some((seed, violation.to_string()))
    });
    plant(None).expect("the feature is on");
    failure
}

#[test]
fn each_planted_mistake_is_found_and_the_code_without_one_passes_the_same_seeds() {
    // A panic in a run is a finding.
    std::panic::set_hook(Box::new(|_| {}));
    let runs: Vec<Option<Mistake>> = std::iter::once(None).chain(Mistake::ALL.into_iter().map(Some)).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mistake) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failure = first_failure(*mistake);
                    found.lock().expect("no panic").insert(*mistake, failure);
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let mut found = found.into_inner().expect("no panic");
    assert_eq!(found.remove(&None), Some(None), "the code as it is fails");
    for (mistake, failure) in &found {
        let name = mistake.map(|mistake| format!("{mistake:?}")).unwrap_or_default();
        match failure {
            Some((seed, what)) => println!("{name:<26} seed {seed:>3}  {what:.110}"),
            None => println!("{name:<26} not found in {SEEDS_MAX} seeds"),
        }
    }
    let missed: Vec<_> = found.iter().filter(|(_, failure)| failure.is_none()).map(|(mistake, _)| mistake).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
