//! The loop of a run: scenario by scenario, each server in turn.
//!
//! All servers stay up over the whole run, and only one of them is asked for something at any time. What goes wrong at one
//! server is noted as absent with its reason, and the run goes on.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    bench::{Bench, BenchError, People, say},
    figures::Figures,
    machine,
    report::{
        self,
        run_info::{Absence, RunInfo, ServerInfo},
    },
    scenarios,
    server::Server,
    servers::{self, Programs, Remote},
};

/// The scenario whose figures are those of the whole set.
const ALL: &str = "all";

/// What is measured, where and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The scenarios, or `all`.
    #[arg(default_value = ALL)]
    scenarios: Vec<String>,
    /// The servers to measure in turn: `myelin`, `floor`, `synapse`, `dendrite` [default: `myelin`, or the one at the URL].
    #[arg(long, value_delimiter = ',')]
    servers: Option<Vec<String>>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    programs: Programs,
    /// The factor on all sizes; the same for every server of a run.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    scale: f64,
    /// Seconds that a measurement goes on which could go on for ever.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    length: u64,
    /// Seconds that filling a server may take before a scenario is given up.
    #[arg(long, default_value_t = 900)]
    patience: u64,
    /// Where the servers keep what they write, a directory each, which is emptied first.
    #[arg(long)]
    dir: PathBuf,
    /// Where the figures go, one line of JSON each. What else is to be known of the run goes beside it.
    #[arg(long)]
    out: PathBuf,
    /// Keep the figures of earlier runs in that file, but for those that are measured now.
    #[arg(long)]
    keep: bool,
    /// Why a server that was asked for cannot be measured, as `NAME=REASON`.
    #[arg(long, value_parser = pair)]
    absent: Vec<(String, String)>,
    /// The commit that Myelin and the floor were built from, for the report.
    #[arg(long)]
    revision: Option<String>,
    /// The command that repeats this run, for the report.
    #[arg(long, default_value = "")]
    command: String,
}

/// Why a run did not come to its end, or does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("there is no scenario `{0}`; there are {known}, and `all`", known = scenarios::NAMES.join(", "))]
    Scenario(String),
    #[error("there is no server `{0}`; there are {known}, and `--url`", known = servers::NAMES.join(", "))]
    Server(String),
    #[error("{path}")]
    File {
        path: String,
        #[source]
        cause: io::Error,
    },
    #[error("{0} has figures of another scale than {1}; without `--keep` they are replaced")]
    Scale(String, f64),
    #[error("interrupted; what was measured until then is kept")]
    Interrupted,
    #[error("{0} could not be measured in everything; the reasons stand above")]
    Incomplete(&'static str),
    #[error("no server could be measured; the reasons stand above")]
    Nothing,
}

/// Measures what `options` ask for.
pub(crate) async fn run(options: Options) -> Result<(), RunError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |cause| RunError::File { path, cause }
    };
    let names = chosen(&options.scenarios)?;
    let wanted = options.wanted()?;
    fs::create_dir_all(&options.dir).map_err(failed(&options.dir))?;
    let machine = machine::look(&options.dir).map_err(failed(&options.dir))?;
    let info = RunInfo {
        date: machine::now()
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned(),
        command: options.command.clone(),
        scale: options.scale,
        length_seconds: options.length,
        machine,
        ..RunInfo::default()
    };
    let mut run = Run {
        options: &options,
        names,
        wanted,
        figures: Figures::default(),
        info,
    };
    if options.keep {
        run.take_over()?;
    }

    let mut guests = Vec::new();
    let interrupted = async {
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok::<_, io::Error>(())
    };
    let outcome = tokio::select! {
        outcome = run.measure(&mut guests) => outcome,
        Ok(()) = interrupted => Err(RunError::Interrupted),
    };
    for guest in &mut guests {
        if let Some(server) = &mut guest.server
            && let Err(cause) = server.end().await
        {
            say(format_args!("{}: {}", guest.name, chain(&cause)));
        }
    }
    outcome?;
    say(format_args!("{}", report::ratios(&run.figures, &run.info)));
    if guests.iter().all(|guest| guest.server.is_none()) {
        return Err(RunError::Nothing);
    }
    // An absent peer is a fact of the machine; with Myelin something is wrong.
    if run
        .info
        .absences
        .iter()
        .any(|absence| absence.server == "myelin")
    {
        return Err(RunError::Incomplete("myelin"));
    }
    Ok(())
}

/// A server of the run, as long as it can be measured.
struct Guest {
    name: String,
    server: Option<Server>,
    people: People,
    /// CPU time over all scenarios.
    cpu: Duration,
    /// The scenarios that it has no figures of although they could be asked of it.
    failed: Vec<&'static str>,
}

struct Run<'a> {
    options: &'a Options,
    names: Vec<&'static str>,
    wanted: Vec<String>,
    figures: Figures,
    info: RunInfo,
}

impl Options {
    /// The names of the servers that are asked for.
    fn wanted(&self) -> Result<Vec<String>, RunError> {
        let remote = self.remote.name().map(str::to_owned);
        let mut wanted = match (&self.servers, &remote) {
            (Some(servers), _) => servers.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => vec!["myelin".to_owned()],
        };
        if let Some(unknown) = wanted
            .iter()
            .find(|name| !servers::NAMES.contains(&name.as_str()))
        {
            return Err(RunError::Server(unknown.clone()));
        }
        if let Some(remote) = remote {
            if wanted.contains(&remote) {
                return Err(RunError::Server(remote));
            }
            wanted.push(remote);
        }
        Ok(wanted)
    }
}

impl Run<'_> {
    async fn measure(&mut self, guests: &mut Vec<Guest>) -> Result<(), RunError> {
        for name in self.wanted.clone() {
            let server = self.start(&name).await;
            guests.push(Guest {
                name,
                server,
                people: People::default(),
                cpu: Duration::ZERO,
                failed: Vec::new(),
            });
        }
        self.save()?;
        for name in self.names.clone() {
            for guest in guests.iter_mut() {
                self.visit(guest, name).await;
                self.save()?;
            }
            self.info.measured.insert(name.to_owned(), machine::now());
            self.save()?;
        }
        if self.names.len() == scenarios::NAMES.len() {
            for guest in guests.iter_mut() {
                self.sum_up(guest);
            }
            self.save()?;
        }
        Ok(())
    }

    /// Starts a server, or notes why it is absent.
    async fn start(&mut self, name: &str) -> Option<Server> {
        let known = self
            .options
            .absent
            .iter()
            .find(|(absent, _)| absent == name);
        let started = if let Some((_, reason)) = known {
            Err(reason.clone())
        } else if self.options.remote.name() == Some(name) {
            let started = self.options.remote.start().await;
            started.map_err(|cause| chain(&cause))
        } else {
            let dir = self.options.dir.join(name);
            let started = self.options.programs.start(name, &dir).await;
            started.map_err(|cause| chain(&cause))
        };
        match started {
            Ok(mut server) => {
                if let (Some(revision), "myelin" | "floor") = (&self.options.revision, name) {
                    server.version = format!("{} ({revision})", server.version);
                }
                say(format_args!("{name}: {}", server.version));
                self.info.servers.push(ServerInfo {
                    name: name.to_owned(),
                    version: server.version.clone(),
                    database: server.database.clone(),
                    settings: server.settings.clone(),
                });
                Some(server)
            }
            Err(reason) => {
                self.info.servers.push(ServerInfo {
                    name: name.to_owned(),
                    ..ServerInfo::default()
                });
                self.absent(name, None, reason);
                None
            }
        }
    }

    /// Runs one scenario at one server.
    async fn visit(&mut self, guest: &mut Guest, scenario: &'static str) {
        let Some(server) = &mut guest.server else {
            return;
        };
        server.attend(true);
        let before = server.cpu();
        let patience = Duration::from_secs(self.options.patience);
        let mut bench = Bench {
            scenario,
            server,
            people: &mut guest.people,
            scale: self.options.scale,
            length: Duration::from_secs(self.options.length),
            patience,
            figures: &mut self.figures,
        };
        // Filling has its own limit; this one is for what nobody thought of.
        let limit = 3 * patience + Duration::from_secs(20 * self.options.length);
        let outcome = timeout(limit, scenarios::run(&mut bench)).await;
        let outcome = outcome.unwrap_or(Err(BenchError::TooSlow(limit)));
        if let (Some(before), Some(after)) = (before, server.cpu()) {
            guest.cpu += after.saturating_sub(before);
        }
        let reason = match outcome {
            Ok(()) => None,
            Err(cause @ BenchError::NotApplicable(_)) => {
                // That the floor is no homeserver needs no saying.
                if guest.name != "floor" {
                    self.absent(&guest.name, Some(scenario), chain(&cause));
                }
                None
            }
            Err(cause) => Some(chain(&cause)),
        };
        if let Some(reason) = reason {
            guest.failed.push(scenario);
            self.absent(&guest.name, Some(scenario), reason);
            // Some of its clients may still be at work; and it may not be running.
            if let Err(cause) = restart(server).await {
                let reason = format!(
                    "after {scenario} it could not be started: {}",
                    chain(&cause)
                );
                guest.server = None;
                self.lost(&guest.name, scenario, &reason);
                return;
            }
        }
        server.attend(false);
    }

    /// Notes that the scenarios after `scenario` have no figures of a server.
    fn lost(&mut self, name: &str, scenario: &str, reason: &str) {
        let later = self.names.clone().into_iter();
        for later in later.skip_while(|&name| name != scenario).skip(1) {
            self.absent(name, Some(later), reason.to_owned());
        }
    }

    /// The figures over the whole set.
    fn sum_up(&mut self, guest: &mut Guest) {
        let (Some(server), true) = (&mut guest.server, guest.name != "floor") else {
            return;
        };
        let (memory, is_ours) = (server.highest_memory(), server.is_ours());
        let mut bench = Bench {
            scenario: ALL,
            server,
            people: &mut guest.people,
            scale: self.options.scale,
            length: Duration::ZERO,
            patience: Duration::ZERO,
            figures: &mut self.figures,
        };
        if let Some(memory) = memory {
            bench.figure("peak_rss", memory as f64 / f64::from(1 << 20), "MiB");
        }
        // The CPU time of a part of the set is not to be compared with that of the whole.
        if guest.failed.is_empty() {
            if is_ours {
                bench.figure("cpu", guest.cpu.as_secs_f64(), "s");
            }
        } else {
            let reason = format!(
                "not everything was measured: {} failed",
                guest.failed.join(", ")
            );
            self.absent(&guest.name, Some(ALL), reason);
        }
    }

    fn absent(&mut self, server: &str, scenario: Option<&str>, reason: String) {
        say(format_args!(
            "{:>16} {server:>10} ABSENT: {reason}",
            scenario.unwrap_or(ALL)
        ));
        self.info.absences.push(Absence {
            server: server.to_owned(),
            scenario: scenario.map(str::to_owned),
            reason,
        });
    }

    /// Takes over what an earlier run has measured and this one does not measure anew.
    fn take_over(&mut self) -> Result<(), RunError> {
        let out = &self.options.out;
        let failed = |cause| RunError::File {
            path: out.display().to_string(),
            cause,
        };
        if !out.exists() {
            return Ok(());
        }
        let mut figures = Figures::read(out).map_err(failed)?;
        let info = RunInfo::read(&RunInfo::beside(out)).map_err(failed)?;
        let whole = self.names.len() == scenarios::NAMES.len();
        let (wanted, names) = (&self.wanted, &self.names);
        let replaced = |server: &str, scenario: &str| {
            let named = names.contains(&scenario) || whole && scenario == ALL;
            named && wanted.iter().any(|name| name == server)
        };
        figures
            .0
            .retain(|figure| !replaced(&figure.server, &figure.scenario));
        let scale = self.options.scale;
        if figures
            .0
            .iter()
            .any(|figure| (figure.scale - scale).abs() > f64::EPSILON)
        {
            return Err(RunError::Scale(out.display().to_string(), scale));
        }
        let (servers, absences) = (info.servers.into_iter(), info.absences.into_iter());
        self.info.servers = servers
            .filter(|server| !wanted.contains(&server.name))
            .collect();
        let absences = absences.filter(|absence| {
            let of = absence.scenario.as_deref();
            !of.map_or(wanted.contains(&absence.server), |name| {
                replaced(&absence.server, name)
            })
        });
        self.info.absences = absences.collect();
        self.info.measured = info.measured;
        self.figures = figures;
        Ok(())
    }

    fn save(&self) -> Result<(), RunError> {
        let out = &self.options.out;
        let written = match out.parent() {
            Some(dir) => fs::create_dir_all(dir),
            None => Ok(()),
        };
        let written = written
            .and_then(|()| self.figures.write(out))
            .and_then(|()| self.info.write(&RunInfo::beside(out)));
        written.map_err(|cause| RunError::File {
            path: out.display().to_string(),
            cause,
        })
    }
}

async fn restart(server: &mut Server) -> Result<(), crate::server::ServerError> {
    if server.is_ours() {
        server.stop().await?;
        server.start().await?;
    }
    Ok(())
}

/// The scenarios that `asked` names, in the order in which they are to run.
fn chosen(asked: &[String]) -> Result<Vec<&'static str>, RunError> {
    let known = |name: &String| name == ALL || scenarios::NAMES.contains(&name.as_str());
    if let Some(unknown) = asked.iter().find(|name| !known(name)) {
        return Err(RunError::Scenario(unknown.clone()));
    }
    let whole = asked.iter().any(|name| name == ALL);
    let names = scenarios::NAMES.into_iter();
    Ok(names
        .filter(|&name| whole || asked.iter().any(|asked| asked == name))
        .collect())
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        // An error that passes on its cause's words says nothing of its own.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("a number above 0".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, reason) = text.split_once('=').ok_or("NAME=REASON")?;
    Ok((name.to_owned(), reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Options, RunError, chosen};
    use crate::scenarios;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn wanted(arguments: &[&str]) -> Vec<String> {
        let fixed = ["bench", "--dir", "d", "--out", "o"];
        let line = Line::try_parse_from(fixed.iter().chain(arguments)).expect("it can be read");
        line.options.wanted().expect("servers that there are")
    }

    #[test]
    fn scenarios_run_in_their_own_order() {
        let asked = |names: &[&str]| {
            chosen(
                &names
                    .iter()
                    .map(|&name| name.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            asked(&["history", "send"]).expect("known"),
            ["send", "history"]
        );
        assert_eq!(asked(&["send", "all"]).expect("known"), scenarios::NAMES);
        assert!(matches!(asked(&["sned"]), Err(RunError::Scenario(name)) if name == "sned"));
    }

    #[test]
    fn a_server_at_a_url_stands_in_for_ours_unless_both_are_asked_for() {
        assert_eq!(wanted(&[]), ["myelin"]);
        assert_eq!(wanted(&["--url", "http://localhost:1"]), ["other"]);
        assert_eq!(
            wanted(&[
                "--servers",
                "myelin,floor",
                "--url",
                "http://localhost:1",
                "--name",
                "mine"
            ]),
            ["myelin", "floor", "mine"]
        );
    }
}
