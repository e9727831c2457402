//! The configuration file as written: TOML, every key optional, unknown keys refused.

use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use tickwheel_wire::limits;

/// The whole file. `tickwheel.toml.example` states every key with its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigurationFile {
    /// The process.
    pub node: NodeSection,
    /// Bounds on what others may send.
    pub limits: LimitsSection,
    /// How workers are treated.
    pub worker: WorkerSection,
    /// The log.
    pub log: LogSection,
    /// Tenants besides `default`.
    pub tenant: Vec<TenantSection>,
    /// Pools besides `high`, `standard`, `long-running` and `spot`.
    pub pool: Vec<PoolSection>,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// Data directory.
    pub data: PathBuf,
    /// Address of the first shard.
    pub listen: SocketAddr,
    /// Number of shards; 0: half of the cores.
    pub shards: u16,
    /// Number of partitions of a new data directory.
    pub partitions: u64,
    /// How long a draining server waits for what runs.
    pub drain_ms: u64,
    /// How long a shard polls before it sleeps.
    pub spin_us: u64,
    /// Directory of compiled zone files; absent: the zones that the program brings along.
    pub zone_files: Option<PathBuf>,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Longest frame body.
    pub frame_bytes: usize,
    /// Longest job payload.
    pub payload_bytes: usize,
    /// Most sessions of one shard.
    pub sessions: usize,
    /// Largest UDP payload.
    pub mtu_bytes: u16,
}

/// `[worker]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSection {
    /// How long executions wait for a lost worker.
    pub reattach_ms: u64,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Most commits in flight per shard.
    pub commits_in_flight: usize,
    /// Log bytes of a shard after which its partitions are snapshotted.
    pub snapshot_bytes: u64,
}

/// `[[tenant]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSection {
    /// Its name.
    pub name: String,
    /// Its share when several tenants have executions due.
    #[serde(default = "weight_default")]
    pub weight: u16,
}

/// `[[pool]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSection {
    /// Its name.
    pub name: String,
    /// The only tenant whose jobs it runs; absent: it is shared.
    #[serde(default)]
    pub tenant: Option<String>,
}

const fn weight_default() -> u16 {
    1
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It could not be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is not valid TOML, or holds an unknown key or a value of another type.
    #[error("{0}")]
    Parse(#[from] toml::de::Error),
}

impl ConfigurationFile {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// Names line, column and key.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        Ok(toml::from_str(text)?)
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(|error| FileError::Read { path: path.to_owned(), error })?;
        Self::parse(&text)
    }
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./tickwheel-data"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7400)),
            shards: 0,
            partitions: 256,
            drain_ms: 30_000,
            spin_us: 50,
            zone_files: None,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            frame_bytes: limits::FRAME_BYTES_MAX,
            payload_bytes: limits::PAYLOAD_BYTES_MAX,
            sessions: 4_096,
            mtu_bytes: 8_952,
        }
    }
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self { reattach_ms: 5_000 }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, commits_in_flight: 4, snapshot_bytes: 1 << 30 }
    }
}
