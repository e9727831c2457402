//! The configuration: what was written ([`mod@file`]) and what it means ([`Configuration`]).
//!
//! A setting comes from the flag, else the `TICKWHEEL_*` variable, else the file, else the default. Flags and variables are the
//! argument parser's; this module merges them over the file, checks every range once, and hands out resolved values only.

pub mod file;

use crate::fatal::Fatal;
use file::{ConfigurationFile, PoolSection, TenantSection};
use std::{net::SocketAddr, path::PathBuf, thread, time::Duration};
use tickwheel_wire::{PartitionCount, limits};

/// What a flag or variable may override.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The data directory.
    pub data: Option<PathBuf>,
    /// Address of the first shard.
    pub listen: Option<SocketAddr>,
    /// Number of shards.
    pub shards: Option<u16>,
}

/// The resolved settings of a server.
#[derive(Clone, Debug)]
pub struct Configuration {
    data: PathBuf,
    listen: SocketAddr,
    shards: u16,
    partitions: PartitionCount,
    tenants: Vec<TenantSettings>,
    pools: Vec<PoolSettings>,
    frame_bytes_max: usize,
    payload_bytes_max: usize,
    sessions_max: usize,
    mtu_bytes: u16,
    reattach: Duration,
    drain: Duration,
    spin: Duration,
    segment_bytes: u64,
    commits_in_flight_max: usize,
    snapshot_log_bytes: u64,
    zone_files: Option<PathBuf>,
}

/// A tenant as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSettings {
    /// Its name.
    pub name: String,
    /// Its share when several tenants have executions due, 1 to 1,000.
    pub weight: u16,
}

/// A pool as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Its name.
    pub name: String,
    /// The only tenant whose jobs it runs; `None`: it is shared.
    pub tenant: Option<String>,
}

/// The pools that always exist, for all tenants.
pub const POOLS_BUILT_IN: [&str; 4] = ["high", "standard", "long-running", "spot"];

/// The tenant that always exists.
pub const TENANT_DEFAULT: &str = "default";

impl Configuration {
    /// Merges `overrides` over `file`, and checks every range.
    ///
    /// # Errors
    /// [`Fatal::Configuration`], naming the key, its value and the range.
    pub fn resolve(file: ConfigurationFile, overrides: Overrides) -> Result<Self, Fatal> {
        let ConfigurationFile { node, limits, worker, log, tenant, pool } = file;
        let shards = match overrides.shards.unwrap_or(node.shards) {
            0 => shards_default(),
            shards => shards,
        };
        range("node.shards", shards.into(), 1, limits::SHARDS_MAX.into())?;
        let partitions = PartitionCount::new(node.partitions)
            .map_err(|error| Fatal::Configuration(format!("node.partitions: {error}")))?;
        if shards > partitions.count() {
            return Err(Fatal::Configuration(format!(
                "node.shards: {shards} shards cannot share {} partitions",
                partitions.count()
            )));
        }
        range("limits.frame_bytes", limits.frame_bytes as u64, 4_096, 16 << 20)?;
        range("limits.payload_bytes", limits.payload_bytes as u64, 0, limits.frame_bytes as u64 - 2_048)?;
        range("limits.sessions", limits.sessions as u64, 1, 65_536)?;
        range("limits.mtu_bytes", limits.mtu_bytes.into(), 1_200, 8_952)?;
        range("worker.reattach_ms", worker.reattach_ms, 100, 600_000)?;
        range("node.drain_ms", node.drain_ms, 0, 3_600_000)?;
        range("node.spin_us", node.spin_us, 0, 10_000)?;
        // A segment has room for the longest frame's events and for what waits beside them.
        range("log.segment_bytes", log.segment_bytes, (4 << 20).max(2 * limits.frame_bytes as u64), 4 << 30)?;
        range("log.commits_in_flight", log.commits_in_flight as u64, 1, 64)?;
        range("log.snapshot_bytes", log.snapshot_bytes, 1 << 20, 1 << 40)?;
        let configuration = Self {
            data: overrides.data.unwrap_or(node.data),
            listen: overrides.listen.unwrap_or(node.listen),
            shards,
            partitions,
            tenants: tenants(tenant)?,
            pools: pools(pool)?,
            frame_bytes_max: limits.frame_bytes,
            payload_bytes_max: limits.payload_bytes,
            sessions_max: limits.sessions,
            mtu_bytes: limits.mtu_bytes,
            reattach: Duration::from_millis(worker.reattach_ms),
            drain: Duration::from_millis(node.drain_ms),
            spin: Duration::from_micros(node.spin_us),
            segment_bytes: log.segment_bytes,
            commits_in_flight_max: log.commits_in_flight,
            snapshot_log_bytes: log.snapshot_bytes,
            zone_files: node.zone_files,
        };
        let ports_end = u32::from(configuration.listen.port()) + u32::from(shards);
        if configuration.listen.port() != 0 && ports_end > 65_536 {
            return Err(Fatal::Configuration(format!(
                "node.listen: {shards} shards need ports up to {}",
                ports_end - 1
            )));
        }
        Ok(configuration)
    }

    /// The data directory.
    pub fn data(&self) -> &std::path::Path {
        &self.data
    }

    /// Address of the first shard; the others follow by port. Port 0 lets the system choose each.
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Number of shards, 1 to 256.
    pub const fn shards(&self) -> u16 {
        self.shards
    }

    /// Number of partitions; only used when the data directory is created.
    pub const fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// The tenants, `default` first.
    pub fn tenants(&self) -> &[TenantSettings] {
        &self.tenants
    }

    /// The pools, those that always exist first.
    pub fn pools(&self) -> &[PoolSettings] {
        &self.pools
    }

    /// Longest frame body accepted, in bytes.
    pub const fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// Longest job payload accepted, in bytes.
    pub const fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    /// Most sessions of one shard.
    pub const fn sessions_max(&self) -> usize {
        self.sessions_max
    }

    /// Largest UDP payload, in bytes.
    pub const fn mtu_bytes(&self) -> u16 {
        self.mtu_bytes
    }

    /// How long executions wait for a lost worker.
    pub const fn reattach(&self) -> Duration {
        self.reattach
    }

    /// How long a draining server waits for what runs.
    pub const fn drain(&self) -> Duration {
        self.drain
    }

    /// How long a shard polls before it sleeps.
    pub const fn spin(&self) -> Duration {
        self.spin
    }

    /// Size of a log segment, in bytes.
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Most commits in flight per shard.
    pub const fn commits_in_flight_max(&self) -> usize {
        self.commits_in_flight_max
    }

    /// Directory of compiled zone files; `None`: the zones that the program brings along.
    pub fn zone_files(&self) -> Option<&std::path::Path> {
        self.zone_files.as_deref()
    }

    /// Log bytes of a shard after which its partitions are snapshotted in turn.
    pub const fn snapshot_log_bytes(&self) -> u64 {
        self.snapshot_log_bytes
    }
}

/// Half of the cores: the other half is for clients, workers, and the kernel's share of the work.
fn shards_default() -> u16 {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores / 2).unwrap_or(limits::SHARDS_MAX).clamp(1, limits::SHARDS_MAX)
}

fn tenants(sections: Vec<TenantSection>) -> Result<Vec<TenantSettings>, Fatal> {
    let mut tenants = vec![TenantSettings { name: TENANT_DEFAULT.to_owned(), weight: 1 }];
    for TenantSection { name, weight } in sections {
        range("tenant.weight", weight.into(), 1, 1_000)?;
        if name.is_empty() || name.len() > limits::TENANT_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Fatal::Configuration(format!(
                "tenant.name: {name:?} must have 1 to {} bytes and no control characters",
                limits::TENANT_NAME_BYTES_MAX
            )));
        }
        match tenants.iter_mut().find(|tenant| tenant.name == name) {
            Some(tenant) if name == TENANT_DEFAULT => tenant.weight = weight,
            Some(_) => return Err(Fatal::Configuration(format!("tenant.name: {name:?} stands twice"))),
            None => tenants.push(TenantSettings { name, weight }),
        }
    }
    Ok(tenants)
}

fn pools(sections: Vec<PoolSection>) -> Result<Vec<PoolSettings>, Fatal> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~');
    let mut pools: Vec<PoolSettings> =
        POOLS_BUILT_IN.iter().map(|name| PoolSettings { name: (*name).to_owned(), tenant: None }).collect();
    for PoolSection { name, tenant } in sections {
        if name.is_empty() || name.len() > limits::POOL_NAME_BYTES_MAX || !name.chars().all(is_plain) {
            return Err(Fatal::Configuration(format!(
                "pool.name: {name:?} must have 1 to {} characters out of A-Z a-z 0-9 . _ - ~",
                limits::POOL_NAME_BYTES_MAX
            )));
        }
        if pools.iter().any(|pool| pool.name == name) {
            return Err(Fatal::Configuration(format!("pool.name: {name:?} stands twice, or always exists")));
        }
        pools.push(PoolSettings { name, tenant });
    }
    Ok(pools)
}

fn range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), Fatal> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Fatal::Configuration(format!("{key} is {value}; allowed are {min} to {max}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Configuration, String> {
        let file = ConfigurationFile::parse(text).map_err(|error| error.to_string())?;
        Configuration::resolve(file, Overrides::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_file_states_every_default() {
        let example = include_str!("../../../tickwheel.toml.example");
        let stated = ConfigurationFile::parse(example).expect("the example is valid");
        assert_eq!(stated, ConfigurationFile::default());
        let written = toml::to_string(&ConfigurationFile::default()).expect("the defaults can be written");
        for line in written
            .lines()
            .filter(|line| line.contains('=') && !line.starts_with("tenant") && !line.starts_with("pool"))
        {
            let key = line.split('=').next().unwrap_or_default().trim();
            assert!(example.lines().any(|line| line.starts_with(key)), "{key} is missing in the example");
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = check("[node]\nshardz = 3\n").unwrap_err();
        assert!(error.contains("shardz"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_names_key_and_range() {
        let error = check("[worker]\nreattach_ms = 5\n").unwrap_err();
        assert_eq!(error, "configuration: worker.reattach_ms is 5; allowed are 100 to 600000");
        let error = check("[limits]\nframe_bytes = 16777216\n[log]\nsegment_bytes = 33554431\n").unwrap_err();
        assert_eq!(error, "configuration: log.segment_bytes is 33554431; allowed are 33554432 to 4294967296");
        assert!(check("[node]\npartitions = 3\n").unwrap_err().contains("power of two"));
        assert!(check("[node]\npartitions = 2\nshards = 4\n").unwrap_err().contains("cannot share"));
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = ConfigurationFile::parse("[node]\nshards = 3\n").expect("valid");
        let overrides = Overrides { shards: Some(2), ..Overrides::default() };
        assert_eq!(Configuration::resolve(file, overrides).expect("valid").shards(), 2);
    }

    #[test]
    fn a_tenant_stands_once_and_default_is_first() {
        let configuration = check("[[tenant]]\nname = \"acme\"\nweight = 3\n").expect("valid");
        assert_eq!(configuration.tenants()[0].name, TENANT_DEFAULT);
        assert_eq!(configuration.tenants()[1], TenantSettings { name: "acme".to_owned(), weight: 3 });
        assert!(check("[[tenant]]\nname = \"a\"\n[[tenant]]\nname = \"a\"\n").is_err());
    }
}
