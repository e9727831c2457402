//! The client: one handle for a whole node, which finds the shard that owns a job, keeps a session with each, and reconnects.
//!
//! Each shard that is needed gets one task with one session; requests are pipelined, answers are matched by request id. What is safe
//! to repeat survives a lost session: reads, pause, resume, cancel, calendars, watches, and submissions, which carry an idempotency
//! key. A trigger or a delete that was sent and not answered fails with [`RequestError::Disconnected`].

mod backlog;
mod bulk;
mod calendars;
mod connection;
mod pager;
mod request;
mod watch;

pub use bulk::{Bulk, BulkAction, BulkOutcome, BulkProgress, BulkReport, BulkStopper};
pub use pager::{CalendarPager, ExecutionPager, JobPager, Pager};
pub use watch::Watch;

use crate::{
    config::ConnectConfig,
    definition::{JobBuilder, JobDefinition, millis},
    error::{ConnectError, RequestError},
    link::Directory,
    random::Random,
    session::{Dialer, Session},
    topology::Topology,
    types::{CommandDone, Execution, ExecutionFilter, Job, JobFilter, Submission},
};
use connection::{COMMANDS_MAX, Connection, Shared};
use request::{Call, Command, InFlight, Reply, Sink, WatchSink};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tickwheel_wire::{
    ExecutionId, PartitionId, ShardId,
    frame::{
        Frame,
        request::{
            CancelExecution, ExecutionById, ExecutionSelection, ExpectedJob, JobByName, JobCommand, JobSelection,
            JobVerb, ListExecutions, ListJobs, SubmitJob, SubmitMode, Watch as WatchFrame,
        },
    },
    job::{JobSpecError, LabelSelector},
    limits,
};
use tokio::{
    sync::{mpsc, oneshot, watch as watch_channel},
    time::{Instant, timeout, timeout_at},
};

/// Tenant of a client whose identity may speak for any, unless it chooses one.
const TENANT_DEFAULT: &str = "default";
/// Requests that [`Client::submit_many`] and [`Client::get_many`] keep in flight.
const REQUESTS_AHEAD: usize = 1024;
/// How long [`Client::close`] waits for the last packets to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of a client. [`ClientConfig::new`] fills in the defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// How to reach the node.
    pub connect: ConnectConfig,
    /// Tenant of the jobs whose submission names none. Default: that of the identity, or `default`.
    pub tenant: Option<String>,
    /// Longest wait for an answer, reconnects included. Default 30 s.
    pub request_timeout: Duration,
}

impl ClientConfig {
    /// The defaults.
    pub const fn new(connect: ConnectConfig) -> Self {
        Self { connect, tenant: None, request_timeout: Duration::from_secs(30) }
    }
}

/// A connection to a node. Cheap to clone; the last clone that is dropped ends the sessions, [`Client::close`] does so politely.
///
/// Its tasks run on the tokio runtime (of any flavour) that each request is made on.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
    tenant: Arc<str>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    links: Mutex<HashMap<ShardId, mpsc::Sender<Command>>>,
    request_timeout: Duration,
    /// Distinguishes this client's idempotency keys from those of every other.
    key_prefix: u128,
    keys: AtomicU64,
}

impl Client {
    /// Connects to the node and learns its topology.
    ///
    /// # Errors
    /// When the settings cannot be used, nothing answers in time, or the node refuses the identity.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let directory = Directory::new(Dialer::new(config.connect)?);
        let session = directory.open(|topology| topology.shard, true).await?;
        let topology = Arc::clone(session.topology());
        let tenant = config.tenant.unwrap_or_else(|| match &*topology.tenant {
            "" => TENANT_DEFAULT.to_owned(),
            own => own.to_owned(),
        });
        let shared = Shared { directory, request_ids: AtomicU64::new(0), closed: watch_channel::Sender::new(false) };
        let inner = Arc::new(Inner {
            shared: Arc::new(shared),
            links: Mutex::default(),
            request_timeout: config.request_timeout,
            key_prefix: Random::wide(),
            keys: AtomicU64::new(0),
        });
        inner.link(topology.shard, Some(session));
        Ok(Self { inner, tenant: tenant.into() })
    }

    /// The same client, speaking for another tenant by default; for identities that may speak for several.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        Self { inner: Arc::clone(&self.inner), tenant: tenant.into() }
    }

    /// The tenant that jobs belong to unless something else is said.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The node as it last described itself.
    pub fn topology(&self) -> Arc<Topology> {
        self.inner.topology()
    }

    /// Creates a job, or with [`SubmitMode::Upsert`] creates or replaces it; returns when that is durable. Repeated by itself
    /// after a lost session: the idempotency key makes the repetitions one.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] when the definition breaks a rule; the node's refusals; no answer in time.
    pub async fn submit(&self, job: &JobBuilder, mode: SubmitMode) -> Result<Submission, RequestError> {
        submission(self.start_submit(job, mode).await?.answer().await)
    }

    /// Submits many jobs, pipelined; the results are in the order of the jobs. A failure does not keep the others from
    /// being submitted.
    pub async fn submit_many<'a>(
        &self,
        jobs: impl IntoIterator<Item = &'a JobBuilder>,
        mode: SubmitMode,
    ) -> Vec<Result<Submission, RequestError>> {
        let (mut results, mut ahead) = (Vec::new(), VecDeque::with_capacity(REQUESTS_AHEAD));
        for job in jobs {
            if ahead.len() == REQUESTS_AHEAD {
                results.push(finish(ahead.pop_front()).await);
            }
            ahead.push_back(self.start_submit(job, mode).await);
        }
        while !ahead.is_empty() {
            results.push(finish(ahead.pop_front()).await);
        }
        results
    }

    /// One job.
    ///
    /// # Errors
    /// A refusal `unknown-job`, and what every request may meet.
    pub async fn get(&self, name: &str) -> Result<Job, RequestError> {
        job(self.start_get(name).await?.answer().await)
    }

    /// Jobs by tenant and name, pipelined; the results are in the order of the names.
    pub async fn get_many<'a>(
        &self,
        names: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<Result<Job, RequestError>> {
        let (mut results, mut ahead) = (Vec::new(), VecDeque::with_capacity(REQUESTS_AHEAD));
        for (tenant, name) in names {
            if ahead.len() == REQUESTS_AHEAD {
                results.push(finish_get(ahead.pop_front()).await);
            }
            ahead.push_back(self.for_tenant(tenant).start_get(name).await);
        }
        while !ahead.is_empty() {
            results.push(finish_get(ahead.pop_front()).await);
        }
        results
    }

    /// Lists jobs across all partitions, by partition.
    ///
    /// # Errors
    /// [`RequestError::TooLong`] when the filter is longer than any name, [`RequestError::Filter`] when it means nothing.
    pub fn list(&self, filter: JobFilter) -> Result<JobPager, RequestError> {
        bounded("tenant", &filter.tenant, limits::TENANT_NAME_BYTES_MAX)?;
        bounded("prefix", &filter.prefix, limits::JOB_NAME_BYTES_MAX)?;
        check_selector(&filter.labels)?;
        let encode = move |request_id, partition, cursor| {
            let (tenant, prefix, limit) = (&*filter.tenant, &*filter.prefix, pager::PAGE_ENTRIES);
            let selection = JobSelection { labels: &filter.labels, states: filter.states };
            encoded(&ListJobs { request_id, partition, tenant, prefix, cursor, limit, selection })
        };
        let rows = |reply| match reply {
            Reply::Jobs(rows, cursor) => Some((rows, cursor)),
            _ => None,
        };
        let kind = pager::Kind { encode: Box::new(encode), sink: |answer| Sink::Jobs(Vec::new(), answer), rows };
        Ok(Pager::new(self.clone(), kind, self.partitions()))
    }

    /// Stops a job's firing.
    ///
    /// # Errors
    /// A refusal `unknown-job`, and what every request may meet.
    pub async fn pause(&self, name: &str) -> Result<CommandDone, RequestError> {
        self.command(name, JobVerb::Pause, true).await
    }

    /// Lets a paused job fire again, from the next time on.
    ///
    /// # Errors
    /// A refusal `unknown-job` or `never-fires`, and what every request may meet.
    pub async fn resume(&self, name: &str) -> Result<CommandDone, RequestError> {
        self.command(name, JobVerb::Resume, true).await
    }

    /// Fires a job now, besides its schedule.
    ///
    /// # Errors
    /// A refusal `unknown-job` or `overlap-skipped`; [`RequestError::Disconnected`] when the session was lost before the answer.
    pub async fn trigger(&self, name: &str) -> Result<CommandDone, RequestError> {
        self.command(name, JobVerb::Trigger, false).await
    }

    /// Forgets a job and cancels what runs of it. A job created under the same name later is another one.
    ///
    /// # Errors
    /// A refusal `unknown-job`; [`RequestError::Disconnected`] when the session was lost before the answer.
    pub async fn delete(&self, name: &str) -> Result<CommandDone, RequestError> {
        self.command(name, JobVerb::Delete, false).await
    }

    /// Lists executions: of each partition those in flight, then the newest finished ones that it remembers.
    ///
    /// # Errors
    /// [`RequestError::TooLong`] when the filter is longer than any name, [`RequestError::Filter`] when it means nothing.
    pub fn executions(&self, filter: ExecutionFilter) -> Result<ExecutionPager, RequestError> {
        let ExecutionFilter { tenant, job, prefix, labels, in_flight } = filter;
        let (tenant, partitions) = self.scope(tenant, &job)?;
        bounded("prefix", &prefix, limits::JOB_NAME_BYTES_MAX)?;
        check_selector(&labels)?;
        let encode = move |request_id, partition, cursor| {
            let (tenant, name, limit) = (&*tenant, &*job, pager::PAGE_ENTRIES);
            let selection = ExecutionSelection { prefix: &prefix, labels: &labels, in_flight };
            encoded(&ListExecutions { request_id, partition, tenant, name, cursor, limit, selection })
        };
        let rows = |reply| match reply {
            Reply::Executions(rows, cursor) => Some((rows, cursor)),
            _ => None,
        };
        let kind = pager::Kind { encode: Box::new(encode), sink: |answer| Sink::Executions(Vec::new(), answer), rows };
        Ok(Pager::new(self.clone(), kind, partitions))
    }

    /// One execution's attempt in flight or newest one.
    ///
    /// # Errors
    /// A refusal `unknown-execution`, and what every request may meet.
    pub async fn execution(&self, id: ExecutionId) -> Result<Execution, RequestError> {
        let ExecutionId { job, fire_sequence } = id;
        let partition = job.partition();
        let encode = |request_id| encoded(&ExecutionById { request_id, partition, job, fire_sequence });
        match self.ask(partition, true, encode).await? {
            Reply::Execution(execution) => Ok(*execution),
            other => Err(unexpected(&other)),
        }
    }

    /// Cancels an execution in flight; returns when the wish is durable. Its worker is told; [`Client::execution`] or a watch says
    /// what became of it.
    ///
    /// # Errors
    /// A refusal `unknown-execution`, and what every request may meet.
    pub async fn cancel(&self, id: ExecutionId) -> Result<CommandDone, RequestError> {
        let ExecutionId { job, fire_sequence } = id;
        let partition = job.partition();
        let encode = |request_id| encoded(&CancelExecution { request_id, partition, job, fire_sequence });
        done(self.ask(partition, true, encode).await?)
    }

    /// Does the same with many jobs or executions. Nothing is asked before [`Bulk::next`]: what the filter picks is listed and
    /// commanded as the reports are taken. The action goes on after a refusal. A job that was changed, or deleted and created
    /// anew, after it was listed is refused with `revision-conflict`. A trigger or a delete whose session was lost before the
    /// answer is reported with [`RequestError::Disconnected`].
    ///
    /// # Errors
    /// [`RequestError::TooLong`] when the filter is longer than any name, [`RequestError::Filter`] when it means nothing.
    pub fn bulk(&self, action: BulkAction) -> Result<Bulk, RequestError> {
        Bulk::new(self, action)
    }

    /// Watches the executions of one job, or of every job that the filter lets through; returns when the watch stands in all
    /// partitions concerned. It survives reconnects; see [`crate::Transition::Resumed`].
    ///
    /// # Errors
    /// [`RequestError::Filter`] when the filter asks for more than tenant and job, the refusals of the node, and what every
    /// request may meet.
    pub async fn watch(&self, filter: ExecutionFilter) -> Result<Watch, RequestError> {
        let asks = [("prefix", !filter.prefix.is_empty()), ("labels", !filter.labels.is_empty())];
        if let Some((field, _)) = asks.into_iter().chain([("in_flight", filter.in_flight)]).find(|(_, asks)| *asks) {
            return Err(RequestError::Filter { field, problem: "a watch is of one job or of a tenant's".to_owned() });
        }
        let (tenant, partitions) = self.scope(filter.tenant, &filter.job)?;
        let topology = self.topology();
        let reserve = partitions.len() + usize::from(topology.shard_count());
        let (sender, events) = mpsc::channel(watch::EVENTS_MAX + reserve);
        let mut watch = Watch { events, shares: Vec::new(), resumed: false, failed: false };
        let mut starting = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let mut id = 0;
            let encode = |request_id| {
                id = request_id;
                encoded(&WatchFrame { request_id, partition, tenant: &tenant, name: &filter.job })
            };
            let sink = |answer| Sink::Watch(WatchSink { ready: Some(answer), events: sender.clone(), reserve });
            starting.push(self.start(partition, true, encode, sink).await);
            let link = self.inner.link(self.inner.shard_of(partition), None);
            match watch.shares.iter_mut().find(|share| share.link.same_channel(&link)) {
                Some(share) => share.requests.push((id, partition)),
                None => watch.shares.push(watch::Share { link, requests: vec![(id, partition)] }),
            }
        }
        for request in starting {
            request.answer().await?;
        }
        Ok(watch)
    }

    /// Ends the sessions and waits, for a second at most, until the node was told. Requests in flight fail with
    /// [`RequestError::Closed`], on all clones.
    pub async fn close(self) {
        self.inner.shared.closed.send_replace(true);
        let _ = timeout(CLOSE_TIMEOUT, self.inner.shared.directory.dialer().wait_idle()).await;
    }

    async fn command(&self, name: &str, verb: JobVerb, repeatable: bool) -> Result<CommandDone, RequestError> {
        let (tenant, partition) = self.locate(name)?;
        let expected = ExpectedJob::default();
        let encode = |request_id| encoded(&JobCommand { request_id, partition, verb, tenant, name, expected });
        done(self.ask(partition, repeatable, encode).await?)
    }

    async fn start_submit(&self, job: &JobBuilder, mode: SubmitMode) -> Result<InFlight, RequestError> {
        if !job.scheduled {
            return Err(JobSpecError::Missing("schedule").into());
        }
        if let Some(error) = &job.wrong_label {
            return Err(JobSpecError::Labels(error.clone()).into());
        }
        let own;
        let definition = if job.definition.tenant.is_empty() {
            own = JobDefinition { tenant: self.tenant.to_string(), ..job.definition.clone() };
            &own
        } else {
            &job.definition
        };
        let topology = self.topology();
        let spec = definition.spec();
        spec.validate(topology.payload_bytes_max as usize)?;
        let mut spec_bytes = Vec::with_capacity(64 + spec.payload.len());
        spec.encode(&mut spec_bytes);
        let random_key;
        let idempotency_key = match &job.idempotency_key {
            Some(key) if key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX => {
                let bytes_max = limits::IDEMPOTENCY_KEY_BYTES_MAX;
                return Err(RequestError::TooLong { field: "idempotency_key", bytes: key.len(), bytes_max });
            }
            Some(key) => &**key,
            None => {
                random_key = self.inner.random_key();
                &random_key
            }
        };
        let partition = topology.partition_of(spec.tenant, spec.name);
        let encode = |request_id| {
            encoded(&SubmitJob {
                request_id,
                partition,
                mode,
                expected_revision: job.expected_revision,
                idempotency_key,
                idempotency_window_ms: millis(job.idempotency_window),
                spec: &spec_bytes,
            })
        };
        Ok(self.start(partition, true, encode, Sink::Single).await)
    }

    async fn start_get(&self, name: &str) -> Result<InFlight, RequestError> {
        let (tenant, partition) = self.locate(name)?;
        let encode = |request_id| encoded(&JobByName { request_id, partition, tenant, name });
        Ok(self.start(partition, true, encode, Sink::Single).await)
    }

    async fn ask(
        &self,
        partition: PartitionId,
        repeatable: bool,
        encode: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<Reply, RequestError> {
        self.start(partition, repeatable, encode, Sink::Single).await.answer().await
    }

    /// Hands a request to the link of the shard that owns the partition.
    async fn start(
        &self,
        partition: PartitionId,
        repeatable: bool,
        encode: impl FnOnce(u64) -> Vec<u8>,
        sink: impl FnOnce(oneshot::Sender<Result<Reply, RequestError>>) -> Sink,
    ) -> InFlight {
        let inner = &*self.inner;
        let (answer, receiver) = oneshot::channel();
        let request_id = inner.shared.next_request_id();
        let call = Call { request_id, frame: encode(request_id), repeatable, sink: sink(answer) };
        let limit = inner.request_timeout;
        let deadline = Instant::now() + limit;
        let link = inner.link(inner.shard_of(partition), None);
        // When the queue stays full or the client is closed, the call and with it the answer's sender is dropped, which
        // the receiver notices.
        let _ = timeout_at(deadline, link.send(Command::Call(call))).await;
        InFlight { receiver, deadline, limit }
    }

    fn partitions(&self) -> impl ExactSizeIterator<Item = PartitionId> + DoubleEndedIterator + use<> {
        (0..self.topology().partition_count().count()).map(PartitionId)
    }

    /// Tenant and partition of a job of this client's tenant.
    fn locate(&self, name: &str) -> Result<(&str, PartitionId), RequestError> {
        bounded("tenant", &self.tenant, limits::TENANT_NAME_BYTES_MAX)?;
        bounded("name", name, limits::JOB_NAME_BYTES_MAX)?;
        Ok((&self.tenant, self.topology().partition_of(&self.tenant, name)))
    }

    /// The tenant that a filter means, and the partitions where it can match.
    fn scope(&self, tenant: String, job: &str) -> Result<(String, Vec<PartitionId>), RequestError> {
        bounded("tenant", &tenant, limits::TENANT_NAME_BYTES_MAX)?;
        bounded("name", job, limits::JOB_NAME_BYTES_MAX)?;
        if job.is_empty() {
            return Ok((tenant, self.partitions().collect()));
        }
        let tenant = if tenant.is_empty() { self.tenant.to_string() } else { tenant };
        let partition = self.topology().partition_of(&tenant, job);
        Ok((tenant, vec![partition]))
    }
}

impl Inner {
    fn topology(&self) -> Arc<Topology> {
        self.shared.directory.topology().expect("a client exists only after its first session")
    }

    fn shard_of(&self, partition: PartitionId) -> ShardId {
        let topology = self.topology();
        // The node refuses what concerns no partition; any shard can do that.
        topology.shard_of(partition).unwrap_or(topology.shard)
    }

    /// The queue of the task that serves a shard; starts it if it does not run.
    fn link(&self, shard: ShardId, session: Option<Session>) -> mpsc::Sender<Command> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match links.get(&shard) {
            // A task that ended did so with the client or with its runtime; the latter may have a successor.
            Some(link) if !link.is_closed() || *self.shared.closed.borrow() => link.clone(),
            _ => {
                let (sender, commands) = mpsc::channel(COMMANDS_MAX);
                tokio::spawn(Connection::new(shard, Arc::clone(&self.shared), commands).run(session));
                links.insert(shard, sender.clone());
                sender
            }
        }
    }

    /// A key that no other submission has.
    fn random_key(&self) -> [u8; 24] {
        let mut key = [0; 24];
        key[..16].copy_from_slice(&self.key_prefix.to_le_bytes());
        key[16..].copy_from_slice(&self.keys.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        key
    }
}

fn encoded<'a>(frame: &impl Frame<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn bounded(field: &'static str, text: &str, bytes_max: usize) -> Result<(), RequestError> {
    if text.len() <= bytes_max { Ok(()) } else { Err(RequestError::TooLong { field, bytes: text.len(), bytes_max }) }
}

fn check_selector(labels: &str) -> Result<(), RequestError> {
    match LabelSelector::parse(labels) {
        Ok(_) => Ok(()),
        Err(error) => Err(RequestError::Filter { field: "labels", problem: error.to_string() }),
    }
}

async fn finish(request: Option<Result<InFlight, RequestError>>) -> Result<Submission, RequestError> {
    let request = request.expect("called for requests that were started");
    submission(request?.answer().await)
}

async fn finish_get(request: Option<Result<InFlight, RequestError>>) -> Result<Job, RequestError> {
    let request = request.expect("called for requests that were started");
    job(request?.answer().await)
}

fn job(reply: Result<Reply, RequestError>) -> Result<Job, RequestError> {
    match reply? {
        Reply::Job(job) => Ok(*job),
        other => Err(unexpected(&other)),
    }
}

fn submission(reply: Result<Reply, RequestError>) -> Result<Submission, RequestError> {
    match reply? {
        Reply::Submitted(submission) => Ok(submission),
        other => Err(unexpected(&other)),
    }
}

fn done(reply: Reply) -> Result<CommandDone, RequestError> {
    match reply {
        Reply::Done(done) => Ok(done),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &Reply) -> RequestError {
    let what = match reply {
        Reply::Submitted(_) => "submitted",
        Reply::Done(_) => "done",
        Reply::Backfill(_) => "what was backfilled",
        Reply::Job(_) => "a job",
        Reply::Execution(_) => "an execution",
        Reply::Jobs(..) | Reply::Executions(..) | Reply::Calendars(..) => "a page",
    };
    RequestError::UnexpectedAnswer(what.to_owned())
}
