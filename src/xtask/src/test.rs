//! `test`: the workspace's own tests, then those with client SDKs and with Synapse, with one count over all of them.

use std::fmt;

use crate::{
    failure::{Failure, Outcome},
    machine::{self, Beside},
    process,
    sdk::{Sdk, Wish},
};

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Ran and held.
    pub(crate) passed: u64,
    /// Ran and did not hold, or broke off.
    pub(crate) failed: u64,
    /// Were not run because they say so themselves.
    pub(crate) ignored: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// Adds what a closing line of libtest says; other lines count nothing.
    fn count_libtest(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            if let Some((number, what)) = part.split_once(' ') {
                let number = number.parse::<u64>().unwrap_or(0);
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} skipped", self.ignored)?;
        }
        Ok(())
    }
}

/// What ran, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Report {
    parts: Vec<(&'static str, Totals)>,
    left_out: Vec<String>,
}

impl Report {
    /// All parts together.
    pub(crate) fn totals(&self) -> Totals {
        let mut all = Totals::default();
        for (_, totals) in &self.parts {
            all.add(*totals);
        }
        all
    }

    /// Prints a line for each part and closes with the sum; a failed test makes it a failure.
    pub(crate) fn close(&self) -> Outcome {
        println!();
        for (name, totals) in &self.parts {
            println!("{name}: {totals}");
        }
        for note in &self.left_out {
            println!("Not run: {note}");
        }
        let all = self.totals();
        if all.failed == 0 {
            println!("All tests that ran passed.\n{all}");
            Ok(())
        } else {
            println!("{all}");
            Err(Failure::new("tests failed; their names stand above"))
        }
    }
}

/// Prepares the machine and runs the tests. A test that fails is part of the report; a failure here means that something
/// could not be built or started.
pub(crate) fn run(sdks: Wish) -> Outcome<Report> {
    machine::prepare(machine::BUILD)?;
    let mut report = Report::default();

    let mut totals = Totals::default();
    let succeeded = process::lines(
        machine::cargo().args(["test", "--workspace", "--no-fail-fast"]),
        |line| {
            println!("{line}");
            totals.count_libtest(line);
        },
    )?;
    // Without a count the tests were not even started: something does not compile.
    if !succeeded && totals.failed == 0 {
        return Err(Failure::new(
            "the tests could not be built or broke off; the reason stands above",
        ));
    }
    report.parts.push(("Rust", totals));

    if sdks == Wish::No {
        report
            .left_out
            .push("the client SDKs and Synapse, as asked for".to_owned());
        return Ok(report);
    }
    let binary = machine::build_server(Beside::Tests)?;
    for sdk in Sdk::ALL {
        match sdk.prepare() {
            Ok(mut tests) => {
                println!("\n{} against the server", sdk.name());
                report
                    .parts
                    .push((sdk.name(), sdk.run(&mut tests, &binary)?));
            }
            Err(reason) if sdks == Wish::WherePossible => {
                report.left_out.push(format!("{}: {reason}", sdk.name()));
            }
            Err(reason) => return Err(reason),
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::Totals;

    #[test]
    fn closing_lines_of_libtest_add_up() {
        let mut totals = Totals::default();
        for line in [
            "running 3 tests",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 4 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            totals.count_libtest(line);
        }
        assert_eq!(
            totals,
            Totals {
                passed: 6,
                failed: 3,
                ignored: 1
            }
        );
        assert_eq!(totals.to_string(), "6 passed, 3 failed, 1 skipped");
    }
}
