//! What holds between crates: the table of the architecture is the workspace, and dependencies point one way.

use std::{fs, path::Path};

/// What a crate must not depend on, since not knowing it is what the crate promises. A name ending in `*` is a prefix.
const ABSENCES: &[(&str, &[&str])] = &[
    ("types", &["tokio", "axum", "rocksdb", "ruma*"]),
    ("config", &["axum", "rocksdb", "tokio"]),
    ("runtime", &["axum", "rocksdb", "ruma*"]),
    ("store", &["axum", "ruma*"]),
    ("rules", &["tokio", "axum", "rocksdb"]),
    ("state", &["tokio", "axum", "rocksdb", "ruma*"]),
    ("data", &["axum", "rocksdb"]),
    ("rooms", &["axum", "rocksdb"]),
    ("accounts", &["axum", "rocksdb"]),
    ("federation", &["axum", "rocksdb"]),
    ("sync", &["axum", "rocksdb"]),
    ("client-api", &["rocksdb"]),
    ("federation-api", &["rocksdb"]),
    ("homeserver", &["rocksdb"]),
    ("testkit", &["rocksdb"]),
];

/// Compares the table of crates in the text of ARCHITECTURE.md with the workspace, order included.
pub(super) fn check_table(architecture: &str, members: &[String], findings: &mut Vec<String>) {
    let described = table(architecture);
    let actual: Vec<&str> = members.iter().map(|member| name(member)).collect();
    for missing in actual.iter().filter(|name| !described.contains(name)) {
        findings.push(format!(
            "docs/ARCHITECTURE.md: has no row for the crate `{missing}`"
        ));
    }
    for gone in described.iter().filter(|name| !actual.contains(name)) {
        findings.push(format!(
            "docs/ARCHITECTURE.md: describes `{gone}`, which is no member of the workspace"
        ));
    }
    if described.len() == actual.len() && described != actual {
        let at = described.iter().zip(&actual).find(|(a, b)| a != b);
        if let Some((described, actual)) = at {
            findings.push(format!(
                "docs/ARCHITECTURE.md: lists `{described}` where the workspace, from leaf to root, has `{actual}`"
            ));
        }
    }
}

/// The first column of the table whose heading starts with `| crate |`.
fn table(text: &str) -> Vec<&str> {
    text.lines()
        .skip_while(|line| !line.starts_with("| crate |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1))
        .map(|cell| cell.trim().trim_matches('`'))
        .collect()
}

/// Checks the manifest of the member at `place`: it depends on members above it only, and on nothing it promises not to know.
pub(super) fn check_manifest(
    members: &[String],
    place: usize,
    manifest: &str,
    findings: &mut Vec<String>,
) {
    let member = &members[place];
    for dependency in dependencies(manifest) {
        let target = members
            .iter()
            .position(|other| dependency.strip_prefix("myelin-") == Some(name(other)));
        if target.is_some_and(|target| target >= place) {
            findings.push(format!(
                "{member}/Cargo.toml: depends on {dependency}, which stands below it in the workspace"
            ));
        }
        let absences = ABSENCES
            .iter()
            .find(|(of, _)| *of == name(member))
            .map_or(&[][..], |(_, absences)| absences);
        let forbidden = absences.iter().any(|absence| {
            absence
                .strip_suffix('*')
                .map_or(*absence == dependency, |start| {
                    dependency.starts_with(start)
                })
        });
        if forbidden {
            findings.push(format!(
                "{member}/Cargo.toml: depends on {dependency}, which this crate promises not to know"
            ));
        }
    }
}

/// The names in `[dependencies]` and `[build-dependencies]`. What only tests use may point anywhere.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut counts = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            counts = section == "dependencies]" || section == "build-dependencies]";
            for start in ["dependencies.", "build-dependencies."] {
                if let Some(rest) = section.strip_prefix(start) {
                    found.push(rest.trim_end_matches(']'));
                }
            }
        } else if counts && !line.is_empty() && !line.starts_with('#') {
            let end = line.find(['.', '=', ' ']).unwrap_or(line.len());
            found.push(&line[..end]);
        }
    }
    found
}

/// A crate has at most one binary of integration tests: every one of them links the whole store.
pub(super) fn check_tests(root: &Path, member: &str, findings: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(member).join("tests"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let binary = name.ends_with(".rs") || entry.path().join("main.rs").is_file();
        if binary && name != "it" {
            findings.push(format!(
                "{member}/tests/{name}: a second binary of integration tests; make it a module of tests/it/main.rs"
            ));
        }
    }
}

fn name(member: &str) -> &str {
    member.rsplit('/').next().unwrap_or(member)
}

#[cfg(test)]
mod tests {
    use super::{check_manifest, check_table, dependencies};

    const TABLE: &str = "# A\n\n| crate | is | is not |\n| --- | --- | --- |\n| `types` | a | b |\n| `store` | a | b |\n\nText | more |\n";

    fn members(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("src/{name}")).collect()
    }

    fn table_findings(names: &[&str]) -> usize {
        let mut findings = Vec::new();
        check_table(TABLE, &members(names), &mut findings);
        findings.len()
    }

    #[test]
    fn the_table_is_the_workspace() {
        assert_eq!(table_findings(&["types", "store"]), 0);
        assert_eq!(table_findings(&["store", "types"]), 1);
        assert_eq!(table_findings(&["types", "store", "rooms"]), 1);
        assert_eq!(table_findings(&["types"]), 1);
    }

    #[test]
    fn dependencies_are_found_in_every_notation() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\n# why\nb.workspace = true\nc = \"1\"\nd={ path = \"d\" }\n[dependencies.e]\nversion = \"1\"\n[dev-dependencies]\nf = \"1\"\n";
        assert_eq!(dependencies(manifest), ["b", "c", "d", "e"]);
    }

    #[test]
    fn dependencies_point_up_and_keep_promises() {
        let members = members(&["types", "store", "rooms"]);
        let check = |place, manifest| {
            let mut findings = Vec::new();
            check_manifest(&members, place, manifest, &mut findings);
            findings.len()
        };
        assert_eq!(
            check(2, "[dependencies]\nmyelin-store.workspace = true\n"),
            0
        );
        assert_eq!(
            check(1, "[dependencies]\nmyelin-rooms.workspace = true\n"),
            1
        );
        assert_eq!(
            check(1, "[dependencies]\nruma-common = \"1\"\nrocksdb = \"1\"\n"),
            1
        );
    }
}
