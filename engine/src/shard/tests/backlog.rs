//! One claim per test, about backlogs; `properties` holds them together with everything else against the plain model.

use super::{
    super::*,
    harness::{Attempt, Denied, World, every, secs, session},
};
use tickwheel_wire::{
    FireSequence,
    frame::{
        request::{
            BackfillJob, BackfillTaken, ExecutionView, JobVerb, LetterSelection, ListDeadLetters, PageEnd,
            RedriveExecution, SubmitMode,
        },
        work::Outcome,
    },
    job::{FiringRules, JobSpec, JobState, JobStates, Overlap, RetryPolicy, ScheduleSpec},
    limits::BACKLOG_MAX,
    partition_of,
};

const SECOND: Duration = Duration::from_secs(1);

fn backfill(world: &mut World, name: &str, from: Timestamp, until: Timestamp) -> Result<BackfillTaken, Denied> {
    let partition = partition_of("acme", name, world.config.partition_count);
    let (tenant, dry_run) = ("acme", false);
    let answer =
        world.change(|request_id| BackfillJob { request_id, partition, tenant, name, from, until, dry_run })?;
    Ok(BackfillTaken::decode_body(&answer.body).unwrap())
}

fn redrive(world: &mut World, attempt: &Attempt) -> Result<(), Denied> {
    let (job, fire_sequence) = (attempt.job, attempt.fire_sequence);
    let partition = job.partition();
    world.change(|request_id| RedriveExecution { request_id, partition, job, fire_sequence }).map(drop)
}

/// Fire sequences of the dead letters, the newest first.
fn dead_letters(world: &mut World, prefix: &str) -> Vec<FireSequence> {
    let (rows, cursor) = letters_page(world, prefix, LetterSelection::default(), 0, 100);
    assert_eq!(cursor, PageEnd::LAST);
    rows.into_iter().map(|(_, fire_sequence)| FireSequence(fire_sequence)).collect()
}

/// A page of dead letters, by job and fire sequence, and the cursor behind it.
fn letters_page(
    world: &mut World,
    prefix: &str,
    selection: LetterSelection<'_>,
    cursor: u64,
    limit: u16,
) -> (Vec<(String, u64)>, u64) {
    let (partition, tenant) = (PartitionId(0), "acme");
    let list = |request_id| ListDeadLetters { request_id, partition, tenant, prefix, cursor, limit, selection };
    let answer = world.ask(list);
    let (end, rows) = answer.split_last().expect("a page");
    let views = rows.iter().map(|row| ExecutionView::decode_body(&row.body).unwrap());
    let rows = views.map(|view| (view.name.to_owned(), view.fire_sequence.0)).collect();
    (rows, PageEnd::decode_body(&end.body).unwrap().cursor)
}

fn fail(world: &mut World, attempt: &Attempt) {
    world.complete_with(attempt, session(1), Outcome::FailedForGood, "Refused");
}

/// A job whose firings do not come while a test runs.
fn rare(name: &str) -> JobSpec<'_> {
    let schedule = ScheduleSpec::Interval { every_us: 100_000_000_000, anchor: Timestamp::EPOCH };
    let retry = RetryPolicy { attempts_max: 2, ..RetryPolicy::default() };
    JobSpec { retry, ..JobSpec::new("acme", name, "run", schedule) }
}

#[test]
fn a_dead_letter_is_redriven_once_and_the_new_execution_has_its_time() {
    let mut world = World::new(1);
    world.create(&rare("job"));
    world.create(&rare("other"));
    world.attach(1, 10, 2);
    world.command(JobVerb::Trigger, "job").unwrap();
    world.fire();
    let first = world.attempt();
    assert_eq!(redrive(&mut world, &first).unwrap_err().code, RefusalCode::UnknownExecution, "it still runs");
    fail(&mut world, &first);
    assert_eq!(dead_letters(&mut world, "jo"), [first.fire_sequence]);
    assert_eq!(dead_letters(&mut world, "ot"), []);

    world.pass(5 * SECOND);
    redrive(&mut world, &first).unwrap();
    assert_eq!(redrive(&mut world, &first).unwrap_err().code, RefusalCode::UnknownExecution, "it is none any more");
    world.fire();
    let again = world.attempt();
    assert_eq!((again.scheduled_at, again.fire_sequence.0), (first.scheduled_at, 2));
    assert_eq!(dead_letters(&mut world, ""), []);
    world.restart();
    assert_eq!(dead_letters(&mut world, ""), []);
}

#[test]
fn dead_letters_are_picked_by_labels_state_time_and_error_in_either_order() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&JobSpec { labels: "team=a", ..rare("one") });
    world.create(&JobSpec { labels: "team=b", paused: true, start_to_close_ms: 1_000, ..rare("two") });
    for (name, error) in [("one", "Refused"), ("two", "Gone"), ("one", "Gone"), ("two", "")] {
        world.pass(10 * SECOND);
        world.command(JobVerb::Trigger, name).unwrap();
        world.fire();
        if error.is_empty() {
            // Each of its two attempts times out, and is reported as stopped, which frees the worker.
            for _ in 0..2 {
                world.pass_by_deadlines(4 * SECOND);
                let attempt = world.attempts().pop().expect("an attempt");
                world.complete_with(&attempt, session(1), Outcome::TimedOut, "");
                world.fire();
            }
        } else {
            let attempt = world.attempt();
            world.complete_with(&attempt, session(1), Outcome::FailedForGood, error);
        }
    }
    let all = [("one", 1), ("two", 1), ("one", 2), ("two", 2)];
    let none = LetterSelection { oldest_first: true, ..LetterSelection::default() };
    let labels = |labels| LetterSelection { labels, ..none };
    let error = |error| LetterSelection { error, ..none };
    for (selection, picked) in [
        (none, &[0, 1, 2, 3][..]),
        (LetterSelection { oldest_first: false, ..none }, &[3, 2, 1, 0]),
        (labels("team=a"), &[0, 2]),
        (labels("team!=a"), &[1, 3]),
        (labels("missing"), &[]),
        (LetterSelection { states: JobStates::NONE.with(JobState::Paused), ..none }, &[1, 3]),
        (error("Gone"), &[1, 2]),
        (error("timed-out"), &[3]),
        (error("gone"), &[]),
        (LetterSelection { since: secs(20), ..none }, &[1, 2, 3]),
        (LetterSelection { since: secs(20), until: secs(30), ..none }, &[1]),
        (LetterSelection { until: secs(20), oldest_first: false, ..none }, &[0]),
        (LetterSelection { since: secs(20), labels: "team=a", error: "Gone", ..none }, &[2]),
    ] {
        let expected: Vec<_> = picked.iter().map(|&place: &usize| (all[place].0.to_owned(), all[place].1)).collect();
        for limit in [100, 1] {
            let (mut found, mut cursor) = (Vec::new(), 0);
            while cursor != PageEnd::LAST {
                let (rows, next) = letters_page(&mut world, "", selection, cursor, limit);
                found.extend(rows);
                cursor = next;
            }
            assert_eq!(found, expected, "{selection:?}, {limit} per page");
        }
    }
    let (partition, tenant, prefix, cursor, limit) = (PartitionId(0), "acme", "", 0, 1);
    let selection = labels("=a");
    let refused = world
        .change(|request_id| ListDeadLetters { request_id, partition, tenant, prefix, cursor, limit, selection })
        .unwrap_err();
    assert_eq!((refused.code, &*refused.field), (RefusalCode::InvalidField, "labels"));
}

#[test]
fn a_list_from_the_oldest_on_misses_nothing_that_stays_when_others_are_forgotten() {
    let mut world = World::with(1, |config| config.partition.dead_letters_max = 3);
    world.attach(1, 10, 1);
    world.create(&rare("job"));
    let die = |world: &mut World| {
        world.command(JobVerb::Trigger, "job").unwrap();
        world.fire();
        let attempt = world.attempt();
        fail(world, &attempt);
    };
    (0..4).for_each(|_| die(&mut world));
    let selection = LetterSelection { oldest_first: true, ..LetterSelection::default() };
    let (rows, cursor) = letters_page(&mut world, "", selection, 0, 1);
    assert_eq!(rows, [("job".to_owned(), 2)]);
    (0..1).for_each(|_| die(&mut world));
    let (rows, cursor) = letters_page(&mut world, "", selection, cursor, 1);
    assert_eq!(rows, [("job".to_owned(), 3)]);
    (0..2).for_each(|_| die(&mut world));
    let (rows, cursor) = letters_page(&mut world, "", selection, cursor, 100);
    assert_eq!(
        (rows, cursor),
        (vec![("job".to_owned(), 5), ("job".to_owned(), 6), ("job".to_owned(), 7)], PageEnd::LAST)
    );
}

#[test]
fn what_was_deleted_and_created_again_has_no_dead_letters() {
    let mut world = World::new(1);
    world.create(&rare("job"));
    world.attach(1, 10, 2);
    world.command(JobVerb::Trigger, "job").unwrap();
    world.fire();
    let attempt = world.attempt();
    fail(&mut world, &attempt);
    world.command(JobVerb::Delete, "job").unwrap();
    world.create(&rare("job"));
    assert_eq!(redrive(&mut world, &attempt).unwrap_err().code, RefusalCode::UnknownJob);
}

#[test]
fn a_backfill_takes_what_there_is_room_for_and_says_how_far() {
    let mut world = World::new(1);
    let secs_before = |count: u32| secs(0).saturating_sub(count * SECOND);
    let spec = JobSpec {
        schedule: ScheduleSpec::Interval { every_us: 1_000_000, anchor: Timestamp::EPOCH },
        paused: true,
        ..rare("job")
    };
    world.create(&spec);
    let from = secs_before(BACKLOG_MAX + 500);
    let taken = backfill(&mut world, "job", from, secs(0)).unwrap();
    assert_eq!((taken.count, taken.until, taken.backlog), (BACKLOG_MAX, secs_before(500), BACKLOG_MAX));
    let nothing = backfill(&mut world, "job", taken.until, secs(0)).unwrap();
    assert_eq!((nothing.count, nothing.until), (0, taken.until));

    world.attach(1, 10, 2);
    let first = world.attempt();
    assert_eq!(first.scheduled_at, from);
    let rest = backfill(&mut world, "job", taken.until, secs(10)).unwrap();
    assert_eq!((rest.count, rest.until, rest.backlog), (1, secs_before(499), BACKLOG_MAX));
    world.command(JobVerb::ClearBacklog, "job").unwrap();
    world.succeed(&first);
    assert!(world.attempts().is_empty(), "nothing is left, and the job is paused");
    let all = backfill(&mut world, "job", secs_before(3), secs(10)).unwrap();
    assert_eq!((all.count, all.until), (3, secs(10)), "what is to come is not past");
}

#[test]
fn two_backfills_side_by_side_find_what_one_does_wherever_jitter_puts_firings() {
    let mut world = World::new(1);
    let rules = FiringRules { jitter_ms: 900, ..FiringRules::default() };
    let schedule = ScheduleSpec::Interval { every_us: 1_000_000, anchor: Timestamp::EPOCH };
    world.create(&JobSpec { schedule, rules, paused: true, ..rare("job") });
    let [from, until] = [60, 20].map(|before| secs(0).saturating_sub(before * SECOND));
    for part_ms in (0..=40_000).step_by(250) {
        let middle = from.saturating_add(Duration::from_millis(part_ms));
        let parts = [(from, middle), (middle, until)].into_iter().filter(|(from, until)| from < until);
        let count: u32 = parts.map(|(from, until)| backfill(&mut world, "job", from, until).unwrap().count).sum();
        world.command(JobVerb::ClearBacklog, "job").unwrap();
        let whole = backfill(&mut world, "job", from, until).unwrap().count;
        world.command(JobVerb::ClearBacklog, "job").unwrap();
        assert_eq!(count, whole, "parted after {part_ms} ms");
    }
}

#[test]
fn firings_wait_for_the_end_of_what_makes_up_for_others_whatever_the_overlap_policy_is() {
    for overlap in [Overlap::Skip, Overlap::BufferAll, Overlap::CancelRunning, Overlap::TerminateRunning] {
        let mut world = World::new(1);
        let spec = every("tick", 10);
        world.create(&JobSpec { rules: FiringRules { overlap, ..FiringRules::PLAIN }, ..spec });
        world.pass(25 * SECOND);
        world.attach(1, 10, 2);
        let due = world.attempt();
        assert_eq!(due.scheduled_at, secs(10));
        backfill(&mut world, "tick", secs(5), secs(15)).unwrap();
        world.succeed(&due);
        let made_up = world.attempt();
        assert_eq!(made_up.scheduled_at, secs(10), "{overlap}");
        world.pass(10 * SECOND);
        assert!(world.attempts().is_empty(), "{overlap}: the firing at 30 waits");
        world.succeed(&made_up);
        assert_eq!(world.attempt().scheduled_at, secs(30), "{overlap}");
        assert_eq!(world.counters().skipped, 0, "{overlap}");
    }
}

#[test]
fn ranges_and_schedules_that_have_no_past_are_refused_by_field() {
    let mut world = World::new(1);
    world.create(&rare("job"));
    let delay = ScheduleSpec::FixedDelay { delay_us: 1_000_000 };
    world.submit_as(&JobSpec::new("acme", "delay", "run", delay), SubmitMode::Create, 0, &[]).unwrap();
    let field = |denied: Denied| (denied.code, denied.field);
    let refused = backfill(&mut world, "job", secs(0), secs(0)).map_err(field);
    assert_eq!(refused, Err((RefusalCode::InvalidField, "from".to_owned())));
    let refused = backfill(&mut world, "delay", Timestamp::EPOCH, secs(0)).map_err(field);
    assert_eq!(refused, Err((RefusalCode::InvalidField, "schedule".to_owned())));
    let refused = backfill(&mut world, "nobody", Timestamp::EPOCH, secs(0)).map_err(field);
    assert_eq!(refused, Err((RefusalCode::UnknownJob, String::new())));
}
