//! What the tests of whole nodes share: a node in this process on a data directory of its own, and clients and workers for it.

pub mod bystander;
pub mod confine;
pub mod disk;
pub mod fuzz;
pub mod peer;
pub mod process;
pub mod server;
pub mod sim;

use anyhow::Context as _;
use std::{path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tickwheel_client::{Client, ClientConfig, ConnectConfig, Credentials};
use tickwheel_server::{
    certificates::{self, Files},
    config::{Configuration, Overrides, file::ConfigurationFile},
    data_directory::DataDirectory,
    node::{Control, Node},
};

/// Longest wait for anything in a test: far beyond what is needed, so that only a fault reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test's body on a runtime with two threads, for [`PATIENCE`] at most.
///
/// # Errors
/// Those of the body, or that it took too long.
pub fn run<T>(body: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await.context("the test took too long")? })
}

/// A node in this process.
pub struct TestNode {
    node: Node,
    _directory: DataDirectory,
}

impl TestNode {
    /// Starts a node on `data`, on free ports of the loopback, with the settings of `text` (TOML).
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(data: &Path, text: &str) -> anyhow::Result<Self> {
        let overrides =
            Overrides { data: Some(data.to_owned()), listen: Some("127.0.0.1:0".parse()?), ..Overrides::default() };
        let configuration = Configuration::resolve(ConfigurationFile::parse(text)?, overrides)?;
        let directory = DataDirectory::open(&configuration)?;
        certificates::ensure_local(&directory.certificates())?;
        let node = Node::start(configuration, &directory)?;
        Ok(Self { node, _directory: directory })
    }

    /// How to connect to its shard `index` with the certificate `name` of the data directory.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn connect_config(&self, data: &Path, name: &str, index: usize) -> anyhow::Result<ConnectConfig> {
        let address = self.node.addresses().get(index).context("no such shard")?;
        Ok(ConnectConfig::new(address.to_string(), credentials(data, name)?))
    }

    /// A client with the certificate `admin`.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn admin(&self, data: &Path) -> anyhow::Result<Client> {
        Ok(Client::connect(ClientConfig::new(self.connect_config(data, "admin", 0)?)).await?)
    }

    /// What asks it to stop.
    pub fn control(&self) -> Arc<Control> {
        self.node.control()
    }

    /// Drains the node and waits for its end.
    ///
    /// # Errors
    /// When a shard has failed.
    pub fn stop(self, limit: Duration) -> anyhow::Result<()> {
        self.node.control().drain(limit);
        Ok(self.node.join()?)
    }
}

/// The credentials `name` of a data directory.
///
/// # Errors
/// When they cannot be read.
pub fn credentials(data: &Path, name: &str) -> anyhow::Result<Credentials> {
    let folder = data.join("certs");
    let files = Files::of(&folder, name);
    Ok(Credentials::from_files(Files::of(&folder, "ca").certificate, files.certificate, files.key)?)
}

/// An empty data directory, on the disk that the tests are built on: the system's temporary folder may be memory.
///
/// # Errors
/// When the disk refuses.
pub fn data_directory() -> anyhow::Result<TempDir> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::fs::create_dir_all(&target)?;
    Ok(tempfile::Builder::new().prefix("test-data-").tempdir_in(target)?)
}

/// Scrambles a number: the tests' only source of chance, so that a run can be repeated.
pub const fn mix(value: u64) -> u64 {
    tickwheel_wire::mix64(value)
}
