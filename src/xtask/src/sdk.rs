//! What others have written against the built server: the client SDKs matrix-js-sdk in `tests/sdk/js` and matrix-nio in
//! `tests/sdk/nio`, and the homeserver Synapse in `tests/federation`. Each starts its own servers on free ports of the
//! loopback interface.

use std::{fs, path::Path, process::Command};

use crate::{
    failure::{Failure, Outcome},
    machine::{self, Beside},
    process,
    test::Totals,
    workspace,
};

/// The oldest Node.js that the pinned matrix-js-sdk runs on.
const OLDEST_NODE: u32 = 20;

/// Whether the SDK tests are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Failing to prepare them fails the run.
    Required,
    /// Run what can be prepared on this machine, and name the rest.
    WherePossible,
    /// Leave them out.
    No,
}

impl Wish {
    /// The wish behind `--sdk` and `--no-sdk`.
    pub(crate) fn from_flags(sdk: bool, no_sdk: bool) -> Self {
        match (sdk, no_sdk) {
            (true, _) => Self::Required,
            (false, true) => Self::No,
            (false, false) => Self::WherePossible,
        }
    }
}

/// An SDK or a server whose tests with ours are part of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sdk {
    /// matrix-js-sdk, on Node.js.
    Js,
    /// matrix-nio, on Python.
    Nio,
    /// Synapse, as a peer in federation.
    Synapse,
}

impl Sdk {
    /// All, in the order in which they are run.
    pub(crate) const ALL: [Self; 3] = [Self::Js, Self::Nio, Self::Synapse];

    /// The name that its users know.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Js => "matrix-js-sdk",
            Self::Nio => "matrix-nio",
            Self::Synapse => "federation with Synapse",
        }
    }

    /// Installs the SDK and answers the command that runs its tests.
    pub(crate) fn prepare(self) -> Outcome<Command> {
        match self {
            Self::Js => prepare_js(),
            Self::Nio => prepare_python("tests/sdk/nio", "sdk/nio", "conversation.py"),
            Self::Synapse => {
                prepare_python("tests/federation", "sdk/federation", "three_servers.py")
            }
        }
    }

    /// Runs `tests`, which [`Sdk::prepare`] gave, against the server at `binary`.
    pub(crate) fn run(self, tests: &mut Command, binary: &Path) -> Outcome<Totals> {
        tests.env("MYELIN_BIN", binary);
        let mut totals = Totals::default();
        let succeeded = process::lines(tests, |line| {
            println!("{line}");
            self.count(line, &mut totals);
        })?;
        // A run that breaks before its summary must not pass for one without failures.
        if !succeeded && totals.failed == 0 {
            totals.failed = 1;
        }
        Ok(totals)
    }

    fn count(self, line: &str, totals: &mut Totals) {
        let number = |rest: &str| rest.trim().parse::<u64>().unwrap_or(0);
        match self {
            // The closing lines of TAP as node's runner writes it.
            Self::Js => {
                if let Some(rest) = line.strip_prefix("# pass ") {
                    totals.passed += number(rest);
                } else if let Some(rest) = line
                    .strip_prefix("# fail ")
                    .or_else(|| line.strip_prefix("# cancelled "))
                {
                    totals.failed += number(rest);
                } else if let Some(rest) = line.strip_prefix("# skipped ") {
                    totals.ignored += number(rest);
                }
            }
            // The line with which our drivers close, since unittest's own has a different shape for each outcome.
            Self::Nio | Self::Synapse => {
                let name = if matches!(self, Self::Nio) {
                    "matrix-nio: "
                } else {
                    "federation: "
                };
                if let Some(rest) = line.strip_prefix(name) {
                    for part in rest.split(", ") {
                        match part.split_once(' ') {
                            Some((count, "passed")) => totals.passed += number(count),
                            Some((count, "failed")) => totals.failed += number(count),
                            Some((count, "skipped")) => totals.ignored += number(count),
                            _ => {}
                        }
                    }
                }
            }
        }
    }
}

fn prepare_js() -> Outcome<Command> {
    machine::prepare(machine::NODE)?;
    // Makes the certificates of servers that reach each other.
    machine::prepare(machine::IMAGE)?;
    let version = process::output(process::command("node").arg("--version"))?;
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST_NODE) {
        return Err(Failure::new(format!(
            "matrix-js-sdk needs Node.js {OLDEST_NODE} or newer, and this is {version}"
        )));
    }
    let dir = workspace::root().join("tests/sdk/js");
    let stamp = dir.join("node_modules/.installed-from");
    up_to_date(&stamp, &dir.join("package-lock.json"), || {
        process::run(
            process::command("npm")
                .args([
                    "ci",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                    "--loglevel=error",
                ])
                .current_dir(&dir),
        )
    })?;
    let mut tests = process::command("node");
    // Forced, because timers of the SDK outlive its clients by minutes.
    tests
        .args([
            "--test",
            "--test-force-exit",
            "--test-reporter=tap",
            "conversation.test.js",
            "encryption.test.js",
        ])
        .current_dir(&dir);
    Ok(tests)
}

/// Installs what the tests in `dir` require into an environment of Python's below the target directory.
fn prepare_python(dir: &str, environment: &str, script: &str) -> Outcome<Command> {
    machine::prepare(machine::PYTHON)?;
    let dir = workspace::root().join(dir);
    let environment = workspace::target().join(environment);
    let requirements = dir.join("requirements.txt");
    up_to_date(&environment.join("installed-from"), &requirements, || {
        process::run(
            process::command("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        )?;
        process::run(
            process::command(environment.join("bin/pip"))
                .args([
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--requirement",
                ])
                .arg(&requirements),
        )
    })?;
    let mut tests = process::command(environment.join("bin/python"));
    tests.args(["-B", script]).current_dir(&dir);
    Ok(tests)
}

/// `federation`: the tests with Synapse alone.
pub(crate) fn federation() -> Outcome {
    machine::prepare(machine::BUILD)?;
    let binary = machine::build_server(Beside::Tests)?;
    let mut tests = Sdk::Synapse.prepare()?;
    let totals = Sdk::Synapse.run(&mut tests, &binary)?;
    println!("{totals}");
    if totals.failed == 0 {
        Ok(())
    } else {
        Err(Failure::new("tests failed; their names stand above"))
    }
}

/// Calls `install` unless `stamp` says that what `source` asks for is installed.
fn up_to_date(stamp: &Path, source: &Path, install: impl FnOnce() -> Outcome) -> Outcome {
    let wanted = workspace::read(source)?;
    if fs::read_to_string(stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted).map_err(|cause| Failure::file("write", stamp, &cause))
}

#[cfg(test)]
mod tests {
    use super::Sdk;
    use crate::test::Totals;

    fn counted(sdk: Sdk, lines: &str) -> Totals {
        let mut totals = Totals::default();
        for line in lines.lines() {
            sdk.count(line, &mut totals);
        }
        totals
    }

    #[test]
    fn totals_of_node_are_read_from_its_closing_lines() {
        let tap =
            "ok 1 - a\n# tests 7\n# suites 0\n# pass 5\n# fail 1\n# cancelled 1\n# skipped 0\n";
        assert_eq!(
            counted(Sdk::Js, tap),
            Totals {
                passed: 5,
                failed: 2,
                ignored: 0
            }
        );
    }

    #[test]
    fn totals_of_our_drivers_are_read_from_their_closing_line() {
        let totals = Totals {
            passed: 6,
            failed: 1,
            ignored: 0,
        };
        for (sdk, name) in [(Sdk::Nio, "matrix-nio"), (Sdk::Synapse, "federation")] {
            let lines = format!("Ran 7 tests\n{name}: 6 passed, 1 failed, 0 skipped");
            assert_eq!(counted(sdk, &lines), totals);
        }
    }
}
