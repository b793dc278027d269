//! Benchmarks of homeservers over the public client-server API: a load driver, the servers it starts beside each other on
//! one machine, and the report. Knows nothing of how a server is made; what it measures any homeserver can be asked.
//!
//! `cargo xtask bench` builds it, installs the peers and calls it; see `docs/benchmarks.md`.

mod bench;
mod client;
mod figures;
mod http;
mod scenarios;
mod server;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// Measures homeservers on this machine.
#[derive(Parser)]
struct Arguments {
    /// The scenarios, or `all`.
    #[arg(default_value = "all")]
    scenarios: Vec<String>,
    /// The servers to measure in turn.
    #[arg(long, value_delimiter = ',', default_value = "myelin")]
    servers: Vec<String>,
    /// The factor on all sizes; the same for every server of a run.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Seconds that a measurement goes on which could go on for ever.
    #[arg(long, default_value_t = 15)]
    length: u64,
    /// Where the figures go, one line of JSON each.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    drop(arguments);
    ExitCode::FAILURE
}
