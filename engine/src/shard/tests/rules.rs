//! One claim per test, about jobs with rules of their own; `properties` holds them all together against the plain model.

use super::{
    super::*,
    harness::{World, client, every, once, secs, session},
};
use tickwheel_wire::{
    frame::{
        request::{ExecutionState, ExecutionView, JobByName, JobVerb, JobView, SubmitMode, Watch as WatchFrame},
        work::{CancelReason, Outcome, Verdict},
    },
    job::{
        DayRule, DstGap, DstOverlap, FiringRules, JobSpec, Misfire, Overlap, RetryPolicy, ScheduleListBuf, ScheduleSpec,
    },
    partition_of,
};

const SECOND: Duration = Duration::from_secs(1);
const PLAIN: FiringRules = FiringRules::PLAIN;
/// 01:42:07 on the clock of Berlin, 18 minutes before it is turned forward.
const SPRING_SECS: u64 = 1_806_194_527;

fn shown(world: &mut World, name: &str) -> (ExecutionState, bool, Timestamp) {
    let partition = partition_of("acme", name, world.config.partition_count);
    let answer = world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name });
    // What is remarked on a job comes before it.
    let view = JobView::decode_body(&answer.last().unwrap().body).unwrap();
    (view.last_state, view.paused, view.next_fire)
}

/// The definition of a job as it is shown.
fn spec_shown(world: &mut World, name: &str) -> Vec<u8> {
    let partition = partition_of("acme", name, world.config.partition_count);
    let answer = world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name });
    JobView::decode_body(&answer[0].body).unwrap().spec.to_vec()
}

fn ruled<'a>(spec: JobSpec<'a>, rules: FiringRules) -> JobSpec<'a> {
    JobSpec { rules, ..spec }
}

/// When the executions of a job were scheduled, each ended `run_secs` after it began, for as long as `rounds` of them.
fn scheduled(world: &mut World, run_secs: u32, rounds: usize) -> Vec<u64> {
    let mut scheduled = Vec::new();
    for _ in 0..rounds {
        let attempts = world.attempts();
        let [attempt] = &attempts[..] else { break };
        scheduled.push(attempt.scheduled_at.as_micros() / 1_000_000 - secs(0).as_micros() / 1_000_000);
        world.pass_by_deadlines(run_secs * SECOND);
        assert_eq!(world.succeed(attempt), Verdict::Accepted);
    }
    scheduled
}

#[test]
fn fire_all_executes_the_newest_missed_firings_one_after_another() {
    let mut world = World::new(1);
    world.create(&ruled(every("tick", 10), FiringRules { misfire: Misfire::FireAll, misfire_max: 3, ..PLAIN }));
    world.pass(65 * SECOND);
    world.attach(1, 10, 2);
    assert_eq!(scheduled(&mut world, 0, 9), [40, 50, 60]);
    assert_eq!((world.counters().misfired, world.counters().skipped), (3, 0));
    assert_eq!(shown(&mut world, "tick").2, secs(70));
}

#[test]
fn skip_executes_no_firing_past_its_grace() {
    let mut world = World::new(1);
    let rules = FiringRules { misfire: Misfire::Skip, misfire_grace_ms: 15_000, overlap: Overlap::BufferAll, ..PLAIN };
    world.create(&ruled(every("tick", 10), rules));
    world.pass(65 * SECOND);
    world.attach(1, 10, 2);
    assert_eq!(scheduled(&mut world, 0, 9), [50, 60]);
    assert_eq!(world.counters().misfired, 4);
}

#[test]
fn one_shot_past_its_grace_is_recorded_and_finished() {
    let mut world = World::new(1);
    world.create(&ruled(once("one", 5), FiringRules { misfire: Misfire::Skip, ..PLAIN }));
    world.pass(66 * SECOND);
    assert_eq!(shown(&mut world, "one"), (ExecutionState::TooLate, false, Timestamp::MAX));
    assert_eq!((world.counters().too_late, world.counters().misfired), (1, 0));
}

#[test]
fn buffers_keep_the_newest_firings_that_came_due_during_a_run() {
    for (overlap, overlap_max, expected, skipped) in
        [(Overlap::BufferOne, 100, &[10, 40, 70][..], 7), (Overlap::BufferAll, 2, &[10, 30, 40, 60, 70], 2)]
    {
        let mut world = World::new(1);
        world.attach(1, 10, 2);
        world.create(&ruled(every("tick", 10), FiringRules { overlap, overlap_max, ..PLAIN }));
        world.pass(10 * SECOND);
        let mut found = scheduled(&mut world, 35, 1);
        found.extend(scheduled(&mut world, if overlap == Overlap::BufferOne { 34 } else { 13 }, expected.len() - 1));
        assert_eq!(found, expected, "{overlap}");
        assert_eq!(world.counters().skipped, skipped, "{overlap}");
    }
}

#[test]
fn running_execution_makes_way_at_once_or_when_it_can() {
    for overlap in [Overlap::CancelRunning, Overlap::TerminateRunning] {
        let mut world = World::new(1);
        world.attach(1, 10, 2);
        world.create(&ruled(every("tick", 10), FiringRules { overlap, ..PLAIN }));
        world.pass(10 * SECOND);
        let first = world.attempt();
        world.pass(10 * SECOND);
        let cancel = world.cancels();
        assert_eq!((cancel.len(), cancel[0].token, cancel[0].reason), (1, first.token, CancelReason::Requested));
        let is_terminated = overlap == Overlap::TerminateRunning;
        if is_terminated {
            assert_eq!(world.attempt().scheduled_at, secs(20), "the slot of the first is kept, another is free");
        } else {
            assert!(world.attempts().is_empty(), "the first has not ended");
        }
        let verdict = world.complete_with(&first, first.session, Outcome::Cancelled, "");
        assert_eq!(verdict == Verdict::Accepted, !is_terminated);
        if !is_terminated {
            assert_eq!(world.attempt().scheduled_at, secs(20));
        }
        assert_eq!(world.counters().cancelled, 1, "{overlap}");
    }
}

#[test]
fn execution_that_could_not_begin_in_time_is_recorded_and_watchers_are_told() {
    let mut world = World::new(1);
    let partition = partition_of("acme", "tick", world.config.partition_count);
    world.ask(|request_id| WatchFrame { request_id, partition, tenant: "acme", name: "" });
    world.create(&ruled(every("tick", 10), FiringRules { schedule_to_start_ms: 4_000, ..PLAIN }));
    world.pass_by_deadlines(25 * SECOND);
    assert_eq!((world.counters().too_late, world.counters().misfired), (2, 0));
    let seen = world.take(FrameType::ExecutionView);
    let views: Vec<_> = seen.iter().map(|frame| ExecutionView::decode_body(&frame.body).unwrap()).collect();
    let told: Vec<_> = views.iter().map(|view| (view.fire_sequence.0, view.state, view.scheduled_at)).collect();
    assert_eq!(told, [(1, ExecutionState::TooLate, secs(10)), (2, ExecutionState::TooLate, secs(20))]);
    world.attach(1, 10, 2);
    assert!(world.attempts().is_empty());
    world.pass(5 * SECOND);
    assert_eq!((world.attempt().scheduled_at, client()), (secs(30), client()));
}

#[test]
fn failures_in_a_row_pause_the_job_until_it_is_resumed() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
    let rules = FiringRules { pause_after_failures: 2, ..PLAIN };
    world.create(&JobSpec { retry, ..ruled(every("tick", 10), rules) });
    for (failed, paused) in [(true, false), (false, false), (true, false), (true, true)] {
        world.pass(10 * SECOND);
        let attempt = world.attempt();
        if failed {
            world.fail(&attempt)
        } else {
            world.succeed(&attempt)
        };
        assert_eq!(shown(&mut world, "tick").1, paused);
    }
    world.command(JobVerb::Resume, "tick").unwrap();
    world.pass(10 * SECOND);
    let attempt = world.attempt();
    world.fail(&attempt);
    assert!(!shown(&mut world, "tick").1, "it counts anew");
}

#[test]
fn named_errors_are_not_repeated() {
    for (name, error, state) in [
        ("a", "Gone", ExecutionState::Failed),
        ("b", "Go", ExecutionState::Retrying),
        ("c", "", ExecutionState::Retrying),
    ] {
        let mut world = World::new(1);
        world.attach(1, 10, 4);
        world.create(&JobSpec { non_retryable: "Refused,Gone", ..once(name, 1) });
        world.pass(SECOND);
        let attempt = world.attempt();
        world.complete_with(&attempt, session(1), Outcome::Failed, error);
        assert_eq!(shown(&mut world, name).0, state, "{error:?}");
    }
}

#[test]
fn window_and_number_of_executions_end_a_job() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    let rules = FiringRules { starts_at: secs(25), ends_at: secs(50), ..PLAIN };
    world.create(&ruled(every("window", 10), rules));
    let mut firings = Vec::new();
    for _ in 0..8 {
        world.pass(10 * SECOND);
        for attempt in world.attempts() {
            firings.push(attempt.scheduled_at);
            world.succeed(&attempt);
        }
    }
    assert_eq!(firings, [secs(30), secs(40)]);
    world.create(&ruled(every("twice", 10), FiringRules { executions_max: 2, ..PLAIN }));
    world.pass(10 * SECOND);
    assert_eq!(scheduled(&mut world, 0, 1), [90], "{:?}", shown(&mut world, "twice"));
    world.command(JobVerb::Trigger, "twice").unwrap();
    world.fire();
    assert_eq!(scheduled(&mut world, 0, 1), [90]);
    assert_eq!(shown(&mut world, "twice").2, Timestamp::MAX, "the triggered one was the second");
}

#[test]
fn fixed_delay_counts_from_the_end_of_each_execution() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    let schedule = ScheduleSpec::FixedDelay { delay_us: 10_000_000 };
    world.create(&JobSpec::new("acme", "poll", "run", schedule));
    for expected in [10, 27, 44] {
        world.pass_by_deadlines(10 * SECOND);
        let attempt = world.attempt();
        assert_eq!(attempt.scheduled_at, secs(expected));
        world.pass_by_deadlines(7 * SECOND);
        world.succeed(&attempt);
    }
    assert_eq!((world.counters().skipped, world.counters().misfired), (0, 0));
}

#[test]
fn jitter_is_the_specified_function_of_job_and_firing_and_stays_before_the_next() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    world.create(&ruled(every("tick", 10), FiringRules { jitter_ms: 60_000, ..PLAIN }));
    let mut offsets = Vec::new();
    for number in 1..=20 {
        world.pass_by_deadlines(10 * SECOND);
        let attempts = world.attempts();
        for attempt in &attempts {
            offsets.push(attempt.scheduled_at.as_micros() % 10_000_000);
            world.succeed(attempt);
        }
        assert!(attempts.len() <= 1 && offsets.len() >= number - 1, "one in each ten seconds");
    }
    let low = offsets.iter().filter(|offset| **offset < 5_000_000).count();
    assert!((4..=16).contains(&low), "they spread: {offsets:?}");
}

#[test]
fn a_resumed_job_fires_next_when_it_would_have_without_the_pause() {
    let rules = FiringRules { jitter_ms: 9_000, ..PLAIN };
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    world.create(&ruled(every("tick", 10), rules));
    let mut fires = Vec::new();
    for _ in 0..30 {
        world.pass_by_deadlines(10 * SECOND);
        for attempt in world.attempts() {
            fires.push(attempt.scheduled_at);
            world.succeed(&attempt);
        }
    }

    let mut world = World::new(1);
    world.create(&ruled(every("tick", 10), rules));
    for resumed_s in (13..280).step_by(13) {
        world.command(JobVerb::Pause, "tick").unwrap();
        world.pass(13 * SECOND);
        let next = world.command(JobVerb::Resume, "tick").unwrap().next_fire;
        assert_eq!(Some(&next), fires.iter().find(|fire| **fire > secs(resumed_s)), "resumed after {resumed_s} s");
    }
}

#[test]
#[cfg_attr(miri, ignore = "searches through years")]
fn job_of_a_name_chooses_its_own_minute_and_shows_the_expression_as_written() {
    let mut world = World::new(1);
    let schedule = ScheduleSpec::Cron { expression: "H * * * *", zone: "UTC" };
    let mut minutes = [0_u32; 60];
    for number in 0..1_000 {
        let name = format!("job-{number}");
        let next = world.create(&JobSpec::new("acme", &name, "run", schedule)).next_fire;
        minutes[usize::try_from(next.as_micros() / 60_000_000 % 60).unwrap()] += 1;
    }
    assert!(minutes.iter().all(|count| (4..=34).contains(count)), "{minutes:?}");
    let partition = partition_of("acme", "job-7", world.config.partition_count);
    let answer = world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name: "job-7" });
    let view = JobView::decode_body(&answer[0].body).unwrap();
    assert_eq!(JobSpec::decode(view.spec).unwrap().schedule, schedule);
}

#[test]
#[cfg_attr(miri, ignore = "searches through years")]
fn cron_schedules_follow_the_policies_of_their_definition_through_a_change_of_the_clock() {
    let daily = ScheduleSpec::Cron { expression: "30 2 * * *", zone: "Europe/Berlin" };
    for (dst_gap, hours) in [(DstGap::Vixie, 0), (DstGap::FireAfter, 0), (DstGap::Skip, 23)] {
        let mut world = World::starting(Timestamp::from_secs(SPRING_SECS), 1, |_| {});
        let rules = FiringRules { dst_gap, ..PLAIN };
        let next = world.create(&JobSpec { rules, ..JobSpec::new("acme", "daily", "run", daily) }).next_fire;
        assert_eq!((next.as_micros() / 1_000_000 - SPRING_SECS) / 3_600, hours, "{dst_gap}");
    }
    // 02:12:07 on the clock of Berlin for the first time, 48 minutes before it is turned back.
    let autumn_secs = 1_824_941_527;
    for (dst_overlap, minutes) in [(DstOverlap::First, 17), (DstOverlap::Second, 77), (DstOverlap::Both, 17)] {
        let mut world = World::starting(Timestamp::from_secs(autumn_secs), 1, |_| {});
        let rules = FiringRules { dst_overlap, ..PLAIN };
        let next = world.create(&JobSpec { rules, ..JobSpec::new("acme", "daily", "run", daily) }).next_fire;
        assert_eq!((next.as_micros() / 1_000_000 - autumn_secs) / 60, minutes, "{dst_overlap}");
    }
}

#[test]
fn a_day_matches_both_fields_where_the_definition_says_so_in_every_schedule() {
    // Friday, 2026-11-06; the 13th is a Friday too.
    let friday_secs = 1_793_923_200;
    let cron = ScheduleSpec::Cron { expression: "0 0 13 * FRI", zone: "UTC" };
    let monday = ScheduleSpec::Cron { expression: "0 0 9,23 * MON", zone: "UTC" };
    for (day_rule, also, days) in [
        (DayRule::Or, None, [7, 14]),
        (DayRule::And, None, [7, 280]),
        (DayRule::And, Some(monday), [3, 7]),
        (DayRule::Or, Some(monday), [3, 7]),
    ] {
        let mut world = World::starting(Timestamp::from_secs(friday_secs), 1, |_| {});
        world.attach(1, 1, 2);
        let also: ScheduleListBuf = also.into_iter().collect();
        let rules = FiringRules { day_rule, ..PLAIN };
        let spec = JobSpec { rules, also: also.as_list(), ..JobSpec::new("acme", "days", "run", cron) };
        let first = world.create(&spec).next_fire;
        world.pass(first.saturating_since(world.now.wall));
        let found =
            [first, shown(&mut world, "days").2].map(|fire| (fire.as_micros() / 1_000_000 - friday_secs) / 86_400);
        assert_eq!(found, days, "{day_rule}, {} more", also.as_list().iter().count());
        // What a restart has read is the same definition.
        assert_eq!(JobSpec::decode(&spec_shown(&mut world, "days")).unwrap().rules, rules);
        world.restart();
        assert_eq!(shown(&mut world, "days").2, Timestamp::from_secs(friday_secs + days[1] * 86_400));
    }
    // What is excluded goes by its own expression, where one field is enough: on the 20th because it is a Friday.
    let mut world = World::starting(Timestamp::from_secs(friday_secs + 13 * 86_400), 1, |_| {});
    let daily = ScheduleSpec::Cron { expression: "0 0 1-31 * 0-6", zone: "UTC" };
    let spec = JobSpec { exclusions: "cron * * 13 * FRI", ..JobSpec::new("acme", "without", "run", daily) };
    let spec = ruled(spec, FiringRules { day_rule: DayRule::And, ..PLAIN });
    assert_eq!(world.create(&spec).next_fire, Timestamp::from_secs(friday_secs + 15 * 86_400));
    let never = ScheduleSpec::Cron { expression: "0 0 30 2 1", zone: "UTC" };
    for (day_rule, refused) in [(DayRule::Or, None), (DayRule::And, Some(RefusalCode::InvalidField))] {
        let mut world = World::new(1);
        let spec = ruled(JobSpec::new("acme", "never", "run", never), FiringRules { day_rule, ..PLAIN });
        let answer = world.submit_as(&spec, SubmitMode::Create, 0, &[]);
        assert_eq!(answer.err().map(|denied| denied.code), refused, "{day_rule}");
    }
}

#[test]
fn several_schedules_fire_at_the_times_of_each_and_once_where_they_coincide() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    let also: ScheduleListBuf = [
        ScheduleSpec::Interval { every_us: 25_000_000, anchor: Timestamp::MAX },
        ScheduleSpec::Once { at: secs(37) },
        ScheduleSpec::Once { at: secs(0) },
        ScheduleSpec::Cron { expression: "* * * * *", zone: "UTC" },
    ]
    .into_iter()
    .collect();
    world.create(&JobSpec { also: also.as_list(), ..every("tick", 20) });
    let mut firings = Vec::new();
    for _ in 0..105 {
        world.pass(SECOND);
        for attempt in world.attempts() {
            firings.push((attempt.scheduled_at.as_micros() - secs(0).as_micros()) / 1_000_000);
            world.succeed(&attempt);
        }
    }
    assert_eq!(firings, [20, 25, 37, 40, 50, 60, 75, 80, 100]);
    assert_eq!((world.counters().skipped, world.counters().misfired), (0, 0));
    let view = spec_shown(&mut world, "tick");
    let spec = JobSpec::decode(&view).unwrap();
    assert_eq!(spec.schedule, every("tick", 20).schedule);
    let anchored = ScheduleSpec::Interval { every_us: 25_000_000, anchor: secs(0) };
    assert!(spec.also.iter().eq(std::iter::once(anchored).chain(also.as_list().iter().skip(1))), "{spec:?}");
}

#[test]
fn rules_hold_for_the_firings_of_all_schedules_together() {
    let mut world = World::new(1);
    let rules =
        FiringRules { misfire: Misfire::FireAll, misfire_max: 3, starts_at: secs(15), ends_at: secs(75), ..PLAIN };
    let also: ScheduleListBuf =
        [ScheduleSpec::Interval { every_us: 25_000_000, anchor: secs(0) }].into_iter().collect();
    let next = world.create(&JobSpec { also: also.as_list(), ..ruled(every("tick", 10), rules) }).next_fire;
    assert_eq!(next, secs(20));
    world.pass(65 * SECOND);
    world.attach(1, 10, 2);
    assert_eq!(scheduled(&mut world, 0, 9), [40, 50, 60], "of 20, 25, 30, 40, 50, 60");
    assert_eq!(world.counters().misfired, 3);
    world.pass(5 * SECOND);
    assert_eq!(scheduled(&mut world, 0, 1), [70]);
    assert_eq!(shown(&mut world, "tick").2, Timestamp::MAX, "75 is the end");
}

#[test]
#[cfg_attr(miri, ignore = "submits hundreds of jobs")]
fn each_of_several_expressions_is_settled_by_the_name_and_shown_as_written() {
    let mut world = World::new(1);
    let hashed = ScheduleSpec::Cron { expression: "H * * * *", zone: "UTC" };
    let also: ScheduleListBuf = [hashed, ScheduleSpec::Once { at: secs(1_000_000) }].into_iter().collect();
    let mut minutes = std::collections::BTreeSet::new();
    for number in 0..100 {
        let name = format!("job-{number}");
        let alone = world.create(&JobSpec::new("acme", &name, "run", hashed)).next_fire;
        world.command(JobVerb::Delete, &name).unwrap();
        let next = world.create(&JobSpec { also: also.as_list(), ..once(&name, 900_000) }).next_fire;
        assert_eq!(next, alone, "the expression means the same alone and as one of several");
        minutes.insert(next);
    }
    assert!(minutes.len() > 30, "{minutes:?}");
    let view = spec_shown(&mut world, "job-7");
    assert!(JobSpec::decode(&view).unwrap().also.iter().eq(also.as_list().iter()));
    // A restored job has its own name's values too.
    let digest = world.shard.partition(PartitionId(0)).unwrap().digest();
    assert!(world.shard.begin_snapshot(PartitionId(0)));
    let mut reader = crate::partition::SnapshotReader::new(PartitionId(0), world.config.partition);
    loop {
        let mut chunk = Vec::new();
        let step = world.shard.snapshot_step(PartitionId(0), &mut chunk).unwrap();
        reader.chunk(&chunk).unwrap();
        if let SnapshotStep::Done { .. } = step {
            break;
        }
    }
    assert_eq!(reader.finish(true).unwrap().digest(), digest);
}

#[test]
fn several_schedules_of_which_none_comes_again_are_refused() {
    let mut world = World::new(1);
    let past: ScheduleListBuf = [ScheduleSpec::Once { at: secs(0) }].into_iter().collect();
    let denied = world.submit_as(&JobSpec { also: past.as_list(), ..once("one", 0) }, SubmitMode::Create, 0, b"");
    assert_eq!(denied.unwrap_err().code, RefusalCode::NeverFires);
    let odd: ScheduleListBuf = [ScheduleSpec::Cron { expression: "0 0 30 2 *", zone: "UTC" }].into_iter().collect();
    let denied = world.submit_as(&JobSpec { also: odd.as_list(), ..once("one", 9) }, SubmitMode::Create, 0, b"");
    assert_eq!(denied.unwrap_err().code, RefusalCode::InvalidField);
    assert_eq!(world.create(&JobSpec { also: past.as_list(), ..once("one", 9) }).next_fire, secs(9));
}

/// START_SECS is 2027-01-15T08:00:00Z, a Friday.
const WEEKEND_OFF: &str = "zone UTC\nweekends\n2027-01-18\ncron * 12-23 * * *";

#[test]
fn excluded_firings_are_none() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    let hourly = JobSpec { exclusions: WEEKEND_OFF, ..every("tick", 3_600) };
    assert_eq!(world.create(&hourly).next_fire, secs(3_600));
    let mut firings = Vec::new();
    for _ in 0..4 * 24 + 4 {
        world.pass(3_600 * SECOND);
        for attempt in world.attempts() {
            firings.push((attempt.scheduled_at.as_micros() - secs(0).as_micros()) / 3_600_000_000);
            world.succeed(&attempt);
        }
    }
    // 9, 10 and 11 h on Friday; on Tuesday from midnight to 11 h.
    let tuesday = 24 + 24 + 24 + 16;
    let expected: Vec<u64> = [1, 2, 3].into_iter().chain(tuesday..tuesday + 12).collect();
    assert_eq!(firings, expected);
    assert_eq!((world.counters().skipped, world.counters().misfired), (0, 0));
    let view = spec_shown(&mut world, "tick");
    assert_eq!(JobSpec::decode(&view).unwrap().exclusions, WEEKEND_OFF);
}

#[test]
fn only_firings_that_are_not_excluded_count_as_missed_and_wait() {
    let mut world = World::new(1);
    let rules = FiringRules { misfire: Misfire::FireAll, misfire_max: 3, ..PLAIN };
    world.create(&JobSpec { exclusions: "cron */2 * * * *", ..ruled(every("tick", 60), rules) });
    world.pass(600 * SECOND);
    world.attach(1, 10, 2);
    assert_eq!(scheduled(&mut world, 0, 9), [300, 420, 540]);
    assert_eq!(world.counters().misfired, 2, "60 and 180");
    assert_eq!(shown(&mut world, "tick").2, secs(660));
}

#[test]
fn exclusions_without_a_zone_go_by_the_job_s_first_cron_expression() {
    let mut world = World::new(1);
    let noon = ScheduleSpec::Cron { expression: "0 0 * * *", zone: "Asia/Tokyo" };
    let also: ScheduleListBuf = [noon].into_iter().collect();
    // Midnight in Tokyo is 15:00 UTC of the day before: seven hours from now it is the 16th there.
    let spec = JobSpec { also: also.as_list(), exclusions: "2027-01-16", ..once("tick", 0) };
    assert_eq!(world.create(&spec).next_fire, secs((24 + 7) * 3_600));
    let spec = JobSpec { name: "utc", exclusions: "zone UTC\n2027-01-16", ..spec };
    assert_eq!(world.create(&spec).next_fire, secs(7 * 3_600));
}

#[test]
#[cfg_attr(miri, ignore = "searches through years")]
fn exclusions_that_are_wrong_or_leave_nothing_are_refused() {
    let mut world = World::new(1);
    let daily = ScheduleSpec::Cron { expression: "0 9 * * SAT", zone: "UTC" };
    let daily = JobSpec::new("acme", "weekly", "run", daily);
    for (spec, code) in [
        (JobSpec { exclusions: "2027-02-30", ..daily }, RefusalCode::InvalidField),
        (JobSpec { exclusions: "zone Mars\n12-25", ..daily }, RefusalCode::InvalidField),
        (JobSpec { exclusions: "12-25\n\n12-26", ..daily }, RefusalCode::InvalidField),
        (JobSpec { exclusions: "weekends", ..daily }, RefusalCode::NeverFires),
        (JobSpec { exclusions: "weekends\nweekdays", ..every("tick", 60) }, RefusalCode::NeverFires),
        (JobSpec { exclusions: "2027-01-15", ..once("one", 60) }, RefusalCode::NeverFires),
    ] {
        let denied = world.submit_as(&spec, SubmitMode::Create, 0, b"").unwrap_err();
        assert_eq!(denied.code, code, "{:?}", spec.exclusions);
        assert_eq!(denied.field, if code == RefusalCode::NeverFires { "schedule" } else { "exclusions" });
    }
    world.create(&JobSpec { exclusions: "2027-01-16", ..once("one", 60) });
}

#[test]
fn trigger_waits_for_a_run_unless_firings_are_skipped_then() {
    let mut world = World::new(1);
    world.attach(1, 10, 2);
    world.create(&ruled(once("one", 1), FiringRules { overlap: Overlap::BufferOne, ..PLAIN }));
    world.pass(SECOND);
    let first = world.attempt();
    world.command(JobVerb::Trigger, "one").unwrap();
    assert!(world.attempts().is_empty());
    assert!(world.command(JobVerb::Trigger, "one").is_err(), "one waits already");
    world.succeed(&first);
    assert_eq!(world.attempt().fire_sequence.0, 2);
}
