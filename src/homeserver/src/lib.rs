//! The homeserver `myelin`: command line, composition root, listeners.
//!
//! Is: the place where the parts are put together, top to bottom, and where processes and operators meet them.
//! Is not: logic. What the server does stands in the crates it composes.

mod backup;
mod cli;
mod commands;
mod control;
mod core;
mod data_dir;
mod health;
mod janitors;
mod listeners;
mod logging;
mod memory;
mod metrics;
mod observe;
mod operator;
mod pages;
mod server;
mod signing;

use std::process::ExitCode;

pub use self::core::{Core, OpenError, Surroundings};
pub use data_dir::{DATABASE, DataDirError, SIGNING_KEY};
pub use listeners::ListenError;
pub use server::{Server, StartError};
pub use signing::SigningError;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the command of this process's command line.
pub fn main() -> ExitCode {
    memory::without_huge_pages();
    commands::run()
}
