//! Claims about `job apply`, with real processes.

mod cli_support;

use cli_support::{Answer, Dev, pairs, yearly};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

/// The configuration of a server with a tenant besides `default`.
const ACME: &str = "[[tenant]]\nname = \"acme\"\n";

fn handled(name: &str, keys: &str) -> String {
    format!("[[job]]\nname = \"{name}\"\nhandler = \"h\"\n{keys}\n")
}

fn apply(dev: &Dev, text: &str, more: &[&str]) -> Answer {
    dev.run(&[&["job", "apply", "-f", "-", "--output", "json"], more].concat(), text)
}

/// The server's jobs.
fn jobs(dev: &Dev) -> Vec<Value> {
    match dev.run(&["job", "list", "--output", "json"], "").ok().json() {
        Value::Array(rows) => rows,
        other => panic!("{other}"),
    }
}

/// Tenant, name and revision of each of the server's jobs.
fn revisions(dev: &Dev) -> Vec<(String, String, u64)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let row = |job: &Value| (text(&job["tenant"]), text(&job["name"]), job["revision"].as_u64().expect("a number"));
    jobs(dev).iter().map(row).collect()
}

#[test]
fn a_plan_is_shown_and_a_dry_run_changes_nothing() {
    let dev = Dev::start();
    let old = yearly("changed", "[\"date\"]") + &yearly("same", "[\"date\"]") + &yearly("superfluous", "[\"date\"]");
    apply(&dev, &old, &[]).ok();
    let before = jobs(&dev);
    let new = yearly("changed", "[\"uptime\"]\ntimeout = \"5m\"")
        + &yearly("same", "[\"date\"]")
        + &yearly("new", "[\"date\"]");

    let plan = dev.run(&["job", "apply", "-f", "-", "--prune", "--dry-run"], &new).ok().stdout;
    let expected = "\
PLAN       TENANT   NAME         KEY      FROM      TO
change     default  changed      command  [\"date\"]  [\"uptime\"]
                                 timeout  (absent)  \"5m\"
unchanged  default  same
create     default  new
delete     default  superfluous

1 to create, 1 to change, 1 to delete, 1 unchanged
";
    assert_eq!(plan, expected);
    let rows = apply(&dev, &new, &["--prune", "--dry-run"]).ok().json();
    let changes = json!([
        {"key": "command", "from": ["date"], "to": ["uptime"]},
        {"key": "timeout", "from": null, "to": "5m"},
    ]);
    assert_eq!((&rows[0]["plan"], &rows[0]["changes"]), (&json!("change"), &changes));
    assert_eq!((&rows[0]["dry_run"], &rows[0]["revision"]), (&json!(true), &json!(1)));
    assert_eq!(jobs(&dev), before);

    let done = dev.run(&["job", "apply", "-f", "-", "--prune"], &new).ok().stdout;
    let (shown, outcome) = done.split_at(expected.len());
    assert_eq!(shown, expected);
    for (name, result) in
        [("changed", "changed"), ("same", "unchanged"), ("new", "created"), ("superfluous", "deleted")]
    {
        let line = outcome.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        assert_eq!(line.and_then(|line| line.split_whitespace().nth(2)), Some(result), "{outcome}");
    }
}

#[test]
fn jobs_are_deleted_only_with_prune_and_only_of_the_tenants_in_the_file() {
    let dev = Dev::start_with(ACME);
    let all = ["a", "b", "c"].map(|name| handled(name, "every = \"1h\"")).concat()
        + &handled("other", "every = \"1h\"\ntenant = \"acme\"");
    apply(&dev, &all, &[]).ok();
    let one = handled("b", "every = \"1h\"");
    let revision = |tenant: &str, name: &str| (tenant.to_owned(), name.to_owned(), 1);

    assert_eq!(apply(&dev, &one, &[]).ok().actions(), pairs(&[("b", "unchanged")]));
    assert_eq!(revisions(&dev).len(), 4);
    for empty in ["", "# no jobs\n"] {
        let refused = apply(&dev, empty, &["--prune"]);
        assert!(refused.status == Some(1) && refused.stderr.contains("no jobs"), "{refused:?}");
    }
    assert_eq!(revisions(&dev).len(), 4);

    let pruned = apply(&dev, &one, &["--prune"]).ok();
    assert_eq!(pruned.actions(), pairs(&[("b", "unchanged"), ("a", "deleted"), ("c", "deleted")]));
    assert_eq!(revisions(&dev), [revision("acme", "other"), revision("default", "b")]);
    let acme = handled("new", "every = \"1h\"");
    let pruned = apply(&dev, &acme, &["--prune", "--tenant", "acme"]).ok();
    assert_eq!(pruned.actions(), pairs(&[("new", "created"), ("other", "deleted")]));
    assert_eq!(revisions(&dev), [revision("acme", "new"), revision("default", "b")]);
}

#[test]
fn nothing_is_deleted_after_a_refusal() {
    let dev = Dev::start();
    apply(&dev, &handled("old", "every = \"1h\""), &[]).ok();
    let past = handled("new", "every = \"1h\"\nends_at = 2001-01-01T00:00:00Z");
    let answer = apply(&dev, &past, &["--prune"]);
    assert_eq!(answer.status, Some(1));
    assert_eq!(answer.actions(), pairs(&[("new", "refused"), ("old", "refused")]));
    assert!(answer.stderr.contains("never-fires") && answer.stderr.contains("it is kept"), "{answer:?}");
    assert_eq!(revisions(&dev).len(), 1);

    // Of a tenant whose jobs cannot be listed none can be told to be superfluous: then nothing is done at all.
    let unknown = handled("a", "every = \"1h\"") + &handled("b", "every = \"1h\"\ntenant = \"nobody\"");
    let answer = apply(&dev, &unknown, &["--prune"]);
    assert!(answer.status == Some(1) && answer.stderr.contains("unknown-tenant"), "{answer:?}");
    assert_eq!(revisions(&dev), [("default".to_owned(), "old".to_owned(), 1)]);
}

/// Applies `text`, and does `meanwhile` between the plan and what it says.
fn interrupted(dev: &Dev, text: &str, more: &[&str], meanwhile: impl FnOnce()) -> Answer {
    // A plan that is longer than what a pipe holds (64 KiB) cannot be shown to its end before somebody reads it.
    let long = "x".repeat(240);
    let fillers = (0..400).map(|number| handled(&format!("{long}{number}"), "every = \"1h\""));
    let file = dev.folder().join("jobs.toml");
    fs::write(&file, text.to_owned() + &fillers.collect::<String>()).expect("written");
    let mut child = cli_support::command()
        .args(["job", "apply", "-f"])
        .arg(file)
        .args(more)
        .args(dev.place())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let (mut stdout, mut stderr) = (String::new(), String::new());
    out.read_line(&mut stdout).expect("UTF-8");
    assert!(stdout.starts_with("PLAN"), "{stdout}");
    meanwhile();
    out.read_to_string(&mut stdout).expect("UTF-8");
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
    Answer { status: child.wait().expect("it ends").code(), stdout, stderr }
}

#[test]
fn what_changes_after_the_plan_is_a_conflict_and_stays() {
    let dev = Dev::start_server();
    let old = ["edited", "gone", "untouched"].map(|name| handled(name, "every = \"1h\"")).concat();
    apply(&dev, &old, &[]).ok();
    let new = ["edited", "gone", "new", "untouched"].map(|name| handled(name, "every = \"2h\"")).concat();
    let answer = interrupted(&dev, &new, &[], || {
        let other = handled("edited", "every = \"3h\"") + &handled("new", "every = \"3h\"");
        apply(&dev, &other, &[]).ok();
        dev.run(&["job", "delete", "gone"], "").ok();
    });
    assert_eq!(answer.status, Some(1), "{}", answer.stderr);
    let lines: Vec<_> = answer.stderr.lines().collect();
    let conflict = |name: &str, planned: &str, found: &str| {
        format!(
            "error: job \"{name}\" of tenant \"default\": it was changed meanwhile: the plan is for {planned}, and now \
             {found}; apply again"
        )
    };
    let expected = [
        conflict("edited", "revision 1", "it has revision 2"),
        conflict("gone", "revision 1", "there is no job"),
        conflict("new", "no job", "it has revision 1"),
    ];
    assert_eq!(lines, expected);
    for name in ["edited", "gone", "new"] {
        assert!(answer.stdout.lines().any(|line| line.contains(name) && line.contains(" conflict ")), "{name}");
    }
    let every =
        |name: &str| dev.run(&["job", "get", name, "--output", "json"], "").json()["schedule"]["every_us"].clone();
    assert_eq!((every("edited"), every("new")), (json!(10_800_000_000_u64), json!(10_800_000_000_u64)));
    assert_eq!(every("untouched"), json!(7_200_000_000_u64), "the others are changed all the same");
    assert_eq!(dev.run(&["job", "get", "gone"], "").status, Some(1));
}

#[test]
fn a_job_that_changes_after_the_plan_is_not_deleted() {
    let dev = Dev::start_server();
    let old = ["edited", "superfluous"].map(|name| handled(name, "every = \"1h\"")).concat();
    apply(&dev, &old, &[]).ok();
    let answer = interrupted(&dev, &handled("new", "every = \"1h\""), &["--prune"], || {
        apply(&dev, &handled("edited", "every = \"2h\""), &[]).ok();
    });
    assert_eq!(answer.status, Some(1), "{}", answer.stderr);
    let line = "error: job \"edited\" of tenant \"default\": it was changed meanwhile: the plan is for revision 1, and now it \
                has revision 2; apply again\n";
    assert_eq!(answer.stderr, line);
    assert_eq!(dev.run(&["job", "get", "edited"], "").status, Some(0));
    assert_eq!(dev.run(&["job", "get", "superfluous"], "").status, Some(1));
}
