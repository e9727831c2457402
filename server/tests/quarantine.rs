//! A partition whose log holds an event that cannot be applied stops the first start, and is left out by the next ones.

mod cli_support;

use cli_support::{Answer, command, terminate, tickwheel};
use serde_json::json;
use std::{
    fs,
    io::{BufRead as _, BufReader, Lines},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};
use tempfile::TempDir;
use tickwheel_server::quarantine;
use tickwheel_storage::{
    Admission, AppendError, CommitLog as _, Log, LogOptions, ReplaySink, Section, recover, std_files::StdFiles,
};
use tickwheel_wire::{
    PartitionCount, PartitionId, Timestamp,
    event::{Event, JobChange},
    partition_of,
};

const PARTITIONS: u64 = 8;
/// Set for the child that is to panic.
const PANIC_VARIABLE: &str = "QUARANTINE_TEST_PANICS";

/// A data directory with certificates and a configuration.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config =
        format!("[log]\nsegment_bytes = 4194304\nsnapshot_bytes = 1048576\n[node]\npartitions = {PARTITIONS}\n");
    fs::write(folder.path().join("tickwheel.toml"), config).expect("written");
    let certs = folder.path().join("data/certs").display().to_string();
    for kind in ["ca", "server", "admin"] {
        tickwheel(&["certs", kind, "--out", &certs], "").ok();
    }
    folder
}

fn serve(folder: &Path) -> Command {
    let mut serve = command();
    serve.args(["server", "--shards", "1", "--listen", "127.0.0.1:0", "--config"]);
    serve.arg(folder.join("tickwheel.toml")).arg("--data").arg(folder.join("data"));
    serve.stdout(Stdio::piped()).stderr(Stdio::piped());
    serve
}

/// A start that is expected to fail.
fn failed_start(folder: &Path) -> Answer {
    let output = serve(folder).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Answer { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A running server.
struct Server {
    child: Child,
    place: [String; 4],
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = serve(folder).spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let banner = stdout.next().and_then(Result::ok);
        let Some(banner) = banner else { panic!("no banner: {:?}", child.wait_with_output()) };
        let (_, address) = banner.split_once("on UDP ").expect("the banner names the address");
        let certs = folder.join("data/certs").display().to_string();
        let place = ["--server".to_owned(), address.to_owned(), "--certs".to_owned(), certs];
        Self { child, place, _stdout: stdout }
    }

    fn run(&self, arguments: &[&str], stdin: &str) -> Answer {
        let place = self.place.iter().map(String::as_str);
        tickwheel(&arguments.iter().copied().chain(place).collect::<Vec<_>>(), stdin)
    }

    /// Stops it; what it said on its standard error.
    fn stop(self) -> String {
        terminate(self.child.id());
        let output = self.child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        stderr
    }
}

/// Passes over what it is given.
struct Ignore;

impl ReplaySink for Ignore {
    type Error = String;

    fn snapshot_chunk(&mut self, _: PartitionId, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn snapshot_done(&mut self, _: PartitionId, _: u64, _: u64) -> Result<(), String> {
        Ok(())
    }

    fn snapshot_discarded(&mut self, _: PartitionId) -> Result<(), String> {
        Ok(())
    }

    fn section(&mut self, _: PartitionId, _: u64, _: u32, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Appends an event of these bytes to a partition's log, as an incarnation of its own. The event's number.
fn append(data: &Path, partition: PartitionId, bytes: &[u8]) -> u64 {
    let mut device = StdFiles::new(data);
    let recovered = recover(&mut device, PartitionCount::new(PARTITIONS).expect("a power of two")).expect("recovers");
    let all: Vec<_> = (0..8).map(PartitionId).collect();
    let replayed = recovered.replay(&mut device, &all, &mut Ignore).expect("replays");
    let first_sequence = replayed.partitions[usize::from(partition.0)].last_sequence + 1;
    let (_, starts) = recovered.start(&mut device, &[replayed], &[all]).expect("starts");
    let options = LogOptions { segment_bytes: 4 << 20, batch_bytes_max: 1 << 20, ..LogOptions::default() };
    let mut log = Log::create(device, starts[0].stream, &starts[0].partitions, options);
    let commit = loop {
        let section = Section { partition, first_sequence, event_count: 1, bytes };
        match log.append([section], Admission::Ordinary) {
            Ok(commit) => break commit,
            Err(AppendError::Full) => log.poll().map(drop).expect("the log works"),
            Err(error) => panic!("{error}"),
        }
    };
    while log.poll().expect("the log works") < commit {
        thread::yield_now();
    }
    first_sequence
}

/// Names of jobs in `partition` and elsewhere.
fn names(partition: PartitionId) -> (String, Vec<String>) {
    let count = PartitionCount::new(PARTITIONS).expect("a power of two");
    let all = (0..24).map(|number| format!("job-{number}"));
    let (within, others): (Vec<_>, Vec<_>) = all.partition(|name| partition_of("default", name, count) == partition);
    (within.into_iter().next().expect("24 jobs are in all partitions"), others)
}

fn yearly(name: &str) -> String {
    format!("[[job]]\nname = \"{name}\"\ncron = \"0 0 1 1 *\"\nhandler = \"h\"\n")
}

/// Starts that meet an event of these bytes: a fatal end that names it, then all that works without its partition, twice, then a new
/// try once the entry is removed.
fn check(bytes: &[u8], reason: &str) {
    const PARTITION: PartitionId = PartitionId(3);
    let folder = folder();
    let folder = folder.path();
    let file = folder.join("data/quarantine.toml");
    let (within, others) = names(PARTITION);
    let (at_first, later) = others.split_at(others.len() - 2);
    let server = Server::start(folder);
    let jobs: String = at_first.iter().chain([&within]).map(|name| yearly(name)).collect();
    server.run(&["job", "apply", "-f", "-"], &jobs).ok();
    server.stop();
    let event = append(&folder.join("data"), PARTITION, bytes);

    let first = failed_start(folder);
    assert_eq!((first.status, first.stdout.as_str()), (Some(17), ""), "{first:?}");
    let line = first.stderr.lines().last().expect("a line");
    let place = format!("partition 3 failed at event {event}: ");
    for part in [&place, reason, "starting again will quarantine the partition", "quarantine.toml"] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
    assert!(fs::read_to_string(&file).expect("noted").contains("quarantined = false"));

    for round in 0..2 {
        let server = Server::start(folder);
        for name in at_first.iter().chain(&later[..round]) {
            let job = server.run(&["job", "get", name, "--output", "json"], "").ok().json();
            assert_eq!(job["name"], json!(name));
        }
        server.run(&["job", "apply", "-f", "-"], &yearly(&later[round])).ok();
        for request in [vec!["job", "get", &within], vec!["job", "trigger", &within], vec!["job", "delete", &within]] {
            let refused = server.run(&request, "");
            assert_eq!(refused.status, Some(1), "{request:?}: {refused:?}");
            assert!(refused.stderr.contains("not-owner"), "{request:?}: {refused:?}");
        }
        let refused = server.run(&["job", "apply", "-f", "-"], &yearly(&within));
        assert!(refused.status == Some(1) && refused.stderr.contains("not-owner"), "{refused:?}");
        let stderr = server.stop();
        assert!(stderr.contains("QUARANTINED") && stderr.contains("quarantine.toml"), "{stderr}");
        assert!(fs::read_to_string(&file).expect("it stays").contains("quarantined = true"));
    }

    fs::remove_file(&file).expect("it is there");
    let again = failed_start(folder);
    assert!(again.status == Some(17) && again.stderr.contains(&place), "its log is as it was: {again:?}");
}

#[test]
fn an_event_that_cannot_be_decoded_costs_one_start_and_then_its_partition_alone() {
    // So many bytes that snapshots of all partitions are due at once.
    check(&[0xFF; 512 << 10], "");
}

#[test]
fn an_event_that_contradicts_the_state_costs_one_start_and_then_its_partition_alone() {
    let mut bytes = Vec::new();
    let nowhere = JobChange { slot: 4_000_000, at: Timestamp::from_secs(2), next_fire: Timestamp::MAX };
    Event::Triggered(nowhere).encode(&mut bytes);
    check(&bytes, "out of bounds");
}

#[test]
fn a_panic_outside_of_a_replay_ends_the_process() {
    if std::env::var_os(PANIC_VARIABLE).is_some() {
        quarantine::abort_on_panic();
        assert_eq!(quarantine::guarded(|| panic!("within")), Err::<(), _>("within".to_owned()));
        println!("the guarded panic was survived");
        let outcome = thread::spawn(|| panic!("without")).join();
        println!("the other one too: {outcome:?}");
        return;
    }
    let name = "a_panic_outside_of_a_replay_ends_the_process";
    let mut child = Command::new(std::env::current_exe().expect("known"));
    child.args(["--exact", name, "--nocapture"]).env(PANIC_VARIABLE, "1");
    let output = child.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("was survived") && !text.contains("the other one too"), "{text}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("without"), "it is printed: {output:?}");
}
