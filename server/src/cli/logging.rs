//! Where log lines go: to the standard error, filtered by `TICKWHEEL_LOG`.

use super::error::CliError;
use std::{
    env,
    io::{self, IsTerminal as _},
};
use tracing_subscriber::EnvFilter;

/// The variable that holds the filter, such as `debug` or `tickwheel_server=trace,warn`.
const VARIABLE: &str = "TICKWHEEL_LOG";

/// Installs the subscriber; `default` is the filter when the variable says nothing.
pub(super) fn start(default: &str) -> Result<(), CliError> {
    let directives = env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = EnvFilter::try_new(directives.as_deref().unwrap_or(default))
        .map_err(|error| CliError::Usage(format!("{VARIABLE}: {error}; write a level such as `info`")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
