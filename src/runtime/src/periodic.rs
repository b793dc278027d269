//! Steps that are run again and again: janitors, sweeps, refreshes.

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// One idempotent piece of work which compares what is with what should be and moves a bounded batch. After a
/// crash it simply runs again.
///
/// Implemented by closures which return a future of a `Result<(), E>`.
pub trait Step: Send + 'static {
    /// Runs the step once. `Err` is what to write into the log; the step is tried again at its next time.
    fn run(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

impl<F, Fut, E> Step for F
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Display,
{
    async fn run(&mut self) -> Result<(), String> {
        self().await.map_err(|error| error.to_string())
    }
}

pub(crate) async fn run<S: Step>(
    name: &'static str,
    interval: Duration,
    mut step: S,
    soft: CancellationToken,
) {
    let mut ticks = interval_at(Instant::now(), interval);
    // After a long step or a suspended machine one run is enough to catch up.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while soft.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = step.run().await {
            tracing::warn!(
                step = name,
                error,
                "a periodic step failed, it will run again"
            );
        }
    }
}
