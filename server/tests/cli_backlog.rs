//! Claims about dead letters and backfills, with real processes.

mod cli_support;

use cli_support::{Dev, yearly};
use serde_json::{Value, json};

fn texts<'a>(rows: &'a Value, key: &str) -> Vec<&'a str> {
    rows.as_array().expect("rows").iter().map(|row| row[key].as_str().expect("a text")).collect()
}

/// A job that fails once and for all.
fn failing(name: &str) -> String {
    yearly(name, "[\"/bin/false\"]") + "retry = { attempts_max = 1 }\n"
}

#[test]
fn a_dead_letter_is_tried_again_once_with_its_own_time() {
    let dev = Dev::start();
    let letters =
        |more: &[&str]| dev.run(&[&["execution", "dead-letters", "--output", "json"], more].concat(), "").ok().json();
    dev.run(&["job", "apply", "-f", "-"], &(failing("a") + &failing("b"))).ok();
    let mut watch = dev.watch("a");
    dev.run(&["job", "trigger", "a"], "").ok();
    let failed = watch.until("failed");
    let id = failed["id"].as_str().expect("an id");
    assert_eq!(texts(&letters(&[]), "id"), [id]);
    assert_eq!(letters(&["--prefix", "b"]), json!([]));

    let dry = dev.run(&["execution", "redrive", "--prefix", "a", "--dry-run", "--output", "json"], "").ok().json();
    assert_eq!((texts(&dry, "execution_id"), texts(&dry, "action")), (vec![id], vec!["redriven"]));
    assert_eq!((&dry[0]["dry_run"], &dry[0]["scheduled_at"]), (&json!(true), &failed["scheduled_at"]));
    dev.run(&["execution", "redrive", id], "").ok();
    let again = watch.until("failed");
    assert_eq!((&again["fire_sequence"], &again["scheduled_at"]), (&json!(2), &failed["scheduled_at"]));
    assert_eq!(texts(&letters(&[]), "id"), [again["id"].as_str().expect("an id")], "the first is none any more");

    let refused = dev.run(&["execution", "redrive", id], "");
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("is no dead letter that is remembered"), "{refused:?}");
    let all = dev.run(&["execution", "redrive", "--all", "--output", "json"], "").ok().json();
    assert_eq!((texts(&all, "execution_id"), texts(&all, "action")), (texts(&json!([again]), "id"), vec!["redriven"]));
    assert_eq!(watch.until("failed")["fire_sequence"], json!(3));
}

#[test]
fn dead_letters_are_picked_by_the_labels_of_their_jobs_their_error_and_their_time() {
    let dev = Dev::start();
    let labelled = |name: &str, command: &str, team: &str| {
        yearly(name, command) + &format!("retry = {{ attempts_max = 1 }}\nlabels = {{ team = \"{team}\" }}\n")
    };
    let (fails, does_not_begin) = ("[\"/bin/false\"]", "[\"/no/such/program\"]");
    let jobs = labelled("a", fails, "x") + &labelled("b", does_not_begin, "x") + &labelled("c", fails, "y");
    dev.run(&["job", "apply", "-f", "-"], &jobs).ok();
    let mut errors = Vec::new();
    for name in ["a", "b", "c", "a"] {
        let mut watch = dev.watch(name);
        dev.run(&["job", "trigger", name], "").ok();
        let failed = watch.until("failed");
        errors.push((failed["error"].as_str().expect("a name").to_owned(), failed["finished_at"].clone()));
    }
    let names = |arguments: &str| {
        let words: Vec<_> = arguments.split_whitespace().collect();
        let dry = dev.run(&[&["execution", "redrive", "--dry-run", "--output", "json"], &words[..]].concat(), "");
        let letters = dev.run(&[&["execution", "dead-letters", "--output", "json"], &words[..]].concat(), "");
        let mut names: Vec<_> = texts(&dry.ok().json(), "name").into_iter().map(str::to_owned).collect();
        let mut listed: Vec<_> = texts(&letters.ok().json(), "job").into_iter().map(str::to_owned).collect();
        listed.sort();
        names.sort();
        assert_eq!(names, listed, "{arguments}");
        names.concat()
    };
    let third = errors[2].1.as_str().expect("a time");
    for (arguments, expected) in [
        ("--label team=x", "aab"),
        ("--label team=y", "c"),
        ("--label team=x --prefix a", "aa"),
        ("--state failing", "aabc"),
        ("--state paused", ""),
        ("--since 1h", "aabc"),
        ("--until 1h", ""),
        (&format!("--since {third}"), "ac"),
        (&format!("--until {third}"), "ab"),
        (&format!("--error {}", errors[1].0), "b"),
        ("--error nothing-such", ""),
    ] {
        assert_eq!(names(arguments), expected, "{arguments}");
    }
    for (arguments, problem) in [
        (&["execution", "redrive"][..], "required"),
        (&["execution", "redrive", "--since", "yesterday"], "nor an age"),
        (&["execution", "redrive", "--prefix", ""], "an empty filter picks nothing"),
        (&["execution", "redrive", "--all", "--error", "x"], "--all goes with no other filter"),
        (&["execution", "redrive", "1.2.3/4", "--label", "team=x"], "cannot be used with"),
    ] {
        let answer = dev.run(arguments, "");
        assert_eq!(answer.status, Some(2), "{answer:?}");
        assert!(answer.stderr.contains(problem), "{answer:?}");
    }
    let redriven = dev.run(&["execution", "redrive", "--label", "team=x"], "").ok();
    assert_eq!(redriven.stdout, "redriven 3 dead letters\n");
    assert_eq!(names("--label team=y"), "c", "the others are as they were");
}

#[test]
fn the_oldest_dead_letter_of_a_job_is_tried_again_first() {
    let dev = Dev::start();
    dev.run(&["job", "apply", "-f", "-"], &failing("a")).ok();
    let mut watch = dev.watch("a");
    let mut scheduled = Vec::new();
    for _ in 0..4 {
        dev.run(&["job", "trigger", "a"], "").ok();
        scheduled.push(watch.until("failed")["scheduled_at"].clone());
    }
    let rows = dev.run(&["execution", "redrive", "--all", "--output", "json"], "").ok().json();
    assert_eq!(
        rows.as_array().expect("rows").iter().map(|row| row["scheduled_at"].clone()).collect::<Vec<_>>(),
        scheduled
    );
    let again: Vec<_> = (0..4).map(|_| watch.until("failed")["scheduled_at"].clone()).collect();
    assert_eq!(again, scheduled);
}

#[test]
fn firings_of_the_past_are_executed_in_their_order() {
    let dev = Dev::start();
    dev.run(&["job", "apply", "-f", "-"], "[[job]]\nname = \"a\"\ncron = \"0 4 * * *\"\ncommand = [\"true\"]\n").ok();
    let range = ["--from", "2026-03-01T00:00:00Z", "--until", "2026-03-04T04:00:00Z"];
    let backfill = |more: &[&str]| dev.run(&[&["job", "backfill", "a"], &range[..], more].concat(), "");
    let counted = backfill(&["--dry-run", "--output", "json"]).ok().json();
    assert_eq!(counted, json!({"name": "a", "count": 3, "dry_run": true}));
    let mut watch = dev.watch("a");
    assert!(backfill(&[]).ok().stdout.starts_with("3 firings of a are to be executed"));
    let scheduled: Vec<_> = (0..3).map(|_| watch.until("succeeded")["scheduled_at"].clone()).collect();
    let expected = ["2026-03-01T04:00:00Z", "2026-03-02T04:00:00Z", "2026-03-03T04:00:00Z"];
    assert_eq!(scheduled, expected.map(|time| json!(time)));

    let wrong =
        dev.run(&["job", "backfill", "a", "--from", "2026-03-01T00:00:00Z", "--until", "2026-03-01T00:00:00Z"], "");
    assert_eq!(wrong.status, Some(1));
    assert!(wrong.stderr.contains("`from` is not before `until`"), "{wrong:?}");
    dev.run(&["job", "apply", "-f", "-"], "[[job]]\nname = \"d\"\ndelay = \"1h\"\ncommand = [\"true\"]\n").ok();
    let wrong = dev.run(&["job", "backfill", "d", "--from", "2026-03-01T00:00:00Z"], "");
    assert!(wrong.status == Some(1) && wrong.stderr.contains("`schedule`"), "{wrong:?}");
}

#[test]
fn what_waits_in_a_backlog_is_dropped_when_asked() {
    let dev = Dev::start();
    let jobs = "[[job]]\nname = \"a\"\ncron = \"* * * * *\"\ncommand = [\"true\"]\n[[job]]\nname = \"slow\"\ncron = \"* * * * *\"\npaused = true\n\
                command = [\"sleep\", \"30\"]\n";
    dev.run(&["job", "apply", "-f", "-"], jobs).ok();
    let range = ["--from", "2026-03-01T00:00:00Z", "--until", "2026-03-01T20:00:00Z"];
    let counted = dev.run(&[&["job", "backfill", "a", "--dry-run", "--output", "json"], &range[..]].concat(), "");
    assert_eq!(counted.ok().json()["count"], json!(1_200));
    let mut watch = dev.watch("slow");
    let few = ["job", "backfill", "slow", "--from", "2026-03-01T00:00:00Z", "--until", "2026-03-01T00:10:00Z"];
    dev.run(&few, "").ok();
    let running = watch.until("running");
    dev.run(&["job", "clear-backlog", "slow"], "").ok();
    dev.run(&["execution", "cancel", running["id"].as_str().expect("an id")], "").ok();
    watch.until("cancelled");
    let list = dev.run(&["execution", "list", "--job", "slow", "--output", "json"], "").ok().json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "the other nine were dropped: {list}");
}
