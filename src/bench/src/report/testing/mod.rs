//! Invented figures for the tests of the report.

use std::collections::BTreeMap;

use super::{
    Run,
    run_info::{Machine, RunInfo, ServerInfo},
};
use crate::figures::{Figure, Figures};

/// Scenario, server, metric, value.
pub(crate) fn figures(lines: &[(&str, &str, &str, f64)]) -> Figures {
    let figure = |&(scenario, server, metric, value): &(&str, &str, &str, f64)| Figure {
        scenario: scenario.to_owned(),
        server: server.to_owned(),
        metric: metric.to_owned(),
        value,
        unit: unit(metric).to_owned(),
        scale: 0.1,
    };
    Figures(lines.iter().map(figure).collect())
}

fn unit(metric: &str) -> &str {
    match metric {
        "throughput" => "events/s",
        "peak_rss" => "MiB",
        "disk_per_event" | "disk_per_state_event" | "event_json" => "bytes",
        other => other.strip_prefix("size_").unwrap_or("ms"),
    }
}

pub(crate) fn run(figures: Figures) -> Run {
    let server = |name: &str, version: &str, database: Option<&str>| ServerInfo {
        name: name.to_owned(),
        version: version.to_owned(),
        database: database.map(str::to_owned),
        settings: vec!["Rate limits are off.".to_owned()],
    };
    Run {
        figures,
        info: RunInfo {
            date: "2001-02-03".to_owned(),
            command: "cargo xtask bench --compare --scale 0.1".to_owned(),
            scale: 0.1,
            length_seconds: 15,
            machine: Machine {
                processor: "Example 3000".to_owned(),
                cores: 2,
                memory: 8 << 30,
                system: "Debian 12".to_owned(),
                kernel: "6.1.0".to_owned(),
                disk: "ext4".to_owned(),
                synced_write_ms: Some(0.24),
            },
            servers: vec![
                server("myelin", "0.1.0", None),
                server("floor", "0.1.0", None),
                server("synapse", "1.2.3", Some("PostgreSQL 15.9")),
                server("dendrite", "0.13.8", Some("PostgreSQL 15.9")),
            ],
            absences: Vec::new(),
            measured: BTreeMap::new(),
        },
    }
}
