//! The data directory: who may use it, and what was fixed when it was created.
//!
//! `LOCK` is held (`flock`) as long as the server lives. `cluster.toml` holds the cluster's id, the format, the partition count, the
//! routing strategy and the tenants in the order of their ids; tenants are only ever appended. It is replaced atomically.

use crate::{config::Configuration, fatal::Fatal};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};
use tickwheel_wire::PartitionCount;

/// Format of the data directory that this version writes.
pub const FORMAT: u32 = 1;

/// What a start needs at least: segments of the log, their reserve, and room for a snapshot.
pub(crate) const FREE_BYTES_MIN: u64 = 64 << 20;

/// `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's id, 32 hexadecimal digits.
    pub id: String,
    /// Format of the directory.
    pub format: u32,
    /// Number of partitions.
    pub partitions: u64,
    /// Routing strategy; `job-hash` is the only one yet.
    pub routing: String,
    /// Names of the tenants, in the order of their ids.
    pub tenants: Vec<String>,
}

/// An open and locked data directory.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    cluster: Cluster,
    cluster_id: u128,
    partitions: PartitionCount,
    _lock: File,
}

impl DataDirectory {
    /// Opens the directory that `configuration` names, creating it when there is none.
    ///
    /// # Errors
    /// [`Fatal`] when it cannot be used: not writable, in use, full, of another format.
    pub fn open(configuration: &Configuration) -> Result<Self, Fatal> {
        let path = configuration.data().to_owned();
        fs::create_dir_all(&path).map_err(|error| refused(&path, error))?;
        let lock = lock(&path)?;
        let cluster_path = path.join("cluster.toml");
        let stored = match fs::read_to_string(&cluster_path) {
            Ok(text) => Some(parse(&cluster_path, &text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused(&cluster_path, error)),
        };
        check_space(&path)?;
        let mut cluster = match &stored {
            Some(cluster) => cluster.clone(),
            None => create(configuration, &path)?,
        };
        for tenant in configuration.tenants() {
            if !cluster.tenants.contains(&tenant.name) {
                cluster.tenants.push(tenant.name.clone());
            }
        }
        if stored.as_ref() != Some(&cluster) {
            write_atomically(&cluster_path, &render(&cluster)?).map_err(|error| refused(&cluster_path, error))?;
        }
        let damaged = |what: String| Fatal::Damaged(format!("{}: {what}", cluster_path.display()));
        let partitions = PartitionCount::new(cluster.partitions).map_err(|error| damaged(error.to_string()))?;
        let cluster_id = u128::from_str_radix(&cluster.id, 16).map_err(|error| damaged(format!("id: {error}")))?;
        Ok(Self { path, cluster, cluster_id, partitions, _lock: lock })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster's id.
    pub const fn cluster_id(&self) -> u128 {
        self.cluster_id
    }

    /// The number of partitions that it was created with.
    pub const fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// Names of all tenants ever configured, in the order of their ids.
    pub fn tenants(&self) -> &[String] {
        &self.cluster.tenants
    }

    /// The folder of its certificates.
    pub fn certificates(&self) -> PathBuf {
        self.path.join("certs")
    }
}

/// A file or directory that the system does not let us use.
pub(crate) fn refused(path: &Path, error: io::Error) -> Fatal {
    if error.kind() == io::ErrorKind::StorageFull {
        Fatal::OutOfSpace { path: path.to_owned(), needed_bytes: FREE_BYTES_MIN }
    } else {
        Fatal::DataDirectory { path: path.to_owned(), error }
    }
}

fn lock(directory: &Path) -> Result<File, Fatal> {
    let path = directory.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| refused(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Fatal::DataInUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(refused(&path, error)),
    }
}

fn parse(path: &Path, text: &str) -> Result<Cluster, Fatal> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |error: toml::de::Error| Fatal::Damaged(format!("{}: {}", path.display(), error.message()));
    let format = toml::from_str::<Format>(text).map_err(damaged)?.format;
    if format > FORMAT {
        return Err(Fatal::Damaged(format!(
            "{}: format {format} is newer than format {FORMAT} of this version; use the newer tickwheel",
            path.display()
        )));
    }
    toml::from_str(text).map_err(damaged)
}

fn create(configuration: &Configuration, path: &Path) -> Result<Cluster, Fatal> {
    if path.join("log").exists() {
        return Err(Fatal::Damaged(format!("{} holds a log but no cluster.toml; restore that file", path.display())));
    }
    let mut id = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut id))
        .map_err(|error| refused(path, error))?;
    Ok(Cluster {
        id: format!("{:032x}", u128::from_le_bytes(id)),
        format: FORMAT,
        partitions: configuration.partitions().count().into(),
        routing: "job-hash".to_owned(),
        tenants: Vec::new(),
    })
}

fn check_space(path: &Path) -> Result<(), Fatal> {
    let free_bytes = crate::system::free_bytes(path).map_err(|error| refused(path, error))?;
    if free_bytes < FREE_BYTES_MIN {
        return Err(Fatal::OutOfSpace { path: path.to_owned(), needed_bytes: FREE_BYTES_MIN });
    }
    Ok(())
}

fn render(cluster: &Cluster) -> Result<String, Fatal> {
    toml::to_string(cluster).map_err(|error| Fatal::Damaged(format!("cluster.toml: {error}")))
}

/// Replaces a file so that a crash leaves the old or the new one.
pub(crate) fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, file::ConfigurationFile};

    fn open(directory: &Path, text: &str) -> Result<DataDirectory, Fatal> {
        let overrides = Overrides { data: Some(directory.to_owned()), ..Overrides::default() };
        DataDirectory::open(&Configuration::resolve(ConfigurationFile::parse(text).expect("valid"), overrides)?)
    }

    #[test]
    fn what_was_fixed_at_creation_stays() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = open(directory.path(), "[node]\npartitions = 8\n").expect("created");
        let id = first.cluster_id();
        drop(first);
        let second = open(directory.path(), "[node]\npartitions = 16\n").expect("opened");
        assert_eq!((second.cluster_id(), second.partitions().count()), (id, 8));
    }

    #[test]
    fn a_tenant_keeps_its_id_when_others_come_and_go() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        drop(open(directory.path(), "[[tenant]]\nname = \"a\"\n").expect("created"));
        let second = open(directory.path(), "[[tenant]]\nname = \"b\"\n").expect("opened");
        assert_eq!(second.tenants(), ["default", "a", "b"]);
    }

    #[test]
    fn a_second_server_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let _first = open(directory.path(), "").expect("created");
        assert!(matches!(open(directory.path(), ""), Err(Fatal::DataInUse { .. })));
    }

    /// `cluster.toml` as format 1 was released. A new format gets a new file beside it; this one is never rewritten.
    const GOLDEN_1: &str = include_str!("../tests/golden/cluster-1.toml");

    fn golden() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("cluster.toml");
        fs::write(&path, GOLDEN_1).expect("written");
        (directory, path)
    }

    #[test]
    fn the_golden_file_of_format_1_is_read_and_left_as_it_was() {
        let (directory, path) = golden();
        let opened = open(directory.path(), "[node]\npartitions = 16\n").expect("opened");
        assert_eq!(opened.cluster_id(), 0xF0E1_D2C3_B4A5_9687_7869_5A4B_3C2D_1E0F);
        assert_eq!(opened.partitions().count(), 64);
        assert_eq!(opened.tenants(), ["default", "acme", "umbrella"]);
        assert_eq!(fs::read_to_string(path).expect("it is there"), GOLDEN_1);
    }

    #[test]
    fn format_1_is_written_as_the_golden_file_has_it() {
        let (directory, path) = golden();
        drop(open(directory.path(), "[[tenant]]\nname = \"new\"\n").expect("opened"));
        let expected = GOLDEN_1.replace("\"umbrella\"]", "\"umbrella\", \"new\"]");
        assert_ne!(expected, GOLDEN_1);
        assert_eq!(fs::read_to_string(path).expect("it is there"), expected);
    }

    #[test]
    fn a_newer_format_is_refused_with_both_versions_and_left_as_it_was() {
        let newer = GOLDEN_1.replace("format = 1\n", &format!("format = {}\n", FORMAT + 1));
        // A newer version may have settings that this one does not know, and lack some that it wants.
        for text in [newer.clone(), format!("{newer}news = true\n"), "format = 7\nnews = true\n".to_owned()] {
            let (directory, path) = golden();
            fs::write(&path, &text).expect("written");
            let error = open(directory.path(), "[[tenant]]\nname = \"new\"\n").expect_err("refused");
            let found = text.lines().find(|line| line.starts_with("format")).expect("a format").replace(" =", "");
            assert_eq!(
                error.to_string(),
                format!(
                    "stored data: {}: {found} is newer than format {FORMAT} of this version; use the newer tickwheel",
                    path.display()
                )
            );
            assert_eq!(fs::read_to_string(path).expect("it is there"), text);
        }
    }
}
