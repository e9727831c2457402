//! One claim per test, about lists of jobs and executions, whole ones and those that pick, and commands on a job that has to be the expected one.

use super::{
    super::*,
    harness::{World, every, once},
};
use crate::partition::{Partition, SnapshotReader};
use std::collections::BTreeMap;
use tickwheel_wire::{
    frame::{
        Frame,
        request::{
            ExecutionSelection, ExecutionState, ExecutionView, ExpectedJob, JobSelection, JobVerb, JobView,
            ListExecutions, ListJobs, PageEnd, SubmitMode,
        },
        session::Refused,
    },
    job::{JobSpec, JobState, JobStates},
};

const SECOND: Duration = Duration::from_secs(1);
const PARTITION: PartitionId = PartitionId(0);

/// A page of jobs: their names, how often each is on it, and the cursor behind it.
fn page(world: &mut World, partition: PartitionId, selection: JobSelection<'_>, cursor: u64) -> (Vec<String>, u64) {
    let (tenant, prefix, limit) = ("acme", "", 256);
    let answer = world.ask(|request_id| ListJobs { request_id, partition, tenant, prefix, cursor, limit, selection });
    let (end, views) = answer.split_last().expect("a page has an end");
    let name = |body: &[u8]| JobSpec::decode(JobView::decode_body(body).unwrap().spec).unwrap().name.to_owned();
    let views = views.iter().filter(|view| view.frame_type == FrameType::JobView);
    (views.map(|view| name(&view.body)).collect(), PageEnd::decode_body(&end.body).unwrap().cursor)
}

/// The names of all jobs that are picked, sorted; each is listed once.
pub fn picked(world: &mut World, labels: &str, states: JobStates) -> Vec<String> {
    let selection = JobSelection { labels, states };
    let mut names = Vec::new();
    for partition in (0..world.config.partition_count.count()).map(PartitionId) {
        let mut cursor = 0;
        while cursor != PageEnd::LAST {
            let (listed, next) = page(world, partition, selection, cursor);
            names.extend(listed);
            cursor = next;
        }
    }
    names.sort();
    assert!(names.is_sorted_by(|a, b| a < b), "each is listed once: {names:?}");
    names
}

fn labelled<'a>(spec: JobSpec<'a>, labels: &'a str) -> JobSpec<'a> {
    JobSpec { labels, ..spec }
}

#[test]
fn a_selector_that_admits_few_of_many_jobs_lists_each_once_and_ends() {
    const COUNT: usize = if cfg!(miri) { 40 } else { 10_000 };
    let mut world = World::new(1);
    let names: Vec<_> = (0..COUNT).map(|index| format!("job-{index:05}")).collect();
    let is_wanted = |index: usize| index % 997 == 13;
    let labels = |index| if is_wanted(index) { "env=prod,team=ops" } else { "env=test,team=ops" };
    world.create_all(names.iter().enumerate().map(|(index, name)| labelled(every(name, 10), labels(index))));
    let wanted: Vec<_> = (0..COUNT).filter(|index| is_wanted(*index)).map(|index| names[index].clone()).collect();
    assert_eq!(picked(&mut world, "team=ops,env!=test", JobStates::NONE), wanted);
    assert_eq!(picked(&mut world, "team=ops,!env", JobStates::NONE), [""; 0]);
    if !cfg!(miri) {
        let none = JobSelection { labels: "nothing", ..JobSelection::default() };
        let (names, cursor) = page(&mut world, PARTITION, none, 0);
        assert!(names.is_empty() && (8_100..8_192).contains(&cursor), "a page without jobs goes on: {cursor}");
    }
}

/// As many labels as may be, as long as may be; those of different jobs are different.
fn longest_labels(job: u32) -> String {
    let label = |place: usize| format!("k{place:02}={job:03}{}", "v".repeat(252));
    (0..32).map(label).collect::<Vec<_>>().join(",")
}

#[test]
fn jobs_that_share_their_labels_are_looked_at_as_fast_as_others() {
    let mut world = World::new(1);
    let labels = longest_labels(0);
    let names: Vec<_> = (0..if cfg!(miri) { 100 } else { 1_000 }).map(|index| format!("job-{index:03}")).collect();
    world.create_all(names.iter().map(|name| labelled(every(name, 10), &labels)));
    let none = JobSelection { labels: "!k00", states: JobStates::NONE };
    assert_eq!(page(&mut world, PARTITION, none, 0), (Vec::new(), PageEnd::LAST));
}

#[test]
fn jobs_of_many_labels_are_not_taken_for_one_another() {
    let mut world = World::new(1);
    let rows: Vec<_> =
        (0..300).map(|index| (format!("job-{index:03}"), format!("owner=user-{}", index % 150))).collect();
    world.create_all(rows.iter().map(|(name, labels)| labelled(every(name, 10), labels)));
    assert_eq!(picked(&mut world, "owner=user-7", JobStates::NONE), ["job-007", "job-157"]);
    assert_eq!(picked(&mut world, "owner!=user-7", JobStates::NONE).len(), 298);
}

#[test]
fn long_labels_make_a_page_look_at_fewer_jobs() {
    let mut world = World::new(1);
    for index in 0..100 {
        world.create(&labelled(every(&format!("job-{index:02}"), 10), &longest_labels(index)));
    }
    let selection = JobSelection { labels: "k31=v", states: JobStates::NONE };
    let (names, cursor) = page(&mut world, PARTITION, selection, 0);
    assert!(names.is_empty() && (40..60).contains(&cursor), "{cursor}");
    assert_eq!(picked(&mut world, "k31=v", JobStates::NONE), [""; 0]);
    assert_eq!(picked(&mut world, "k31", JobStates::NONE).len(), 100);
}

#[test]
fn long_labels_make_no_long_chunks_of_a_snapshot() {
    let mut world = World::new(1);
    let count = if cfg!(miri) { 20 } else { 300 };
    for index in 0..count {
        world.create(&labelled(every(&format!("job-{index:03}"), 10), &longest_labels(index)));
    }
    let expected = world.shard.partition(PARTITION).unwrap().digest();
    assert!(world.shard.begin_snapshot(PARTITION));
    let mut reader = SnapshotReader::new(PARTITION, world.config.partition);
    let (mut chunk, mut chunk_bytes_max) = (Vec::new(), 0);
    loop {
        chunk.clear();
        let step = world.shard.snapshot_step(PARTITION, &mut chunk).unwrap();
        chunk_bytes_max = chunk.len().max(chunk_bytes_max);
        if !chunk.is_empty() {
            reader.chunk(&chunk).unwrap();
        }
        if let SnapshotStep::Done { digest, .. } = step {
            assert_eq!(digest, expected);
            break;
        }
    }
    assert!(chunk_bytes_max < 256 << 10, "{chunk_bytes_max}");
    let restored: Partition = reader.finish(true).unwrap();
    assert_eq!(restored.digest(), expected);
}

#[test]
fn jobs_that_come_and_go_during_a_walk_leave_those_that_stay_to_be_listed_once() {
    let mut world = World::new(1);
    let name = |index: usize| format!("job-{index:04}");
    let selection = JobSelection { labels: "team=ops", states: JobStates::NONE };
    const COUNT: usize = if cfg!(miri) { 420 } else { 2_000 };
    let names: Vec<_> = (0..COUNT).map(name).collect();
    world.create_all(names.iter().map(|name| labelled(every(name, 10), "team=ops")));
    let (mut met, mut cursor, mut round) = (BTreeMap::<String, u32>::new(), 0, 0);
    while cursor != PageEnd::LAST {
        let (names, next) = page(&mut world, PARTITION, selection, cursor);
        for name in names {
            *met.entry(name).or_default() += 1;
        }
        cursor = next;
        // Every seventh goes, spread over the whole; others come, mostly in the slots of those.
        for index in [round, round + 20, round + 40].map(|number| number * 7) {
            world.command(JobVerb::Delete, &name(index)).unwrap();
            world.create(&labelled(every(&format!("new-{index}"), 10), "team=ops"));
        }
        round += 1;
        assert!(round < 20, "the walk ends");
    }
    for index in (0..COUNT).filter(|index| index % 7 != 0) {
        assert_eq!(met.get(&name(index)), Some(&1), "{index}");
    }
}

#[test]
fn states_pick_jobs_by_how_they_stand() {
    let mut world = World::new(1);
    world.attach(1, 10, 64);
    world.create(&JobSpec { paused: true, ..every("paused", 1_000) });
    world.create(&every("active", 1_000));
    world.create(&once("running", 1));
    world.create(&once("done", 1));
    let retry = tickwheel_wire::job::RetryPolicy { attempts_max: 1, ..Default::default() };
    world.create(&JobSpec { retry, ..every("failing", 1_000) });
    world.command(JobVerb::Trigger, "failing").unwrap();
    world.pass(SECOND);
    for attempt in world.attempts() {
        match &*attempt.name {
            "done" => drop(world.succeed(&attempt)),
            "failing" => drop(world.fail(&attempt)),
            _ => {}
        }
    }
    let mut check = |states: &[JobState], expected: &[&str]| {
        assert_eq!(picked(&mut world, "", states.iter().copied().collect()), expected, "{states:?}");
    };
    check(&[], &["active", "done", "failing", "paused", "running"]);
    check(&[JobState::Paused], &["paused"]);
    check(&[JobState::Active], &["active", "failing", "running"]);
    check(&[JobState::Running], &["running"]);
    check(&[JobState::Failing], &["failing"]);
    check(&[JobState::Finished], &["done"]);
    check(&[JobState::Finished, JobState::Paused, JobState::Failing], &["done", "failing", "paused"]);
}

#[test]
fn a_trigger_that_waits_keeps_a_job_active() {
    let mut world = World::new(1);
    world.attach(1, 10, 1);
    world.create(&once("one", 1));
    world.pass(SECOND);
    let attempt = world.attempt();
    world.succeed(&attempt);
    world.create(&once("other", 1));
    world.pass(SECOND);
    world.command(JobVerb::Trigger, "one").unwrap();
    assert_eq!(picked(&mut world, "", JobStates::NONE.with(JobState::Finished)), [""; 0]);
    assert_eq!(picked(&mut world, "", JobStates::NONE.with(JobState::Active)), ["one", "other"]);
}

/// Names of the jobs whose executions are listed, in order, page by page.
fn executions(world: &mut World, tenant: &str, selection: ExecutionSelection<'_>) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), 0);
    while cursor != PageEnd::LAST {
        let (partition, name, limit) = (PARTITION, "", 2);
        let answer =
            world.ask(|request_id| ListExecutions { request_id, partition, tenant, name, cursor, limit, selection });
        let (end, views) = answer.split_last().expect("a page has an end");
        names.extend(views.iter().map(|view| ExecutionView::decode_body(&view.body).unwrap().name.to_owned()));
        cursor = PageEnd::decode_body(&end.body).unwrap().cursor;
    }
    names.sort();
    names
}

#[test]
fn executions_are_picked_by_the_labels_of_their_jobs_and_by_whether_they_run() {
    let mut world = World::new(1);
    world.attach(1, 10, 64);
    for (name, labels) in
        [("a1", "team=ops"), ("a2", "team=ops"), ("a3", "team=dev"), ("b1", "team=ops"), ("gone", "team=ops")]
    {
        world.create(&labelled(once(name, 1), labels));
    }
    world.pass(SECOND);
    for attempt in world.attempts() {
        if attempt.name == "a2" || attempt.name == "gone" {
            world.succeed(&attempt);
        }
    }
    world.command(JobVerb::Delete, "gone").unwrap();
    let plain = ExecutionSelection::default();
    assert_eq!(executions(&mut world, "", plain), ["a1", "a2", "a3", "b1", "gone"]);
    let labels = "team=ops";
    assert_eq!(executions(&mut world, "", ExecutionSelection { labels, ..plain }), ["a1", "a2", "b1"]);
    assert_eq!(executions(&mut world, "acme", ExecutionSelection { labels, prefix: "a", ..plain }), ["a1", "a2"]);
    assert_eq!(executions(&mut world, "", ExecutionSelection { prefix: "g", ..plain }), ["gone"]);
    assert_eq!(executions(&mut world, "", ExecutionSelection { in_flight: true, ..plain }), ["a1", "a3", "b1"]);
    let in_flight = ExecutionSelection { in_flight: true, labels, prefix: "a" };
    assert_eq!(executions(&mut world, "acme", in_flight), ["a1"]);
    assert_eq!(executions(&mut world, "globex", in_flight), [""; 0]);
}

#[test]
fn what_is_no_selector_is_refused_with_field_and_limit() {
    let mut world = World::new(1);
    let many = vec!["a"; 33].join(",");
    let long = "k".repeat(64);
    for (labels, limit) in [(&*many, 32), (&*long, 63), ("a=1,,b", 63), ("a b", 0), ("a=\u{7}", 0)] {
        let (partition, tenant, cursor, limit_) = (PARTITION, "acme", 0, 9);
        let selection = JobSelection { labels, states: JobStates::NONE };
        let jobs = world.ask(|request_id| ListJobs {
            request_id,
            partition,
            tenant,
            prefix: "",
            cursor,
            limit: limit_,
            selection,
        });
        let selection = ExecutionSelection { labels, ..ExecutionSelection::default() };
        let executions = world.ask(|request_id| ListExecutions {
            request_id,
            partition,
            tenant,
            name: "",
            cursor,
            limit: limit_,
            selection,
        });
        for answer in [jobs, executions] {
            assert_eq!(answer.len(), 1, "{labels}");
            let refused = Refused::decode_body(&answer[0].body).unwrap();
            let expected = (RefusalCode::InvalidField, "labels", limit);
            assert_eq!((refused.code, refused.field, refused.detail), expected, "{labels}");
        }
    }
}

#[test]
fn a_command_on_another_job_than_the_expected_one_is_refused_and_changes_nothing() {
    let mut world = World::new(1);
    let first = world.create(&every("tick", 10));
    let second = world.submit_as(&every("tick", 20), SubmitMode::Upsert, 0, &[]).unwrap();
    let logged = world.log.len();
    for (expected, found) in [
        (ExpectedJob { job: first.job, revision: 1 }, 2),
        (ExpectedJob { job: JobId::new(PARTITION, 5, 0), revision: 2 }, 2),
    ] {
        for verb in JobVerb::ALL {
            let denied = world.command_expecting(*verb, "tick", expected).unwrap_err();
            assert_eq!((denied.code, denied.detail), (RefusalCode::RevisionConflict, found), "{verb} {expected:?}");
        }
    }
    assert_eq!(world.log.len(), logged, "nothing was logged");
    let expected = ExpectedJob { job: second.job, revision: second.revision };
    world.command_expecting(JobVerb::Pause, "tick", expected).unwrap();
    world.command_expecting(JobVerb::Delete, "tick", expected).unwrap();
    world.create(&every("tick", 10));
    let denied = world.command_expecting(JobVerb::Delete, "tick", ExpectedJob { revision: 1, ..expected }).unwrap_err();
    assert_eq!((denied.code, denied.detail), (RefusalCode::RevisionConflict, 1), "a job created anew is another one");
}

#[test]
fn pages_of_jobs_hold_every_job_once() {
    const COUNT: usize = if cfg!(miri) { 12 } else { 100 };
    let mut world = World::new(1);
    for index in 0..COUNT {
        world.create(&every(&format!("job-{index:03}"), 10));
    }
    for index in (0..COUNT).step_by(7) {
        world.command(JobVerb::Delete, &format!("job-{index:03}")).unwrap();
    }
    let (mut names, mut cursor) = (Vec::new(), 0);
    while cursor != PageEnd::LAST {
        let answer = world.ask(|request_id| ListJobs {
            request_id,
            partition: PartitionId(0),
            tenant: "acme",
            prefix: "job-0",
            cursor,
            limit: 9,
            selection: JobSelection::default(),
        });
        for received in &answer {
            match received.frame_type {
                FrameType::JobView => {
                    let view = JobView::decode_body(&received.body).unwrap();
                    names.push(JobSpec::decode(view.spec).unwrap().name.to_owned());
                }
                FrameType::PageEnd => cursor = PageEnd::decode_body(&received.body).unwrap().cursor,
                other => panic!("{other}"),
            }
        }
        assert!(answer.len() <= 10);
    }
    names.sort();
    let expected: Vec<String> =
        (0..COUNT).filter(|index| index % 7 != 0).map(|index| format!("job-{index:03}")).collect();
    assert_eq!(names, expected);
}

#[test]
fn executions_are_listed_in_flight_first_and_then_the_newest() {
    let mut world = World::new(1);
    world.attach(1, 10, 8);
    for name in ["a", "b", "c"] {
        world.create(&once(name, 1));
    }
    world.pass(SECOND);
    let attempts = world.attempts();
    for attempt in attempts.iter().filter(|attempt| attempt.name != "b") {
        world.succeed(attempt);
    }
    world.command(JobVerb::Delete, "a").unwrap();
    let answer = world.ask(|request_id| ListExecutions {
        request_id,
        partition: PartitionId(0),
        tenant: "",
        name: "",
        cursor: 0,
        limit: 100,
        selection: ExecutionSelection::default(),
    });
    let views: Vec<(String, ExecutionState, Vec<u8>)> = answer
        .iter()
        .filter(|received| received.frame_type == FrameType::ExecutionView)
        .map(|received| {
            let view = ExecutionView::decode_body(&received.body).unwrap();
            assert_eq!((view.tenant, view.fire_sequence.0, view.token.0), ("acme", 1, 1));
            (view.name.to_owned(), view.state, view.output.to_vec())
        })
        .collect();
    assert_eq!(views[0], ("b".to_owned(), ExecutionState::Running, Vec::new()));
    assert_eq!(views[1..].len(), 2);
    for (_, state, output) in &views[1..] {
        assert_eq!((*state, &**output), (ExecutionState::Succeeded, &b"out"[..]));
    }
}
