//! The scenarios, each a file. What a figure of a scenario means stands at the top of its file.

pub(crate) mod send;

use crate::bench::{Bench, BenchError};

/// The names of all scenarios, in the order in which `all` runs them: later ones use what earlier ones have filled.
pub(crate) const NAMES: [&str; 10] = [
    "send",
    "send_many_rooms",
    "fan_out",
    "initial_sync",
    "history",
    "big_room",
    "state_churn",
    "login",
    "idle",
    "restart",
];

/// Runs the scenario that `bench` names.
pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    match bench.scenario {
        "send" => send::run(bench, 1, 32).await,
        "send_many_rooms" => {
            // Fewer rooms than these would no longer be many.
            let rooms = bench.sized(100, 32);
            send::run(bench, rooms, rooms).await
        }
        other => Err(BenchError::Wrong(format!("there is no scenario `{other}`"))),
    }
}
