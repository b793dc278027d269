//! `bench`: measures homeservers on this machine. What is done here is preparation: the programs to measure are built or
//! installed, then the driver (`src/bench`) takes this process's place.
//!
//! Peers are installed below `target/bench/peers`, once. One that cannot be is reported as absent, with the reason.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    failure::{Failure, Outcome},
    machine::{self, Part},
    process, workspace,
};

/// The release of Synapse that is measured.
const SYNAPSE: &str = "1.163.2";
/// The release of Dendrite that is measured.
const DENDRITE: &str = "v0.13.8";

/// What is measured, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The scenarios: send, send_many_rooms, fan_out, initial_sync, history, big_room, state_churn, login, idle, restart,
    /// or all.
    #[arg(default_value = "all")]
    scenarios: Vec<String>,
    /// The servers to measure in turn: myelin, floor, synapse, dendrite [default: myelin, or the one at the URL].
    #[arg(long, value_delimiter = ',', conflicts_with = "compare")]
    servers: Vec<String>,
    /// Measure Myelin, the floor, Synapse and Dendrite.
    #[arg(long)]
    compare: bool,
    /// The factor on all sizes; filling a slow server to the full size takes hours.
    #[arg(long)]
    scale: Option<f64>,
    /// Seconds that a measurement goes on which could go on for ever.
    #[arg(long)]
    length: Option<u64>,
    /// Seconds that filling a server may take before a scenario is given up.
    #[arg(long)]
    patience: Option<u64>,
    /// Measure a server that runs already; it must let people register and limit no rates.
    #[arg(long)]
    url: Option<String>,
    /// What the server at the URL is called in the figures.
    #[arg(long, requires = "url")]
    name: Option<String>,
    /// The token that registering at the URL takes.
    #[arg(long, requires = "url")]
    registration_token: Option<String>,
    /// Put the figures below `docs/benchmarks` and write the page: those of a comparison into `results.jsonl`, others into
    /// `full.jsonl`. Without it they go to `target/bench`.
    #[arg(long)]
    record: bool,
    /// Replace only the figures of the scenarios and servers that are measured now.
    #[arg(long)]
    keep: bool,
    /// Where the servers write; a directory that PostgreSQL's user can reach [default: target/bench/run].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The cargo profile to build with.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Only write the page anew from the recorded figures.
    #[arg(long)]
    report: bool,
}

/// Measures, or writes the page.
pub(crate) fn run(options: &Options) -> Outcome {
    machine::prepare(machine::BUILD)?;
    let is_wanted = |name: &str| options.servers().iter().any(|server| server == name);
    let built = build(&options.profile, is_wanted("myelin") && !options.report)?;
    let report = || {
        let mut report = process::command(built.join("myelin-bench"));
        report
            .arg("report")
            .arg("--docs")
            .arg(workspace::root().join("docs"));
        report
    };
    if options.report {
        return process::run(&mut report());
    }
    let mut driver = process::command(built.join("myelin-bench"));
    driver.arg("run");
    options.hand_on(&mut driver);
    driver
        .arg("--myelin")
        .arg(built.join("myelin"))
        .arg("--floor")
        .arg(built.join("myelin-bench-floor"));
    for peer in Peer::ALL {
        if is_wanted(peer.name()) {
            match peer.install() {
                Ok(flags) => {
                    driver.args(flags);
                }
                Err(failure) => {
                    println!("{} is left out: {failure}", peer.name());
                    driver
                        .arg("--absent")
                        .arg(format!("{}={failure}", peer.name()));
                }
            }
        }
    }
    // Both peers have theirs from the same programs.
    if let Some(postgres) = machine::postgres() {
        driver.arg("--postgres").arg(postgres);
    }
    if options.record {
        // A server that is absent makes the run fail in the end, but what was measured is to be seen all the same.
        let measured = process::run(&mut driver);
        // The page is about the comparison; without one there is nothing to write yet.
        if workspace::root()
            .join("docs/benchmarks/results.jsonl")
            .exists()
        {
            process::run(&mut report())?;
        }
        return measured;
    }
    // Signals reach the driver alone, which ends the servers in good order.
    let cause = driver.exec();
    Err(Failure::new(format!("start the driver: {cause}")))
}

/// Builds everything of ours that a run needs and answers where it lies.
fn build(profile: &str, with_myelin: bool) -> Outcome<PathBuf> {
    let build = |package: &str| {
        process::run(
            machine::cargo()
                .args(["build", "--bins", "--profile", profile])
                .args(["--package", package]),
        )
    };
    println!("Building with the profile {profile}.");
    // One after the other: built together, the driver's features of their common dependencies would be the server's too.
    if with_myelin {
        build("myelin-homeserver")?;
    }
    build("myelin-bench")?;
    // The profile's directory has another name in this one case.
    let dir = if profile == "dev" { "debug" } else { profile };
    Ok(workspace::target().join(dir))
}

impl Options {
    /// The servers that are asked for, the one at the URL left aside.
    fn servers(&self) -> Vec<String> {
        if self.compare {
            return ["myelin", "floor", "synapse", "dendrite"]
                .map(str::to_owned)
                .into();
        }
        if self.servers.is_empty() && self.url.is_none() {
            return vec!["myelin".to_owned()];
        }
        self.servers.clone()
    }

    /// Gives the driver what it is told by our caller.
    fn hand_on(&self, driver: &mut Command) {
        let bench = workspace::target().join("bench");
        let results = if self.record {
            workspace::root().join("docs/benchmarks")
        } else {
            bench.clone()
        };
        let file = if self.record && self.servers().len() < 2 && self.url.is_none() {
            "full.jsonl"
        } else {
            "results.jsonl"
        };
        let dir = self.dir.clone().unwrap_or_else(|| bench.join("run"));
        driver
            .args(&self.scenarios)
            .arg("--dir")
            .arg(dir)
            .arg("--out")
            .arg(results.join(file))
            .arg("--command")
            .arg(self.command());
        if let Some(revision) = revision() {
            driver.arg("--revision").arg(revision);
        }
        if !self.servers().is_empty() {
            driver.arg("--servers").arg(self.servers().join(","));
        }
        for (flag, value) in self.values() {
            driver.arg(flag).arg(value);
        }
        if self.keep {
            driver.arg("--keep");
        }
    }

    /// The flags with values that the driver has under the same names.
    fn values(&self) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.clone();
        let values = [
            ("--scale", self.scale.map(|value| value.to_string())),
            ("--length", self.length.map(|value| value.to_string())),
            ("--patience", self.patience.map(|value| value.to_string())),
            ("--url", text(&self.url)),
            ("--name", text(&self.name)),
            ("--registration-token", text(&self.registration_token)),
        ];
        let given = values.into_iter();
        given
            .filter_map(|(flag, value)| Some((flag, value?)))
            .collect()
    }

    /// The command that repeats this run: what the report shows. It has neither a secret nor a path in it.
    fn command(&self) -> String {
        let mut words = vec!["cargo xtask bench".to_owned()];
        words.extend(self.scenarios.iter().cloned());
        if self.compare {
            words.push("--compare".to_owned());
        } else if !self.servers.is_empty() {
            words.push(format!("--servers {}", self.servers.join(",")));
        }
        let values = self.values().into_iter();
        for (flag, value) in values.filter(|(flag, _)| *flag != "--registration-token") {
            words.push(format!("{flag} {value}"));
        }
        if self.profile != "dist" {
            words.push(format!("--profile {}", self.profile));
        }
        words.join(" ")
    }
}

/// What the work tree is: the commit, and whether it has been changed since. None outside a repository.
fn revision() -> Option<String> {
    let git = |arguments: &[&str]| process::output(process::command("git").args(arguments)).ok();
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        "src",
        "Cargo.lock",
    ])?;
    Some(if changed.is_empty() {
        commit
    } else {
        format!("{commit} with changes")
    })
}

/// Another homeserver that can be installed here.
#[derive(Clone, Copy)]
enum Peer {
    Synapse,
    Dendrite,
}

impl Peer {
    const ALL: [Self; 2] = [Self::Synapse, Self::Dendrite];

    fn name(self) -> &'static str {
        match self {
            Self::Synapse => "synapse",
            Self::Dendrite => "dendrite",
        }
    }

    /// Installs it with its database, if it is not there yet, and answers the driver's flags that say where.
    fn install(self) -> Outcome<Vec<String>> {
        let dir = workspace::target().join("bench/peers").join(self.name());
        machine::prepare(machine::POSTGRES)?;
        let mut flags = Vec::new();
        match self {
            Self::Synapse => {
                prepare_synapse(&dir)?;
                flags.extend(["--synapse".to_owned(), dir.display().to_string()]);
                let jemalloc = machine::jemalloc();
                let jemalloc = jemalloc.map(|library| library.display().to_string());
                flags.extend(
                    jemalloc
                        .into_iter()
                        .flat_map(|path| ["--jemalloc".to_owned(), path]),
                );
            }
            Self::Dendrite => {
                prepare_dendrite(&dir)?;
                let programs = dir.join("bin").display().to_string();
                flags.extend(["--dendrite".to_owned(), programs]);
            }
        }
        Ok(flags)
    }
}

/// An environment of Python's with Synapse in it.
fn prepare_synapse(dir: &Path) -> Outcome {
    let parts: [&[Part]; 3] = [machine::PYTHON, machine::PYTHON_HEADERS, machine::JEMALLOC];
    for parts in parts {
        machine::prepare(parts)?;
    }
    let wanted = format!("matrix-synapse[postgres]=={SYNAPSE}");
    once(dir, &wanted, || {
        println!("Installing Synapse {SYNAPSE}.");
        process::run(
            process::command("python3")
                .args(["-m", "venv", "--clear"])
                .arg(dir),
        )?;
        process::run(
            process::command(dir.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .arg(&wanted),
        )
    })
}

/// Dendrite's programs, built from a module that names them as its tools.
fn prepare_dendrite(dir: &Path) -> Outcome {
    machine::prepare(machine::GO)?;
    once(dir, DENDRITE, || {
        println!("Building Dendrite {DENDRITE}.");
        fs::create_dir_all(dir).map_err(|cause| Failure::file("create", dir, &cause))?;
        workspace::write(&dir.join("go.mod"), "module bench-peers\n\ngo 1.24\n")?;
        let program = |name| format!("github.com/matrix-org/dendrite/cmd/{name}@{DENDRITE}");
        let go = || {
            let mut go = process::command("go");
            go.current_dir(dir).env("GOBIN", dir.join("bin"));
            go
        };
        process::run(
            go().args(["get", "-tool"])
                .arg(program("dendrite"))
                .arg(program("generate-keys")),
        )?;
        process::run(go().args(["install", "tool"]))
    })
}

/// Calls `install` unless `wanted` has been installed in `dir` by an earlier run.
fn once(dir: &Path, wanted: &str, install: impl FnOnce() -> Outcome) -> Outcome {
    let stamp = dir.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(&stamp, wanted).map_err(|cause| Failure::file("write", &stamp, &cause))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Options;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        let line = Line::try_parse_from(["bench"].iter().chain(arguments));
        line.expect("it can be read").options
    }

    #[test]
    fn a_comparison_has_all_servers() {
        assert_eq!(options(&["--compare"]).servers().len(), 4);
        assert_eq!(options(&[]).servers(), ["myelin"]);
        assert_eq!(
            options(&["--servers", "floor,myelin"]).servers(),
            ["floor", "myelin"]
        );
        assert!(
            options(&["--url", "http://localhost:1"])
                .servers()
                .is_empty()
        );
    }

    #[test]
    fn the_command_in_the_report_repeats_the_run_and_has_no_secret() {
        let given = options(&[
            "send",
            "--url",
            "http://localhost:1",
            "--registration-token",
            "hidden",
            "--scale",
            "0.5",
            "--record",
        ]);
        assert_eq!(
            given.command(),
            "cargo xtask bench send --scale 0.5 --url http://localhost:1"
        );
    }
}
