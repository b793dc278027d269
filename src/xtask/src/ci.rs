//! `ci`: everything that must hold before a change lands, cheapest first. A step that fails does not keep the others from
//! running, so that one run shows all there is to mend.

use crate::{
    complement,
    failure::{Failure, Outcome},
    image, machine, process,
    sdk::Wish,
    test, tidy,
};

/// Runs every step and closes with the count of the tests.
pub(crate) fn run() -> Outcome {
    machine::prepare(machine::BUILD)?;
    let mut failed = Vec::new();
    let mut step = |name: &'static str, outcome: Outcome| {
        if let Err(failure) = outcome {
            println!("{name} failed: {failure}");
            failed.push(name);
        }
    };

    heading("formatting");
    step(
        "formatting",
        process::run(process::cargo().args(["fmt", "--all", "--check"])),
    );
    heading("tidiness");
    step("tidiness", tidy::run());
    heading("the record of Complement");
    step("the record of Complement", complement::check());
    heading("lints");
    step(
        "lints",
        process::run(machine::cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])),
    );
    heading("tests");
    let report = test::run(Wish::WherePossible);
    heading("the image for Complement");
    step("the image for Complement", image::check());

    if !failed.is_empty() {
        println!("\nFailed: {}.", failed.join(", "));
    }
    // The count closes the output, so that whoever reads only its end sees what ran.
    report?.close()?;
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("{} failed", failed.join(", "))))
    }
}

fn heading(name: &str) {
    println!("\n== {name}");
}
