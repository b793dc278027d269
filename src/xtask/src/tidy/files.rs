//! What holds for a single file.

use std::{ffi::OsStr, path::Path};

/// The most lines a file of ours may have before its tests begin. At about 500 it asks to be divided; this is where it must be.
const LONGEST: usize = 700;

/// What stands in no file: hosts of package registries, which a build takes from the machine's configuration, and paths
/// which exist on one machine only. In pieces, so that this file does not find itself.
const NOWHERE: &[(&str, &str)] = &[
    (concat!("registry.npm", "js.org"), "a package registry"),
    (concat!("registry.yarn", "pkg.com"), "a package registry"),
    (concat!("static.crates", ".io"), "a package registry"),
    (concat!("index.crates", ".io"), "a package registry"),
    (concat!("files.python", "hosted.org"), "a package registry"),
    (concat!("pypi", ".org"), "a package registry"),
    (concat!("proxy.go", "lang.org"), "a package registry"),
    (concat!("deb.debian", ".org"), "a package registry"),
    (concat!("/wor", "k/"), "a path of one machine"),
    (concat!("/roo", "t/"), "a path of one machine"),
];

/// Checks the file `name` (relative to the root) with the content `text`.
pub(super) fn check(name: &str, text: &str, findings: &mut Vec<String>) {
    for (at, line) in text.lines().enumerate() {
        for (what, kind) in NOWHERE {
            if line.contains(what) {
                findings.push(format!("{name}:{}: names {kind} ({what})", at + 1));
            }
        }
    }
    if Path::new(name).extension() != Some(OsStr::new("rs")) {
        return;
    }
    if !text.starts_with("//!") {
        findings.push(format!(
            "{name}:1: does not open with `//!`, which says what is here"
        ));
    }
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with(concat!("#[al", "low(")) || line.starts_with(concat!("#![al", "low(")) {
            findings.push(format!(
                "{name}:{}: silences a lint for good; `expect` with a reason expires by itself",
                at + 1
            ));
        }
    }
    if !is_test(name) {
        let length = text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .count();
        if length > LONGEST {
            findings.push(format!(
                "{name}: {length} lines without its tests, of at most {LONGEST}"
            ));
        }
    }
}

fn is_test(name: &str) -> bool {
    name.split('/')
        .any(|part| part == "tests" || part == "tests.rs" || part == "benches")
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, check};

    fn findings(name: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(name, text, &mut findings);
        findings
    }

    #[test]
    fn a_plain_file_is_tidy() {
        assert_eq!(
            findings("src/a/src/lib.rs", "//! Something.\n\nfn a() {}\n"),
            [""; 0]
        );
    }

    #[test]
    fn a_rust_file_says_what_it_is() {
        assert_eq!(findings("a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(findings("a.py", "def a(): pass\n").len(), 0);
    }

    #[test]
    fn lines_of_tests_do_not_count() {
        let long = "//! Long.\n".to_owned() + &"fn a() {}\n".repeat(LONGEST);
        assert_eq!(findings("src/a/src/lib.rs", &long).len(), 1);
        assert_eq!(findings("src/a/tests/it/main.rs", &long).len(), 0);
        let tested = "//! Short.\n#[cfg(test)]\n".to_owned() + &"fn a() {}\n".repeat(LONGEST);
        assert_eq!(findings("src/a/src/lib.rs", &tested).len(), 0);
    }

    #[test]
    fn registries_machines_and_silenced_lints_are_found() {
        let text = [
            "//! Text.",
            concat!("// from https://registry.npm", "js.org/a"),
            concat!("// see /wor", "k/a"),
            concat!("#[al", "low(dead_code)]"),
        ]
        .join("\n");
        assert_eq!(findings("a.rs", &text).len(), 3);
    }
}
