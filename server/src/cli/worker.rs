//! `tickwheel worker`: runs commands for a server.

use super::{args::WorkerArguments, connection, error::CliError, signals};
use crate::command_worker::{self, AllowList, WorkerConfig};
use tickwheel_client::{ConnectConfig, WorkerError};
use tokio::sync::oneshot;

pub(super) fn run(arguments: &WorkerArguments) -> Result<(), CliError> {
    let settings = connection::settings(&arguments.server, &arguments.cert)?;
    let allow = if arguments.allow_any { AllowList::Any } else { AllowList::commands(arguments.allow.iter().cloned()) };
    let concurrency = usize::try_from(arguments.concurrency).expect("at most 65,536");
    let server = &arguments.server.server;
    tracing::info!("serving {server}, up to {concurrency} commands at a time; Ctrl-C drains");
    let (stop, stopped) = oneshot::channel();
    signals::on_first(move || {
        eprintln!("draining: nothing new is taken, what runs may end; a second signal ends at once");
        // The worker may have ended already.
        let _ = stop.send(());
    })?;
    work(config(settings, arguments.pool.clone(), concurrency, allow), stopped)
}

/// A worker's settings.
pub(super) fn config(connect: ConnectConfig, pools: Vec<String>, concurrency: usize, allow: AllowList) -> WorkerConfig {
    WorkerConfig { connect, pools, concurrency, allow }
}

/// Works on this thread until `stopped`, and what was taken by then is done.
pub(super) fn work(config: WorkerConfig, stopped: oneshot::Receiver<()>) -> Result<(), CliError> {
    let address = config.connect.address.clone();
    connection::block_on(async {
        let shutdown = async {
            // Whoever drops the sender wants an end as well.
            let _ = stopped.await;
        };
        command_worker::run_worker(config, shutdown).await.map_err(|error| failure(error, &address))
    })
}

fn failure(error: WorkerError, address: &str) -> CliError {
    match error {
        WorkerError::Connect(error) => CliError::connect(&error, address),
        other => CliError::failed(other),
    }
}
