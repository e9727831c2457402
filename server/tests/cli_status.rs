//! Claims about what the commands say of running attempts and of paused jobs, with real processes.

mod cli_support;

use cli_support::{Dev, yearly};
use serde_json::{Value, json};
use std::thread::{self, JoinHandle};
use tickwheel_client::{Attempt, ConnectConfig, Credentials, Failure, Output, Worker};
use tokio::sync::{mpsc, oneshot};

/// A worker in a thread of its own, whose handlers run until they are asked to stop.
struct Talker {
    attempts: mpsc::UnboundedReceiver<Attempt>,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Talker {
    fn start(server: &Dev) -> Self {
        let certs = server.data().join("certs");
        let file = |name: &str| certs.join(name);
        let credentials =
            Credentials::from_files(file("ca.pem"), file("worker.pem"), file("worker.key")).expect("certificates");
        let (sender, attempts) = mpsc::unbounded_channel();
        let handler = move |attempt: Attempt| {
            let sender = sender.clone();
            async move {
                sender.send(attempt.clone())?;
                attempt.cancelled().await;
                Ok::<_, Failure>(Output::none())
            }
        };
        let config = ConnectConfig::new(server.server.clone(), credentials);
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let worker = Worker::builder(config).pool("standard").concurrency(2).default_handler(handler);
                let handle = worker.build().expect("settings").start();
                ended.await.expect("the test tells");
                handle.drain().await.expect("it drains");
            });
        });
        Self { attempts, end, thread }
    }

    fn stop(self) {
        self.end.send(()).expect("it waits");
        self.thread.join().expect("it ends well");
    }
}

#[test]
fn a_status_is_shown_by_every_command_about_executions() {
    let server = Dev::start_server();
    let mut talker = Talker::start(&server);
    server.run(&["job", "apply", "-f", "-"], &yearly("copy", "[\"any\"]")).ok();
    let mut watch = server.watch("copy");
    server.run(&["job", "trigger", "copy"], "").ok();
    let attempt = talker.attempts.blocking_recv().expect("an attempt");
    assert_eq!(watch.until("running")["status"], Value::Null);
    for status in ["copied 1 of 9 files", "copied 2 of 9 files"] {
        attempt.progress(250);
        attempt.status(status).expect("short");
        assert_eq!(watch.until("running")["status"], json!(status));
    }
    let id = attempt.execution().to_string();
    let got = server.run(&["execution", "get", &id, "--output", "json"], "").ok().json();
    let listed = server.run(&["execution", "list", "--in-flight", "--output", "json"], "").ok().json();
    for row in [&got, &listed[0]] {
        assert_eq!((&row["status"], &row["progress_permille"]), (&json!("copied 2 of 9 files"), &json!(250)));
    }
    for command in [&["execution", "get", &id][..], &["execution", "list"]] {
        assert!(server.run(command, "").ok().stdout.contains("copied 2 of 9 files"));
    }
    server.run(&["execution", "cancel", &id], "").ok();
    assert_eq!(watch.until("succeeded")["status"], Value::Null);
    let ended = server.run(&["execution", "get", &id, "--output", "json"], "").ok().json();
    assert_eq!(ended["status"], Value::Null, "it goes with the attempt");
    talker.stop();
}

#[test]
fn a_paused_job_says_why_it_is() {
    let dev = Dev::start();
    let rules = "retry = { attempts_max = 1 }\npause_after_failures = 2\n";
    let brittle = yearly("brittle", "[\"/bin/false\"]") + rules;
    dev.run(&["job", "apply", "-f", "-"], &(brittle + &yearly("other", "[\"/bin/true\"]"))).ok();
    let why = |name: &str| {
        let row = dev.run(&["job", "get", name, "--output", "json"], "").ok().json();
        (row["pause_reason"].clone(), row["paused_after_failures"].clone())
    };
    let mut watch = dev.watch("brittle");
    for paused in [json!(null), json!(2)] {
        assert_eq!(why("brittle"), (Value::Null, Value::Null));
        dev.run(&["job", "trigger", "brittle"], "").ok();
        assert_eq!(watch.until("failed")["paused_job_after_failures"], paused);
    }
    dev.run(&["job", "pause", "other"], "").ok();
    assert_eq!(why("brittle"), (json!("after-failures"), json!(2)));
    assert_eq!(why("other"), (json!("by-request"), Value::Null));
    let list = dev.run(&["job", "list", "--state", "paused"], "").ok().stdout;
    assert!(list.contains("paused after 2 failures") && list.contains("paused by request"), "{list}");
    dev.run(&["job", "resume", "--all"], "").ok();
    assert_eq!([why("brittle"), why("other")], [(); 2].map(|()| (Value::Null, Value::Null)));
}
