//! What was measured: one line of JSON a figure, and the histograms that the figures are taken from.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// One figure of one scenario at one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What was done, as `--scenario` names it.
    pub(crate) scenario: String,
    /// Who did it: `myelin`, `floor`, `synapse`, `dendrite`, or the name that was given with a URL.
    pub(crate) server: String,
    /// What was measured, for example `answer_p50`.
    pub(crate) metric: String,
    /// The value, in `unit`.
    pub(crate) value: f64,
    /// The unit, for example `ms`.
    pub(crate) unit: String,
    /// The factor on all sizes.
    pub(crate) scale: f64,
}

/// The figures of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(pub(crate) Vec<Figure>);

impl Figures {
    /// The figure of a scenario, server and metric.
    pub(crate) fn get(&self, scenario: &str, server: &str, metric: &str) -> Option<&Figure> {
        self.0.iter().find(|figure| {
            figure.scenario == scenario && figure.server == server && figure.metric == metric
        })
    }

    /// Reads what [`Figures::write`] wrote.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let figures = lines.map(serde_json::from_str);
        Ok(Self(figures.collect::<Result<_, _>>()?))
    }

    /// Replaces the file at `path`, one figure a line.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(path)?;
        for figure in &self.0 {
            serde_json::to_writer(&mut file, figure)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Durations of one kind, in microseconds with three significant digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // Up to an hour. The bounds are constants that the constructor accepts.
        Self(Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("constant bounds"))
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.0
            .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        self.0.add(&other.0).expect("equal bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value below which the share `quantile` (0 to 1) lies, in milliseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// In milliseconds.
    pub(crate) fn max(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}
