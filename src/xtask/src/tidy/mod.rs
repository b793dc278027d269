//! `tidy`: what holds for every file and every crate and what no compiler checks. All findings are printed, not only the first.

mod crates;
mod files;

use crate::{
    failure::{Failure, Outcome},
    workspace,
};

/// Runs all checks on the work tree.
pub(crate) fn run() -> Outcome {
    let findings = findings()?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("The tree is tidy.");
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{} thing(s) are untidy; docs/conventions.md says why they are asked for",
            findings.len()
        )))
    }
}

fn findings() -> Outcome<Vec<String>> {
    let root = workspace::root();
    let mut findings = Vec::new();
    for path in workspace::files(&root)? {
        // What is not text has neither lines nor names in it.
        if let Ok(text) = std::fs::read_to_string(&path) {
            let name = path.strip_prefix(&root).unwrap_or(&path);
            files::check(&name.to_string_lossy(), &text, &mut findings);
        }
    }
    let manifest = workspace::read(&root.join("Cargo.toml"))?;
    let members = workspace::members(&manifest);
    let architecture = workspace::read(&root.join("docs/ARCHITECTURE.md"))?;
    crates::check_table(&architecture, &members, &mut findings);
    for (place, member) in members.iter().enumerate() {
        let manifest = workspace::read(&root.join(member).join("Cargo.toml"))?;
        crates::check_manifest(&members, place, &manifest, &mut findings);
        crates::check_tests(&root, member, &mut findings);
    }
    Ok(findings)
}
