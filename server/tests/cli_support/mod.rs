//! Runs the built binary: commands that end, and a `dev` that stays.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::Arc,
};
use tempfile::TempDir;

/// Keeps a server small.
const CONFIG: &str = "[log]\nsegment_bytes = 4194304\n[node]\npartitions = 8\n";

/// What a command that has ended left.
#[derive(Debug)]
pub struct Answer {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What `job apply` has done, in JSON: name and action of each job.
    #[track_caller]
    pub fn actions(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let rows = self.json();
        rows.as_array().expect("an array").iter().map(|row| (text(&row["name"]), text(&row["action"]))).collect()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:?}");
        self
    }
}

/// What [`Answer::actions`] is compared with.
pub fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, action)| ((*name).to_owned(), (*action).to_owned())).collect()
}

/// A job that never fires by itself.
pub fn yearly(name: &str, command: &str) -> String {
    format!("[[job]]\nname = \"{name}\"\ncron = \"@yearly\"\ncommand = {command}\n")
}

/// The binary, without the settings of whoever runs the tests.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickwheel"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TICKWHEEL_") || name == "CARGO" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub fn tickwheel(arguments: &[&str], stdin: &str) -> Answer {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A command that does not read its input may have ended before.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Answer { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A running `dev` or `server` with a data directory of its own.
pub struct Dev {
    folder: Arc<TempDir>,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    pub banner: String,
    pub server: String,
}

impl Dev {
    /// Starts it on a free port and waits for its banner.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with `settings` added to its configuration.
    pub fn start_with(settings: &str) -> Self {
        Self::launch("dev", Arc::new(tempfile::tempdir().expect("a temporary directory")), settings, "Ctrl-C")
    }

    /// Stops it, and starts it again on the same data with `settings` added to its configuration.
    pub fn start_again(self, settings: &str) -> Self {
        let folder = Arc::clone(&self.folder);
        self.terminate();
        assert!(self.wait().success(), "it drains");
        Self::launch("dev", folder, settings, "Ctrl-C")
    }

    /// Makes certificates and starts a `server`, which has no worker.
    pub fn start_server() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let certs = data_of(&folder).join("certs").display().to_string();
        for kind in ["ca", "server", "admin", "worker"] {
            tickwheel(&["certs", kind, "--out", &certs], "").ok();
        }
        Self::launch("server", folder, "", "certificates")
    }

    /// `mark` is in the last line of the banner.
    fn launch(kind: &str, folder: Arc<TempDir>, settings: &str, mark: &str) -> Self {
        let config = folder.path().join("tickwheel.toml");
        fs::write(&config, CONFIG.to_owned() + settings).expect("written");
        let mut child = command()
            .args([kind, "--shards", "1", "--listen", "127.0.0.1:0"])
            .arg("--config")
            .arg(config)
            .arg("--data")
            .arg(data_of(&folder))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut banner = String::new();
        while !banner.contains(mark) {
            let line = stdout.next().expect("the banner comes whole").expect("UTF-8");
            banner.push_str(&line);
            banner.push('\n');
        }
        let (_, rest) = banner.split_once("on UDP ").expect("the banner names the address");
        let server = rest.lines().next().expect("a line").to_owned();
        Self { folder, child, stdout, banner, server }
    }

    pub fn data(&self) -> PathBuf {
        data_of(&self.folder)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The arguments that lead to it.
    pub fn place(&self) -> [String; 4] {
        let certs = self.data().join("certs").display().to_string();
        ["--server".to_owned(), self.server.clone(), "--certs".to_owned(), certs]
    }

    /// Runs a command against it.
    pub fn run(&self, arguments: &[&str], stdin: &str) -> Answer {
        let place = self.place();
        let place = place.iter().map(String::as_str);
        tickwheel(&arguments.iter().copied().chain(place).collect::<Vec<_>>(), stdin)
    }

    /// Starts `execution watch` for a job and waits until it watches.
    pub fn watch(&self, job: &str) -> Watch {
        let mut child = command()
            .args(["execution", "watch", "--output", "json", "--job", job])
            .args(self.place())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let ready = stderr.next().expect("it says that it watches").expect("UTF-8");
        assert!(ready.starts_with("watching"), "{ready}");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Watch { child, lines }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        terminate(self.child.id());
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data_of(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// A running `execution watch`.
pub struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    /// Reads until an execution is in `state`, which it must reach before it ends otherwise.
    pub fn until(&mut self, state: &str) -> serde_json::Value {
        for line in &mut self.lines {
            let row: serde_json::Value = serde_json::from_str(&line.expect("UTF-8")).expect("a line of JSON");
            if row["state"] == state {
                return row;
            }
            let goes_on = ["running", "retrying"].contains(&row["state"].as_str().expect("a text"));
            assert!(goes_on, "waited for {state}: {row}");
        }
        panic!("the watch ended before any execution was {state}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a line as a shell would that stands where the source lies.
pub fn shell(line: &str) -> ExitStatus {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", line]).stdout(Stdio::null());
    shell.status().expect("a shell")
}

/// Sends SIGTERM to a process.
pub fn terminate(process: u32) {
    assert!(shell(&format!("kill -TERM {process}")).success());
}
