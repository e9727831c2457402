//! Claims about `dev` and the commands that talk to it, with real processes.

mod cli_support;

use cli_support::{Dev, pairs, tickwheel, yearly};
use serde_json::json;
use std::{fs, net::UdpSocket, process::Stdio};

#[test]
fn the_banner_names_the_places_and_commands_that_work() {
    let dev = Dev::start();
    for place in [dev.data(), dev.data().join("certs")] {
        assert!(dev.banner.contains(&place.display().to_string()), "{}", dev.banner);
    }
    let tried: Vec<_> = dev.banner.lines().filter(|line| line.contains(&format!("--server {}", dev.server))).collect();
    assert_eq!(tried.len(), 3, "{}", dev.banner);
    for line in tried {
        let status = cli_support::shell(line);
        assert!(status.success(), "{line}: {status}");
    }
    dev.terminate();
    assert_eq!(dev.wait().code(), Some(0));
}

#[test]
fn applying_a_file_again_changes_only_what_was_edited() {
    let dev = Dev::start();
    let apply =
        |text: &str, more: &[&str]| dev.run(&[&["job", "apply", "-f", "-", "--output", "json"], more].concat(), text);
    let first = format!("{}[[job]]\nname = \"b\"\nevery = \"1h\"\nhandler = \"h\"\n", yearly("a", "[\"date\"]"));

    let dry = apply(&first, &["--dry-run"]).ok();
    assert_eq!(dry.actions(), pairs(&[("a", "created"), ("b", "created")]));
    assert_eq!(dev.run(&["job", "list", "--output", "json"], "").ok().json(), json!([]));

    assert_eq!(apply(&first, &[]).ok().actions(), pairs(&[("a", "created"), ("b", "created")]));
    assert_eq!(apply(&first, &[]).ok().actions(), pairs(&[("a", "unchanged"), ("b", "unchanged")]));

    dev.run(&["job", "pause", "a"], "").ok();
    let second = first.replace("date", "uptime");
    assert_eq!(apply(&second, &[]).ok().actions(), pairs(&[("a", "changed"), ("b", "unchanged")]));
    let job = dev.run(&["job", "get", "a", "--output", "json"], "").ok().json();
    assert_eq!((&job["paused"], &job["revision"]), (&json!(true), &json!(2)), "an apply leaves a paused job paused");
    assert!(job["payload"].as_str().expect("a text").contains("uptime"), "{job}");

    let wrong = format!("{second}[[job]]\nname = \"c\"\nevery = \"1h\"\nhandler = \"h\"\ntenant = \"nobody\"\n");
    let refused = apply(&wrong, &[]);
    assert_eq!(refused.status, Some(1));
    assert_eq!(refused.actions(), pairs(&[("a", "unchanged"), ("b", "unchanged"), ("c", "refused")]));
    assert!(refused.stderr.contains("unknown-tenant") && refused.stderr.lines().count() == 1, "{}", refused.stderr);
}

#[test]
fn a_triggered_job_runs_and_its_output_can_be_read() {
    let dev = Dev::start();
    let file = dev.folder().join("written");
    let command = format!("[\"/bin/sh\", \"-c\", \"echo said; echo done > {}\"]", file.display());
    dev.run(&["job", "apply", "-f", "-"], &yearly("a", &command)).ok();
    let mut watch = dev.watch("a");
    dev.run(&["job", "trigger", "a"], "").ok();
    let row = watch.until("succeeded");
    assert_eq!(fs::read_to_string(file).expect("the command wrote it"), "done\n");

    let id = row["id"].as_str().expect("a text");
    let execution = dev.run(&["execution", "get", id, "--output", "json"], "").ok().json();
    assert_eq!((&execution["output"], &execution["state"]), (&json!("said\n"), &json!("succeeded")));
    let list = dev.run(&["execution", "list", "--job", "a", "--output", "json"], "").ok().json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!(list[0]["id"], json!(id));
    let table = dev.run(&["execution", "list"], "").ok().stdout;
    assert!(table.lines().count() == 2 && table.contains(id), "{table}");
}

#[test]
fn a_running_command_can_be_cancelled() {
    let dev = Dev::start();
    dev.run(&["job", "apply", "-f", "-"], &yearly("a", "[\"sleep\", \"30\"]")).ok();
    let mut watch = dev.watch("a");
    dev.run(&["job", "trigger", "a"], "").ok();
    let row = watch.until("running");
    dev.run(&["execution", "cancel", row["id"].as_str().expect("a text")], "").ok();
    watch.until("cancelled");
}

#[test]
fn a_crontab_is_imported_line_by_line_and_again_without_a_change() {
    let dev = Dev::start();
    let crontab = dev.folder().join("crontab");
    fs::write(&crontab, "0 4 * * * root echo one\n@reboot root echo two\n61 * * * * root echo three\n")
        .expect("written");
    let file = crontab.display().to_string();
    let import = |more: &[&str]| {
        dev.run(&[&["job", "import", "--system", "--output", "json", "--crontab", &file], more].concat(), "")
    };
    let dry = import(&["--dry-run"]).json();
    assert_eq!(dry["jobs"][0]["applied"], json!(null));
    assert_eq!(dry["jobs"][0]["next_fires"].as_array().map(Vec::len), Some(3));
    assert_eq!(dev.run(&["job", "list", "--output", "json"], "").ok().json(), json!([]));
    for action in ["created", "unchanged"] {
        let answer = import(&[]);
        assert_eq!((answer.status, answer.stderr.lines().count()), (Some(1), 2), "{answer:?}");
        let rows = answer.json();
        assert_eq!(rows["jobs"].as_array().map(Vec::len), Some(1), "{rows}");
        assert_eq!(rows["jobs"][0]["applied"]["action"], json!(action));
        assert_eq!((&rows["refused"][0]["line"], &rows["refused"][1]["line"]), (&json!(2), &json!(3)));
    }
}

#[test]
fn a_suspended_cron_job_is_imported_paused_and_again_without_a_change() {
    let dev = Dev::start();
    let manifest = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a, namespace: n}\nspec:\n  schedule: \"@every 1h\"\n  suspend: true\n  \
                    jobTemplate: {spec: {template: {spec: {containers: [{command: [date]}]}}}}\n";
    let import = |manifest: &str| dev.run(&["job", "import", "-", "--output", "json"], manifest).ok().json();
    for action in ["created", "unchanged"] {
        assert_eq!(import(manifest)["jobs"][0]["applied"]["action"], json!(action));
        assert_eq!(
            dev.run(&["job", "get", "kubernetes/n/a", "--output", "json"], "").ok().json()["paused"],
            json!(true)
        );
    }
    assert_eq!(import(&manifest.replace("true", "false"))["jobs"][0]["applied"]["action"], json!("changed"));
}

#[test]
fn a_worker_runs_what_its_list_allows_and_nothing_else() {
    let server = Dev::start_server();
    let mut worker = cli_support::command()
        .args(["worker", "--allow", "echo"])
        .args(server.place())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let jobs = yearly("good", "[\"echo\", \"hello\"]") + &yearly("bad", "[\"/bin/sh\", \"-c\", \"echo hello\"]");
    server.run(&["job", "apply", "-f", "-"], &jobs).ok();
    for (job, state, error) in [("good", "succeeded", json!(null)), ("bad", "failed", json!("command-not-allowed"))] {
        let mut watch = server.watch(job);
        server.run(&["job", "trigger", job], "").ok();
        assert_eq!(watch.until(state)["error"], error, "{job}");
    }
    cli_support::terminate(worker.id());
    assert_eq!(worker.wait().expect("it ends").code(), Some(0));
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn jobs_that_do_not_exist_are_refused_in_one_line() {
    let dev = Dev::start();
    for verb in ["get", "pause", "resume", "trigger", "delete"] {
        let answer = dev.run(&["job", verb, "nothing"], "");
        assert_eq!((answer.status, answer.stderr.lines().count()), (Some(1), 1), "{answer:?}");
        assert!(answer.stderr.contains("unknown-job") && answer.stderr.contains("job list"), "{answer:?}");
    }
    dev.run(&["job", "apply", "-f", "-"], &yearly("a", "[\"date\"]")).ok();
    dev.run(&["job", "delete", "a"], "").ok();
    assert_eq!(dev.run(&["job", "get", "a"], "").status, Some(1));
    let answer = dev.run(&["execution", "get", "1.2.3/4"], "");
    assert!(answer.status == Some(1) && answer.stderr.contains("unknown-execution"), "{answer:?}");
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (dev, folder) = (Dev::start(), tempfile::tempdir().expect("a temporary directory"));
    let certs = folder.path().display().to_string();
    tickwheel(&["certs", "ca", "--out", &certs], "").ok();
    tickwheel(&["certs", "admin", "--out", &certs], "").ok();
    let answer = tickwheel(&["job", "list", "--server", &dev.server, "--certs", &certs], "");
    assert_eq!((answer.status, answer.stderr.lines().count()), (Some(1), 1), "{answer:?}");
    assert!(answer.stderr.contains("--certs"), "{answer:?}");
}

#[test]
fn a_second_server_on_the_same_data_and_a_port_in_use_have_their_own_statuses() {
    let dev = Dev::start();
    let data = dev.data().display().to_string();
    let second = tickwheel(&["dev", "--listen", "127.0.0.1:0", "--data", &data], "");
    assert_eq!((second.status, second.stderr.lines().count()), (Some(12), 1), "{second:?}");

    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let listen = taken.local_addr().expect("bound").to_string();
    let other = dev.folder().join("other").display().to_string();
    let second = tickwheel(&["dev", "--shards", "1", "--listen", &listen, "--data", &other], "");
    assert_eq!((second.status, second.stderr.lines().count()), (Some(14), 1), "{second:?}");
    assert!(second.stderr.contains(&listen) && second.stderr.contains("--listen"), "{second:?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let dev = Dev::start();
    dev.run(&["job", "apply", "-f", "-"], &yearly("a", "[\"sleep\", \"30\"]")).ok();
    let mut watch = dev.watch("a");
    dev.run(&["job", "trigger", "a"], "").ok();
    watch.until("running");
    dev.terminate();
    // Refused because it drains: then the first signal was seen.
    while dev.run(&["job", "trigger", "a"], "").stderr.contains("overlap-skipped") {}
    dev.terminate();
    assert_eq!(dev.wait().code(), Some(130));
}
