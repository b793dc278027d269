//! `complement`: runs the suite, as every run of ours is done, so that results can be compared.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

use clap::Args;
use serde::Deserialize;

use super::{Test, known};
use crate::{
    engine,
    failure::{Failure, Outcome},
    image, process, workspace,
};

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// A checkout of the suite.
    #[arg(long)]
    suite: PathBuf,
    /// Only the tests that match this regular expression, as `go test -run` takes it.
    #[arg(long)]
    run: Option<String>,
    /// Only the top-level tests of this area of `complement/tests.tsv`.
    #[arg(long, conflicts_with = "run")]
    area: Option<String>,
    /// Where the JSON output goes; below cargo's target directory if not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Take the image that is there instead of building it first.
    #[arg(long)]
    no_build: bool,
    /// Packages below the suite's `tests` directory (`csapi`, `msc3902`, …; `tests` is that directory itself). All if none is given.
    packages: Vec<String>,
}

/// Runs the suite against our image and keeps its JSON output in a file.
pub(crate) fn run(options: &Options) -> Outcome {
    let mut packages = options.packages.clone();
    let mut pattern = options.run.clone();
    if let Some(area) = &options.area {
        let tests: Vec<Test> = known()?
            .into_iter()
            .filter(|known| known.area == *area)
            .map(|known| known.test)
            .collect();
        if tests.is_empty() {
            return Err(Failure::new(format!("no test belongs to an area `{area}`")));
        }
        let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        pattern = Some(format!("^({})$", names.join("|")));
        if packages.is_empty() {
            packages = tests.into_iter().map(|test| test.package).collect();
            packages.sort();
            packages.dedup();
        }
    }

    if options.no_build {
        engine::prepare()?;
    } else {
        image::build()?;
    }
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| workspace::target().join("complement/run.jsonl"));
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir).map_err(|cause| Failure::file("create", dir, &cause))?;
    }
    let mut file = File::create(&out).map_err(|cause| Failure::file("create", &out, &cause))?;

    let mut go = process::command("go");
    go.current_dir(&options.suite)
        .env("COMPLEMENT_BASE_IMAGE", image::TAG)
        .env("COMPLEMENT_ENABLE_DIRTY_RUNS", "1")
        .env("COMPLEMENT_SPAWN_HS_TIMEOUT_SECS", "60")
        .args(["test", "-json", "-count=1", "-p", "1", "-timeout", "80m"]);
    if let Some(pattern) = &pattern {
        go.args(["-run", pattern]);
    }
    if packages.is_empty() {
        go.arg("./tests/...");
    }
    for package in &packages {
        go.arg(match package.as_str() {
            "tests" => "./tests".to_owned(),
            package => format!("./tests/{package}"),
        });
    }

    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut written = Ok(());
    let succeeded = process::lines(&mut go, |line| {
        if written.is_ok() {
            written = writeln!(file, "{line}");
        }
        if let Some((name, action)) = finished(line) {
            println!("{action} {name}");
            match action.as_str() {
                "pass" => passed += 1,
                "fail" => failed += 1,
                _ => skipped += 1,
            }
        }
    })?;
    written.map_err(|cause| Failure::file("write", &out, &cause))?;
    println!(
        "\nThe output is in {}.\nTop-level tests: {passed} passed, {failed} failed, {skipped} skipped",
        out.display()
    );
    if passed + failed + skipped == 0 && !succeeded {
        return Err(Failure::new(
            "the suite did not run; the reason stands in its output",
        ));
    }
    Ok(())
}

/// The name and the action of a top-level test that is over with this line.
fn finished(line: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Event {
        action: String,
        test: Option<String>,
    }
    let event: Event = serde_json::from_str(line).ok()?;
    let name = event.test.filter(|name| !name.contains('/'))?;
    matches!(event.action.as_str(), "pass" | "fail" | "skip").then_some((name, event.action))
}
