//! One claim per test, about jobs with several executions in flight; `properties` holds them together with everything else against the
//! plain model.

use super::{
    super::*,
    harness::{Attempt, World, every, secs, session},
};
use tickwheel_wire::{
    FireSequence,
    frame::{
        request::{
            BackfillJob, ExecutionById, ExecutionSelection, ExecutionState, ExecutionView, JobByName, JobVerb, JobView,
            ListExecutions, PageEnd, SubmitMode, Watch as WatchFrame,
        },
        work::{CancelReason, Heartbeat, Outcome, Verdict},
    },
    job::{FiringRules, JobSpec, Misfire, Overlap, RetryPolicy, ScheduleSpec},
    partition_of,
};

const SECOND: Duration = Duration::from_secs(1);

/// A job that fires every ten seconds, and may run as often as `overlap_max` at a time.
fn allowing(name: &str, overlap_max: u32) -> JobSpec<'_> {
    let rules = FiringRules { overlap: Overlap::Allow, overlap_max, ..FiringRules::PLAIN };
    JobSpec { rules, ..every(name, 10) }
}

fn running(count: u32, overlap_max: u32) -> (World, Vec<Attempt>) {
    let mut world = World::new(1);
    world.create(&allowing("tick", overlap_max));
    world.attach(1, 10, 100);
    for _ in 0..count {
        world.pass_by_deadlines(10 * SECOND);
    }
    let attempts = world.attempts();
    (world, attempts)
}

fn state(world: &mut World) -> (ExecutionState, u64) {
    let partition = partition_of("acme", "tick", world.config.partition_count);
    let answer = world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name: "tick" });
    let view = JobView::decode_body(&answer[0].body).unwrap();
    (view.last_state, view.fire_sequence.0)
}

/// State and token of an execution.
fn of_execution(world: &mut World, attempt: &Attempt) -> (ExecutionState, Token) {
    let (partition, job, fire_sequence) = (attempt.job.partition(), attempt.job, attempt.fire_sequence);
    let answer = world.ask(|request_id| ExecutionById { request_id, partition, job, fire_sequence });
    let view = ExecutionView::decode_body(&answer[0].body).unwrap();
    assert_eq!(view.fire_sequence, fire_sequence);
    (view.state, view.token)
}

#[test]
fn firings_run_beside_one_another_up_to_the_bound_and_are_skipped_then() {
    let (mut world, attempts) = running(5, 3);
    let scheduled: Vec<_> = attempts.iter().map(|attempt| attempt.scheduled_at).collect();
    assert_eq!(scheduled, [secs(10), secs(20), secs(30)]);
    assert_eq!((world.counters().fired, world.counters().skipped), (3, 2));
    assert_eq!(world.succeed(&attempts[1]), Verdict::Accepted);
    world.pass_by_deadlines(10 * SECOND);
    assert_eq!(world.attempt().scheduled_at, secs(60), "there is room again");
    assert_eq!(state(&mut world), (ExecutionState::Running, 4));
}

#[test]
fn each_execution_has_its_own_end_and_its_own_attempts() {
    let (mut world, attempts) = running(3, 10);
    assert_eq!(world.fail(&attempts[1]), Verdict::Accepted);
    assert_eq!(of_execution(&mut world, &attempts[1]).0, ExecutionState::Retrying);
    assert_eq!(world.succeed(&attempts[0]), Verdict::Accepted);
    assert_eq!(of_execution(&mut world, &attempts[0]), (ExecutionState::Succeeded, Token(1)));
    world.pass_by_deadlines(SECOND);
    let again = world.attempt();
    assert_eq!((again.fire_sequence, again.token, again.attempt), (FireSequence(2), Token(4), 2));
    assert_eq!(again.scheduled_at, attempts[1].scheduled_at);
    assert_eq!(of_execution(&mut world, &again), (ExecutionState::Running, Token(4)));
    assert_eq!(of_execution(&mut world, &attempts[2]), (ExecutionState::Running, Token(3)));
    for attempt in [&again, &attempts[2]] {
        assert_eq!(world.succeed(attempt), Verdict::Accepted);
    }
    assert_eq!(state(&mut world), (ExecutionState::Succeeded, 3));
    assert_eq!((world.counters().succeeded, world.counters().failed_attempts), (3, 1));
}

#[test]
fn a_report_is_taken_once_and_acknowledged_again_whatever_ended_since() {
    let (mut world, attempts) = running(3, 10);
    for attempt in [&attempts[1], &attempts[0]] {
        assert_eq!(world.succeed(attempt), Verdict::Accepted);
        assert_eq!(world.succeed(attempt), Verdict::Accepted);
    }
    assert_eq!(world.succeed(&attempts[1]), Verdict::Accepted);
    assert_eq!(world.counters().succeeded, 2);
    world.attach(2, 11, 1);
    let stolen = Attempt { session: session(2), ..attempts[2].clone() };
    assert_eq!(world.complete_with(&stolen, session(2), Outcome::Succeeded, ""), Verdict::StaleToken);
}

/// A job that runs beside itself for 15 seconds at most, each once.
fn limited() -> JobSpec<'static> {
    let spec = JobSpec { start_to_close_ms: 15_000, ..allowing("tick", 10) };
    JobSpec { retry: RetryPolicy { attempts_max: 1, ..spec.retry }, ..spec }
}

/// What is said of a report on `before` once the job may overlap no more, while `running` runs.
fn said_without_overlap(world: &mut World, before: &Attempt, running: &Attempt) -> Verdict {
    world.submit_as(&JobSpec { rules: FiringRules::PLAIN, ..limited() }, SubmitMode::Upsert, 0, b"").unwrap();
    assert_eq!(of_execution(world, running).0, ExecutionState::Running);
    world.succeed(before)
}

#[test]
fn of_a_job_that_may_overlap_no_more_the_report_on_the_attempt_before_the_running_one_is_still_known() {
    let mut world = World::new(1);
    world.create(&limited());
    world.attach(1, 10, 100);
    world.pass_by_deadlines(10 * SECOND);
    world.pass_by_deadlines(10 * SECOND);
    let [first, second] = world.attempts().try_into().unwrap();
    assert_eq!(world.succeed(&first), Verdict::Accepted);
    assert_eq!(said_without_overlap(&mut world, &first, &second), Verdict::Accepted);
}

#[test]
fn of_a_job_that_may_overlap_no_more_what_is_known_of_one_attempt_is_not_said_of_the_next() {
    let mut world = World::new(1);
    world.create(&limited());
    world.attach(1, 10, 100);
    world.pass_by_deadlines(10 * SECOND);
    let first = world.attempt();
    assert_eq!(world.succeed(&first), Verdict::Accepted);
    world.pass_by_deadlines(10 * SECOND);
    world.pass_by_deadlines(10 * SECOND);
    let [second, third] = world.attempts().try_into().unwrap();
    world.pass_by_deadlines(6 * SECOND);
    assert_eq!(of_execution(&mut world, &second).0, ExecutionState::TimedOut);
    assert_eq!(said_without_overlap(&mut world, &second, &third), Verdict::StaleToken);
}

#[test]
fn each_attempt_has_its_own_limits() {
    let mut world = World::new(1);
    let limits = JobSpec { start_to_close_ms: 25_000, heartbeat_ms: 12_000, ..allowing("tick", 10) };
    world.create(&JobSpec { retry: RetryPolicy { attempts_max: 1, ..limits.retry }, ..limits });
    world.attach(1, 10, 100);
    world.pass_by_deadlines(10 * SECOND);
    let first = world.attempt();
    world.pass_by_deadlines(10 * SECOND);
    let second = world.attempt();
    let Attempt { job, fire_sequence, token, .. } = second;
    world.send(session(1), &world.worker_identity(), &Heartbeat { job, fire_sequence, token, progress_permille: 500 });
    world.pass_by_deadlines(3 * SECOND);
    assert_eq!(of_execution(&mut world, &first).0, ExecutionState::TimedOut, "it gave no sign of life");
    assert_eq!(of_execution(&mut world, &second).0, ExecutionState::Running);
    let told = world.cancels();
    assert_eq!((told.len(), told[0].token, told[0].reason), (1, first.token, CancelReason::TimedOut));
}

#[test]
fn one_of_several_is_cancelled_by_its_number() {
    let (mut world, attempts) = running(3, 4);
    let job = attempts[0].job;
    world.cancel(job, 2).unwrap();
    assert_eq!(world.cancels().iter().map(|told| told.token).collect::<Vec<_>>(), [attempts[1].token]);
    assert_eq!(world.fail(&attempts[1]), Verdict::Accepted);
    assert_eq!(of_execution(&mut world, &attempts[1]).0, ExecutionState::Cancelled);
    assert_eq!(world.fail(&attempts[0]), Verdict::Accepted);
    world.cancel(job, 1).unwrap();
    assert_eq!(world.counters().cancelled, 2, "what waits for another attempt ends at once");
    for unknown in [1, 2, 4] {
        assert_eq!(world.cancel(job, unknown).unwrap_err().code, RefusalCode::UnknownExecution);
    }
    assert_eq!(of_execution(&mut world, &attempts[2]).0, ExecutionState::Running);
}

#[test]
fn deleting_a_job_stops_all_that_run() {
    let (mut world, attempts) = running(3, 10);
    world.fail(&attempts[0]);
    world.command(JobVerb::Delete, "tick").unwrap();
    let told: Vec<_> = world.cancels().iter().map(|told| (told.token, told.reason)).collect();
    assert_eq!(told, [3, 2].map(|token| (Token(token), CancelReason::JobDeleted)));
    assert_eq!(world.succeed(&attempts[2]), Verdict::UnknownJob);
}

#[test]
fn a_backlog_runs_as_many_at_a_time_as_the_policy_allows() {
    let mut world = World::new(1);
    let schedule = ScheduleSpec::Interval { every_us: 10_000_000_000, anchor: Timestamp::EPOCH };
    world.create(&JobSpec { schedule, ..allowing("tick", 3) });
    world.attach(1, 10, 100);
    let partition = partition_of("acme", "tick", world.config.partition_count);
    let (tenant, name, dry_run) = ("acme", "tick", false);
    let from = secs(0).saturating_sub(Duration::from_secs(50_000));
    let until = secs(0);
    world.change(|request_id| BackfillJob { request_id, partition, tenant, name, from, until, dry_run }).unwrap();
    world.fire();
    let mut held = world.attempts();
    assert_eq!(held.len(), 3);
    let mut scheduled: Vec<_> = held.iter().map(|attempt| attempt.scheduled_at).collect();
    for _ in 0..2 {
        world.succeed(&held.remove(0));
        world.fire();
        let next = world.attempt();
        scheduled.push(next.scheduled_at);
        held.push(next);
    }
    assert!(scheduled.is_sorted() && scheduled.len() == 5, "{scheduled:?}");
}

#[test]
fn missed_firings_that_all_are_executed_are_so_side_by_side_and_none_is_lost_at_the_bound() {
    let mut world = World::new(1);
    let rules = FiringRules { misfire: Misfire::FireAll, ..allowing("tick", 2).rules };
    world.create(&JobSpec { rules, ..allowing("tick", 2) });
    world.pass(45 * SECOND);
    world.attach(1, 10, 100);
    let mut held = world.attempts();
    let mut scheduled = Vec::new();
    while let Some(attempt) = (!held.is_empty()).then(|| held.remove(0)) {
        assert!(held.len() < 2);
        scheduled.push(attempt.scheduled_at);
        world.succeed(&attempt);
        world.fire();
        held.extend(world.attempts());
    }
    assert_eq!(scheduled, [10, 20, 30, 40].map(secs));
    assert_eq!((world.counters().skipped, world.counters().misfired), (0, 0));
}

#[test]
fn a_job_that_may_overlap_no_more_lets_all_end_before_it_fires_again() {
    let (mut world, attempts) = running(2, 10);
    let spec = JobSpec { rules: FiringRules::PLAIN, ..allowing("tick", 10) };
    world.submit_as(&spec, SubmitMode::Upsert, 0, b"").unwrap();
    world.pass_by_deadlines(10 * SECOND);
    world.succeed(&attempts[1]);
    world.pass_by_deadlines(10 * SECOND);
    assert!(world.attempts().is_empty());
    assert_eq!(world.counters().skipped, 2);
    world.succeed(&attempts[0]);
    world.pass_by_deadlines(10 * SECOND);
    assert_eq!(world.attempt().fire_sequence, FireSequence(3));
}

#[test]
fn several_failures_in_a_row_pause_the_job_while_others_run_on() {
    let mut world = World::new(1);
    let rules = FiringRules { pause_after_failures: 2, ..allowing("tick", 10).rules };
    world.create(&JobSpec { rules, ..allowing("tick", 10) });
    world.attach(1, 10, 100);
    for _ in 0..3 {
        world.pass_by_deadlines(10 * SECOND);
    }
    let attempts = world.attempts();
    for attempt in &attempts[..2] {
        world.complete_with(attempt, session(1), Outcome::FailedForGood, "Broken");
    }
    world.pass_by_deadlines(20 * SECOND);
    assert!(world.attempts().is_empty(), "it is paused");
    assert_eq!(world.succeed(&attempts[2]), Verdict::Accepted);
}

#[test]
fn after_a_restart_each_execution_is_claimed_or_lost_by_itself() {
    let (mut world, attempts) = running(3, 10);
    world.restart();
    world.attach(2, 10, 100);
    for attempt in &attempts[..2] {
        assert_eq!(world.reattach(attempt, session(2)), Verdict::Accepted);
    }
    world.pass_by_deadlines(6 * SECOND);
    let again = world.attempt();
    assert_eq!((again.fire_sequence, again.token, again.attempt), (attempts[2].fire_sequence, Token(4), 1));
    for attempt in &attempts[..2] {
        let own = Attempt { session: session(2), ..attempt.clone() };
        assert_eq!(world.succeed(&own), Verdict::Accepted);
    }
}

#[test]
fn lists_and_watchers_see_every_execution() {
    let (mut world, attempts) = running(2, 10);
    let partition = attempts[0].job.partition();
    let selection = ExecutionSelection::default();
    let answer = world.ask(|request_id| ListExecutions {
        request_id,
        partition,
        tenant: "acme",
        name: "tick",
        cursor: 0,
        limit: 10,
        selection,
    });
    let (end, rows) = answer.split_last().unwrap();
    assert_eq!(PageEnd::decode_body(&end.body).unwrap().cursor, PageEnd::LAST);
    let listed = rows.iter().map(|row| ExecutionView::decode_body(&row.body).unwrap().fire_sequence.0);
    assert_eq!(listed.collect::<Vec<_>>(), [1, 2]);

    world.ask(|request_id| WatchFrame { request_id, partition, tenant: "acme", name: "" });
    world.fail(&attempts[0]);
    world.succeed(&attempts[1]);
    world.pass_by_deadlines(SECOND);
    let seen = world.take(FrameType::ExecutionView);
    let seen = seen.iter().map(|row| ExecutionView::decode_body(&row.body).unwrap());
    let seen: Vec<_> = seen.map(|view| (view.fire_sequence.0, view.token.0, view.state)).collect();
    let (retrying, succeeded, running) = (ExecutionState::Retrying, ExecutionState::Succeeded, ExecutionState::Running);
    assert_eq!(seen, [(1, 1, retrying), (2, 2, succeeded), (1, 3, running)]);
}
