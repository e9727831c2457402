//! What has to hold of the simulator itself.

use tickwheel_tests::sim::{
    plan::{Dropped, Plan},
    world::run,
};

#[test]
fn equal_seeds_give_equal_runs_whatever_ran_before_and_beside_them() {
    let seeds = 40..52;
    let first: Vec<_> = seeds.clone().map(|seed| run(seed, &Dropped::new(), false)).collect();
    let second =
        std::thread::spawn(move || seeds.rev().map(|seed| run(seed, &Dropped::new(), true)).collect::<Vec<_>>());
    for (first, second) in first.iter().zip(second.join().expect("no panic").iter().rev()) {
        assert_eq!(first.violation, None);
        assert_eq!((first.fingerprint, first.virtual_time), (second.fingerprint, second.virtual_time));
        assert_eq!(first.tally.events, second.tally.events);
    }
}

#[test]
fn a_run_is_about_what_it_should_be_about() {
    let outcomes: Vec<_> = (100..120).map(|seed| run(seed, &Dropped::new(), false)).collect();
    let sum = |count: fn(&tickwheel_tests::sim::auditor::Tally) -> u64| {
        outcomes.iter().map(|run| count(&run.tally)).sum::<u64>()
    };
    assert!(sum(|tally| tally.accepted) > 1_000, "reports are accepted");
    assert!(sum(|tally| tally.refused) > 50, "and refused");
    assert!(sum(|tally| tally.answers) > 500, "requests are answered");
    assert!(sum(|tally| tally.recoveries) > 60, "the node fails and comes back");
    assert!(sum(|tally| tally.of_several) > 300, "jobs have several schedules");
    assert!(sum(|tally| tally.beside_excluded) > 200, "and excluded times");
    assert!(sum(|tally| tally.put_off) > 200, "and jitter");
    assert!(sum(|tally| tally.beside_others) > 100, "executions run beside others of their job");
    assert!(sum(|tally| tally.moved) > 20, "and firings move with calendars");
    assert!(sum(|tally| tally.listed) > 300, "lists show jobs");
    assert!(sum(|tally| tally.conflicts) > 50, "what is stated of another job or revision is refused");
}

#[test]
fn what_is_dropped_from_a_plan_leaves_the_rest_as_it_was() {
    let whole = Plan::new(3, &Dropped::new());
    let labels = whole.labels();
    let dropped: Dropped = labels.iter().step_by(2).cloned().collect();
    let part = Plan::new(3, &dropped);
    assert_eq!(part.labels(), labels.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>());
    for operation in &part.operations {
        let same = whole.operations.iter().find(|other| other.label == operation.label).expect("it is in the whole");
        assert_eq!(format!("{operation:?}"), format!("{same:?}"));
    }
}
