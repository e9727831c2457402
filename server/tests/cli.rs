//! Claims about the binary that need no server: answers, error lines, exit statuses, certificates, configuration files.

mod cli_support;

use cli_support::{Answer, tickwheel};
use std::{fs, net::UdpSocket, os::unix::fs::PermissionsExt as _, path::Path};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The command fails with `status` and one line that holds every one of `words`.
#[track_caller]
fn refused(arguments: &[&str], status: i32, words: &[&str]) {
    let Answer { status: found, stdout, stderr } = tickwheel(arguments, "");
    assert_eq!(found, Some(status), "{arguments:?}: {stderr}");
    assert_eq!(stdout, "", "{arguments:?}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: {word:?} is not in {stderr}");
    }
}

#[test]
fn cron_next_answers_in_json_with_offsets() {
    let line = ["cron", "next", "30 2 * * *", "--tz", "Europe/Berlin", "--from", "2026-03-28T00:00:00Z", "-n", "3"];
    let answer = tickwheel(&[&line[..], &["--output", "json"]].concat(), "");
    assert_eq!(answer.status, Some(0), "{}", answer.stderr);
    let expected = serde_json::json!([
        {"at": "2026-03-28T02:30:00+01:00"},
        {"at": "2026-03-29T03:00:00+02:00"},
        {"at": "2026-03-30T02:30:00+02:00"},
    ]);
    assert_eq!(answer.json(), expected);
}

#[test]
fn cron_next_answers_in_a_table_by_default() {
    let answer = tickwheel(&["cron", "next", "@daily", "--from", "2026-01-01T00:00:00+00:00", "-n", "2"], "");
    assert_eq!(answer.stdout, "AT\n2026-01-02T00:00:00+00:00\n2026-01-03T00:00:00+00:00\n");
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    refused(&["frobnicate"], 2, &["frobnicate", "--help"]);
    refused(&["job", "get"], 2, &["<NAME>"]);
    refused(&["worker"], 2, &["--allow"]);
    refused(&["cron", "next", "61 * * * *"], 2, &["minute", "61"]);
    refused(&["cron", "next", "@daily", "--tz", "Mars/Olympus"], 2, &["Mars/Olympus"]);
    refused(&["cron", "next", "@daily", "--from", "yesterday"], 2, &["yesterday", "2030-01-31T09:00:00Z"]);
    refused(&["execution", "get", "12"], 2, &["\"12\"", "execution list"]);
}

#[test]
fn a_command_without_certificates_or_server_says_what_to_do() {
    let folder = folder();
    let certs = folder.path().join("certs").display().to_string();
    refused(&["job", "list", "--certs", &certs], 1, &["ca.pem", "--certs"]);
    assert_eq!(tickwheel(&["certs", "ca", "--out", &certs], "").status, Some(0));
    assert_eq!(tickwheel(&["certs", "admin", "--out", &certs], "").status, Some(0));
    // Held open and silent, so that nobody else answers there.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = silent.local_addr().expect("bound").to_string();
    refused(&["job", "list", "--certs", &certs, "--server", &address], 1, &[&address, "tickwheel dev", "--server"]);
}

#[test]
fn a_wrong_jobs_file_is_refused_before_any_server_is_asked() {
    let folder = folder();
    let file = folder.path().join("jobs.toml");
    fs::write(&file, "[[job]]\nname = \"a\"\nhandler = \"h\"\ncron = \"* * * *\"\n").expect("written");
    let name = file.display().to_string();
    refused(&["job", "apply", "-f", &name], 1, &[&name, "job \"a\"", "`cron`", "5 fields"]);
    refused(&["job", "apply", "-f", "/nonexistent/jobs.toml"], 1, &["/nonexistent/jobs.toml"]);
    fs::write(&file, "").expect("written");
    refused(&["job", "apply", "-f", &name], 1, &["[[job]]"]);
}

#[test]
fn certificates_are_issued_and_never_overwritten() {
    let folder = folder();
    let out = folder.path().display().to_string();
    refused(&["certs", "server", "--out", &out], 1, &["no authority", "tickwheel certs ca --out"]);
    for line in [
        "certs ca",
        "certs server --host scheduler.example --host 10.0.0.1",
        "certs client --name web --tenant acme",
        "certs admin --name root",
        "certs worker --name w1 --pool high --pool spot",
    ] {
        let arguments: Vec<_> = line.split(' ').chain(["--out", &out]).collect();
        let answer = tickwheel(&arguments, "");
        assert_eq!(answer.status, Some(0), "{line}: {}", answer.stderr);
        for file in answer.stdout.lines() {
            let mode = fs::metadata(file).expect("it is there").permissions().mode() & 0o777;
            assert_eq!(mode & 0o077 == 0, file.ends_with(".key"), "{file} has mode {mode:o}");
        }
        refused(&arguments, 1, &["exists"]);
    }
    refused(&["certs", "client", "--name", "ca", "--out", &out], 2, &["\"ca\""]);
    refused(&["certs", "client", "--name", "../web", "--out", &out], 2, &["../web"]);
    refused(&["certs", "client", "--name", "x", "--tenant", "a b", "--out", &out], 2, &["a b"]);
    refused(&["certs", "server", "--name", "s2", "--host", "ü", "--out", &out], 1, &["certificate"]);
}

#[test]
fn a_wrong_configuration_has_its_own_status() {
    let folder = folder();
    let data = folder.path().join("data").display().to_string();
    let file = folder.path().join("tickwheel.toml");
    let name = file.display().to_string();
    for (text, words) in [
        ("[node]\nshardz = 3\n", [":2: ", "`shardz`", "drain_ms"]),
        ("[node]\nshards = \"two\"\n", [":2: ", "u16", "`shards = \"two\"`"]),
        ("[worker]\nreattach_ms = 5\n", ["worker.reattach_ms", "is 5", "100 to 600000"]),
    ] {
        fs::write(&file, text).expect("written");
        for command in ["dev", "server"] {
            refused(&[command, "--config", &name, "--data", &data], 10, &words);
        }
    }
    refused(&["server", "--config", "/nonexistent/tickwheel.toml"], 10, &["/nonexistent/tickwheel.toml"]);
}

#[test]
fn a_server_without_certificates_names_the_command_that_makes_them() {
    let folder = folder();
    let data = folder.path().join("data").display().to_string();
    refused(&["server", "--listen", "127.0.0.1:0", "--data", &data], 18, &["ca.pem", "tickwheel certs"]);
}

#[test]
fn a_data_directory_that_cannot_be_made_has_its_own_status() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let data = file.join("data").display().to_string();
    refused(&["dev", "--listen", "127.0.0.1:0", "--data", &data], 11, &["--data", &data]);
}

/// Imports `path` without a server, in JSON.
fn dry_import(path: &Path, more: &[&str]) -> Answer {
    let path = path.display().to_string();
    tickwheel(&[&["job", "import", &path, "--dry-run", "--output", "json"], more].concat(), "")
}

#[test]
fn an_import_knows_the_form_of_its_file_and_shows_what_it_would_make() {
    let folder = folder();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let manifest = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec:\n  schedule: \"0 3 * * *\"\n  timeZone: Asia/Tokyo\n  \
                    jobTemplate: {spec: {template: {spec: {containers: [{name: a, command: [date]}]}}}}\n---\nkind: Secret\n";
    file("a.service", "[Service]\nExecStart=/bin/date\n");
    let timer = file("a.timer", "[Timer]\nOnCalendar=*-*-* 03:00 Asia/Tokyo\n");
    for (path, name, more) in [
        (file("a.yaml", manifest), "kubernetes/default/a", &[][..]),
        (file("manifest", manifest), "kubernetes/default/a", &[]),
        (timer, "systemd/a", &[]),
        (folder.path().to_owned(), "systemd/a", &[]),
        (file("crontab", "CRON_TZ=Asia/Tokyo\n0 3 * * * date\n"), "crontab/crontab/date-", &[]),
        (file("b.yaml", "CRON_TZ=Asia/Tokyo\n0 3 * * * date\n"), "crontab/b.yaml/date-", &["--from", "crontab"]),
    ] {
        let rows = dry_import(&path, more).ok().json();
        let job = &rows["jobs"][0];
        assert!(job["name"].as_str().expect("a name").starts_with(name), "{rows}");
        assert_eq!((&job["applied"], rows["refused"].as_array().map(Vec::len)), (&serde_json::json!(null), Some(0)));
        let fires = job["next_fires"].as_array().expect("fires");
        assert!(
            fires.len() == 3
                && fires.iter().all(|fire| fire["at"].as_str().expect("a time").ends_with("T03:00:00+09:00"))
        );
    }
    let skipped = dry_import(&folder.path().join("a.yaml"), &[]).json();
    assert_eq!(skipped["skipped"][0]["line"], 9);
}

#[test]
fn an_import_refuses_parts_by_file_and_line_and_misused_arguments_as_a_whole() {
    let folder = folder();
    let path = folder.path().join("jobs.yaml");
    fs::write(&path, "kind: CronJob\napiVersion: batch/v1\nmetadata: {name: a}\nspec: {schedule: never}\n")
        .expect("written");
    let answer = dry_import(&path, &[]);
    let row = &answer.json()["refused"][0];
    assert_eq!(
        (answer.status, &row["line"], &row["text"]),
        (Some(1), &serde_json::json!(4), &serde_json::json!("CronJob a"))
    );
    assert!(answer.stderr.starts_with(&format!("error: {}:4: ", path.display())), "{}", answer.stderr);
    let file = path.display().to_string();
    refused(&["job", "import", &file, "--system", "--dry-run"], 2, &["--system"]);
    refused(&["job", "import", "-", "--from", "systemd", "--dry-run"], 2, &[".timer"]);
    refused(&["job", "import", &folder.path().display().to_string(), "--dry-run"], 1, &["*.timer"]);
    let piped = tickwheel(&["job", "import", "-", "--dry-run"], "0 3 * * * date\n").ok();
    assert!(piped.stdout.contains("0 3 * * *"), "{}", piped.stdout);
}
