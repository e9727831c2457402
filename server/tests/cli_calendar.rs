//! Claims about calendars that the server keeps, with real processes.

mod cli_support;

use cli_support::{Dev, pairs, tickwheel};
use serde_json::{Value, json};
use std::fs;

/// How often a job is looked at that is to follow its calendar, which it does soon after that was set.
const LOOKS_MAX: usize = 500;

/// Fires at noon from the first of June 2090 on, but for what `exclude` says.
fn daily(name: &str, exclude: &str) -> String {
    format!(
        "[[job]]\nname = \"{name}\"\ncron = \"0 12 * * *\"\nstarts_at = 2090-06-01T00:00:00Z\nexclude = {exclude}\n\
         command = [\"true\"]\n"
    )
}

fn job(dev: &Dev, name: &str) -> Value {
    dev.run(&["job", "get", name, "--output", "json"], "").ok().json()
}

/// Looks at the job until its next firing is on this day of June 2090, and returns the job.
#[track_caller]
fn fires_on(dev: &Dev, name: &str, day: u8) -> Value {
    let expected = json!(format!("2090-06-{day:02}T12:00:00Z"));
    let looks = (0..LOOKS_MAX).map(|_| job(dev, name));
    let mut last = Value::Null;
    for job in looks {
        if job["next_fire_at"] == expected {
            return job;
        }
        last = job;
    }
    panic!("not on day {day}: {last}");
}

#[test]
fn jobs_follow_a_calendar_that_is_set_anew_or_deleted() {
    let dev = Dev::start();
    let set = |entries: &[&str]| {
        let entries = entries.iter().flat_map(|entry| ["--exclude", entry]);
        dev.run(&["calendar", "set", "holidays"].into_iter().chain(entries).collect::<Vec<_>>(), "")
    };
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let jobs: String = names.iter().map(|name| daily(name, "[\"calendar holidays\"]")).collect();
    let early = dev.run(&["job", "apply", "-f", "-"], &jobs);
    assert!(early.status == Some(1) && early.stderr.contains("the tenant has no calendar `holidays`"), "{early:?}");

    assert_eq!(set(&["2090-06-01", "SAT"]).ok().stdout, "calendar holidays is set, with 2 entries\n");
    let applied = dev.run(&["job", "apply", "-f", "-", "--output", "json"], &(jobs.clone() + &daily("free", "[]")));
    let created = names.iter().chain(&["free"]).map(|name| (*name, "created")).collect::<Vec<_>>();
    assert_eq!(applied.ok().actions(), pairs(&created));
    // 2 June 2090 is a Friday.
    assert!(names.iter().all(|name| job(&dev, name)["next_fire_at"] == json!("2090-06-02T12:00:00Z")));

    set(&["2090-06-01..2090-06-02", "SAT"]).ok();
    for name in names {
        assert_eq!(fires_on(&dev, name, 4)["revision"], json!(1), "nobody has touched the job");
    }
    fires_on(&dev, "free", 1);
    let export = dev.run(&["job", "export"], "").ok().stdout;
    assert!(export.contains("exclude = [\"calendar holidays\"]"), "{export}");
    let again = dev.run(&["job", "apply", "-f", "-", "--output", "json"], &export).ok().actions();
    assert!(again.iter().all(|(_, action)| action == "unchanged"), "{again:?}");

    let refused = dev.run(&["calendar", "delete", "holidays"], "");
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("it is named by 7 jobs: a, b, c, d, e and 2 more; with --force"), "{refused:?}");
    fires_on(&dev, "a", 4);
    let deleted = dev.run(&["calendar", "delete", "holidays", "--force", "--output", "json"], "").ok().json();
    assert_eq!(deleted, json!({"tenant": "default", "name": "holidays", "action": "deleted"}));
    for name in names {
        fires_on(&dev, name, 1);
    }
    let late = dev.run(&["job", "apply", "-f", "-"], &daily("a", "[\"calendar holidays\", \"12-25\"]"));
    assert!(late.status == Some(1) && late.stderr.contains("the tenant has no calendar `holidays`"), "{late:?}");
}

#[test]
fn what_a_calendar_shows_is_what_sets_it() {
    let dev = Dev::start();
    let text = "zone Europe/Berlin\n12-25\n2090-06-01T14:00..2090-06-01T18:00\ncron * 12 * * *\n";
    dev.run(&["calendar", "set", "b", "--file", "-"], &format!("# ours\n\n{text}")).ok();
    let shown = dev.run(&["calendar", "get", "b"], "").ok().stdout;
    assert_eq!(shown, text);
    let set = dev.run(&["calendar", "set", "a day off", "--file", "-", "--output", "json"], &shown).ok().json();
    assert_eq!(set, json!({"tenant": "default", "name": "a day off", "action": "set"}));
    let entries: Vec<_> = text.lines().collect();
    let row = |name: &str| json!({"tenant": "default", "name": name, "exclusions": entries});
    assert_eq!(dev.run(&["calendar", "get", "a day off", "--output", "json"], "").ok().json(), row("a day off"));
    let list = dev.run(&["calendar", "list", "--output", "json"], "").ok().json();
    assert_eq!(list, json!([row("a day off"), row("b")]));
    let table = dev.run(&["calendar", "list"], "").ok().stdout;
    assert!(table.contains("default  b          zone Europe/Berlin; 12-25; 2090-06-01T14:00..2090-06-01T"), "{table}");
    dev.run(&["calendar", "delete", "b"], "").ok();

    let ics = dev.folder().join("closed.ics");
    let event = "BEGIN:VEVENT\nDTSTART;VALUE=DATE:20900601\nEND:VEVENT\n";
    fs::write(&ics, format!("BEGIN:VCALENDAR\n{event}END:VCALENDAR\n")).expect("written");
    let ics = ics.to_str().expect("UTF-8");
    dev.run(&["calendar", "set", "b", "--ics", ics, "--tz", "Asia/Tokyo"], "").ok();
    assert_eq!(dev.run(&["calendar", "get", "b"], "").ok().stdout, "zone Asia/Tokyo\n2090-06-01\n");
}

#[test]
fn what_is_no_calendar_is_refused_and_says_why() {
    let dev = Dev::start();
    let long = "n".repeat(65);
    for (arguments, stdin, expected) in [
        (vec!["set", "a", "--exclude", "someday"], "", "--exclude: line 1, `someday`: an entry is a date"),
        (
            vec!["set", "a", "--file", "-"],
            "12-25\ncalendar b",
            "standard input: line 2, `calendar b`: a calendar names no",
        ),
        (vec!["set", "a", "--file", "-"], "# none\n", "standard input: no entries in it"),
        (vec!["set", "a", "--ics", "/none.ics"], "", "/none.ics: "),
        (vec!["set", &long, "--exclude", "12-25"], "", "`name` has 65 bytes; allowed are 64"),
        (vec!["set", " a", "--exclude", "12-25"], "", "invalid-field: `name` is not 1 to 64 bytes"),
        (vec!["get", "a"], "", "unknown-calendar: there is no calendar \"a\"; `tickwheel calendar list`"),
        (vec!["delete", "a"], "", "unknown-calendar: "),
    ] {
        let answer = dev.run(&[&["calendar"], &arguments[..]].concat(), stdin);
        assert!(answer.status == Some(1) && answer.stderr.contains(expected), "{arguments:?}: {answer:?}");
    }
    assert_eq!(dev.run(&["calendar", "list", "--output", "json"], "").ok().json(), json!([]));
    let local = tickwheel(&["cron", "next", "@daily", "--exclude", "calendar holidays"], "");
    assert_eq!(local.status, Some(2));
    assert!(local.stderr.contains("known to it alone; `tickwheel calendar get` shows its entries"), "{local:?}");
}
