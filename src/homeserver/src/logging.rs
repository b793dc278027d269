//! Where log lines go, and which.

use std::io::{self, IsTerminal as _};

use myelin_config::{Log, LogFormat};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Starts logging to standard error; once a process, later calls change nothing. The message of the error belongs
/// to the setting `log.filter`.
pub(crate) fn start(log: &Log) -> Result<(), String> {
    let filter = filter(log)?;
    let lines = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // Failure means that logging has been started before.
    match log.format {
        LogFormat::Text => registry
            .with(lines.with_ansi(io::stderr().is_terminal()))
            .try_init()
            .ok(),
        LogFormat::Json => registry.with(lines.json()).try_init().ok(),
    };
    Ok(())
}

/// Reads the filter as the subscriber will.
pub(crate) fn filter(log: &Log) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .parse(&log.filter)
        .map_err(|error| format!("log.filter: {error}"))
}
