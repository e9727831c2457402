//! The server: it composes `engine`, `net` and `storage` into shards, and gives them sockets, files, time and a command line.
//!
//! Only this crate knows the operating system. Deliberately absent: decisions about jobs (engine), the protocol's state (net), what
//! the log means (storage).

pub mod certificates;
pub mod cli;
pub mod command_worker;
pub mod config;
pub mod data_directory;
pub mod fatal;
pub mod import;
pub mod jobs_file;
pub mod node;
pub mod quarantine;
pub mod runtime;
pub mod shard;
mod system;
mod zone_files;
