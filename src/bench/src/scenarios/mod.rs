//! The scenarios, each a file. What a figure of a scenario means stands at the top of its file.

mod arrivals;
mod big_room;
mod fan_out;
mod history;
mod idle;
mod initial_sync;
mod load;
mod login;
mod restart;
mod send;
mod state_churn;

use crate::bench::{Bench, BenchError};

/// The names of all scenarios, in the order in which `all` runs them: later ones use what earlier ones have filled.
///
/// *state_churn* is the first, since what it adds to the disk is little, and would be lost in what a server still tidies up of
/// a large data set.
pub(crate) const NAMES: [&str; 10] = [
    "state_churn",
    "send",
    "send_many_rooms",
    "fan_out",
    "initial_sync",
    "history",
    "big_room",
    "login",
    "idle",
    "restart",
];

/// Runs the scenario that `bench` names.
pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let name = bench.scenario;
    if bench.server.name == "floor" && !name.starts_with("send") {
        return Err(BenchError::NotApplicable("the floor only takes messages"));
    }
    match name {
        "send" => send::run(bench, 1, 32).await,
        "send_many_rooms" => {
            // Fewer rooms than these would no longer be many.
            let rooms = bench.sized(100, 32);
            send::run(bench, rooms, rooms).await
        }
        "fan_out" => fan_out::run(bench).await,
        "initial_sync" => initial_sync::run(bench).await,
        "history" => history::run(bench).await,
        "big_room" => big_room::run(bench).await,
        "state_churn" => state_churn::run(bench).await,
        "login" => login::run(bench).await,
        "idle" => idle::run(bench).await,
        "restart" => restart::run(bench).await,
        other => Err(BenchError::Wrong(format!("there is no scenario `{other}`"))),
    }
}

/// The middle one; of an even number the higher of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
