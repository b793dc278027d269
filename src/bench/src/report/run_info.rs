//! What a reader has to know about a run besides its figures. It lies beside them: `run.json` beside `results.jsonl`, and
//! `full.json` beside `full.jsonl`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A run: where, when, with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunInfo {
    /// The day on which it began, UTC, as in `2026-11-24`.
    pub(crate) date: String,
    /// The command that repeats it, from the root of the repository.
    pub(crate) command: String,
    /// The factor on all sizes, the same for every server; 1 is the full size.
    pub(crate) scale: f64,
    /// How long a measurement went on that could go on for ever, in seconds.
    pub(crate) length_seconds: u64,
    pub(crate) machine: Machine,
    /// The servers that were asked for, in the order in which they took turns; also those that are absent.
    pub(crate) servers: Vec<ServerInfo>,
    /// What has no figures, and why.
    pub(crate) absences: Vec<Absence>,
    /// When each scenario was over, UTC, as in `2026-11-24 17:05`.
    #[serde(default)]
    pub(crate) measured: BTreeMap<String, String>,
}

/// The machine that everything ran on, the driver included. What could not be found out is empty, or zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) processor: String,
    /// How many cores the run could use.
    pub(crate) cores: usize,
    /// In bytes.
    pub(crate) memory: u64,
    /// The distribution and its version.
    pub(crate) system: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The file system that held the data, and what is known of the disk below.
    pub(crate) disk: String,
    /// How long a write of 32 KiB and its `fdatasync` took on that file system, the median, in milliseconds.
    pub(crate) synced_write_ms: Option<f64>,
}

/// One server of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerInfo {
    /// As in the figures, for example `synapse`.
    pub(crate) name: String,
    /// Its version, for Myelin with the commit.
    pub(crate) version: String,
    /// The database outside its process and that one's version, for example `PostgreSQL 15.9`.
    pub(crate) database: Option<String>,
    /// One sentence each: what differs from the defaults, and why; what is answered before or after it is on disk.
    pub(crate) settings: Vec<String>,
}

/// A server without figures, in one scenario or in the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Absence {
    pub(crate) server: String,
    /// None: it took part in no scenario.
    pub(crate) scenario: Option<String>,
    /// Part of a sentence, as in "it was not filled within 600 s".
    pub(crate) reason: String,
}

impl RunInfo {
    /// Reads what [`RunInfo::write`] wrote.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// Replaces the file at `path`.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text)
    }

    /// Where the information about the figures in `figures` lies.
    pub(crate) fn beside(figures: &Path) -> PathBuf {
        let name = figures.file_stem().and_then(|stem| stem.to_str());
        figures.with_file_name(match name {
            None | Some("results") => "run.json".to_owned(),
            Some(name) => format!("{name}.json"),
        })
    }

    /// Why `server` has no figures in `scenario`, if that is known.
    pub(crate) fn absence(&self, server: &str, scenario: &str) -> Option<&str> {
        let found = self.absences.iter().find(|absence| {
            let of_scenario = absence.scenario.as_deref();
            absence.server == server && of_scenario.is_none_or(|name| name == scenario)
        });
        found.map(|absence| absence.reason.as_str())
    }
}
