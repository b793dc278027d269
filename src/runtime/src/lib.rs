//! The life of a server process: its tasks, its shutdown, its exit code.
//!
//! Is: tracked and named tasks, the soft and the hard stop, signals, periodic steps.
//! Is not: anything that knows what the tasks do; knows no Matrix, no store, no HTTP.

mod lifecycle;
mod periodic;
mod tasks;

pub use lifecycle::{Cause, Ending, Lifecycle};
pub use periodic::Step;
pub use tasks::Tasks;
