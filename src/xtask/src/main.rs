//! `cargo xtask`: what developers and CI run. It builds in seconds, so that a clone can be set up by it: no crate of the
//! server and nothing in C++ is among its dependencies.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks to the person at the terminal"
)]

mod bench;
mod ci;
mod complement;
mod engine;
mod failure;
mod image;
mod machine;
mod process;
mod sdk;
mod test;
mod tidy;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::failure::Outcome;

/// The tasks of the Myelin repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building needs, build, and run a homeserver with its default configuration.
    Serve {
        /// Passed on to `myelin serve`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the server and run any of its commands, for example `cargo xtask myelin user create alice`.
    Myelin {
        /// Passed on to `myelin`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every test: the workspace's own, then the client SDKs' and those with Synapse against the built server.
    Test {
        /// Fail when the tests with others cannot be prepared, instead of leaving them out with a note.
        #[arg(long, conflicts_with = "no_sdk")]
        sdk: bool,
        /// Leave the tests with client SDKs and Synapse out.
        #[arg(long)]
        no_sdk: bool,
    },
    /// Only the tests of two servers of ours with a Synapse. The environment chooses what: see tests/federation.
    Federation,
    /// Everything CI checks: formatting, tidiness, lints, tests, the Complement image.
    Ci,
    /// Check what the compiler does not: file headers and lengths, the crate list, layering, strings that must not appear.
    Tidy,
    /// Build the image that Complement starts.
    ComplementImage,
    /// Run Complement from a checkout of it, one package after the other.
    Complement(complement::suite::Options),
    /// Compare a run of Complement with the committed results and rewrite the lines of the tests that ran.
    ComplementRecord {
        /// What `go test -json` printed.
        file: PathBuf,
        /// Why a test that passed may be recorded as not passing; belongs into the commit message.
        #[arg(long)]
        reason: Option<String>,
        /// Drop recorded subtests that did not appear although the test they belong to ran.
        #[arg(long)]
        prune: bool,
    },
    /// Check the committed results without running anything, and print where each area stands.
    ComplementCheck,
    /// Start the Complement image once and see it answer on both of its ports.
    ImageCheck,
    /// Measure Myelin, and other homeservers on the same machine; docs/benchmarks.md has what was measured.
    Bench(Box<bench::Options>),
}

fn run(task: Task) -> Outcome {
    match task {
        Task::Serve { arguments } => machine::run_server("serve", &arguments),
        Task::Myelin { arguments } => match arguments.split_first() {
            Some((command, rest)) => machine::run_server(command, rest),
            None => machine::run_server("help", &[]),
        },
        Task::Test { sdk, no_sdk } => {
            test::run(sdk::Wish::from_flags(sdk, no_sdk)).and_then(|report| report.close())
        }
        Task::Federation => sdk::federation(),
        Task::Ci => ci::run(),
        Task::Tidy => tidy::run(),
        Task::ComplementImage => image::build(),
        Task::Complement(options) => complement::suite::run(&options),
        Task::ComplementRecord {
            file,
            reason,
            prune,
        } => complement::record::run(&file, reason.as_deref(), prune),
        Task::ComplementCheck => complement::check(),
        Task::ImageCheck => image::check(),
        Task::Bench(options) => bench::run(&options),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
