//! What commands run by the worker are promised, shown with real processes.
//!
//! Waiting is for events: the end of a command, a line in a file, the end of a process; a test that would wait for ever fails by
//! its limit.

use std::{
    collections::BTreeMap,
    fs, future,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tickwheel_client::{ExecutionId, FireSequence, JobId, PartitionId, StopReason, Timestamp, Token};
use tickwheel_server::command_worker::{AllowList, CommandError, CommandPayload, GRACE, Invocation, execute};
use tokio::time::{sleep, timeout};

/// Beyond this a test has failed.
const LIMIT: Duration = Duration::from_secs(60);

fn shell(script: &str) -> CommandPayload {
    CommandPayload::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
}

fn invocation(payload: &CommandPayload) -> Invocation {
    Invocation {
        tenant: "acme".to_owned(),
        job: "nightly".to_owned(),
        execution: ExecutionId { job: JobId::new(PartitionId(4), 1, 2), fire_sequence: FireSequence(9) },
        attempt: 3,
        token: Token(17),
        scheduled_at: Timestamp::from_secs(1_700_000_000),
        payload: payload.encode(),
    }
}

async fn run_with(payload: &CommandPayload, stop: impl Future<Output = StopReason>) -> Result<Vec<u8>, CommandError> {
    let invocation = invocation(payload);
    let run = execute(&invocation, &AllowList::Any, stop);
    timeout(LIMIT, run).await.expect("the command ends")
}

async fn run(payload: &CommandPayload) -> Result<Vec<u8>, CommandError> {
    run_with(payload, future::pending()).await
}

async fn output(payload: &CommandPayload) -> String {
    String::from_utf8(run(payload).await.expect("success")).expect("text")
}

/// Waits until the file holds a whole line, and returns it.
async fn line_in(file: &Path) -> String {
    let line = async {
        loop {
            if let Some(line) =
                fs::read_to_string(file).ok().and_then(|text| text.strip_suffix('\n').map(str::to_owned))
            {
                return line;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LIMIT, line).await.expect("the command writes a line")
}

/// Whether a process of this number runs; a zombie does not.
fn runs(process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| !status.rsplit(") ").next().expect("a state").starts_with('Z'))
}

async fn assert_ends(process: &str) {
    assert!(process.parse::<u32>().is_ok_and(|id| id > 1), "{process:?} is a process id");
    let gone = async {
        while runs(process) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("nothing of the command is left");
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn what_a_command_writes_is_kept_in_the_order_in_which_it_came() {
    assert_eq!(output(&shell("echo one; echo two >&2; echo three")).await, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_command_reads_its_input_to_the_end_and_without_one_reads_nothing() {
    let text = "line\n".repeat(40_000);
    let counted = CommandPayload { stdin: Some(text), ..shell("wc -c") };
    assert_eq!(output(&counted).await.trim(), "200000");
    assert_eq!(output(&shell("wc -c")).await.trim(), "0");
    let unread = CommandPayload { stdin: Some("x".repeat(200_000)), ..shell("echo done") };
    assert_eq!(output(&unread).await, "done\n");
    let silent =
        CommandPayload { stdin: Some("y".repeat(200_000)), ..shell("exec >/dev/null 2>&1; [ $(wc -c) = 200000 ]") };
    assert_eq!(output(&silent).await, "");
}

#[tokio::test]
async fn long_output_keeps_its_beginning_and_its_end_within_the_bound() {
    let text = output(&shell("seq 1 100000")).await;
    assert!(text.len() <= 4096 && text.len() > 4000, "{}", text.len());
    assert!(text.starts_with("1\n2\n") && text.ends_with("99999\n100000\n") && text.contains("left out"), "{text}");
    let small = CommandPayload { output_bytes_max: Some(64), ..shell("seq 1 1000") };
    let text = output(&small).await;
    assert!(text.len() <= 64 && text.starts_with("1\n2") && text.ends_with("1000\n"), "{text}");
}

#[tokio::test]
async fn a_command_is_told_what_it_is_an_attempt_of() {
    let script = "echo $TICKWHEEL_TENANT/$TICKWHEEL_JOB $TICKWHEEL_EXECUTION $TICKWHEEL_ATTEMPT $TICKWHEEL_TOKEN $TICKWHEEL_SCHEDULED_AT";
    assert_eq!(output(&shell(script)).await, "acme/nightly 4.2.1/9 3 17 2023-11-14T22:13:20Z\n");
}

#[tokio::test]
async fn variables_folder_and_a_clean_environment_are_those_asked_for() {
    let folder = folder();
    let place = folder.path().canonicalize().expect("it is there").to_str().expect("text").to_owned();
    let env = BTreeMap::from([("COLOUR".to_owned(), "dark green".to_owned())]);
    let asked =
        CommandPayload { env, dir: Some(place.clone()), ..shell("echo $COLOUR; pwd; echo ${CARGO_PKG_NAME-none}") };
    assert_eq!(output(&asked).await, format!("dark green\n{place}\ntickwheel-server\n"));
    let clean = CommandPayload { clean_env: true, ..asked };
    assert_eq!(output(&clean).await, format!("dark green\n{place}\nnone\n"));
    let clean = CommandPayload { clean_env: true, ..shell("echo $PATH $SHELL; test \"$PWD\" -ef \"$HOME\"") };
    assert_eq!(output(&clean).await, "/usr/bin:/bin /bin/sh\n");
}

#[tokio::test]
async fn a_status_other_than_zero_is_a_failure_that_may_be_repeated() {
    let error = run(&shell("echo because; exit 3")).await.expect_err("status 3");
    assert!(matches!(&error, CommandError::ExitStatus { code: 3, output } if output == b"because\n"), "{error:?}");
    assert_eq!((error.kind(), error.is_permanent()), ("exit-status", false));
}

#[tokio::test]
async fn a_command_that_a_signal_ends_fails_by_that_signal() {
    let error = run(&shell("echo before; kill -9 $$")).await.expect_err("it is killed");
    assert!(matches!(&error, CommandError::Signal { signal: 9, output } if output == b"before\n"), "{error:?}");
    assert_eq!((error.kind(), error.is_permanent()), ("signal", false));
}

#[tokio::test]
async fn what_cannot_be_started_fails_for_good() {
    let absent = CommandPayload::new(vec!["/no/such/program".to_owned()]);
    let nameless = CommandPayload::new(vec!["no-such-program-anywhere".to_owned()]);
    let nowhere = CommandPayload { dir: Some("/no/such/folder".to_owned()), ..shell("true") };
    for payload in [absent, nameless, nowhere] {
        let error = run(&payload).await.expect_err("it cannot start");
        assert_eq!((error.kind(), error.is_permanent()), ("spawn", true), "{error:?}");
    }
}

#[tokio::test]
async fn only_listed_commands_start() {
    let folder = folder();
    let mark = folder.path().join("mark");
    let allow = AllowList::commands(["/bin/echo".to_owned(), "true".to_owned()]);
    let refused = shell(&format!("touch {}", mark.display()));
    let error = execute(&invocation(&refused), &allow, future::pending()).await.expect_err("not listed");
    assert_eq!((error.kind(), error.is_permanent()), ("command-not-allowed", true));
    assert!(!mark.exists());
    let echo = CommandPayload::new(["/bin/echo", "x"].map(str::to_owned).to_vec());
    assert_eq!(execute(&invocation(&echo), &allow, future::pending()).await.expect("listed"), b"x\n");
    let named = CommandPayload::new(vec!["true".to_owned()]);
    assert_eq!(execute(&invocation(&named), &allow, future::pending()).await.expect("listed"), b"");
}

/// Starts a child that ignores SIGTERM and writes its number to `file`, and waits for it.
fn stubborn(file: &Path) -> CommandPayload {
    shell(&format!(
        "trap '' TERM; (echo $(exec sh -c 'echo $PPID') >{}; for _ in $(seq 100); do sleep 1; done) & wait; wait",
        file.display()
    ))
}

#[tokio::test]
async fn a_stopped_command_leaves_no_child_even_if_it_ignores_the_request() {
    let folder = folder();
    let file = folder.path().join("child");
    let started = Instant::now();
    let stop = async {
        assert!(runs(&line_in(&file).await), "the child runs");
        StopReason::TimedOut
    };
    let error = run_with(&stubborn(&file), stop).await.expect_err("it is stopped");
    assert!(matches!(error, CommandError::Stopped { reason: StopReason::TimedOut, .. }), "{error:?}");
    assert!(started.elapsed() >= GRACE, "it had its grace period");
    assert_ends(&line_in(&file).await).await;
}

#[tokio::test]
async fn a_command_that_heeds_the_request_ends_at_once_and_its_last_words_are_kept() {
    let folder = folder();
    let file = folder.path().join("ready");
    let script = format!(
        "trap 'echo bye; exit 0' TERM; echo ready >{}; for _ in $(seq 10000); do sleep 0.01; done",
        file.display()
    );
    let stop = async {
        line_in(&file).await;
        StopReason::Requested
    };
    let started = Instant::now();
    let error = run_with(&shell(&script), stop).await.expect_err("stopped is not done");
    assert!(matches!(&error, CommandError::Stopped { output, .. } if output.ends_with(b"bye\n")), "{error:?}");
    assert_eq!((error.kind(), error.is_permanent()), ("stopped", false));
    assert!(started.elapsed() < LIMIT);
}

#[tokio::test]
async fn a_child_left_behind_ends_with_its_command() {
    let folder = folder();
    let file = folder.path().join("child");
    let script = format!("sleep 100 >/dev/null 2>&1 & echo $! >{}", file.display());
    assert_eq!(output(&shell(&script)).await, "");
    assert_ends(&line_in(&file).await).await;
}

#[tokio::test]
async fn a_command_whose_future_is_dropped_leaves_no_child() {
    let folder = folder();
    let file = folder.path().join("child");
    let payload = stubborn(&file);
    let child = tokio::select! {
        result = run(&payload) => panic!("it does not end by itself: {result:?}"),
        child = line_in(&file) => child,
    };
    assert_ends(&child).await;
}

#[tokio::test]
async fn a_stop_that_was_asked_for_before_the_start_counts() {
    let stop = future::ready(StopReason::Draining);
    let error = run_with(&shell("sleep 100"), stop).await.expect_err("it is stopped");
    assert!(matches!(error, CommandError::Stopped { reason: StopReason::Draining, .. }), "{error:?}");
}

#[tokio::test]
async fn a_user_is_honoured_if_it_is_the_workers_own_or_the_worker_is_root() {
    let own = output(&shell("id -un")).await.trim().to_owned();
    let show = "echo $(id -un) $LOGNAME $USER $SHELL; test \"$PWD\" -ef \"$HOME\" && echo home";
    let as_user = |user: &str| CommandPayload { user: Some(user.to_owned()), ..shell(show) };
    assert_eq!(output(&as_user(&own)).await, format!("{own} {own} {own} /bin/sh\nhome\n"));
    let unknown = run(&as_user("no-such-user-here")).await.expect_err("nobody has this name");
    assert_eq!((unknown.kind(), unknown.is_permanent()), ("user-not-allowed", true));
    if own == "root" {
        // The folder of `daemon` is there on every system, unlike that of `nobody`.
        assert_eq!(output(&as_user("daemon")).await, "daemon daemon daemon /bin/sh\nhome\n");
        let groups = CommandPayload { user: Some("daemon".to_owned()), ..shell("id -G; id -ru; umask >/dev/null") };
        let expected = output(&shell("id -G daemon; id -u daemon")).await;
        assert_eq!(output(&groups).await, expected);
        let dir = Some("/root".to_owned());
        let hidden = CommandPayload { user: Some("daemon".to_owned()), dir, ..shell("pwd") };
        if run(&CommandPayload { user: Some("daemon".to_owned()), ..shell("cd /root") }).await.is_err() {
            assert_eq!(run(&hidden).await.expect_err("not its folder").kind(), "spawn");
        }
    } else {
        let refused = run(&as_user("root")).await.expect_err("not root");
        assert_eq!((refused.kind(), refused.is_permanent()), ("user-not-allowed", true));
    }
}

#[tokio::test]
async fn a_command_cannot_reach_the_workers_own_process_group() {
    let ids = output(&shell("ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat; echo $$")).await;
    let mut lines = ids.lines().map(str::trim);
    assert_eq!(lines.next(), lines.next(), "the command leads its own group");
}
