//! A real server process on a data directory of the test's choice, and its clients.

use crate::{
    PATIENCE, credentials,
    peer::Peer,
    process::{Process, free_ports, server_binary},
};
use anyhow::{Context as _, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tickwheel_client::{Client, ClientConfig, ConnectConfig, Lane};
use tickwheel_server::certificates;
use tickwheel_wire::frame::{
    request::{ExecutionById, ExecutionState, ExecutionView},
    work::DispatchHead,
};

/// Where a server runs, and how.
#[derive(Debug)]
pub struct Server {
    binary: &'static Path,
    data: PathBuf,
    config: PathBuf,
    address: String,
    log: PathBuf,
}

impl Server {
    /// A server on `data`, which exists, with the settings of `text` (TOML) and at most four shards. Its other files are in `folder`.
    ///
    /// # Errors
    /// When they cannot be written, or the server cannot be built.
    pub fn new(folder: &Path, data: &Path, text: &str) -> anyhow::Result<Self> {
        certificates::ensure_local(&data.join("certs"))?;
        let (config, log) = (folder.join("tickwheel.toml"), folder.join("server.log"));
        let address = format!("127.0.0.1:{}", free_ports(4)?);
        let server = Self { binary: server_binary()?, data: data.to_owned(), config, address, log };
        server.configure(text)?;
        Ok(server)
    }

    /// Gives it other settings for its next start.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn configure(&self, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(&self.config, text)?)
    }

    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> anyhow::Result<Process> {
        let (data, config) = (self.data.to_string_lossy(), self.config.to_string_lossy());
        let arguments = ["server", "--config", &config, "--data", &data, "--listen", &self.address];
        Process::start_logged(self.binary, &arguments, &self.log)
    }

    /// What the newest process has said on its standard error.
    ///
    /// # Errors
    /// When there was none.
    pub fn said(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The address of its first shard.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How to connect with the certificate `name`.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn connect_config(&self, name: &str) -> anyhow::Result<ConnectConfig> {
        Ok(ConnectConfig::new(self.address.clone(), credentials(&self.data, name)?))
    }

    /// A client with the certificate `admin`, as soon as the server answers.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let started = Instant::now();
        loop {
            match Client::connect(ClientConfig::new(self.connect_config("admin")?)).await {
                Ok(client) => return Ok(client),
                Err(error) => ensure!(started.elapsed() < PATIENCE, "no server: {error}; it said: {}", self.said()?),
            }
        }
    }

    /// A raw session with the certificate `name`, as soon as the server answers.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn peer(&self, name: &str) -> anyhow::Result<Peer> {
        let started = Instant::now();
        loop {
            match Peer::open(self.connect_config(name)?).await {
                Ok(peer) => return Ok(peer),
                Err(error) => ensure!(started.elapsed() < PATIENCE, "no server: {error}; it said: {}", self.said()?),
            }
        }
    }
}

/// Checks that the execution of `attempt` has ended well, with `output`.
///
/// # Errors
/// When it is not known, or otherwise.
pub async fn check_succeeded(admin: &mut Peer, attempt: &DispatchHead, output: &[u8]) -> anyhow::Result<()> {
    let DispatchHead { job, fire_sequence, .. } = *attempt;
    let question = ExecutionById { request_id: 1, partition: job.partition(), job, fire_sequence };
    admin.say(Lane::Control, &question).await?;
    let message = admin.hear().await?;
    let view: ExecutionView<'_> = message.decode().with_context(|| format!("nothing is known of {attempt:?}"))?;
    ensure!(view.state == ExecutionState::Succeeded && view.output == output, "{view:?}");
    Ok(())
}
