//! Runs a profile: one file for each, and here what they share: the server, the fleet, submissions, the measurement, the end.
//!
//! Invariant: however a run ends, by its end, an error or a signal, a server that it started is gone afterwards.

mod herd;
mod resident;
mod steady;

use crate::{
    arguments::{Arguments, Profile},
    clock, cores,
    fleet::{Fleet, FleetPlan},
    ledger::{Audit, Ledger},
    node::{Counts, Node},
    pipeline::{self, Question},
    plan::{Definitions, Plan, Rhythm},
    process::{self, Usage},
    progress,
    spawned::{SpawnPlan, Spawned},
    tally::{Tally, Window},
    worker::Shared,
};
use anyhow::{Context as _, Result, anyhow, bail};
use std::{
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tickwheel_client::{ConnectConfig, Credentials};
use tickwheel_wire::{Timestamp, mix64};
use tokio::signal::unix::{SignalKind, signal};

/// How long a server may take to accept sessions after its start.
const READY_MAX: Duration = Duration::from_secs(600);
/// First and last time that one attempt to reach a starting server may take, and the pause between two.
const ATTEMPT_MIN: Duration = Duration::from_millis(100);
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);
/// How long after the end of the measurement what was due may still come.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks at the ledger.
const AUDIT_PAUSE: Duration = Duration::from_millis(100);
/// From the decision to measure to the start, so that every thread knows of it in time.
const WINDOW_LEAD: Duration = Duration::from_millis(50);

/// Does what the command line asks for, and writes the report. Whether every firing was accounted for and nothing failed.
///
/// # Errors
/// When the run could not be brought to its end.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = u32::try_from(mix64(clock::now().as_micros() ^ u64::from(std::process::id()) << 48) >> 32)?;
    let plan = Plan::resolve(arguments, run)?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            done = measure(arguments, plan) => done,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn measure(arguments: &Arguments, plan: Plan) -> Result<bool> {
    let profile = plan.profile;
    let mut bench = Bench::prepare(arguments, plan).await?;
    let report = match profile {
        Profile::Steady | Profile::Saturate => steady::run(&mut bench).await,
        Profile::Herd => herd::run(&mut bench).await,
        Profile::Resident => resident::run(&mut bench).await,
    };
    // If the server died, that explains better than what it did to us.
    bench.check()?;
    let report = report?;
    eprintln!("{}", report.summary());
    report.write(&arguments.json)?;
    Ok(report.is_clean())
}

/// What a profile works with.
pub(super) struct Bench {
    pub plan: Arc<Plan>,
    pub node: Node,
    admin: ConnectConfig,
    worker: ConnectConfig,
    spawned: Option<Spawned>,
    server_pid: Option<u32>,
    keep: bool,
}

/// What was measured, and what became of the rest.
pub(super) struct Outcome {
    pub tally: Tally,
    /// Firings that were due, did not come and are not among those that the server says it left out.
    pub unexplained: u64,
    pub unacknowledged: u64,
}

/// The server at one end of the measurement.
pub(super) struct Reading {
    pub counts: Counts,
    pub usage: Option<Usage>,
}

impl Bench {
    async fn prepare(arguments: &Arguments, plan: Plan) -> Result<Self> {
        let (mut spawned, address, certs) = match &arguments.connect {
            Some(address) => (None, address.clone(), arguments.certs.clone()),
            None => {
                let spawned = Spawned::start(spawn_plan(arguments, &plan))?;
                let (address, certs) = (spawned.listen().to_string(), spawned.certs());
                (Some(spawned), address, certs)
            }
        };
        let config = |name: &str| -> Result<ConnectConfig> {
            let mut config = ConnectConfig::new(address.clone(), credentials(&certs, name)?);
            config.mtu_bytes = arguments.mtu_bytes;
            Ok(config)
        };
        let (admin, worker) = (config("admin")?, config("worker")?);
        let node = match &mut spawned {
            Some(spawned) => until_ready(spawned, &admin).await?,
            None => Node::connect(&admin).await.with_context(|| format!("no session with the server at {address}"))?,
        };
        let (server_pid, keep) = (arguments.server_pid, arguments.keep);
        Ok(Self { plan: Arc::new(plan), node, admin, worker, spawned, server_pid, keep })
    }

    /// Whether the server is this run's own, to be killed at will.
    pub fn owns_server(&self) -> bool {
        self.spawned.is_some()
    }

    /// Whether the jobs stay on a server that is someone else's.
    pub const fn keeps_jobs(&self) -> bool {
        self.keep
    }

    /// Fails if the run's own server has ended.
    fn check(&mut self) -> Result<()> {
        self.spawned.as_mut().map_or(Ok(()), Spawned::check)
    }

    /// Worker connections in all.
    pub fn connections(&self) -> u32 {
        self.plan.connections(self.node.shard_count())
    }

    /// An empty ledger for jobs of this interval, and a window that is not open yet.
    pub fn shared(&self, jobs: u64, interval_us: u64) -> Arc<Shared> {
        let ledger = Ledger::new(self.node.topology().partition_count().count(), jobs, interval_us);
        Arc::new(Shared { ledger, window: Window::new(), handler: self.plan.handler() })
    }

    /// Starts the workers and waits until all are attached.
    pub async fn fleet(&self, shared: &Arc<Shared>) -> Result<Fleet> {
        let plan = FleetPlan {
            addresses: self.node.addresses().to_vec(),
            connect: self.worker.clone(),
            threads: self.plan.threads,
            connections: self.connections(),
            credit: self.plan.credit,
            run: self.plan.run,
            cores: if self.owns_server() { cores::beside(self.node.shard_count()) } else { Vec::new() },
        };
        let mut fleet = Fleet::start(&plan, shared)?;
        let bar = progress::bar("workers attach", plan.connections.into());
        fleet.attached(&bar).await?;
        bar.finish_and_clear();
        Ok(fleet)
    }

    /// Creates or replaces the jobs of the range. How long it took.
    pub async fn submit(&self, range: Range<u64>, rhythm: Rhythm, shared: Option<&Arc<Shared>>) -> Result<Duration> {
        let question = Question::Submit(Definitions::new(&self.plan, rhythm), shared.map(Arc::clone));
        self.ask("jobs are submitted", range, &Arc::new(question)).await
    }

    /// Asks about every job of the range; see [`pipeline::ask`].
    pub async fn ask(&self, what: &'static str, range: Range<u64>, question: &Arc<Question>) -> Result<Duration> {
        let bar = progress::bar(what, range.end - range.start);
        let elapsed = pipeline::ask(&self.node, &self.plan, range, question, &bar).await.context(what)?;
        bar.finish_and_clear();
        Ok(elapsed)
    }

    /// The server's counters and process as they stand.
    pub async fn read(&mut self) -> Result<Reading> {
        Ok(Reading { counts: self.node.counts().await?, usage: self.usage() })
    }

    /// The server's process as it stands; none if it cannot be seen.
    pub fn usage(&self) -> Option<Usage> {
        self.spawned.as_ref().and_then(Spawned::pid).or(self.server_pid).and_then(process::usage)
    }

    /// Waits until everything that was due by `until` has come and is acknowledged, or the time is up; then nothing more is judged, the jobs are
    /// deleted if the server is someone else's, and the workers end. `before` is what the server had counted before the first job.
    pub async fn end(&mut self, fleet: Fleet, shared: &Shared, until: Timestamp, before: &Counts) -> Result<Outcome> {
        let audit = drain(&shared.ledger, until).await;
        shared.window.close();
        // Read after the last judgement, so that it explains at least everything that was seen to be missing.
        let after = self.node.counts().await?.since(before);
        if self.spawned.is_none() && !self.keep {
            self.ask("jobs are deleted", 0..self.plan.jobs, &Arc::new(Question::Delete)).await?;
        }
        let tally = finish(fleet).await?;
        let explained = after.count("skipped") + after.count("misfired");
        let unexplained = (tally.missed + audit.outstanding).saturating_sub(explained);
        for (text, count) in tally.error_texts() {
            eprintln!("tickwheel-loadgen: {count} x {text}");
        }
        Ok(Outcome { tally, unexplained, unacknowledged: audit.unacknowledged })
    }

    /// Kills the run's own server, starts it again, and waits until all its shards accept sessions. When it was
    /// started.
    ///
    /// # Panics
    /// If the server is someone else's.
    pub async fn restart(&mut self) -> Result<Instant> {
        let spawned = self.spawned.as_mut().expect("only the run's own server is restarted");
        spawned.kill()?;
        let started = Instant::now();
        spawned.launch()?;
        self.node = until_ready(spawned, &self.admin).await?;
        Ok(started)
    }
}

/// Ends the workers without holding up the sessions of this thread.
pub(super) async fn finish(fleet: Fleet) -> Result<Tally> {
    tokio::task::spawn_blocking(|| fleet.finish()).await.map_err(|error| anyhow!("the workers' end: {error}"))?
}

/// Waits until all that was due by `until` is there and acknowledged; what is still open when the time is up.
pub(super) async fn drain(ledger: &Ledger, until: Timestamp) -> Audit {
    let started = Instant::now();
    loop {
        let looked = Instant::now();
        let audit = ledger.audit(until);
        let settled = audit.outstanding == 0 && audit.unacknowledged == 0;
        if settled || started.elapsed() >= DRAIN_MAX {
            return audit;
        }
        // The walk must not take the core away from what it waits for.
        tokio::time::sleep(AUDIT_PAUSE.max(looked.elapsed() * 4)).await;
    }
}

/// Opens sessions with all shards of a server that is starting.
async fn until_ready(spawned: &mut Spawned, config: &ConnectConfig) -> Result<Node> {
    let started = Instant::now();
    let mut patient = config.clone();
    patient.connect_timeout = ATTEMPT_MIN;
    loop {
        let attempt = Node::connect(&patient).await;
        spawned.check()?;
        match attempt {
            Ok(node) => return Ok(node),
            Err(error) if started.elapsed() >= READY_MAX => return Err(error.context("the server does not get ready")),
            Err(_) => {}
        }
        patient.connect_timeout = (patient.connect_timeout * 5 / 4).min(ATTEMPT_MAX);
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
}

fn credentials(certs: &Path, name: &str) -> Result<Credentials> {
    let file = |name: String| certs.join(name);
    Ok(Credentials::from_files(file("ca.pem".into()), file(format!("{name}.pem")), file(format!("{name}.key")))?)
}

fn spawn_plan(arguments: &Arguments, plan: &Plan) -> SpawnPlan {
    let half = u16::try_from((plan.cores / 2).max(1)).unwrap_or(u16::MAX);
    SpawnPlan {
        binary: arguments.server_bin.clone(),
        config: arguments.server_config.clone(),
        parent: arguments.data.clone(),
        shards: arguments.shards.unwrap_or(half),
        run: plan.run,
        keep: arguments.keep,
    }
}
