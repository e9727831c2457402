//! Claims about `job apply` and `job export`, with real processes.

mod cli_support;

use cli_support::{Answer, Dev, pairs, yearly};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

/// Jobs of every kind of schedule, work and rule, as `job export` writes them.
const EVERY_KIND: &str = r#"[[job]]
name = "bytes"
every = "1h 30m"
anchor = 2030-01-31T09:00:00.25Z
handler = "h"
payload_base64 = "AP8="
timeout = "none"
heartbeat = "30s"

[[job]]
name = "command"
cron = "H H 1 1 *"
command = ["/bin/sh", "-c", 'echo "$A"']
env = { A = "1" }
clean_env = true
stdin = """

one
two
"""
dir = "/tmp"
user = "nobody"
output_bytes_max = 100
pool = "high"
priority = "P0"

[[job]]
name = "cron"
cron = "30 2 * * MON-FRI"
zone = "Europe/Berlin"
handler = "h"
payload = '{"not": "a command"}'
retry = { attempts_max = 7, initial = "2s", jitter_percent = 0, max = "1m" }
misfire = "fire-all"
misfire_max = 7
misfire_grace = "10m"
overlap = "buffer-all"
overlap_max = 3
starts_at = 2030-12-01T00:00:00Z
ends_at = 2031-12-01T00:00:00Z
executions_max = 100
jitter = "30s"
dst_gap = "skip"
dst_overlap = "both"
paused = true

[[job]]
name = "delay"
delay = "1h"
handler = "h"
retry = { multiplier = 1.5, non_retryable = ["Refused", "Gone"] }
schedule_to_start = "1s 500ms"
pause_after_failures = 5

[[job]]
name = "excluding"
schedules = [{ cron = "H 9 * * *", zone = "Asia/Tokyo" }, { anchor = 2030-01-31T09:00:00Z, every = "7h" }]
exclude = ["SAT,SUN", "zone Europe/Berlin", "12-25", "2099-12-24T14:00..2099-12-27T06:00", "cron * 12 * * *"]
handler = "h"
dst_gap = "skip"

[[job]]
name = "once"
at = 2099-01-31T09:00:00.000001Z
handler = "h"

[[job]]
name = "a"
tenant = "acme"
cron = "@yearly"
handler = "exec"
payload = '{ "argv": ["date"] }'
misfire = "skip"
overlap = "terminate-running"
"#;

/// The configuration of a server with a tenant besides `default`.
const ACME: &str = "[[tenant]]\nname = \"acme\"\n";

fn handled(name: &str, keys: &str) -> String {
    format!("[[job]]\nname = \"{name}\"\nhandler = \"h\"\n{keys}\n")
}

fn apply(dev: &Dev, text: &str, more: &[&str]) -> Answer {
    dev.run(&[&["job", "apply", "-f", "-", "--output", "json"], more].concat(), text)
}

fn export(dev: &Dev) -> String {
    dev.run(&["job", "export"], "").ok().stdout
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

/// The server's jobs without what is theirs alone: identity and past.
fn definitions(dev: &Dev) -> Vec<Value> {
    let mut jobs = jobs(dev);
    for job in &mut jobs {
        let own = ["id", "created_at", "created_at_us", "revision", "next_fire_at", "next_fire_at_us"];
        job.as_object_mut().expect("an object").retain(|key, _| !own.contains(&&**key));
    }
    jobs
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

#[test]
fn what_is_exported_can_be_applied_here_without_a_change_and_elsewhere_as_the_same_jobs() {
    let (here, there) = (Dev::start_with(ACME), Dev::start_with(ACME));
    apply(&here, EVERY_KIND, &[]).ok();
    let exported = export(&here);
    let parts = |text: &str| {
        let mut parts: Vec<_> =
            text.trim_end().split("\n\n[[job]]\n").map(|job| job.replace("[[job]]\n", "")).collect();
        parts.sort();
        parts
    };
    assert_eq!(parts(&exported), parts(EVERY_KIND), "{exported}");

    let before = jobs(&here);
    let again = apply(&here, &exported, &["--prune"]).ok();
    assert!(again.actions().iter().all(|(_, action)| action == "unchanged"), "{again:?}");
    assert_eq!(again.actions().len(), 7);
    assert_eq!(jobs(&here), before, "revisions and all else");

    let made = apply(&there, &exported, &[]).ok();
    assert!(made.actions().iter().all(|(_, action)| action == "created"), "{made:?}");
    assert_eq!(definitions(&there), definitions(&here));
    assert_eq!(export(&there), exported);
}

#[test]
fn what_was_resolved_at_submission_is_exported_as_it_stands() {
    let dev = Dev::start_server();
    let several = handled("several", "cron = \"@yearly\"\nschedules = [{ every = \"2h\" }, { every = \"3h\" }]");
    let file = handled("interval", "every = \"1h\"") + &handled("once", "after = \"1000h\"") + &several;
    apply(&dev, &file, &[]).ok();
    let exported = export(&dev);
    assert!(exported.contains("\nevery = \"1h\"\nanchor = 2") && exported.contains("\nat = 2"), "{exported}");
    for text in [&exported, &handled("interval", "every = \"1h\""), &several] {
        let again = apply(&dev, text, &[]).ok();
        assert!(again.actions().iter().all(|(_, action)| action == "unchanged"), "{again:?}");
    }
    let once = apply(&dev, &handled("once", "after = \"1000h\""), &[]).ok();
    assert_eq!(once.actions(), pairs(&[("once", "changed")]), "it counts from each apply");
}

#[test]
fn a_changed_calendar_changes_the_jobs_that_name_it() {
    let dev = Dev::start_server();
    let write = |name: &str, text: &str| fs::write(dev.folder().join(name), text).expect("written");
    let event = |date: &str| {
        format!("BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Closed\nDTSTART;VALUE=DATE:{date}\nEND:VEVENT\nEND:VCALENDAR\n")
    };
    let jobs_file = "[[calendar]]\nname = \"holidays\"\ndates = [\"12-25\"]\nics = \"closed.ics\"\n".to_owned()
        + &handled("with", "cron = \"0 9 * * *\"\nexclude = [\"holidays\", \"weekends\"]")
        + &handled("without", "cron = \"0 9 * * *\"");
    write("jobs.toml", &jobs_file);
    write("closed.ics", &event("20990501"));
    let path = dev.folder().join("jobs.toml").display().to_string();
    let apply = |more: &[&str]| dev.run(&[&["job", "apply", "-f", &path, "--output", "json"], more].concat(), "");
    apply(&[]).ok();
    let shown = dev.run(&["job", "get", "with", "--output", "json"], "").ok().json();
    assert_eq!(shown["exclusions"], json!(["12-25", "2099-05-01", "weekends"]));
    let table = dev.run(&["job", "get", "with"], "").ok().stdout;
    assert!(table.contains("12-25; 2099-05-01; weekends"), "{table}");
    assert_eq!(apply(&[]).ok().actions(), pairs(&[("with", "unchanged"), ("without", "unchanged")]));

    write("closed.ics", &event("20990601"));
    let plan = apply(&["--dry-run"]).ok();
    assert_eq!(plan.actions(), pairs(&[("with", "changed"), ("without", "unchanged")]));
    let change = json!([{
        "key": "exclude", "from": ["12-25", "2099-05-01", "weekends"], "to": ["12-25", "2099-06-01", "weekends"],
    }]);
    assert_eq!(plan.json()[0]["changes"], change);
    write("closed.ics", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Feast\nEND:VEVENT\nEND:VCALENDAR\n");
    let wrong = apply(&[]);
    assert_eq!(wrong.status, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("closed.ics:2: event \"Feast\": `DTSTART` is missing"), "{wrong:?}");
}

#[test]
fn exclusions_that_leave_nothing_are_refused_by_the_server() {
    let dev = Dev::start_server();
    let answer = apply(&dev, &handled("never", "cron = \"0 9 * * SAT\"\nexclude = [\"weekends\"]"), &[]);
    assert!(answer.status == Some(1) && answer.stderr.contains("never-fires"), "{answer:?}");
    assert_eq!(jobs(&dev), [] as [Value; 0]);
}

#[test]
fn an_export_is_narrowed_by_tenant_and_prefix_and_comes_in_json_too() {
    let dev = Dev::start_with(ACME);
    let all = ["b", "a1", "a2"].map(|name| handled(name, "every = \"1h\"")).concat()
        + &handled("a", "every = \"1h\"\nanchor = 2030-01-01T00:00:00Z\ntenant = \"acme\"\npaused = true");
    apply(&dev, &all, &[]).ok();
    let names = |more: &[&str]| -> Vec<String> {
        let text = dev.run(&[&["job", "export"], more].concat(), "").ok().stdout;
        text.lines().filter_map(|line| line.strip_prefix("name = ")).map(str::to_owned).collect()
    };
    assert_eq!(names(&[]), ["\"a\"", "\"a1\"", "\"a2\"", "\"b\""]);
    assert_eq!(names(&["--prefix", "a", "--tenant", "default"]), ["\"a1\"", "\"a2\""]);
    let acme = dev.run(&["job", "export", "--tenant", "acme", "--output", "json"], "").ok().json();
    let expected = json!([{
        "name": "a", "tenant": "acme", "handler": "h", "every": "1h", "anchor": "2030-01-01T00:00:00Z", "paused": true,
    }]);
    assert_eq!(acme, expected);
}

#[test]
fn a_one_shot_that_has_fired_is_exported_with_a_warning() {
    let dev = Dev::start();
    let mut watch = dev.watch("once");
    apply(&dev, "[[job]]\nname = \"once\"\nafter = \"0s\"\ncommand = [\"true\"]\n", &[]).ok();
    watch.until("succeeded");
    let exported = export(&dev);
    assert!(exported.starts_with("# It has fired."), "{exported}");
    assert_eq!(apply(&dev, &exported, &[]).ok().actions(), pairs(&[("once", "unchanged")]));
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
