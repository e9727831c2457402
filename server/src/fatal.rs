//! The ends from which a server does not come back, each with an exit status and a remedy.
//!
//! Exit status 0 is success, 1 a failed command, 2 wrong usage; the fatal ends of `dev` and `server` begin at 10 and never
//! change their number. The list stands in the help of both commands.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a server cannot start or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// The configuration is wrong.
    #[error("configuration: {0}")]
    Configuration(String),
    /// The data directory cannot be created, read or written.
    #[error("data directory {path}: {error}; make it writable for this user, or name another with --data")]
    DataDirectory {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another server uses the data directory.
    #[error("data directory {path} is in use by another server; stop that one, or name another directory with --data")]
    DataInUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error(
        "no space left for {path} ({needed_bytes} bytes are needed); free space, or name another directory with --data"
    )]
    OutOfSpace {
        /// The directory.
        path: PathBuf,
        /// What the start needs.
        needed_bytes: u64,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; stop what uses the port, or name another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// `io_uring` is missing or denied.
    #[error(
        "io_uring is not available: {0}; a kernel of 5.8 or newer is needed, and a sandbox must allow io_uring_setup (sysctl kernel.io_uring_disabled=0)"
    )]
    IoUring(String),
    /// Too little memory may be locked.
    #[error("{0}; raise it with `ulimit -l 512`, LimitMEMLOCK=512K or --ulimit memlock=524288")]
    LockedMemory(String),
    /// The data on disk is damaged or from another version.
    #[error("stored data: {0}")]
    Damaged(String),
    /// A certificate or key cannot be used.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The log failed while running; restart recovers from it.
    #[error(
        "log of shard {shard} failed: {reason}; the server stops, a restart recovers everything that was acknowledged"
    )]
    LogFailed {
        /// The shard.
        shard: u16,
        /// What failed.
        reason: String,
    },
    /// A shard ended or never started.
    #[error("shard {shard} could not run: {reason}")]
    Shard {
        /// The shard.
        shard: u16,
        /// Why.
        reason: String,
    },
}

impl Fatal {
    /// The process's exit status.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Configuration(_) => 10,
            Self::DataDirectory { .. } => 11,
            Self::DataInUse { .. } => 12,
            Self::OutOfSpace { .. } => 13,
            Self::Listen { .. } => 14,
            Self::IoUring(_) => 15,
            Self::LockedMemory(_) => 16,
            Self::Damaged(_) => 17,
            Self::Certificates(_) => 18,
            Self::LogFailed { .. } => 19,
            Self::Shard { .. } => 20,
        }
    }

    /// The statuses and their meaning, for the commands' help.
    pub const HELP: &str = "Exit status:
  0   success          10  configuration      11  data directory     12  data directory in use
  1   failed           13  no space           14  cannot listen      15  io_uring not available
  2   wrong usage      16  locked memory      17  stored data        18  certificates
                       19  log failed         20  shard failed";
}
