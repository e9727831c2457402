//! From the connection's arguments to a client, and a runtime for it.

use super::{
    args::{ConnectionArguments, ServerArguments},
    error::CliError,
};
use crate::certificates::Files;
use std::{future::Future, time::Duration};
use tickwheel_client::{Client, ClientConfig, ConnectConfig, Credentials, RefusalCode, RequestError};

/// Longest wait for the server's first answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs `body` on a runtime of the calling thread.
pub(super) fn block_on<T>(body: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("no runtime for network and timers: {error}")))?;
    runtime.block_on(body)
}

/// How to reach the server as `cert`.
pub(super) fn settings(arguments: &ServerArguments, cert: &str) -> Result<ConnectConfig, CliError> {
    let ServerArguments { server, certs } = arguments;
    let own = Files::of(certs, cert);
    let authority = Files::of(certs, "ca").certificate;
    let credentials = Credentials::from_files(authority, own.certificate, own.key)
        .map_err(|error| CliError::connect(&error, server))?;
    let mut config = ConnectConfig::new(server, credentials);
    config.connect_timeout = CONNECT_TIMEOUT;
    Ok(config)
}

/// Connects, hands the client to `body`, and closes it afterwards.
pub(super) fn with_client<T>(
    arguments: &ConnectionArguments,
    body: impl AsyncFnOnce(Client) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let mut config = ClientConfig::new(settings(&arguments.server, &arguments.cert)?);
    config.tenant.clone_from(&arguments.tenant);
    block_on(async {
        let client =
            Client::connect(config).await.map_err(|error| CliError::connect(&error, &arguments.server.server))?;
        let result = body(client.clone()).await;
        client.close().await;
        result
    })
}

/// A row of a list over all partitions. A partition that no shard holds, as one in quarantine, leaves a gap that the user is told of.
///
/// # Errors
/// Every other error than that.
pub(super) fn present<T>(row: Result<T, RequestError>) -> Result<Option<T>, RequestError> {
    match row {
        Err(RequestError::Refused(refusal)) if refusal.code == RefusalCode::NotOwner => {
            eprintln!("the list has a gap: {refusal}");
            Ok(None)
        }
        row => row.map(Some),
    }
}
