//! Client and worker library of Tickwheel, the distributed job scheduler.
//!
//! Three layers, each usable by itself:
//!
//! - [`Client`] submits jobs and asks about them; it finds the shard that owns a job, pipelines, times out, reconnects.
//! - [`Worker`] runs handlers for the executions that a node dispatches, with heartbeats, cancellation, re-attachment after a
//!   lost connection, and a graceful drain.
//! - [`Dialer`] and [`Session`] are the batch layer below: one QUIC connection to one shard, many frames per call, nothing
//!   allocated per frame. The frames themselves are in `tickwheel-wire`.
//!
//! Everything runs on tokio, on a current-thread runtime as well as on a multi-thread one, and nothing is global.
//!
//! # Submitting jobs
//!
//! ```no_run
//! use std::time::Duration;
//! use tickwheel_client::{Client, ClientConfig, ConnectConfig, Credentials, JobBuilder, JobFilter, SubmitMode};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::from_files("certs/ca.pem", "certs/client.pem", "certs/client.key")?;
//! let client = Client::connect(ClientConfig::new(ConnectConfig::new("127.0.0.1:7400", credentials))).await?;
//!
//! let report = JobBuilder::new("nightly-report").handler("report").cron("30 2 * * *").zone("Europe/Berlin");
//! let submitted = client.submit(&report, SubmitMode::Upsert).await?;
//! println!("{} fires next at {:?}", submitted.job, submitted.next_fire);
//!
//! // Many at once are pipelined.
//! let polls: Vec<_> = (0..1000)
//!     .map(|index| JobBuilder::new(format!("poll-{index}")).handler("poll").every(Duration::from_secs(10)))
//!     .collect();
//! for result in client.submit_many(&polls, SubmitMode::Upsert).await {
//!     result?;
//! }
//!
//! let mut jobs = client.list(JobFilter { prefix: "poll-".to_owned(), ..JobFilter::default() })?;
//! while let Some(job) = jobs.next().await {
//!     let job = job?;
//!     println!("{}: {}", job.definition.name, job.last_state);
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The same for many
//!
//! ```no_run
//! use tickwheel_client::{BulkAction, BulkOutcome, Client, JobFilter, JobState, JobStates};
//!
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! // What has failed last and belongs to the team is paused, until somebody has looked at it.
//! let filter = JobFilter {
//!     labels: "team=ops,env!=test".to_owned(),
//!     states: JobStates::NONE.with(JobState::Failing),
//!     ..JobFilter::default()
//! };
//! let mut bulk = client.bulk(BulkAction::Pause(filter))?;
//! while let Some(report) = bulk.next().await {
//!     let report = report?;
//!     if let BulkOutcome::Failed(error) = report.outcome {
//!         eprintln!("{}: {error}", report.job_name);
//!     }
//! }
//! println!("{} are paused", bulk.progress().done);
//! # Ok(())
//! # }
//! ```
//!
//! # Calendars
//!
//! ```no_run
//! use tickwheel_client::{Client, JobBuilder, SubmitMode};
//!
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! client.set_calendar("holidays", "12-25\n12-26\n2030-04-22").await?;
//! let settle = JobBuilder::new("settle").handler("settle").cron("0 18 * * *").exclude_calendar("holidays");
//! client.submit(&settle, SubmitMode::Upsert).await?;
//! // Another day off: the job's next firing follows, without another submission.
//! client.set_calendar("holidays", "12-25\n12-26\n2030-04-22\n2030-05-01").await?;
//! for calendar in client.calendars()?.collect().await? {
//!     println!("{} has {} entries", calendar.name, calendar.exclusions.lines().count());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Running handlers
//!
//! ```no_run
//! use tickwheel_client::{Attempt, ConnectConfig, Credentials, Failure, Output, Worker};
//!
//! async fn report(attempt: Attempt) -> Result<Output, Failure> {
//!     let region = str::from_utf8(attempt.payload()).map_err(|error| Failure::permanent("payload", error.to_string()))?;
//!     for step in 0..10_u16 {
//!         if attempt.is_cancelled() {
//!             return Err(Failure::retryable("stopped", "asked to stop"));
//!         }
//!         // ... a tenth of the work; `attempt.token()` fences what it changes ...
//!         attempt.progress((step + 1) * 100);
//!         attempt.status(format!("{} of 10 tables are read", step + 1))?;
//!     }
//!     Ok(format!("the report for {region} is done").into())
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::from_files("certs/ca.pem", "certs/worker.pem", "certs/worker.key")?;
//! let worker = Worker::builder(ConnectConfig::new("127.0.0.1:7400", credentials))
//!     .pool("standard")
//!     .concurrency(16)
//!     .handler("report", report)
//!     .handler("poll", |attempt| async move { Ok(Output::from(attempt.job_name())) })
//!     .build()?;
//! let handle = worker.start();
//! // ... until it is time to go:
//! handle.drain().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Batches
//!
//! ```no_run
//! use tickwheel_client::{ConnectConfig, Credentials, Dialer, FrameBatch};
//! use tickwheel_wire::frame::{
//!     Frame, FrameType,
//!     work::{Complete, CompleteHead, Dispatch, Outcome},
//! };
//!
//! # async fn example(config: ConnectConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let session = Dialer::new(config)?.open("127.0.0.1:7400".parse()?).await?;
//! let (mut sender, mut receiver) = session.split();
//! // ... after `Attach` and `Attached`: every dispatch is answered at once, a batch with a batch.
//! let (mut batch, mut answers) = (FrameBatch::new(), [const { Vec::new() }; 4]);
//! loop {
//!     receiver.receive(&mut batch).await?;
//!     for frame in batch.frames().filter(|frame| frame.frame_type == FrameType::Dispatch) {
//!         let head = Dispatch::decode_body(frame.body)?.head;
//!         let head = CompleteHead {
//!             job: head.job,
//!             fire_sequence: head.fire_sequence,
//!             token: head.token,
//!             run_us: 0,
//!             outcome: Outcome::Succeeded,
//!             error_bytes: 0,
//!         };
//!         Complete { head, error: "", output: b"" }.encode(&mut answers[frame.lane as usize]);
//!     }
//!     for (lane, bytes) in tickwheel_client::Lane::ALL.into_iter().zip(&mut answers) {
//!         sender.send(lane, bytes).await?;
//!         bytes.clear();
//!     }
//! }
//! # }
//! ```
//!
//! # Code map
//!
//! `config` and `session` open connections, `batch` cuts bytes into frames, `link` is what client and worker share below their protocols.
//! `client/` has one task per shard (`connection`), `worker/` one per seat (`station`). Invariant: the two know nothing of
//! each other. Deliberately absent: server code, schedules (the node computes them), anything global.

mod backoff;
mod batch;
mod client;
mod config;
mod definition;
mod error;
mod link;
mod random;
mod session;
mod topology;
mod types;
mod worker;

pub use batch::{FrameBatch, LANE_COUNT, Lane, RawFrame};
pub use client::{
    Bulk, BulkAction, BulkOutcome, BulkProgress, BulkReport, BulkStopper, CalendarPager, Client, ClientConfig,
    ExecutionPager, JobPager, Pager, Watch,
};
pub use config::{ALPN, ConnectConfig, Credentials, SERVER_NAME_DEFAULT};
pub use definition::{JobBuilder, JobDefinition, Schedule};
pub use error::{ConnectError, Refusal, RequestError, SessionError};
pub use session::{Dialer, Session, SessionReceiver, SessionSender};
pub use topology::Topology;
pub use types::{
    Backfill, Calendar, CommandDone, DeadLetterFilter, Execution, ExecutionFilter, Job, JobFilter, Submission,
    Transition,
};
pub use worker::{
    Attempt, Failure, Output, Shards, StatusError, StopReason, Worker, WorkerBuilder, WorkerError, WorkerHandle,
};

pub use tickwheel_wire::{
    ExecutionId, FireSequence, InstanceId, JobId, PartitionId, ShardId, Timestamp, Token,
    frame::{
        request::{ExecutionState, SubmitMode},
        session::RefusalCode,
    },
    job::{
        DayRule, DstGap, DstOverlap, FiringRules, JobState, JobStates, LabelError, Misfire, Overlap, Priority,
        RetryPolicy, ScheduleListBuf,
    },
};
