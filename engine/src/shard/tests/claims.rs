//! One claim per test, about jobs from submission to end.

use super::{
    super::*,
    harness::{Attempt, Denied, World, client, every, once, secs, session},
};
use tickwheel_wire::{
    frame::{
        request::{
            ExecutionSelection, ExecutionState, ExecutionView, ExpectedJob, JobByName, JobVerb, JobView,
            ListExecutions, SubmitMode, Watch as WatchFrame,
        },
        work::{CancelReason, Outcome, Verdict},
    },
    job::{JobSpec, RetryPolicy, ScheduleSpec},
    partition_of,
};

const SECOND: Duration = Duration::from_secs(1);

fn view(world: &mut World, name: &str) -> (JobId, ExecutionState, u64, Timestamp) {
    let partition = partition_of("acme", name, world.config.partition_count);
    let answer = world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name });
    let view = JobView::decode_body(&answer[0].body).unwrap();
    (view.job, view.last_state, view.fire_sequence.0, view.next_fire)
}

#[test]
fn a_job_fires_runs_and_fires_again() {
    let mut world = World::new(4);
    world.attach(1, 10, 2);
    let submitted = world.create(&JobSpec { payload: b"data", ..every("tick", 10) });
    assert_eq!((submitted.revision, submitted.next_fire, submitted.created), (1, secs(10), true));
    world.pass(9 * SECOND);
    assert!(world.attempts().is_empty(), "nothing fires early");
    world.pass(SECOND);
    let first = world.attempt();
    assert_eq!((first.job, first.fire_sequence.0, first.token.0, first.attempt), (submitted.job, 1, 1, 1));
    assert_eq!((first.scheduled_at, &*first.name, &*first.payload), (secs(10), "tick", &b"data"[..]));
    assert_eq!(view(&mut world, "tick").1, ExecutionState::Running);
    assert_eq!(world.succeed(&first), Verdict::Accepted);
    assert_eq!(view(&mut world, "tick"), (submitted.job, ExecutionState::Succeeded, 1, secs(20)));
    world.pass(10 * SECOND);
    let second = world.attempt();
    assert_eq!((second.fire_sequence.0, second.token.0, second.scheduled_at), (2, 2, secs(20)));
}

#[test]
fn firings_missed_without_a_worker_become_one_execution_and_are_counted() {
    let mut world = World::new(1);
    world.create(&every("tick", 10));
    world.pass(35 * SECOND);
    world.attach(1, 10, 2);
    let attempt = world.attempt();
    assert_eq!((attempt.scheduled_at, attempt.fire_sequence.0), (secs(10), 1));
    assert_eq!(world.counters().misfired, 2);
    assert_eq!(view(&mut world, "tick").3, secs(40));
}

#[test]
fn firings_during_an_execution_are_skipped_and_counted() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    world.create(&every("tick", 10));
    world.pass_by_deadlines(45 * SECOND);
    let attempt = world.attempt();
    assert_eq!((world.counters().skipped, world.counters().misfired), (3, 0));
    assert_eq!(world.succeed(&attempt), Verdict::Accepted);
    world.pass_by_deadlines(5 * SECOND);
    assert_eq!(world.attempt().scheduled_at, secs(50));
}

#[test]
fn a_failed_attempt_is_repeated_with_a_higher_token_after_its_delay() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    let retry = RetryPolicy { jitter_percent: 0, ..RetryPolicy::default() };
    world.create(&JobSpec { retry, ..once("one", 1) });
    world.pass(SECOND);
    let first = world.attempt();
    assert_eq!(world.fail(&first), Verdict::Accepted);
    assert_eq!(view(&mut world, "one").1, ExecutionState::Retrying);
    world.pass(SECOND - Duration::from_millis(1));
    assert!(world.attempts().is_empty());
    world.pass(Duration::from_millis(2));
    let second = world.attempt();
    assert_eq!((second.fire_sequence, second.attempt, second.token.0), (first.fire_sequence, 2, 2));
    assert_eq!(world.fail(&second), Verdict::Accepted);
    world.pass(3 * SECOND);
    let third = world.attempt();
    assert_eq!(world.fail(&third), Verdict::Accepted);
    world.pass(3600 * SECOND);
    assert!(world.attempts().is_empty(), "three attempts are the bound");
    assert_eq!((world.counters().dead, world.counters().failed_attempts), (1, 3));
    assert_eq!(view(&mut world, "one").1, ExecutionState::Failed);
}

#[test]
fn a_failure_for_good_is_not_repeated() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    world.create(&once("one", 1));
    world.pass(SECOND);
    let attempt = world.attempt();
    assert_eq!(world.complete_with(&attempt, attempt.session, Outcome::FailedForGood, "Never"), Verdict::Accepted);
    assert_eq!(world.counters().dead, 1);
}

#[test]
fn a_repeated_report_is_acknowledged_and_changes_nothing() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    world.create(&every("tick", 10));
    world.pass(10 * SECOND);
    let first = world.attempt();
    assert_eq!(world.succeed(&first), Verdict::Accepted);
    assert_eq!(world.succeed(&first), Verdict::Accepted);
    world.pass(10 * SECOND);
    let second = world.attempt();
    assert_eq!(world.succeed(&first), Verdict::Accepted, "also while the next one runs");
    assert_eq!(world.counters().succeeded, 1);
    assert_eq!(world.succeed(&second), Verdict::Accepted);
    assert_eq!(world.succeed(&first), Verdict::StaleToken);
    assert_eq!(world.counters().succeeded, 2);
}

#[test]
fn only_the_worker_that_holds_the_token_can_complete() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.attach(2, 20, 1);
    world.create(&every("tick", 10));
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    let other = if attempt.session == session(1) { session(2) } else { session(1) };
    assert_eq!(world.complete_with(&attempt, other, Outcome::Succeeded, ""), Verdict::StaleToken);
    assert_eq!(world.counters().succeeded, 0);
    assert_eq!(world.succeed(&attempt), Verdict::Accepted);
}

#[test]
fn an_attempt_past_its_limit_times_out_and_its_slot_is_free_only_when_the_worker_says_so() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    let retry = RetryPolicy { initial_ms: 0, jitter_percent: 0, ..RetryPolicy::default() };
    world.create(&JobSpec { start_to_close_ms: 5_000, retry, ..once("slow", 1) });
    world.pass_by_deadlines(SECOND);
    let first = world.attempt();
    world.pass_by_deadlines(6 * SECOND);
    assert_eq!(world.counters().failed_attempts, 1);
    let told = world.cancels();
    assert_eq!((told[0].token, told[0].reason), (first.token, CancelReason::TimedOut));
    assert!(world.attempts().is_empty(), "the worker has one slot, in which the first attempt still runs");
    let stranger = world.identity(Role::Worker, None, &["high"]);
    world.attach_as(&stranger, 2, 20, 1);
    assert_eq!(world.complete_with(&first, session(2), Outcome::Succeeded, ""), Verdict::StaleToken);
    assert!(world.attempts().is_empty(), "nobody else knows that the slot is free");
    assert_eq!(world.succeed(&first), Verdict::StaleToken);
    assert_eq!(world.attempt().attempt, 2);
}

#[test]
fn a_silent_attempt_times_out_and_a_heartbeat_keeps_it_alive() {
    let mut world = World::new(1);
    world.attach(1, 10, 4);
    world.create(&JobSpec { heartbeat_ms: 2_000, ..once("beats", 1) });
    world.create(&JobSpec { heartbeat_ms: 2_000, ..once("silent", 1) });
    world.pass_by_deadlines(SECOND);
    let attempts = world.attempts();
    let beating = attempts.iter().find(|attempt| attempt.name == "beats").unwrap().clone();
    let identity = world.worker_identity();
    for _ in 0..5 {
        let (job, fire_sequence, token) = (beating.job, beating.fire_sequence, beating.token);
        let heartbeat = tickwheel_wire::frame::work::Heartbeat { job, fire_sequence, token, progress_permille: 500 };
        world.send(beating.session, &identity, &heartbeat);
        world.pass_by_deadlines(SECOND);
    }
    assert_eq!(view(&mut world, "beats").1, ExecutionState::Running);
    assert_ne!(view(&mut world, "silent").1, ExecutionState::Running);
}

#[test]
fn a_worker_that_comes_back_in_time_keeps_its_executions() {
    let mut world = World::new(2);
    world.attach(1, 10, 4);
    world.create(&every("tick", 10));
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    world.close(session(1));
    world.pass_by_deadlines(4 * SECOND);
    world.attach(2, 10, 4);
    assert_eq!(world.reattach(&attempt, session(2)), Verdict::Accepted);
    world.pass_by_deadlines(60 * SECOND);
    assert_eq!(world.counters().failed_attempts, 0);
    assert_eq!(world.complete_with(&attempt, session(2), Outcome::Succeeded, ""), Verdict::Accepted);
}

#[test]
fn a_worker_that_stays_away_costs_an_attempt() {
    let mut world = World::new(2);
    world.attach(1, 10, 4);
    world.create(&every("tick", 10));
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    world.close(session(1));
    world.pass_by_deadlines(4 * SECOND);
    assert_eq!(world.counters().failed_attempts, 0);
    world.pass_by_deadlines(2 * SECOND);
    assert_eq!(world.counters().failed_attempts, 1);
    world.attach(2, 10, 4);
    world.pass_by_deadlines(5 * SECOND);
    let again = world.attempt();
    assert_eq!((again.fire_sequence, again.attempt), (attempt.fire_sequence, 2));
    assert_eq!(world.reattach(&attempt, session(2)), Verdict::StaleToken);
    assert_eq!(world.complete_with(&attempt, session(2), Outcome::Succeeded, ""), Verdict::StaleToken);
}

/// A job `one` was given to a worker, which comes back after a restart and does not claim it.
fn world_whose_worker_claims_nothing(attempts_max: u16) -> (World, Attempt) {
    let mut world = World::new(1);
    world.attach(1, 10, 4);
    world.create(&JobSpec { retry: RetryPolicy { attempts_max, ..RetryPolicy::default() }, ..once("one", 1) });
    world.pass(SECOND);
    let lost = world.attempt();
    world.restart();
    world.attach(2, 10, 4);
    world.pass_by_deadlines(6 * SECOND);
    (world, lost)
}

#[test]
fn what_a_returning_worker_never_received_is_given_out_again_without_costing_an_attempt() {
    let (mut world, lost) = world_whose_worker_claims_nothing(2);
    let again = world.attempt();
    assert_eq!((again.attempt, again.token.0, again.fire_sequence), (1, lost.token.0 + 1, lost.fire_sequence));
    assert_eq!(world.counters().failed_attempts, 0);
    assert_eq!(world.succeed(&again), Verdict::Accepted);
}

#[test]
fn what_a_returning_worker_does_not_claim_is_not_given_out_again_where_one_attempt_is_allowed() {
    let (mut world, lost) = world_whose_worker_claims_nothing(1);
    assert!(world.attempts().is_empty());
    assert_eq!(world.counters().dead, 1);
    assert_eq!(world.reattach(&lost, session(2)), Verdict::StaleToken);
}

#[test]
fn after_a_restart_running_executions_wait_for_their_worker() {
    let mut world = World::new(2);
    world.attach(1, 10, 4);
    world.create(&every("tick", 10));
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    world.restart();
    world.pass_by_deadlines(3 * SECOND);
    world.attach(7, 10, 4);
    assert_eq!(world.reattach(&attempt, session(7)), Verdict::Accepted);
    assert_eq!(world.complete_with(&attempt, session(7), Outcome::Succeeded, ""), Verdict::Accepted);
    world.restart();
    world.attach(8, 10, 4);
    assert_eq!(world.complete_with(&attempt, session(8), Outcome::Succeeded, ""), Verdict::Accepted, "a repetition");
    assert_eq!(world.counters().succeeded, 1);
}

#[test]
fn a_crash_before_the_dispatch_makes_the_same_firing_due_again() {
    let mut world = World::new(1);
    world.create(&every("tick", 10));
    world.pass(12 * SECOND);
    world.restart();
    world.attach(1, 10, 1);
    let attempt = world.attempt();
    assert_eq!((attempt.fire_sequence.0, attempt.scheduled_at, attempt.token.0), (1, secs(10), 1));
}

#[test]
fn a_paused_job_does_not_fire_and_what_passed_meanwhile_is_no_misfire() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&every("tick", 10));
    world.command(JobVerb::Pause, "tick").unwrap();
    world.pass_by_deadlines(25 * SECOND);
    assert!(world.attempts().is_empty());
    assert_eq!(world.command(JobVerb::Resume, "tick").unwrap().next_fire, secs(30));
    world.pass_by_deadlines(5 * SECOND);
    assert_eq!(world.attempt().scheduled_at, secs(30));
    assert_eq!((world.counters().misfired, world.counters().skipped), (0, 0));
}

#[test]
fn a_trigger_fires_now_even_when_paused_and_leaves_the_schedule_alone() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&every("tick", 10));
    world.command(JobVerb::Pause, "tick").unwrap();
    world.pass(3 * SECOND);
    world.command(JobVerb::Trigger, "tick").unwrap();
    world.fire();
    let attempt = world.attempt();
    assert_eq!((attempt.scheduled_at, attempt.fire_sequence.0), (secs(3), 1));
    let refused = world.command(JobVerb::Trigger, "tick").unwrap_err();
    assert_eq!(refused.code, RefusalCode::OverlapSkipped);
    world.succeed(&attempt);
    world.command(JobVerb::Resume, "tick").unwrap();
    assert_eq!(view(&mut world, "tick").3, secs(10));
}

#[test]
fn a_trigger_waits_behind_a_due_firing_and_survives_a_restart() {
    let mut world = World::new(1);
    world.create(&every("tick", 10));
    world.pass(12 * SECOND);
    world.command(JobVerb::Trigger, "tick").unwrap();
    assert_eq!(world.command(JobVerb::Trigger, "tick").unwrap_err().code, RefusalCode::OverlapSkipped);
    world.restart();
    world.attach(1, 10, 1);
    let scheduled = world.attempt();
    assert_eq!(scheduled.scheduled_at, secs(10));
    world.succeed(&scheduled);
    let triggered = world.attempt();
    assert_eq!((triggered.scheduled_at, triggered.fire_sequence.0), (secs(12), 2));
}

#[test]
fn a_deleted_job_is_gone_and_its_successor_has_another_generation() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    let first = world.create(&every("tick", 10));
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    world.command(JobVerb::Delete, "tick").unwrap();
    assert_eq!(world.cancels()[0].reason, CancelReason::JobDeleted);
    assert_eq!(world.command(JobVerb::Pause, "tick").unwrap_err().code, RefusalCode::UnknownJob);
    let second = world.create(&every("tick", 10));
    assert_eq!(first.job.slot(), second.job.slot());
    assert_eq!(first.job.generation() + 1, second.job.generation());
    world.pass(10 * SECOND);
    assert!(world.attempts().is_empty(), "the abandoned attempt still takes the worker's slot");
    assert_eq!(world.succeed(&attempt), Verdict::UnknownJob);
    assert_eq!(world.attempt().job, second.job);
}

#[test]
fn creating_an_existing_job_is_refused_and_upserting_replaces_it() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    let first = world.create(&every("tick", 10));
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    let refused = world.submit_as(&every("tick", 7), SubmitMode::Create, 0, &[]).unwrap_err();
    assert_eq!(refused.code, RefusalCode::AlreadyExists);
    let conflict = world.submit_as(&every("tick", 7), SubmitMode::Upsert, 3, &[]).unwrap_err();
    assert_eq!((conflict.code, conflict.detail), (RefusalCode::RevisionConflict, 1));
    let replaced = world.submit_as(&every("tick", 7), SubmitMode::Upsert, 1, &[]).unwrap();
    assert_eq!((replaced.job, replaced.revision, replaced.created), (first.job, 2, false));
    assert_eq!(replaced.next_fire, secs(14));
    assert_eq!(world.succeed(&attempt), Verdict::Accepted, "the running execution went on");
    world.pass(4 * SECOND);
    let next = world.attempt();
    assert_eq!((next.fire_sequence.0, next.token.0), (2, 2));
}

#[test]
fn a_repeated_submission_gets_the_first_answer() {
    let mut world = World::new(1);
    let first = world.submit_as(&every("tick", 10), SubmitMode::Create, 0, b"key").unwrap();
    let mut again = world.submit_as(&every("tick", 10), SubmitMode::Create, 0, b"key").unwrap();
    again.request_id = first.request_id;
    assert_eq!(first, again);
    let conflict = world.submit_as(&every("tick", 11), SubmitMode::Upsert, 0, b"key").unwrap_err();
    assert_eq!(conflict.code, RefusalCode::IdempotencyConflict);
    world.restart();
    again = world.submit_as(&every("tick", 10), SubmitMode::Create, 0, b"key").unwrap();
    assert_eq!(first.job, again.job);
    world.pass(Duration::from_secs(86_400));
    let refused = world.submit_as(&every("tick", 10), SubmitMode::Create, 0, b"key").unwrap_err();
    assert_eq!(refused.code, RefusalCode::AlreadyExists, "the key is forgotten after its window");
}

#[test]
fn idempotency_keys_are_bounded() {
    let mut world = World::with(1, |config| config.partition.idempotency_keys_max = 2);
    for name in ["a", "b"] {
        world.submit_as(&every(name, 10), SubmitMode::Create, 0, name.as_bytes()).unwrap();
    }
    let refused = world.submit_as(&every("c", 10), SubmitMode::Create, 0, b"c").unwrap_err();
    assert_eq!(refused, Denied { code: RefusalCode::Overloaded, detail: 0, field: "idempotency_key".to_owned() });
    world.pass(Duration::from_secs(86_400));
    world.submit_as(&every("c", 10), SubmitMode::Create, 0, b"c").unwrap();
}

#[test]
fn a_running_execution_that_is_cancelled_ends_with_its_worker_or_with_its_grace() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    for name in ["obeys", "deaf"] {
        world.create(&once(name, 1));
    }
    world.pass(SECOND);
    let attempts = world.attempts();
    for attempt in &attempts {
        world.cancel(attempt.job, 1).unwrap();
    }
    assert!(world.cancels().iter().all(|cancel| cancel.reason == CancelReason::Requested));
    let obeys = attempts.iter().find(|attempt| attempt.name == "obeys").unwrap();
    assert_eq!(world.complete_with(obeys, obeys.session, Outcome::Cancelled, ""), Verdict::Accepted);
    assert_eq!(view(&mut world, "obeys").1, ExecutionState::Cancelled);
    assert_eq!(view(&mut world, "deaf").1, ExecutionState::Running);
    world.pass_by_deadlines(31 * SECOND);
    assert_eq!(view(&mut world, "deaf").1, ExecutionState::Cancelled);
    assert_eq!((world.counters().cancelled, world.counters().dead), (2, 0));
}

#[test]
fn a_failure_after_cancellation_is_not_repeated_and_a_success_counts() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    for name in ["fails", "works"] {
        world.create(&once(name, 1));
    }
    world.pass(SECOND);
    for attempt in world.attempts() {
        world.cancel(attempt.job, 1).unwrap();
        let verdict = if attempt.name == "fails" { world.fail(&attempt) } else { world.succeed(&attempt) };
        assert_eq!(verdict, Verdict::Accepted);
    }
    assert_eq!(view(&mut world, "fails").1, ExecutionState::Cancelled);
    assert_eq!(view(&mut world, "works").1, ExecutionState::Succeeded);
}

#[test]
fn a_waiting_execution_that_is_cancelled_ends_at_once() {
    let mut world = World::new(1);
    let job = world.create(&every("tick", 10)).job;
    assert_eq!(world.cancel(job, 1).unwrap_err().code, RefusalCode::UnknownExecution, "it is not due");
    world.pass(10 * SECOND);
    world.cancel(job, 1).unwrap();
    assert_eq!(view(&mut world, "tick").1, ExecutionState::Cancelled);
    world.attach(1, 10, 1);
    assert!(world.attempts().is_empty());
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    assert_eq!((attempt.fire_sequence.0, attempt.scheduled_at), (2, secs(20)));
    world.fail(&attempt);
    world.cancel(job, 2).unwrap();
    world.pass(9 * SECOND);
    assert!(world.attempts().is_empty(), "no attempt follows");
}

#[test]
fn finished_one_shots_are_kept_for_a_day_and_within_a_bound() {
    let mut world = World::with(1, |config| config.partition.finished_max = 2);
    world.attach(1, 10, 8);
    for (index, name) in ["a", "b", "c"].iter().enumerate() {
        world.create(&once(name, 1 + index as u64));
    }
    for _ in 0..3 {
        world.pass_by_deadlines(SECOND);
        let attempt = world.attempt();
        world.succeed(&attempt);
    }
    assert_eq!(world.command(JobVerb::Pause, "a").unwrap_err().code, RefusalCode::UnknownJob, "the oldest went");
    assert_eq!(view(&mut world, "b").1, ExecutionState::Succeeded);
    world.restart();
    world.pass_by_deadlines(Duration::from_secs(86_398));
    assert_eq!(world.shard.partitions().map(Partition::job_count).sum::<u32>(), 2);
    world.pass_by_deadlines(3 * SECOND);
    assert_eq!(world.shard.partitions().map(Partition::job_count).sum::<u32>(), 0);
}

#[test]
fn a_finished_one_shot_can_be_triggered_again() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&once("one", 1));
    for sequence in 1..=3 {
        world.pass_by_deadlines(SECOND);
        let attempt = world.attempt();
        assert_eq!(attempt.fire_sequence.0, sequence);
        world.succeed(&attempt);
        world.command(JobVerb::Trigger, "one").unwrap();
    }
}

#[test]
fn submissions_are_refused_with_the_field_that_is_wrong() {
    let mut world = World::new(4);
    let cases: &[(JobSpec<'_>, RefusalCode, &str)] = &[
        (JobSpec { pool: "nowhere", ..every("a", 1) }, RefusalCode::InvalidField, "pool"),
        (JobSpec { pool: "globex-only", ..every("a", 1) }, RefusalCode::Forbidden, "pool"),
        (JobSpec { handler: &"x".repeat(200), ..every("a", 1) }, RefusalCode::InvalidField, "handler"),
        (JobSpec { name: "a\u{7}", ..every("a", 1) }, RefusalCode::InvalidField, "name"),
        (JobSpec { payload: &vec![0; 300 << 10], ..every("a", 1) }, RefusalCode::TooLarge, "payload"),
        (
            JobSpec { schedule: ScheduleSpec::Cron { expression: "61 * * * *", zone: "UTC" }, ..every("a", 1) },
            RefusalCode::InvalidField,
            "cron",
        ),
        (
            JobSpec { schedule: ScheduleSpec::Cron { expression: "* * * * *", zone: "Mars" }, ..every("a", 1) },
            RefusalCode::InvalidField,
            "cron",
        ),
        (
            JobSpec { schedule: ScheduleSpec::Interval { every_us: 5, anchor: secs(0) }, ..every("a", 1) },
            RefusalCode::InvalidField,
            "every_us",
        ),
        (JobSpec { labels: "b=1,a=2", ..every("a", 1) }, RefusalCode::InvalidField, "labels"),
        (JobSpec { labels: "a=1,a=2", ..every("a", 1) }, RefusalCode::InvalidField, "labels"),
    ];
    for (spec, code, field) in cases {
        let denied = world.submit_as(spec, SubmitMode::Create, 0, &[]).unwrap_err();
        assert_eq!((denied.code, &*denied.field), (*code, *field));
    }
    assert_eq!(world.log.len(), 0, "nothing was logged");
}

#[test]
fn what_an_identity_may_not_do_is_refused() {
    let mut world = World::new(1);
    world.create(&every("tick", 10));
    let mut code_of = |identity: Identity, frame: &dyn Fn(&mut World, &Identity)| {
        frame(&mut world, &identity);
        let received = world.take(FrameType::Refused).pop().expect("it is refused");
        Refused::decode_body(&received.body).unwrap().code
    };
    let directory = World::new(1).config.directory;
    let worker = directory.identify("w", Role::Worker, None, &["standard"]).unwrap();
    let other = directory.identify("c", Role::Client, Some("globex"), &[]).unwrap();
    let confined = directory.identify("w", Role::Worker, Some("globex"), &["standard"]).unwrap();
    let command = |world: &mut World, identity: &Identity| {
        let partition = PartitionId(0);
        let frame = tickwheel_wire::frame::request::JobCommand {
            request_id: 5,
            partition,
            verb: JobVerb::Delete,
            tenant: "acme",
            name: "tick",
            expected: ExpectedJob::default(),
        };
        world.send(client(), identity, &frame);
    };
    let attach = |world: &mut World, identity: &Identity| {
        let frame = tickwheel_wire::frame::work::Attach {
            request_id: 5,
            instance: tickwheel_wire::InstanceId(1),
            capacity: 1,
            pools: "",
        };
        world.send(session(3), identity, &frame);
    };
    assert_eq!(code_of(worker, &command), RefusalCode::WrongRole);
    assert_eq!(code_of(other.clone(), &command), RefusalCode::Forbidden);
    assert_eq!(code_of(other, &attach), RefusalCode::WrongRole);
    assert_eq!(code_of(confined, &attach), RefusalCode::Forbidden);
}

#[test]
fn malformed_frames_are_refused_and_name_their_request() {
    let mut world = World::new(1);
    let identity = world.identity(Role::Admin, None, &[]);
    for length in [0, 7, 9, 30] {
        let mut body = vec![0xFF; length];
        body.iter_mut().zip(77_u64.to_le_bytes()).for_each(|(to, from)| *to = from);
        world.send_raw(client(), &identity, FrameType::SubmitJob.number(), &body);
        let received = world.take(FrameType::Refused).pop().unwrap();
        let refused = Refused::decode_body(&received.body).unwrap();
        assert_eq!(refused.code, RefusalCode::Malformed);
        assert_eq!(refused.request_id, if length >= 8 { 77 } else { 0 });
    }
    world.send_raw(client(), &identity, 0x7777, &[]);
    let received = world.take(FrameType::Refused).pop().unwrap();
    assert_eq!(Refused::decode_body(&received.body).unwrap().code, RefusalCode::UnknownFrame);
}

#[test]
fn a_name_of_another_partition_and_a_partition_elsewhere_are_refused() {
    let mut world = World::new(4);
    let identity = world.identity(Role::Admin, None, &[]);
    let home = partition_of("acme", "tick", world.config.partition_count);
    let other = PartitionId((home.0 + 1) % 4);
    let code_of = |world: &mut World, partition| {
        world.send(client(), &identity, &JobByName { request_id: 1, partition, tenant: "acme", name: "tick" });
        let received = world.take(FrameType::Refused).pop().unwrap();
        Refused::decode_body(&received.body).unwrap().code
    };
    assert_eq!(code_of(&mut world, other), RefusalCode::NotOwner);
    assert_eq!(code_of(&mut world, home), RefusalCode::UnknownJob);
    world.shard.release(home);
    assert_eq!(code_of(&mut world, home), RefusalCode::NotOwner);
}

#[test]
fn a_watch_tells_every_transition_in_order_and_ends_with_a_notice_at_its_bound() {
    let mut world = World::with(1, |config| config.watch_bytes_per_turn_max = 700);
    world.attach(1, 10, 64);
    let watch = |request_id| WatchFrame { request_id, partition: PartitionId(0), tenant: "acme", name: "a" };
    assert_eq!(world.ask(watch)[0].frame_type, FrameType::Done);
    world.create(&once("a", 1));
    world.create(&once("b", 1));
    world.pass(SECOND);
    for attempt in world.attempts() {
        world.fail(&attempt);
    }
    world.pass(2 * SECOND);
    let attempt = world.attempts().into_iter().find(|attempt| attempt.name == "a").unwrap();
    world.succeed(&attempt);
    let states: Vec<ExecutionState> = world
        .take(FrameType::ExecutionView)
        .iter()
        .map(|received| ExecutionView::decode_body(&received.body).unwrap().state)
        .collect();
    use ExecutionState::{Retrying, Running, Succeeded};
    assert_eq!(states, [Running, Retrying, Running, Succeeded]);

    let all = |request_id| WatchFrame { request_id, partition: PartitionId(0), tenant: "acme", name: "" };
    world.ask(all);
    for index in 0..if cfg!(miri) { 10 } else { 50 } {
        world.create(&once(&format!("x{index}"), 10));
    }
    world.pass(10 * SECOND);
    let refused = world.take(FrameType::Refused);
    assert_eq!(refused.len(), 2, "one notice per watch of the session");
    assert_eq!(Refused::decode_body(&refused[0].body).unwrap().code, RefusalCode::WatchOverrun);
}

#[test]
fn nothing_fires_while_the_node_drains_and_reports_still_count() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    world.create(&every("tick", 10));
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    world.shard.set_gate(Gate::Draining);
    let refused = world.submit_as(&every("other", 1), SubmitMode::Create, 0, &[]).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Draining);
    assert_eq!(world.succeed(&attempt), Verdict::Accepted);
    world.pass(20 * SECOND);
    assert!(world.attempts().is_empty());
    world.shard.set_gate(Gate::Open);
    world.fire();
    assert_eq!(world.attempt().scheduled_at, secs(20));
}

#[test]
fn a_report_that_there_is_no_room_for_changes_nothing_and_counts_when_repeated() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&once("one", 1));
    world.pass(SECOND);
    let attempt = world.attempt();
    let logged = world.log.len();
    world.shard.set_gate(Gate::OutOfSpace);
    world.shard.take_reports(false);
    assert_eq!(world.fail(&attempt), Verdict::Overloaded);
    assert_eq!(world.succeed(&attempt), Verdict::Overloaded);
    assert_eq!(world.log.len(), logged, "nothing was decided");
    world.shard.take_reports(true);
    assert_eq!(world.succeed(&attempt), Verdict::Accepted);
    assert_eq!(view(&mut world, "one").1, ExecutionState::Succeeded);
}

#[test]
fn urgent_jobs_go_first_and_pools_are_kept_apart() {
    let mut world = World::new(1);
    for (name, priority) in [("low", 2), ("mid", 1), ("urgent", 0)] {
        let priority = tickwheel_wire::job::Priority::from_number(priority).unwrap();
        world.create(&JobSpec { priority, ..once(name, 1) });
    }
    world.pass(SECOND);
    let identity = world.identity(Role::Worker, None, &["high"]);
    world.attach_as(&identity, 5, 5, 9);
    assert!(world.attempts().is_empty(), "no job of the pool `high` is due");
    world.attach(1, 10, 1);
    for (name, lane) in [("urgent", 1), ("mid", 2), ("low", 3)] {
        assert_eq!(world.inbox.last().unwrap().lane, lane);
        let attempt = world.attempt();
        assert_eq!(attempt.name, name);
        world.succeed(&attempt);
    }
}

#[test]
fn a_job_moved_to_another_pool_while_queued_goes_to_that_pools_workers() {
    let mut world = World::new(1);
    world.create(&once("one", 1));
    world.pass(SECOND);
    let moved = JobSpec { pool: "high", ..once("one", 1) };
    world.submit_as(&moved, SubmitMode::Upsert, 0, &[]).unwrap();
    let identity = world.identity(Role::Worker, None, &["standard"]);
    world.attach_as(&identity, 5, 5, 9);
    assert!(world.attempts().is_empty());
    world.attach(1, 10, 1);
    assert_eq!(world.attempt().session, session(1));
}

#[test]
fn numbers_of_workers_that_nothing_refers_to_are_taken_again() {
    let mut world = World::with(1, |config| {
        config.partition.workers_max = 2;
        config.partition.recent_max = 1;
    });
    for number in 1..=5_u64 {
        let name = format!("job-{number}");
        world.attach(number, u128::from(number), 1);
        world.create(&once(&name, 0));
        world.fire();
        let attempt = world.attempt();
        assert_eq!((attempt.session, world.succeed(&attempt)), (session(number), Verdict::Accepted));
        world.close(session(number));
        world.pass_by_deadlines(10 * SECOND);
    }
    let execution = world.ask(|request_id| ListExecutions {
        request_id,
        partition: PartitionId(0),
        tenant: "",
        name: "",
        cursor: 0,
        limit: 9,
        selection: ExecutionSelection::default(),
    });
    assert_eq!(execution.len(), 2, "the ring holds one attempt, and a page has an end");
}
