//! Processes that stop for longer than every timeout (SIGSTOP) and go on as if nothing had been (SIGCONT): a suspended machine, a debugger, a
//! disk that hung. What they missed is made up for by the rules, nothing is lost, and no execution ends well twice.

use anyhow::{Context as _, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tickwheel_client::{
    Client, ConnectConfig, Execution, ExecutionFilter, ExecutionState, JobBuilder, Output, SubmitMode, Transition,
    Worker, WorkerHandle,
};
use tickwheel_tests::{PATIENCE, data_directory, process::Process, run, server::Server};
use tokio::sync::watch;

/// The timeouts: what executions wait for their worker, and after which silence a session is lost.
const SETTINGS: &str =
    "[node]\nshards = 1\npartitions = 8\n[worker]\nreattach_ms = 500\n[log]\nsegment_bytes = 4194304\n";
const IDLE: Duration = Duration::from_secs(2);
/// Of attempts, for jobs that have them.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// Longer than any of them, and than the 5 s after which a worker repeats an unanswered completion.
const PAUSE: Duration = Duration::from_secs(7);
const BEATS: usize = 10;
const BEAT: Duration = Duration::from_millis(100);
/// One-shots that come due during the pause.
const DUE: u64 = 40;

/// A run of an attempt, as the worker saw it.
#[derive(Clone, Copy, Debug)]
struct Run {
    token: u64,
    scheduled_us: u64,
    ended: bool,
}

/// By job name and fire sequence, in the order of their starts.
type Runs = BTreeMap<(String, u64), Vec<Run>>;
type Shared = Arc<Mutex<Runs>>;

fn with<T>(runs: &Shared, body: impl FnOnce(&mut Runs) -> T) -> T {
    body(&mut runs.lock().unwrap_or_else(PoisonError::into_inner))
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_micros()).expect("it is before the year 586,000")
}

/// How to connect with timeouts that are shorter than the pause.
fn impatient(server: &Server, name: &str) -> anyhow::Result<ConnectConfig> {
    let mut config = server.connect_config(name)?;
    (config.idle_timeout, config.keep_alive) = (IDLE, IDLE / 4);
    Ok(config)
}

/// A worker that writes down its runs; those of the handler `held` last until they are released.
fn start_worker(server: &Server, runs: &Shared, released: watch::Receiver<bool>) -> anyhow::Result<WorkerHandle> {
    let runs = Arc::clone(runs);
    let worker = Worker::builder(impatient(server, "worker")?).pool("standard").concurrency(64);
    let worker = worker.default_handler(move |attempt| {
        let (runs, mut released) = (Arc::clone(&runs), released.clone());
        async move {
            let (key, token) =
                ((attempt.job_name().to_owned(), attempt.execution().fire_sequence.0), attempt.token().0);
            let run = Run { token, scheduled_us: attempt.scheduled_at().as_micros(), ended: false };
            with(&runs, |runs| runs.entry(key.clone()).or_default().push(run));
            if attempt.handler() == "held" {
                // The sender lives as long as the test.
                let _ = released.wait_for(|released| *released).await;
            }
            with(&runs, |runs| {
                for run in runs.get_mut(&key).into_iter().flatten().filter(|run| run.token == token) {
                    run.ended = true;
                }
            });
            Ok(Output(token.to_string().into_bytes()))
        }
    });
    Ok(worker.build()?.start())
}

/// Waits until `holds` says so.
async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !holds() {
        ensure!(started.elapsed() < PATIENCE / 2, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn ended_count(runs: &Runs, prefix: &str, from_us: u64) -> usize {
    let of_prefix = runs.iter().filter(|((job, _), _)| job.starts_with(prefix)).flat_map(|(_, runs)| runs);
    of_prefix.filter(|run| run.ended && run.scheduled_us >= from_us).count()
}

async fn submit_all(client: &Client) -> anyhow::Result<()> {
    let held = ["plain", "limited", "silent"].map(|name| JobBuilder::new(name).handler("held").after(Duration::ZERO));
    let [plain, limited, silent] = held;
    let due = (0..DUE).map(|index| {
        let delay = PAUSE * u32::try_from(10 + index).expect("small") / 60;
        JobBuilder::new(format!("due-{index}")).handler("any").after(delay)
    });
    let beats = (0..BEATS).map(|index| JobBuilder::new(format!("beat-{index}")).handler("any").every(BEAT));
    let others = [plain, limited.start_to_close(Some(ATTEMPT_LIMIT)), silent.heartbeat(Some(ATTEMPT_LIMIT))];
    let jobs: Vec<_> = beats.chain(others).chain(due).collect();
    submit_many(client, jobs).await
}

/// All executions, none of which is in flight any more.
async fn settled(client: &Client) -> anyhow::Result<Vec<Execution>> {
    let started = Instant::now();
    loop {
        let executions = client.executions(ExecutionFilter::default())?.collect().await?;
        let is_running = |state| matches!(state, ExecutionState::Running | ExecutionState::Retrying);
        if !executions.iter().any(|execution| is_running(execution.state)) {
            return Ok(executions);
        }
        ensure!(started.elapsed() < PATIENCE / 2, "executions do not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The rules that hold whatever stops: tokens grow, and the run that counts is the last one that was begun.
fn check_runs(runs: &Runs, executions: &[Execution]) -> anyhow::Result<()> {
    for (key, runs) in runs {
        ensure!(runs.is_sorted_by(|left, right| left.token < right.token), "tokens of {key:?} do not grow: {runs:?}");
    }
    for execution in executions {
        let key = (execution.job_name.clone(), execution.id.fire_sequence.0);
        let runs = runs.get(&key).with_context(|| format!("{execution:?} never ran"))?;
        ensure!(execution.state == ExecutionState::Succeeded, "{execution:?}: {runs:?}");
        let last = runs.last().expect("a run").token;
        ensure!(execution.token.0 == last, "{key:?} ended well with {:?} and ran again: {runs:?}", execution.token);
        ensure!(execution.output == last.to_string().as_bytes(), "{execution:?}: {runs:?}");
    }
    Ok(())
}

/// Firings that were missed while the server stood still: one execution stands for those of a job, and none is forgotten.
fn check_misfires(runs: &Runs, paused: (u64, u64), missed: u64) -> anyhow::Result<()> {
    let ((from_us, to_us), mut caught_up) = (paused, 0);
    for index in 0..BEATS {
        let job = format!("beat-{index}");
        let of_job: Vec<_> = runs.iter().filter(|((name, _), _)| *name == job).collect();
        let sequences: Vec<_> = of_job.iter().map(|((_, sequence), _)| *sequence).collect();
        ensure!(sequences.iter().copied().eq(1..=sequences.len() as u64), "{job} has gaps: {sequences:?}");
        let is_within = |run: &Run| run.scheduled_us > from_us && run.scheduled_us < to_us;
        let within = of_job.iter().filter(|(_, runs)| is_within(&runs[0])).count();
        ensure!(within <= 1, "{within} executions of {job} stand for what was missed");
        caught_up += within;
    }
    // Of the others an execution was in flight: theirs were skipped.
    ensure!(caught_up >= BEATS / 2, "only {caught_up} jobs caught up");
    let expected = BEATS as u64 * ((to_us - from_us) / u64::try_from(BEAT.as_micros())? - 1);
    ensure!(missed >= expected, "{missed} firings were counted as missed or skipped, not {expected}");
    Ok(())
}

#[test]
fn a_server_that_stood_still_catches_up_once_and_no_execution_ends_well_twice() -> anyhow::Result<()> {
    let folder = data_directory()?;
    let data = folder.path().join("data");
    fs::create_dir(&data)?;
    let server = Server::new(folder.path(), &data, SETTINGS)?;
    let mut process = server.start()?;
    run(async {
        let client = server.client().await?;
        let (runs, (release, released)) = (Shared::default(), watch::channel(false));
        let worker = start_worker(&server, &runs, released)?;
        submit_all(&client).await?;
        let has_begun =
            |runs: &Runs| ["plain", "limited", "silent"].iter().all(|job| runs.contains_key(&((*job).to_owned(), 1)));
        wait_until("everything runs", || with(&runs, |runs| has_begun(runs) && ended_count(runs, "beat", 0) > BEATS))
            .await?;
        process.pause()?;
        let paused_us = now_us();
        tokio::time::sleep(PAUSE / 2).await;
        release.send_replace(true);
        let due_before = with(&runs, |runs| ended_count(runs, "due", 0));
        tokio::time::sleep(PAUSE / 2).await;
        let resumed_us = now_us();
        process.go_on()?;
        ensure!(due_before < usize::try_from(DUE)? / 2, "the pause came too late: {due_before}");
        wait_until("all that came due has run", || {
            with(&runs, |runs| {
                ended_count(runs, "due", 0) >= usize::try_from(DUE).expect("few")
                    && ended_count(runs, "beat", resumed_us) > 2 * BEATS
            })
        })
        .await?;
        for index in 0..BEATS {
            client.pause(&format!("beat-{index}")).await?;
        }
        let executions = settled(&client).await?;
        let mut admin = server.peer("admin").await?;
        let missed = admin.counter("misfired").await? + admin.counter("skipped").await?;
        worker.drain().await?;
        client.close().await;
        let runs = with(&runs, |runs| runs.clone());
        check_runs(&runs, &executions)?;
        let names: BTreeSet<_> = executions.iter().map(|execution| execution.job_name.as_str()).collect();
        ensure!(names.len() == BEATS + 3 + usize::try_from(DUE)?, "of some jobs nothing is known: {names:?}");
        check_misfires(&runs, (paused_us, resumed_us), missed)?;
        let repeated = runs.values().filter(|runs| runs.len() > 1).count();
        println!("{} executions, {repeated} of them ran again, {missed} firings missed or skipped", runs.len());
        Ok(())
    })?;
    process.kill()
}

/// What a worker process wrote down: by job id and sequence, the tokens that it began and those that it ended.
type Written = BTreeMap<(String, u64), (Vec<u64>, Vec<u64>)>;

fn read_ledger(path: &Path) -> anyhow::Result<Written> {
    let mut written = Written::new();
    for line in fs::read_to_string(path)?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [word, job, sequence, token] = words[..] else { anyhow::bail!("{line:?}") };
        let (begun, ended) = written.entry((job.to_owned(), sequence.parse()?)).or_default();
        if word == "start" { begun.push(token.parse()?) } else { ended.push(token.parse()?) }
    }
    Ok(written)
}

/// Job, sequence, token.
type Held = (String, u64, u64);

/// Attempts that were begun and not ended.
fn open_attempts(written: Written) -> Vec<Held> {
    let attempts = written.into_iter().map(|((job, sequence), (begun, ended))| (job, sequence, begun, ended));
    let last = attempts.filter_map(|(job, sequence, begun, ended)| {
        let token = *begun.last()?;
        (!ended.contains(&token)).then_some((job, sequence, token))
    });
    last.collect()
}

/// Stops the worker in the middle of some attempts; between two of them it goes on, and is stopped again a moment later.
async fn pause_at_work(worker: &mut Process, ledger: &Path) -> anyhow::Result<Vec<Held>> {
    let started = Instant::now();
    loop {
        worker.pause()?;
        let open = open_attempts(read_ledger(ledger)?);
        if !open.is_empty() {
            return Ok(open);
        }
        worker.go_on()?;
        ensure!(started.elapsed() < PATIENCE / 2, "the worker is never at work");
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
}

/// By job id and sequence, the tokens with which an execution ended well: one, as it should be.
type Successes = Arc<Mutex<BTreeMap<(String, u64), Vec<u64>>>>;

async fn watch_successes(client: &Client) -> anyhow::Result<Successes> {
    let mut watch = client.watch(ExecutionFilter::default()).await?;
    let successes = Successes::default();
    let seen = Arc::clone(&successes);
    tokio::spawn(async move {
        while let Some(Ok(Transition::Execution(found))) = watch.next().await {
            if found.state == ExecutionState::Succeeded {
                let key = (found.id.job.to_string(), found.id.fire_sequence.0);
                seen.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(found.token.0);
            }
        }
    });
    Ok(successes)
}

/// Waits until each of the attempts has another one after it, which runs; their tokens.
async fn successors(client: &Client, held: &[Held]) -> anyhow::Result<Vec<u64>> {
    let started = Instant::now();
    loop {
        let executions = client.executions(ExecutionFilter::default())?.collect().await?;
        let successor = |(job, sequence, token): &Held| {
            let is_it = |found: &&Execution| {
                found.id.job.to_string() == *job && found.id.fire_sequence.0 == *sequence && found.token.0 > *token
            };
            executions
                .iter()
                .find(is_it)
                .filter(|found| found.state == ExecutionState::Running)
                .map(|found| found.token.0)
        };
        if let Some(tokens) = held.iter().map(successor).collect() {
            return Ok(tokens);
        }
        ensure!(started.elapsed() < PATIENCE / 2, "not all of {held:?} run again: {executions:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn submit_many(client: &Client, jobs: Vec<JobBuilder>) -> anyhow::Result<()> {
    let results = client.submit_many(jobs.iter(), SubmitMode::Create).await;
    Ok(results.into_iter().try_for_each(|result| result.map(drop))?)
}

/// Lets the worker go on, and waits until it has ended what it held and has been given work of another kind: what it had to say before
/// was heard.
async fn go_on_and_work(worker: &mut Process, ledger: &Path, client: &Client, held: &[Held]) -> anyhow::Result<()> {
    worker.go_on()?;
    let has_ended = |written: &Written, (job, sequence, token): &Held| {
        written.get(&(job.clone(), *sequence)).is_some_and(|(_, ended)| ended.contains(token))
    };
    let begun_before = read_ledger(ledger)?.len();
    let started = Instant::now();
    for round in 0.. {
        let once = |index| JobBuilder::new(format!("once-{round}-{index}")).handler("any").after(Duration::ZERO);
        submit_many(client, (0..BEATS).map(once).collect()).await?;
        let written = read_ledger(ledger)?;
        if held.iter().all(|attempt| has_ended(&written, attempt)) && written.len() > begun_before + 2 * BEATS {
            break;
        }
        ensure!(started.elapsed() < PATIENCE / 2, "the worker does not work again: {written:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Each execution ended well once, with the token of `counted` if it was held, and whatever the worker began has ended well.
fn check_successes(successes: &Successes, ledger: &Path, held: &[Held], counted: &[u64]) -> anyhow::Result<()> {
    let successes = successes.lock().unwrap_or_else(PoisonError::into_inner);
    let twice: Vec<_> = successes.iter().filter(|(_, tokens)| tokens.len() > 1).collect();
    ensure!(twice.is_empty(), "ended well twice: {twice:?}");
    for ((job, sequence, token), counted) in held.iter().zip(counted) {
        let found = successes.get(&(job.clone(), *sequence));
        ensure!(
            found == Some(&vec![*counted]),
            "{job}/{sequence} with {token}, then {counted}, ended well with {found:?}"
        );
    }
    for (key, (begun, _)) in &read_ledger(ledger)? {
        ensure!(begun.is_sorted_by(|left, right| left < right), "tokens of {key:?} do not grow: {begun:?}");
        ensure!(successes.contains_key(key), "{key:?} was begun and never ended well");
    }
    Ok(())
}

#[test]
fn attempts_of_a_worker_that_stood_still_run_elsewhere_and_its_late_completions_do_not_count() -> anyhow::Result<()> {
    let folder = data_directory()?;
    let data = folder.path().join("data");
    fs::create_dir(&data)?;
    let (server, ledger) = (Server::new(folder.path(), &data, SETTINGS)?, folder.path().join("ledger"));
    let mut process = server.start()?;
    run(async {
        let client = server.client().await?;
        let successes = watch_successes(&client).await?;
        let arguments = [server.address(), &*data.to_string_lossy(), &*ledger.to_string_lossy()].map(str::to_owned);
        let arguments = [&arguments[..], &[IDLE.as_millis().to_string()]].concat();
        let mut stopped = Process::start(Path::new(env!("CARGO_BIN_EXE_crash-worker")), &arguments)?;
        let beat = |index| JobBuilder::new(format!("beat-{index}")).handler("held").every(BEAT / 2);
        submit_many(&client, (0..BEATS).map(beat).collect()).await?;
        wait_until("it works", || read_ledger(&ledger).is_ok_and(|written| written.len() > BEATS)).await?;
        let held = pause_at_work(&mut stopped, &ledger).await?;
        let (runs, (release, released)) = (Shared::default(), watch::channel(false));
        let healthy = start_worker(&server, &runs, released)?;
        tokio::time::sleep(PAUSE).await;
        // The other worker is still busy with what the first one held when that one reports it.
        let tokens = successors(&client, &held).await?;
        go_on_and_work(&mut stopped, &ledger, &client, &held).await?;
        let still = successors(&client, &held).await?;
        ensure!(still == tokens, "attempts {tokens:?} of {held:?} are now {still:?}");
        release.send_replace(true);
        for index in 0..BEATS {
            client.pause(&format!("beat-{index}")).await?;
        }
        settled(&client).await?;
        let check = || check_successes(&successes, &ledger, &held, &tokens);
        let told = wait_until("the watch has told of everything", || check().is_ok()).await;
        check().and(told)?;
        println!("{} attempts were held by the worker that stood still", held.len());
        healthy.drain().await?;
        client.close().await;
        Ok(())
    })?;
    process.kill()
}
