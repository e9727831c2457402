//! `kill -9`, again and again, against a ledger that is kept outside: what was acknowledged is there afterwards, nothing fires early,
//! nothing that was completed runs again, tokens only grow.
//!
//! `TICKWHEEL_KILLS` sets the number of kills; 50 by default. However many, they share the same number of submissions.

use anyhow::{Context as _, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tickwheel_client::{
    Client, ClientConfig, ConnectConfig, ExecutionFilter, ExecutionState, JobBuilder, JobFilter, Output, SubmitMode,
    Transition, Worker,
};
use tickwheel_server::certificates;
use tickwheel_tests::{
    credentials, data_directory,
    process::{Process, free_ports, server_binary},
};
use tokio::sync::watch;

const SHARDS: u16 = 2;
const INTERVAL_JOBS: usize = 20;
/// Most one-shots over all kills: a server forgets ended ones beyond 65,536 per partition, and every start reads the others.
const ONCE_MAX: u64 = 400_000;
/// Longest wait for the last executions after the last kill.
const SETTLE: Duration = Duration::from_secs(60);

fn kills() -> u32 {
    env::var("TICKWHEEL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

struct Scene {
    _temporary: tempfile::TempDir,
    data: PathBuf,
    address: String,
    binary: &'static Path,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let temporary = data_directory()?;
        let data = temporary.path().to_owned();
        certificates::ensure_local(&data.join("certs"))?;
        let config = "[node]\npartitions = 16\n[log]\nsegment_bytes = 4194304\nsnapshot_bytes = 1048576\n";
        fs::write(data.join("tickwheel.toml"), config)?;
        let address = format!("127.0.0.1:{}", free_ports(SHARDS)?);
        Ok(Self { _temporary: temporary, data, address, binary: server_binary()? })
    }

    fn start_server(&self) -> anyhow::Result<Process> {
        let (data, shards) = (self.data.to_string_lossy(), SHARDS.to_string());
        let config = self.data.join("tickwheel.toml");
        let config = config.to_string_lossy();
        let arguments =
            ["server", "--config", &config, "--data", &data, "--listen", &self.address, "--shards", &shards];
        Process::start(self.binary, &arguments)
    }

    fn start_worker(&self, ledger: &Path) -> anyhow::Result<Process> {
        let worker = Path::new(env!("CARGO_BIN_EXE_crash-worker"));
        let arguments = [&*self.address, &*self.data.to_string_lossy(), &*ledger.to_string_lossy()].map(str::to_owned);
        Process::start(worker, &arguments)
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let started = Instant::now();
        loop {
            let config = ConnectConfig::new(self.address.clone(), credentials(&self.data, "admin")?);
            match Client::connect(ClientConfig::new(config)).await {
                Ok(client) => return Ok(client),
                Err(error) => ensure!(started.elapsed() < SETTLE, "no server: {error}"),
            }
        }
    }
}

/// What happened, as seen from outside the server.
#[derive(Default)]
struct Ledger {
    /// Names of jobs whose submission was acknowledged.
    submitted: BTreeSet<String>,
    /// By job and fire sequence: the tokens of its runs, and whether one of them has ended well.
    runs: BTreeMap<(String, u64), (Vec<u64>, bool)>,
    /// By job: the highest token seen.
    tokens: BTreeMap<String, u64>,
    violations: Vec<String>,
}

impl Ledger {
    fn start(&mut self, job: &str, sequence: u64, token: u64) {
        let highest = self.tokens.entry(job.to_owned()).or_default();
        if token <= *highest {
            self.violations.push(format!("{job}/{sequence}: token {token} after token {highest}"));
        }
        *highest = token.max(*highest);
        let (tokens, ended) = self.runs.entry((job.to_owned(), sequence)).or_default();
        if *ended {
            self.violations
                .push(format!("{job}/{sequence} has ended well with {tokens:?} and runs again with {token}"));
        }
        tokens.push(token);
    }

    fn end(&mut self, job: &str, sequence: u64) {
        self.runs.entry((job.to_owned(), sequence)).or_default().1 = true;
    }

    /// Firings of a job must be numbered without gaps.
    fn gaps(&self) -> Vec<String> {
        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        let mut gaps = Vec::new();
        for (job, sequence) in self.runs.keys() {
            let expected = next.entry(job).or_insert(1);
            if sequence != expected {
                gaps.push(format!("{job}: {sequence} follows {}", *expected - 1));
            }
            *expected = sequence + 1;
        }
        gaps
    }
}

type Shared = Arc<Mutex<Ledger>>;

fn with<T>(ledger: &Shared, body: impl FnOnce(&mut Ledger) -> T) -> T {
    body(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_micros()).expect("it is before the year 586,000")
}

/// How many one-shots may be submitted by now; `None` for no more at all.
type Allowance = watch::Receiver<Option<u64>>;

/// What the round `round` and those before it may submit together.
fn allowance(round: u32) -> u64 {
    ONCE_MAX / u64::from(kills()) * u64::from(round + 1)
}

/// Submits interval jobs, then one-shots as allowed, and notes each acknowledgement.
async fn submit(client: Client, ledger: Shared, mut allowance: Allowance) -> anyhow::Result<()> {
    for index in 0..INTERVAL_JOBS {
        let job = JobBuilder::new(format!("interval-{index}")).handler("any").every(Duration::from_millis(50));
        client.submit(&job, SubmitMode::Upsert).await?;
        with(&ledger, |ledger| ledger.submitted.insert(format!("interval-{index}")));
    }
    let mut number = 0;
    while allowance.wait_for(|allowed| allowed.is_none_or(|count| number < count)).await?.is_some() {
        let names: Vec<String> = (0..8).map(|offset| format!("once-{}", number + offset)).collect();
        number += 8;
        let jobs: Vec<JobBuilder> = names
            .iter()
            .map(|name| JobBuilder::new(name.clone()).handler("any").after(Duration::from_millis(number % 100)))
            .collect();
        let results = client.submit_many(jobs.iter(), SubmitMode::Create).await;
        for (name, result) in names.into_iter().zip(results) {
            // What was not acknowledged may be there or not.
            if result.is_ok() {
                with(&ledger, |ledger| ledger.submitted.insert(name));
            }
        }
    }
    Ok(())
}

async fn check_all_there(client: &Client, ledger: &Shared) -> anyhow::Result<()> {
    let submitted = with(ledger, |ledger| ledger.submitted.clone());
    ensure!(submitted.len() > INTERVAL_JOBS, "hardly anything was submitted");
    let found = client.list(JobFilter::default())?.collect().await?;
    let found: BTreeSet<&str> = found.iter().map(|job| job.definition.name.as_str()).collect();
    let gone: Vec<&String> = submitted.iter().filter(|name| !found.contains(name.as_str())).collect();
    ensure!(gone.is_empty(), "{} jobs were acknowledged and are gone, {} first", gone.len(), gone[0]);
    Ok(())
}

/// Waits until every acknowledged one-shot has ended well.
async fn wait_until_all_ran(ledger: &Shared) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let missing: Vec<String> = with(ledger, |ledger| {
            let ended: BTreeSet<&str> =
                ledger.runs.iter().filter(|(_, (_, ended))| *ended).map(|((job, _), _)| job.as_str()).collect();
            ledger.submitted.iter().filter(|name| !ended.contains(name.as_str())).cloned().collect()
        });
        if missing.is_empty() {
            return Ok(());
        }
        ensure!(started.elapsed() < SETTLE, "{} acknowledged jobs have not run, {:?} first", missing.len(), missing[0]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A moment between two kills: anything from nothing to a third of a second, the same in every run.
async fn random_moment(round: u32) {
    let scrambled = tickwheel_tests::mix(u64::from(round));
    tokio::time::sleep(Duration::from_micros(scrambled % 333_000)).await;
}

#[test]
fn a_killed_server_loses_nothing_and_repeats_nothing() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let ledger = Shared::default();
    let early = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut server = scene.start_server()?;
        let client = scene.client().await?;
        let (runs, too_early) = (Arc::clone(&ledger), Arc::clone(&early));
        let worker = Worker::builder(ConnectConfig::new(scene.address.clone(), credentials(&scene.data, "worker")?))
            .pool("standard")
            .concurrency(64)
            .default_handler(move |attempt| {
                let (runs, too_early) = (Arc::clone(&runs), Arc::clone(&too_early));
                async move {
                    let (job, sequence) = (attempt.job_name().to_owned(), attempt.execution().fire_sequence.0);
                    if attempt.scheduled_at().as_micros() > now_us() {
                        too_early.fetch_add(1, Ordering::Relaxed);
                    }
                    with(&runs, |ledger| ledger.start(&job, sequence, attempt.token().0));
                    tokio::time::sleep(Duration::from_millis(sequence % 30)).await;
                    with(&runs, |ledger| ledger.end(&job, sequence));
                    Ok(Output(Vec::new()))
                }
            })
            .build()?
            .start();
        let (allowed, receiver) = watch::channel(Some(allowance(0)));
        let submitting = tokio::spawn(submit(client.clone(), Arc::clone(&ledger), receiver));
        for round in 0..kills() {
            allowed.send_replace(Some(allowance(round)));
            random_moment(round).await;
            server.kill()?;
            server = scene.start_server()?;
            scene.client().await?.close().await;
        }
        allowed.send_replace(None);
        submitting.await??;
        wait_until_all_ran(&ledger).await?;
        check_all_there(&client, &ledger).await?;
        worker.drain().await?;
        client.close().await;
        drop(server);
        anyhow::Ok(())
    })?;
    with(&ledger, |ledger| {
        println!("{} kills, {} submissions, {} executions", kills(), ledger.submitted.len(), ledger.runs.len());
        ensure!(ledger.violations.is_empty(), "{:#?}", ledger.violations);
        ensure!(ledger.gaps().is_empty(), "{:#?}", ledger.gaps());
        ensure!(early.load(Ordering::Relaxed) == 0, "{early:?} executions fired early");
        Ok(())
    })
}

/// What the killed workers wrote down: by job id and sequence the tokens started.
fn read_ledger(path: &Path) -> anyhow::Result<BTreeMap<(String, u64), Vec<u64>>> {
    let mut started: BTreeMap<(String, u64), Vec<u64>> = BTreeMap::new();
    for line in fs::read_to_string(path)?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["start", job, sequence, token] = words[..] {
            started.entry((job.to_owned(), sequence.parse()?)).or_default().push(token.parse()?);
        }
    }
    Ok(started)
}

#[test]
fn executions_of_a_killed_worker_run_again_with_higher_tokens_and_never_after_success() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let path = scene.data.join("worker-ledger");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let _server = scene.start_server()?;
        let client = scene.client().await?;
        let mut watch = client.watch(ExecutionFilter::default()).await?;
        let succeeded: Arc<Mutex<BTreeMap<(String, u64), u64>>> = Arc::default();
        let seen = Arc::clone(&succeeded);
        let watching = tokio::spawn(async move {
            while let Some(Ok(Transition::Execution(found))) = watch.next().await {
                if found.state == ExecutionState::Succeeded {
                    let key = (found.id.job.to_string(), found.id.fire_sequence.0);
                    let before = seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key, found.token.0);
                    assert!(before.is_none(), "{} has ended well twice", found.id);
                }
            }
        });
        let ledger = Shared::default();
        let (allowed, receiver) = watch::channel(Some(allowance(0)));
        let submitting = tokio::spawn(submit(client.clone(), Arc::clone(&ledger), receiver));
        let mut worker = scene.start_worker(&path)?;
        for round in 0..kills() {
            allowed.send_replace(Some(allowance(round)));
            random_moment(round).await;
            worker.kill()?;
            worker = scene.start_worker(&path)?;
        }
        allowed.send_replace(None);
        submitting.await??;
        for index in 0..INTERVAL_JOBS {
            client.pause(&format!("interval-{index}")).await?;
        }
        wait_until_idle(&client).await?;
        check_all_there(&client, &ledger).await?;
        watching.abort();
        let started = read_ledger(&path)?;
        let succeeded = succeeded.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{} kills, {} executions ended well", kills(), succeeded.len());
        ensure!(succeeded.len() > INTERVAL_JOBS, "hardly anything ran");
        for (key, token) in succeeded.iter() {
            let tokens = started.get(key).with_context(|| format!("{key:?} ended well and never started"))?;
            ensure!(tokens.is_sorted_by(|left, right| left < right), "tokens of {key:?} do not grow: {tokens:?}");
            ensure!(tokens.last() == Some(token), "{key:?} ended well with {token} and ran again: {tokens:?}");
        }
        anyhow::Ok(())
    })
}

/// Waits until nothing is in flight.
async fn wait_until_idle(client: &Client) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let executions = client.executions(ExecutionFilter::default())?.collect().await?;
        let is_running = |state| matches!(state, ExecutionState::Running | ExecutionState::Retrying);
        if !executions.iter().any(|execution| is_running(execution.state)) {
            return Ok(());
        }
        ensure!(started.elapsed() < SETTLE, "executions do not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
