//! One request for each of millions of jobs, as fast as the server answers: submissions, deletions, look-ups.
//!
//! Every shard gets a session of its own and the jobs whose partitions it owns, a window of requests in flight. What the server
//! cannot take now is asked again; any other refusal is for the question to judge. [`Stream`] is the part without IO.
//!
//! Invariant: every job of the range is answered once, or the whole fails.

use crate::{
    ledger::Ledger,
    node::Node,
    plan::{Definitions, Plan, TENANT},
    worker::Shared,
};
use anyhow::{Context as _, Result, bail, ensure};
use indicatif::ProgressBar;
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tickwheel_client::{FrameBatch, Lane, RawFrame, Session, Topology};
use tickwheel_wire::{
    PartitionCount, PartitionId, ShardId,
    frame::{
        Frame as _, FrameType,
        request::{Done, ExpectedJob, JobByName, JobCommand, JobVerb, JobView, SubmitJob, SubmitMode, Submitted},
        session::{RefusalCode, Refused},
    },
    partition_of,
};
use tokio::task::JoinSet;

/// Longest silence of the server while answers are due.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Pause when the server could not take a request.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(5);
/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What is asked about each job.
#[derive(Debug)]
pub(crate) enum Question {
    /// Create it, or replace its definition; note it in the ledger if there is one.
    Submit(Definitions, Option<Arc<Shared>>),
    /// Delete it.
    Delete,
    /// Is it there? Counts those that are not.
    Find(AtomicU64),
}

/// One job's request on its way.
#[derive(Clone, Copy, Debug)]
struct Request<'a> {
    request_id: u64,
    partition: PartitionId,
    name: &'a str,
}

impl Question {
    fn encode(&self, index: u64, request: Request<'_>, spec: &mut Vec<u8>, out: &mut Vec<u8>) {
        let Request { request_id, partition, name } = request;
        match self {
            Self::Submit(definitions, _) => {
                definitions.encode(index, name, spec);
                let frame = SubmitJob {
                    request_id,
                    partition,
                    mode: SubmitMode::Upsert,
                    expected_revision: 0,
                    idempotency_key: &[],
                    idempotency_window_ms: 0,
                    spec,
                };
                frame.encode(out);
            }
            Self::Delete => {
                let (verb, expected) = (JobVerb::Delete, ExpectedJob::default());
                JobCommand { request_id, partition, verb, tenant: TENANT, name, expected }.encode(out);
            }
            Self::Find(_) => JobByName { request_id, partition, tenant: TENANT, name }.encode(out),
        }
    }

    fn answered(&self, frame: RawFrame<'_>) -> Result<u64> {
        match (self, frame.frame_type) {
            (Self::Submit(_, shared), FrameType::Submitted) => {
                let submitted = Submitted::decode_body(frame.body)?;
                let noted = shared.as_deref().map(|shared| note(&shared.ledger, &submitted));
                noted.transpose()?;
                Ok(submitted.request_id)
            }
            (Self::Delete, FrameType::Done) => Ok(Done::decode_body(frame.body)?.request_id),
            (Self::Find(_), FrameType::JobView) => Ok(JobView::decode_body(frame.body)?.request_id),
            (_, other) => bail!("an unexpected answer of type {}", other.name()),
        }
    }

    fn refused(&self, refused: &Refused<'_>) -> Result<()> {
        match self {
            Self::Find(missing) if refused.code == RefusalCode::UnknownJob => {
                missing.fetch_add(1, Relaxed);
                Ok(())
            }
            _ => bail!("refused: {}: {}", refused.code, refused.message),
        }
    }
}

fn note(ledger: &Ledger, submitted: &Submitted) -> Result<()> {
    let noted = ledger.expect(submitted.job, submitted.next_fire);
    noted.map_err(|error| anyhow::anyhow!("the server holds far more jobs than this run makes: {}", error.0))
}

/// Which shard owns each partition.
#[derive(Debug)]
struct Owners {
    partition_count: PartitionCount,
    shards: Vec<ShardId>,
}

impl Owners {
    fn of(topology: &Topology) -> Self {
        let partition_count = topology.partition_count();
        let shard_of = |partition| topology.shard_of(PartitionId(partition)).expect("each partition has a shard");
        Self { partition_count, shards: (0..partition_count.count()).map(shard_of).collect() }
    }
}

/// The requests of one shard, without their IO.
#[derive(Debug)]
struct Stream {
    plan: Arc<Plan>,
    owners: Arc<Owners>,
    shard: ShardId,
    /// Jobs that have not been looked at.
    ahead: Range<u64>,
    /// Jobs to be asked about again.
    again: VecDeque<u64>,
    in_flight: u32,
    name: String,
    spec: Vec<u8>,
}

impl Stream {
    fn new(plan: Arc<Plan>, owners: Arc<Owners>, shard: ShardId, ahead: Range<u64>) -> Self {
        Self { plan, owners, shard, ahead, again: VecDeque::new(), in_flight: 0, name: String::new(), spec: Vec::new() }
    }

    /// Appends requests until the window is full or there are no more.
    fn fill(&mut self, question: &Question, out: &mut Vec<u8>) {
        while self.in_flight < self.plan.window {
            let Some(index) = self.again.pop_front().or_else(|| self.ahead.next()) else { return };
            self.plan.name(index, &mut self.name);
            let partition = partition_of(TENANT, &self.name, self.owners.partition_count);
            if self.owners.shards[usize::from(partition.0)] != self.shard {
                continue;
            }
            // Request 0 is the session itself.
            let request = Request { request_id: index + 1, partition, name: &self.name };
            question.encode(index, request, &mut self.spec, out);
            self.in_flight += 1;
        }
    }

    /// Takes answers; how many requests are done with.
    fn take<'f>(&mut self, question: &Question, frames: impl Iterator<Item = RawFrame<'f>>) -> Result<u64> {
        let mut done = 0;
        for frame in frames {
            let request_id = match frame.frame_type {
                FrameType::GoAway => bail!("the server drains"),
                FrameType::Refused => {
                    let refused = Refused::decode_body(frame.body)?;
                    ensure!(refused.request_id != 0, "the session was refused: {}", refused.message);
                    if refused.code == RefusalCode::Overloaded {
                        self.again.push_back(refused.request_id - 1);
                        self.in_flight = self.in_flight.checked_sub(1).context("more answers than requests")?;
                        continue;
                    }
                    question.refused(&refused)?;
                    refused.request_id
                }
                _ => question.answered(frame)?,
            };
            ensure!(request_id != 0, "an answer without a question");
            self.in_flight = self.in_flight.checked_sub(1).context("more answers than requests")?;
            done += 1;
        }
        Ok(done)
    }

    /// Whether all is answered, once [`Stream::fill`] found nothing more.
    const fn is_done(&self) -> bool {
        self.in_flight == 0
    }

    async fn run(mut self, mut session: Session, question: Arc<Question>, done: Arc<AtomicU64>) -> Result<u64> {
        let (mut out, mut batch, mut total) = (Vec::new(), FrameBatch::new(), 0);
        loop {
            if !self.again.is_empty() {
                tokio::time::sleep(OVERLOAD_PAUSE).await;
            }
            out.clear();
            self.fill(&question, &mut out);
            if self.is_done() {
                session.close();
                return Ok(total);
            }
            session.send(Lane::Control, &out).await?;
            tokio::time::timeout(ANSWER_MAX, session.receive(&mut batch))
                .await
                .with_context(|| format!("shard {} has been silent for {ANSWER_MAX:?}", self.shard.0))??;
            let count = self.take(&question, batch.frames())?;
            total += count;
            done.fetch_add(count, Relaxed);
        }
    }
}

/// Asks the question about every job of the range, and waits for all answers. How long it took.
///
/// # Errors
/// When a session ends, the server is silent for long, or refuses what it should not.
pub(crate) async fn ask(
    node: &Node,
    plan: &Arc<Plan>,
    range: Range<u64>,
    question: &Arc<Question>,
    bar: &ProgressBar,
) -> Result<Duration> {
    let started = Instant::now();
    let (mut streams, done, before) = (JoinSet::new(), Arc::new(AtomicU64::new(0)), bar.position());
    let owners = Arc::new(Owners::of(node.topology()));
    for shard in 0..node.shard_count() {
        let session = node.open(shard).await?;
        let stream = Stream::new(Arc::clone(plan), Arc::clone(&owners), ShardId(shard), range.clone());
        streams.spawn(stream.run(session, Arc::clone(question), Arc::clone(&done)));
    }
    let mut total = 0;
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => bar.set_position(before + done.load(Relaxed)),
            ended = streams.join_next() => match ended {
                Some(ended) => total += ended.expect("streams do not panic")?,
                None => break,
            },
        }
    }
    bar.set_position(before + total);
    ensure!(total == range.end - range.start, "{total} of {} jobs were answered", range.end - range.start);
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests;
