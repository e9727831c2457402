//! Where things lie in the data directory. Numbers in names are decimal without padding.
//!
//! ```text
//! partitions.map                      which stream holds which events of which partition
//! log/<stream>/<segment>.log          the log
//! snapshots/<partition>/<sequence>.snap
//! ```
//!
//! A name that ends in `.tmp` belongs to a file that was never finished; recovery removes it.

use std::path::{Path, PathBuf};
use tickwheel_wire::{PartitionId, StreamId};

pub const MAP: &str = "partitions.map";
pub const LOG: &str = "log";
pub const SNAPSHOTS: &str = "snapshots";
const TEMPORARY: &str = ".tmp";

pub fn stream(stream: StreamId) -> PathBuf {
    Path::new(LOG).join(stream.0.to_string())
}

pub fn segment(of: StreamId, index: u64) -> PathBuf {
    stream(of).join(format!("{index}.log"))
}

pub fn snapshots(partition: PartitionId) -> PathBuf {
    Path::new(SNAPSHOTS).join(partition.0.to_string())
}

pub fn snapshot(partition: PartitionId, sequence: u64) -> PathBuf {
    snapshots(partition).join(format!("{sequence}.snap"))
}

/// `path` while the file is being made.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}

pub fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY)
}

/// The number in `<number><extension>`, if the name is exactly that.
pub fn number(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_write_are_numbers() {
        assert_eq!(number("12.log", ".log"), Some(12));
        for other in ["012.log", "+1.log", "12.log.tmp", ".log", "12.snap", "x.log"] {
            assert_eq!(number(other, ".log"), None, "{other}");
        }
        assert!(is_temporary(&temporary(Path::new("1.log")).to_string_lossy()));
    }
}
