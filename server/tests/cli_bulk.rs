//! Claims about labels, filters, and commands that change many, with real processes.

mod cli_support;

use cli_support::{Answer, Dev, tickwheel};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Jobs `job-00` to `job-19`: every fourth is of the team `ops`, every fifth in `prod`.
fn jobs() -> String {
    let job = |index: u32| {
        let team = if index.is_multiple_of(4) { "ops" } else { "dev" };
        let env = if index.is_multiple_of(5) { "prod" } else { "test" };
        format!(
            "[[job]]\nname = \"job-{index:02}\"\ncron = \"@yearly\"\nhandler = \"h\"\n\
             labels = {{ team = \"{team}\", env = \"{env}\" }}\n"
        )
    };
    (0..20).map(job).collect()
}

/// A server without a worker, over eight partitions, with the jobs.
fn server() -> Dev {
    let server = Dev::start_server();
    server.run(&["job", "apply", "-f", "-"], &jobs()).ok();
    server
}

fn json_of(server: &Dev, line: &str) -> Value {
    let arguments: Vec<_> = line.split_whitespace().chain(["--output", "json"]).collect();
    server.run(&arguments, "").ok().json()
}

/// The values of `key` of each row.
fn all(rows: &Value, key: &str) -> BTreeSet<String> {
    let text = |row: &Value| row[key].as_str().unwrap_or_else(|| panic!("{key}: {row}")).to_owned();
    rows.as_array().expect("an array").iter().map(text).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn listed(server: &Dev, filter: &str) -> BTreeSet<String> {
    all(&json_of(server, &format!("job list {filter}")), "name")
}

#[track_caller]
fn refused(answer: &Answer, status: i32, words: &[&str]) {
    assert_eq!((answer.status, answer.stdout.as_str()), (Some(status), ""), "{answer:?}");
    assert!(answer.stderr.starts_with("error: ") && answer.stderr.lines().count() == 1, "{answer:?}");
    for word in words {
        assert!(answer.stderr.contains(word), "{word:?} is not in {answer:?}");
    }
}

#[test]
fn what_picks_nothing_or_everything_by_mistake_is_wrong_usage() {
    for (line, words) in [
        (&["job", "pause"][..], &["<NAME>"][..]),
        (&["job", "pause", "a", "--all"], &["--all"]),
        (&["job", "pause", "a", "--prefix", "b"], &["--prefix"]),
        (&["job", "pause", "a", "--dry-run"], &["--dry-run"]),
        (&["job", "pause", "--dry-run"], &["<NAME>"]),
        (&["job", "delete", "a", "--yes"], &["--yes"]),
        (&["job", "delete", "--yes"], &["<NAME>"]),
        (&["job", "pause", "--all", "--state", "active"], &["--all"]),
        (&["job", "resume", "--prefix", ""], &["--all picks all"]),
        (&["job", "trigger", "--label", ""], &["--label", "empty"]),
        (&["job", "trigger", "--label", "a b"], &["--label", "\"a b\" holds ' '"]),
        (&["job", "list", "--label", "a=1,,b"], &["key 2 has 0 bytes; allowed are 1 to 63"]),
        (&["job", "list", "--state", "asleep"], &["paused, active, running, failing, finished"]),
        (&["job", "delete", "--all"], &["--yes", "--dry-run"]),
        (&["job", "delete", "--state", "finished"], &["--yes", "--dry-run"]),
        (&["execution", "cancel"], &["<ID>"]),
        (&["execution", "cancel", "1.2.3/4", "--job", "a"], &["--job"]),
        (&["execution", "cancel", "--job", ""], &["--all picks all"]),
    ] {
        refused(&tickwheel(line, ""), 2, words);
    }
}

#[test]
fn lists_and_exports_are_filtered_by_labels_and_states() {
    let server = server();
    let ops = ["job-00", "job-04", "job-08", "job-12", "job-16"];
    assert_eq!(listed(&server, "--label team=ops"), set(ops));
    assert_eq!(listed(&server, "--label team=ops,env=prod"), set(["job-00"]));
    assert_eq!(listed(&server, "--label team=ops --label env!=prod --prefix job-1"), set(["job-12", "job-16"]));
    assert_eq!(listed(&server, "--label !team"), set([]));
    server.run(&["job", "pause", "job-04"], "").ok();
    assert_eq!(listed(&server, "--state paused"), set(["job-04"]));
    assert_eq!(listed(&server, "--state paused --state failing --label team=dev"), set([]));
    let job = json_of(&server, "job get job-04");
    assert_eq!(job["labels"], json!({"env": "test", "team": "ops"}));
    let exported = server.run(&["job", "export", "--label", "team=ops,env=prod"], "").ok().stdout;
    let expected = "[[job]]\nname = \"job-00\"\ncron = \"@yearly\"\nhandler = \"h\"\n\
                    labels = { env = \"prod\", team = \"ops\" }\n";
    assert_eq!(exported, expected);
    let again = server.run(&["job", "apply", "-f", "-", "--output", "json"], &exported).ok();
    assert_eq!(all(&again.json(), "action"), set(["unchanged"]));
    let many = vec!["team=ops"; 17].join(",");
    let long = server.run(&["job", "list", "--label", &many, "--label", &many], "");
    refused(&long, 2, &["there are 34; allowed are 32"]);
}

#[test]
fn many_are_paused_and_resumed_as_the_dry_run_said() {
    let server = server();
    let dry = server.run(&["job", "pause", "--label", "team=ops", "--dry-run"], "").ok().stdout;
    let mut lines: Vec<_> = dry.lines().collect();
    assert_eq!(lines.pop(), Some("would pause 5 jobs"));
    lines.sort_unstable();
    assert_eq!(lines, ["job-00", "job-04", "job-08", "job-12", "job-16"].map(|name| format!("would pause {name}")));
    assert_eq!(listed(&server, "--state paused"), set([]), "a dry run changes nothing");

    let rows = json_of(&server, "job pause --label team=ops");
    assert_eq!((all(&rows, "action"), all(&rows, "name").len()), (set(["paused"]), 5));
    assert_eq!(
        (&rows[0]["revision"], &rows[0]["dry_run"], &rows[0]["reason"]),
        (&json!(1), &json!(false), &json!(null))
    );
    assert_eq!(listed(&server, "--state paused"), listed(&server, "--label team=ops"));

    let again = server.run(&["job", "pause", "--prefix", "job-0"], "").ok();
    assert_eq!(again.stdout, "paused 7 jobs, 3 as they should be\n");
    let all_again = server.run(&["job", "resume", "--all", "--progress"], "").ok();
    assert_eq!(all_again.stdout, "resumed 12 jobs, 8 as they should be\n");
    assert!(all_again.stderr.starts_with("resumed "), "{}", all_again.stderr);
    assert_eq!(json_of(&server, "job pause job-03")[0]["action"], "paused", "one has the same row");
    assert_eq!(json_of(&server, "job trigger --label nobody"), json!([]));
}

#[test]
fn a_refusal_does_not_keep_the_others_from_being_changed() {
    let server = server();
    server.run(&["job", "trigger", "job-07"], "").ok();
    let answer = server.run(&["job", "trigger", "--all", "--output", "json"], "");
    assert_eq!(answer.status, Some(1), "{answer:?}");
    let rows = answer.json();
    let rows = rows.as_array().expect("an array");
    assert_eq!(rows.len(), 20);
    for row in rows {
        let expected = if row["name"] == "job-07" { "failed" } else { "triggered" };
        assert_eq!(row["action"], expected, "{row}");
    }
    assert_eq!(answer.stderr, "triggered 19 jobs, 1 failed\n");
    let told = server.run(&["job", "trigger", "--prefix", "job-07"], "");
    assert_eq!((told.status, told.stdout.as_str()), (Some(1), "triggered 0 jobs, 1 failed\n"));
    assert!(told.stderr.starts_with("error: job-07: overlap-skipped: "), "{}", told.stderr);
}

#[test]
fn many_are_deleted_and_no_others() {
    let server = server();
    let dry = json_of(&server, "job delete --label env=prod --dry-run");
    assert_eq!((all(&dry, "action"), &dry[0]["dry_run"]), (set(["deleted"]), &json!(true)));
    assert_eq!(listed(&server, "").len(), 20);
    let answer = server.run(&["job", "delete", "--label", "env=prod", "--yes"], "").ok();
    assert_eq!(answer.stdout, "deleted 4 jobs\n");
    assert_eq!(listed(&server, "--label env=prod"), set([]));
    assert_eq!(listed(&server, "").len(), 16);
}

#[test]
fn a_bulk_command_stays_within_the_tenant_that_it_speaks_for() {
    let server = server();
    let elsewhere = server.run(&["job", "pause", "--all", "--tenant", "nobody"], "");
    assert_eq!(elsewhere.status, Some(1), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("unknown-tenant"), "{elsewhere:?}");
    assert_eq!(listed(&server, "--state paused"), set([]));
}

#[test]
fn executions_are_cancelled_by_the_labels_of_their_jobs() {
    let dev = Dev::start();
    let job = |name: &str, team: &str| {
        format!(
            "[[job]]\nname = \"{name}\"\ncron = \"@yearly\"\ncommand = [\"sleep\", \"600\"]\nlabels = {{ team = \"{team}\" }}\n"
        )
    };
    let file = job("a-1", "ops") + &job("a-2", "dev") + &job("b-1", "ops");
    dev.run(&["job", "apply", "-f", "-"], &file).ok();
    let mut watches = ["a-1", "a-2", "b-1"].map(|name| dev.watch(name));
    dev.run(&["job", "trigger", "--all"], "").ok();
    for watch in &mut watches {
        watch.until("running");
    }
    let in_flight = |filter: &str| all(&json_of(&dev, &format!("execution list --in-flight {filter}")), "job");
    assert_eq!(in_flight("--label team=ops"), set(["a-1", "b-1"]));
    assert_eq!(in_flight("--prefix a-"), set(["a-1", "a-2"]));
    assert_eq!(listed(&dev, "--state running"), set(["a-1", "a-2", "b-1"]));

    let dry = dev.run(&["execution", "cancel", "--label", "team=ops", "--prefix", "a", "--dry-run"], "").ok();
    assert!(dry.stdout.ends_with(" of a-1\nwould cancel 1 execution\n"), "{}", dry.stdout);
    let rows = json_of(&dev, "execution cancel --label team=ops");
    assert_eq!((all(&rows, "name"), all(&rows, "action")), (set(["a-1", "b-1"]), set(["cancelled"])));
    assert!(rows[0]["execution_id"].as_str().expect("an id").ends_with("/1"), "{rows}");
    let [a_1, a_2, b_1] = &mut watches;
    a_1.until("cancelled");
    b_1.until("cancelled");
    assert_eq!(in_flight("--prefix a-2"), set(["a-2"]), "another team's runs on");
    dev.run(&["execution", "cancel", "--job", "a-2"], "").ok();
    a_2.until("cancelled");
    let none = dev.run(&["execution", "cancel", "--all"], "").ok();
    assert_eq!(none.stdout, "cancelled 0 executions\n");
}
