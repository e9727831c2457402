//! One claim per test, about what nodes remark on views: what handlers say about their attempts, and why a job is paused.

use super::{
    super::*,
    harness::{Attempt, Received, World, every, session},
};
use tickwheel_wire::{
    frame::{
        request::{
            ExecutionById, ExecutionState, ExecutionView, JobByName, JobVerb, JobView, ListExecutions, ListJobs,
            PageEnd, Remark, SubmitMode, Watch as WatchFrame,
        },
        work::{Outcome, ReportStatus, Verdict},
    },
    job::{FiringRules, JobSpec, RetryPolicy},
    limits::STATUS_BYTES_MAX,
};

const SECOND: Duration = Duration::from_secs(1);
const ALL: PartitionId = PartitionId(0);

fn say(world: &mut World, attempt: &Attempt, from: u64, status: &[u8]) {
    let Attempt { job, fire_sequence, token, .. } = *attempt;
    let identity = world.worker_identity();
    let (request_id, partition) = (0, job.partition());
    world.send(session(from), &identity, &ReportStatus { request_id, partition, job, fire_sequence, token, status });
}

fn remarks(received: &[Received]) -> Vec<(u16, String)> {
    let remarks = received.iter().filter(|received| received.frame_type == FrameType::Remark);
    let remarks = remarks.map(|received| Remark::decode_body(&received.body).unwrap());
    remarks.map(|remark| (remark.paused_after_failures, remark.status.to_owned())).collect()
}

/// The status of an execution as it is got, and as it is listed.
fn status(world: &mut World, attempt: &Attempt) -> String {
    let Attempt { job, fire_sequence, .. } = *attempt;
    let got = world.ask(|request_id| ExecutionById { request_id, partition: ALL, job, fire_sequence });
    assert_eq!(got.last().unwrap().frame_type, FrameType::ExecutionView, "what is remarked comes first");
    let (tenant, name, cursor, limit, selection) = ("acme", &*attempt.name, 0, 10, Default::default());
    let listed =
        world.ask(|request_id| ListExecutions { request_id, partition: ALL, tenant, name, cursor, limit, selection });
    assert_eq!(remarks(&got), remarks(&listed));
    remarks(&got).pop().map(|(_, status)| status).unwrap_or_default()
}

#[test]
fn a_status_is_shown_until_the_attempt_ends_and_only_its_worker_sets_it() {
    let mut world = World::new(1);
    world.create(&every("job", 10));
    world.attach(1, 10, 1);
    world.attach(2, 20, 1);
    world.pass(10 * SECOND);
    let first = world.attempt();
    let (own, other) = if first.session == session(1) { (1, 2) } else { (2, 1) };
    assert_eq!(status(&mut world, &first), "");
    say(&mut world, &first, own, b"begun");
    assert_eq!(status(&mut world, &first), "begun");
    say(&mut world, &first, other, b"not its worker");
    say(&mut world, &Attempt { token: Token(first.token.0 + 1), ..first.clone() }, own, b"not its token");
    assert_eq!(status(&mut world, &first), "begun");
    say(&mut world, &first, own, &[b'x'; STATUS_BYTES_MAX + 1]);
    assert_eq!(status(&mut world, &first), "x".repeat(STATUS_BYTES_MAX));
    say(&mut world, &first, own, b"");
    assert_eq!(status(&mut world, &first), "");
    say(&mut world, &first, own, b"nearly done");

    world.fail(&first);
    assert_eq!((status(&mut world, &first), world.shard.statuses.attempts().count()), (String::new(), 0));
    world.pass(5 * SECOND);
    let second = world.attempt();
    assert_eq!((second.attempt, status(&mut world, &second)), (2, String::new()));
    say(&mut world, &first, own, b"late");
    assert_eq!(status(&mut world, &second), "", "the attempt before it has ended");
    assert!(world.take(FrameType::Refused).is_empty() && world.cancels().is_empty(), "nothing answers a status");
}

#[test]
fn every_end_of_an_attempt_takes_its_status_along() {
    type End = fn(&mut World, &Attempt);
    let ends: [(&str, End); 5] = [
        ("succeeded", |world, attempt| assert_eq!(world.succeed(attempt), Verdict::Accepted)),
        ("timed out", |world, _| world.pass_by_deadlines(3 * SECOND)),
        ("deleted", |world, attempt| assert_eq!(world.command(JobVerb::Delete, "job").unwrap().job, attempt.job)),
        ("lost", |world, _| {
            world.close(session(1));
            world.pass_by_deadlines(3_600 * SECOND);
        }),
        ("given up", |world, _| drop(world.shard.release(ALL))),
    ];
    for (end, happen) in ends {
        let mut world = World::new(1);
        let start_to_close_ms = if end == "timed out" { 2_000 } else { 0 };
        world.create(&JobSpec { start_to_close_ms, ..every("job", 10) });
        world.attach(1, 10, 1);
        world.pass(10 * SECOND);
        let attempt = world.attempt();
        say(&mut world, &attempt, 1, b"begun");
        assert_eq!(world.shard.statuses.attempts().collect::<Vec<_>>(), [(attempt.job, attempt.token)]);
        happen(&mut world, &attempt);
        assert_eq!(world.shard.statuses.attempts().count(), 0, "{end}");
    }
}

#[test]
fn watchers_hear_of_each_other_status_once_and_in_order() {
    let mut world = World::new(1);
    world.create(&every("job", 10));
    world.attach(1, 10, 1);
    let watch = world.ask(|request_id| WatchFrame { request_id, partition: ALL, tenant: "acme", name: "job" });
    let watch = watch[0].body[..8].to_vec();
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    for status in [&b"one"[..], b"one", b"two", b"", b"three"] {
        say(&mut world, &attempt, 1, status);
    }
    world.succeed(&attempt);
    let told: Vec<_> = world.inbox.extract_if(.., |received| received.body.starts_with(&watch)).collect();
    let mut heard = Vec::new();
    let mut said = String::new();
    for frame in &told {
        match frame.frame_type {
            FrameType::Remark => said = Remark::decode_body(&frame.body).unwrap().status.to_owned(),
            _ => heard.push((ExecutionView::decode_body(&frame.body).unwrap().state, std::mem::take(&mut said))),
        }
    }
    let running = |status: &str| (ExecutionState::Running, status.to_owned());
    let succeeded = (ExecutionState::Succeeded, String::new());
    assert_eq!(heard, [running(""), running("one"), running("two"), running(""), running("three"), succeeded]);
}

/// Why a job is paused, as it is got and as it is listed.
fn paused(world: &mut World, name: &str) -> (bool, u16) {
    let got = world.ask(|request_id| JobByName { request_id, partition: ALL, tenant: "acme", name });
    let (tenant, prefix, cursor, limit, selection) = ("acme", name, 0, 10, Default::default());
    let listed =
        world.ask(|request_id| ListJobs { request_id, partition: ALL, tenant, prefix, cursor, limit, selection });
    assert_eq!(remarks(&got), remarks(&listed));
    assert!(PageEnd::decode_body(&listed.last().unwrap().body).is_ok());
    let view = JobView::decode_body(&got.last().unwrap().body).unwrap();
    (view.paused, remarks(&got).pop().map_or(0, |(failures, _)| failures))
}

fn fail_once(world: &mut World, name: &str) {
    let attempt = world.attempt();
    assert_eq!(attempt.name, name);
    world.complete_with(&attempt, session(1), Outcome::FailedForGood, "Refused");
}

/// A job that pauses after two failures.
fn brittle(name: &str) -> JobSpec<'_> {
    let rules = FiringRules { pause_after_failures: 2, ..FiringRules::PLAIN };
    JobSpec { rules, retry: RetryPolicy { attempts_max: 1, ..RetryPolicy::default() }, ..every(name, 10) }
}

#[test]
fn a_job_that_its_rules_paused_says_so_until_it_is_resumed_or_replaced() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&brittle("job"));
    for expected in [(false, 0), (true, 2)] {
        world.pass(10 * SECOND);
        fail_once(&mut world, "job");
        assert_eq!(paused(&mut world, "job"), expected);
    }
    world.command(JobVerb::Pause, "job").unwrap();
    assert_eq!(paused(&mut world, "job"), (true, 2), "it was paused already");
    // What is executed by request while it is paused, to see whether it works again, changes nothing about why it is.
    for outcome in [Outcome::Succeeded, Outcome::FailedForGood] {
        world.command(JobVerb::Trigger, "job").unwrap();
        world.fire();
        let attempt = world.attempt();
        world.complete_with(&attempt, session(1), outcome, "");
        assert_eq!(paused(&mut world, "job"), (true, 2));
    }
    world.restart();
    assert_eq!(paused(&mut world, "job"), (true, 2));
    world.command(JobVerb::Resume, "job").unwrap();
    assert_eq!(paused(&mut world, "job"), (false, 0));
    world.command(JobVerb::Pause, "job").unwrap();
    assert_eq!(paused(&mut world, "job"), (true, 0));
    world.submit_as(&JobSpec { paused: true, ..brittle("job") }, SubmitMode::Upsert, 0, &[]).unwrap();
    assert_eq!(paused(&mut world, "job"), (true, 0), "its definition says so");
}

#[test]
fn a_job_that_was_paused_by_request_stays_so_whatever_fails_then() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&brittle("job"));
    world.pass(10 * SECOND);
    fail_once(&mut world, "job");
    world.pass(10 * SECOND);
    world.command(JobVerb::Pause, "job").unwrap();
    fail_once(&mut world, "job");
    assert_eq!(paused(&mut world, "job"), (true, 0));
    world.command(JobVerb::Resume, "job").unwrap();
    world.pass(10 * SECOND);
    fail_once(&mut world, "job");
    assert_eq!(paused(&mut world, "job"), (false, 0), "it counts anew");
}

#[test]
fn watchers_hear_which_end_paused_the_job() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&brittle("job"));
    let watch = world.ask(|request_id| WatchFrame { request_id, partition: ALL, tenant: "acme", name: "" });
    let watch = watch[0].body[..8].to_vec();
    for expected in [&[][..], &[(2, String::new())]] {
        world.pass(10 * SECOND);
        fail_once(&mut world, "job");
        let told: Vec<_> = world.inbox.extract_if(.., |received| received.body.starts_with(&watch)).collect();
        assert_eq!(remarks(&told), expected);
        let last = ExecutionView::decode_body(&told.last().unwrap().body).unwrap();
        assert_eq!(last.state, ExecutionState::Failed);
    }
    world.command(JobVerb::Trigger, "job").unwrap();
    world.fire();
    let attempt = world.attempt();
    world.succeed(&attempt);
    let told: Vec<_> = world.inbox.extract_if(.., |received| received.body.starts_with(&watch)).collect();
    assert_eq!(remarks(&told), [], "it was paused before");
}
