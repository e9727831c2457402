//! Client and worker library of Tickwheel, the distributed job scheduler.

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
pub use client::{Client, ClientConfig, ExecutionPager, JobPager, Pager, Watch};
pub use config::{ALPN, ConnectConfig, Credentials, SERVER_NAME_DEFAULT};
pub use definition::{JobBuilder, JobDefinition, Schedule};
pub use error::{ConnectError, Refusal, RequestError, SessionError};
pub use session::{Dialer, Session, SessionReceiver, SessionSender};
pub use topology::Topology;
pub use types::{CommandDone, Execution, ExecutionFilter, Job, JobFilter, Submission, Transition};
pub use worker::{Attempt, Failure, Output, Shards, StopReason, Worker, WorkerBuilder, WorkerError, WorkerHandle};

pub use tickwheel_wire::{
    ExecutionId, FireSequence, InstanceId, JobId, PartitionId, ShardId, Timestamp, Token,
    frame::{
        request::{ExecutionState, SubmitMode},
        session::RefusalCode,
    },
    job::{Misfire, Overlap, Priority, RetryPolicy},
};
