//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.
//!
//! The handler only writes a byte into a socket; a thread of its own reads it, so that whatever it does may lock and allocate.

use super::error::CliError;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::{self, pipe},
};
use std::{
    io::{self, Read as _},
    os::unix::net::UnixStream,
    thread,
};

/// Exit status after the second signal.
const EXIT_AT_ONCE: i32 = 130;

/// Calls `first` on a thread of its own at the first signal.
///
/// # Errors
/// When the handlers cannot be installed.
pub(super) fn on_first(first: impl FnOnce() + Send + 'static) -> Result<(), CliError> {
    install(first).map_err(|error| CliError::Failed(format!("cannot watch for signals: {error}")))
}

fn install(first: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (mut received, sender) = UnixStream::pair()?;
    pipe::register(SIGINT, sender.try_clone()?)?;
    pipe::register(SIGTERM, sender)?;
    let body = move || {
        let mut byte = [0];
        if received.read_exact(&mut byte).is_err() {
            return;
        }
        first();
        if received.read_exact(&mut byte).is_ok() {
            low_level::exit(EXIT_AT_ONCE);
        }
    };
    thread::Builder::new().name("tw-signals".to_owned()).spawn(body).map(drop)
}
