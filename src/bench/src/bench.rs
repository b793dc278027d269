//! What a scenario works with: the server, people at it, the sizes, and where the figures go.

use std::{collections::HashMap, fmt, io::Write as _, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use crate::{
    client::{CallError, User},
    figures::{Figure, Figures, Latencies},
    server::{Server, ServerError},
};

/// Why a scenario has no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("a task of the driver broke off")]
    Task(#[from] tokio::task::JoinError),
    #[error("it was not filled within {0:?}")]
    TooSlow(Duration),
    #[error("{0}")]
    Wrong(String),
}

/// How many requests at once fill a server before something is measured.
pub(crate) const FILLERS: usize = 16;

/// One scenario at one server.
pub(crate) struct Bench<'a> {
    pub(crate) scenario: &'static str,
    pub(crate) server: &'a mut Server,
    pub(crate) people: &'a mut People,
    /// The factor on all sizes; 1 is the full size.
    pub(crate) scale: f64,
    /// How long a measurement that could go on for ever goes on.
    pub(crate) length: Duration,
    /// How long filling may take before the scenario is given up.
    pub(crate) patience: Duration,
    pub(crate) figures: &'a mut Figures,
}

/// The users that a server has got so far. Later scenarios use them again.
#[derive(Default)]
pub(crate) struct People {
    users: Vec<User>,
    /// What a scenario leaves for a later one.
    pub(crate) notes: HashMap<&'static str, String>,
}

impl Bench<'_> {
    /// `full` times the scale, but not less than `least`.
    pub(crate) fn sized(&self, full: usize, least: usize) -> usize {
        ((full as f64 * self.scale).round() as usize).max(least)
    }

    /// Keeps a figure and shows it.
    pub(crate) fn figure(&mut self, metric: &str, value: f64, unit: &str) {
        let figure = Figure {
            scenario: self.scenario.to_owned(),
            server: self.server.name.clone(),
            metric: metric.to_owned(),
            // More digits than a run can be trusted with only make the file harder to compare.
            value: rounded(value),
            unit: unit.to_owned(),
            scale: self.scale,
        };
        say(format_args!(
            "{:>16} {:>10} {:<22} {:>12} {}",
            figure.scenario, figure.server, figure.metric, figure.value, figure.unit
        ));
        self.figures.0.push(figure);
    }

    /// The quantiles of the answers.
    pub(crate) fn answers(&mut self, latencies: &Latencies) {
        self.figure("answer_p50", latencies.quantile(0.5), "ms");
        self.figure("answer_p95", latencies.quantile(0.95), "ms");
        self.figure("answer_p99", latencies.quantile(0.99), "ms");
        self.figure("answer_max", latencies.max(), "ms");
    }

    /// `count` users, registered as far as they are not there yet. Each has a connection of its own.
    pub(crate) async fn users(&mut self, count: usize) -> Result<Vec<User>, BenchError> {
        let known = self.people.users.len();
        if known < count {
            let (server, begun) = (&*self.server, Instant::now());
            let new = stream::iter(known..count)
                .map(|number| async move {
                    let name = format!("{}{number}", server.prefix);
                    User::register(&server.host, &name, &server.registration).await
                })
                .buffered(FILLERS)
                .try_collect::<Vec<_>>();
            let new = tokio::time::timeout(self.patience, new)
                .await
                .map_err(|_| BenchError::TooSlow(self.patience))??;
            self.people.users.extend(new);
            self.say(&format!(
                "registered {} users in {:.1} s",
                count - known,
                begun.elapsed().as_secs_f64()
            ));
        }
        Ok(self.people.users[..count].iter().map(User::beside).collect())
    }

    /// Tells whoever watches how far it is.
    pub(crate) fn say(&self, what: &str) {
        say(format_args!(
            "{:>16} {:>10} ({what})",
            self.scenario, self.server.name
        ));
    }

    /// Begins to measure what the server uses.
    pub(crate) fn meter(&mut self) -> Meter {
        self.server.watch_memory();
        Meter {
            begun: Instant::now(),
            cpu: self.server.cpu(),
        }
    }
}

/// What the server used from the moment it was made.
pub(crate) struct Meter {
    begun: Instant,
    cpu: Option<Duration>,
}

impl Meter {
    pub(crate) fn wall(&self) -> Duration {
        self.begun.elapsed()
    }

    /// CPU time of the server since, if it is ours.
    pub(crate) fn cpu(&self, bench: &Bench<'_>) -> Option<Duration> {
        Some(bench.server.cpu()?.saturating_sub(self.cpu?))
    }

    /// Writes `cpu` in milliseconds for each of `operations`, and `peak_rss`.
    pub(crate) fn close(self, bench: &mut Bench<'_>, operations: u64) {
        if let Some(cpu) = self.cpu(bench) {
            let each = cpu.as_secs_f64() * 1e3 / operations.max(1) as f64;
            bench.figure("cpu", each, "ms");
        }
        if let Some(peak) = bench.server.peak_memory() {
            bench.figure("peak_rss", peak as f64 / f64::from(1 << 20), "MiB");
        }
    }
}

/// Four significant digits.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let magnitude = 10_f64.powf(3.0 - value.abs().log10().floor());
    (value * magnitude).round() / magnitude
}

/// A line for whoever watches. That nobody does is no reason to stop.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").ok();
}
