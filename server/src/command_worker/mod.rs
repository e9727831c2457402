//! Runs commands for executions: the handler `exec` of `tickwheel worker`.
//!
//! A job's payload says what to run ([`CommandPayload`]), the worker says what may run ([`AllowList`]). A command gets a process
//! group of its own; standard output and standard error go into one pipe, in the order in which they come. Exit status 0 is
//! success, everything else is a [`CommandError`], whose kind is the error's name in the completion.
//!
//! Invariants:
//!
//! - When a command's execution has ended, however it did, nothing of its process group runs. A command that should outlive its
//!   execution has to leave the group (`setsid`) and its output.
//! - One that should stop gets SIGTERM, and after [`GRACE`] SIGKILL, both for the whole group. One that has ended but whose
//!   output is still held open by its children gives them as long.
//! - A process is signalled only while its id cannot belong to another one: the group's leader is reaped last.
//!
//! `payload` is what travels, `allow` which programs may run, `account` as whom, `environment` with which variables, `process`
//! starts and follows, `capture` bounds the output, `sys` holds the system calls. Deliberately absent: shells (a job names one
//! if it wants it), limits of memory and processor time, containers.

mod account;
mod allow;
mod capture;
mod environment;
mod error;
mod payload;
mod process;
mod sys;

pub(crate) use account::is_user;
pub use allow::AllowList;
pub use error::CommandError;
pub use payload::CommandPayload;
pub use process::GRACE;

use process::Plan;
use std::{env, ffi::OsStr, future::Future, sync::Arc, time::Duration};
use tickwheel_client::{
    Attempt, ConnectConfig, ExecutionId, Failure, Output, StopReason, Timestamp, Token, Worker, WorkerError,
};

/// Name of the handler in a job's definition.
pub const HANDLER: &str = "exec";

/// How much longer than its command a handler may take to end, before the worker library drops it.
const CANCEL_GRACE: Duration = Duration::from_secs(2 * GRACE.as_secs());

/// Settings of a worker that runs commands.
#[derive(Debug)]
pub struct WorkerConfig {
    /// The server, and who this worker is.
    pub connect: ConnectConfig,
    /// The pools to serve, at most sixteen; none: those of the certificate.
    pub pools: Vec<String>,
    /// How many commands run at a time, from 1.
    pub concurrency: usize,
    /// What may run.
    pub allow: AllowList,
}

/// Runs commands for the server until `shutdown` resolves, then drains: takes nothing new, gives what runs 30 s to end, stops
/// it after that.
///
/// # Errors
/// When a setting is out of range, the server will never accept this worker, or it did not acknowledge everything before the end.
pub async fn run_worker(config: WorkerConfig, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
    let allow = Arc::new(config.allow);
    let mut builder = Worker::builder(config.connect).concurrency(config.concurrency).cancel_grace(CANCEL_GRACE);
    for pool in config.pools {
        builder = builder.pool(pool);
    }
    let handler = move |attempt| handle(attempt, Arc::clone(&allow));
    builder.handler(HANDLER, handler).build()?.run(shutdown).await
}

async fn handle(attempt: Attempt, allow: Arc<AllowList>) -> Result<Output, Failure> {
    let result = execute(&Invocation::from(&attempt), &allow, attempt.cancelled()).await;
    result.map(Output).map_err(CommandError::into_failure)
}

/// What a command is told of its attempt, and what it is.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The job's tenant.
    pub tenant: String,
    /// The job's name.
    pub job: String,
    /// The execution.
    pub execution: ExecutionId,
    /// Which try of the execution it is, from 1.
    pub attempt: u16,
    /// The attempt's fencing token.
    pub token: Token,
    /// When the execution was to fire.
    pub scheduled_at: Timestamp,
    /// An encoded [`CommandPayload`].
    pub payload: Vec<u8>,
}

impl From<&Attempt> for Invocation {
    fn from(attempt: &Attempt) -> Self {
        Self {
            tenant: attempt.tenant().to_owned(),
            job: attempt.job_name().to_owned(),
            execution: attempt.execution(),
            attempt: attempt.number(),
            token: attempt.token(),
            scheduled_at: attempt.scheduled_at(),
            payload: attempt.payload().to_vec(),
        }
    }
}

/// Runs one command to its end and returns what it wrote, within the payload's bound. Once `stop` resolves, the command is
/// stopped. When the future is dropped, the command's process group is killed.
///
/// # Errors
/// Whatever is not exit status 0; see [`CommandError`].
pub async fn execute(
    invocation: &Invocation,
    allow: &AllowList,
    stop: impl Future<Output = StopReason>,
) -> Result<Vec<u8>, CommandError> {
    let plan = plan(invocation, allow).await?;
    process::run(&plan, stop).await
}

/// Settles everything about a command before anything is started.
async fn plan(invocation: &Invocation, allow: &AllowList) -> Result<Plan, CommandError> {
    let payload = CommandPayload::decode(&invocation.payload)?;
    allow.check_environment(payload.env.keys())?;
    let (account, switch) = account::settle(payload.user.as_deref(), payload.clean_env).await?;
    let inherited = env::vars_os().collect();
    let env = environment::build(inherited, account.as_ref(), &payload, invocation);
    let home = account.is_some().then(|| env.get(OsStr::new("HOME"))).flatten();
    let dir = payload.dir.as_ref().map(Into::into).or_else(|| home.map(Into::into));
    let program = allow.program(&payload.argv[0], env.get(OsStr::new("PATH")).map(AsRef::as_ref))?;
    Ok(Plan {
        program,
        output_bytes_max: payload.output_bytes_max(),
        argv: payload.argv,
        env,
        dir,
        stdin: payload.stdin.unwrap_or_default().into_bytes(),
        switch_to: switch.then_some(account).flatten(),
    })
}
