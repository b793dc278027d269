//! The report: the page `docs/benchmarks.md` with its charts, and the ratios at the end of a run.
//!
//! Everything is computed from the recorded figures, so that the page can be made anew without measuring anything.

mod bars;
mod chart;
mod numbers;
mod page;
pub(crate) mod run_info;
mod table;
#[cfg(test)]
mod testing;
mod words;

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use self::run_info::RunInfo;
use crate::figures::{Figure, Figures};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("write {path}")]
    Write {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// What was measured and what is to be known about it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) figures: Figures,
    pub(crate) info: RunInfo,
}

/// What the page is made from.
pub(crate) struct Runs {
    /// The run in which the servers took turns.
    pub(crate) compared: Run,
    /// The run of Myelin alone at full size.
    pub(crate) full: Option<Run>,
}

impl Run {
    fn read(path: &Path) -> Result<Self, ReportError> {
        let error = |path: &Path| {
            let path = path.to_path_buf();
            |cause| ReportError::Read { path, cause }
        };
        let beside = RunInfo::beside(path);
        Ok(Self {
            figures: Figures::read(path).map_err(error(path))?,
            info: RunInfo::read(&beside).map_err(error(&beside))?,
        })
    }

    /// The servers that have figures: ours, then the others in the order of their turns.
    fn servers(&self) -> Vec<&str> {
        let ours = ["myelin", "floor"].into_iter();
        let listed = self.info.servers.iter().map(|server| server.name.as_str());
        let measured = self.figures.0.iter().map(|figure| figure.server.as_str());
        let mut names: Vec<&str> = Vec::new();
        for name in ours.chain(listed).chain(measured.clone()) {
            if !names.contains(&name) && measured.clone().any(|other| other == name) {
                names.push(name);
            }
        }
        names
    }

    /// A figure, or why it is not there.
    fn wanted(&self, scenario: &str, server: &str, metric: &str) -> Result<&Figure, String> {
        let figure = self.figures.get(scenario, server, metric);
        figure.ok_or_else(|| {
            let title = words::server(server);
            match self.info.absence(server, scenario) {
                Some(reason) => format!("{title} is absent: {}", page::reason(reason)),
                None => format!("{title} has no figure for it"),
            }
        })
    }
}

/// Makes `benchmarks.md` and its charts in the directory `docs` from the figures in `docs/benchmarks`.
pub(crate) fn write(docs: &Path) -> Result<(), ReportError> {
    let dir = docs.join("benchmarks");
    let full = dir.join("full.jsonl");
    let runs = Runs {
        compared: Run::read(&dir.join("results.jsonl"))?,
        full: full.exists().then(|| Run::read(&full)).transpose()?,
    };
    let written = |path: PathBuf, text: &str| match fs::write(&path, text) {
        Ok(()) => Ok(()),
        Err(cause) => Err(ReportError::Write { path, cause }),
    };
    for scenario in words::SCENARIOS {
        let path = dir.join(format!("{}.svg", scenario.name));
        if let Some(chart) = chart::of(&runs.compared, scenario) {
            written(path, &chart.svg)?;
        } else if path.exists() {
            // Of an earlier run; the page no longer shows it.
            fs::remove_file(&path).map_err(|cause| ReportError::Write { path, cause })?;
        }
    }
    written(docs.join("benchmarks.md"), &page::page(&runs))
}

/// The figures of a run side by side with their ratios, and the bars, for the terminal.
pub(crate) fn ratios(figures: &Figures, info: &RunInfo) -> String {
    let compared = Run {
        figures: figures.clone(),
        info: info.clone(),
    };
    let mut out = String::new();
    for scenario in words::SCENARIOS {
        let table = page::scenario_table(&compared, scenario.name);
        if !table.is_empty() {
            // Writing into a String does not fail.
            write!(out, "\n{} ({})\n{table}", scenario.title, scenario.name).ok();
        }
        for note in page::absences(&compared, scenario.name) {
            writeln!(out, "{note}").ok();
        }
    }
    let mut judged = bars::judge(&Runs {
        compared,
        full: None,
    });
    // A run of some scenarios or servers is not to be told of all that it was not asked for.
    judged.retain(|bar| !matches!(bar.verdict, bars::Verdict::Absent(_)));
    if !judged.is_empty() {
        write!(out, "\nBars\n{}", bars::table(&judged)).ok();
    }
    out
}
