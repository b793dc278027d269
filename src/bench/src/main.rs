//! The load driver of the benchmark: it starts homeservers, puts load on them through the client-server API, and writes
//! down what it saw. Nothing in it knows how Myelin is made; what it measures any homeserver can be asked.
//!
//! `cargo xtask bench` builds it, installs the peers and calls it; see `docs/benchmarks.md`.

mod bench;
mod client;
mod figures;
mod http;
mod machine;
mod report;
mod run;
mod scenarios;
mod server;
mod servers;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Measures homeservers on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure.
    Run(Box<run::Options>),
    /// Write the page about what was measured.
    Report {
        /// The directory of the documentation: `benchmarks/` in it has the figures.
        #[arg(long)]
        docs: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Run(options) => run::run(*options).await.map_err(|cause| run::chain(&cause)),
        Task::Report { docs } => report::write(&docs).map_err(|cause| run::chain(&cause)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Where there is no standard error, the exit code has to say it.
            writeln!(std::io::stderr(), "myelin-bench: {why}").ok();
            ExitCode::FAILURE
        }
    }
}
